"""Image files as recordings: a folder, a single image, an animation. The content decides the kind, not the suffix."""

from __future__ import annotations

import logging
import os
import re
import struct
from mimetypes import guess_type
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fer_stream.errors import SourceError, WireError
from fer_stream.imaging.jpeg import Jpeg, decode, header_size, image_size
from fer_stream.imaging.limits import check_size
from fer_stream.sources.truncation import missing
from fer_stream.system import extras
from fer_stream.types import Picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from fer_stream.imaging.yuv import Yuv
    from fer_stream.settings.tree import CameraSettings

    Content = NDArray[np.uint8] | Jpeg | Yuv

RATE = 25.0
"""Frames/s of images without durations, if the settings give no rate (FFmpeg's default)."""

PERIOD = round(1e9 / RATE)
"""Nanoseconds that an image without a duration stands."""

SHORTEST = 100_000_000
"""Nanoseconds that a picture of an animation stands if its duration is 0, as in browsers."""

AT_ONCE = 1 << 28
"""Bytes of an animation's pictures that are decoded at once."""

MAX_PAGES = 100_000
"""Maximum number of pages that are read of a TIFF."""

MAX_TAGS = 512
"""Maximum number of tags that are read of a page."""

DAMAGED = "it is damaged, or stored in a way that OpenCV does not read"

SHOWN = 5
"""Maximum number of skipped or damaged files that messages name."""

_HEAD = 64
"""Number of bytes at a file's beginning from which its kind is known."""

_TABLES = 4096
"""Number of bytes at a PNG's beginning that contain the chunk of an animation (acTL)."""

_BETWEEN = b"\xff\xd9\xff\xd8"
"""End of a JPEG and begin of the next one."""

MOST_JPEG = 1 << 24
"""Number of bytes at a file's beginning in which the second JPEG of a film is searched for."""

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

_METADATA = 1 << 20
"""Number of bytes at a JPEG's beginning that contain its metadata."""

_TRANSPARENT = ("png", "webp", "jpeg2000")
"""Formats whose transparency OpenCV reads, beside TIFF."""

_ORIENTATION = 0x0112
"""Exif's and TIFF's tag of the orientation."""

_WIDTH, _HEIGHT = 0x0100, 0x0101
"""TIFF's tags of the size."""

_SUBFILE, _PARTS = 0x00FE, 0x014A
"""TIFF's tags: the kind of a page (1: a smaller copy), and further directories, such as that of raw pixels."""

_SHORT = 3
"""TIFF's number of the type of 16-bit values."""

_FLIPS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
"""Steps through rows and columns for each orientation; from 5, after rows and columns are exchanged."""

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


def is_film(path: Path) -> bool:
    """Return whether a file has JPEGs of the same size one after the other, as a video has (``.mjpeg``).

    The second picture of a photo is another one: a preview has another size, and a stereo pair says so (MPF).
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_JPEG)
        if kind_of(data[:_HEAD]) != "jpeg" or b"MPF\0" in data[:_METADATA]:
            return False
        end = data.find(_BETWEEN) + 2
        return end >= 2 and header_size(data[:end]) == header_size(data[end:])
    except (OSError, WireError):
        return False


def is_animation(path: Path) -> bool:
    """Return whether an image file has several pictures: an animation, a film, or a TIFF of several pages."""
    try:
        data = path.read_bytes() if is_image(path) else b""
    except OSError:
        return False
    what = kind_of(data[:_HEAD])
    several = what == "tiff" and sum(not one.get(_SUBFILE, 0) & 1 for one in _directories(data)) > 1
    return several or _animated(data, what) or (what == "jpeg" and is_film(path))


def _animated(data: bytes, what: str) -> bool:
    return (
        (what == "webp" and b"ANMF" in data)
        or (what == "png" and b"acTL" in data[:_TABLES])
        or (what == "avif" and b"avis" in data[:_HEAD])
    )


class Images:
    """The images of a folder in natural order (``2.png`` before ``10.png``), a single one, or an animation.

    Other files in the folder are skipped, and a warning lists them. A folder's images that cannot be read are left out.

    Raises:
        SourceError: the folder has no image.
    """

    live = False

    def __init__(self, path: Path, settings: CameraSettings) -> None:
        self.damaged = 0
        """Number of images left out because they cannot be read."""
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

        Raises:
            SourceError: the single file is damaged or too large; at the end, if images of the folder are left out.
        """
        return None if self._closed else next(self._pictures, None)

    def close(self) -> None:
        """Return no more images."""
        self._closed = True

    def _all(self) -> Iterator[Picture]:
        count, start = 0, 0
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
                for found in _contents(path):
                    readable += 1
                    yield found
            except SourceError as error:
                if not self._folder:
                    raise
                self.damaged += 1
                if self.damaged <= SHOWN:
                    _log.warning("left out: %s", error)
                failure = failure or error
        if failure is not None and not readable:
            raise failure
        if failure is not None and not self._loop:
            counts = f"{self.damaged} of {len(self._paths)} images of the folder are left out"
            raise SourceError(f"{counts}; {failure}")


