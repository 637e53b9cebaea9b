"""Measures of agreement, from tables of counts. Confusions may have leading axes, such as one for resamples.

A *confusion* is a float array ``[..., K, K]``: how often (or for how long) the first rater chose the row's label while
the second chose the column's. An undefined value, such as the kappa of two raters who use one label only, is NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

RESAMPLES = 2000
"""Number of bootstrap resamples, as Efron and Tibshirani (1993, section 14) advise for percentile intervals."""

LEVEL = 0.95
"""Confidence level of all intervals."""


def observed(confusion: Numbers) -> Numbers:
    """Return the share of agreement, 0 to 1."""
    return ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum((-2, -1)))


def cohen(confusion: Numbers) -> Numbers:
    """Return Cohen's kappa, at most 1.

    ``(p_o - p_e) / (1 - p_e)``, where ``p_e`` is the agreement expected if both chose at random, each with its own
    shares (J. Cohen 1960, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement
    20(1), equation 1).
    """
    total = confusion.sum((-2, -1))
    chance = ratio((confusion.sum(-1) * confusion.sum(-2)).sum(-1), total**2)
    return ratio(observed(confusion) - chance, 1 - chance)


def coincidences(counts: NDArray[np.integer], weights: Numbers | None = None) -> Numbers:
    """Return the coincidence matrix, ``[K, K]``, of units.

    Args:
        counts: integers ``[U, K]``: how many raters gave the unit this label. Missing values are not counted, and a
            unit with fewer than two values is left out.
        weights: floats ``[U]``: how many units such a row stands for; by default one.

    A unit with ``m`` values adds ``1 / (m - 1)`` for each ordered pair of them (K. Krippendorff 2011, "Computing
    Krippendorff's Alpha-Reliability", https://repository.upenn.edu/asc_papers/43, section C).
    """
    numbers = counts.astype(np.float64)
    values = numbers.sum(1)
    paired = values >= 2
    numbers, values = numbers[paired], values[paired]
    worth = 1 / (values - 1) * (1.0 if weights is None else weights[paired])
    found: Numbers = (numbers * worth[:, None]).T @ numbers
    found[np.diag_indices_from(found)] -= (numbers * worth[:, None]).sum(0)
    return found


def krippendorff(coincidence: Numbers) -> Numbers:
    """Return Krippendorff's alpha for nominal data from a coincidence matrix ``[..., K, K]`` (`coincidences`).

    ``1 - D_o / D_e = 1 - (n - 1) (n - sum of o_cc) / (n^2 - sum of n_c^2)`` (Krippendorff 2011, section C).
    """
    each = coincidence.sum(-1)
    total = each.sum(-1)
    differing = total - np.trace(coincidence, axis1=-2, axis2=-1)
    return 1 - ratio((total - 1) * differing, total**2 - (each**2).sum(-1))


def fleiss(counts: NDArray[np.integer], weights: Numbers | None = None) -> float:
    """Return Fleiss' kappa of units that all raters labelled.

    Args:
        counts: integers ``[U, K]``, each row with the same sum, of at least 2.
        weights: as for `coincidences`.

    J. L. Fleiss 1971, "Measuring nominal scale agreement among many raters", Psychological Bulletin 76(5).

    Raises:
        ValueError: the rows have different sums, or sums below 2.
    """
    numbers = counts.astype(np.float64)
    raters = numbers.sum(1)
    if not len(numbers):
        return float("nan")
    if raters.min() != raters.max() or raters[0] < 2:
        raise ValueError("Fleiss' kappa needs the same number of values, at least two, for each unit")
    worth = np.ones(len(numbers)) if weights is None else weights
    many = raters[0]
    agreement = worth @ (((numbers**2).sum(1) - many) / (many * (many - 1))) / worth.sum()
    chance = float((((worth @ numbers) / (worth.sum() * many)) ** 2).sum())
    return float(ratio(np.asarray(agreement - chance), np.asarray(1 - chance)))


class Scores(NamedTuple):
    """Precision, recall and F1 for each label, each floats ``[..., K]``."""

    precision: Numbers
    recall: Numbers
    f1: Numbers


def scores(confusion: Numbers) -> Scores:
    """Return the scores of each label, where the rows' rater is judged by the columns' rater.

    F1 is ``2 TP / (2 TP + FP + FN)``, as C. J. van Rijsbergen 1979 ("Information Retrieval", chapter 7) with equal
    weights; undefined where neither rater uses the label.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    predicted, reference = confusion.sum(-1), confusion.sum(-2)
    return event_scores(hits, predicted, reference)


def event_scores(hits: Numbers, predicted: Numbers, reference: Numbers) -> Scores:
    """Return the scores from the numbers of matched, of our and of the reference's events, each floats ``[..., K]``."""
    return Scores(ratio(hits, predicted), ratio(hits, reference), ratio(2 * hits, predicted + reference))


class Interval(NamedTuple):
    """A percentile interval at `LEVEL`; NaN where there is none."""

    low: float
    high: float


NO_INTERVAL = Interval(float("nan"), float("nan"))


def resampled(films: int, seed: int = 0) -> Numbers:
    """Return how often each resample draws each film, floats ``[RESAMPLES, films]``; each row's sum is ``films``."""
    drawn = np.random.default_rng(seed).multinomial(films, np.full(films, 1 / films), RESAMPLES)
    return drawn.astype(np.float64)


def bootstrap(parts: Numbers, measure: Callable[[Numbers], Numbers]) -> Interval:
    """Return the interval of a measure over films.

    Whole films are resampled, because the moments of one film are not independent (B. Efron and R. Tibshirani 1993,
    "An Introduction to the Bootstrap", section 13.3, percentile interval; A. C. Davison and D. V. Hinkley 1997,
    "Bootstrap Methods and their Application", section 3.8, for clusters). Resamples in which the measure is undefined
    are left out, if they are fewer than half.

    Args:
        parts: the counts of each film, floats ``[F, ...]``, which add up over films.
        measure: the measure of summed counts, with the resamples as a leading axis.
    """
    if len(parts) < 2:
        return NO_INTERVAL
    weights = resampled(len(parts))
    summed = (weights @ parts.reshape(len(parts), -1)).reshape(len(weights), *parts.shape[1:])
    return percentiles(measure(summed))


def percentiles(values: Numbers) -> Interval:
    """Return the interval in which the middle `LEVEL` of the values lie; NaN values are left out if fewer than half."""
    known = values[np.isfinite(values)]
    if 2 * len(known) <= len(values):
        return NO_INTERVAL
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def ratio(above: Numbers, below: Numbers) -> Numbers:
    """Return a quotient; NaN where the divisor is 0."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    # Rounding leaves a rest of about 1e-16 where the divisor is 0.
    found: Numbers = np.divide(above, below, out=np.full(above.shape, np.nan), where=np.abs(below) > 1e-12)
    return found
