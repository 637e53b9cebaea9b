"""Reads files that fer_stream writes: events as JSON lines, tables of faces and events, and folders of analyses."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from fer_stream.errors import AnnotationError, WireError
from fer_stream.events.cloudevents import decode
from fer_stream.interchange.annotations import Annotation, Coding, film_name
from fer_stream.interchange.sheets import MISSING, read_bytes, read_text
from fer_stream.types import CameraData, EventType, ExpressionData

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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

EVENT_ROWS = frozenset({"sequence", "type", "time", "track", "label", "start", "end"})
"""Columns of a table of events."""

_LABELLED = frozenset(f"{what}.{which}" for what in ("emotion", "valence") for which in ("started", "updated", "ended"))
"""Types of the events that have a label."""


def is_analysis(folder: Path) -> bool:
    """Return whether a folder is one that `fer-stream analyze` wrote for a recording."""
    return (folder / SUMMARY).is_file() and (folder / EVENTS).is_file()


def missing(folder: Path) -> str:
    """Return why an incomplete folder of `fer-stream analyze` cannot be compared; empty for any other folder."""
    if (folder / EVENTS).is_file() and (folder / FACES).is_file():
        return f"{folder} has events, but no {SUMMARY}: repeat fer-stream analyze"
    if (folder / SUMMARY).is_file() and not (folder / EVENTS).is_file():
        return f"{folder} has no {EVENTS}: unrelated pictures have no times, and cannot be compared; give a recording's"
    return ""


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
            raise AnnotationError(f"{path}, line {number} is no event of fer-stream; is the file complete?") from error
        if event.camera:
            cameras.setdefault(event.camera, _Camera()).take(event)
    return [camera.coding(path, name) for name, camera in cameras.items()]


class _Camera:
    """Collects the labels in the events of one camera."""

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
            begin = self._first if self._online is None and not self._spans else self._online  # it was before the file
            self._spans.append((at if begin is None else begin, at))
            self._online = None
        elif isinstance(event.data, ExpressionData):
            data = event.data
            self._labels.update(data.probabilities)
            key = (event.epoch, event.track, data.start_time)
            start, end = data.start_time / 1e9, (data.end_time or event.time) / 1e9
            self._first = min(self._first, start)
            annotation = Annotation(start, end, data.label, str(event.track))
            if data.end_time is None:
                self._open[key] = annotation
            else:
                self._found[key] = annotation
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
    """Return the labels in a table of faces, of one film or of several with their names in the column ``film``.

    A row's label lasts until the track's next row, if that follows within a second.

    Raises:
        AnnotationError: a row has no time.
    """
    films: defaultdict[str, defaultdict[str, list[tuple[float, str]]]] = defaultdict(lambda: defaultdict(list))
    for row in sheet.rows():
        tracks = films[row.cells.get(FILM, "")]
        tracks[row.cells["track"]].append((sheet.seconds(row, "time"), row.cells["label"]))
    labels = frozenset(scored(sheet.names).values())
    return [
        Coding(sheet.path, KIND, _runs(tracks), film or None, None, (_range(tracks),), labels)
        for film, tracks in films.items()
    ]


def _range(tracks: Mapping[str, Sequence[tuple[float, str]]]) -> Span:
    """Return the part of the film from its beginning to its last row."""
    times = [at for rows in tracks.values() for at, _ in rows]
    return min(0.0, *times), max(times)


def _runs(tracks: Mapping[str, list[tuple[float, str]]]) -> tuple[Annotation, ...]:
    """Return the spans of each track's rows with the same label."""
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
    return tuple(sorted(found, key=lambda one: one.start))


def read_event_table(sheet: Sheet) -> list[Coding]:
    """Return the labels in a table of events, of one film or of several with their names in the column ``film``.

    An interval has several rows, from its start to its end; the last of them counts.

    Raises:
        AnnotationError: a row has no time.
    """
    films: defaultdict[str, dict[tuple[str, str], Annotation]] = defaultdict(dict)
    ends: defaultdict[str, float] = defaultdict(float)
    for row in sheet.rows():
        film, track, at = row.cells.get(FILM, ""), row.cells["track"], sheet.seconds(row, "time")
        ends[film] = max(ends[film], at)
        if row.cells["type"] in _LABELLED:
            start = sheet.seconds(row, "start")
            end = at if row.cells["end"].lower() in MISSING else sheet.seconds(row, "end")
            films[film][track, row.cells["start"]] = Annotation(start, end, sheet.text(row, "label"), track)
    prefix = "probability_"
    labels = frozenset(name.removeprefix(prefix) for name in sheet.names if name.startswith(prefix))
    found = []
    for film, end in ends.items():
        kept = sorted((one for one in films[film].values() if one.end > one.start), key=lambda one: one.start)
        found.append(Coding(sheet.path, KIND, tuple(kept), film or None, None, ((0.0, end),), labels))
    return found


def scored(names: Sequence[str]) -> dict[int, str]:
    """Return the model's labels by the index of their columns, from the heading of a table of faces.

    Measures have columns with the same prefix, but they also have smoothed values after the column ``quality``.
    """
    rest = names[names.index("quality") :] if "quality" in names else ()
    found = {at: name.removeprefix(SCORED) for at, name in enumerate(names) if name.startswith(SCORED)}
    return {at: label for at, label in found.items() if label not in rest}


SCORED = "scored_"
"""Prefix of the columns with the model's own scores."""

FILM = "film"
"""The column with the film's name, in tables of several films."""

GAP = 1.0
"""Seconds without a row after which a track's label has ended."""
