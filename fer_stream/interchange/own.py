"""Reads what fer_stream itself writes: events as JSON lines, tables of faces, and folders of `fer-stream analyze`."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from fer_stream.errors import AnnotationError, WireError
from fer_stream.events.cloudevents import decode
from fer_stream.interchange.annotations import Annotation, Coding, film_name
from fer_stream.interchange.sheets import read_bytes, read_text
from fer_stream.types import CameraData, EventType, ExpressionData

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from fer_stream.interchange.annotations import Span
    from fer_stream.interchange.sheets import Sheet
    from fer_stream.types import Event

KIND = "fer-stream"

SUMMARY, EVENTS, FACES = "summary.json", "events.jsonl", "faces.csv"
"""Files in a folder of `fer-stream analyze`."""

ROWS = frozenset({"frame", "time", "track", "label"})
"""Columns of a table of faces."""


def is_analysis(folder: Path) -> bool:
    """Return whether a folder is one that `fer-stream analyze` wrote for a recording."""
    return (folder / SUMMARY).is_file() and (folder / EVENTS).is_file()


def read_analysis(folder: Path) -> list[Coding]:
    """Return the labels in a folder of `fer-stream analyze`, with the recording's name and duration.

    Raises:
        AnnotationError: a file is missing or damaged.
    """
    path = folder / SUMMARY
    try:
        summary: dict[str, Any] = json.loads(read_text(path))
        source, duration = str(summary["source"]), float(summary["duration_s"])
    except (ValueError, KeyError, TypeError) as error:
        raise AnnotationError(f"{path} is not the summary of a recording: repeat fer-stream analyze") from error
    found = next(iter(read_events(folder / EVENTS, read_bytes(folder / EVENTS))), None)
    if found is None:
        raise AnnotationError(f"{folder / EVENTS} has no events: repeat fer-stream analyze")
    origin = found.origin or 0.0
    moved = tuple(Annotation(one.start - origin, one.end - origin, *_names(one)) for one in found.annotations)
    return [Coding(folder, KIND, moved, film_name(source), None, ((0.0, duration),), found.labels, origin=origin)]


def _names(one: Annotation) -> tuple[str, str]:
    return one.label, one.track


def read_events(path: Path, content: bytes) -> list[Coding]:
    """Return the labels in a file of events as JSON lines: one `Coding` for each camera, with absolute times.

    An interval without an end, as in a file that was cut, ends with the camera's last event.

    Raises:
        AnnotationError: a line is no event.
    """
    cameras: dict[str, _Camera] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            event = decode(line)
        except WireError as error:
            raise AnnotationError(f"{path}, line {number} is no event of fer-stream: {error}") from error
        if event.camera:
            cameras.setdefault(event.camera, _Camera()).take(event)
    return [camera.coding(path, name) for name, camera in cameras.items()]


class _Camera:
    """Gathers the events of one camera."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int, int], Annotation] = {}
        self._open: dict[tuple[int, int, int], Annotation] = {}
        self._spans: list[Span] = []
        self._online: float | None = None
        self._first: float | None = None
        self._last = 0.0
        self._labels: set[str] = set()

    def take(self, event: Event) -> None:
        at = event.time / 1e9
        self._first, self._last = at if self._first is None else min(self._first, at), max(self._last, at)
        if event.type is EventType.CAMERA_ONLINE and self._online is None:
            self._online = at
        elif event.type is EventType.CAMERA_OFFLINE and isinstance(event.data, CameraData):
            self._spans.append((at if self._online is None else self._online, at))
            self._online = None
        elif isinstance(event.data, ExpressionData):
            data = event.data
            self._labels.update(data.probabilities)
            key = (event.epoch, event.track, data.start_time)
            start, end = data.start_time / 1e9, (data.end_time or event.time) / 1e9
            self._first = min(self._first, start)
            spoken = Annotation(start, end, data.label, str(event.track))
            if data.end_time is None:
                self._open[key] = spoken
            else:
                self._found[key] = spoken
                self._open.pop(key, None)

    def coding(self, path: Path, name: str) -> Coding:
        first, last = self._first or 0.0, self._last
        spans = [*self._spans, *([(self._online, last)] if self._online is not None else [])]
        rest = [Annotation(one.start, last, *_names(one)) for one in self._open.values()]
        found = sorted(
            (one for one in [*self._found.values(), *rest] if one.end > one.start), key=lambda one: one.start
        )
        whole = tuple(spans) or ((first, last),)
        return Coding(path, KIND, tuple(found), name, None, whole, frozenset(self._labels), absolute=True, origin=first)


def read_faces(sheet: Sheet) -> list[Coding]:
    """Return the labels in a table of faces. A row counts until the track's next row, if that follows within a second.

    Raises:
        AnnotationError: a row has no time.
    """
    tracks: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    first, last = 0.0, 0.0
    for row in sheet.rows():
        at = sheet.seconds(row, "time")
        last = max(last, at)
        tracks[row.cells["track"]].append((at, row.cells["label"]))
    found: list[Annotation] = []
    for track, rows in tracks.items():
        rows.sort()
        begun: tuple[float, str] | None = None
        for (at, label), (after, following) in pairwise([*rows, (rows[-1][0] + 2 * GAP, "")]):
            begun = begun or (at, label)
            broken = after - at > GAP
            if broken or following != label:
                end = at if broken else after
                if begun[1] and end > begun[0]:
                    found.append(Annotation(begun[0], end, begun[1], track))
                begun = None
    if not tracks:
        return []
    labels = frozenset(scored(sheet.names).values())
    found.sort(key=lambda one: one.start)
    return [Coding(sheet.path, KIND, tuple(found), None, None, ((first, last),), labels, origin=None)]


def scored(names: Sequence[str]) -> dict[int, str]:
    """Return the model's labels in the heading of a table of faces, by their columns.

    Its measures have such columns, too, but their smoothed values follow the column ``quality``.
    """
    rest = names[names.index("quality") :] if "quality" in names else ()
    found = {at: name.removeprefix(SCORED) for at, name in enumerate(names) if name.startswith(SCORED)}
    return {at: label for at, label in found.items() if label not in rest}


SCORED = "scored_"
"""Begins the names of columns with what the model itself said."""

GAP = 1.0
"""Seconds without a row after which a track's label has ended."""
