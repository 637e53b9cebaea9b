"""The models' results on the portraits in fer_stream's assets."""

from pathlib import Path

import pytest

from fer_stream.errors import SourceError
from fer_stream.inference import models
from training import clips

ASSETS = Path(models.__file__).parents[1] / "assets"


def test_a_picture_is_a_clip_of_two_seconds():
    shown = list(clips.frames(ASSETS / "grace_hopper.jpg"))
    assert len(shown) == 20
    assert shown[0][0] == 0.0
    assert shown[-1][0] == pytest.approx(1.9)


def test_a_smiling_portrait_is_happy_for_every_model():
    for name in ("emotion.onnx", "emotion-ferplus.onnx"):
        cells = clips.watch(ASSETS / "eileen_collins.jpg", models.folder() / name, 40).split(" | ")
        assert cells[:2] == ["| eileen_collins.jpg", name]
        assert cells[2] == "1.9 s"
        assert cells[-1] == "happy 100% |"


def test_a_file_that_is_not_a_clip_is_reported(tmp_path):
    (tmp_path / "text.gif").write_text("no clip")
    with pytest.raises(SourceError, match=r"text.gif is neither a picture nor a video"):
        list(clips.frames(tmp_path / "text.gif"))
