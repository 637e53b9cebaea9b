"""The pose of a head: exact for the mean face under known rotations; on real faces, right in sign and in the plane."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

import fer_stream
from fer_stream.imaging.pose import MEAN_FACE, HeadPose, head_pose
from fer_stream.inference.detectors.mtcnn import MTCNN

if TYPE_CHECKING:
    from beside import Beside
    from numpy.typing import NDArray

ASSETS = Path(fer_stream.__file__).parent / "assets"


def rotation(pose: HeadPose) -> NDArray[np.float64]:
    """Return Rx(pitch) Ry(yaw) Rz(roll), composed by OpenCV from rotations about single axes."""
    axes = np.eye(3)
    angles = (pose.pitch, pose.yaw, pose.roll)
    x, y, z = (cv2.Rodrigues(np.radians(angle) * axis)[0] for angle, axis in zip(angles, axes, strict=True))
    return np.asarray(x @ y @ z)


def landmarks(
    pose: HeadPose, scale: float = 9.0, at: tuple[float, float] = (300.0, 200.0)
) -> list[tuple[float, float]]:
    turned = scale * rotation(pose) @ MEAN_FACE
    return [(float(x) + at[0], float(y) + at[1]) for x, y in turned[:2].T]


@pytest.mark.parametrize(
    "pose",
    [
        HeadPose(0, 0, 0),
        HeadPose(25, 0, 0),
        HeadPose(0, 40, 0),
        HeadPose(0, 0, -20),
        HeadPose(-15, -35, 20),
        HeadPose(120, 10, 5),
        HeadPose(-90, 60, -30),
    ],
)
def test_the_mean_face_under_a_known_rotation_is_recovered(pose: HeadPose) -> None:
    found = head_pose(landmarks(pose))
    assert found is not None
    assert found == pytest.approx(pose, abs=1e-6)


def test_a_perspective_camera_changes_little() -> None:
    """OpenCV projects the mean face from a metre, through a lens that we do not know."""
    pose = HeadPose(10, 25, -10)
    camera = np.array([[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]])
    axis = cv2.Rodrigues(rotation(pose))[0]
    points = cv2.projectPoints(MEAN_FACE.T.copy(), axis, np.array([0.0, 0, 100]), camera, None)[0]
    assert head_pose([(x, y) for x, y in points[:, 0]]) == pytest.approx(pose, abs=2.5)


def test_noise_of_the_landmarks_gives_the_errors_that_the_module_names() -> None:
    random, eyes = np.random.default_rng(0), MEAN_FACE[0, 1] - MEAN_FACE[0, 0]
    errors = []
    for angles in random.uniform((-20, -50, -25), (20, 50, 25), (2000, 3)):
        points = np.array(landmarks(HeadPose(*angles), scale=1))
        found = head_pose([(x, y) for x, y in points + random.normal(0, 0.03 * eyes, points.shape)])
        assert found is not None
        errors.append(np.abs(np.subtract(found, angles)))
    roll, yaw, pitch = np.mean(errors, axis=0)
    assert 1 < roll < 2
    assert 2 < yaw < 3.5
    assert 2 < pitch < 3.5


def test_signs_are_those_of_the_picture() -> None:
    """The nose moves where the face looks; the eye on the right sinks as the head leans clockwise."""
    front, left, down, leaning = (
        np.array(landmarks(HeadPose(*angles))) for angles in ((0, 0, 0), (0, 30, 0), (0, 0, 30), (30, 0, 0))
    )
    eyes = slice(0, 2)
    assert left[2, 0] - left[eyes, 0].mean() < front[2, 0] - front[eyes, 0].mean() - 10
    assert down[2, 1] - down[eyes, 1].mean() > front[2, 1] - front[eyes, 1].mean() + 10
    assert leaning[1, 1] > leaning[0, 1] + 10


def test_there_is_no_pose_without_five_landmarks_or_if_they_lie_on_a_line() -> None:
    assert head_pose(()) is None
    assert head_pose([(0.0, 0.0), (1.0, 0.0)]) is None
    assert head_pose([(5.0, 5.0)] * 5) is None
    assert head_pose([(float(i), 2.0 * i) for i in range(5)]) is None


@pytest.mark.parametrize("name", ["eileen_collins", "grace_hopper"])
def test_a_real_face_turned_in_the_plane_leans_by_that_angle(name: str) -> None:
    picture, detector = cv2.imread(str(ASSETS / f"{name}.jpg")), MTCNN()
    height, width = picture.shape[:2]

    def roll(clockwise: float) -> float:
        how = cv2.getRotationMatrix2D((width / 2, height / 2), -clockwise, 1)
        (face, *_) = detector.detect(cv2.warpAffine(picture, how, (width, height)))
        found = head_pose(face.landmarks)
        assert found is not None
        return found.roll

    upright = roll(0)
    assert abs(upright) < 6
    for angle in (-20, -10, 10, 20):
        assert roll(angle) - upright == pytest.approx(angle, abs=3)


def test_a_mirrored_face_has_the_opposite_yaw_and_roll() -> None:
    picture, detector = cv2.imread(str(ASSETS / "grace_hopper.jpg")), MTCNN()
    poses = [head_pose(detector.detect(one)[0].landmarks) for one in (picture, picture[:, ::-1].copy())]
    straight, mirrored = (pose for pose in poses if pose is not None)
    assert mirrored == pytest.approx(HeadPose(-straight.roll, -straight.yaw, straight.pitch), abs=4)


def test_people_look_where_they_look(beside: Beside) -> None:
    """In the first frame of each clip: where each face is (x), and which way it looks, as a person sees it."""
    first = {
        "head-pose-face-detection-female-and-male.gif": {105: ("left", None), 357: ("right", None)},
        "facenet_video.mp4": {945: ("left", None), 706: ("right", "down"), 331: ("right", "down")},
    }
    detector = MTCNN()
    for name, people in first.items():
        read, picture = cv2.VideoCapture(str(beside.clip(name))).read()
        assert read
        faces = {(face.box.x1 + face.box.x2) / 2: head_pose(face.landmarks) for face in detector.detect(picture)}
        for x, (side, height) in people.items():
            pose = faces[min(faces, key=lambda other: abs(other - x))]
            assert pose is not None
            assert pose.yaw * (1 if side == "left" else -1) > 10, (name, x, pose)
            if height:
                assert pose.pitch > 10, (name, x, pose)