def _images_in(folder: Path) -> list[Path]:
    files = sorted((path for path in folder.iterdir() if path.is_file()), key=_natural)
    images = [path for path in files if is_image(path) or _hidden_from_us(path)]
    found = set(images)
    skipped = [path.name for path in files if path not in found]
    more = f" and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
    names = f"{', '.join(skipped[:SHOWN])}{more}"
    if not images:
        raise SourceError(f"the folder {str(folder)!r} contains no images" + (f", only {names}" if skipped else ""))
    if skipped:
        _log.warning(
            "%d of %d files in %r are not images and are skipped: %s", len(skipped), len(files), str(folder), names
        )
    return images


def _hidden_from_us(path: Path) -> bool:
    """Return whether a file named like an image cannot be read: its error is reported."""
    return not os.access(path, os.R_OK) and (guess_type(path.name)[0] or "").startswith("image/")


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
        raise WireError("its format is unknown, or that of a video")
    if what == "jpeg":
        yield Jpeg(data) if _passes(data) else decode(data), None
    elif what == "heic":
        yield _heic(path), None
    elif what == "avif":
        yield from _avif(path)
    elif _animated(data, what):
        yield from _animation(data)
    elif what == "tiff":
        for page in _pages(data):
            yield page, None
    else:
        yield _image(data, what), None


def _animation(data: bytes) -> Iterator[tuple[Content, int | None]]:
    width, height = image_size(data)
    check_size(width, height)
    start, most = 0, max(1, AT_ONCE // (4 * width * height))
    while True:
        good, animation = cv2.imdecodeanimation(np.frombuffer(data, np.uint8), start, most)
        if not good or not (start or animation.frames):
            raise WireError("the animation is damaged")
        for image, milliseconds in zip(animation.frames, animation.durations, strict=True):
            yield opaque(image), int(milliseconds) * 1_000_000 or SHORTEST
        start += len(animation.frames)
        if len(animation.frames) < most:
            return


def _image(data: bytes, what: str) -> NDArray[np.uint8]:
    """Return the pixels of an image with one page, uint8 ``[H, W, 3]``, BGR."""
    check_size(*_size(data))
    buffer = np.frombuffer(data, np.uint8)
    image: NDArray[Any] | None = cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise WireError(DAMAGED)
    if what in _TRANSPARENT and (whole := _with_transparency(buffer)) is not None:
        image = opaque(whole)
    most = _maximum(data) if what == "pnm" else 0
    return np.rint(image * (255 / most)).astype(np.uint8) if most else eight_bits(image)


def _pages(data: bytes) -> Iterator[NDArray[np.uint8]]:
    """Yield a TIFF's pages, uint8 ``[H, W, 3]``, BGR, without those that show another page in a smaller size."""
    check_size(*image_size(data))
    directories = list(_directories(data))
    if data[8:10] == b"CR" or (directories and directories[0].get(_SUBFILE, 0) & 1 and _PARTS in directories[0]):
        raise WireError("it is the raw picture of a camera: convert it to JPEG, PNG or TIFF")
    for number, directory in enumerate(directories):
        if directory.get(_SUBFILE, 0) & 1:
            continue
        if (size := (directory.get(_WIDTH, 0), directory.get(_HEIGHT, 0))) != (0, 0):
            check_size(*size)
        _, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=(number, number + 1))
        if not pages:
            raise WireError(DAMAGED if len(directories) == 1 else f"page {number + 1} is damaged")
        yield eight_bits(_colour(pages[0]))


def _directories(data: bytes) -> Iterator[dict[int, int]]:
    """Yield a TIFF's directories, one for each page: tags with their first values. One that is cut off is empty."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    number, offset, size = ("Q", "Q", 20) if big else ("H", "I", 12)
    seen: set[int] = set()
    following = 8 if big else 4
    while len(seen) < MAX_PAGES:
        found: dict[int, int] = {}
        try:
            (at,) = struct.unpack_from(order + offset, data, following)
            if not at or at in seen:
                return
            seen.add(at)
            (count,) = struct.unpack_from(order + number, data, at)
            at += struct.calcsize(number)
            following = at + count * size
            for entry in range(at, min(following, at + MAX_TAGS * size), size):
                tag, form = struct.unpack_from(order + "HH", data, entry)
                place = entry + size - struct.calcsize(offset)
                (found[tag],) = struct.unpack_from(order + ("H" if form == _SHORT else "I"), data, place)
        except struct.error:
            yield {}
            return
        yield found


def _colour(page: NDArray[Any]) -> NDArray[Any]:
    """Return a TIFF's page as BGR. libtiff multiplies 8-bit colours by their opacity, and converts CMYK."""
    return opaque(_three(page), multiplied=page.dtype == np.uint8)


