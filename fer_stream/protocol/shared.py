"""Pixels that the processes of one machine share: a frame is written once, and only its descriptor is sent.

The capture owns a `Ring` of slots in anonymous memory (``memfd_create``): it has no name, so nothing is ever left in
/dev/shm, whoever dies and however; it goes with the last process that has it open. Video is decoded into a slot, other
pictures are copied there when they are sent. Readers find it as
``/proc/PID/fd/FD``, which the kernel grants to processes of the same user and process namespace alone (`identity`).

A slot is written again only once its frame is resolved. Should that ever go wrong (a worker that was given up goes on
reading), its generation tells: it is no longer the descriptor's then, and what was read does not count.
"""

from __future__ import annotations

import fcntl
import logging
import math
import mmap
import os
import secrets
import struct
import sys
import threading
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_stream.errors import WireError
from fer_stream.protocol.messages import Encoding, Message

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_SLOTS = 128
DESCRIPTOR = struct.Struct("!IIQIIQ")
"""Process, its file descriptor, the ring's token, slot, bytes of a slot, generation."""

_log = logging.getLogger(__name__)

_PAGE = 4096
_TOKEN = struct.Struct("!Q")


class UnreachableError(WireError):
    """Memory of this machine that this process may not open: pixels have to come with the message."""


@cache
def identity() -> str:
    """Return what two processes must have in common to share memory; empty where there is none to share."""
    if not hasattr(os, "memfd_create") or sys.platform != "linux":
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}:{os.getuid()}"
    except OSError:
        return ""


def owner(descriptor: bytes | bytearray | memoryview) -> int:
    """Return the process whose memory a descriptor names, 0 where it is none."""
    return int(DESCRIPTOR.unpack(descriptor)[0]) if len(descriptor) == DESCRIPTOR.size else 0


