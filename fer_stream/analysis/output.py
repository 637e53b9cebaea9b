"""Where an analysis is written: only what we wrote there is ever replaced or deleted, and never an input.

Files of ours are known by a record, not by their names: `SUMMARY` names those of a whole analysis, with the SHA-256 of
each and one of itself; while a new one replaces it, a record in the folder `PART` names the files of both. A file that
was changed since then no longer counts as ours.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fer_stream.analysis.checkpoint import Checkpoint
from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SUMMARY = "summary.json"
"""Written last: where it is, the rest is."""

PART, RECORD, NEW_RECORD = ".part", "record.json", "record.json.new"
"""The folder in which a new analysis is written first, and the file in it that records which files are ours."""

CHECKPOINT = ".answers"
"""The results so far of an interrupted analysis."""


class OutputFolder:
    """The folder of one analysis.

    Args:
        path: made by `begin` where it is missing.
        inputs: files, or folders of files, that stay as they are whatever else is asked for.
        force: replace files of others, where they have the names of ours.
    """

    def __init__(self, path: Path, inputs: Iterable[Path], *, force: bool) -> None:
        self.path, self.part, self.checkpoint = path, path / PART, path / CHECKPOINT
        self._inputs, self._force = list(inputs), force
        self._record: dict[str, set[str]] = {}
        self._lock: int | None = None
        self._begun = False

    def told(self) -> dict[str, Any]:
        """Return the summary that lies there; an empty one where there is none of ours, or a file of it is missing."""
        told = self._summary()
        return told if all((self.path / name).is_file() for name in told.get("files", {})) else {}

    def begin(self, names: Iterable[str]) -> Path:
        """Return an empty folder to write a new analysis in, whose files will have some of these names.

        Raises:
            ConfigError: something in its way is not ours, or an input, or another analysis is being written there.
            OSError: the folder cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another analysis is being written into {str(self.path)!r}: wait for its end") from error
        except OSError:  # a file system without locks
            pass
        told = self._summary()
        self._own(told)
        self._clear()
        for name in (*names, SUMMARY):
            self._check(self.path / name)
        if os.path.lexists(self.checkpoint) and not Checkpoint.ours(self.checkpoint):
            self._check(self.checkpoint)
            self.checkpoint.unlink()
        self.part.mkdir()
        self._begun = True
        self._write_record()
        return self.part

    def finish(self, told: dict[str, Any]) -> dict[str, Any]:
        """Put the new analysis in the place of the one that was there, and return its whole summary.

        In between there is none, not parts of both.

        Raises:
            ConfigError: as `begin`.
            OSError: the folder cannot be written.
        """
        names = sorted(path.name for path in self.part.iterdir() if path.name != RECORD)
        for name in (*names, SUMMARY):
            self._check(self.path / name)
        told = told | {"files": {name: _digest(self.part / name) for name in names}}
        told["digest"] = _seal(told)
        (self.part / SUMMARY).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        outdated = [
            self.path / name for name in self._record.keys() - {*names, SUMMARY} if self._ours(self.path / name)
        ]
        self._own(told)
        self._begun = False  # from here on, the record stays until all is in its place
        self._write_record()
        for path in (self.path / SUMMARY, *outdated):
            path.unlink(missing_ok=True)
        for name in (*names, SUMMARY):
            (self.part / name).replace(self.path / name)
        self._begun = True
        return told

    def close(self) -> None:
        """Leave nothing half-written; a second call does nothing."""
        if self._begun:
            self._clear()
        self._begun = False
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    def _summary(self) -> dict[str, Any]:
        told = _read(self.path / SUMMARY)
        return told if isinstance(told.get("files"), dict) and told.get("digest") == _seal(told) else {}

    def _own(self, summary: dict[str, Any]) -> None:
        """Record the files of a summary, and itself, as ours."""
        for name, digest in (summary.get("files", {}) | {SUMMARY: summary.get("digest", "")}).items():
            self._record.setdefault(name, set()).add(digest)

    def _write_record(self) -> None:
        files = {name: sorted(digests) for name, digests in self._record.items()}
        new = self.part / NEW_RECORD
        new.write_text(json.dumps({"fer-stream analyze": files}), encoding="utf-8")
        new.replace(self.part / RECORD)

    def _clear(self) -> None:
        """Delete the folder for new files, if it is ours, and know what its record says.

        Raises:
            ConfigError: it is not, or something in it is not.
        """
        if not os.path.lexists(self.part):
            return
        record = _read(self.part / RECORD).get("fer-stream analyze")
        if (
            not self.part.is_symlink()
            and self.part.is_dir()
            and {it.name for it in self.part.iterdir()} <= {NEW_RECORD}
        ):
            record = {}  # it had just been made, or was about to go
        if self.part.is_symlink() or not isinstance(record, dict):
            raise ConfigError(
                f"{str(self.part)!r} was not made by fer-stream analyze: move it, or choose another folder"
            )
        for name, digests in record.items():
            self._record.setdefault(name, set()).update(digests)
        left = [path for path in self.part.iterdir() if path.name != RECORD]
        if kept := [path for path in left if path.is_dir() or self._is_input(path)]:
            raise ConfigError(f"{str(kept[0])!r} would be deleted, and is not ours: move it, or choose another folder")
        for path in (*left, self.part / RECORD):
            path.unlink(missing_ok=True)
        self.part.rmdir()

    def _check(self, path: Path) -> None:
        """Refuse to replace what is not ours.

        Raises:
            ConfigError: see above.
        """
        if not os.path.lexists(path) or self._ours(path):
            return
        if self._is_input(path):
            raise ConfigError(f"{str(path)!r} is an input, and would be overwritten: choose another folder")
        if path.is_dir() and not path.is_symlink():
            raise ConfigError(f"{str(path)!r} is a folder, where a file would be written: choose another folder")
        if not self._force:
            raise ConfigError(
                f"{str(path)!r} was not written by fer-stream analyze, or was changed since: choose another folder, "
                "or overwrite it with --force"
            )

    def _ours(self, path: Path) -> bool:
        """Tell whether a file is one that we wrote, as it was, and no input."""
        if path.is_symlink() or not path.is_file() or path.name not in self._record or self._is_input(path):
            return False
        if path.name == SUMMARY:
            told = self._summary()
            return bool(told) and told["digest"] in self._record[SUMMARY]
        return _digest(path) in self._record[path.name]

    def _is_input(self, path: Path) -> bool:
        """Tell whether a file is an input, by whatever name or way; where the file system hides that, by its bytes."""
        try:
            here = path.stat()
        except OSError:  # a link that leads nowhere
            return False
        there = (
            os.path.samestat(here, stat) or (here.st_size == stat.st_size and _same(path, file))
            for file, stat in self._files
        )
        return any(there)

    @cached_property
    def _files(self) -> list[tuple[Path, os.stat_result]]:
        return list(self._find_files())

    def _find_files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._inputs:
            with suppress(OSError):  # what is not there, or may not be read, opening it tells
                for file in path.iterdir() if path.is_dir() else [path]:
                    with suppress(OSError):
                        yield file, file.stat()


def _read(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file that is no link, or an empty one."""
    try:
        told = json.loads(path.read_text(encoding="utf-8")) if not path.is_symlink() else None
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _seal(told: dict[str, Any]) -> str:
    """Return the SHA-256 of a summary without its own."""
    text = json.dumps({key: value for key, value in told.items() if key != "digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and _digest(one) == _digest(other)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
