"""The data that are exported of a recording: for each track its stay and the intervals of its labels."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from fer_stream.events.cloudevents import from_rfc3339
from fer_stream.interchange.annotations import IN_VIEW
from fer_stream.types import EventType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

UNCERTAIN = "uncertain"
"""The text for the time in which a face is in view without a label."""

_ENDED = (EventType.EMOTION_ENDED, EventType.VALENCE_ENDED)


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a track, in seconds of the film's clock: an interval of a label, or (without a label) the stay.

    ``probability`` is the label's mean over the interval, 0 to 1.
    """

    track: int
    start: float
    end: float
    label: str | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording to export.

    Args:
        name: the beginning of the files' names.
        title: the recording's file name.
        media: the path of the recording from the folder of the files, with ``/``; its address if it is on a server;
            ``None`` if no player can show it.
        duration: the time of the last frame, in seconds.
        frames: the number of frames.
        version: the version of fer-stream.
        model: the name and version of the model.
        labels: the labels that the model may give, in its order.
        spans: the stays and intervals.
    """

    name: str
    title: str
    media: str | None
    duration: float
    frames: int
    version: str
    model: str
    labels: tuple[str, ...]
    spans: tuple[Span, ...]

    @property
    def author(self) -> str:
        """The program and the model that made the intervals."""
        return f"fer-stream {self.version}, model {self.model}"

    @property
    def vocabulary(self) -> list[str]:
        """The texts of the model's labels, and of any other label of a span, as `label_text` returns them."""
        found = dict.fromkeys((*self.labels, *(span.label for span in self.spans if span.label)))
        return [label_text(label) for label in found]


def read_events(path: Path, start: int) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """Return the spans in ``events.jsonl``, by start and track, and the labels that the model may give.

    Args:
        path: the file.
        start: the capture time that counts as 0, in nanoseconds.

    Raises:
        OSError: the file cannot be read.
    """
    spans: list[Span] = []
    labels: dict[str, None] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            labelled = event["type"] in _ENDED
            if not labelled and event["type"] != EventType.FACE_LEFT:
                continue
            data, track = event["data"], int(event["subject"].removeprefix("tracks/"))
            begin, end = ((from_rfc3339(data[key]) - start) / 1e9 for key in ("start_time", "end_time"))
            found = (data["label"], data["probability"]["mean"]) if labelled else (None, None)
            spans.append(Span(track, begin, end, *found))
            labels.update(dict.fromkeys(data.get("probabilities", ())))
    spans.sort(key=lambda span: (span.start, span.track, span.label is not None, span.end))
    return tuple(spans), tuple(labels)


def rows(spans: Iterable[Span]) -> Iterator[tuple[int, bool, list[tuple[int, int, Span]]]]:
    """Yield for each track its stay, and then its labels: ``(track, labelled, [(start, end, span), ...])``.

    Start and end are whole milliseconds. The spans of a row follow each other without overlap, and each lasts at least
    1 ms, as ELAN and WebVTT require; a span that was seen in one frame only is made that long.
    """

    def row(span: Span) -> tuple[int, bool]:
        return span.track, span.label is not None

    for (track, labelled), group in groupby(sorted(spans, key=lambda span: (row(span), span.start, span.end)), row):
        found, free = [], 0
        for span in group:
            begin = max(round(1000 * span.start), free)
            free = max(round(1000 * span.end), begin + 1)
            found.append((begin, free, span))
        yield track, labelled, found


def track_name(track: int) -> str:
    """Return the name of a track in files."""
    return f"track {track}"


def label_text(label: str | None) -> str:
    """Return the text of a label in files, or `IN_VIEW` for ``None``, a stay; a label of that name gets quotes."""
    return IN_VIEW if label is None else f"'{label}'" if one_line(label) == IN_VIEW else label


def one_line(text: str) -> str:
    """Return a text without tabs and line breaks, which several formats use as delimiters."""
    return " ".join(text.split())


def media_path(source: str, path: Path, folder: Path) -> str | None:
    """Return `Recording.media` of a source; ``path`` is its path, if it has one.

    No absolute path is given, so files can be published without the names of the machine's folders.
    """
    if path.is_file():
        try:
            return os.path.relpath(path.resolve(), folder.resolve()).replace(os.sep, "/")
        except ValueError:  # another drive of Windows
            return path.name
    return source if source.startswith(("http://", "https://")) and "@" not in source else None
