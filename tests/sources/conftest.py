"""Makes small videos. Picture ``n`` has a mean grey of ``30 + 4 n`` with some noise, so its mean gives its number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """``make_video("name.avi", frames=40, fps=20)``: MJPEG in .avi and .mkv, MPEG-4 in .mp4, MPEG-2 in .mpg and .ts."""

    def make(name: str, frames: int = 40, fps: float = 20.0) -> Path:
        codec = {".mp4": "mp4v", ".mpg": "mp2v", ".ts": "mp2v"}.get(name[name.rindex(".") :], "MJPG")
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
        rough = np.random.default_rng(1).integers(-20, 21, (24, 64, 1))
        rough = np.concatenate([rough, -rough]).repeat(3, axis=2)
        for n in range(frames):
            writer.write((30 + 4 * n + rough).astype(np.uint8))
        writer.release()
        return tmp_path / name

    return make
