"""Events for a journal, and reading and changing a journal's file."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

from fer_stream.journal.sqlite import Reader
from fer_stream.types import (
    Box,
    CameraData,
    Event,
    EventType,
    ExpressionData,
    FaceData,
    LineData,
    Milliseconds,
    Nanoseconds,
    Probability,
    ZoneData,
)

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.journal.sqlite import Writer


SECOND = 1_000_000_000


BOX = Box(10.0, 10.0, 50.0, 50.0)


def event(
    kind: str, camera: str = "door", frame: int = 1, track: int = 0, epoch: int = 1, label: str = "happy"
) -> Event:
    time = Nanoseconds(frame * SECOND)
    open_ = not kind.endswith(("left", "ended"))
    end, duration = (None if open_ else time), Milliseconds(frame * 1000)
    start = Nanoseconds(0)
    data: CameraData | FaceData | ExpressionData | ZoneData | LineData
    if kind.startswith("camera"):
        data = CameraData("test", 640, 480)
    elif kind.startswith("face"):
        data = FaceData(start, end, duration, BOX, 0.9)
    elif kind.startswith("zone"):
        data = ZoneData("till", start, end, duration, BOX, 0.9)
    elif kind.startswith("line"):
        data = LineData("door", "in", BOX, 0.9)
    else:
        data = ExpressionData(start, end, duration, label, None, Probability(0.5, 0.6), {label: 0.6}, BOX, 0.9)
    return Event(EventType(kind), camera, epoch, frame, track, time, data)


def since(second: int, made: Event) -> Event:
    """Return the same event, of a face or an interval that began then."""
    return replace(made, data=replace(made.data, start_time=Nanoseconds(second * SECOND)))  # type: ignore[type-var, call-arg]


def resets(count: int, camera: str = "door", first: int = 1) -> list[Event]:
    return [event("camera.reset", camera, frame) for frame in range(first, first + count)]


def everything(path: Path, after: int = 0) -> list[str]:
    with Reader(path) as reader:
        return reader.read(after, limit=100_000)[0]


def execute(path: Path, *statements: str) -> None:
    """Change the file directly, while other processes may have it open."""
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def limit(journal: Writer, pages: int) -> None:
    """Let the file grow by at most ``pages`` pages, as on a disk that is nearly full."""
    with journal._db.transaction() as db:
        now = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {now + pages}")
