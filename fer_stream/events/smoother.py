"""Probabilities over time -> what is believed of a face now -> intervals of one label, with hysteresis.

The belief is an average over the last quarter of a second or so in capture time, so uneven frames and gaps are no
special case. A label's interval starts when its belief stayed above ``enter`` for ``min_dwell``. It ends where its
belief fell below ``leave``, once it stayed there for ``patience``, or when another one starts; in between the state is
uncertain, and says so. The intervals of a track do not overlap. ``python -m training.smoothing`` compares this with
other ways and fits the settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from fer_stream.errors import ConfigError
from fer_stream.types import Nanoseconds, Probabilities

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fer_stream.settings.tree import SmootherSettings

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
        self.model_labels = model_labels
        index = {label: i for i, label in enumerate(model_labels)}
        self._parts = tuple(
            tuple(index[label] for label, into in groups.items() if into == group) for group in self.labels
        )

    def project(self, model: Probabilities) -> Probabilities:
        """Return a model's probabilities over this set's labels; they sum to at most 1.

        Raises:
            ConfigError: the probabilities are over other labels than the set was made for.
        """
        if model.labels != self.model_labels:
            raise ConfigError(
                f"probabilities over {model.labels}, where the label set was made for {self.model_labels}"
            )
        return Probabilities(self.labels, tuple(sum(model.values[i] for i in part) for part in self._parts))


@dataclass(slots=True)
class Interval:
    """A stretch of one label.

    ``mean`` and ``peak`` are of its smoothed probability, over observations. ``reported`` is when its latest event was
    made.
    """

    label: str
    previous: str | None
    start: Nanoseconds
    last: Nanoseconds
    reported: Nanoseconds
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
    probabilities: Probabilities


class Belief(Protocol):
    """What is believed after a series of looks."""

    @property
    def values(self) -> list[float]:
        """One value a label, summing to at most 1."""
        ...

    def update(self, seconds: float, look: Sequence[float], weight: float) -> None:
        """Take a distribution over the labels, seen ``seconds`` after the last (infinity: the first), 0..1 worth."""
        ...


ENOUGH = 0.5
"""Of a clear look's worth: what is known by less than that is not known."""


class Average:
    """An exponential average in continuous time, in which a look weighs what it is worth.

    After ``dt`` seconds what was seen before counts ``exp(-dt / tau)``, and the new look the rest times its weight. The
    belief is the average over the weights, so a blurred moment changes little; but where all looks of late together
    are worth less than `ENOUGH`, the missing part is belief in no label: bad looks alone make nobody sure, however many
    they are, because they err alike.
    """

    def __init__(self, labels: int, tau: float) -> None:
        self._tau = tau
        self._sums = [0.0] * labels
        self._weight = 0.0

    @property
    def values(self) -> list[float]:
        """The belief in each label."""
        return [value / max(self._weight, ENOUGH) for value in self._sums]

    def update(self, seconds: float, look: Sequence[float], weight: float) -> None:
        """See `Belief.update`."""
        kept = math.exp(-seconds / self._tau)
        worth = weight * -math.expm1(-seconds / self._tau)
        self._sums = [kept * old + worth * share for old, share in zip(self._sums, look, strict=True)]
        self._weight = kept * self._weight + worth


class Smoother:
    """Smooths the probabilities of one track. Deterministic; time must not go back."""

    def __init__(self, labels: LabelSet, settings: SmootherSettings, belief: Belief | None = None) -> None:
        """Begin a track, with another ``belief`` than the settings' where one is given."""
        self._labels = labels
        self._settings = settings
        self._belief = belief or Average(len(labels.labels), settings.tau)
        self._dwell = round(settings.min_dwell * 1e9)
        self._patience = round(settings.patience * 1e9)
        self._update = round(settings.update_interval * 1e9)
        self._time: Nanoseconds | None = None
        self.probabilities = Probabilities(labels.labels, ())
        """What is believed now; empty values before the first observation."""
        self._candidate: str | None = None
        self._since = Nanoseconds(0)
        self._below: Nanoseconds | None = None
        self._previous: str | None = None
        self._free = Nanoseconds(0)
        self.interval: Interval | None = None
        self.unsettled = False
        """Whether the last look, repeated, would change the label. Another look soon shows whether it was a mistake."""

    def observe(self, time: Nanoseconds, probabilities: Probabilities, weight: float = 1.0) -> list[Change]:
        """Take a model's probabilities for the face at ``time``, with a weight from 0 to 1."""
        seconds = math.inf if self._time is None else (time - self._time) / 1e9
        look = self._labels.project(probabilities)
        self._belief.update(seconds, look.values, weight)
        self.probabilities = Probabilities(look.labels, tuple(self._belief.values))
        self._time = time
        changes: list[Change] = []
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
        """End the open interval, if there is one, at ``time``, or where its belief had fallen below ``leave``."""
        end = time if self._below is None else min(self._below, time)
        interval, self.interval, self._below = self.interval, None, None
        if interval is None:
            return []
        interval.last = max(interval.last, end)
        self._previous, self._free = interval.label, interval.last
        return [Change("ended", interval, self.probabilities)]

    def _consider(self, time: Nanoseconds) -> list[Change]:
        """Start an interval of the most probable label once it stayed above ``enter`` for long enough."""
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
        # While the one before was open, the face showed that one.
        start = max(self._since, self._free) if self._previous else self._since
        self.interval = Interval(label, self._previous, start, time, time)
        self._extend(self.interval, time, probability)
        return [*changes, Change("started", self.interval, self.probabilities)]

    def _extend(self, interval: Interval, time: Nanoseconds, probability: float) -> None:
        interval.last = time
        interval.observations += 1
        interval.total += probability
        interval.peak = max(interval.peak, probability)
