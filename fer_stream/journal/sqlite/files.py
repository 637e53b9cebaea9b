"""A journal's path: the lock that keeps a second writer out, the files' permissions, and damaged files set aside."""

from __future__ import annotations

import itertools
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from fer_stream.errors import JournalError
from fer_stream.journal.sqlite.claim import Claim
from fer_stream.system import files, machine

if TYPE_CHECKING:
    from pathlib import Path

_LOG = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite creates beside its file, with the file's mode."""

_LOCAL = re.compile(
    r"bcachefs|btrfs|exfat|ext[234]|f2fs|jfs|nilfs2|ntfs3?|overlay|ramfs|reiserfs|tmpfs|ubifs|vfat|xfs|zfs"
)
"""File systems of a single machine. On others, such as nfs, cifs, 9p, ceph or fuse, other machines may use the files,
too: file locks may not work between them, and the shared memory of SQLite's write-ahead log never does."""


def shared(path: Path) -> str:
    """Return a journal's file system and mount point if other machines may share it, otherwise an empty text."""
    kind, mount = machine.file_system(path.resolve())
    return f"{kind}, mounted at {mount}" if kind and not _LOCAL.fullmatch(kind) else ""


def lock_of(path: Path) -> Path:
    """Return the lock file of a journal."""
    path = path.resolve()  # a symbolic link to the file uses the same lock
    return path.with_name(path.name + ".lock")


class JournalFiles:
    """A journal's path, locked for one writer until `release`.

    Raises:
        JournalError: another process holds the lock, or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        # A file of its own: closing a descriptor of the journal's file would drop SQLite's locks on it.
        self._lock_path = lock_of(self.path)
        self.shared = shared(self.path)
        """The file system and mount point, for display, if other machines may share the file; otherwise empty."""
        self.known = self._lock_path.exists() or self._beside("-wal").exists()
        """Whether there was a journal at this path before, even if its file is gone."""
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
                files.lock(lock)
            except BlockingIOError as error:
                os.close(lock)
                raise JournalError(
                    f"the journal {self.path} is in use by another aggregator: stop that one, or give another path"
                ) from error
            with suppress(FileNotFoundError):
                if os.fstat(lock).st_ino == self._lock_path.stat().st_ino:
                    return lock
            os.close(lock)  # a refused process removed it (`release`) after it was opened, so the lock is void

    def release(self, withdraw: bool = False) -> None:
        """Let other processes write; a second call does nothing.

        Args:
            withdraw: remove the lock file if there was no journal before.
        """
        if self._lock < 0:
            return
        if self._claim:
            self._claim.release()
        if withdraw and not self.known:
            files.remove_locked(self._lock_path, self._lock)
        else:
            os.close(self._lock)
        self._lock = -1

    @property
    def rival(self) -> str:
        """The process that took the claim over, for display; empty while this one holds it."""
        return self._claim.rival if self._claim else ""

    def make_folder(self) -> None:
        """Create the folder if there is none, with mode 0700."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    def inode(self) -> int:
        """Return the inode number of the file at the path."""
        return self.path.stat().st_ino

    def holds(self, inode: int) -> bool:
        """Whether the file at the path has this inode number."""
        try:  # SQLite does not notice a replaced file
            return self.inode() == inode
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # the disk fails, which the next write reports

    def clear(self) -> None:
        """Remove the logs of a file that is gone: SQLite would apply them to the new file."""
        for end in _LOG:
            self._beside(end).unlink(missing_ok=True)

    def set_aside(self) -> str:
        """Rename the file and its logs to an unused name; return that name."""
        names = (f"{self.path.name}.corrupt-{number}" for number in itertools.count(1))
        aside = next(path for path in map(self.path.with_name, names) if not path.exists())
        for end in (*_LOG, ""):
            with suppress(FileNotFoundError):
                self._beside(end).rename(aside.with_name(aside.name + end))
        self.known = True  # even without a lock file: the next journal must not reuse numbers
        return aside.name
