"""One writer for each journal, also where locks do not work between machines: on NFS, SMB or a FUSE file system.

The writer puts its name into the lock file, with a number that it raises twice a second. A second writer watches the
file first: while the number rises, the journal is in use. A writer that finds another name there has lost its claim: it
was frozen or cut off for so long that another process took the claim.
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
"""Seconds between the writer's signs of life."""

PATIENCE = 4.0
"""Seconds without one after which a writer is taken for dead: more than a client of a share caches a file."""

SETTLE = 1.5
"""Seconds after which a claim is looked at again: of two who claim at once, the later one has it."""

_SIZE = 512
"""Bytes: always as many, so that nobody reads half of one claim and half of another."""


class Claim:
    """A claim to be the one writer, held until `release`.

    Args:
        path: the lock file, which is there.
        journal: its name, for people.

    Raises:
        JournalError: somebody else writes the journal.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path, journal: Path) -> None:
        self.rival = ""
        """Who took the claim away, for people; empty as long as it is held."""
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
            except OSError:  # the share is away, and the journal with it
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
        """Let others write."""
        self._released.set()
        self._thread.join()
        if not self.rival:
            with suppress(OSError):  # the share is away: the next writer waits until it takes us for dead
                _store(self._path, "")


def beating(path: Path) -> str:
    """Return who gives signs of life in a lock file, for people; empty where nobody does."""
    return _name(found) if (found := _beating(path)) else ""


def elsewhere(path: Path) -> str:
    """As `beating`, of those with whom we share no locks: of another machine, or who see the file by another mount."""
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
        found = json.loads(path.read_bytes()[:_SIZE] or b"null")  # opened anew, or a client may show what it remembers
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
