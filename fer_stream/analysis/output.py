"""The output folder of an analysis. Only files that fer_stream wrote are replaced or deleted, and never an input.

These own files are known by a record, not by their names. `SUMMARY` lists the files of a complete analysis with the
SHA-256 of each, and its own. While a new analysis replaces an old one, a record in the folder `PART` lists the files of
both. A file that was changed since is treated as foreign.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fer_stream.analysis.checkpoint import Checkpoint
from fer_stream.errors import ConfigError
from fer_stream.system import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

SUMMARY = "summary.json"
"""Moved into the folder last: if it exists, the analysis is complete."""

EXPORTS = "exports"
"""The key of a summary for exports: their files' names by kind. A user may move them elsewhere."""

PART, RECORD, NEW_RECORD = ".part", "record.json", "record.json.new"
"""The temporary folder for a new analysis, the file in it that lists our files, and that file while it is written."""

CHECKPOINT = ".answers"
"""The results so far of an interrupted analysis."""


class OutputFolder:
    """The folder of one analysis.

    Args:
        path: created by `begin` if it is missing.
        inputs: files, or folders of files, that are never changed, not even with ``force``.
        force: replace foreign files that have the name of an output file.
    """

    def __init__(self, path: Path, inputs: Iterable[Path], *, force: bool) -> None:
        self.path, self.part, self.checkpoint = path, path / PART, path / CHECKPOINT
        self._inputs, self._force = list(inputs), force
        self._record: dict[str, set[str]] = {}
        self._lock: int | None = None
        self._made = False
        self._begun = False

    def summary(self) -> dict[str, Any]:
        """Return the summary in the folder; an empty one if we wrote none, or if a file that it lists is missing.

        A kind of exports is left out if one of its files is missing.
        """
        summary = self._read_summary()
        missing = {name for name in summary.get("files", ()) if not (self.path / name).is_file()}
        if not missing:
            return summary
        exports = summary.get(EXPORTS, {})
        if not missing <= {name for names in exports.values() for name in names}:
            return {}
        whole = {kind: names for kind, names in exports.items() if missing.isdisjoint(names)}
        files = {name: digest for name, digest in summary["files"].items() if name not in missing}
        return summary | {EXPORTS: whole, "files": files}

    def begin(self, names: Iterable[str]) -> Path:
        """Return an empty folder for the files of a new analysis, each of which must have one of these names.

        Raises:
            ConfigError: the folder is a file, a file with one of these names is foreign or an input, or another
                analysis is writing here.
            OSError: the folder cannot be written.
        """
        self._made = not self.path.exists()
        if not self._made and not self.path.is_dir():
            raise ConfigError(f"{str(self.path)!r} is a file: give a folder to write into")
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = files.open_folder(self.path)
        try:
            files.lock(self._lock)
        except BlockingIOError as error:
            raise ConfigError(f"another analysis is being written into {str(self.path)!r}: wait for its end") from error
        except OSError:  # a file system without locks
            pass
        self._own(self._read_summary())
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

    @contextmanager
    def replacing(self, names: Iterable[str]) -> Iterator[Path]:
        """Call `begin`, and at the end `close`; within, call `finish`.

        Raises:
            ConfigError: as `begin`, or a file cannot be written.
        """
        try:
            yield self.begin(names)
        except OSError as trouble:
            where = trouble.filename or self.path
            raise ConfigError(f"{str(where)!r} cannot be written: {(trouble.strerror or 'error').lower()}") from trouble
        finally:
            self.close()

    def finish(self, summary: dict[str, Any], keep: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Replace the earlier analysis by the new one, and return the summary with ``files`` and ``digest`` added.

        While the files are moved the folder has no summary, so a mixture of both never counts as an analysis.

        Args:
            summary: the summary.
            keep: files of the earlier analysis that also belong to the new one, if it has none of the same name, with
                their SHA-256.

        Raises:
            ConfigError: as `begin`.
            OSError: the folder cannot be written.
        """
        names = sorted(path.name for path in self.part.iterdir() if path.name != RECORD)
        for name in (*names, SUMMARY):
            self._check(self.path / name)
        written = {name: _digest(self.part / name) for name in names}
        summary = summary | {"files": dict(sorted({**(keep or {}), **written}.items()))}
        summary["digest"] = _summary_digest(summary)
        (self.part / SUMMARY).write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        others = self._record.keys() - {*summary["files"], SUMMARY}
        outdated = [self.path / name for name in others if self._ours(self.path / name)]
        self._own(summary)
        self._begun = False  # keep the record until all files are moved, even if a step below fails
        self._write_record()
        for path in (self.path / SUMMARY, *outdated):
            path.unlink(missing_ok=True)
        for name in (*names, SUMMARY):
            (self.part / name).replace(self.path / name)
        self._begun = True
        return summary

    def close(self) -> None:
        """Delete the files of an unfinished analysis and release the lock; a second call does nothing.

        The folder goes, too, if `begin` made it and nothing is in it.
        """
        if self._begun:
            self._clear()
        self._begun = False
        if self._lock is not None:
            files.close_folder(self.path, self._lock)
        self._lock = None
        if self._made:
            with suppress(OSError):  # it is not empty
                self.path.rmdir()
        self._made = False

    def _read_summary(self) -> dict[str, Any]:
        summary = _read(self.path / SUMMARY)
        ours = isinstance(summary.get("files"), dict) and summary.get("digest") == _summary_digest(summary)
        return summary if ours else {}

    def _own(self, summary: dict[str, Any]) -> None:
        """Record the files that a summary lists, and the summary, as ours."""
        for name, digest in (summary.get("files", {}) | {SUMMARY: summary.get("digest", "")}).items():
            self._record.setdefault(name, set()).add(digest)

    def _write_record(self) -> None:
        files = {name: sorted(digests) for name, digests in self._record.items()}
        new = self.part / NEW_RECORD
        new.write_text(json.dumps({"fer-stream analyze": files}), encoding="utf-8")
        new.replace(self.part / RECORD)

    def _clear(self) -> None:
        """Delete the temporary folder if we made it, and add its record of our files to this object's record.

        Raises:
            ConfigError: the folder, or something in it, is foreign.
        """
        if not os.path.lexists(self.part):
            return
        record = _read(self.part / RECORD).get("fer-stream analyze")
        if (
            not self.part.is_symlink()
            and self.part.is_dir()
            and {entry.name for entry in self.part.iterdir()} <= {NEW_RECORD}
        ):
            record = {}  # interrupted just after the folder was made, or just before it was deleted
        if self.part.is_symlink() or not isinstance(record, dict):
            raise ConfigError(
                f"{str(self.part)!r} was not made by fer-stream analyze: move it, or choose another folder"
            )
        for name, digests in record.items():
            self._record.setdefault(name, set()).update(digests)
        files = [path for path in self.part.iterdir() if path.name != RECORD]
        if foreign := [path for path in files if path.is_dir() or self._is_input(path)]:
            raise ConfigError(
                f"{str(foreign[0])!r} was not written by fer-stream analyze, and would be deleted: move it, or choose "
                "another folder"
            )
        for path in (*files, self.part / RECORD):
            path.unlink(missing_ok=True)
        self.part.rmdir()

    def _check(self, path: Path) -> None:
        """Check that a file may be written at ``path``.

        Raises:
            ConfigError: there is an input, a folder, or (without ``force``) a foreign file.
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
        """Tell whether a file is one that we wrote, is unchanged, and is not an input."""
        if path.is_symlink() or not path.is_file() or path.name not in self._record or self._is_input(path):
            return False
        if path.name == SUMMARY:
            summary = self._read_summary()
            return bool(summary) and summary["digest"] in self._record[SUMMARY]
        return _digest(path) in self._record[path.name]

    def _is_input(self, path: Path) -> bool:
        """Tell whether a file is an input, under any path or link: the same inode, or else the same content."""
        try:
            here = path.stat()
        except OSError:  # a broken link
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
            with suppress(OSError):  # missing or unreadable inputs are reported when they are opened
                for file in path.iterdir() if path.is_dir() else [path]:
                    with suppress(OSError):
                        yield file, file.stat()


def _read(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one if there is none, or the file is a symbolic link."""
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if not path.is_symlink() else None
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _summary_digest(summary: dict[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of a summary without its key ``digest``."""
    text = json.dumps({key: value for key, value in summary.items() if key != "digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and _digest(one) == _digest(other)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
