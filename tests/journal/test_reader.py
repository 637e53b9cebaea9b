"""A reader misses no event and changes nothing; unreadable journals are reported."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import strangers
from journals import resets
from strangers import Stranger

from fer_stream.errors import JournalError
from fer_stream.events.cloudevents import decode
from fer_stream.journal.sqlite import Reader, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_a_reader_beside_the_writer_misses_nothing(path: Path) -> None:
    """It reads while another connection writes, and continues after the returned cursor."""
    count = 400
    Writer(path).close()

    def write() -> None:
        writer = Writer(path)
        for reset in resets(count):
            writer.append([reset])
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    got: list[int] = []
    at = 0
    with Reader(path) as reader:
        while thread.is_alive() or at < reader.cursor():
            texts, at = reader.read(at)
            got += [int(decode(text).cursor) for text in texts]
    thread.join()
    assert got == list(range(1, count + 1))


def test_a_reader_does_not_write(path: Path, journal: Writer) -> None:
    journal.append(resets(1))
    with Reader(path) as reader:
        assert not hasattr(reader, "append")
        assert reader.read(0)[1] == 1
        reader.close()
        with pytest.raises(JournalError, match="cannot be read"):
            reader.read(0)


def test_a_missing_journal_cannot_be_read(path: Path, tmp_path: Path) -> None:
    for missing in (path, tmp_path):
        with pytest.raises(JournalError, match="there is no journal at"):
            Reader(missing)


@pytest.fixture
def beside(journal: Writer, path: Path) -> Iterator[Path]:
    """A closed journal with three events, in a folder that other users may read but not write."""
    journal.append(resets(3))
    journal.close()
    with strangers.folder() as folder:
        Path(folder).chmod(0o755)
        theirs = Path(shutil.copy(path, folder))
        theirs.chmod(0o644)
        yield theirs


def test_a_user_without_write_permission_reads_a_closed_journal(beside: Path) -> None:
    """SQLite would need to create a log first. Read-only media and snapshots are the same case."""
    found = Stranger(Path("/")).run("subscribe", "--journal", beside, "--format", "jsonl")
    assert (found.returncode, found.stderr) == (0, "")
    assert len(found.stdout.splitlines()) == 3
    assert list(beside.parent.iterdir()) == [beside]


def test_a_missing_read_permission_is_reported(beside: Path) -> None:
    beside.chmod(0o600)
    found = Stranger(Path("/")).run("subscribe", "--journal", beside)
    assert found.returncode == 1
    assert f"cannot be read: this user may not read {beside}; let its owner grant that" in found.stderr


def test_a_missing_read_permission_on_the_log_is_reported(beside: Path) -> None:
    """Otherwise the events in the log would be missing without notice."""
    log = beside.with_name(f"{beside.name}-wal")
    log.write_bytes(b"")
    log.chmod(0o644)
    found = Stranger(Path("/")).run("subscribe", "--journal", beside)
    assert found.returncode == 1
    assert f"the latest events are in {log}, which SQLite reads only if it may write" in found.stderr
    log.chmod(0o600)
    assert f"this user may not read {log}" in Stranger(Path("/")).run("subscribe", "--journal", beside).stderr
