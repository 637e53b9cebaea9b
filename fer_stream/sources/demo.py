"""A synthetic scene that needs no camera: during a minute, two public-domain portraits enter, stay, leave and return.

The portraits are prints in front of a plain wall, 640x480 pixels at 15 frames/s. They move with subpixel steps; the
brightness drifts, and sensor noise is added. Every run produces the same pictures. ``assets/README.md`` describes the
portraits.
"""

from __future__ import annotations

import math
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, cast

import cv2
import numpy as np

from fer_stream.types import Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fer_stream.plugins import Source
    from fer_stream.settings.tree import CameraSettings

WIDTH, HEIGHT = 640, 480
RATE = 15
FRAMES = 60 * RATE

NOISE = 2.0
"""Standard deviation of the sensor's noise, in grey levels."""

FIELD = 32
"""The noise field is larger than a picture by this many pixels; each picture uses another part of it."""

LEVEL = 16
"""The noise field's mean in grey levels, which is subtracted later: uint8 pixels cannot be negative."""


class Pose(NamedTuple):
    """A print's pose at ``time`` (s): centre ``x``, ``y`` and width in pixels, angle in degrees."""

    time: float
    x: float
    y: float
    width: float
    angle: float


# Each tuple of poses is one visit. The faces are 83 to 118 pixels high, as boxes of MTCNN.
COLLINS = (
    (
        Pose(-1.0, -130, 250, 220, -5),
        Pose(1.2, 190, 250, 220, 0),
        Pose(7.0, 200, 235, 250, 2),
        Pose(14.5, 180, 250, 220, 0),
        Pose(17.0, -140, 255, 210, -5),
    ),
    (
        Pose(26.0, -140, 245, 215, 4),
        Pose(28.5, 190, 245, 215, 0),
        Pose(37.0, 450, 240, 255, 3),
        Pose(46.0, 455, 245, 230, 0),
        Pose(48.5, 780, 245, 220, -5),
    ),
    (Pose(54.5, 780, 240, 230, 5), Pose(56.5, 430, 240, 235, 0), Pose(60.0, 420, 245, 240, -2)),
)
HOPPER = (
    (
        Pose(3.0, 770, 235, 190, 5),
        Pose(5.0, 455, 240, 190, 0),
        Pose(10.0, 440, 230, 215, -2),
        Pose(20.0, 450, 245, 195, 2),
        Pose(22.5, 780, 245, 190, -5),
    ),
    (
        Pose(37.5, -130, 240, 200, -4),
        Pose(40.0, 170, 240, 200, 0),
        Pose(47.0, 190, 240, 215, 3),
        Pose(50.5, 170, 240, 200, 0),
        Pose(53.0, -130, 240, 190, -5),
    ),
)


class Demo:
    """The scene as a recording: `read` does not wait, and the first picture's offset is 0."""

    live = False

    def __init__(self, settings: CameraSettings) -> None:
        self.frames = None if settings.loop else FRAMES
        self._rate = settings.rate or RATE
        self._prints = ((_print("eileen_collins.jpg"), COLLINS), (_print("grace_hopper.jpg"), HOPPER))
        random = np.random.default_rng(2013)
        self._wall = _wall(random)
        field = random.standard_normal((HEIGHT + FIELD, WIDTH + FIELD, 3), np.float32)
        self._noise = np.rint(field * NOISE + LEVEL).clip(0, 255).astype(np.uint8)
        self._shifts = random.integers(0, FIELD, (FRAMES, 2))
        self._count = 0
        self._closed = False

    def read(self) -> Picture | None:
        """Return the next picture; ``None`` after a minute, or never with ``loop``."""
        if self._closed or self._count == self.frames:
            return None
        picture = Picture(self._render(self._count % FRAMES), round(self._count * 1e9 / self._rate))
        self._count += 1
        return picture

    def close(self) -> None:
        """Deliver no more pictures."""
        self._closed = True

    def _render(self, number: int) -> NDArray[np.uint8]:
        time = number / RATE
        scene = self._wall.copy()
        for portrait, visits in self._prints:
            for visit in visits:
                if visit[0].time <= time <= visit[-1].time:
                    _draw(scene, portrait, _pose(visit, time))
        light = 1 + 0.04 * math.sin(math.tau * time / 17)
        x, y = self._shifts[number]
        noise = self._noise[y : y + HEIGHT, x : x + WIDTH]
        return cv2.addWeighted(scene, light, noise, 1, -LEVEL)  # type: ignore[return-value]


