"""Reads the pictures in one image file, and converts them to 8 bits, opaque and upright."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fer_stream.errors import SourceError, WireError
from fer_stream.imaging.jpeg import Jpeg, decode, image_size
from fer_stream.imaging.limits import check_size
from fer_stream.sources.image_kinds import HEAD, HEIGHT, PARTS, PLANES, SUBFILE, WIDTH, animated, directories, kind_of
from fer_stream.sources.truncation import missing
from fer_stream.system import extras

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from fer_stream.sources.container import Content

UNTIMED = 100_000_000
"""Nanoseconds for which a picture of an animation is shown if its duration is 0, as in browsers."""

AT_ONCE = 1 << 28
"""Maximum size in bytes of an animation's pictures that are decoded at once."""

PNM_HEADER = 4096
"""Number of bytes at a PNM's beginning in which its header is searched for."""

DAMAGED = "it is damaged, or stored in a way that OpenCV does not read"

SEPARATE = 2
"""Value of TIFF's tag `PLANES`: each colour has its own plane."""

_TRANSPARENT = ("png", "webp", "jpeg2000")
"""Formats whose transparency OpenCV reads, besides TIFF."""

_ORIENTATION = 0x0112
"""Exif's and TIFF's tag of the orientation."""

_FLIPS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
"""For each orientation, the steps through rows and columns. From 5 on, rows and columns are exchanged first."""


def contents(path: Path) -> Iterator[tuple[Content, int | None]]:
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
    what = kind_of(data[:HEAD])
    if not what:
        raise WireError("its format is unknown, or that of a video")
    if what == "jpeg":
        yield Jpeg(data) if _can_pass(data) else _checked(decode(data)), None
    elif what == "heic":
        yield _heic(path), None
    elif what == "avif":
        yield from _avif(path)
    elif animated(data, what):
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
            yield opaque(image), int(milliseconds) * 1_000_000 or UNTIMED
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
    white = _white(data) if what == "pnm" else 0
    return np.rint(image * (255 / white)).astype(np.uint8) if white else eight_bits(image)


def _checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    check_size(image.shape[1], image.shape[0])
    return image


def _pages(data: bytes) -> Iterator[NDArray[np.uint8]]:
    """Yield a TIFF's pages, uint8 ``[H, W, 3]``, BGR, without those that show another page in a smaller size."""
    check_size(*image_size(data))
    pages = list(directories(data))
    if data[8:10] == b"CR" or (pages and pages[0].get(SUBFILE, 0) & 1 and PARTS in pages[0]):
        raise WireError("it is the raw picture of a camera: convert it to JPEG, PNG or TIFF")
    for number, directory in enumerate(pages):
        if directory.get(SUBFILE, 0) & 1:
            continue
        if (size := (directory.get(WIDTH, 0), directory.get(HEIGHT, 0))) != (0, 0):
            check_size(*size)
        _, decoded = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=(number, number + 1))
        if not decoded:
            raise WireError(DAMAGED if len(pages) == 1 else f"page {number + 1} is damaged")
        if directory.get(PLANES) == SEPARATE and decoded[0].ndim > 2 and decoded[0].dtype != np.uint8:
            raise WireError("OpenCV cannot read its planes of more than 8 bits: store the colours of a pixel together")
        yield eight_bits(_colour(decoded[0]))


def _colour(page: NDArray[Any]) -> NDArray[Any]:
    """Return a TIFF's page as BGR. libtiff multiplies 8-bit colours by their opacity, and converts CMYK."""
    return opaque(_three_channels(page), multiplied=page.dtype == np.uint8)


def _three_channels(image: NDArray[Any]) -> NDArray[Any]:
    """Return a grey image as BGR, and others as they are."""
    return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image


def _white(data: bytes) -> int:
    """Return the value of white that a PNM's header gives; 0 if OpenCV scales the values itself."""
    header = re.match(rb"P([2356])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d+)", data[:PNM_HEADER])
    return int(header[4]) if header and (header[1] in b"56" or int(header[4]) > 255) else 0


def _size(data: bytes) -> tuple[int, int]:
    """Return the width and the height in an image's header."""
    if data[:2] == b"\xff\x4f":  # a JPEG 2000 without a container: the marker SIZ comes first (ITU-T T.800, A.5.1)
        right, bottom, left, top = struct.unpack_from(">4I", data.ljust(HEAD), 8)
        return right - left, bottom - top
    return image_size(data)


def _with_transparency(buffer: NDArray[np.uint8]) -> NDArray[Any] | None:
    """Return a PNG or a WebP as ``[H, W, 4]``, upright, or ``None`` if nothing in it is transparent."""
    image, kinds, texts = cv2.imdecodeWithMetadata(buffer, flags=cv2.IMREAD_UNCHANGED)
    if image is None or image.shape[2:] != (4,):
        return None
    exif = dict(zip(kinds, texts, strict=True)).get(cv2.IMAGE_METADATA_EXIF)
    tags = next(directories(b"" if exif is None else np.asarray(exif).tobytes()), {})
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

    A 16-bit image whose values fit in 10, 12 or 14 bits is taken to have only that many bits, as many cameras give.

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

    from fer_stream.sources.container import Container  # noqa: PLC0415
    from fer_stream.sources.opening import NoVideoError, Opening  # noqa: PLC0415

    name = repr(str(path))
    try:
        container = Container(f"file:{path}", name, Opening())
    except (av.error.FFmpegError, NoVideoError) as error:
        raise WireError("the AVIF is damaged") from error
    opacities = None  # the opacity is a video stream of its own
    before: tuple[Content, int | None] | None = None
    try:
        if (number := container.opacity) is not None:
            opacities = Container(f"file:{path}", name, Opening(stream=number))
        for content, stamp in iter(container.read, None):
            if before is not None:  # a picture lasts until the next one
                yield before[0], None if stamp is None or before[1] is None else stamp - before[1]
            opacity = None if opacities is None else opacities.read()
            before = content if opacity is None else _with_opacity(content, opacity[0]), stamp
        if before is None or container.damaged:
            raise WireError("the AVIF is damaged")
        yield before[0], container.period if container.frames != 1 else None
        if missing(path):
            raise WireError("the AVIF is truncated")
    finally:
        container.close()
        if opacities is not None:
            opacities.close()


def _with_opacity(content: Content, opacity: Content) -> Content:
    image, alpha = (one if isinstance(one, np.ndarray) else one.decode() for one in (content, opacity))
    return opaque(np.dstack([image, alpha[:, :, :1]]))


def _heic(path: Path) -> NDArray[np.uint8]:
    pillow_heif = extras.require("pillow_heif", "heic")
    try:
        image = pillow_heif.open_heif(path, convert_hdr_to_8bit=True, bgr_mode=True)
        check_size(*image.size)
        return opaque(_three_channels(np.asarray(image, np.uint8)))
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise WireError(f"the HEIC is damaged: {' '.join(str(error).split())}") from error


def _bytes(path: Path) -> bytes:
    try:  # not with OpenCV, which crashes on a name that is not UTF-8
        return path.read_bytes()
    except FileNotFoundError as error:
        raise SourceError(f"there is no image file {str(path)!r}; check the path") from error
    except OSError as error:
        raise SourceError(f"the image {str(path)!r} cannot be read: {(error.strerror or 'error').lower()}") from error


def _can_pass(data: bytes) -> bool:
    """Return whether a JPEG can be passed on undecoded (`Jpeg.plain`)."""
    jpeg = Jpeg(data)
    try:
        height, width, _ = jpeg.shape
        check_size(width, height)
        return jpeg.plain
    except WireError:
        return False
