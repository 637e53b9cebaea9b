"""The file sink of ``fer-stream deliver``: appends events to a file as JSON lines, and begins new files.

A batch is in the file completely or not at all, except in the moment of a crash. What that leaves is put right when the
file is opened again: a torn last line is removed, and events that the file has already are not written again.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fer_stream.errors import ConfigError, RetryError, WireError
from fer_stream.events import cloudevents
from fer_stream.settings.options import read
from fer_stream.settings.sections import Section
from fer_stream.sinks.lines import Lines
from fer_stream.system import files, folders

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from fer_stream.plugins import Delivery
    from fer_stream.settings.tree import DeliverSettings

MOST = 1000
"""Most events in a batch."""

BLOCK = 65_536
"""Bytes that are read at a time from a file's end."""

MIB = 1_048_576

LONGEST = MIB
"""Bytes of a last line from which on it is not an event."""

TAIL = 16 * MIB
"""Bytes at a file's end in which ids are looked for."""

_HEAD = b'{"specversion":"1.0","id":"'
"""How every line begins."""


class FileOptions(Section):
    """The options of the file sink."""

    max_mib: Annotated[float, Field(gt=0)] | None = Field(
        None, description="MiB from which on a new file is begun", examples=[100.0]
    )
    daily: bool = Field(False, description="begin a new file every day, at midnight of the local time")
    keep: Annotated[int, Field(ge=1)] | None = Field(
        None, description="how many older files are kept; by default all", examples=[30]
    )


def open_sink(argument: str, settings: DeliverSettings) -> EventFile:
    """Return a sink for the file with the path ``argument``. The first batch creates it if it is missing.

    Raises:
        ConfigError: ``argument`` is empty, or an option is not allowed.
        RetryError: the file cannot be written.
    """
    if not argument:
        raise ConfigError("the file sink needs the name of a file, as in file:events.jsonl")
    sink = EventFile(folders.expand(Path(argument)), read(FileOptions, settings.options))
    sink.check()
    return sink