def _three(image: NDArray[Any]) -> NDArray[Any]:
    """Return a grey image as BGR, and others as they are."""
    return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image


def _maximum(data: bytes) -> int:
    """Return the value of white that a PNM's header gives; 0 if OpenCV scales the values itself."""
    header = re.match(rb"P([2356])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d+)", data[:_TABLES])
    return int(header[4]) if header and (header[1] in b"56" or int(header[4]) > 255) else 0


def _size(data: bytes) -> tuple[int, int]:
    """Return the width and the height in an image's header."""
    if data[:2] == b"\xff\x4f":  # a JPEG 2000 without a container: the marker SIZ comes first (ITU-T T.800, A.5.1)
        right, bottom, left, top = struct.unpack_from(">4I", data.ljust(_HEAD), 8)
        return right - left, bottom - top
    return image_size(data)


def _with_transparency(buffer: NDArray[np.uint8]) -> NDArray[Any] | None:
    """Return a PNG or a WebP as ``[H, W, 4]``, upright, or ``None`` if nothing in it is transparent."""
    image, kinds, texts = cv2.imdecodeWithMetadata(buffer, flags=cv2.IMREAD_UNCHANGED)
    if image is None or image.shape[2:] != (4,):
        return None
    exif = dict(zip(kinds, texts, strict=True)).get(cv2.IMAGE_METADATA_EXIF)
    tags = next(_directories(b"" if exif is None else np.asarray(exif).tobytes()), {})
    orientation = tags.get(_ORIENTATION, 1)  # OpenCV ignores it here
    if 4 < orientation <= 8:
        image = image.transpose(1, 0, 2)
    rows, columns = _FLIPS.get(orientation, (1, 1))
    return image[::rows, ::columns]


def opaque(image: NDArray[Any], *, multiplied: bool = False) -> NDArray[Any]:
    """Return a BGRA image ``[H, W, 4]`` as BGR ``[H, W, 3]`` on mid-grey; a BGR image stays as it is.

    ``multiplied``: the colours are already multiplied by the opacity.

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
    return np.ascontiguousarray(colour * (1 if multiplied else part) + full // 2 * (1 - part), image.dtype)


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

    from fer_stream.sources.container import NO_VIDEO, Container, Opening  # noqa: PLC0415

    name = repr(str(path))
    try:
        container = Container(f"file:{path}", name, Opening())
    except av.error.FFmpegError as error:
        raise WireError("the AVIF is damaged") from error
    except SourceError as error:
        if NO_VIDEO not in str(error):
            raise
        raise WireError("the AVIF is damaged") from error
    # The opacity is a grey picture of its own.
    opacity = None
    before: tuple[Content, int | None] | None = None
    try:
        if (number := container.opacity) is not None:
            opacity = Container(f"file:{path}", name, Opening(stream=number))
        for content, stamp in iter(container.read, None):
            if before is not None:
                yield before[0], None if stamp is None or before[1] is None else stamp - before[1]
            alpha = None if opacity is None else opacity.read()
            before = content if alpha is None else _covered(content, alpha[0]), stamp
        if before is None or container.damaged:
            raise WireError("the AVIF is damaged")
        yield before[0], container.period if container.frames != 1 else None
        if missing(path):
            raise WireError("the AVIF is truncated")
    finally:
        container.close()
        if opacity is not None:
            opacity.close()


def _covered(content: Content, opacity: Content) -> Content:
    image, alpha = (one if isinstance(one, np.ndarray) else one.decode() for one in (content, opacity))
    return opaque(np.dstack([image, alpha[:, :, :1]]))


def _heic(path: Path) -> NDArray[np.uint8]:
    pillow_heif = extras.require("pillow_heif", "heic")
    try:
        image = pillow_heif.open_heif(path, convert_hdr_to_8bit=True, bgr_mode=True)
        check_size(*image.size)
        return opaque(_three(np.asarray(image, np.uint8)))
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise WireError(f"the HEIC is damaged: {' '.join(str(error).split())}") from error


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
