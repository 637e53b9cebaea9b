"""Makes the *line* of a rater for a film: labelled spans of one face, in order and without overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fer_stream.errors import AnnotationError
from fer_stream.events.spans import union

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fer_stream.interchange.annotations import Annotation, Coding, Span

TOLERANCE = 0.1
"""Seconds that a span may last beyond the next one's start: coders end a label by hand a little after that."""

SHOWN = 6
"""Names of tracks that a message lists at most."""

NONE = "(no label)"
"""Coded time in which a rater gives no label."""

LONGEST = "longest"
"""The track with the longest labelled time."""


@dataclass(frozen=True, slots=True)
class Line:
    """Spans with a label, in order and without overlap, and the parts of the film that were coded, likewise."""

    labels: tuple[Annotation, ...]
    spans: tuple[Span, ...]

    def within(self, spans: Iterable[Span]) -> list[Annotation]:
        """Return the parts of the labels that lie within ``spans``."""
        return [
            replace(one, start=max(one.start, start), end=min(one.end, end))
            for start, end in spans
            for one in self.labels
            if one.end > start and one.start < end
        ]


def line(coding: Coding, track: str | None, option: str, relabel: Callable[[str], str | None], shift: float) -> Line:
    """Return the line of a coding.

    Args:
        coding: the annotations of one rater.
        track: one of its tracks; `LONGEST`; or ``None`` for all, if no two of them have a label at once.
        option: the option of the command line that chooses a track, for messages.
        relabel: returns the label to compare, ``None`` for no label.
        shift: seconds that are subtracted from all times.

    Raises:
        AnnotationError: the track is missing, or two labels overlap by more than `TOLERANCE`.
    """
    found = [one for one in coding.annotations if track in (None, LONGEST) or one.track == track]
    if track not in (None, LONGEST) and not found:
        raise AnnotationError(
            f"{_of(coding)} has no track {track!r} with labels: it has {_tracks(coding.tracks)}; choose with {option}"
        )
    if track == LONGEST and found:
        longest = _longest(found)
        found = [one for one in found if one.track == longest]
    spans = coding.spans or _coded(found, sparse=coding.sparse)
    kept = [replace(one, label=label) for one in found if (label := relabel(one.label)) is not None]
    kept.sort(key=lambda one: (one.start, one.end))
    labels: list[Annotation] = []
    for one in kept:
        before = labels[-1] if labels else None
        if before and before.end > one.start:
            if before.label == one.label and before.track == one.track:
                labels[-1] = replace(before, end=max(before.end, one.end))
                continue
            if before.end - one.start > TOLERANCE:  # this much of it is cut off
                raise AnnotationError(_twice(coding, before, one, option))
            labels[-1] = replace(before, end=one.start)
        labels.append(one)
    whole = [replace(one, start=one.start - shift, end=one.end - shift) for one in labels if one.end > one.start]
    return Line(tuple(joined(whole)), tuple((start - shift, end - shift) for start, end in sorted(spans)))


def _coded(found: Sequence[Annotation], *, sparse: bool) -> tuple[Span, ...]:
    """Return the coded part of the film if the file does not have it: from the first label to the last."""
    parts = union((one.start, one.end) for one in found)
    return tuple(parts) if sparse or not parts else ((parts[0][0], parts[-1][1]),)


def joined(labels: Sequence[Annotation]) -> list[Annotation]:
    """Return labels in which equal ones that follow each other without a gap are merged, such as after grouping."""
    found: list[Annotation] = []
    for one in labels:
        if found and found[-1].label == one.label and one.start - found[-1].end < 1e-6:
            found[-1] = replace(found[-1], end=max(found[-1].end, one.end))
        else:
            found.append(one)
    return found


def common(first: Sequence[Span], second: Sequence[Span]) -> list[Span]:
    """Return the parts that are in both."""
    both = [(max(a, c), min(b, d)) for a, b in first for c, d in second]
    return sorted((start, end) for start, end in both if end > start)


def same(label: str) -> str:
    """Return a text that is the same for labels that differ in case or kinds of spaces only."""
    return " ".join(label.split()).casefold()


def relabelling(
    mapping: Mapping[str, str], known: Iterable[str], groups: Mapping[str, str] | None
) -> Callable[[str], str | None]:
    """Return a function that makes labels comparable: it ignores case and kinds of spaces, and maps and groups labels.

    `NONE` is no label.

    Args:
        mapping: the label to compare in place of a label; an empty text for no label.
        known: our labels, which determine upper and lower case.
        groups: the group of each label, if groups are compared; a label without one stays.
    """
    written = {label.casefold(): label for label in known}
    changed = {same(label): into for label, into in mapping.items()}
    grouped = {label.casefold(): group for label, group in (groups or {}).items()}

    def relabel(label: str) -> str | None:
        into = changed.get(same(label), " ".join(label.split()))
        into = grouped.get(into.casefold(), into)
        found = written.get(into.casefold(), into)
        return found if found not in ("", NONE) else None

    return relabel


def _longest(found: Iterable[Annotation]) -> str:
    seconds: dict[str, float] = {}
    for one in found:
        seconds[one.track] = seconds.get(one.track, 0.0) + one.end - one.start
    return max(seconds, key=seconds.__getitem__)


def _of(coding: Coding) -> str:
    return f"{coding.path}{f', film {coding.film},' if coding.film else ''}"


def _tracks(tracks: Sequence[str]) -> str:
    more = f" and {len(tracks) - SHOWN} more" if len(tracks) > SHOWN else ""
    return (", ".join(repr(track) if track else "one without a name" for track in tracks[:SHOWN]) or "none") + more


def _twice(coding: Coding, before: Annotation, one: Annotation, option: str) -> str:
    what = f"{_of(coding)} has two labels at {one.start:g} s"
    if before.track != one.track:
        return (
            f"{what}, on the tracks {before.track!r} and {one.track!r}: choose one of {_tracks(coding.tracks)} "
            f"with {option}"
        )
    return f"{what}, {before.label!r} and {one.label!r}, on one track: only one can be compared; shorten one of them"


def overlap(first: Annotation, second: Annotation) -> float:
    """Return the length of the intersection of two spans over that of their union, 0 to 1."""
    shared = min(first.end, second.end) - max(first.start, second.start)
    return max(shared, 0.0) / (max(first.end, second.end) - min(first.start, second.start))


def matched(first: Sequence[Annotation], second: Sequence[Annotation], least: float) -> list[tuple[int, int]]:
    """Return the pairs of spans with the same label that overlap by at least ``least``, each span in one pair at most.

    Pairs that overlap more are taken first. Above one half no span has a choice, because the spans of a line do not
    overlap. This is how challenges of spotting expressions match (J. Li et al. 2020, "MEGC2020", section III, with
    one half).
    """
    pairs: list[tuple[float, int, int]] = []
    begin = 0
    for i, one in enumerate(first):
        while begin < len(second) and second[begin].end <= one.start:
            begin += 1
        for j in range(begin, len(second)):
            if second[j].start >= one.end:
                break
            if second[j].label == one.label and (share := overlap(one, second[j])) >= least:
                pairs.append((-share, i, j))
    taken_first: set[int] = set()
    taken_second: set[int] = set()
    found = []
    for _, i, j in sorted(pairs):
        if i not in taken_first and j not in taken_second:
            taken_first.add(i)
            taken_second.add(j)
            found.append((i, j))
    return sorted(found)
