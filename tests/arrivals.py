"""Headers of frames, for tests of the dispatcher."""

from __future__ import annotations

from fer_stream.aggregator.frames import Arrival
from fer_stream.types import Nanoseconds


def arrived(frame: int, taken: float) -> Arrival:
    """Return the header of a frame of this number, taken at so many monotonic seconds."""
    return Arrival(epoch=1, frame=frame, time=Nanoseconds(0), taken=taken, size=(640, 480))
