"""The present state of each camera, as far as its events tell: online or not, faces in view, prevailing expression.

What the events do not tell is ``None``, never a guess. An event's ``sequence`` counts without gaps, so a missing event
is noticed: from then on a camera's faces are unknown, until it goes online or offline or begins anew.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fer_stream.events.cloudevents import SEQUENCE_DIGITS, from_rfc3339, to_rfc3339
from fer_stream.types import EventType, ExpressionData

if TYPE_CHECKING:
    from fer_stream.types import Event

NONE = "none"
"""The prevailing expression if no face shows any."""


class Shown(BaseModel):
    """A camera's state as it is published, in JSON; `Presence` continues from it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    camera: Annotated[str, Field(max_length=255)]
    online: bool | None
    faces: int | None
    """How many are in view."""
    expression: str | None
    """The label that most faces show; of equals, that of the face which came first; or `NONE`."""
    labels: list[str]
    """Those that are possible, as far as they are known."""
    tracks: dict[str, str | None]
    """The label of each face in view, or of those that are known of, by the number of its track."""
    sequence: Annotated[str, Field(pattern=rf"^\d{{{SEQUENCE_DIGITS}}}$")]
    time: str
    discovery: str | None = None
    """The prefix under which Home Assistant was told about the camera."""


@dataclass(slots=True)
class _Camera:
    sequence: int = 0
    """Of the latest event; 0 if it is not known."""
    online: bool | None = None
    complete: bool = False
    """Whether ``tracks`` are all faces in view."""
    tracks: dict[int, str | None] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    time: int = 0

    def lose(self) -> None:
        """Forget everything that a missing event could have changed."""
        self.online, self.complete, self.tracks = None, False, {}

    def begin(self, online: bool) -> None:
        self.online, self.complete, self.tracks = online, True, {}


class Presence:
    """The states of all cameras. Each event may come more than once, as long as the first ones come in order."""

    def __init__(self) -> None:
        self._cameras: dict[str, _Camera] = {}

    def take(self, event: Event) -> set[str]:
        """Take an event, and return the cameras whose state it changes."""
        if event.type is EventType.STREAM_GAP:
            for one in self._cameras.values():
                one.lose()
                one.sequence = 0  # it may be another journal, which counts anew
            return set(self._cameras)
        camera = self._cameras.setdefault(event.camera, _Camera())
        if camera.sequence and event.sequence <= camera.sequence:
            return set()
        if camera.sequence and event.sequence > camera.sequence + 1:
            camera.lose()
        camera.sequence, camera.time = event.sequence, event.time
        self._apply(camera, event)
        return {event.camera}

    @staticmethod
    def _apply(camera: _Camera, event: Event) -> None:
        family, _, what = event.type.partition(".")
        if family == "camera":
            camera.begin(online=what != "offline")
            return
        if family in ("zone", "line"):
            return
        if isinstance(event.data, ExpressionData) and event.data.probabilities:
            camera.labels = tuple(event.data.probabilities)
        if what == "left":
            camera.tracks.pop(event.track, None)
        elif what == "entered":
            camera.online = True
            camera.tracks[event.track] = None
        elif what == "ended":
            if event.track in camera.tracks:
                camera.tracks[event.track] = None
        elif isinstance(event.data, ExpressionData):
            camera.online = True
            camera.tracks[event.track] = event.data.label

    def cameras(self) -> set[str]:
        """Return the names of all cameras of which there is a state."""
        return set(self._cameras)

    def show(self, name: str) -> Shown:
        """Return a camera's state."""
        camera = self._cameras[name]
        faces = len(camera.tracks) if camera.complete else None
        counts = Counter(label for _, label in sorted(camera.tracks.items()) if label is not None)
        prevailing = counts.most_common(1)[0][0] if counts else NONE
        return Shown(
            camera=name,
            online=camera.online,
            faces=faces,
            expression=None if faces is None else prevailing,
            labels=list(camera.labels),
            tracks={str(track): label for track, label in camera.tracks.items()},
            sequence=f"{camera.sequence:0{SEQUENCE_DIGITS}d}",
            time=to_rfc3339(camera.time),
        )

    def restore(self, shown: Shown, *, continued: bool) -> None:
        """Continue from a state that was published earlier, unless the camera has a state already.

        Args:
            shown: what `show` returned.
            continued: whether every event since then follows. Otherwise the camera is known, but its state is not.
        """
        if shown.camera in self._cameras:
            return
        camera = self._cameras[shown.camera] = _Camera(labels=tuple(shown.labels), time=from_rfc3339(shown.time))
        if continued:
            camera.sequence, camera.online, camera.complete = int(shown.sequence), shown.online, shown.faces is not None
            camera.tracks = {int(track): label for track, label in shown.tracks.items()}


def read(payload: bytes) -> Shown | None:
    """Return the state in a message, or ``None`` if it is not one."""
    try:
        shown = Shown.model_validate_json(payload)
        from_rfc3339(shown.time)
        if not all(track.isascii() and track.isdigit() for track in shown.tracks):
            return None
    except (ValidationError, ValueError):
        return None
    return shown
