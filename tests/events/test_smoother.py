"""From scores over time to intervals of one label."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.errors import ConfigError
from fer_stream.events.smoother import Change, LabelSet, Smoother
from fer_stream.settings.tree import Settings, SmootherSettings
from fer_stream.types import EMOTIONS, Measures, Nanoseconds, Probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

profile = settings(deadline=None, max_examples=150)

VALENCE = Settings.model_fields["valence"].get_default(call_default_factory=True)
SECOND = 1_000_000_000

SETTINGS = {"tau": 0.4, "enter": 0.5, "leave": 0.35, "min_dwell": 0.4, "patience": 0.0}
"""The settings on which the expected values are based; they do not depend on the defaults."""


def at(seconds: float) -> Nanoseconds:
    return Nanoseconds(round(seconds * SECOND))


def label_set(choice: str = "emotions") -> LabelSet:
    return LabelSet(choice, EMOTIONS, VALENCE)


def scores(**shares: float) -> Probabilities:
    """Return a distribution over the emotions: the named ones as given, the rest shared equally by the others."""
    rest = (1 - sum(shares.values())) / (len(EMOTIONS) - len(shares))
    return Probabilities(EMOTIONS, tuple(shares.get(label, rest) for label in EMOTIONS))


@st.composite
def distributions(draw: st.DrawFn) -> Probabilities:
    weights = [draw(st.integers(0, 100)) ** 2 for _ in EMOTIONS]
    weights[draw(st.integers(0, 6))] += 1
    return Probabilities(EMOTIONS, tuple(w / sum(weights) for w in weights))


gaps = st.sampled_from([0.0, 0.01, 0.033, 0.1, 0.3, 1.0, 5.0])
observations = st.lists(st.tuples(gaps, distributions()), min_size=1, max_size=40)


class Run:
    """A smoother that records copies of all its changes."""

    def __init__(self, choice: str = "emotions", **changes: float) -> None:
        self.settings = SmootherSettings(**(SETTINGS | changes))
        self.smoother = Smoother(label_set(choice), self.settings)
        self.changes: list[tuple[str, str, float, float]] = []

    def observe(self, seconds: float, seen: Probabilities, weight: float = 1.0) -> list[str]:
        return self._take(self.smoother.observe(at(seconds), seen, weight))

    def close(self, seconds: float) -> list[str]:
        return self._take(self.smoother.close(at(seconds)))

    def feed(self, moments: Iterable[float], seen: Probabilities | Callable[[float], Probabilities]) -> Run:
        for moment in moments:
            self.observe(moment, seen if isinstance(seen, Probabilities) else seen(moment))
        return self

    @property
    def what(self) -> list[str]:
        return [f"{what} {label}" for what, label, _, _ in self.changes]

    def _take(self, changes: list[Change]) -> list[str]:
        for change in changes:
            interval = change.interval
            self.changes.append((change.what, interval.label, interval.start / SECOND, interval.last / SECOND))
        return [f"{change.what} {change.interval.label}" for change in changes]


def every(step: float, start: float, end: float) -> list[float]:
    return [start + i * step for i in range(round((end - start) / step) + 1)]


# Label sets


def test_emotions_are_the_model_s_own_labels() -> None:
    found = label_set()
    assert (found.family, found.labels) == ("emotion", EMOTIONS)
    assert found.project(scores(happy=0.7)) == scores(happy=0.7)


@profile
@given(distributions())
def test_valence_sums_the_probabilities_of_each_group(seen: Probabilities) -> None:
    found = label_set("valence")
    assert found.family == "valence"
    assert set(found.labels) == {"positive", "neutral", "negative"}
    got = found.project(seen).as_dict()
    given_ = seen.as_dict()
    assert got["positive"] == pytest.approx(given_["happy"] + given_["surprise"])
    assert got["neutral"] == given_["neutral"]
    assert sum(got.values()) == pytest.approx(1)


@profile
@given(distributions(), st.sets(st.sampled_from(EMOTIONS), min_size=1))
def test_a_subset_keeps_its_probabilities_unscaled(seen: Probabilities, chosen: set[str]) -> None:
    found = label_set(" , ".join(sorted(chosen)))
    assert found.family == "emotion"
    assert found.project(seen).as_dict() == {label: p for label, p in seen.as_dict().items() if label in chosen}


def test_a_mapping_may_omit_labels_and_name_unknown_ones() -> None:
    found = LabelSet("valence", EMOTIONS, {"happy": "good", "contempt": "bad"})
    assert found.labels == ("good",)
    assert found.project(scores(happy=0.4)).as_dict() == {"good": 0.4}


@pytest.mark.parametrize(
    ("choice", "valence", "sentence"),
    [
        ("joy", VALENCE, "the model has no label 'joy': choose emotions, valence, or some of angry"),
        ("happy,joy", VALENCE, "the model has no label 'joy'"),
        ("valence", {"joy": "positive"}, "the valence mapping names no label of the model; it has: angry"),
    ],
)
def test_an_unknown_label_is_reported(choice: str, valence: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        LabelSet(choice, EMOTIONS, valence)


def test_scores_over_other_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match="but the label set is for"):
        label_set().project(Probabilities(("happy", "sad"), (0.5, 0.5)))


# The average


@profile
@given(st.floats(0.01, 10), st.lists(st.floats(0.001, 1), min_size=2, max_size=20))
def test_the_average_does_not_depend_on_the_frame_rate(tau: float, parts: list[float]) -> None:
    """One step of a second, and the same second in any steps, give the same average."""
    whole, pieces = Run(tau=tau), Run(tau=tau)
    for run in (whole, pieces):
        run.observe(0, scores(happy=0.9))
    whole.observe(1, scores(sad=0.8))
    passed = list(itertools.accumulate(part / sum(parts) for part in parts))
    pieces.feed(passed, scores(sad=0.8))
    assert whole.smoother.probabilities.values == pytest.approx(pieces.smoother.probabilities.values, abs=1e-6)
    expected = 0.9 + (scores(sad=0.8).as_dict()["happy"] - 0.9) * (1 - math.exp(-1 / tau))
    assert whole.smoother.probabilities.as_dict()["happy"] == pytest.approx(expected)


@profile
@given(observations, st.sampled_from(["emotions", "valence", "happy,sad"]), st.floats(0, 1))
def test_the_belief_is_a_distribution_that_sums_to_at_most_one(
    seen: list[tuple[float, Probabilities]], choice: str, weight: float
) -> None:
    run, now = Run(choice), 0.0
    assert run.smoother.probabilities.values == ()
    for gap, found in seen:
        now += gap
        run.observe(now, found, weight)
        total = sum(run.smoother.probabilities.values)
        assert total <= 1 + 1e-9
        # The first look has its full weight, and a weight of 0.5 is enough for a sum of 1.
        assert choice == "happy,sad" or weight < 0.5 or total == pytest.approx(1)
        assert min(run.smoother.probabilities.values) >= 0


@pytest.mark.parametrize("weight", [0.0, 0.05])
def test_looks_of_little_weight_never_start_an_interval(weight: float) -> None:
    """A face that is too small, blurred, turned or cut off stays uncertain, however long it is in view."""
    run = Run()
    for moment in every(0.1, 0, 60):
        run.observe(moment, scores(happy=0.95), weight)
    assert run.what == []
    assert max(run.smoother.probabilities.values) < run.settings.enter
    run.feed(every(0.1, 60.1, 62), scores(happy=0.95))
    assert run.what == ["started happy"]


def test_a_look_of_lower_weight_changes_the_belief_less() -> None:
    good, bad = Run(), Run()
    for run, weight in ((good, 1.0), (bad, 0.3)):
        run.feed(every(0.1, 0, 2), scores(happy=0.9))
        run.observe(2.1, scores(sad=0.9), weight)
    assert good.smoother.probabilities.as_dict()["sad"] > 1.5 * bad.smoother.probabilities.as_dict()["sad"]


def test_a_second_observation_at_the_same_time_has_no_effect() -> None:
    run = Run()
    run.observe(1, scores(happy=0.9))
    run.observe(1, scores(sad=0.9))
    assert run.smoother.probabilities == scores(happy=0.9)


# Intervals


@pytest.mark.parametrize("rate", [5, 15, 60])
def test_an_emotion_starts_and_ends_at_the_same_time_at_any_frame_rate(rate: int) -> None:
    def seen(moment: float) -> Probabilities:
        return scores(happy=0.9) if 1 <= moment < 4 else scores(neutral=0.2)

    run = Run().feed(every(1 / rate, 0, 8), seen)
    assert run.what == ["started happy", "ended happy"]
    (_, _, start, published), (_, _, _, end) = run.changes
    # The belief needs somewhat more than tau ln 2 to reach 0.5; the resolution is one frame.
    assert start == pytest.approx(1.26, abs=0.06 + 1 / rate)
    assert published - start == pytest.approx(0.4, abs=1.01 / rate)
    assert end == pytest.approx(4.51, abs=0.06 + 1 / rate)


def test_an_emotion_starts_when_it_was_above_enter_for_min_dwell() -> None:
    run = Run(min_dwell=0.4)
    for moment in (0.0, 0.1, 0.3, 0.399):
        assert run.observe(moment, scores(happy=0.9)) == []
    assert run.smoother.interval is None
    assert run.observe(0.4, scores(happy=0.9)) == ["started happy"]
    assert run.changes[0][2:] == (0.0, 0.4)


def test_without_a_dwell_it_starts_at_once() -> None:
    assert Run(min_dwell=0).observe(0, scores(happy=0.9)) == ["started happy"]


def test_one_short_look_starts_nothing() -> None:
    run = Run(tau=0.05).feed(every(0.05, 0, 1), scores(neutral=0.2))
    run.feed(every(0.05, 1.05, 1.3), scores(happy=0.95)).feed(every(0.05, 1.35, 3), scores(neutral=0.2))
    assert run.what == []


def test_between_leave_and_enter_an_open_interval_continues_and_none_starts() -> None:
    run = Run(enter=0.5, leave=0.35).feed(every(0.1, 0, 5), scores(happy=0.45))
    assert run.what == []
    run.feed(every(0.1, 5.1, 7), scores(happy=0.9)).feed(every(0.1, 7.1, 15), scores(happy=0.36))
    assert run.what == ["started happy"]
    assert run.smoother.interval is not None
    run.feed(every(0.1, 15.1, 20), scores(happy=0.3))
    assert run.what == ["started happy", "ended happy"]
    assert run.smoother.interval is None


def test_after_patience_an_interval_ends_at_the_time_it_fell_below_leave() -> None:
    run = Run(tau=0.05, patience=0.5).feed(every(0.1, 0, 2), scores(happy=0.9))
    run.feed(every(0.1, 2.1, 2.4), scores(neutral=0.2)).feed(every(0.1, 2.5, 4), scores(happy=0.9))
    assert run.what == ["started happy"], "a short gap does not end it"
    run.feed(every(0.1, 4.1, 6), scores(neutral=0.2))
    assert run.what == ["started happy", "ended happy"]
    (_, _, _, published), (_, _, _, end) = run.changes
    assert (published, end) == (pytest.approx(0.4), pytest.approx(4.1))


def test_an_interval_ends_if_looks_have_no_weight() -> None:
    for choice in ("emotions", "valence"):
        run = Run(choice, leave=0.1).feed(every(0.1, 0, 2), scores(happy=0.9))
        run.feed(every(0.1, 2.1, 5), Probabilities(EMOTIONS, scores(happy=0.9).values))
        assert run.what[-1].startswith("started")
        for moment in every(0.1, 5.1, 8):
            run.observe(moment, scores(happy=0.9), 0.0)
        assert run.what[-1].startswith("ended"), choice


def test_a_look_that_would_change_the_label_leaves_it_unsettled() -> None:
    run = Run(min_dwell=0.15)
    run.observe(0, scores(happy=0.9))
    assert run.smoother.unsettled
    run.feed([0.1, 0.2], scores(happy=0.9))
    assert not run.smoother.unsettled
    run.observe(0.3, scores(sad=0.45))
    assert not run.smoother.unsettled, "repeated, it would not start an interval"
    run.observe(0.4, scores(sad=0.9))
    assert run.smoother.unsettled
    run.observe(0.5, scores(happy=0.6))
    assert not run.smoother.unsettled
    for moment in every(0.1, 0.6, 3):
        run.observe(moment, scores(sad=0.9), 0.2)
        assert not run.smoother.unsettled, "looks of so little weight never start an interval"


def test_another_label_ends_an_interval_at_the_time_it_fell_below_leave() -> None:
    run = Run(tau=0.05, patience=1.0, min_dwell=0.1).feed(every(0.1, 0, 3), scores(happy=0.9))
    run.feed(every(0.1, 3.1, 3.6), scores(neutral=0.2)).feed(every(0.1, 3.7, 5), scores(sad=0.9))
    (_, ended, started) = run.changes
    assert ended[:2] == ("ended", "happy")
    assert ended[3] == pytest.approx(3.1)
    assert started[:2] == ("started", "sad")
    assert started[2] == pytest.approx(3.7)


def test_alternating_scores_do_not_flicker() -> None:
    """The most probable label changes with each frame, but one interval stays open."""

    def seen(moment: float) -> Probabilities:
        return scores(happy=0.62, sad=0.3) if round(moment * 30) % 2 else scores(happy=0.42, sad=0.5)

    assert Run().feed(every(1 / 30, 0, 20), seen).what == ["started happy", "updated happy"]


def test_scores_that_oscillate_around_enter_start_one_interval() -> None:
    def seen(moment: float) -> Probabilities:
        return scores(happy=0.5 + 0.14 * math.sin(moment * 3))

    what = Run(update_interval=1000).feed(every(1 / 30, 0, 60), seen).what
    assert what == ["started happy"]


def test_an_interval_has_the_previous_label() -> None:
    run = Run().feed(every(0.1, 0, 2), scores(happy=0.9)).feed(every(0.1, 2.1, 5), scores(sad=0.9))
    assert run.what == ["started happy", "ended happy", "started sad"]
    assert run.smoother.interval is not None
    assert run.smoother.interval.previous == "happy"
    run.feed(every(0.1, 5.1, 8), scores(neutral=0.2)).feed(every(0.1, 8.1, 11), scores(sad=0.9))
    assert run.what[-2:] == ["ended sad", "started sad"]
    assert run.smoother.interval.previous == "sad"


def test_another_label_may_replace_one_that_is_still_above_leave() -> None:
    """The interval ends only once the other label has stayed above ``enter`` for ``min_dwell``."""
    run = Run(tau=0.1, min_dwell=1.0, enter=0.5, leave=0.2)
    run.feed(every(0.1, 0, 2), scores(happy=0.7, sad=0.25))
    assert run.what == ["started happy"]
    run.feed(every(0.1, 2.1, 5), scores(happy=0.25, sad=0.7))
    assert run.what == ["started happy", "ended happy", "started sad"]
    assert run.changes[1][3] <= run.changes[2][2], "intervals do not overlap"


def test_a_subset_leaves_the_rest_uncertain() -> None:
    run = Run("happy,surprise").feed(every(0.1, 0, 5), scores(sad=0.9))
    assert run.what == []
    assert sum(run.smoother.probabilities.values) < 0.1


def test_an_open_interval_is_updated_every_update_interval() -> None:
    run = Run(update_interval=2).feed(every(0.1, 0, 7), scores(happy=0.9))
    assert run.what == ["started happy"] + ["updated happy"] * 3
    reported = [last for what, _, _, last in run.changes]
    assert reported == pytest.approx([0.4, 2.4, 4.4, 6.4])


def test_mean_and_peak_are_of_the_smoothed_probability() -> None:
    run = Run(min_dwell=0, tau=1e-3)
    for moment, p in ((0, 0.6), (1, 0.9), (2, 0.6)):
        run.observe(moment, scores(happy=p))
    (ended,) = run.smoother.close(at(2))
    assert ended.interval.mean == pytest.approx(0.7)
    assert ended.interval.peak == pytest.approx(0.9)


def test_closing_ends_the_open_interval_once() -> None:
    run = Run().feed(every(0.1, 0, 1), scores(happy=0.9))
    assert run.close(1.0) == ["ended happy"]
    assert run.close(1.0) == []
    assert run.changes[-1][3] == 1.0


@profile
@given(
    observations,
    st.sampled_from(["emotions", "valence", "happy,sad,neutral"]),
    st.sampled_from([(0.5, 0.35), (0.3, 0.1), (0.9, 0.5), (0.2, 0.0)]),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.sampled_from([0.0, 0.5]),
)
def test_for_any_observations_intervals_are_consistent(
    seen: list[tuple[float, Probabilities]], choice: str, levels: tuple[float, float], dwell: float, patience: float
) -> None:
    enter, leave = levels
    run, other = (Run(choice, enter=enter, leave=leave, min_dwell=dwell, patience=patience, tau=0.2) for _ in range(2))
    open_label: str | None = None
    ended_at = 0.0
    now, started = 0.0, 0
    for gap, found in [*seen, (0.1, None)]:
        now += gap
        before = len(run.changes)
        if found is None:
            run.close(now)
        else:
            assert run.observe(now, found) == other.observe(now, found)
        for what, label, start, last in run.changes[before:]:
            if what == "started":
                assert open_label is None
                # Intervals must not overlap.
                assert at(ended_at) <= at(start) <= at(now)
                assert run.smoother.probabilities.as_dict()[label] >= enter
                open_label, started = label, started + 1
            else:
                assert open_label == label
                assert at(start) <= at(last) <= at(now)
            if what == "ended":
                open_label, ended_at = None, last
        interval = run.smoother.interval
        assert (interval.label if interval else None) == open_label
        if interval is not None:
            assert interval.mean <= interval.peak + 1e-9
            assert interval.peak <= 1 + 1e-9
            assert patience or run.smoother.probabilities.as_dict()[interval.label] >= leave
    assert open_label is None
    assert sum(what == "ended" for what, *_ in run.changes) == started


def levels(valence: float, arousal: float = 0.0) -> Measures:
    return Measures(("valence", "arousal"), (valence, arousal))


def test_measures_are_averaged_over_the_same_time_as_probabilities() -> None:
    run = Smoother(label_set(), SmootherSettings(**SETTINGS))
    run.observe(at(0), scores(happy=0.9), 1.0, levels(-0.5, 0.25))
    assert run.measures == levels(-0.5, 0.25), "a first look counts alone"
    run.observe(at(0.3), scores(happy=0.9), 1.0, levels(0.7, 0.25))
    kept = math.exp(-0.3 / 0.4)
    assert run.measures is not None
    assert run.measures.values == pytest.approx((kept * -0.5 + (1 - kept) * 0.7, 0.25))


def test_a_poor_look_moves_a_measure_little_and_shrinks_nothing() -> None:
    run = Smoother(label_set(), SmootherSettings(**SETTINGS))
    run.observe(at(0), scores(happy=0.9), 0.05, levels(0.8))
    assert run.measures is not None
    assert run.measures.values[0] == pytest.approx(0.8), "not drawn to zero, unlike probabilities"
    run.observe(at(0.4), scores(happy=0.9), 1.0, levels(-0.8))
    assert run.measures.values[0] < -0.7


def test_without_a_clear_look_there_is_no_measure() -> None:
    run = Smoother(label_set(), SmootherSettings(**SETTINGS))
    run.observe(at(0), scores(happy=0.9), 0.0, levels(0.8))
    assert run.measures is None
    run.observe(at(1), scores(happy=0.9))
    assert run.measures is None


def test_an_interval_has_the_levels_of_its_observations_only() -> None:
    run = Smoother(label_set(), SmootherSettings(**(SETTINGS | {"min_dwell": 0.0})))
    run.observe(at(0), scores(neutral=1.0), 1.0, levels(-1.0))
    assert run.interval is not None
    seen = []
    for step in range(1, 40):
        run.observe(at(step / 10), scores(happy=1.0), 1.0, levels(0.1 * (step % 3)))
        if run.interval is not None and run.interval.label == "happy":
            assert run.measures is not None
            seen.append(run.measures.values[0])
    assert len(seen) > 20
    found = run.interval.levels["valence"]
    assert (found.lowest, found.highest) == (min(seen), max(seen))
    assert found.mean == pytest.approx(sum(seen) / len(seen))
