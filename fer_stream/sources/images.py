"""Image files as recordings: a folder, a single image, an animation. The content decides the kind, not the suffix."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fer_stream.errors import SourceError, WireError
from fer_stream.imaging.jpeg import Jpeg, decode, image_size
from fer_stream.imaging.limits import check_size
from fer_stream.system import extras
from fer_stream.types import Picture

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from fer_stream.imaging.yuv import Yuv
    from fer_stream.settings.tree import CameraSettings

    Content = NDArray[np.uint8] | Jpeg | Yuv

RATE = 25.0
"""Frames/s of images without durations, if the settings give no rate (FFmpeg's default)."""

SHOWN = 5
"""Maximum number of skipped files that a message names."""

_HEAD = 64
"""Number of bytes at a file's beginning from which its kind is known."""

_TABLES = 4096
"""Number of bytes at a PNG's beginning that contain the chunk of an animation (acTL)."""

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    *((b"P%d" % number, "pnm") for number in range(1, 7)),
)

_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"hevc": "heic", b"hevx": "heic"}
"""Brands of images and image sequences (ISO/IEC 23008-12)."""

_log = logging.getLogger(__name__)


def kind(path: Path) -> str:
    """Return the kind of image in a file, or an empty text. A GIF is a video.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return kind_of(file.read(_HEAD))


def kind_of(head: bytes) -> str:
    """Return the kind of image that begins with these bytes, or an empty text."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, _HEAD, 4))]
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "")
    for magic, name in _MAGIC:
        if head.startswith(magic):
            plain = name != "pnm" or head[2:3].isspace()
            return name if plain else ""
    return ""


def is_image(path: Path) -> bool:
    """Return whether `Images` reads this file."""
    try:
        return path.is_file() and bool(kind(path))
    except OSError:  # not readable: the caller will open it, and get the reason
        return False


def is_animation(path: Path) -> bool:
    """Return whether an image file has several pictures: an animation, or a TIFF of several pages."""
    try:
        data = path.read_bytes() if is_image(path) else b""
    except OSError:
        return False
    what = kind_of(data[:_HEAD])
    return _animated(data, what) or (what == "tiff" and cv2.imcount(str(path)) > 1)


def _animated(data: bytes, what: str) -> bool:
    return (
        (what == "webp" and b"ANMF" in data)
        or (what == "png" and b"acTL" in data[:_TABLES])
        or (what == "avif" and b"avis" in data[:_HEAD])
    )


class Images:
    """The images of a folder in natural order (``2.png`` before ``10.png``), a single one, or an animation.

    Other files in the folder are skipped, and a warning lists them.

    Raises:
        SourceError: the folder has no image.
    """

    live = False

    def __init__(self, path: Path, settings: CameraSettings) -> None:
        self._paths = _images_in(path) if path.is_dir() else [path]
        self._rate = settings.rate
        self._loop = settings.loop
        self._closed = False
        self._pictures = self._all()
        self.frames = None if self._loop or not path.is_dir() else len(self._paths)

    @property
    def names(self) -> list[str]:
        """The images' file names, in their order."""
        return [path.name for path in self._paths]

    def read(self) -> Picture | None:
        """Return the next image, JPEGs undecoded; ``None`` at the end.

        Raises:
            SourceError: a file is damaged or too large.
        """
        return None if self._closed else next(self._pictures, None)

    def close(self) -> None:
        """Return no more images."""
        self._closed = True

    def _all(self) -> Iterator[Picture]:
        count, start = 0, 0
        while True:
            for path in self._paths:
                for content, duration in _contents(path):
                    if self._rate or duration is None:
                        offset = round(count * 1e9 / (self._rate or RATE))
                        start = round((count + 1) * 1e9 / (self._rate or RATE))
                    else:
                        offset, start = start, start + duration
                    count += 1
                    yield Picture(content, offset)
            if not self._loop:
                return


def _images_in(folder: Path) -> list[Path]:
    files = sorted((path for path in folder.iterdir() if path.is_file()), key=_natural)
    images = [path for path in files if is_image(path)]
    skipped = [path.name for path in files if path not in set(images)]
    more = f" and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
    names = f"{', '.join(skipped[:SHOWN])}{more}"
    if not images:
        raise SourceError(f"the folder {str(folder)!r} contains no images" + (f", only {names}" if skipped else ""))
    if skipped:
        _log.warning(
            "%d of %d files in %r are not images and are skipped: %s", len(skipped), len(files), str(folder), names
        )
    return images


def load(path: Path) -> NDArray[np.uint8]:
    """Return an image's pixels, uint8 ``[H, W, 3]``, BGR; of an animation, those of the first picture.

    Raises:
        SourceError: the file is not an image, damaged, or too large, or its name is not UTF-8.
    """
    check_name(path)
    content, _ = next(_contents(path))
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


def _contents(path: Path) -> Iterator[tuple[Content, int | None]]:
    """Yield an image file's pictures, each with its duration in nanoseconds where the file has one.

    Raises:
        SourceError: the file cannot be read; the message names the cause.
    """
    data = _bytes(path)
    try:
        yield from _pictures(path, data)
    except WireError as error:
        raise SourceError(f"the image {str(path)!r} cannot be read: {error}") from error


