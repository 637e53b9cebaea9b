"""Computes the agreement of raters at the moments of a time grid, and of their labelled spans as events."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fer_stream.analysis.agreement import measures
from fer_stream.analysis.agreement.lines import NONE, common, joined, matched
from fer_stream.errors import AnnotationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from fer_stream.analysis.agreement.films import Film, Material
    from fer_stream.analysis.agreement.lines import Line
    from fer_stream.analysis.agreement.measures import Interval, Numbers

STEP = 0.04
"""Seconds between moments of the grid, by default: a frame of 25 frames/s."""

OVERLAP = 0.5
"""Least overlap (intersection over union) of two spans that count as the same event, by default."""

MOST_MOMENTS = 20_000_000
"""Moments of one film: nine days at `STEP`."""

_UNCODED, _NOTHING = -1, 0


class Figure(NamedTuple):
    """A value with its interval over films."""

    value: float
    interval: Interval

    @property
    def known(self) -> bool:
        """Whether the value is defined."""
        return math.isfinite(self.value)


@dataclass(frozen=True, slots=True)
class Scope:
    """One way to count time: all that both coded, or only that in which both give a label.

    ``confusion`` is seconds, floats ``[F, K, K]``, rows by the first rater, over ``labels``.
    """

    name: str
    labels: tuple[str, ...]
    confusion: Numbers

    @property
    def seconds(self) -> float:
        """The time that counts."""
        return float(self.confusion.sum())

    def figure(self, measure: Callable[[Numbers], Numbers]) -> Figure:
        """Return a measure of the confusion over all films."""
        return _figure(self.confusion, measure)

    def per_label(self, label: str) -> tuple[Figure, Figure, Figure]:
        """Return precision, recall and F1 of a label."""
        at = self.labels.index(label)

        def part(number: int) -> Figure:
            return self.figure(lambda table: measures.scores(table)[number][..., at])

        return part(0), part(1), part(2)

    def macro_f1(self) -> Figure:
        """Return the mean F1 over the labels that either rater uses, without `NONE`."""
        here = [at for at, label in enumerate(self.labels) if label != NONE]

        def mean(table: Numbers) -> Numbers:
            values = measures.scores(table).f1[..., here]
            known = np.isfinite(values)
            return measures.ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1).astype(float))

        return self.figure(mean)


@dataclass(frozen=True, slots=True)
class Events:
    """Spans matched one to one.

    ``hits``, ``first`` and ``second`` are the numbers of matched spans and of each rater's spans, floats ``[F, K]``.
    ``onsets`` are the first rater's start minus the second's, in seconds, of the matched spans by label.
    """

    labels: tuple[str, ...]
    hits: Numbers
    first: Numbers
    second: Numbers
    onsets: dict[str, list[float]]

    def figures(self, label: str | None) -> tuple[Figure, Figure, Figure]:
        """Return precision, recall and F1 of a label; of all spans together if it is ``None``."""
        at = slice(None) if label is None else [self.labels.index(label)]
        parts = np.stack([each[:, at].sum(1) for each in (self.hits, self.first, self.second)], axis=1)

        def part(number: int) -> Figure:
            return _figure(parts, lambda sums: measures.event_scores(*np.moveaxis(sums, -1, 0))[number])

        return part(0), part(1), part(2)

    def onset(self, label: str | None) -> tuple[float, float, float]:
        """Return the lower quartile, the median and the upper quartile of the onset errors; NaN without any."""
        values = (
            self.onsets.get(label, []) if label is not None else [one for each in self.onsets.values() for one in each]
        )
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]) if values else (math.nan,) * 3
        return float(low), float(middle), float(high)


@dataclass(frozen=True, slots=True)
class Pair:
    """The agreement of two raters over the films that both coded."""

    first: str
    second: str
    films: tuple[str, ...]
    all_time: Scope
    labelled: Scope
    events: Events


@dataclass(frozen=True, slots=True)
class Together:
    """The agreement of all raters: alpha, also with missing values, and Fleiss' kappa where nothing is missing.

    ``labelled`` says whether time without a label counts as missing; otherwise it is a label of its own.
    """

    labelled: bool
    alpha: Figure
    fleiss: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """All results."""

    material: Material
    step: float
    overlap: float
    pairs: tuple[Pair, ...]
    together: tuple[Together, Together]


def compare(material: Material, step: float = STEP, overlap: float = OVERLAP) -> Agreement:
    """Return the agreement of all pairs of raters and of all together, on a grid of ``step`` seconds.

    Raises:
        AnnotationError: a coder and we have no time of a film in common, or a film is too long for the step.
    """
    grids = [_codes(film, material, step) for film in material.films]
    pairs = []
    for first, second in combinations(range(len(material.raters)), 2):
        names = material.raters[first], material.raters[second]
        shared = [at for at, film in enumerate(material.films) if set(names) <= set(film.lines)]
        if not shared:
            continue
        confusion = np.stack(
            [_confusion(grids[at][first], grids[at][second], len(material.labels) + 1) for at in shared]
        )
        if first == 0 and not confusion.sum():
            raise AnnotationError(_apart([material.films[at] for at in shared], names, step))
        pairs.append(_pair(material, names, [material.films[at] for at in shared], confusion * step, overlap))
    together = tuple(_together(grids, len(material.labels) + 1, labelled=each) for each in (False, True))
    return Agreement(material, step, overlap, tuple(pairs), (together[0], together[1]))


def _codes(film: Film, material: Material, step: float) -> NDArray[np.int16]:
    """Return each rater's label at each moment of the grid, int16 ``[R, M]``."""
    spans = [span for line in film.lines.values() for span in line.spans]
    begin = min((start for start, _ in spans), default=0.0)
    end = max((end for _, end in spans), default=0.0)
    count = math.ceil((end - begin) / step)
    if count > MOST_MOMENTS:
        raise AnnotationError(
            f"the film {film.name} lasts {(end - begin) / 3600:,.0f} h, too long for steps of {step:g} s: give a "
            "longer --step"
        )
    index = {label: number for number, label in enumerate(material.labels, 1)}
    codes = np.full((len(material.raters), count), _UNCODED, np.int16)

    def cells(start: float, end: float) -> slice:
        """Return the moments, each in the middle of its step, that lie in a span."""
        low, high = (math.ceil((at - begin) / step - 0.5 - 1e-9) for at in (start, end))
        return slice(max(low, 0), max(high, 0))

    for row, rater in enumerate(material.raters):
        line = film.lines.get(rater)
        if line is None:
            continue
        for span in line.spans:
            codes[row, cells(*span)] = _NOTHING
        for one in line.within(line.spans):
            codes[row, cells(one.start, one.end)] = index[one.label]
    return codes


