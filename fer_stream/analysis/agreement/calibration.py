"""Fits a calibration to a coder's labels, and measures on held-out films whether it helps."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from fer_stream.analysis.agreement import measures
from fer_stream.analysis.agreement.compare import Figure
from fer_stream.analysis.page import Section
from fer_stream.errors import AnnotationError
from fer_stream.events.calibration import FLOOR
from fer_stream.interchange import own

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from fer_stream.analysis.agreement.films import Film, Material
    from fer_stream.analysis.agreement.measures import Interval, Numbers

LEAST_FILMS = 3
"""Fewest films: with two, half of the fit would depend on one film."""

FOLDS = 10
"""Most parts into which the films are divided; up to this number of films, each is a part."""

THIN = 0.2
"""Least seconds between two scores of a film that are used: neighbouring scores are alike, and cost memory."""

MOST_SCORES = 5000
"""Most scores of a film, spread evenly over it; a film has the same weight however many it has."""

PULL = 0.01
"""Weight of the L2 penalty on the correction, relative to the mean log-loss: it bounds what the films do not show."""

LIMIT = 20.0
"""Greatest temperature, its inverse, and bias, as the settings allow."""

BINS = 15
"""Number of bins of the calibration error (C. Guo et al. 2017, "On Calibration of Modern Neural Networks")."""

_STEPS = 50


@dataclass(frozen=True, slots=True)
class Fit:
    """``temperature`` and the ``bias`` of each label, floats ``[K]``."""

    temperature: float
    bias: Numbers


@dataclass(frozen=True, slots=True)
class Scored:
    """One film's scores: log-probabilities, floats ``[N, K]``, and the index of the coder's label, integers ``[N]``."""

    film: str
    logs: Numbers
    truth: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Effect:
    """A value on held-out films without and with the calibration, and the difference with its interval."""

    name: str
    before: float
    after: float
    change: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The result for a camera: the fit to all films, and its effects on films that were not part of the fit.

    ``blind`` is the log-loss on these films of the labels' shares in the others, without any score.
    """

    camera: str
    coder: str
    labels: tuple[str, ...]
    fit: Fit
    films: int
    scores: int
    effects: tuple[Effect, ...]
    blind: float

    @property
    def helps(self) -> bool:
        """Whether the log-loss on held-out films is lower with it, in the whole interval."""
        return self.effects[0].interval.high < 0

    def settings(self) -> str:
        """Return the settings as TOML, with a comment on the fit."""
        loss = self.effects[0]
        biases = ", ".join(
            f"{_key(label)} = {value:.4f}"
            for label, value in zip(self.labels, self.fit.bias, strict=True)
            if abs(value) >= 5e-5
        )
        bias = f"bias = {{{biases}}}\n" if biases else ""
        return (
            f"# Fitted by fer-stream agree --calibrate to {self.films} films that {json.dumps(self.coder)} coded. On\n"
            f"# held-out films the log-loss changes by {_signed(loss)}.\n"
            f"[calibration.{_key(self.camera)}]\ntemperature = {self.fit.temperature:.4f}\n{bias}"
        )

    def verdict(self) -> str:
        """Return one sentence that says whether it helped."""
        loss = self.effects[0]
        moved = f"from {loss.before:.3f} to {loss.after:.3f}, by {_signed(loss)}"
        if self.helps:
            warning = (
                f" But the shares of {self.coder}'s labels alone, which ignore the model, have {self.blind:.3f}: with "
                "it, the camera's labels say little of the picture."
            )
            ignored = loss.after >= self.blind
            return f"The calibration helps on held-out films: the log-loss goes {moved}.{warning if ignored else ''}"
        return (
            "It is not sure that the calibration helps, so it is not written: on held-out films the log-loss goes "
            f"{moved}."
        )

    def section(self) -> Section:
        """Return the section of the report."""
        rows: list[tuple[str | float | None, ...]] = [
            (effect.name, round(effect.before, 4), round(effect.after, 4), _signed(effect)) for effect in self.effects
        ]
        note = (
            f"{self.verdict()} The model's {self.scores:,} scores in {self.films} films are judged by the labels of "
            f"{self.coder}; each film has the same weight, and was left out of the fit by which it is judged."
        )
        return Section(f"Calibration of {self.camera}", note, ("on held-out films", "without", "with", "change"), rows)


def _key(text: str) -> str:
    """Return a key of TOML, in quotes only if it needs them."""
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else json.dumps(text, ensure_ascii=False)


