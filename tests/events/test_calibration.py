from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.errors import ConfigError
from fer_stream.events.attention import Attention
from fer_stream.events.calibration import FLOOR, Calibration, calibrations, of_camera
from fer_stream.events.smoother import LabelSet
from fer_stream.events.timeline import Timeline, closing
from fer_stream.settings.tree import CalibrationSettings, SearchSettings, SmootherSettings, TrackerSettings
from fer_stream.types import Box, CameraData, Event, ExpressionData, Face, Nanoseconds, Probabilities

LABELS = ("happy", "neutral", "sad")


def test_temperature_and_bias() -> None:
    scored = Probabilities(LABELS, (0.7, 0.2, 0.1))
    softer = Calibration(CalibrationSettings(temperature=2.0), LABELS).apply(scored)
    roots = [math.sqrt(value) for value in scored.values]
    assert softer.values == pytest.approx([root / sum(roots) for root in roots])
    moved = Calibration(CalibrationSettings(bias={"neutral": math.log(4)}), LABELS).apply(scored)
    assert moved.values == pytest.approx([0.7 / 1.6, 0.8 / 1.6, 0.1 / 1.6])
    assert Calibration(CalibrationSettings(), ()).apply(Probabilities((), ())) == Probabilities((), ())


@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.floats(0.05, 20),
    st.lists(st.floats(-20, 20), min_size=3, max_size=3),
)
def test_the_result_is_a_distribution(values: list[float], temperature: float, bias: list[float]) -> None:
    settings = CalibrationSettings(temperature=temperature, bias=dict(zip(LABELS, bias, strict=True)))
    found = Calibration(settings, LABELS).apply(Probabilities(LABELS, tuple(values)))
    assert sum(found.values) == pytest.approx(1)
    assert all(0 <= value <= 1 for value in found.values)


def test_which_camera_has_which() -> None:
    own, rest = CalibrationSettings(temperature=2.0), CalibrationSettings(temperature=3.0)
    found = calibrations({"door": own, "*": rest}, LABELS)
    assert [found.of(name).as_dict()["temperature"] for name in ("door", "hall")] == [2.0, 3.0]  # type: ignore[union-attr]
    assert calibrations({"door": own}, LABELS).of("hall") is None
    assert of_camera({"door": own, "*": rest}, "door") == {"door": own}
    assert of_camera({"door": own, "*": rest}, "hall") == {"*": rest}
    assert of_camera({"door": own}, "hall") == {}
    wrong = {"door": CalibrationSettings(bias={"joy": 1.0})}
    with pytest.raises(ConfigError, match=r"calibration\.door\.bias: the model has no label 'joy'; it has: happy, "):
        calibrations(wrong, LABELS)


def _events(calibration: Calibration | None) -> list[Event]:
    """Return the events of a face that the model scores as rather sad, for two seconds."""
    line = Timeline(
        "door",
        1,
        LabelSet("emotions", LABELS, {}),
        TrackerSettings(),
        SmootherSettings(),
        Attention(SearchSettings(), "wait", 1),
        calibration,
    )
    face = Face(Box(10, 10, 60, 60), 1.0, (), Probabilities(LABELS, (0.0, 0.2, 0.8)))
    found = []
    for frame in range(1, 31):
        found += line.observe(frame, Nanoseconds(frame * 66_000_000), (640, 480), [face])
    return found


def test_events_follow_the_corrected_probabilities_and_say_so() -> None:
    plain, moved = _events(None), _events(Calibration(CalibrationSettings(bias={"neutral": 3.0}), LABELS))
    assert [event.data.label for event in plain if isinstance(event.data, ExpressionData)] == ["sad"]
    assert [event.data.label for event in moved if isinstance(event.data, ExpressionData)] == ["neutral"]
    assert isinstance(plain[0].data, CameraData)
    assert isinstance(moved[0].data, CameraData)
    assert plain[0].data.calibration is None
    assert moved[0].data.calibration == {"temperature": 1.0, "bias.neutral": 3.0}
    assert closing(moved[0]).data == replace(moved[0].data, reason="aggregator restarted", calibration=None)


def test_a_probability_of_nothing_is_a_small_one() -> None:
    found = Calibration(CalibrationSettings(), LABELS).apply(Probabilities(LABELS, (1.0, 0.0, 0.0)))
    assert found.values[1] == pytest.approx(FLOOR, rel=1e-3)
