"""Smooths the probabilities of a face over time, and derives intervals of one label with hysteresis.

The belief is an average over about the last quarter of a second in capture time, so uneven frame intervals and gaps
need no special treatment. A label's interval starts when its belief has stayed above ``enter`` for ``min_dwell``. It
ends at the time at which its belief fell below ``leave``, once it has stayed there for ``patience``, or when another
label's interval starts. Between intervals no label is open: the state is uncertain. The intervals of a track do not
overlap. ``python -m training.smoothing`` compares this method with others and fits the settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from fer_stream.errors import ConfigError
from fer_stream.types import Measures, Nanoseconds, Probabilities

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fer_stream.settings.tree import SmootherSettings

Family = Literal["emotion", "valence"]


class LabelSet:
    """The labels that events use, derived from a model's labels.

    ``emotions`` keeps all of them, ``valence`` sums them by group, and a list keeps the named ones. The probability of
    labels that the list leaves out is not redistributed, so a face that shows one of them stays uncertain.
    """

    def __init__(self, choice: str, model_labels: tuple[str, ...], valence: Mapping[str, str]) -> None:
        """Resolve a ``labels`` setting against a model.

        Raises:
            ConfigError: a label or a valence mapping that the model does not know.
        """
        if choice != "emotions" and not model_labels:
            raise ConfigError(f"the model has only measures, no labels: leave out the labels {choice}")
        self.family: Family = "valence" if choice == "valence" else "emotion"
        known = ", ".join(model_labels)
        if choice == "valence":
            # A mapping may contain labels that this model lacks: the same mapping is used for all models.
            groups = {label: valence[label] for label in model_labels if label in valence}
            if not groups:
                raise ConfigError(f"the valence mapping names no label of the model; it has: {known}")
        elif choice == "emotions":
            groups = {label: label for label in model_labels}
        else:
            names = [name.strip() for name in choice.split(",")]
            unknown = [name for name in names if name not in model_labels]
            if unknown:
                raise ConfigError(
                    f"the model has no label {unknown[0]!r}: choose emotions, valence, or some of {known}"
                )
            groups = {name: name for name in model_labels if name in names}
        self.labels = tuple(dict.fromkeys(groups.values()))
        self.model_labels = model_labels
        index = {label: i for i, label in enumerate(model_labels)}
        self._parts = tuple(
            tuple(index[label] for label, into in groups.items() if into == group) for group in self.labels
        )

    def project(self, model: Probabilities) -> Probabilities:
        """Return a model's probabilities over this set's labels; they sum to at most 1.

        Raises:
            ConfigError: the probabilities have other labels than the set was made for.
        """
        if model.labels != self.model_labels:
            raise ConfigError(f"probabilities are over {model.labels}, but the label set is for {self.model_labels}")
        return Probabilities(self.labels, tuple(sum(model.values[i] for i in part) for part in self._parts))


@dataclass(slots=True)
class Levels:
    """A smoothed measure over several observations."""

    total: float = 0.0
    observations: int = 0
    lowest: float = math.inf
    highest: float = -math.inf

    @property
    def mean(self) -> float:
        """The mean over the observations so far."""
        return self.total / max(self.observations, 1)

    def take(self, value: float) -> None:
        """Take the value of a further observation."""
        self.total += value
        self.observations += 1
        self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)


@dataclass(slots=True)
class Interval:
    """A time interval of one label.

    ``mean`` and ``peak`` are those of its smoothed probability over the observations; ``levels`` are the smoothed
    measures over them. ``reported`` is the time of its latest event.
    """

    label: str
    previous: str | None
    start: Nanoseconds
    last: Nanoseconds
    reported: Nanoseconds
    peak: float = 0.0
    total: float = 0.0
    observations: int = 0
    levels: dict[str, Levels] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean probability over the interval so far."""
        return self.total / max(self.observations, 1)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an interval, and the smoothed probabilities at that time."""

    what: Literal["started", "updated", "ended"]
    interval: Interval
    probabilities: Probabilities


class Belief(Protocol):
    """The smoothed probabilities after a series of looks. A look is the model's probabilities for one frame."""

    @property
    def values(self) -> list[float]:
        """One value for each label; they sum to at most 1."""
        ...

    def update(self, seconds: float, look: Sequence[float], weight: float) -> None:
        """Take a look.

        Args:
            seconds: time since the previous look; infinity for the first.
            look: one probability for each label, summing to at most 1.
            weight: the weight of the look, from 0 to 1.
        """
        ...


ENOUGH = 0.5
"""Total weight from which the average is fully trusted; a single clear look has the weight 1."""


