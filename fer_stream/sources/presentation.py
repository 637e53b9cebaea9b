"""Turns decoded frames into what a player shows: whole pictures instead of fields, with square pixels, upright."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av
import av.filter
import cv2
import numpy as np

from fer_stream.imaging.yuv import Colour, Yuv

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av import VideoFrame
    from numpy.typing import NDArray

    from fer_stream.plugins.recognition import Allocate

    Turn = tuple[int, int, int, int]

UPRIGHT: Turn = (1, 0, 0, 1)
"""A display matrix (a, b, c, d) that changes nothing."""

MAX_ASPECT = 16
"""Sample aspect ratios above this, or below its inverse, are errors in a file and are ignored."""

FULL_RANGE, BT709 = 2, 1
"""FFmpeg's ``AVCOL_RANGE_JPEG`` (luma from 0 to 255 instead of 16 to 235) and ``AVCOL_SPC_BT709``."""

YUV = ("yuv", "nv12", "nv21", "p010", "nv16", "uyvy", "yuyv")
"""Prefixes of the formats that are converted to planar YUV 4:2:0; others, such as RGB and grey, become BGR."""

PLANAR = frozenset({"yuv420p", "yuvj420p"})
"""Formats whose planes are used as they are."""

BT601 = (2, 5, 6)
"""FFmpeg's numbers of the colour matrix BT.601, and of an unspecified one, for which BT.601 is used."""


YCGCO = 8
"""FFmpeg's number of the colour matrix YCgCo, which its scaler cannot convert."""

BT2020 = 9
"""FFmpeg's number of the colour matrix BT.2020 with non-constant luminance."""

CONVERTED = frozenset({0, 1, 2, 4, 5, 6, 7, BT2020})
"""FFmpeg's numbers of the colour matrices that its scaler converts. It fails with the others."""


class Deinterlacer:
    """Makes whole pictures of interlaced frames with FFmpeg's filter ``bwdif``; progressive frames stay unchanged.

    The filter is created for the first interlaced frame. It holds back one frame, which `flush` returns.
    """

    def __init__(self) -> None:
        self._graph: av.filter.Graph | None = None
        self._kind: tuple[object, ...] = ()

    def push(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Yield the pictures that are complete."""
        kind = frame.width, frame.height, frame.format.name
        if self._graph is not None and kind != self._kind:
            yield from self.flush()
        if self._graph is None and not frame.interlaced_frame:
            yield frame
            return
        if self._graph is None:
            self._graph, self._kind = _graph(frame), kind
        self._graph.push(frame)
        yield from _pull(self._graph)

    def flush(self) -> Iterator[VideoFrame]:
        """Yield the picture that is held back, and remove the filter."""
        if self._graph is not None:
            self._graph.push(None)
            yield from _pull(self._graph)
            self._graph = None


def _graph(frame: VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    time_base = frame.time_base or Fraction(1, 1000)
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    deinterlace = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(deinterlace)
    deinterlace.link_to(sink)
    graph.configure()
    return graph


def _pull(graph: av.filter.Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            yield cast("VideoFrame", graph.pull())
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def turn_of(frame: VideoFrame) -> Turn:
    """Return a frame's display matrix, with its rotation rounded to a multiple of 90 degrees."""
    # Reading side data makes a frame part of a reference cycle in PyAV, so its memory is freed late. Use a tiny copy.
    matrix, frame.colorspace = frame.colorspace, BT601[-1]  # grey needs none, but the scaler fails with some
    tiny = frame.reformat(width=16, height=16, format="gray8")
    frame.colorspace = matrix
    try:
        found = tiny.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know one of the frame's kinds of side data, such as Exif
        found = None
    if found is None:
        return UPRIGHT
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(cast("bytes", found)))
    if max(abs(a), abs(d)) >= max(abs(b), abs(c)):
        return _sign(a), 0, 0, _sign(d)
    return 0, _sign(b), _sign(c), 0


def _sign(value: int) -> int:
    return -1 if value < 0 else 1


def turned(plane: NDArray[np.uint8], turn: Turn) -> NDArray[np.uint8]:
    """Return a plane or an image, uint8 ``[H, W, ...]``, turned by a matrix: x' = a x + c y, y' = b x + d y."""
    a, b, c, d = turn
    if a:
        return plane[::d, ::a]
    return plane.swapaxes(0, 1)[::b, ::c]


