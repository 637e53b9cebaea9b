"""Which events a sink gets."""

from __future__ import annotations

import pytest
from journals import event

from fer_stream.delivery.filters import Filter
from fer_stream.errors import ConfigError
from fer_stream.journal.contents import gap
from fer_stream.settings.tree import DeliverSettings, load

HAPPY = event("emotion.started", "door")  # its probability has the peak 0.6
SAD = event("emotion.ended", "yard", label="sad")
FACE = event("face.entered", "door")
CAMERA = event("camera.reset", "yard")
GAP = gap(1, 2, "test")
ALL = [HAPPY, SAD, FACE, CAMERA, GAP]


@pytest.mark.parametrize(
    ("settings", "passed"),
    [
        ({}, ALL),
        ({"cameras": ["door"]}, [HAPPY, FACE, GAP]),
        ({"types": ["emotion"]}, [HAPPY, SAD, GAP]),
        ({"types": ["emotion.ended", "camera"]}, [SAD, CAMERA, GAP]),
        ({"labels": ["happy"]}, [HAPPY, FACE, CAMERA, GAP]),
        ({"labels": ["happy"], "types": ["emotion"]}, [HAPPY, GAP]),
        ({"min_probability": 0.6}, ALL),
        ({"min_probability": 0.61}, [FACE, CAMERA, GAP]),
        ({"cameras": ["door"], "types": ["emotion"], "labels": ["sad"]}, [GAP]),
    ],
)
def test_filters(settings: dict[str, object], passed: list[object]) -> None:
    chosen = Filter(DeliverSettings.model_validate({"sink": "file:x"} | settings))
    assert [one for one in ALL if chosen.passes(one)] == passed


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sink": "file:x", "types": ["emotions"]}, "no event is of type 'emotions'"),
        ({"sink": "file:x", "min_probability": 1.5}, "deliver.door.min_probability = 1.5 is not allowed"),
        ({"sink": ":x"}, "must be NAME:ARGUMENT"),
        ({"sink": "file:x", "label": ["happy"]}, "label"),
        ({}, "sink"),
    ],
)
def test_invalid_settings(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"deliver": {"door": settings}})
    assert said in str(caught.value)