def _signed(effect: Effect) -> str:
    low, high = effect.interval
    return f"{effect.change:+.3f} [{low:+.3f}, {high:+.3f}]"


def calibrate(material: Material, camera: str) -> Calibrated:
    """Fit a calibration for a camera to a coder's labels of its films.

    Raises:
        AnnotationError: there are several coders, or fewer than `LEAST_FILMS` films with scores and labels; or ours are
            not folders of `fer-stream analyze`.
    """
    if len(material.raters) != 2:
        raise AnnotationError(f"--calibrate fits to one coder, not to {', '.join(material.raters[1:])}: give one")
    coder = material.raters[1]
    films: list[Scored] = []
    labels: tuple[str, ...] = ()
    for film in material.films:
        if film.folder is None:
            raise AnnotationError(
                "--calibrate needs the scores of the model: give folders of fer-stream analyze as OURS"
            )
        found, its = read_scores(film, coder)
        if labels and its != labels:
            raise AnnotationError(
                f"{film.folder} was analysed by a model with other labels than {material.films[0].folder}: analyse all "
                "films with one model"
            )
        labels = its
        films += [found] if len(found.truth) else []
    if len(films) < LEAST_FILMS:
        raise AnnotationError(
            f"--calibrate needs at least {LEAST_FILMS} films in which {coder} gives a label of the model to a face "
            f"that was scored, but there are {len(films)}"
        )
    parts = min(len(films), FOLDS)
    others = [[each for at, each in enumerate(films) if at % parts != part] for part in range(parts)]
    held, blind = list(map(fit, others)), list(map(shares_only, others))
    before = [_judged(each, Fit(1.0, np.zeros(len(labels)))) for each in films]
    after = [_judged(each, held[at % parts]) for at, each in enumerate(films)]
    return Calibrated(
        camera,
        coder,
        labels,
        fit(films),
        len(films),
        sum(len(each.truth) for each in films),
        tuple(
            _effect(name, at, before, after) for at, name in enumerate(("log-loss", "accuracy", "calibration error"))
        ),
        float(np.mean([_judged(each, blind[at % parts])[0] for at, each in enumerate(films)])),
    )


def read_scores(film: Film, coder: str) -> tuple[Scored, tuple[str, ...]]:
    """Return the scores of a film at moments to which the coder gives one of the model's labels, and these labels.

    Moments at which several of our line's tracks are in view are left out.

    Raises:
        AnnotationError: the table of faces is missing or damaged.
    """
    path = _table(film)
    times, logs = [], []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            names = next(reader, [])
            time, track = names.index("time"), names.index("track")
            columns = own.scored(names)
            first = next(iter(columns), len(names))
            last = -math.inf
            ours = (row for row in reader if row[track] in film.tracks)
            for text, (row, *others) in groupby(ours, key=itemgetter(time)):
                if others or not row[first]:  # of two faces, the coder's label may be the other's
                    continue
                at = float(text)
                if at - last >= THIN - 1e-6:  # times are rounded
                    last = at
                    times.append(at)
                    logs.append([math.log(max(float(row[column]), FLOOR)) for column in columns])
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise AnnotationError(f"{path} is no complete table of faces ({error}): repeat fer-stream analyze") from error
    labels = tuple(columns.values())
    index = {label: at for at, label in enumerate(labels)}
    truth = np.full(len(times), -1, np.int64)
    when = np.asarray(times)
    for one in film.lines[coder].labels:
        if one.label in index:
            begin, end = np.searchsorted(when, [one.start, one.end])
            truth[begin:end] = index[one.label]
    kept = np.flatnonzero(truth >= 0)
    if len(kept) > MOST_SCORES:
        kept = kept[np.linspace(0, len(kept) - 1, MOST_SCORES).astype(int)]
    return Scored(film.name, np.asarray(logs, np.float64).reshape(-1, len(labels))[kept], truth[kept]), labels


def _table(film: Film) -> Path:
    if film.folder is None:
        raise AnnotationError(f"the film {film.name} has no folder of fer-stream analyze")
    return film.folder / own.FACES


