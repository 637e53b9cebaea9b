"""Frames in memory shared by processes of one machine: a frame is written once, and only its descriptor is sent.

The capture owns a `Ring` of slots in anonymous memory (`fer_stream.system.anonymous`). Video is decoded into a slot;
other pictures are copied into one when they are sent. Between processes that cannot share memory (`identity`), the
pixels themselves are sent.

A slot is overwritten only after its frame is resolved. If a process still reads it then (a worker that was given up),
the slot's generation no longer equals the descriptor's, and the reader discards what it read.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import struct
import threading
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from fer_stream.errors import WireError
from fer_stream.imaging.yuv import Yuv
from fer_stream.protocol.messages import Encoding, Message
from fer_stream.system import anonymous

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fer_stream.protocol.messages import Buffer

MAX_SLOTS = 128
DESCRIPTOR = struct.Struct("!IIQIIQ")
"""Process id, its file descriptor, the ring's token, slot, bytes of the frame, generation."""

_log = logging.getLogger(__name__)

_PAGE = 4096
_TOKEN = struct.Struct("!Q")


class UnreachableError(WireError):
    """Shared memory that this process may not open: the pixels must be sent in the message."""


@cache
def identity() -> str:
    """Return a string that is equal in two processes if they can share memory; empty if none can be shared here."""
    return anonymous.identity()


def owner(descriptor: bytes | bytearray | memoryview) -> int:
    """Return the id of the process whose memory a descriptor names; 0 if it is not a descriptor."""
    return int(DESCRIPTOR.unpack(descriptor)[0]) if len(descriptor) == DESCRIPTOR.size else 0


