"""The quality measures, compared with values calculated by hand."""

import numpy as np
import pytest

from training import metrics

LABELS = np.array([0, 0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 2, 1, 1, 1])
MATRIX = np.array([[2, 1, 1], [0, 2, 0], [0, 1, 0]])


def test_risk_falls_with_coverage():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.55, 0.45]])
    coverage, risk = metrics.risk_coverage(probabilities, np.array([0, 1, 1, 1]))
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 0, 1 / 3, 1 / 2])


def test_a_confusion_matrix_has_labels_as_rows():
    np.testing.assert_array_equal(metrics.confusion(LABELS, PREDICTED, 3), MATRIX)


def test_accuracy():
    assert metrics.accuracy(MATRIX) == pytest.approx(4 / 7)


def test_each_class_and_macro_f1():
    found = metrics.per_class(MATRIX)
    np.testing.assert_allclose(found.precision, [1, 1 / 2, 0])
    np.testing.assert_allclose(found.recall, [1 / 2, 1, 0])
    np.testing.assert_allclose(found.f1, [2 / 3, 2 / 3, 0])
    assert metrics.macro_f1(MATRIX) == pytest.approx(4 / 9)


def test_expected_calibration_error():
    # Two bins have samples: one is overconfident by 0.9 - 0.5, the other underconfident by 1 - 0.6.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    labels = np.array([0, 1, 0])
    error = metrics.expected_calibration_error(probabilities, labels, bins=10)
    assert error == pytest.approx(2 / 3 * 0.4 + 1 / 3 * 0.4)
    count, confidence, right = metrics.calibration(probabilities, labels, bins=10)
    assert (count[9], confidence[9], right[9]) == (2, pytest.approx(0.9), 0.5)
    assert (
        metrics.expected_calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0
    )  # confidence 1 belongs to the last bin


def test_heat_lowers_the_confidence_and_keeps_the_order():
    row = np.array([[0.7, 0.2, 0.1]])
    np.testing.assert_allclose(metrics.heat(row, 1), row)
    np.testing.assert_allclose(metrics.heat(row, 2), np.sqrt(row) / np.sqrt(row).sum())
    np.testing.assert_allclose(metrics.heat(metrics.heat(row, 0.5), 2), row)
    np.testing.assert_allclose(metrics.heat(np.array([[1.0, 0.0]]), 1), [[1, 0]], atol=1e-11)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_fitting_recovers_the_temperature_that_distorted_the_scores(temperature):
    random = np.random.default_rng(0)
    calibrated = random.dirichlet(np.ones(4), 20_000)
    labels = (calibrated.cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1)
    distorted = metrics.heat(calibrated, 1 / temperature)
    assert metrics.fit_temperature(distorted, labels) == pytest.approx(temperature, rel=0.05)
    assert metrics.expected_calibration_error(metrics.heat(distorted, temperature), labels) < 0.02


def test_an_interval_is_that_of_the_binomial():
    random = np.random.default_rng(1)
    labels = np.zeros(2500, np.int64)
    predicted = (random.random(2500) < 0.36).astype(np.int64)
    low, high = metrics.interval(metrics.accuracy, labels, predicted, 2)
    share = (predicted == 0).mean()
    margin = 1.96 * np.sqrt(share * (1 - share) / 2500)
    assert (low, high) == (pytest.approx(share - margin, abs=0.003), pytest.approx(share + margin, abs=0.003))
