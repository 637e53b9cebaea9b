"""What captures and workers are asked about: whether they belong to this aggregator, or where they belong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fer_stream.fleet.records import Answer


class Home(Protocol):
    """What `Captures` and `Workers` ask about each camera and each worker. The answers may change at any time.

    A camera leaves in three steps. `gives` becomes true: the aggregator asks its capture for no more frames, resolves
    those that it asked for, and stores all its events (then `Captures.closed` is true). `answer` names another place:
    the capture is sent there, with the outcomes of its frames, and the camera is forgotten. If `gives` becomes false
    again instead, the camera goes on here.
    """

    def answer(self, camera: str) -> Answer:
        """Return whether a camera is served here, or where it belongs."""
        ...

    def gives(self, camera: str) -> bool:
        """Return whether a camera that is served here is given to another aggregator."""
        ...

    def answer_worker(self) -> Answer:
        """Return whether workers are welcome. If they are not, idle ones are sent to the place named, one a second."""
        ...
