"""The recognizer with detector and classifier, on the demo's portraits."""

import multiprocessing
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

import fer_stream
from fer_stream.errors import ModelError, PluginError
from fer_stream.imaging import motion
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.inference.detectors.mtcnn import MTCNN
from fer_stream.inference.recognizer import Recognizer
from fer_stream.settings.tree import DetectorSettings, Settings
from fer_stream.types import EMOTIONS, Expected, Hints

ASSETS = Path(__file__).parents[2] / "fer_stream/assets"


class Width:
    """A classifier plug-in that scores a face's horizontal position: left or right."""

    labels = ("left", "right")
    version = "width 1"

    def classify(self, image, faces):
        share = [(face.box.x1 + face.box.x2) / 2 / image.shape[1] for face in faces]
        return np.array([(1 - x, x) for x in share], np.float32).reshape(-1, 2)


def portrait(name):
    return cv2.imread(str(ASSETS / f"{name}.jpg"))


def side_by_side():
    left, right = portrait("eileen_collins"), portrait("grace_hopper")
    image = np.zeros((max(left.shape[0], right.shape[0]), left.shape[1] + right.shape[1], 3), np.uint8)
    image[: left.shape[0], : left.shape[1]] = left
    image[: right.shape[0], left.shape[1] :] = right
    return image


def test_every_face_has_its_own_scores():
    image = side_by_side()
    found = Recognizer(MTCNN(), Width()).recognize(image)
    assert len(found.faces) == 2
    for face in found.faces:
        middle = (face.box.x1 + face.box.x2) / 2
        assert face.probabilities.labels == ("left", "right")
        assert face.probabilities.as_dict()["right"] == pytest.approx(middle / image.shape[1], abs=1e-6)
        assert len(face.landmarks) == 5
    assert {face.probabilities.top()[0] for face in found.faces} == {"left", "right"}


def test_faces_are_in_the_detectors_order():
    image = side_by_side()
    found = Recognizer(MTCNN(), Width()).recognize(image)
    expected = MTCNN().detect(image)
    assert [(face.box, face.confidence, face.landmarks) for face in found.faces] == [
        (face.box, face.confidence, face.landmarks) for face in expected
    ]


def test_the_stages_are_timed():
    seconds = Recognizer(MTCNN(), Width()).recognize(side_by_side()).seconds
    assert list(seconds) == ["detect", "classify"]
    assert all(value > 0 for value in seconds.values())


def test_a_picture_without_faces():
    found = Recognizer(MTCNN(), OnnxClassifier()).recognize(np.zeros((120, 160, 3), np.uint8))
    assert found.faces == ()


def test_warming_up_does_not_change_results():
    image = side_by_side()
    cold, warm = (Recognizer(MTCNN(), OnnxClassifier()) for _ in range(2))
    warm.warm_up()
    warm.warm_up(height=9, width=7)
    assert warm.recognize(image).faces == cold.recognize(image).faces


def test_the_settings_choose_both_plug_ins():
    recognizer = Recognizer.from_settings(Settings(detector=DetectorSettings(min_face=60)))
    assert set(recognizer.labels) == {*EMOTIONS, "contempt"}
    assert recognizer.classifier.version
    faces = recognizer.recognize(side_by_side()).faces
    assert len(faces) == 2
    for face in faces:
        assert sum(face.probabilities.values) == pytest.approx(1, abs=1e-5)


def test_a_smile_is_happy():
    (face,) = Recognizer(MTCNN(), OnnxClassifier()).recognize(portrait("eileen_collins")).faces
    label, probability = face.probabilities.top()
    assert label == "happy"
    assert probability > 0.5


@pytest.mark.parametrize("degrees", [30, 90, -135])
def test_a_smile_is_happy_however_the_head_leans(degrees):
    recognizer = Recognizer.from_settings(Settings(detector={"rotations": [-135, -90, -45, 45, 90, 135]}))
    image = portrait("eileen_collins")
    (face,) = recognizer.recognize(image).faces
    turn = cv2.getRotationMatrix2D(((face.box.x1 + face.box.x2) / 2, (face.box.y1 + face.box.y2) / 2), -degrees, 1)
    leaning = cv2.warpAffine(image, turn, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    (found,) = recognizer.recognize(leaning).faces
    assert found.probabilities.top()[0] == "happy"
    assert found.probabilities.as_dict()["happy"] == pytest.approx(face.probabilities.as_dict()["happy"], abs=0.1)
    assert found.quality == pytest.approx(face.quality, abs=0.2)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"detector": {"name": "none"}}, PluginError, "there is no detector 'none'"),
        ({"classifier": {"name": "none"}}, PluginError, "there is no classifier 'none'"),
        ({"classifier": {"model": "nowhere.onnx"}}, ModelError, r"the model file nowhere\.onnx cannot be read"),
    ],
)
def test_an_error_names_what_cannot_be_loaded(change, error, sentence):
    with pytest.raises(error, match=sentence):
        Recognizer.from_settings(Settings(**change))


