"""Estimates how a head is turned from the five landmarks of a face, without knowing the camera.

A mean face of five points is fitted to the landmarks under scaled orthographic projection, which needs no focal length:
the first step of POSIT, ``POS`` (DeMenthon and Davis 1995, "Model-based object pose in 25 lines of code",
https://doi.org/10.1007/BF01450852). The rotation is the one nearest to the fitted linear map, by its singular value
decomposition.

The axes and signs are those of OpenFace 2.0: x points to the right in the picture, y down, z away from the camera, and
the rotation is ``Rx(pitch) @ Ry(yaw) @ Rz(roll)``. A face that looks into the camera has three zeros.

| angle   | positive                                                                         |
|---------|----------------------------------------------------------------------------------|
| `roll`  | the head leans clockwise in the picture, towards the person's left shoulder      |
| `yaw`   | the face looks to the left edge of the picture, that is to the person's right    |
| `pitch` | the face looks down                                                              |

The result is approximate. Every head is taken for the mean head, and angles are relative to the line from the camera
to the head. A smile raises the corners of the mouth, which adds to the pitch. If the landmarks are wrong by 3% of the
distance of the eyes in each coordinate, the angles are wrong by about 3 (pitch, yaw) and 1.5 degrees (roll).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_EYE, _MOUTH = (3.177, -2.629, -3.826), (2.456, 4.343, -4.284)

MEAN_FACE: NDArray[np.float64] = np.array([
    (-_EYE[0], *_EYE[1:]), _EYE, (0.0, 1.127, -7.476), (-_MOUTH[0], *_MOUTH[1:]), _MOUTH,
]).T  # fmt: skip
"""The mean face in centimetres, float64 ``[3, 5]``: x, y and z of the landmarks of `fer_stream.types.Face`.

From MediaPipe's canonical face model (Apache-2.0): the middle of each eye's opening (vertices 145, 159, 374 and 386),
the tip of the nose (1), and the corners of the mouth (61 and 291).
"""

_CENTRED = MEAN_FACE - MEAN_FACE.mean(axis=1, keepdims=True)
_INVERSE = np.linalg.pinv(_CENTRED)


class HeadPose(NamedTuple):
    """Angles of a head in degrees, -180 to 180 (yaw: -90 to 90)."""

    roll: float
    yaw: float
    pitch: float


def head_pose(landmarks: Sequence[tuple[float, float]]) -> HeadPose | None:
    """Return the approximate pose of a head.

    ``landmarks`` are those of `fer_stream.types.Face`, in pixels. If there are not five, or if they all lie on one
    line, ``None`` is returned.
    """
    if len(landmarks) != len(MEAN_FACE.T):
        return None
    points = np.array(landmarks, np.float64).T
    points -= points.mean(axis=1, keepdims=True)
    left, scales, right = np.linalg.svd(points @ _INVERSE, full_matrices=False)
    if scales[1] < 1e-6 * max(scales[0], 1e-6):
        return None
    across, down = left @ right
    away = np.cross(across, down)
    return HeadPose(
        roll=math.degrees(math.atan2(-across[1], across[0])),
        yaw=math.degrees(math.asin(min(max(across[2], -1.0), 1.0))),
        pitch=math.degrees(math.atan2(-down[2], away[2])),
    )