class Ring:
    """Slots for frames of one size. The first page holds the token and the generation of each slot.

    Raises:
        OSError: there is no memory for it.
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
        self._file = os.memfd_create("fer_stream", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            length = _PAGE + slots * self._step
            os.ftruncate(self._file, length)
            # A reader must not be killed (SIGBUS) by memory that shrinks under it: it takes sealed memory alone.
            fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._memory = mmap.mmap(self._file, length)
        except BaseException:
            os.close(self._file)
            raise
        _TOKEN.pack_into(self._memory, 0, self._token)
        self._generations = np.frombuffer(self._memory, np.uint64, slots, offset=8)

    def free(self, resolved: int) -> int | None:
        """Return the next slot whose frame is among the first so many and to which no array refers, if there is one."""
        for step in range(self.slots):
            slot = (self._written + step) % self.slots
            lent = self._lent[slot]
            if self.through(slot, resolved) and (lent is None or lent() is None):
                return slot
        return None

    def through(self, slot: int, resolved: int) -> bool:
        """Whether the frame that was put into a slot last is among the first so many."""
        return self._numbers[slot] <= resolved

    def idle(self, resolved: int) -> bool:
        """Whether all slots are free."""
        lent = any(array is not None and array() is not None for array in self._lent)
        return max(self._numbers) <= resolved and not lent

    def lend(self, slot: int) -> NDArray[np.uint8]:
        """Return a slot's memory to write to, uint8 ``[size]``; it is not free while an array refers to it."""
        self._generations[slot] = 0  # from here on, whoever still reads it knows
        place = np.frombuffer(self._memory, np.uint8, self.size, offset=_PAGE + slot * self._step)
        self._lent[slot] = weakref.ref(place)
        return place

    def holding(self, image: NDArray[np.uint8]) -> int | None:
        """Return the slot in whose lent memory the whole image lies, row by row, if there is one."""
        lent = (slot for slot, array in enumerate(self._lent) if array is not None and array() is image.base)
        whole = image.base is not None and image.nbytes == self.size and image.flags.c_contiguous
        return next(lent, None) if whole else None

    def put(self, image: NDArray[np.uint8], slot: int, number: int) -> bytes:
        """Write an image of the ring's size, the frame of this number, unless it lies there; return its descriptor."""
        if self.holding(image) != slot:
            np.copyto(self.lend(slot).reshape(image.shape), image)
        self._written += 1
        self._numbers[slot] = number
        self._generations[slot] = self._written
        return DESCRIPTOR.pack(os.getpid(), self._file, self._token, slot, self.size, self._written)

    def close(self) -> None:
        """Let the memory go; readers that have it open keep it until they close it too, and so do arrays lent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            del self._generations
            with suppress(BufferError):
                self._memory.close()


class Writer:
    """The shared memory of a capture: a ring for its frames, and older ones of other sizes as long as needed.

    Frames are numbered as they are sent, from 1. A slot is free again once the frame in it is resolved, and nothing
    refers to its memory any more: so one that is superseded before it is sent gives its place back by itself. Two
    threads may use it, one to read pictures into it and one to send them.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._rings: deque[Ring] = deque()
        self._resolved = 0
        self._closed = False
        self._lock = threading.Lock()

    def lend(self, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
        """Return memory to write a picture into, uint8 of this shape, or ``None`` where there is no room.

        A picture that lies there is not copied by `put`.
        """
        with self._lock:
            found = self._room(math.prod(shape))
            return found and found[0].lend(found[1]).reshape(shape)

    def put(self, image: NDArray[np.uint8], number: int, resolved: int) -> bytes | None:
        """Write the frame of this number, unless it lies there, and return its descriptor; ``None``: there is no room.

        A picture that is sent again while its first frame is not resolved is copied: the two are resolved one by one.

        Args:
            image: uint8 ``[H, W, 3]``.
            number: which of the frames sent it is.
            resolved: how many of the frames sent are resolved; they are the first ones.
        """
        with self._lock:
            self._resolved = resolved
            held = ((ring, slot) for ring in self._rings if (slot := ring.holding(image)) is not None)
            found = next((it for it in held if it[0].through(it[1], resolved)), None) or self._room(image.nbytes)
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
        """Let it all go."""
        with self._lock:
            self._closed = True
            while self._rings:
                self._rings.pop().close()


class _Mapping:
    """A reader's side of a ring.

    Raises:
        OSError: it is not there, or not ours to open.
        WireError: it is something else.
    """

    def __init__(self, process: int, file: int, token: int) -> None:
        self._path = Path(f"/proc/{process}/fd/{file}")
        if not str(self._path.readlink()).startswith("/memfd:fer_stream"):  # opening alone may have effects elsewhere
            raise WireError("not shared memory of ours")
        opened = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            if not fcntl.fcntl(opened, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                raise WireError("shared memory that may shrink")
            self._inode = os.fstat(opened).st_ino
            self.length = os.fstat(opened).st_size
            if self.length < _PAGE:
                raise WireError("shared memory of no ring")
            self.memory = mmap.mmap(opened, self.length, prot=mmap.PROT_READ)
        finally:
            os.close(opened)
        if _TOKEN.unpack_from(self.memory)[0] != token:
            raise WireError("shared memory of another ring")
        self.generations = np.frombuffer(self.memory, np.uint64, MAX_SLOTS, offset=8)

    def there(self) -> bool:
        """Whether its writer still has it open."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False


class MappedFrames:
    """Frames in other processes' memory. The rings that were opened once stay mapped."""

    def __init__(self) -> None:
        self._mappings: dict[tuple[int, int, int], _Mapping] = {}
        self._lock = threading.Lock()

    def view(self, descriptor: bytes | memoryview, height: int, width: int) -> NDArray[np.uint8]:
        """Return the picture, uint8 ``[height, width, 3]``, where it lies; it may be written over later (`intact`).

        Raises:
            WireError: there is no such picture (any more), or it has another size.
        """
        mapping, slot, size, generation = self._open(descriptor)
        if size != height * width * 3:
            raise WireError(f"{width}x{height} pixels are {height * width * 3} bytes, not {size}")
        offset = _PAGE + slot * (-(-size // _PAGE) * _PAGE)
        if slot >= MAX_SLOTS or offset + size > mapping.length:
            raise WireError("a frame beyond its ring")
        if mapping.generations[slot] != generation:
            raise WireError("a frame that is overwritten already")
        return np.frombuffer(mapping.memory, np.uint8, size, offset=offset).reshape(height, width, 3)

    def intact(self, descriptor: bytes | memoryview) -> bool:
        """Return whether the picture was not written over while it was looked at."""
        mapping, slot, _, generation = self._open(descriptor)
        return bool(mapping.generations[slot] == generation)

    def picture(self, message: Message) -> NDArray[np.uint8]:
        """Return the picture in a FRAME: uint8 ``[H, W, 3]``, BGR; of raw and shared pixels a view, not a copy.

        Raises:
            WireError: it does not decode, is of another size than announced, or a JPEG that costs more than a look at
                each pixel (`fer_stream.Jpeg.plain`), which no capture passes on.
        """
        if message.encoding is Encoding.RAW:
            flat = np.frombuffer(message.payload, np.uint8)
            return flat.reshape(message.height, message.width, 3)
        if message.encoding is Encoding.SHARED:
            return self.view(bytes(message.payload), message.height, message.width)
        from fer_stream.imaging.jpeg import Jpeg  # noqa: PLC0415  (OpenCV is large, and an aggregator does without)

        jpeg = Jpeg(bytes(message.payload))
        if jpeg.shape != (message.height, message.width, 3):
            raise WireError("a JPEG of another size than announced")
        if not jpeg.plain:
            raise WireError("a JPEG of several scans, turned, or of a kind that cameras do not send")
        return jpeg.decode()

    def copied(self, message: Message) -> Message:
        """Return a FRAME with its pixels in the payload, for a peer that cannot open the shared memory.

        A frame that cannot be read is returned unchanged; the worker rejects it.
        """
        if message.encoding is not Encoding.SHARED:
            return message
        descriptor = bytes(message.payload)
        with suppress(WireError):
            payload = self.view(descriptor, message.height, message.width).tobytes()
            if self.intact(descriptor):
                return replace(message, payload=payload, encoding=Encoding.RAW, checksum=None)
        return message

    def _open(self, descriptor: bytes | memoryview) -> tuple[_Mapping, int, int, int]:
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
            # The memory of a ring that is gone goes with the last mapping.
            self._mappings = {other: known for other, known in self._mappings.items() if known.there()}
            self._mappings[key] = mapping
        return self._mappings[key]
