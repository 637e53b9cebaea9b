"""Tells from a folder's images whether they are unrelated photographs, and not the frames of one recording."""

from __future__ import annotations

import re
import struct
from itertools import pairwise
from typing import TYPE_CHECKING

import imagesize
import numpy as np

from fer_stream.errors import SourceError
from fer_stream.imaging.motion import thumbnail
from fer_stream.sources.image_files import contents
from fer_stream.sources.image_kinds import ascii_values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

PAIRS = 5
"""Number of pairs of consecutive images that are compared, evenly spaced over the folder."""

ALIKE = 0.5
"""Correlation of two thumbnails. Of consecutive frames it is larger, except at a cut."""

UNLIKE = 0.3
"""If the correlation is smaller than this, no other sign is needed."""

_EXIF = b"Exif\0\0"

_HEAD = 1 << 17
"""Number of bytes at a JPEG's beginning that contain its Exif data."""

_MODEL, _TIME = 0x0110, 0x0132
"""Tags of Exif: the camera's model, and the time of the last change."""


def unrelated(paths: Sequence[Path]) -> str | None:
    """Return why images seem to be unrelated, as the end of a sentence; ``None`` if they may be consecutive frames.

    Most pairs of neighbours must look different: the median correlation of their thumbnails is below `UNLIKE`, or
    below `ALIKE` if also their sizes, their cameras, their order in time or their names differ. Images that cannot be
    read do not count.

    Args:
        paths: the images in their order.
    """
    first = sorted({round(at) for at in np.linspace(0, len(paths) - 2, PAIRS)}) if len(paths) > 1 else []
    pairs = [(paths[at], paths[at + 1]) for at in first]
    found = [_correlation(*pair) for pair in pairs]
    known = sorted(value for value in found if value is not None)
    if not known or known[len(known) // 2] >= ALIKE:
        return None
    signs = ["neighbours look different"]
    if any(_size(one) != _size(other) for one, other in pairs):
        signs.append("their sizes differ")
    exif = [(_exif(one), _exif(other)) for one, other in pairs]
    if any(one[_MODEL] != other[_MODEL] for one, other in exif):
        signs.append("their cameras differ")
    times = [both for one, other in exif if all(both := (one[_TIME], other[_TIME]))]
    if any(one > other for one, other in times):
        signs.append("they are not in the order of their times")
    if not _numbered(paths):
        signs.append("their names are not numbered")
    if len(signs) == 1 and known[len(known) // 2] >= UNLIKE:
        return None
    return f"{', '.join(signs[:-1])} and {signs[-1]}" if len(signs) > 1 else signs[0]


def _correlation(one: Path, other: Path) -> float | None:
    before, after = _thumbnail(one), _thumbnail(other)
    if before is None or after is None:
        return None
    deviations = float(before.std() * after.std())
    if not deviations:  # a blank picture is like every other
        return 1.0
    return float(((before - before.mean()) * (after - after.mean())).mean()) / deviations


def _thumbnail(path: Path) -> NDArray[np.float64] | None:
    try:
        content, _ = next(contents(path))
        return thumbnail(content if isinstance(content, np.ndarray) else content.decode()).astype(np.float64)
    except SourceError:
        return None


def _size(path: Path) -> tuple[int, int]:
    try:
        return imagesize.get(path)  # type: ignore[no-any-return]
    except (OSError, ValueError, struct.error):
        return -1, -1


def _exif(path: Path) -> dict[int, str]:
    """Return the camera's model and the time; empty texts where there are none."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        head = b""
    _, marked, data = head.partition(_EXIF)
    found = ascii_values(data) if marked else {}
    return {tag: found.get(tag, "") for tag in (_MODEL, _TIME)}


def _numbered(paths: Sequence[Path]) -> bool:
    """Tell whether all names but for their numbers are the same, and one of the numbers rises, as in a recording."""
    parts = [re.split(r"(\d+)", path.stem) for path in paths]
    if len({tuple(part[::2]) for part in parts}) > 1:
        return False
    rising = zip(*([int(number) for number in part[1::2]] for part in parts), strict=True)
    return any(all(one < other for one, other in pairwise(numbers)) for numbers in rising)