def aspect(width: int, height: int, ratio: Fraction | None) -> tuple[int, int]:
    """Return the size in square pixels. Neither side is smaller than the stored one."""
    if not ratio or not Fraction(1, MAX_ASPECT) <= ratio <= MAX_ASPECT:
        return width, height
    if ratio > 1:
        return round(width * ratio), height
    return width, round(height / ratio)


def shown(
    frame: VideoFrame, ratio: Fraction | None, turn: Turn, allocate: Allocate | None = None
) -> NDArray[np.uint8] | Yuv:
    """Return a frame as a player shows it: planar; or uint8 ``[H, W, 3]``, BGR, C-contiguous.

    A frame becomes BGR if a side is odd, or if it is neither YUV of BT.601 nor of BT.709.

    Args:
        frame: decoded and deinterlaced.
        ratio: the sample aspect ratio, width to height of a stored pixel.
        turn: from `turn_of`.
        allocate: provides the memory of the result.
    """
    size = aspect(frame.width, frame.height, ratio)
    odd = frame.width % 2 or frame.height % 2
    if odd or not frame.format.name.startswith(YUV) or frame.colorspace not in (*BT601, BT709):
        return _bgr(frame, size, turn)
    return _planar(frame, size, turn, allocate)


def _bgr(frame: VideoFrame, size: tuple[int, int], turn: Turn) -> NDArray[np.uint8]:
    if frame.colorspace == YCGCO:
        image = _from_ycgco(frame)
    else:
        if frame.colorspace not in CONVERTED:  # those left are variants of BT.2020
            frame.colorspace = BT2020
        image = cast("NDArray[np.uint8]", frame.to_ndarray(format="bgr24"))
    if size != (frame.width, frame.height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return np.ascontiguousarray(turned(image, turn))


def _from_ycgco(frame: VideoFrame) -> NDArray[np.uint8]:
    """Return a frame of YCgCo as BGR (ITU-T H.273, 8.3)."""
    frame.colorspace = BT601[-1]  # only the format changes, for which the scaler would want to know the matrix, too
    stored = cast("NDArray[np.uint8]", frame.reformat(format="yuv444p").to_ndarray()).astype(np.float32)
    low, span, swing = (0, 255, 255) if frame.color_range == FULL_RANGE else (16, 219, 224)
    luma = (stored[0] - low) * (255 / span)
    green, orange = (stored[1:] - 128) * (255 / swing)
    colours = np.stack([luma - green - orange, luma + green, luma - green + orange], axis=2)
    image: NDArray[np.uint8] = np.rint(colours).clip(0, 255).astype(np.uint8)
    return image


def _planar(frame: VideoFrame, size: tuple[int, int], turn: Turn, allocate: Allocate | None) -> Yuv:
    if frame.format.name not in PLANAR:
        frame = frame.reformat(format="yuv420p")
    colour = Colour.LIMITED_BT601
    if frame.color_range == FULL_RANGE:
        colour |= Colour.FULL
    if frame.colorspace == BT709:
        colour |= Colour.BT709
    width, height = (side + side % 2 for side in size)
    sizes = (width, height), (width // 2, height // 2), (width // 2, height // 2)
    planes = [turned(_plane(frame, number, one), turn) for number, one in enumerate(sizes)]
    rows, columns = planes[0].shape
    shape = rows * 3 // 2, columns
    data = allocate(shape) if allocate else None
    made = Yuv.from_i420(np.empty(shape, np.uint8) if data is None else data, colour)
    for plane, place in zip(planes, (made.y, made.u, made.v), strict=True):
        np.copyto(place, plane)
    return made


def _plane(frame: VideoFrame, number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a plane of a frame as a view, or resized to ``size`` (width, height)."""
    plane = frame.planes[number]
    pixels = np.frombuffer(memoryview(plane), np.uint8)
    view: NDArray[np.uint8] = pixels.reshape(plane.height, plane.line_size)[:, : plane.width]
    if size == (plane.width, plane.height):
        return view
    return cv2.resize(view, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
