"""Ensures one writer per journal on file systems where locks may not work between machines: NFS, SMB, FUSE.

The writer writes its name and a counter into the lock file, and increments the counter twice a second. A second writer
first watches the file: while the counter rises, the journal is in use. A writer that finds another name in the file has
lost its claim: it was suspended or disconnected for so long that another process took over.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fer_stream.errors import JournalError

if TYPE_CHECKING:
    from pathlib import Path

BEAT = 0.5
"""Seconds between the writer's heartbeats."""

PATIENCE = 4.0
"""Seconds without a heartbeat after which a writer counts as dead: more than network file systems cache a file."""

SETTLE = 1.5
"""Seconds after which a new claim is read again: of two simultaneous claims, the later one wins."""

_SIZE = 512
"""Bytes of the lock file. A fixed size, so that no reader gets a mix of two claims."""


class Claim:
    """A claim to be the only writer, held until `release`.

    Args:
        path: the lock file, which exists.
        journal: the journal's path, for error messages.

    Raises:
        JournalError: another process writes the journal.
        OSError: the lock file cannot be read or written.
    """

    def __init__(self, path: Path, journal: Path) -> None:
        self.rival = ""
        """The process that took the claim over, for display; empty while the claim is held."""
        self._path = path
        self._claim = _here(path) | {"pid": os.getpid(), "token": secrets.token_hex(8), "beat": 0}
        if other := beating(path):
            raise _refused(journal, other)
        self._write()
        time.sleep(SETTLE)
        if not self._ours():
            raise _refused(journal, self.rival)
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal claim", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._released.wait(BEAT):
            try:
                if not self._ours():
                    return
                self._write()
            except OSError:  # the share is unreachable, and so is the journal
                continue

    def _ours(self) -> bool:
        found = _read(self._path)
        if found.get("token") not in (None, self._claim["token"]):
            self.rival = _name(found)
        return not self.rival

    def _write(self) -> None:
        self._claim["beat"] += 1
        _store(self._path, json.dumps(self._claim))

    def release(self) -> None:
        """Give the claim up, so that other processes can write."""
        self._released.set()
        self._thread.join()
        if not self.rival:
            with suppress(OSError):  # the share is unreachable: the next writer waits for PATIENCE
                _store(self._path, "")


def beating(path: Path) -> str:
    """Return the process whose heartbeats a lock file shows, for display; empty if there are none."""
    return _name(found) if (found := _beating(path)) else ""


def elsewhere(path: Path) -> str:
    """Return `beating` if that process shares no locks with this one: on another machine, or through another mount."""
    found = _beating(path)
    return _name(found) if found and not _here(path).items() <= found.items() else ""


def _beating(path: Path) -> dict[str, Any]:
    try:
        first = _read(path)
    except FileNotFoundError:
        return {}
    deadline = time.monotonic() + PATIENCE
    while first and time.monotonic() < deadline:
        time.sleep(BEAT / 2)
        found = _read(path)
        if found and found != first:
            return found
    return {}


def _here(path: Path) -> dict[str, Any]:
    return {"host": socket.gethostname(), "device": path.stat().st_dev}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(
            path.read_bytes()[:_SIZE] or b"null"
        )  # reopened, as a network file system may return cached data otherwise
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _store(path: Path, text: str) -> None:
    with path.open("r+b", buffering=0) as file:
        file.write(text.encode().ljust(_SIZE))
        os.fsync(file.fileno())


def _name(claim: dict[str, Any]) -> str:
    return f"process {claim.get('pid')} on {claim.get('host')}"


def _refused(journal: Path, who: str) -> JournalError:
    return JournalError(
        f"the journal {journal} is in use by another aggregator ({who}): stop that one, or give another path"
    )
