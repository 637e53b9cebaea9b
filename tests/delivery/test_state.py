"""The record of deliveries: it survives a restart, and is not confused with another file."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from fer_stream.delivery.state import DeadLetter, DeliveryState, claimed, path_of
from fer_stream.errors import DeliveryError
from fer_stream.settings.tree import load
from fer_stream.types import Cursor

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deliveries.db"


def opened(path: Path) -> DeliveryState:
    return DeliveryState(path, create=True)


def dead(*names: str) -> list[DeadLetter]:
    return [DeadLetter(name, f'{{"id":"{name}"}}', f"{name} is ugly") for name in names]


def test_progress_survives_a_restart(path: Path) -> None:
    state = opened(path)
    assert state.sink("a") is None
    state.begin("a", Cursor("5"))
    state.begin("a", Cursor("7"))
    state.advance("a", Cursor("10"), delivered=3, filtered=1, dead=dead("x"))
    state.tell("a", "failing", "no")
    state.close()
    assert path.stat().st_mode & 0o777 == 0o600
    again = opened(path)
    found = again.sink("a")
    assert found is not None
    assert found._replace(changed=0) == ("a", "10", "failing", "no", 0, 3, 1, 1)
    assert [letter[:3] for _, letter in again.dead_letters("a")] == [letter[:3] for letter in dead("x")]
    assert again.count_dead_letters() == {"a": 1}
    again.close()


def test_dead_letters_are_delivered_refused_again_or_discarded(path: Path) -> None:
    state = opened(path)
    for name in "ab":
        state.begin(name, Cursor("0"))
        state.advance(name, Cursor("3"), delivered=0, filtered=0, dead=dead("x", "y", "z"))
    first = state.dead_letters("a", limit=2)
    assert [letter.id for _, letter in first] == ["x", "y"]
    assert [letter.id for _, letter in state.dead_letters("a", after=first[-1][0])] == ["z"]
    assert [letter.id for _, letter in state.dead_letters("a", "y")] == ["y"]
    state.revived("a", ["x"], [DeadLetter("y", "", "still ugly")])
    assert [(letter.id, letter.reason) for _, letter in state.dead_letters("a")] == [
        ("y", "still ugly"),
        ("z", "z is ugly"),
    ]
    assert state.discard("a", "z") == 1
    assert state.discard("a") == 1
    assert state.count_dead_letters() == {"b": 3}
    assert state.purge(0.0) == 0
    assert state.purge(1e12) == 3
    state.close()


def test_requests_of_another_process(path: Path) -> None:
    state, other = opened(path), DeliveryState(path)
    for _ in range(2):
        other.ask("a", "retry")
    other.ask("a", "skip", "x")
    assert [request[1:] for request in state.asked("a")] == [("retry", ""), ("skip", "x")]
    assert state.asked("b") == []
    state.answered(state.asked("a")[0])
    assert [request.action for request in other.asked("a")] == ["skip"]
    state.close()
    other.close()


def test_a_failed_transaction_changes_nothing(path: Path) -> None:
    state = opened(path)
    state.begin("a", Cursor("0"))
    with pytest.raises(DeliveryError, match="cannot be used"):
        state.advance("a", Cursor("9"), delivered=1, filtered=0, dead=[DeadLetter("x", None, "no")])  # type: ignore[arg-type]
    found = state.sink("a")
    assert found is not None
    assert (found.cursor, found.delivered) == ("0", 0)
    state.close()


def test_files_that_are_none(path: Path) -> None:
    with pytest.raises(DeliveryError, match="start fer-stream deliver first"):
        DeliveryState(path)
    path.write_bytes(b"x" * 5000)
    with pytest.raises(DeliveryError, match="is damaged"):
        opened(path)
    path.unlink()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    with pytest.raises(DeliveryError, match="is not a record of deliveries"):
        opened(path)
    path.unlink()
    opened(path).close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(DeliveryError, match="has format 99"):
        opened(path)


def test_one_process_at_a_time(path: Path) -> None:
    with claimed(path), pytest.raises(DeliveryError, match="in use by another fer-stream deliver"), claimed(path):
        pass
    with claimed(path):
        pass


def test_where_it_is(tmp_path: Path) -> None:
    assert path_of(load({"journal.path": tmp_path / "e.db"})) == tmp_path / "e.db.deliveries.db"
    assert path_of(load({"journal.path": "nats://u:secret@127.0.0.1:4222,h"})).name == "127.0.0.1-4222-h.deliveries.db"
    assert path_of(load({"journal.path": "nats://h", "fleet.cell": "site"})).name == "site.deliveries.db"
    assert path_of(load({"deliveries": tmp_path / "d.db"})) == tmp_path / "d.db"


def test_a_command_opens_the_record_while_it_is_made(tmp_path: Path) -> None:
    """As `deliver status` does just when `deliver` starts for the first time."""
    errors: list[DeliveryError] = []

    def look(path: Path, made: threading.Event) -> None:
        while not made.is_set():
            try:
                DeliveryState(path).close()
            except DeliveryError as error:
                errors.append(error)

    for number in range(40):
        path, made = tmp_path / f"{number}.db", threading.Event()
        thread = threading.Thread(target=look, args=(path, made))
        thread.start()
        try:
            DeliveryState(path, create=True).close()
        finally:
            made.set()
            thread.join()
    assert {str(error).partition(" at ")[0] for error in errors} <= {"there is no record of deliveries"}
