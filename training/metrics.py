"""Quality measures of a classifier, from its probabilities and the labels. Uses only numpy; has no state.

Everywhere ``probabilities`` is float ``[N, C]`` with rows summing to 1, and ``labels`` int ``[N]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

BINS = 15


class PerClass(NamedTuple):
    """Float64 ``[C]`` each; 0 where the denominator is 0."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix, int64 ``[C, C]``: counts for each label (row) and prediction (column)."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def accuracy(matrix: NDArray[np.int64]) -> float:
    """Return the accuracy: the share of a confusion matrix on its diagonal."""
    return float(np.trace(matrix) / matrix.sum())


def per_class(matrix: NDArray[np.int64]) -> PerClass:
    """Return precision, recall and F1 of each class of a confusion matrix."""
    right = np.diag(matrix).astype(np.float64)
    precision = _divide(right, matrix.sum(axis=0))
    recall = _divide(right, matrix.sum(axis=1))
    return PerClass(precision, recall, _divide(2 * precision * recall, precision + recall))


def macro_f1(matrix: NDArray[np.int64]) -> float:
    """Return the unweighted mean of the classes' F1."""
    return float(per_class(matrix).f1.mean())


def calibration(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], bins: int = BINS
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return count, mean confidence and accuracy of the rows in each of ``bins`` equally wide bins of confidence."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins)
    mean_confidence = _divide(np.bincount(index, confidence, bins).astype(np.float64), count)
    return count, mean_confidence, _divide(np.bincount(index, right, bins).astype(np.float64), count)


def expected_calibration_error(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], bins: int = BINS
) -> float:
    """Return the mean difference between confidence and accuracy over the bins, weighted by count (Guo et al. 2017)."""
    count, confidence, right = calibration(probabilities, labels, bins)
    return float((count * np.abs(confidence - right)).sum() / count.sum())


def heat(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return ``softmax(log p / temperature)``: above 1 lowers the confidence, below 1 raises it; the order stays."""
    logits = np.log(np.maximum(probabilities, 1e-12)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


def fit_temperature(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the temperature under which the labels are most likely (Guo et al. 2017, arXiv:1706.04599).

    The negative log likelihood is convex in 1 / temperature, so golden-section search finds the minimum.
    """
    rows = np.arange(len(labels))

    def unlikeliness(inverse: float) -> float:
        return float(-np.log(np.maximum(heat(probabilities, 1 / inverse)[rows, labels], 1e-300)).mean())

    golden = (np.sqrt(5) - 1) / 2
    low, high = 0.05, 20.0
    while high - low > 1e-5:
        one, other = high - golden * (high - low), low + golden * (high - low)
        if unlikeliness(one) < unlikeliness(other):
            high = other
        else:
            low = one
    return 2 / (low + high)


def risk_coverage(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the risk-coverage curve (Geifman et al. 2017): the error rate if only the most confident rows are kept.

    Returns:
        Coverage (the share of rows kept), rising to 1, and the error rate at it, float64 ``[N]`` each.
    """
    surest = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[surest]
    kept = np.arange(1, len(labels) + 1)
    return kept / len(labels), np.cumsum(wrong) / kept


def interval(
    figure: Callable[[NDArray[np.int64]], float], labels: NDArray[np.int64], predicted: NDArray[np.int64],
    classes: int, rounds: int = 1000,
) -> tuple[float, float]:  # fmt: skip
    """Return the 95% percentile bootstrap interval of a figure of the confusion matrix."""
    random = np.random.default_rng(0)
    samples = random.integers(0, len(labels), (rounds, len(labels)))
    values = [figure(confusion(labels[rows], predicted[rows], classes)) for rows in samples]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _divide(a: NDArray[np.float64], b: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(a, b, out=np.zeros(len(a)), where=b > 0)
