from __future__ import annotations

import numpy as np
import pytest

from fer_stream.inference.detectors.mtcnn import load
from fer_stream.settings.tree import CameraSettings, DetectorSettings
from fer_stream.sources.demo import open_source

COLLINS_AND_HOPPER = 2


def pictures(settings=CameraSettings(), count=None):  # noqa: B008
    source = open_source("demo", settings)
    shown = 0
    while (count is None or shown < count) and (picture := source.read()) is not None:
        yield picture
        shown += 1


def test_the_scene_is_a_recording_of_a_minute():
    source = open_source("demo", CameraSettings())
    assert source.frames == 900
    assert not source.live
    offsets = [picture.offset for picture in pictures()]
    assert offsets == [round(n * 1e9 / 15) for n in range(900)]
    assert source.read().image.shape == (480, 640, 3)
    source.close()
    source.close()
    assert source.read() is None


def test_every_run_gives_the_same_pictures_and_all_differ():
    first, second = ([picture.image for picture in pictures(count=30)] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len({image.tobytes() for image in first}) == 30


def test_rate_and_loop_apply_as_to_a_file():
    shown = list(pictures(CameraSettings(loop=True, rate=100), 902))
    assert [picture.offset for picture in shown] == [n * 10_000_000 for n in range(902)]
    np.testing.assert_array_equal(shown[901].image, shown[1].image)
    assert open_source("demo", CameraSettings(loop=True)).frames is None


@pytest.fixture(scope="module")
def faces():
    """The faces in every seventh picture: ``{picture's number: boxes}``."""
    detector = load(DetectorSettings())
    return {
        n: [face.box for face in detector.detect(picture.image)] for n, picture in enumerate(pictures()) if n % 7 == 0
    }


def at(faces, begin, end):
    return [boxes for n, boxes in faces.items() if begin <= n / 15 < end]


def test_faces_come_stay_and_go(faces):
    assert any(at(faces, 0, 0.5)), "nobody in the first half second"
    assert all(len(boxes) == COLLINS_AND_HOPPER for boxes in at(faces, 5, 14)), "both stay"
    assert not any(at(faces, 23, 26)), "and leave"
    assert all(len(boxes) == 1 for boxes in at(faces, 29, 37)), "one returns"
    assert all(len(boxes) == COLLINS_AND_HOPPER for boxes in at(faces, 40, 46)), "then the other"
    assert all(80 <= box.y2 - box.y1 <= 160 for boxes in at(faces, 5, 14) for box in boxes)
