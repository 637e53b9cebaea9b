"""Cameras fall into a fixed number of partitions by their names. A partition has one owner and one stream of events."""

from __future__ import annotations

from hashlib import blake2b

MOST = 256
"""Most partitions of a cell."""


def partition(camera: str, count: int) -> int:
    """Return a camera's partition, from 0 to ``count - 1``.

    It is the first 8 bytes of the BLAKE2b-64 hash of the name in UTF-8, as a big-endian number, modulo ``count``. So it
    is the same in every process and version, and other languages can compute it.

    Raises:
        ValueError: ``count`` is not from 1 to `MOST`.
    """
    if not 1 <= count <= MOST:
        raise ValueError(f"a cell has 1 to {MOST} partitions, not {count}")
    return int.from_bytes(blake2b(camera.encode(), digest_size=8).digest(), "big") % count
