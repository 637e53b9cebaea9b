"""Scores over time -> a smoothed distribution -> intervals of one label, with hysteresis.

The distribution is an exponential average in capture time: after ``dt`` seconds new evidence weighs
``1 - exp(-dt / tau)``, so uneven frames and gaps are no special case. A label's interval starts when it stayed above
``enter`` for ``min_dwell`` and ends when it falls below ``leave``, or when another one starts; in between the state is
uncertain, and says so. The intervals of a track do not overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fer_stream.errors import ConfigError
from fer_stream.types import Nanoseconds, Scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fer_stream.config import SmootherSettings

Family = Literal["emotion", "valence"]


class LabelSet:
    """Which labels the events speak of, made from a model's own.

    ``emotions`` takes all of them, ``valence`` adds them up by group, and a list keeps those named: what it leaves out
    is not shared among the others, so a face that shows something else stays uncertain.
    """

    def __init__(self, choice: str, model_labels: tuple[str, ...], valence: Mapping[str, str]) -> None:
        """Resolve a ``labels`` setting against a model.

        Raises:
            ConfigError: a label or a valence mapping that the model does not know.
        """
        self.family: Family = "valence" if choice == "valence" else "emotion"
        known = ", ".join(model_labels)
        if choice == "valence":
            # A mapping may name more labels than this model has: it is written once, for all models.
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
        self._model_labels = model_labels
        index = {label: i for i, label in enumerate(model_labels)}
        self._parts = tuple(
            tuple(index[label] for label, into in groups.items() if into == group) for group in self.labels
        )

    def project(self, scores: Scores) -> Scores:
        """Return a model's scores over this set's labels; they sum to at most 1."""
        if scores.labels != self._model_labels:
            raise ConfigError(f"scores over {scores.labels}, where the label set was made for {self._model_labels}")
        return Scores(self.labels, tuple(sum(scores.values[i] for i in part) for part in self._parts))


@dataclass(slots=True)
class Interval:
    """A stretch of one label. ``mean`` and ``peak`` are of its smoothed probability, by observation."""

    label: str
    previous: str | None
    start: Nanoseconds
    last: Nanoseconds
    told: Nanoseconds
    peak: float = 0.0
    total: float = 0.0
    observations: int = 0

    @property
    def mean(self) -> float:
        """Mean probability over the interval so far."""
        return self.total / max(self.observations, 1)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to an interval."""

    what: Literal["started", "updated", "ended"]
    interval: Interval
    scores: Scores


class Smoother:
    """Smooths the scores of one track. Deterministic; time must not go back."""

    def __init__(self, labels: LabelSet, settings: SmootherSettings) -> None:
        self._labels = labels
        self._settings = settings
        self._dwell = round(settings.min_dwell * 1e9)
        self._update = round(settings.update_interval * 1e9)
        self._values: list[float] = []
        self._time = Nanoseconds(0)
        self._candidate: str | None = None
        self._since = Nanoseconds(0)
        self._previous: str | None = None
        self._free = Nanoseconds(0)
        self.interval: Interval | None = None

    @property
    def scores(self) -> Scores:
        """The smoothed distribution; empty values before the first observation."""
        return Scores(self._labels.labels, tuple(self._values))

    def observe(self, time: Nanoseconds, scores: Scores) -> list[Change]:
        """Take a model's scores of the face at ``time``."""
        values = self._labels.project(scores).values
        if self._values:
            weight = -math.expm1(-(time - self._time) / 1e9 / self._settings.tau)
            self._values = [old + weight * (new - old) for old, new in zip(self._values, values, strict=True)]
        else:
            self._values = list(values)
        self._time = time
        changes: list[Change] = []
        if self.interval is not None:
            probability = self._values[self._labels.labels.index(self.interval.label)]
            if probability < self._settings.leave:
                changes += self.close(time)
            else:
                self._extend(self.interval, time, probability)
        changes += self._consider(time)
        if not changes and self.interval is not None and time - self.interval.told >= self._update:
            self.interval.told = time
            changes.append(Change("updated", self.interval, self.scores))
        return changes

    def close(self, time: Nanoseconds) -> list[Change]:
        """End the open interval, if there is one, at ``time``."""
        interval, self.interval = self.interval, None
        if interval is None:
            return []
        interval.last = max(interval.last, time)
        self._previous, self._free = interval.label, interval.last
        return [Change("ended", interval, self.scores)]

    def _consider(self, time: Nanoseconds) -> list[Change]:
        """Start an interval of the most probable label once it stayed above ``enter`` for long enough."""
        label, probability = self.scores.top()
        if probability < self._settings.enter or (self.interval is not None and self.interval.label == label):
            self._candidate = None
            return []
        if label != self._candidate:
            self._candidate, self._since = label, time
        if time - self._since < self._dwell:
            return []
        self._candidate = None
        changes = self.close(time)
        # While the one before was open, the face showed that one.
        start = max(self._since, self._free) if self._previous else self._since
        self.interval = Interval(label, self._previous, start, time, time)
        self._extend(self.interval, time, probability)
        return [*changes, Change("started", self.interval, self.scores)]

    def _extend(self, interval: Interval, time: Nanoseconds, probability: float) -> None:
        interval.last = time
        interval.observations += 1
        interval.total += probability
        interval.peak = max(interval.peak, probability)