def _pictures(path: Path, data: bytes) -> Iterator[tuple[Content, int | None]]:
    what = kind_of(data[:_HEAD])
    if not what:
        raise WireError("its format is unknown")
    if what == "jpeg":
        yield Jpeg(data) if _passes(data) else decode(data), None
    elif what == "heic":
        yield _heic(path), None
    elif what == "avif":
        yield from _avif(path)
    elif _animated(data, what):
        yield from _animation(data)
    else:
        for page in _pages(data, what):
            yield page, None


def _animation(data: bytes) -> Iterator[tuple[Content, int | None]]:
    check_size(*image_size(data))
    good, animation = cv2.imdecodeanimation(np.frombuffer(data, np.uint8))
    if not good or not animation.frames:
        raise WireError("the animation is damaged")
    for image, milliseconds in zip(animation.frames, animation.durations, strict=True):
        yield opaque(image), int(milliseconds) * 1_000_000


def _pages(data: bytes, what: str) -> list[NDArray[np.uint8]]:
    """Return an image's pages, uint8 ``[H, W, 3]``, BGR; only a TIFF has several."""
    check_size(*image_size(data))
    buffer, how = np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    pages: Sequence[NDArray[Any] | None]
    if what == "tiff":
        _, pages = cv2.imdecodemulti(buffer, how)
    else:
        pages = [cv2.imdecode(buffer, how)]
        if what in ("png", "webp") and pages[0] is not None:  # ``how`` drops the transparency
            stored = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
            pages = [opaque(stored)] if stored is not None and stored.shape[2:] == (4,) else pages
    whole = [eight_bits(page) for page in pages if page is not None]
    if not whole or len(whole) < len(pages):
        raise WireError("it is damaged, or stored in a way that OpenCV does not read")
    return whole


def opaque(image: NDArray[Any]) -> NDArray[Any]:
    """Return a BGRA image ``[H, W, 4]`` as BGR ``[H, W, 3]`` on mid-grey; a BGR image stays as it is.

    Raises:
        WireError: all pixels are transparent.
    """
    if image.shape[2] == 3:
        return np.ascontiguousarray(image)
    full = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
    colour, alpha = image[:, :, :3], image[:, :, 3:]
    if alpha.min() == full:
        return np.ascontiguousarray(colour)
    if not alpha.any():
        raise WireError("all its pixels are transparent")
    part = alpha.astype(np.float32) / full
    return np.ascontiguousarray(colour * part + full // 2 * (1 - part), image.dtype)


def eight_bits(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an image of 8, 10, 12, 14 or 16 bits, or of floats from 0 to 1, as uint8.

    If the values of a 16-bit image fit in 10, 12 or 14 bits, it is taken for the image of a camera with so many bits.

    Raises:
        WireError: the values have another type or range.
    """
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        most = int(image.max())
        bits = next(bits for bits in (10, 12, 14, 16) if most < 1 << bits)
        return (image >> (bits - 8)).astype(np.uint8)
    if image.dtype.kind == "f":
        low, high = float(image.min()), float(image.max())
        if np.isfinite((low, high)).all() and low >= 0 and high <= 1:
            return np.rint(image.astype(np.float32) * 255).astype(np.uint8)
        raise WireError(f"it has float values from {low:g} to {high:g}; scale them to 0..1")
    raise WireError(f"its values are of type {image.dtype}; store 8 or 16 bits")


def _avif(path: Path) -> Iterator[tuple[Content, int | None]]:
    import av.error  # noqa: PLC0415  (PyAV is large)

    from fer_stream.sources.container import Container, Opening  # noqa: PLC0415

    try:
        container = Container(f"file:{path}", repr(str(path)), Opening())
    except av.error.FFmpegError as error:
        raise WireError("the AVIF is damaged") from error
    before: tuple[Content, int | None] | None = None
    try:
        for content, stamp in iter(container.read, None):
            if before is not None:
                yield before[0], None if stamp is None or before[1] is None else stamp - before[1]
            before = content, stamp
        if before is None:
            raise WireError("the AVIF is damaged")
        yield before[0], container.period if container.frames != 1 else None
    finally:
        container.close()


def _heic(path: Path) -> NDArray[np.uint8]:
    pillow_heif = extras.require("pillow_heif", "heic")
    try:
        image = pillow_heif.open_heif(path, convert_hdr_to_8bit=True, bgr_mode=True)
        check_size(*image.size)
        return np.ascontiguousarray(np.asarray(image)[:, :, :3], np.uint8)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise WireError(f"the HEIC is damaged: {error}") from error


def _bytes(path: Path) -> bytes:
    try:  # OpenCV itself crashes on a name that is not UTF-8
        return path.read_bytes()
    except FileNotFoundError as error:
        raise SourceError(f"there is no image file {str(path)!r}; check the path") from error
    except OSError as error:
        raise SourceError(f"the image {str(path)!r} cannot be read: {(error.strerror or 'error').lower()}") from error


def _passes(data: bytes) -> bool:
    """Return whether an image is a JPEG that need not be decoded here."""
    jpeg = Jpeg(data)
    try:
        height, width, _ = jpeg.shape
        check_size(width, height)
        return jpeg.plain
    except WireError:
        return False


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", path.name)]
