"""The history of a period, as spans to draw (`fer_stream.events.statistics.Record.history`).

Times are in nanoseconds since the Unix epoch; ends are exclusive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fer_stream.events.spans import union

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fer_stream.events.spans import Span


class Labelled(NamedTuple):
    """An interval of a face with a label; ``open``: it has not ended, and ``end`` is the latest known time."""

    start: int
    end: int
    label: str
    open: bool


class Stay(NamedTuple):
    """A face in view, and its labels in order."""

    start: int
    end: int
    epoch: int
    track: int
    open: bool
    labels: list[Labelled]


class CameraHistory(NamedTuple):
    """A camera in a period. The states cover the period without overlap; stays that reach into it are whole."""

    camera: str
    states: list[tuple[str, int, int]]
    """State (``online``, ``offline`` or ``unknown``), start and end."""
    stays: list[Stay]


def states(since: int, until: int, online: Iterable[Span], offline: Iterable[Span]) -> list[tuple[str, int, int]]:
    """Return state, start and end of each part of a period. Online overrides offline."""
    found: list[tuple[str, int, int]] = []
    at = since
    on = union(_cut(online, since, until))
    for begin, end in [*on, (until, until)]:
        dark = at
        for start, stop in union(_cut(offline, at, begin)):
            if start > dark:
                found.append(("unknown", dark, start))
            found.append(("offline", start, stop))
            dark = stop
        if begin > dark:
            found.append(("unknown", dark, begin))
        if end > begin:
            found.append(("online", begin, end))
        at = end
    return found


def _cut(spans: Iterable[Span], since: int, until: int) -> list[Span]:
    return [(max(start, since), min(end, until)) for start, end in spans if max(start, since) < min(end, until)]