class Ring:
    """Slots for frames of ``size`` bytes each. The first page holds the token and the generation of each slot.

    Raises:
        OSError: the memory cannot be allocated.
    """

    def __init__(self, slots: int, size: int) -> None:
        if not 0 < slots <= MAX_SLOTS:
            raise ValueError(f"a ring of {slots} slots")
        self.slots, self.size = slots, size
        self._step = -(-size // _PAGE) * _PAGE
        self._token = secrets.randbits(64)
        self._written = 0
        self._numbers = [0] * slots
        self._lent: list[weakref.ref[NDArray[np.uint8]] | None] = [None] * slots
        self._file, self._memory = anonymous.create(_PAGE + slots * self._step)
        _TOKEN.pack_into(self._memory, 0, self._token)
        self._generations = np.frombuffer(self._memory, np.uint64, slots, offset=8)

    def free(self, resolved: int) -> int | None:
        """Return the next slot whose frame is one of the first ``resolved`` and to which no array refers, if any."""
        for step in range(self.slots):
            slot = (self._written + step) % self.slots
            lent = self._lent[slot]
            if self.is_resolved(slot, resolved) and (lent is None or lent() is None):
                return slot
        return None

    def is_resolved(self, slot: int, resolved: int) -> bool:
        """Return whether the latest frame in a slot is one of the first ``resolved`` frames."""
        return self._numbers[slot] <= resolved

    def idle(self, resolved: int) -> bool:
        """Return whether all slots are free."""
        lent = any(array is not None and array() is not None for array in self._lent)
        return max(self._numbers) <= resolved and not lent

    def lend(self, slot: int) -> NDArray[np.uint8]:
        """Return a slot's memory to write to, uint8 ``[size]``; the slot is not free while an array refers to it."""
        self._generations[slot] = 0  # before anything is written, so that readers of the old frame notice
        place = np.frombuffer(self._memory, np.uint8, self.size, offset=_PAGE + slot * self._step)
        self._lent[slot] = weakref.ref(place)
        return place

    def holding(self, image: NDArray[np.uint8]) -> int | None:
        """Return the slot whose lent memory contains the whole image (C-contiguous), if any."""
        lent = (slot for slot, array in enumerate(self._lent) if array is not None and array() is image.base)
        whole = image.base is not None and image.nbytes == self.size and image.flags.c_contiguous
        return next(lent, None) if whole else None

    def put(self, image: NDArray[np.uint8], slot: int, number: int) -> bytes:
        """Write frame ``number``, of ``size`` bytes, into a slot unless it is there already; return its descriptor."""
        if self.holding(image) != slot:
            np.copyto(self.lend(slot).reshape(image.shape), image)
        self._written += 1
        self._numbers[slot] = number
        self._generations[slot] = self._written
        return DESCRIPTOR.pack(os.getpid(), self._file, self._token, slot, self.size, self._written)

    def close(self) -> None:
        """Close the memory. It is freed once readers have unmapped it and the lent arrays are deleted."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            del self._generations
            with suppress(BufferError):
                self._memory.close()


class Writer:
    """The shared memory of a capture: the ring for its frames, and older rings of other sizes while they are in use.

    Frames are numbered from 1 in the order in which they are sent. A slot is free once its frame is resolved and no
    array refers to its memory. So the slot of a frame that is superseded before it is sent becomes free by itself. Two
    threads may use a writer: one reads pictures into it, the other sends them.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._rings: deque[Ring] = deque()
        self._resolved = 0
        self._closed = False
        self._lock = threading.Lock()

    def lend(self, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
        """Return memory for a picture, uint8 of this shape, or ``None`` if no slot is free.

        `put` does not copy a picture that was written there.
        """
        with self._lock:
            found = self._room(math.prod(shape))
            return found and found[0].lend(found[1]).reshape(shape)

    def put(self, image: NDArray[np.uint8], number: int, resolved: int) -> bytes | None:
        """Return the descriptor of a frame, which is written to shared memory if needed; ``None`` if there is no room.

        A picture that is sent again before its first frame is resolved is copied: each of the two frames needs a slot.

        Args:
            image: uint8 ``[H, W, 3]``.
            number: the frame's number, counted from 1 in the order of sending.
            resolved: how many frames are resolved; these are the first ones sent.
        """
        with self._lock:
            self._resolved = resolved
            held = ((ring, slot) for ring in self._rings if (slot := ring.holding(image)) is not None)
            found = next((it for it in held if it[0].is_resolved(it[1], resolved)), None) or self._room(image.nbytes)
            return found and found[0].put(image, found[1], number)

    def _room(self, size: int) -> tuple[Ring, int] | None:
        if self._closed:
            return None
        while self._rings and self._rings[0].idle(self._resolved):
            if len(self._rings) == 1 and self._rings[0].size == size:
                break
            self._rings.popleft().close()
        if not self._rings or self._rings[-1].size != size:
            try:
                self._rings.append(Ring(self._slots, size))
            except OSError as error:
                _log.warning("no shared memory for a frame: %s", error)
                return None
        slot = self._rings[-1].free(self._resolved)
        return None if slot is None else (self._rings[-1], slot)

    def close(self) -> None:
        """Close all rings, and lend no more memory."""
        with self._lock:
            self._closed = True
            while self._rings:
                self._rings.pop().close()


class _Mapping:
    """A reader's mapping of a ring.

    Raises:
        OSError: the memory does not exist, or this process may not open it.
        WireError: the descriptor's file is not the memory of that ring.
    """

    def __init__(self, process: int, file: int, token: int) -> None:
        self._path = anonymous.path_of(process, file)
        try:
            self._inode, self.memory = anonymous.opened(self._path)
        except anonymous.NotOursError as error:
            raise WireError(str(error)) from error
        self.length = len(self.memory)
        if self.length < _PAGE:
            raise WireError("shared memory too small for a ring")
        if _TOKEN.unpack_from(self.memory)[0] != token:
            raise WireError("shared memory of another ring")
        self.generations = np.frombuffer(self.memory, np.uint64, MAX_SLOTS, offset=8)

    def there(self) -> bool:
        """Return whether the writer still has the memory open."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False


class MappedFrames:
    """Reads frames in other processes' memory. A ring stays mapped after its first use."""

    def __init__(self) -> None:
        self._mappings: dict[tuple[int, int, int], _Mapping] = {}
        self._lock = threading.Lock()

    def view(self, message: Message) -> NDArray[np.uint8]:
        """Return a view of a frame's bytes, uint8 ``[N]``; they may be overwritten later (`intact`).

        Raises:
            WireError: the picture does not exist (any more), or has another size.
        """
        mapping, slot, size, generation = self._open(message.payload)
        expected = message.height * message.width * 3 // (2 if message.encoding.planar else 1)
        if size != expected:
            raise WireError(f"{message.width}x{message.height} pixels are {expected} bytes, not {size}")
        offset = _PAGE + slot * (-(-size // _PAGE) * _PAGE)
        if slot >= MAX_SLOTS or offset + size > mapping.length:
            raise WireError("a frame beyond its ring")
        if mapping.generations[slot] != generation:
            raise WireError("a frame that is overwritten already")
        return np.frombuffer(mapping.memory, np.uint8, size, offset=offset)

    def intact(self, message: Message) -> bool:
        """Return whether a frame was not overwritten in shared memory. Call it after reading its picture."""
        if not message.encoding.in_memory:
            return True
        mapping, slot, _, generation = self._open(message.payload)
        return bool(mapping.generations[slot] == generation)

    def picture(self, message: Message) -> NDArray[np.uint8] | Yuv:
        """Return the picture in a FRAME: uint8 ``[H, W, 3]``, BGR, or planar. Except for a JPEG it is a view, no copy.

        Raises:
            WireError: the picture cannot be decoded, its size is not that in the header, or it is a JPEG that no
                capture sends, because it may be expensive to decode (`fer_stream.Jpeg.plain`).
        """
        if message.encoding is not Encoding.JPEG:
            flat = self.view(message) if message.encoding.in_memory else np.frombuffer(message.payload, np.uint8)
            if message.encoding.planar:
                return Yuv.from_i420(flat.reshape(message.height * 3 // 2, message.width), message.colour)
            return flat.reshape(message.height, message.width, 3)
        from fer_stream.imaging.jpeg import Jpeg  # noqa: PLC0415  (OpenCV is large, and an aggregator needs none)

        jpeg = Jpeg(bytes(message.payload))
        if jpeg.shape != (message.height, message.width, 3):
            raise WireError("a JPEG whose size is not that in the header")
        if not jpeg.plain:
            raise WireError("a JPEG that no capture sends: several scans, Exif data, not sequential, or too large")
        return jpeg.decode()

    def copied(self, message: Message) -> Message:
        """Return a FRAME with its pixels in the payload, for a peer that cannot open the shared memory.

        A frame that cannot be read is returned unchanged; the worker rejects it.
        """
        if not message.encoding.in_memory:
            return message
        encoding = Encoding.YUV if message.encoding.planar else Encoding.RAW
        with suppress(WireError):
            payload = self.view(message).tobytes()
            if self.intact(message):
                return replace(message, payload=payload, encoding=encoding, checksum=None)
        return message

    def _open(self, payload: Buffer) -> tuple[_Mapping, int, int, int]:
        descriptor = bytes(payload)
        if len(descriptor) != DESCRIPTOR.size:
            raise WireError("not a descriptor of shared memory")
        process, file, token, slot, size, generation = DESCRIPTOR.unpack(descriptor)
        key = process, file, token
        with self._lock:
            return self._mapping(key), slot, size, generation

    def _mapping(self, key: tuple[int, int, int]) -> _Mapping:
        if key not in self._mappings:
            try:
                mapping = _Mapping(*key)
            except PermissionError as error:
                raise UnreachableError(f"a frame's shared memory may not be opened: {error}") from error
            except (OSError, ValueError) as error:
                raise WireError(f"a frame's shared memory cannot be opened: {error}") from error
            # Unmap the rings that their writers closed, so that the kernel can free the memory.
            self._mappings = {other: known for other, known in self._mappings.items() if known.there()}
            self._mappings[key] = mapping
        return self._mappings[key]
