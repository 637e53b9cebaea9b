"""The standard output sink: ``pretty`` prints one readable line per event, ``jsonl`` the events' JSON."""

from __future__ import annotations

import errno
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.sinks.lines import Lines
from fer_stream.types import CameraData, Event, EventType, ExpressionData, FaceData, GapData, LineData, ZoneData

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_stream.plugins import Sink

BOLD, DIM, RED, YELLOW = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[33m"
RESET = "\x1b[0m"

COLOURS = {
    EventType.FACE_ENTERED: BOLD,
    EventType.EMOTION_STARTED: BOLD,
    EventType.VALENCE_STARTED: BOLD,
    EventType.FACE_LEFT: DIM,
    EventType.ZONE_LEFT: DIM,
    EventType.EMOTION_ENDED: DIM,
    EventType.VALENCE_ENDED: DIM,
    EventType.CAMERA_OFFLINE: YELLOW,
    EventType.CAMERA_RESET: YELLOW,
    EventType.STREAM_GAP: RED,
}


def open_sink(argument: str) -> Sink:
    """Open standard output; ``argument`` is ``pretty`` (or empty) or ``jsonl``.

    Raises:
        ConfigError: ``argument`` has another value.
    """
    if argument in {"", "pretty"}:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        return Stdout(lambda event, _: pretty(event, colour=colour))
    if argument == "jsonl":
        return Stdout(lambda _, text: text)
    raise ConfigError(f"there is no format {argument!r}; use pretty or jsonl")


class Stdout:
    """Writes each event at once.

    A pipe whose reader has closed it (``| head``) and a closed terminal are no errors: ``closed`` becomes true, further
    events are dropped, and the caller may end.
    """

    def __init__(self, line: Callable[[Event, str], str]) -> None:
        self._line = line
        self.closed = False
        sys.stdout.flush()
        buffer = sys.stdout.buffer
        # Unbuffered, so that at the process's end no flush of a buffer can block on a reader that does not read.
        self._lines = Lines(getattr(buffer, "raw", buffer))
        self._terminal = sys.stdout.isatty()

    def write(self, event: Event, text: str) -> None:
        """Print one event; this blocks while the reader does not read.

        Raises:
            FerStreamError: standard output cannot be written, for example because the disk behind it is full.
        """
        if self.closed:
            return
        try:
            self._lines.write(self._line(event, text))
        except OSError as error:
            if isinstance(error, BrokenPipeError) or (self._terminal and error.errno == errno.EIO):
                self.closed = True
                return
            raise FerStreamError(f"events cannot be written to standard output: {error.strerror}") from error

    def close(self) -> None:
        """Stop writing; standard output itself stays open."""
        self.closed = True


def pretty(event: Event, *, colour: bool = False) -> str:
    """Return one event as a line: time, camera, track, event type, details.

    The time is the time of day (UTC), or the position in a file. The duration of a face or an expression is how long it
    has lasted so far, in seconds; the probability is the mean.
    """
    time = datetime.fromtimestamp(event.time // 1_000_000_000, UTC)
    columns = [
        f"{time:%H:%M:%S}.{event.time // 1_000_000 % 1000:03d}",
        f"{event.camera:<10}",
        f"{f'#{event.track}' if event.track else '':>4}",
        f"{event.type.replace('.', ' '):<16}",
        _details(event),
    ]
    line = "  ".join(columns).rstrip()
    begin = COLOURS.get(event.type) if colour else None
    return f"{begin}{line}{RESET}" if begin else line


def _details(event: Event) -> str:
    match event.data:
        case CameraData(reason, width, height):
            return f"{reason}, {width}x{height}" if width else reason
        case FaceData():
            return f"{'':<14}{_duration(event.data.duration_ms)}"
        case ExpressionData(label=label, previous=previous, probability=probability, duration_ms=duration):
            after = f"  after {previous}" if previous else ""
            return f"{label:<10}{probability.mean:>4.0%}{_duration(duration)}{after}"
        case ZoneData(zone=zone, duration_ms=duration):
            return f"{zone:<14}{_duration(duration)}"
        case LineData(line=line, direction=direction):
            return f"{line}  {direction}"
        case GapData(reason="another journal" as reason):
            return f"all events anew: {reason}"
        case GapData(begin, end, reason):
            return f"events after cursor {begin}, up to {end}, are gone: {reason}"


def _duration(milliseconds: int) -> str:
    return f"{milliseconds / 1000:>8.1f} s" if milliseconds else f"{'':>10}"
