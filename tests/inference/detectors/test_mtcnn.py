"""Our MTCNN compared with facenet-pytorch's, and on pictures without faces."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fer_stream.imaging.geometry import roll
from fer_stream.imaging.yuv import Colour, Yuv
from fer_stream.inference.detectors import facenet, mtcnn
from fer_stream.settings.tree import DetectorSettings
from fer_stream.types import Box, Expected, Region

ASSETS = Path(mtcnn.__file__).parents[2] / "assets"
PORTRAITS = sorted(ASSETS.glob("*.jpg"))


def portrait():
    return cv2.imread(str(ASSETS / "grace_hopper.jpg"))


def frames(path, every):
    video = cv2.VideoCapture(str(path))
    while video.grab():
        yield video.retrieve()[1]
        for _ in range(every - 1):
            video.grab()


def pair(min_face):
    settings = DetectorSettings(min_face=min_face)
    return mtcnn.load(settings), facenet.load(settings)


def iou(a, b):
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    shared = max(width, 0) * max(height, 0)
    return shared / ((a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1) - shared)


def overlaps(faces, reference):
    """Return the overlap (IoU) of each face with its match in the reference, best first; matches have at least 0.5."""
    pairs = sorted(
        ((iou(f.box, r.box), i, j) for i, f in enumerate(faces) for j, r in enumerate(reference)), reverse=True
    )
    found, taken, used = [], set(), set()
    for overlap, i, j in pairs:
        if overlap >= 0.5 and i not in taken and j not in used:
            found.append(overlap)
            taken.add(i)
            used.add(j)
    return found


def assert_same(faces, reference, pixels=0.01):
    assert len(faces) == len(reference)
    for face, expected in zip(faces, reference, strict=True):
        np.testing.assert_allclose(face.box, expected.box, atol=pixels)
        np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=pixels)
        assert face.confidence == pytest.approx(expected.confidence, abs=1e-4)


@pytest.mark.parametrize("min_face", [20, 40, 80])
def test_finds_what_facenet_finds_in_a_clip(min_face, clip):
    finds_the_same(min_face, frames(clip, every=5), least=18)


@pytest.mark.parametrize("min_face", [20, 40, 80])
def test_finds_what_facenet_finds_on_real_clips(min_face, beside):
    pictures = (image for path in beside.clips() for image in frames(path, every=11 if path.suffix == ".mp4" else 5))
    finds_the_same(min_face, pictures, least=50)


def finds_the_same(min_face, pictures, least):
    ours, theirs = pair(min_face)
    matched, found, expected = [], 0, 0
    for image in pictures:
        faces, reference = ours.detect(image), theirs.detect(image)
        matched += overlaps(faces, reference)
        found += len(faces)
        expected += len(reference)
    # Shown by `pytest -s`.
    print(f"{min_face=} {found=} {expected=} matched={len(matched)} IoU={np.mean(matched):.6f}")  # noqa: T201
    assert expected > least
    assert len(matched) / expected >= 0.995
    assert len(matched) / found >= 0.995
    assert np.mean(matched) >= 0.98


@pytest.mark.parametrize("min_face", [20, 40, 80])
@pytest.mark.parametrize("path", PORTRAITS, ids=lambda path: path.stem)
def test_finds_what_facenet_finds_on_portraits(path, min_face):
    ours, theirs = pair(min_face)
    image = cv2.imread(str(path))
    faces = ours.detect(image)
    assert len(faces) >= 1
    assert faces[0].confidence > 0.99
    assert_same(faces, theirs.detect(image))


def test_landmarks_are_in_the_documented_order():
    (face,) = mtcnn.load(DetectorSettings()).detect(portrait())
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_a_face_cut_off_by_the_border_has_an_unclipped_box():
    ours, theirs = pair(40)
    image = portrait()[:, 90:]
    faces = ours.detect(image)
    assert faces[0].box.x1 < 0
    assert_same(faces, theirs.detect(image))


def test_several_faces_are_in_order_of_confidence():
    small, large = (cv2.imread(str(path)) for path in PORTRAITS)
    image = np.zeros((700, 900, 3), np.uint8)
    for y, x, part in ((0, 0, small), (0, 300, large), (350, 0, large), (350, 400, cv2.GaussianBlur(small, (0, 0), 5))):
        image[y : y + part.shape[0], x : x + part.shape[1]] = part
    ours, theirs = pair(40)
    faces = ours.detect(image)
    assert len(faces) >= 4
    assert [face.confidence for face in faces] == sorted((face.confidence for face in faces), reverse=True)
    assert_same(faces, theirs.detect(image))


def test_the_settings_reach_the_detector():
    image = portrait()
    assert mtcnn.load(DetectorSettings(min_face=300)).detect(image) == []
    assert mtcnn.load(DetectorSettings(thresholds=(0.6, 0.7, 1.0))).detect(image) == []
    assert mtcnn.load(DetectorSettings(min_face=160, factor=0.5)).detect(image)


def test_the_memory_layout_of_a_picture_does_not_matter():
    detector = mtcnn.MTCNN()
    image = portrait()
    expected = detector.detect(image)
    wide = np.zeros((image.shape[0], image.shape[1] * 2, 3), np.uint8)
    wide[:, ::2] = image
    assert detector.detect(wide[:, ::2]) == expected
    assert detector.detect(np.asfortranarray(image)) == expected
    assert detector.detect(image[::-1].copy()[::-1]) == expected


@pytest.mark.parametrize("load", [mtcnn.load, facenet.load], ids=["mtcnn", "facenet"])
@pytest.mark.parametrize("shape", [(1, 1), (39, 400), (400, 39), (40, 40), (41, 900)])
def test_pictures_without_a_face_have_none(load, shape):
    detector = load(DetectorSettings())
    for level in (0, 128, 255):
        assert detector.detect(np.full((*shape, 3), level, np.uint8)) == []


def test_noise_has_no_faces():
    detector = mtcnn.MTCNN(min_face=20)
    for cell in (1, 8, 40):
        noise = np.random.default_rng(cell).integers(0, 256, (320 // cell, 400 // cell, 3), np.uint8)
        assert detector.detect(noise.repeat(cell, 0).repeat(cell, 1)) == []


def test_a_picture_whose_sums_exceed_32_bits():
    image = np.full((3000, 3000, 3), 255, np.uint8)  # 9 million pixels times 255 is more than 2**31
    large = cv2.resize(portrait(), None, fx=3, fy=3, interpolation=cv2.INTER_LINEAR)
    image[-large.shape[0] :, -large.shape[1] :] = large
    ours, theirs = pair(300)
    faces = ours.detect(image)
    assert len(faces) == 1
    assert_same(faces, theirs.detect(image), pixels=0.1)  # torch rounds the sums of large windows


# Following


def pair_of_portraits():
    """Return two portraits side by side on a grey background, twice as wide as both together."""
    left, right = (cv2.imread(str(ASSETS / f"{name}.jpg")) for name in ("eileen_collins", "grace_hopper"))
    image = np.full((max(left.shape[0], right.shape[0]), 2 * (left.shape[1] + right.shape[1]), 3), 127, np.uint8)
    image[: left.shape[0], : left.shape[1]] = left
    image[: right.shape[0], left.shape[1] : left.shape[1] + right.shape[1]] = right
    return image


def moved(face, by, size=1.0):
    """Return a face's box, shifted by ``by`` of its width and grown by the factor ``size``."""
    x1, y1, x2, y2 = face.box
    shift, grow = by * (x2 - x1), (size - 1) / 2 * (x2 - x1)
    return Box(x1 + shift - grow, y1 - grow, x2 + shift + grow, y2 + grow)


