"""Who reads a journal misses nothing, changes nothing, and is told what is none."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from journals import resets

from fer_stream.cloudevents import decode
from fer_stream.errors import JournalError
from fer_stream.journal import Journal, Reader

if TYPE_CHECKING:
    from pathlib import Path


def test_a_reader_beside_the_writer_misses_nothing(path: Path) -> None:
    """It reads while another connection writes, and goes on from where it was told to."""
    count = 400
    Journal(path).close()

    def write() -> None:
        writer = Journal(path)
        for one in resets(count):
            writer.append([one])
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    got: list[int] = []
    at = 0
    with Reader(path) as reader:
        while thread.is_alive() or at < reader.cursor():
            texts, at = reader.read(at)
            got += [decode(text).cursor for text in texts]
    thread.join()
    assert got == list(range(1, count + 1))


def test_a_reader_does_not_write(path: Path, journal: Journal) -> None:
    journal.append(resets(1))
    with Reader(path) as reader:
        assert not hasattr(reader, "append")
        assert reader.read(0)[1] == 1
        reader.close()
        with pytest.raises(JournalError, match="cannot be read"):
            reader.read(0)


def test_what_is_not_there_cannot_be_read(path: Path, tmp_path: Path) -> None:
    for missing in (path, tmp_path):
        with pytest.raises(JournalError, match="there is no journal at"):
            Reader(missing)
