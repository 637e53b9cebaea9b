"""A buffer of one frame between the reader thread and the sender, with the capture's frame counts."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fer_stream.protocol.messages import Totals

if TYPE_CHECKING:
    from fer_stream.settings.kinds import Policy
    from fer_stream.types import Frame


class Slot:
    """A buffer of one frame between the reader and the sender; it also counts the capture's frames.

    With ``drop_oldest`` a newer frame replaces one that was not taken (which is *superseded*). With ``wait`` the reader
    waits until the frame is taken.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._changed = threading.Condition()
        self._held: tuple[Frame, float] | None = None
        self._captured = self._superseded = self._rejected = self._sent = 0
        self._closed = False

    def put(self, frame: Frame, taken: float) -> bool:
        """Put a frame read at monotonic time ``taken`` (s). Once closed, return ``False`` and count nothing."""
        with self._changed:
            while self._policy == "wait" and self._held is not None and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._superseded += self._held is not None
            self._captured += 1
            self._held = (frame, taken)
            return True

    def reject(self) -> None:
        """Count a captured frame that must not be sent. Once closed, count nothing."""
        with self._changed:
            self._captured += not self._closed
            self._rejected += not self._closed

    def take(self) -> tuple[Frame, float] | None:
        """Remove and return the frame, which counts as sent from now on; ``None`` if there is none."""
        with self._changed:
            held, self._held = self._held, None
            self._sent += held is not None
            self._changed.notify_all()
            return held

    def state(self) -> tuple[Totals, bool]:
        """Return the totals, and whether the slot holds a frame."""
        with self._changed:
            totals = Totals(self._captured, self._superseded, self._rejected, self._sent)
            return totals, self._held is not None

    @property
    def closed(self) -> bool:
        """Whether no more frames will come."""
        return self._closed

    def close(self) -> None:
        """Accept no more frames; a held frame can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