@pytest.fixture(scope="module")
def detector():
    return mtcnn.MTCNN()


@pytest.mark.parametrize("due", [True, False])
@pytest.mark.parametrize(("by", "size"), [(0, 1), (0.1, 1), (-0.1, 1.15), (0.12, 0.88)])
def test_expected_faces_are_found_where_they_are(detector, due, by, size):
    image = pair_of_portraits()
    truth = detector.detect(image)
    assert len(truth) == 2
    found, new = detector.look(image, [Expected(moved(face, by, size), due) for face in truth], [])
    assert new == []
    for face, real in zip(found, truth, strict=True):
        assert iou(face.box, real.box) > (0.8 if due else 0.6)
        if due:
            assert len(face.landmarks) == 5
            np.testing.assert_allclose(face.landmarks, real.landmarks, atol=0.06 * (real.box.x2 - real.box.x1))


@pytest.mark.parametrize("by", [0.5, -0.6])
def test_a_face_that_jumped_is_found_near_its_expected_position(detector, by):
    image = pair_of_portraits()
    for real in detector.detect(image):
        (face,), _ = detector.look(image, [Expected(moved(real, by), False)], [])
        assert iou(face.box, real.box) > 0.8


def test_a_face_that_is_gone_is_not_found(detector):
    image = pair_of_portraits()
    boxes = [moved(face, 0) for face in detector.detect(image)]
    image[:] = 127
    assert detector.look(image, [Expected(box, True) for box in boxes], []) == ([None, None], [])


