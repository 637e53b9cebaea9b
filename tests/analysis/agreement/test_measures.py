"""Measures of agreement against published worked examples, and against independent plain code."""

from __future__ import annotations

import math
from itertools import permutations
from typing import TYPE_CHECKING

import krippendorff as package
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fer_stream.analysis.agreement import measures
from fer_stream.analysis.agreement.measures import (
    bootstrap,
    cohen,
    coincidences,
    event_scores,
    fleiss,
    krippendorff,
    observed,
    percentiles,
    resampled,
    scores,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def _counts(raters: Sequence[Sequence[object]]) -> np.ndarray:
    """Return how many raters gave each unit each label; ``None`` is missing."""
    labels = sorted({value for row in raters for value in row if value is not None}, key=str)
    units = zip(*raters, strict=True)
    return np.array([[unit.count(label) for label in labels] for unit in units])


def _alpha(raters: Sequence[Sequence[object]]) -> float:
    return float(krippendorff(coincidences(_counts(raters))))


def test_alpha_of_two_observers_and_binary_data() -> None:
    """Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section A: two observers, ten units."""
    meg = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    owen = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert _alpha([meg, owen]) == pytest.approx(0.095, abs=5e-4)


def test_alpha_of_two_observers_and_five_labels() -> None:
    """Krippendorff 2011, section B: two observers, twelve units."""
    ben = list("aabbdcccedda")
    gerry = list("babbbccceddd")
    assert _alpha([ben, gerry]) == pytest.approx(0.692, abs=5e-4)


def test_alpha_of_four_observers_with_missing_values() -> None:
    """Krippendorff 2011, section C: four observers, twelve units, some without a value."""
    a = [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None]
    b = [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3]
    c = [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None]
    d = [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None]
    assert _alpha([a, b, c, d]) == pytest.approx(0.743, abs=5e-4)


def test_cohen_s_own_example() -> None:
    """Cohen 1960, the example with 200 cases and three categories: p_o = .70, p_e = .41, kappa = .492."""
    table = np.array([[88, 14, 18], [10, 40, 10], [2, 6, 12]], float)
    assert observed(table) == pytest.approx(0.70)
    assert cohen(table) == pytest.approx(0.492, abs=5e-4)


def test_cohen_in_a_survey() -> None:
    """Artstein and Poesio 2008, "Inter-Coder Agreement for Computational Linguistics", table 1: p_o .7, kappa .348."""
    table = np.array([[20, 20], [10, 50]], float)
    assert observed(table) == pytest.approx(0.7)
    assert cohen(table) == pytest.approx(0.348, abs=5e-4)


FOURTEEN = np.array([
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
])  # fmt: skip

PATIENTS = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""


def test_fleiss_own_example() -> None:
    """Fleiss 1971, table 1: 30 patients, each diagnosed by 6 psychiatrists with one of 5 diagnoses, kappa .430."""
    counts = np.array([[int(digit) for digit in patient] for patient in PATIENTS.split()])
    assert len(counts) == 30
    assert fleiss(counts) == pytest.approx(0.430, abs=5e-4)


def test_fleiss_kappa_of_fourteen_raters() -> None:
    """The worked example of https://en.wikipedia.org/wiki/Fleiss'_kappa: 14 raters, 10 subjects, kappa .210."""
    assert fleiss(FOURTEEN) == pytest.approx(0.210, abs=5e-4)
    assert fleiss(np.repeat(FOURTEEN, 3, axis=0)) == pytest.approx(fleiss(FOURTEEN, np.full(10, 3.0)))
    with pytest.raises(ValueError, match="same number of values"):
        fleiss(np.array([[1, 1], [2, 1]]))
    assert math.isnan(fleiss(np.array([[2, 0], [2, 0]])))


def _plain_alpha(raters: Sequence[Sequence[int | None]]) -> float:
    """Return alpha as one minus the mean difference within units over that of all pairs, value by value."""
    units = [[value for value in unit if value is not None] for unit in zip(*raters, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    pairs = list(permutations(range(len(values)), 2))
    expected = sum(values[i] != values[j] for i, j in pairs) / len(pairs) if pairs else 0
    if not expected:
        return math.nan
    within = sum(sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units) / len(values)
    return 1 - within / expected


@given(
    st.integers(2, 4).flatmap(
        lambda raters: st.lists(
            st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=raters, max_size=raters), min_size=1, max_size=12
        )
    )
)
def test_alpha_is_that_of_a_plain_implementation(units: list[list[int | None]]) -> None:
    raters = list(zip(*units, strict=True))
    expected = _plain_alpha(raters)
    counts = np.array([[sum(value == label for value in unit) for label in range(4)] for unit in units])
    found = float(krippendorff(coincidences(counts)))
    assert found == pytest.approx(expected, nan_ok=True)
    assert float(krippendorff(coincidences(counts, np.ones(len(units))))) == pytest.approx(expected, nan_ok=True)


@given(st.integers(2, 6), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_alpha_is_that_of_the_package_krippendorff(raters: int, units: int, seed: int) -> None:
    """S. Castro's krippendorff, which takes the values themselves; missing values are NaN."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, units)
    data = np.where(rng.random((raters, units)) < 0.6, truth, rng.integers(0, 4, (raters, units))).astype(float)
    data[rng.random(data.shape) < 0.2] = np.nan
    paired = data[:, (~np.isnan(data)).sum(0) > 1]
    assume(len(np.unique(paired[~np.isnan(paired)])) > 1)
    theirs = package.alpha(reliability_data=data, level_of_measurement="nominal")
    counts = np.array([[(unit == label).sum() for label in range(4)] for unit in data.T])
    assert float(krippendorff(coincidences(counts))) == pytest.approx(theirs)
    assert theirs == pytest.approx(package.alpha(value_counts=counts, level_of_measurement="nominal"))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_kappa_and_scores_are_those_of_a_plain_implementation(pairs: list[tuple[int, int]]) -> None:
    confusion = np.zeros((4, 4))
    for first, second in pairs:
        confusion[first, second] += 1
    n = len(pairs)
    agreed = sum(first == second for first, second in pairs) / n
    chance = (
        sum(
            sum(first == label for first, _ in pairs) * sum(second == label for _, second in pairs)
            for label in range(4)
        )
        / n**2
    )
    assert float(cohen(confusion)) == pytest.approx(
        (agreed - chance) / (1 - chance) if chance < 1 else math.nan, nan_ok=True
    )
    found = scores(confusion)
    for label in range(4):
        hits = sum(first == second == label for first, second in pairs)
        said, true = sum(first == label for first, _ in pairs), sum(second == label for _, second in pairs)
        assert found.precision[label] == pytest.approx(hits / said if said else math.nan, nan_ok=True)
        assert found.recall[label] == pytest.approx(hits / true if true else math.nan, nan_ok=True)
        assert found.f1[label] == pytest.approx(2 * hits / (said + true) if said + true else math.nan, nan_ok=True)
    hits = np.array([min(confusion[i].sum(), confusion[:, i].sum()) for i in range(4)])
    events = event_scores(hits, confusion.sum(1), confusion.sum(0))
    assert np.nan_to_num(events.f1).max() <= 1


def test_one_label_only_has_no_kappa() -> None:
    assert math.isnan(cohen(np.array([[5.0, 0], [0, 0]])))
    assert math.isnan(float(krippendorff(coincidences(np.array([[2, 0], [2, 0]])))))
    assert cohen(np.array([[3.0, 0], [0, 1]])) == 1


def test_the_interval_over_films() -> None:
    same = np.array([[[8.0, 2], [1, 9]]] * 5)
    low, high = bootstrap(same, cohen)
    assert low == pytest.approx(high) == pytest.approx(float(cohen(same[0])))
    rng = np.random.default_rng(1)
    films = rng.integers(0, 50, (12, 3, 3)).astype(float)
    low, high = bootstrap(films, observed)
    assert low < observed(films.sum(0)) < high
    # The same by drawing films one by one.
    drawn = [observed(films[rng.integers(0, 12, 12)].sum(0)) for _ in range(4000)]
    assert (low, high) == (
        pytest.approx(np.quantile(drawn, 0.025), abs=0.01),
        pytest.approx(np.quantile(drawn, 0.975), abs=0.01),
    )
    assert all(map(math.isnan, bootstrap(films[:1], observed)))
    assert resampled(4).sum(1).tolist() == [4] * measures.RESAMPLES
    assert math.isnan(percentiles(np.array([1.0, np.nan, np.nan])).low)