class EventFile:
    """A file that only this process appends to, or a pipe or device.

    If the file was moved or deleted, for example by logrotate, the next batch creates a new one at the path; no signal
    is needed. With the options ``max_mib`` and ``daily`` it is renamed here, to its name with the day of its last event
    and a number: ``events-2026-01-31-001.jsonl``. It is opened with the first batch; of a named pipe, that waits for a
    reader.
    """

    most = MOST

    def __init__(self, path: Path, options: FileOptions) -> None:
        self._path, self._options = path, options
        self._file: BinaryIO | None = None
        self._regular = True
        self._known: frozenset[str] = frozenset()
        """The ids of the last events in the file when it was opened: at most one batch is not recorded as delivered."""

    def write(self, batch: Sequence[Delivery]) -> None:
        """Append events. When this returns, they are on the disk.

        Raises:
            RetryError: the file cannot be written now, for example on a full disk, or a pipe has lost its reader.
        """
        try:
            file = self._ready()
            lines = [one.text.encode() + b"\n" for one in batch if one.id not in self._known]
            if self._regular:
                self._append(file, b"".join(lines))
            else:
                writer = Lines(file)
                for one in batch:
                    writer.write(one.text)
        except OSError as error:
            if not self._regular:
                self.close()
            raise RetryError(self._unwritable(error)) from error

    def check(self) -> None:
        """Find out whether the file can be written, without making or changing it.

        Raises:
            RetryError: it cannot be written now.
        """
        try:
            if self._file is not None:
                return
            if self._path.is_file():
                with self._path.open("a+b", buffering=0) as file:
                    self._lock(file)
                    self._known |= frozenset(_last_ids(file, MOST))  # it may be moved before the first batch
                return
            if self._path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            place = self._path if self._path.exists() else self._path.absolute().parent
            place.stat()
            if not os.access(place, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise RetryError(self._unwritable(error)) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, file: BinaryIO, data: bytes) -> None:
        before = os.fstat(file.fileno()).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            files.sync(file.fileno())
        except BaseException:
            try:
                os.ftruncate(file.fileno(), before)
            except OSError:  # opening it again puts it right
                self.close()
            raise

    def _ready(self) -> BinaryIO:
        """Return the file to append to, after beginning a new one if that is due."""
        file = self._file or self._open()
        if not self._regular:
            return file
        found = os.fstat(file.fileno())
        if not self._at_path(found):
            return self._begin_file()
        too_large = self._options.max_mib is not None and found.st_size >= self._options.max_mib * MIB
        yesterday = self._options.daily and _day(found.st_mtime) != _day(None)
        if found.st_size and (too_large or yesterday):
            self._set_aside(_day(found.st_mtime))
            return self._begin_file()
        return file

    def _begin_file(self) -> BinaryIO:
        """Begin a new file; what was written before a restart is in the older one."""
        self.close()
        return self._open()

    def _open(self) -> BinaryIO:
        new = not self._path.exists()
        self._regular = new or self._path.is_file()
        file = self._path.open("a+b" if self._regular else "ab", buffering=0)
        try:
            if self._regular:
                self._lock(file)
                _mend(file)
                self._known |= frozenset(_last_ids(file, MOST))
                if new:
                    files.sync_folder(self._path.absolute().parent)
        except BaseException:
            file.close()
            raise
        self._file = file
        return file

    def _lock(self, file: BinaryIO) -> None:
        try:
            files.lock(file.fileno())
        except BlockingIOError as error:
            raise OSError(error.errno, "another process writes it; give each its own file") from error

    def _at_path(self, mine: os.stat_result) -> bool:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)

    def _set_aside(self, day: str) -> None:
        """Rename the file, and delete the oldest ones if there are too many."""
        numbers = [int(match[2]) for match, _ in self._older() if match[1] == day]
        aside = f"{self._path.stem}-{day}-{max(numbers, default=0) + 1:03d}{self._path.suffix}"
        try:
            self._path.rename(self._path.with_name(aside))
        except PermissionError:  # Windows does not rename an open file
            self.close()
            self._path.rename(self._path.with_name(aside))
        if self._options.keep is not None:
            for _, path in sorted(self._older(), key=_order)[: -self._options.keep]:
                path.unlink(missing_ok=True)

    def _older(self) -> list[tuple[re.Match[str], Path]]:
        pattern = re.compile(
            rf"{re.escape(self._path.stem)}-(\d{{4}}-\d\d-\d\d)-(\d{{3,}}){re.escape(self._path.suffix)}"
        )
        found = [(pattern.fullmatch(path.name), path) for path in self._path.parent.iterdir()]
        return [(match, path) for match, path in found if match]

    def _unwritable(self, error: OSError) -> str:
        advice = "; make its folder, or give another path" if error.errno == errno.ENOENT else ""
        return f"events cannot be written to {str(self._path)!r}: {error.strerror}{advice}"


def _order(found: tuple[re.Match[str], Path]) -> tuple[str, int]:
    return found[0][1], int(found[0][2])


def _day(seconds: float | None) -> str:
    """Return the local day of a time in Unix seconds, by default of now."""
    moment = datetime.now().astimezone() if seconds is None else datetime.fromtimestamp(seconds).astimezone()
    return f"{moment:%Y-%m-%d}"


def _mend(file: BinaryIO) -> None:
    """Remove the torn last line that a crash left. A last line that is not ours is ended instead."""
    size = os.fstat(file.fileno()).st_size
    tail = b""
    start = size
    while start and b"\n" not in tail and len(tail) < LONGEST:
        start = max(0, start - BLOCK)
        tail = _read(file, start, size)
    torn = tail[tail.rfind(b"\n") + 1 :]
    if not torn:
        return
    if torn.startswith(_HEAD) or _HEAD.startswith(torn):
        os.ftruncate(file.fileno(), size - len(torn))
    else:
        file.write(b"\n")
    files.sync(file.fileno())


def _last_ids(file: BinaryIO, most: int) -> list[str]:
    """Return the ids in the last lines of a file, without a torn one."""
    start = os.fstat(file.fileno()).st_size
    tail = b""
    while start and tail.count(b"\n") <= most and len(tail) < TAIL:
        begin = max(0, start - BLOCK)
        tail = _read(file, begin, start) + tail
        start = begin
    found = []
    for line in tail[: tail.rfind(b"\n") + 1].splitlines()[-most:]:
        with suppress(WireError):  # a line that is not an event
            found.append(cloudevents.identity(line.decode(errors="replace")))
    return found


def _read(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)  # writes go to the end in any case
    return file.read(end - begin)