def _confusion(first: NDArray[np.int16], second: NDArray[np.int16], size: int) -> Numbers:
    both = (first >= 0) & (second >= 0)
    cells = first[both].astype(np.int64) * size + second[both]
    return np.bincount(cells, minlength=size * size).reshape(size, size).astype(np.float64)


def _pair(
    material: Material, names: tuple[str, str], films: Sequence[Film], confusion: Numbers, overlap: float
) -> Pair:
    labels = material.labels
    hits, first, second = (np.zeros((len(films), len(labels))) for _ in range(3))
    onsets: dict[str, list[float]] = {}
    for row, film in enumerate(films):
        lines = film.lines[names[0]], film.lines[names[1]]
        both = common(lines[0].spans, lines[1].spans)
        ours, theirs = (joined(line.within(both)) for line in lines)
        for counts, spans in ((first, ours), (second, theirs)):
            for one in spans:
                counts[row, labels.index(one.label)] += 1
        starts = [{one.start for one in line.labels} for line in lines]
        for i, j in matched(ours, theirs, overlap):
            hits[row, labels.index(ours[i].label)] += 1
            if ours[i].start in starts[0] and theirs[j].start in starts[1]:  # not cut where the common time begins
                onsets.setdefault(ours[i].label, []).append(ours[i].start - theirs[j].start)
    return Pair(
        *names,
        tuple(film.name for film in films),
        Scope("all time", (NONE, *labels), confusion),
        Scope("labelled time", labels, confusion[:, 1:, 1:]),
        Events(labels, hits, first, second, onsets),
    )


def _together(grids: Sequence[NDArray[np.int16]], size: int, *, labelled: bool) -> Together:
    parts, whole, weights = [], [], []
    for codes in grids:
        units, count = _units(codes, size, labelled=labelled)
        parts.append(measures.coincidences(units, count))
        complete = units.sum(1) == len(codes)
        whole.append(units[complete])
        weights.append(count[complete])
    alpha = _figure(np.stack(parts), measures.krippendorff)
    return Together(labelled, alpha, measures.fleiss(np.concatenate(whole), np.concatenate(weights)))


def _units(codes: NDArray[np.int16], size: int, *, labelled: bool) -> tuple[NDArray[np.int64], Numbers]:
    """Return the different units, as numbers of raters by label ``[U, K]``, and how many moments each stands for."""
    least = 1 if labelled else 0
    combined = np.zeros(codes.shape[1], np.int64)
    for row in codes:  # renumbered after each rater, so that the number of raters has no limit
        _, combined = np.unique(combined * (size + 1) + row + 1, return_inverse=True)
    _, at, count = np.unique(combined, return_index=True, return_counts=True)
    kinds = codes[:, at]
    units = np.stack([(kinds == label).sum(0) for label in range(least, size)], axis=1)
    return units, count.astype(np.float64)


def _figure(parts: Numbers, measure: Callable[[Numbers], Numbers]) -> Figure:
    value = float(measure(parts.sum(0)))
    interval = measures.bootstrap(parts, measure) if math.isfinite(value) else measures.NO_INTERVAL
    return Figure(value, interval)


def _apart(films: Sequence[Film], names: tuple[str, str], step: float) -> str:
    def reach(line: Line) -> str:
        if not line.spans:
            return "nothing"
        return f"{line.spans[0][0]:g} to {max(end for _, end in line.spans):g} s"

    for film in films:
        if common(*(film.lines[name].spans for name in names)):
            return f"both code too little of {film.name} for steps of {step:g} s: give a shorter --step"
    film = films[0]
    parts = " and ".join(f"{name} has {reach(film.lines[name])}" for name in names)
    return (
        f"{names[0]} and {names[1]} have no time in common: in {film.name}, {parts}; are both in seconds from the "
        "film's beginning?"
    )
