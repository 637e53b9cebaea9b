"""The quality of a face: each fault alone lowers it, a larger one more."""

from __future__ import annotations

from importlib.resources import files

import cv2
import numpy as np
import pytest

from fer_stream.imaging import quality
from fer_stream.imaging.geometry import size
from fer_stream.types import Box, Face

FACE = Face(Box(50, 60, 170, 210), 0.99)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    data = (files("fer_stream") / "assets" / "eileen_collins.jpg").read_bytes()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(image, np.uint8)


def test_a_clear_face_has_quality_1(portrait: np.ndarray) -> None:
    assert quality.of(portrait, FACE) == 1.0


def test_blur_lowers_the_quality_and_noise_does_not_hide_it(portrait: np.ndarray) -> None:
    random = np.random.default_rng(0)
    found = []
    for sigma in (1.0, 6.0, 9.0, 20.0):
        blurred = cv2.GaussianBlur(portrait, (0, 0), sigma)
        noisy = np.clip(blurred + random.normal(0, 4, blurred.shape), 0, 255).astype(np.uint8)
        found.append((quality.of(np.asarray(blurred, np.uint8), FACE), quality.of(noisy, FACE)))
    without_noise = [pair[0] for pair in found]
    assert without_noise == sorted(without_noise, reverse=True)
    assert without_noise[0] == 1.0
    assert without_noise[-1] == 0.0
    for plain, noisy_quality in found:
        assert noisy_quality == pytest.approx(plain, abs=0.2)


def test_small_faces_have_less_quality(portrait: np.ndarray) -> None:
    def shrunk(side: float) -> float:
        scale = side / size(FACE.box)
        image = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return quality.of(np.asarray(image, np.uint8), Face(Box(*(scale * edge for edge in FACE.box)), 0.99))

    found = [shrunk(side) for side in (60, 30, 20, 12)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.9
    assert found[-1] == 0.0


def test_a_face_cut_off_by_the_edge_has_less_quality(portrait: np.ndarray) -> None:
    def cut(share: float) -> float:
        left = FACE.box.x1 + share * (FACE.box.x2 - FACE.box.x1)
        box = Box(FACE.box.x1 - left, FACE.box.y1, FACE.box.x2 - left, FACE.box.y2)
        return quality.of(np.ascontiguousarray(portrait[:, int(left) :]), Face(box, 0.99))

    assert cut(0.0) == 1.0
    assert 0 < cut(0.25) < 1
    assert cut(0.5) == 0.0
    assert quality.of(portrait, Face(Box(-100, -100, -10, -10), 0.99)) == 0.0


def landmarks(nose: float) -> tuple[tuple[float, float], ...]:
    return ((90.0, 110.0), (130.0, 110.0), (110.0 + 40 * nose, 135.0), (95.0, 160.0), (125.0, 160.0))


@pytest.mark.parametrize("nose", [-0.5, 0.0, 0.2, 0.5])
def test_turn_is_the_distance_of_the_nose_from_the_middle(nose: float) -> None:
    assert quality.turn(landmarks(nose)) == pytest.approx(abs(nose))


def test_a_tilted_head_is_not_turned() -> None:
    angle = 0.4
    turned = [(x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)) for x, y in landmarks(0.0)]
    assert quality.turn(tuple(turned)) == pytest.approx(0, abs=1e-9)


def test_a_turned_head_has_less_quality(portrait: np.ndarray) -> None:
    def turned(nose: float) -> float:
        return quality.of(portrait, Face(FACE.box, 0.99, landmarks(nose)))

    assert turned(0.2) == 1.0
    assert 0 < turned(0.6) < 1
    assert turned(0.9) == 0.0
    assert quality.turn(()) == 0.0


def test_a_uniform_square_has_no_detail() -> None:
    assert quality.sharpness(np.full((48, 48), 77, np.uint8)) == 0.0
    assert quality.judge_sharpness(np.full((48, 48), 77, np.uint8)) == 0.0


def leaning(eyes: float, mouth: float) -> tuple[tuple[float, float], ...]:
    """Return landmarks whose lines through the eyes and through the mouth's corners have these angles, in degrees."""

    def line(y: float, half: float, degrees: float) -> tuple[tuple[float, float], tuple[float, float]]:
        across, down = half * np.cos(np.radians(degrees)), half * np.sin(np.radians(degrees))
        return (110 - across, y - down), (110 + across, y + down)

    return (*line(110, 20, eyes), (110.0, 135.0), *line(160, 15, mouth))


@pytest.mark.parametrize(("eyes", "mouth"), [(0, 0), (40, 40), (0, 5), (-7, 3), (179, -176), (10, -170)])
def test_skew_is_the_angle_between_the_eyes_and_the_mouth(eyes: float, mouth: float) -> None:
    between = abs(eyes - mouth)
    assert quality.skew(leaning(eyes, mouth)) == pytest.approx(min(between, 360 - between))


def test_a_head_that_leans_has_full_quality_if_its_landmarks_agree(portrait: np.ndarray) -> None:
    def of(eyes: float, mouth: float) -> float:
        return quality.of(portrait, Face(FACE.box, 0.99, leaning(eyes, mouth)))

    assert of(0, 2) == of(15, 15) == 1.0
    assert 0 < of(0, 6) < of(0, 4) < 1
    assert of(0, 15) == of(0, 180) == 0.0
    assert quality.skew(()) == quality.skew(leaning(0, 30)[:4]) == 0.0
