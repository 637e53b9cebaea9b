"""The spans that BORIS's files have of the recording in tests/analysis/exports, and how state events become spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Span = tuple[float, float, str, str]
"""Start, end, subject and code."""

SPANS: list[Span] = [
    (0.0, 3725.5, "track 1", "in view"),
    (0.04, 10.0, "track 1", "happy"),
    (5.0, 5.001, "track 2", "in view"),
    (5.0, 5.001, "track 2", "x --> y"),
    (10.0, 20.124, "track 1", 'sad <&"> tired'),
    (12.0, 14.0, "track 3", "in view"),
    (20.124, 20.125, "track 1", "a; b / c"),
    (20.125, 30.0, "track 1", "naïve 😀"),
    (3661.001, 3725.5, "track 1", "two lines"),
]


def paired(events: Iterable[tuple[float, str, str]]) -> list[Span]:
    """Return the spans of state events ``(time, subject, code)``, which alternate between start and stop."""
    open_since: dict[tuple[str, str], float] = {}
    spans = []
    for time, subject, code in events:
        if (start := open_since.pop((subject, code), None)) is None:
            open_since[subject, code] = time
        else:
            spans.append((start, time, subject, code))
    assert not open_since
    return sorted(spans)
