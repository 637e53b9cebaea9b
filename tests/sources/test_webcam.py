"""Webcams. There is no video device here, so a simulated driver answers as ``linux/videodev2.h`` describes."""

from __future__ import annotations

import errno
import fcntl
import struct
from typing import TYPE_CHECKING

import pytest

from fer_stream.errors import SourceError
from fer_stream.settings.tree import CameraSettings
from fer_stream.sources import v4l2
from fer_stream.sources.media import open_source
from fer_stream.sources.v4l2 import Mode

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {b"MJPG": [(1280, 720), (640, 480)], b"YUYV": [(640, 480)]}
RATES = {(1280, 720): [(1, 30), (1, 15)], (640, 480): [(1, 30)]}


def driver(_: int, request: int, data: bytes) -> bytes:
    """Answer the three requests that list modes."""
    index = struct.unpack_from("=I", data)[0]
    try:
        if request == 0xC0405602:  # VIDIOC_ENUM_FMT
            return struct.pack("=III32s4s16x", index, 1, 0, b"a format", list(SIZES)[index])
        if request == 0xC02C564A:  # VIDIOC_ENUM_FRAMESIZES
            code = data[4:8]
            return struct.pack("=I4sIII24x", index, code, 1, *SIZES[code][index])
        if request == 0xC034564B:  # VIDIOC_ENUM_FRAMEINTERVALS
            code, width, height = struct.unpack_from("=4sII", data, 4)
            return struct.pack("=I4sIIIII24x", index, code, width, height, 1, *RATES[width, height][index])
    except IndexError:
        raise OSError(errno.EINVAL, "no more entries") from None
    raise AssertionError(hex(request))


def test_the_modes_of_a_webcam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "video0"
    device.touch()
    monkeypatch.setattr(fcntl, "ioctl", driver)
    modes = v4l2.modes(device)
    assert modes == [
        Mode("MJPG", 1280, 720, (30, 15)),
        Mode("MJPG", 640, 480, (30,)),
        Mode("YUYV", 640, 480, (30,)),
    ]
    assert str(modes[0]) == "MJPG 1280x720 at 30, 15 frames/s"


def test_a_file_has_no_modes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert v4l2.modes(tmp_path / "file") == []
    with pytest.raises(FileNotFoundError):
        v4l2.modes(tmp_path / "missing")


@pytest.mark.parametrize("settings", [{"format": "MJPG"}, {"size": "640x480"}])
def test_settings_of_webcams_are_refused_for_other_sources(settings: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"format and size are settings of webcams, and .*/film\.mp4 is not one"):
        open_source(str(tmp_path / "film.mp4"), CameraSettings(**settings))  # type: ignore[arg-type]