@pytest.mark.parametrize(
    "box",
    [
        Box(-90, -90, -10, -10),
        Box(5000, 10, 5050, 60),
        Box(-40, 20, 2, 62),
        Box(-300, 50, -200, 150),
        Box(9, 9, 10.5, 10.5),
    ],
)
def test_a_face_expected_outside_the_picture_is_not_found(detector, box):
    assert detector.look(pair_of_portraits(), [Expected(box, True)], [])[0] == [None]


def test_one_face_is_not_found_for_two_expected_ones(detector):
    image = pair_of_portraits()
    first, _ = detector.detect(image)
    near, far = Expected(moved(first, 0.03), False), Expected(moved(first, 0.2), False)
    found, _ = detector.look(image, [far, near], [])
    assert found[0] is None
    assert iou(found[1].box, first.box) > 0.6


def test_new_faces_are_the_unexpected_ones_in_the_regions(detector):
    image = pair_of_portraits()
    left, right = sorted(detector.detect(image), key=lambda face: face.box.x1)
    height, width = image.shape[:2]
    whole = Region(0, 0, width, height)
    found, new = detector.look(image, [Expected(left.box, False)], [whole])
    assert iou(found[0].box, left.box) > 0.8
    assert len(overlaps(new, [right])) == len(new) == 1
    _, new = detector.look(image, [], [Region(width // 2, 0, width, height)])
    assert new == []
    _, new = detector.look(image, [], [whole, whole])
    assert len(new) == 2, "a face in two regions is returned once"


def test_a_region_too_small_for_a_face_has_none(detector):
    assert detector.look(pair_of_portraits(), [], [Region(0, 0, 30, 30), Region(10, 10, 10, 10)]) == ([], [])


class Watched:
    """A net of a detector that keeps the shapes of its inputs, and whose scores may be replaced by 0."""

    def __init__(self, net, blind=False):
        self.net, self.blind, self.shapes = net, blind, []

    def run(self, outputs, inputs, joint=False):
        self.shapes.append(inputs["pixels"].shape)
        scores, *rest = self.net.run(outputs, inputs, joint=joint)
        return [np.zeros_like(scores) if self.blind else scores, *rest]


@pytest.mark.parametrize("due", [True, False])
def test_a_known_face_of_which_the_second_net_is_certain_stays(monkeypatch, due):
    blind, image = mtcnn.MTCNN(), pair_of_portraits()
    truth = blind.detect(image)
    monkeypatch.setattr(blind, "_onet", Watched(blind._onet, blind=True))
    found, _ = blind.look(image, [Expected(face.box, due) for face in truth], [])
    kept = [iou(face.box, true.box) for face, true in zip(found, truth, strict=True) if face is not None]
    assert kept
    assert min(kept) > 0.6
    monkeypatch.setattr(mtcnn, "CERTAIN", 1.1)
    found, _ = blind.look(image, [Expected(face.box, due) for face in truth], [])
    assert found == [None] * len(truth)


def test_a_search_of_the_whole_picture_uses_more_levels_than_one_of_a_region(monkeypatch):
    watched, image = mtcnn.MTCNN(), np.full((480, 640, 3), 127, np.uint8)
    pnet = Watched(watched._pnet)
    monkeypatch.setattr(watched, "_pnet", pnet)
    watched.detect(image)
    detected, pnet.shapes = pnet.shapes, []
    watched.look(image, [], [Region(0, 0, 640, 480)])
    assert pnet.shapes == detected
    pnet.shapes = []
    watched.look(image, [], [Region(0, 0, 639, 480)])
    assert 1 < len(pnet.shapes) < len(detected) - 2


# Heads that lean


AROUND = tuple(float(angle) for angle in (-150, -120, -90, -60, -30, 30, 60, 90, 120, 150, 180))


def turned_portraits(degrees):
    """Return two portraits turned clockwise in one picture, and the centres of their faces."""
    image, centres = np.full((500, 1000, 3), 127, np.uint8), []
    for i, name in enumerate(("eileen_collins", "grace_hopper")):
        portrait = cv2.imread(str(ASSETS / f"{name}.jpg"))
        (face,) = mtcnn.MTCNN().detect(portrait)
        x, y = (face.box.x1 + face.box.x2) / 2, (face.box.y1 + face.box.y2) / 2
        turn = cv2.getRotationMatrix2D((x, y), -degrees, 1)
        turn[:, 2] += [250 - x, 250 - y]
        shown = cv2.warpAffine(portrait, turn, (500, 500), borderMode=cv2.BORDER_REPLICATE)
        image[:, 500 * i : 500 * (i + 1)] = shown
        centres.append((500 * i + 250, 250, roll(face.landmarks)))
    return image, centres


@pytest.fixture(scope="module")
def turning():
    return mtcnn.load(DetectorSettings(rotations=list(AROUND)))


def assert_at(faces, centres, degrees):
    assert len(faces) == len(centres)
    for face, (x, y, own) in zip(sorted(faces, key=lambda face: face.box.x1), centres, strict=True):
        side = face.box.x2 - face.box.x1
        assert (face.box.x1 + face.box.x2) / 2 == pytest.approx(x, abs=0.15 * side)
        assert (face.box.y1 + face.box.y2) / 2 == pytest.approx(y, abs=0.15 * side)
        assert abs((roll(face.landmarks) - own - degrees + 180) % 360 - 180) < 6


@pytest.mark.parametrize("planar", [False, True], ids=["bgr", "planar"])
@pytest.mark.parametrize("degrees", [-135, -60, 0, 45, 75, 90, 180])
def test_rotations_find_heads_that_lean(turning, degrees, planar):
    image, centres = turned_portraits(degrees)
    shown = Yuv.from_i420(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), Colour.LIMITED_BT601) if planar else image
    faces = turning.detect(shown)
    assert_at(faces, centres, degrees)
    assert [face.confidence for face in faces] == sorted((face.confidence for face in faces), reverse=True)
    found, new = turning.look(shown, [], [Region(0, 0, 1000, 500)])
    assert found == []
    assert_at(new, centres, degrees)


@pytest.mark.parametrize("degrees", [90, 180])
def test_without_rotations_such_heads_are_not_found(detector, degrees):
    image, centres = turned_portraits(degrees)
    assert len([face for face in detector.detect(image) if abs(roll(face.landmarks) - degrees) < 30]) < len(centres)


@pytest.mark.parametrize("due", [True, False])
@pytest.mark.parametrize(
    ("degrees", "by"), [(60, 0), (60, 0.1), (60, 0.5), (-110, 0), (-110, 0.1), (-110, 0.5), (180, 0), (180, 0.1)]
)
def test_a_head_that_leans_is_followed(turning, degrees, by, due):
    image, centres = turned_portraits(degrees)
    truth = turning.detect(image)
    found, new = turning.look(image, [Expected(moved(face, by), due) for face in truth], [])
    assert new == []
    assert all(iou(face.box, real.box) > 0.6 for face, real in zip(found, truth, strict=True))
    if due:
        assert_at(found, centres, degrees)


def test_rotations_leave_pictures_without_a_face_without_one(turning):
    assert turning.detect(np.full((200, 300, 3), 127, np.uint8)) == []
    assert turning.detect(np.full((39, 400, 3), 127, np.uint8)) == []
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    assert turning.detect(noise) == []


def test_a_due_face_has_landmarks_although_the_third_net_rejects_it(monkeypatch):
    blind, image = mtcnn.MTCNN(), pair_of_portraits()
    truth = blind.detect(image)
    monkeypatch.setattr(blind, "_onet", Watched(blind._onet, blind=True))
    found, _ = blind.look(image, [Expected(face.box, due=True) for face in truth], [])
    known = [(face, real) for face, real in zip(found, truth, strict=True) if face is not None]
    assert known
    for face, real in known:
        np.testing.assert_allclose(face.landmarks, real.landmarks, atol=0.1 * (real.box.x2 - real.box.x1))