def fit(films: Sequence[Scored]) -> Fit:
    """Return the correction with the least mean log-loss over films, by Newton's method; the loss is convex.

    Only labels that were coded in at least two of the films get a bias: a label that is missing in a few films may
    occur in others.
    """
    count = films[0].logs.shape[1]
    free = [label for label in range(count) if sum((each.truth == label).any() for each in films) >= 2]
    weights = np.concatenate([np.full(len(each.truth), 1 / (len(each.truth) * len(films))) for each in films])
    logs = np.concatenate([each.logs for each in films])
    truth = np.concatenate([each.truth for each in films])
    point = np.concatenate([[1.0], np.zeros(len(free))])
    target = np.eye(count)[truth]
    origin = point.copy()
    lowest = np.concatenate([[1 / LIMIT], np.full(len(free), -LIMIT)])

    def at(where: Numbers) -> tuple[float, Numbers]:
        shares = _softmax(logs * where[0] + _spread(where[1:], free, count))
        loss = -float(weights @ np.log(np.maximum(shares[np.arange(len(truth)), truth], 1e-300)))
        return loss + PULL / 2 * float(((where - origin) ** 2).sum()), shares

    loss, shares = at(point)
    for _ in range(_STEPS):
        wrong = (shares - target) * weights[:, None]
        gradient = np.concatenate([[(wrong * logs).sum()], wrong.sum(0)[free]]) + PULL * (point - origin)
        features = np.zeros((len(truth), count, 1 + len(free)))
        features[:, :, 0] = logs
        features[:, free, np.arange(1, 1 + len(free))] = 1.0
        middle = np.einsum("nk,nkp->np", shares, features)
        curve = np.einsum("n,nk,nkp,nkq->pq", weights, shares, features, features, optimize=True)
        curve += PULL * np.eye(len(point)) - (middle * weights[:, None]).T @ middle
        step = np.linalg.solve(curve, gradient)
        size = 1.0
        while size > 1e-6:
            there = point - size * step
            there = np.clip(there, lowest, LIMIT)
            lower, its = at(there)
            if lower < loss:
                break
            size /= 2
        else:
            break
        point, done, loss, shares = there, loss - lower < 1e-10, lower, its
        if done:
            break
    return Fit(1 / float(point[0]), _spread(point[1:], free, count))


def shares_only(films: Sequence[Scored]) -> Fit:
    """Return the correction that ignores all scores, and gives each label its mean share of the films."""
    count = films[0].logs.shape[1]
    shares = np.mean([np.bincount(each.truth, minlength=count) / len(each.truth) for each in films], axis=0)
    return Fit(math.inf, np.log(np.maximum(shares, FLOOR)))


def _spread(values: Numbers, free: Sequence[int], count: int) -> Numbers:
    found = np.zeros(count)
    found[list(free)] = values
    return found


def _softmax(logits: Numbers) -> Numbers:
    weights = np.exp(logits - logits.max(1, keepdims=True))
    shares: Numbers = weights / weights.sum(1, keepdims=True)
    return shares


def probabilities(logs: Numbers, correction: Fit) -> Numbers:
    """Return corrected probabilities, floats ``[N, K]``, as `fer_stream.events.calibration` computes them."""
    return _softmax(logs / correction.temperature + correction.bias)


def _judged(scored: Scored, correction: Fit) -> Numbers:
    """Return a film's mean log-loss, accuracy and its bins' ``(weight, confidence, hits)``, floats ``[2 + 3 BINS]``."""
    shares = probabilities(scored.logs, correction)
    rows = np.arange(len(scored.truth))
    loss = -np.log(shares[rows, scored.truth]).mean()
    best = shares.argmax(1)
    hits, sure = (best == scored.truth).astype(float), shares[rows, best]
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    parts = [np.bincount(bins, each, BINS) / len(rows) for each in (np.ones(len(rows)), sure, hits)]
    return np.concatenate([[loss, hits.mean()], *parts])


def _effect(name: str, at: int, before: Sequence[Numbers], after: Sequence[Numbers]) -> Effect:
    both = np.stack([np.stack(before), np.stack(after)], axis=1)

    def value(summed: Numbers) -> Numbers:
        mean = summed / summed[..., 2 : 2 + BINS].sum(-1, keepdims=True)  # a film's weights add up to one
        if at < 2:
            part: Numbers = mean[..., at]
            return part
        bins = mean[..., 2:].reshape(*mean.shape[:-1], 3, BINS)
        gaps: Numbers = np.abs(bins[..., 1, :] - bins[..., 2, :]).sum(-1)
        return gaps

    def change(summed: Numbers) -> Numbers:
        values = value(summed)
        moved: Numbers = values[..., 1] - values[..., 0]
        return moved

    first, second = (float(each) for each in value(both.sum(0)))
    figure = Figure(second - first, measures.bootstrap(both, change))
    return Effect(name, first, second, figure.value, figure.interval)
