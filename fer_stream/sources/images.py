"""Image files as recordings: a folder, a single image, an animation. The content decides the kind, not the suffix."""

from __future__ import annotations

import logging
import os
import re
from mimetypes import guess_type
from typing import TYPE_CHECKING

import numpy as np

from fer_stream.errors import SourceError
from fer_stream.sources.image_files import contents
from fer_stream.sources.image_kinds import is_image
from fer_stream.sources.unrelated import unrelated
from fer_stream.types import Picture

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from fer_stream.settings.tree import CameraSettings
    from fer_stream.sources.container import Content

RATE = 25.0
"""Frames/s of images without durations, if the settings give no rate (FFmpeg's default)."""

PERIOD = round(1e9 / RATE)
"""Nanoseconds for which an image without a duration is shown."""

MAX_NAMES = 5
"""Maximum number of skipped or damaged files that are named in messages."""

_log = logging.getLogger(__name__)


class Images:
    """The images of a folder in natural order (``2.png`` before ``10.png``), a single one, or an animation.

    Files in the folder that are not images are skipped, and a warning lists them. Images that cannot be read are left
    out, which is an error at the end.

    Raises:
        SourceError: the folder has no image.
    """

    live = False

    def __init__(self, path: Path, settings: CameraSettings) -> None:
        self.damaged = 0
        """Number of images that are left out because they cannot be read."""
        self._folder = path.is_dir()
        self._paths = _images_in(path) if self._folder else [path]
        self._rate = settings.rate
        self._loop = settings.loop
        self._closed = False
        self._pictures = self._all()
        self.frames = None if self._loop or not self._folder else len(self._paths)

    @property
    def names(self) -> list[str]:
        """The images' file names, in their order."""
        return [path.name for path in self._paths]

    def read(self) -> Picture | None:
        """Return the next image, JPEGs undecoded; ``None`` at the end.

        If the folder's images seem to be unrelated, a warning says so first.

        Raises:
            SourceError: the single file is damaged or too large; or, at the end, images of the folder were left out.
        """
        return None if self._closed else next(self._pictures, None)

    def close(self) -> None:
        """Return no more images."""
        self._closed = True

    def _all(self) -> Iterator[Picture]:
        count, start = 0, 0
        if self._folder and (hint := _hint(self._paths, str(self._paths[0].parent))):
            _log.warning("%s", hint)
        while True:
            before = count
            for content, duration in self._each():
                offset = round(count * 1e9 / self._rate) if self._rate else start
                start += PERIOD if duration is None else duration
                count += 1
                yield Picture(content, offset)
            if not self._loop or count == before:
                return

    def _each(self) -> Iterator[tuple[Content, int | None]]:
        """Yield the pictures of all files, each with its duration in nanoseconds where the file has one."""
        readable, failure = 0, None
        for path in self._paths:
            try:
                for found in contents(path):
                    readable += 1
                    yield found
            except SourceError as error:
                if not self._folder:
                    raise
                self.damaged += 1
                if self.damaged <= MAX_NAMES:
                    _log.warning("left out: %s", error)
                failure = failure or error
        if failure is not None and not readable:
            raise failure
        if failure is not None and not self._loop:
            counts = f"{self.damaged} of {len(self._paths)} images of the folder were left out"
            raise SourceError(f"{counts}; {failure}")


def _images_in(folder: Path) -> list[Path]:
    images, skipped = _sorted(folder)
    names = listed(skipped)
    if not images:
        raise SourceError(f"the folder {str(folder)!r} contains no images" + (f", only {names}" if skipped else ""))
    if skipped:
        _log.warning(
            "%d of %d files in %r are not images and are skipped: %s",
            len(skipped),
            len(skipped) + len(images),
            str(folder),
            names,
        )
    return images


def _sorted(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the images of a folder in their order, and the names of its other files."""
    files = sorted((path for path in folder.iterdir() if path.is_file()), key=_natural)
    images = [path for path in files if is_image(path) or _is_unreadable(path)]
    found = set(images)
    return images, [path.name for path in files if path not in found]


def unrelated_hint(folder: Path, title: str) -> str | None:
    """Return what users are told if the images of a folder seem to be unrelated.

    Args:
        folder: the folder.
        title: what it is called.
    """
    return _hint(_sorted(folder)[0], title)


def _hint(paths: Sequence[Path], title: str) -> str | None:
    why = unrelated(paths)
    return why and (
        f"the images in {title!r} seem to be unrelated pictures ({why}), and are read as the frames of one recording, "
        "where a face counts only if it stays in view: fer-stream analyze --pictures analyses each by itself"
    )


def listed(names: Sequence[str]) -> str:
    """Return file names for a message, at most `MAX_NAMES` of them."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _is_unreadable(path: Path) -> bool:
    """Return whether a file named like an image may not be read. It is kept, so that reading it reports this."""
    return not os.access(path, os.R_OK) and (guess_type(path.name)[0] or "").startswith("image/")


def load(path: Path) -> NDArray[np.uint8]:
    """Return an image's pixels, uint8 ``[H, W, 3]``, BGR; of an animation, those of the first picture.

    Raises:
        SourceError: the file is not an image, damaged, or too large, or its name is not UTF-8.
    """
    check_name(path)
    content, _ = next(contents(path))
    return content if isinstance(content, np.ndarray) else content.decode()


def check_name(path: Path) -> None:
    """Refuse a name that neither FFmpeg nor JSON can represent.

    Raises:
        SourceError: it is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"{str(path)!r} cannot be read: its name is not UTF-8; rename it") from error


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", path.name)]
