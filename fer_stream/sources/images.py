"""A folder of images, or one image, as a recording."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fer_stream.errors import SourceError, WireError
from fer_stream.imaging.jpeg import Jpeg, decode
from fer_stream.imaging.limits import check_size
from fer_stream.types import Picture

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from fer_stream.settings.tree import CameraSettings

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif"})

RATE = 25.0
"""Frames/s if the settings give no rate, as images have no time stamps. FFmpeg's default is the same."""


class Images:
    """The images of a folder in natural order (``2.png`` before ``10.png``), or a single one.

    Raises:
        SourceError: the folder holds no image.
    """

    live = False

    def __init__(self, path: Path, settings: CameraSettings) -> None:
        self._paths = sorted((p for p in path.iterdir() if is_image(p)), key=_natural) if path.is_dir() else [path]
        if not self._paths:
            raise SourceError(f"the folder {str(path)!r} holds no images; formats read include .jpg and .png")
        self._rate = settings.rate or RATE
        self._loop = settings.loop
        self._read = 0
        self._closed = False
        self.frames = None if self._loop else len(self._paths)

    @property
    def names(self) -> list[str]:
        """The images' file names, in reading order."""
        return [path.name for path in self._paths]

    def read(self) -> Picture | None:
        """Return the next image, a JPEG undecoded if possible; ``None`` at the end.

        Raises:
            SourceError: a file is not an image, is damaged, or is too large.
        """
        if self._closed or (self._read >= len(self._paths) and not self._loop):
            return None
        path = self._paths[self._read % len(self._paths)]
        data = _bytes(path)
        content = Jpeg(data) if _passes(data) else _decoded(path, data)
        picture = Picture(content, round(self._read * 1e9 / self._rate))
        self._read += 1
        return picture

    def close(self) -> None:
        """Deliver no more images."""
        self._closed = True


def load(path: Path) -> NDArray[np.uint8]:
    """Return an image's pixels, uint8 ``[H, W, 3]``, BGR.

    Raises:
        SourceError: the file is not an image, is damaged or too large, or its name is not UTF-8.
    """
    check_name(path)
    return _decoded(path, _bytes(path))


def check_name(path: Path) -> None:
    """Refuse a name that is not UTF-8: OpenCV would open another file, and JSON cannot represent it.

    Raises:
        SourceError: the name is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"{str(path)!r} cannot be read: its name is not UTF-8; rename it") from error


def _bytes(path: Path) -> bytes:
    try:  # OpenCV itself crashes on a name that is not UTF-8
        return path.read_bytes()
    except FileNotFoundError as error:
        raise SourceError(f"there is no image file {str(path)!r}; check the path") from error
    except OSError as error:
        raise SourceError(f"the image {str(path)!r} cannot be read: {(error.strerror or 'error').lower()}") from error


def _passes(data: bytes) -> bool:
    """Return whether an image is a valid JPEG that can be passed on undecoded. Others are decoded here."""
    jpeg = Jpeg(data)
    try:
        height, width, _ = jpeg.shape
        check_size(width, height)
        return jpeg.plain
    except WireError:
        return False


def _decoded(path: Path, data: bytes) -> NDArray[np.uint8]:
    try:
        return decode(data)
    except WireError as error:
        raise SourceError(
            f"the image {str(path)!r} cannot be read; it is damaged, too large, or no image at all"
        ) from error


def is_image(path: Path) -> bool:
    """Return whether ``path`` is a file with a suffix in `SUFFIXES`. A GIF is not: it is a video."""
    try:
        return path.suffix.lower() in SUFFIXES and path.is_file()
    except OSError:  # a folder without permission: opening the file reports it
        return False


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", path.name)]
