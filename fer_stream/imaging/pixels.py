"""Checks that a value is a picture (uint8 ``[H, W, 3]``, BGR). If not, the error says what it is and how to convert it.

Every public function that takes a picture calls `pixels`, so that all raise the same errors.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WANTED = "a picture is a numpy array, uint8 [H, W, 3] in BGR order"

_INSTEAD = {
    "PIL": "a PIL image: give numpy.asarray(image.convert('RGB'))[:, :, ::-1]",
    "torch": "a torch tensor: give tensor.cpu().numpy(), as uint8 [H, W, 3] in BGR order",
    "tensorflow": "a TensorFlow tensor: give tensor.numpy(), as uint8 [H, W, 3] in BGR order",
    "jax": "a JAX array: give numpy.asarray(array), as uint8 [H, W, 3] in BGR order",
    "jaxlib": "a JAX array: give numpy.asarray(array), as uint8 [H, W, 3] in BGR order",
    "cupy": "a CuPy array: give array.get(), as uint8 [H, W, 3] in BGR order",
    "cv2": "OpenCV's UMat: give image.get()",
    "av": "a frame of PyAV: give frame.to_ndarray(format='bgr24')",
}
"""How to convert the pictures of other packages, by the package of their type."""


def pixels(image: object) -> NDArray[np.uint8]:
    """Return a picture, uint8 ``[H, W, 3]`` and C-contiguous. It is a copy only if ``image`` is not C-contiguous.

    Raises:
        ValueError: ``image`` is not a picture. The message says what it appears to be, and how to convert it.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{_WANTED}, and this is {_kind(image)}")
    if isinstance(image, np.ma.MaskedArray) and np.ma.is_masked(image):
        raise ValueError(f"{_WANTED}, and this is a masked array: give image.filled(0)")
    if image.dtype == object:
        raise ValueError(
            f"{_WANTED}, and this is an array of objects, shape {_shape(image)}: pictures of different sizes "
            "do not form an array; give one picture at a time"
        )
    faults = [fault for fault in (_shape_fault(image), _dtype_fault(image)) if fault]
    if faults:
        raise ValueError(f"{_WANTED}, not {image.dtype} {_shape(image)}: {'; '.join(faults)}")
    return np.ascontiguousarray(image, np.uint8)


def _kind(image: object) -> str:
    """Describe a value that is not an array, and how to convert it."""
    package = type(image).__module__.partition(".")[0]
    if package in _INSTEAD:
        return _INSTEAD[package]
    match image:
        case None:
            return "None, which cv2.imread returns for a file that it cannot read: check its path"
        case str() | os.PathLike():
            return f"a path, {os.fspath(image)!r}: give cv2.imread(path)"
        case bytes() | bytearray() | memoryview():
            return "encoded bytes: give fer_stream.Jpeg(data).decode()"
        case list() | tuple():
            if any(isinstance(part, np.ndarray) and part.ndim > 2 for part in image):
                return f"a {type(image).__name__} of {len(image)} pictures: give one at a time"
            return f"a {type(image).__name__}: give numpy.asarray(image, numpy.uint8)"
    if package == "fer_stream":
        return f"a {type(image).__name__}: give its " + ("decode()" if hasattr(image, "decode") else "image")
    return f"of type {type(image).__module__}.{type(image).__qualname__}: convert it"


def _shape(image: NDArray[Any]) -> str:
    return str(list(image.shape))


def _shape_fault(image: NDArray[Any]) -> str:
    """Describe what is wrong with an array's shape, and how to correct it; empty if nothing is wrong."""
    shape = image.shape
    if 0 in shape:
        return "it is empty, like a crop outside a picture; check how it was cut out"
    match shape:
        case (_, _, 3):
            return ""
        case (_, _, 1) | (_, _):
            return "it looks grey; give cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)"
        case (_, _, 4):
            return "it looks like BGRA; give cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)"
        case (3, height, width):
            return f"it looks like channels first; transpose it to [{height}, {width}, 3] by image.transpose(1, 2, 0)"
        case (1, _, _):
            return "it looks like channels first, and grey; give cv2.cvtColor(image[0], cv2.COLOR_GRAY2BGR)"
        case (4, _, _):
            return (
                "it looks like channels first, and BGRA; give "
                "cv2.cvtColor(image.transpose(1, 2, 0), cv2.COLOR_BGRA2BGR)"
            )
        case (_, _, channels):
            return f"it has {channels} channels, not 3"
        case (1, _, _, _):
            return "it looks like a batch of one picture; give image[0]"
        case (count, _, _, _):
            return f"it looks like a batch of {count} pictures; give one at a time"
        case (_,):
            return "it has one dimension, as a file's bytes do; give cv2.imdecode(data, cv2.IMREAD_COLOR)"
    return f"it has {len(shape)} dimensions, not 3"


def _dtype_fault(image: NDArray[Any]) -> str:
    """Describe what is wrong with an array's type or values, and how to correct it; empty if nothing is wrong."""
    if image.dtype == np.uint8:
        return ""
    if image.dtype == np.bool_:
        return "it is a mask of truth values; give image.astype(numpy.uint8) * 255"
    if image.dtype.kind not in "iuf":
        return f"a picture has no values of type {image.dtype}"
    if not image.size:
        return "convert it to uint8"
    least, most = float(image.min()), float(image.max())
    if not np.isfinite((least, most)).all():
        return "it has values that are not finite (NaN or infinite)"
    if image.dtype.kind == "f":
        if least >= 0 and most <= 1:
            return "it looks like a float image in 0..1; give (image * 255).round().astype(numpy.uint8)"
        if least >= -1 and most <= 1:
            return "it looks like a float image in -1..1; give ((image + 1) * 127.5).round().astype(numpy.uint8)"
        if least >= 0 and most <= 255:
            return "it looks like a float image in 0..255; give image.round().astype(numpy.uint8)"
        return f"its values are from {least:g} to {most:g}, but a picture has 0 to 255; scale and convert them"
    if least >= 0 and most <= 255:
        return "its values fit 8 bits; give image.astype(numpy.uint8)"
    if least < 0:
        return f"its values are from {least:g} to {most:g}, but a picture has 0 to 255; scale and convert them"
    bits = next((bits for bits in (10, 12, 14, 16) if most < 1 << bits), 0)
    if not bits:
        return f"its values reach {most:g}; scale them to 0..255 and convert it to uint8"
    return f"it looks like a picture of {bits} bits; give (image >> {bits - 8}).astype(numpy.uint8)"