class Average:
    """A weighted exponential average in continuous time.

    After ``dt`` seconds, the weights of the previous looks are multiplied by ``exp(-dt / tau)``, and that of the new
    look by the rest. The belief is the weighted average, so a blurred face changes little. If the total weight of
    recent looks is below `ENOUGH`, the missing part belongs to no label: poor looks alone never give a high belief,
    however many there are, because they make the same mistakes.
    """

    def __init__(self, labels: int, tau: float) -> None:
        self._tau = tau
        self._sums = [0.0] * labels
        self._weight = 0.0

    @property
    def values(self) -> list[float]:
        """The belief in each label."""
        return [value / max(self._weight, ENOUGH) for value in self._sums]

    @property
    def means(self) -> list[float] | None:
        """The weighted averages alone, with nothing for a missing part; ``None`` as long as no look has a weight."""
        return [value / self._weight for value in self._sums] if self._weight > 0 else None

    def update(self, seconds: float, look: Sequence[float], weight: float) -> None:
        """See `Belief.update`."""
        kept = math.exp(-seconds / self._tau)
        worth = weight * -math.expm1(-seconds / self._tau)
        self._sums = [kept * old + worth * share for old, share in zip(self._sums, look, strict=True)]
        self._weight = kept * self._weight + worth


class Smoother:
    """Smooths the probabilities of one track. Deterministic; time must not go back."""

    def __init__(self, labels: LabelSet, settings: SmootherSettings, belief: Belief | None = None) -> None:
        """Begin a track; ``belief`` replaces the default `Average`."""
        self._labels = labels
        self._settings = settings
        self._belief = belief or Average(len(labels.labels), settings.tau)
        self._dwell = round(settings.min_dwell * 1e9)
        self._patience = round(settings.patience * 1e9)
        self._update = round(settings.update_interval * 1e9)
        self._time: Nanoseconds | None = None
        self.probabilities = Probabilities(labels.labels, ())
        """The smoothed probabilities; ``values`` is empty before the first observation."""
        self.measures: Measures | None = None
        """The smoothed measures, if the model has any."""
        self.levels: dict[str, Levels] = {}
        """The smoothed measures over all observations."""
        self._levels: Average | None = None
        self._candidate: str | None = None
        self._since = Nanoseconds(0)
        self._below: Nanoseconds | None = None
        self._previous: str | None = None
        self._free = Nanoseconds(0)
        self.interval: Interval | None = None
        self.unsettled = False
        """Whether the last look would change the label if repeated. Scoring again soon shows whether it was wrong."""

    def observe(
        self, time: Nanoseconds, probabilities: Probabilities, weight: float = 1.0, measures: Measures | None = None
    ) -> list[Change]:
        """Take a model's probabilities and measures for the face at ``time``, with a weight from 0 to 1."""
        seconds = math.inf if self._time is None else (time - self._time) / 1e9
        look = self._labels.project(probabilities)
        self._belief.update(seconds, look.values, weight)
        self.probabilities = Probabilities(look.labels, tuple(self._belief.values))
        self._time = time
        if measures is not None:
            self._levels = self._levels or Average(len(measures.names), self._settings.tau)
            self._levels.update(seconds, measures.values, weight)
            means = self._levels.means
            self.measures = None if means is None else Measures(measures.names, tuple(means))
            _take(self.levels, self.measures)
        changes: list[Change] = []
        if not look.labels:
            return changes
        if self.interval is not None:
            probability = self.probabilities.values[self.probabilities.labels.index(self.interval.label)]
            if probability >= self._settings.leave:
                self._below = None
                self._extend(self.interval, time, probability)
            elif self._below is None:
                self._below = time
            if self._below is not None and time - self._below >= self._patience:
                changes += self.close(time)
        changes += self._consider(time)
        label, probability = look.top()
        self.unsettled = probability * min(weight / ENOUGH, 1.0) >= self._settings.enter and (
            self.interval is None or label != self.interval.label
        )
        if not changes and self.interval is not None and time - self.interval.reported >= self._update:
            self.interval.reported = time
            changes.append(Change("updated", self.interval, self.probabilities))
        return changes

    def close(self, time: Nanoseconds) -> list[Change]:
        """End the open interval, if any, at ``time`` or at the earlier time its belief fell below ``leave``."""
        end = time if self._below is None else min(self._below, time)
        interval, self.interval, self._below = self.interval, None, None
        if interval is None:
            return []
        interval.last = max(interval.last, end)
        self._previous, self._free = interval.label, interval.last
        return [Change("ended", interval, self.probabilities)]

    def _consider(self, time: Nanoseconds) -> list[Change]:
        """Start an interval of the most probable label once it has stayed above ``enter`` for ``min_dwell``."""
        label, probability = self.probabilities.top()
        if probability < self._settings.enter or (self.interval is not None and self.interval.label == label):
            self._candidate = None
            return []
        if label != self._candidate:
            self._candidate, self._since = label, time
        if time - self._since < self._dwell:
            return []
        self._candidate = None
        changes = self.close(time)
        # Intervals must not overlap: this one cannot start before the previous one ended.
        start = max(self._since, self._free) if self._previous else self._since
        self.interval = Interval(label, self._previous, start, time, time)
        self._extend(self.interval, time, probability)
        return [*changes, Change("started", self.interval, self.probabilities)]

    def _extend(self, interval: Interval, time: Nanoseconds, probability: float) -> None:
        interval.last = time
        interval.observations += 1
        interval.total += probability
        interval.peak = max(interval.peak, probability)
        _take(interval.levels, self.measures)


def _take(levels: dict[str, Levels], measures: Measures | None) -> None:
    """Add measures, if there are any, to the levels so far."""
    for name, value in measures.as_dict().items() if measures else ():
        levels.setdefault(name, Levels()).take(value)
