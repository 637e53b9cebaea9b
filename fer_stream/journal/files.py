"""A journal's path: the lock that keeps a second writer out, who may read the file, and what is set aside."""

from __future__ import annotations

import fcntl
import itertools
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from fer_stream.errors import JournalError
from fer_stream.journal.claim import Claim
from fer_stream.system import machine

if TYPE_CHECKING:
    from pathlib import Path

_LOG = ("-wal", "-shm", "-journal")
"""What SQLite puts beside its file, with the file's mode."""

_LOCAL = re.compile(
    r"bcachefs|btrfs|exfat|ext[234]|f2fs|jfs|nilfs2|ntfs3?|overlay|ramfs|reiserfs|tmpfs|ubifs|vfat|xfs|zfs"
)
"""File systems of one machine alone. Of others, such as nfs, cifs, 9p, ceph or fuse, other machines may have the files,
too: locks may not reach them, and the memory that SQLite's write-ahead log shares does not."""


def shared(path: Path) -> str:
    """Return a journal's kind of file system and mount point where other machines may share it, else an empty text."""
    kind, mount = machine.file_system(path.resolve())
    return f"{kind}, mounted at {mount}" if kind and not _LOCAL.fullmatch(kind) else ""


def lock_of(path: Path) -> Path:
    """Return the lock file of a journal."""
    path = path.resolve()  # whoever names the file by a link meets the same lock
    return path.with_name(path.name + ".lock")


class JournalFiles:
    """A journal's path, held by one writer until `release`.

    Raises:
        JournalError: another process holds it, or nothing can be written there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        # Beside the file, not on it: closing a descriptor of the file itself would drop SQLite's own locks.
        self._lock_path = lock_of(self.path)
        self.shared = shared(self.path)
        """The file system's kind and mount point, for people, where other machines may share the file; else empty."""
        self.known = self._lock_path.exists() or self._beside("-wal").exists()
        """Whether there was a journal here before, be its file there or not."""
        self._claim: Claim | None = None
        try:
            self.make_folder()
            self._lock = self._take_lock()
            if self.shared:
                try:
                    self._claim = Claim(self._lock_path, self.path)
                except BaseException:
                    os.close(self._lock)
                    raise
        except OSError as error:
            raise JournalError(
                f"the journal {self.path} cannot be written: {error.strerror}; give another path"
            ) from error

    def _beside(self, end: str) -> Path:
        return self.path.with_name(self.path.name + end)

    def _take_lock(self) -> int:
        while True:
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(lock)
                raise JournalError(
                    f"the journal {self.path} is in use by another aggregator: stop that one, or give another path"
                ) from error
            with suppress(FileNotFoundError):
                if os.fstat(lock).st_ino == self._lock_path.stat().st_ino:
                    return lock
            os.close(lock)  # who was refused took it away (`release`) after it was opened, so it locks nothing

    def release(self, withdraw: bool = False) -> None:
        """Let others write here; a second call does nothing.

        Args:
            withdraw: leave no lock file behind where there was none before.
        """
        if self._lock < 0:
            return
        if self._claim:
            self._claim.release()
        if withdraw and not self.known:
            self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = -1

    @property
    def rival(self) -> str:
        """The other process that took the claim, for people; empty as long as it is held here."""
        return self._claim.rival if self._claim else ""

    def make_folder(self) -> None:
        """Make the folder where there is none, for its owner alone."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    def inode(self) -> int:
        """Return which file is there now."""
        return self.path.stat().st_ino

    def holds(self, inode: int) -> bool:
        """Whether this file is the one that is there."""
        try:  # SQLite itself does not notice
            return self.inode() == inode
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # a failure of the disk, which the next write reports

    def clear(self) -> None:
        """Remove what is left of the log of a file that is not there any more: it would spoil a new one."""
        for end in _LOG:
            self._beside(end).unlink(missing_ok=True)

    def set_aside(self) -> str:
        """Give the file, and what may be left of its log, a name that no other has; return that name."""
        names = (f"{self.path.name}.corrupt-{number}" for number in itertools.count(1))
        aside = next(path for path in map(self.path.with_name, names) if not path.exists())
        for end in (*_LOG, ""):
            with suppress(FileNotFoundError):
                self._beside(end).rename(aside.with_name(aside.name + end))
        self.known = True  # also where its lock was taken away: the next one must not begin as though there was none
        return aside.name