# With hints


def expected(due):
    return tuple(Expected(face.box, due) for face in MTCNN().detect(side_by_side()))


def test_only_faces_that_are_due_are_scored():
    image, recognizer = side_by_side(), Recognizer(MTCNN(), Width())
    first, second = expected(due=True)
    found = recognizer.recognize(image, Hints((first, Expected(second.box, due=False))))
    assert [face.probabilities is not None for face in found.faces] == [True, False]
    assert found.searched is None


def test_a_full_scan_finds_and_scores_new_faces():
    image, recognizer = side_by_side(), Recognizer(MTCNN(), Width())
    first, _ = expected(due=False)
    found = recognizer.recognize(image, Hints((first,), whole=True))
    assert [face.probabilities is not None for face in found.faces] == [False, True]
    assert found.searched.cells.all()
    np.testing.assert_array_equal(found.searched.thumbnail, motion.thumbnail(image))


def test_a_search_of_changed_cells_finds_a_new_face():
    image, recognizer = side_by_side(), Recognizer(MTCNN(), Width())
    before = image.copy()
    before[:, image.shape[1] // 2 :] = 0
    (there,) = recognizer.recognize(before).faces
    found = recognizer.recognize(image, Hints((Expected(there.box, due=False),), seen=motion.thumbnail(before)))
    assert len(found.faces) == 2
    assert found.faces[1].probabilities.top()[0] == "right"
    assert found.searched.cells[:, 40:].mean() > 0.5
    same = recognizer.recognize(image, Hints(seen=motion.thumbnail(image)))
    assert same.faces == ()
    assert not same.searched.cells.any()


def test_a_detector_that_cannot_follow_searches_everything():
    class Simple:
        def detect(self, image):
            return MTCNN().detect(image)

    found = Recognizer(Simple(), Width()).recognize(side_by_side(), Hints())
    assert len(found.faces) == 2
    assert all(face.probabilities for face in found.faces)


def test_the_function_recognize_takes_images_read_by_opencv(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FER_STREAM_CLASSIFIER__MODEL", str(tiny_model))
    found = [fer_stream.recognize(portrait(name)) for name in ("eileen_collins", "grace_hopper")]
    assert [len(faces) for faces in found] == [1, 1]
    for (face,) in found:
        assert face.probabilities.top()[0] == "happy"
        assert sum(face.probabilities.values) == pytest.approx(1, abs=1e-5)
    assert fer_stream.recognize(np.zeros((100, 100, 3), np.uint8)) == ()


@pytest.mark.parametrize(
    "rows", [np.zeros((1, 3)), np.zeros(2), np.full((2, 2), np.nan), [["a", "b"], ["c", "d"]], np.zeros((3, 2))]
)
def test_wrong_output_of_a_classifier_is_an_error(rows):
    class Odd(Width):
        def classify(self, image, faces):
            return rows

    with pytest.raises(PluginError, match=r"the classifier gives .* and must give finite numbers \[2, 2\]"):
        Recognizer(MTCNN(), Odd()).recognize(side_by_side())


def test_a_recognizer_can_be_used_in_a_process_pool(pytestconfig):
    """The models are not pickled; each process loads them from the settings, once."""
    if pytestconfig.getoption("--provider") != "cpu":
        pytest.skip("the option does not reach other processes")
    recognizer = Recognizer.from_settings(Settings(classifier={"model": "emotion-tiny.onnx"}))
    image = portrait("eileen_collins")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(recognizer.recognize, [image, image], chunksize=1)
    here = recognizer.recognize(image).faces
    assert here
    assert [recognition.faces for recognition in found] == [here, here]


def unpickled(made):
    return pickle.loads(made)  # noqa: S301  (our own)


def test_unpickling_the_same_settings_twice_gives_one_recognizer():
    made = pickle.dumps(Recognizer.from_settings(Settings(classifier={"model": "emotion-tiny.onnx"})))
    other = pickle.dumps(Recognizer.from_settings(Settings(detector={"min_face": 80})))
    first = unpickled(made)
    assert unpickled(made) is first
    assert unpickled(other) is not first
    assert unpickled(other).detector.min_face == 80


def test_pickling_a_recognizer_not_made_from_settings_is_an_error():
    with pytest.raises(TypeError, match=r"made by Recognizer\.from_settings"):
        pickle.dumps(Recognizer(MTCNN(), Width()))