def open_source(address: str, settings: CameraSettings) -> Source:  # noqa: ARG001
    """Open the scene, whatever the address; ``rate`` and ``loop`` apply as to a file."""
    return Demo(settings)


def _pose(visit: tuple[Pose, ...], time: float) -> Pose:
    """Return a print's pose at ``time``: each move eases in and out, and a small sway is added."""
    begin, end = next(pair for pair in pairwise(visit) if pair[0].time <= time <= pair[1].time)
    part = (time - begin.time) / (end.time - begin.time)
    part *= part * (3 - 2 * part)
    _, x, y, width, angle = (a + part * (b - a) for a, b in zip(begin, end, strict=True))
    return Pose(time, x + 2 * math.sin(2.1 * time), y + 2 * math.sin(1.3 * time), width, angle + math.sin(0.9 * time))


def _print(name: str) -> NDArray[np.uint8]:
    """Return a portrait with a white border and a shadow: uint8 ``[H, W, 4]``, premultiplied BGR and alpha."""
    data = np.frombuffer((files("fer_stream") / "assets" / name).read_bytes(), np.uint8)
    photo = cast("NDArray[np.uint8]", cv2.imdecode(data, cv2.IMREAD_COLOR))
    margin = 24
    photo = np.pad(photo, ((8, 8), (8, 8), (0, 0)), constant_values=238)
    photo = np.pad(photo, ((margin, margin), (margin, margin), (0, 0)))
    paper = np.zeros(photo.shape[:2], np.uint8)
    paper[margin:-margin, margin:-margin] = 255
    shadow = cv2.GaussianBlur(np.roll(paper, 6, axis=0), (0, 0), 7)
    coverage = np.maximum(paper, (shadow * 0.35).astype(np.uint8))
    return np.dstack([photo, coverage])


def _draw(scene: NDArray[np.uint8], portrait: NDArray[np.uint8], pose: Pose) -> None:
    """Draw a print over ``scene`` (uint8 ``[H, W, 3]``, in place); only the pixels it covers change."""
    height, width = portrait.shape[:2]
    scale = pose.width / width
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), pose.angle, scale)
    matrix[:, 2] += pose.x - width / 2, pose.y - height / 2
    reach = scale * math.hypot(width, height) / 2
    left, right = max(int(pose.x - reach), 0), min(int(pose.x + reach) + 1, WIDTH)
    top, bottom = max(int(pose.y - reach), 0), min(int(pose.y + reach) + 1, HEIGHT)
    if left >= right or top >= bottom:
        return
    matrix[:, 2] -= left, top
    layer = cv2.warpAffine(portrait, matrix, (right - left, bottom - top))
    clear = cv2.cvtColor(255 - layer[:, :, 3], cv2.COLOR_GRAY2BGR)
    under = scene[top:bottom, left:right]
    cv2.add(cv2.multiply(under, clear, scale=1 / 255), cv2.cvtColor(layer, cv2.COLOR_BGRA2BGR), dst=under)


def _wall(random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a plain wall, uint8 ``[H, W, 3]``, brighter at the top, with stains too soft to be detected as faces."""
    shade = np.linspace(150, 105, HEIGHT)[:, None]
    stains = cv2.resize(random.standard_normal((6, 8)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.multiply.outer(shade + 5 * stains, [0.96, 1.0, 1.02]).astype(np.uint8)
