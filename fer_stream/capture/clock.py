"""The capture clock, which gives each picture its time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fer_stream.events.cloudevents import from_rfc3339
from fer_stream.types import Nanoseconds

if TYPE_CHECKING:
    from fer_stream.settings.tree import CameraSettings
    from fer_stream.types import Picture


class Clock:
    """Capture time: for a live camera the wall clock at the start plus monotonic time, for a file its timestamps."""

    def __init__(self, settings: CameraSettings) -> None:
        """Start the clock now."""
        self.start = from_rfc3339(settings.start_time)
        """The capture time at which a recording begins."""
        self._wall, self._began = time.time_ns(), time.monotonic_ns()

    def now(self) -> Nanoseconds:
        """Return the capture time of a live picture that arrives now."""
        return Nanoseconds(self._wall + time.monotonic_ns() - self._began)

    def of(self, picture: Picture) -> Nanoseconds:
        """Return a picture's capture time."""
        return self.now() if picture.offset is None else Nanoseconds(self.start + picture.offset)
