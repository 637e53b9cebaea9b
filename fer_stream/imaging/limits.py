"""The maximum size of a picture."""

from __future__ import annotations

from fer_stream.errors import WireError

MAX_SIDE = 16_384
"""Maximum width or height in pixels."""

MAX_PIXELS = 50_000_000
"""Maximum number of pixels."""


def check_size(width: int, height: int) -> None:
    """Refuse pictures that are too large to decode safely.

    Raises:
        WireError: a side is 0 or over `MAX_SIDE`, or there are more than `MAX_PIXELS`.
    """
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise WireError(f"a picture of {width}x{height} is over the limit of {MAX_SIDE} a side, {MAX_PIXELS} pixels")
