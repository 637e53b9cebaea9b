"""One writer per path, files with mode 0600, and how a deleted or damaged journal is replaced."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from journals import everything, execute, resets

from fer_stream.errors import JournalError
from fer_stream.events.cloudevents import decode
from fer_stream.journal.sqlite import Writer
from fer_stream.types import GapData


def test_a_second_writer_is_refused(path: Path, journal: Writer) -> None:
    program = "import sys; from pathlib import Path; from fer_stream.journal.sqlite import *; Writer(Path(sys.argv[1]))"
    with pytest.raises(JournalError, match="is in use by another aggregator: stop that one, or give another path"):
        Writer(path)
    run = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "is in use by another aggregator" in run.stderr
    journal.close()
    Writer(path).close()


def test_missing_folders_are_created(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "events.db"
    Writer(path).close()
    assert everything(path) == []


@pytest.mark.parametrize("where", ["file/events.db", "folder", "/proc/fer_stream/events.db"])
def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for _ in range(2):
        with pytest.raises(JournalError, match=r"the journal .* cannot be written|cannot be read"):
            Writer(tmp_path / where)


def test_a_folder_without_write_permission_is_an_error(tmp_path: Path) -> None:
    """If the tests run as root, the program switches to an unprivileged user."""
    tmp_path.chmod(0o555)
    program = """if True:
        import os, sys
        from pathlib import Path
        from fer_stream.errors import JournalError
        from fer_stream.journal.sqlite import Writer
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            Writer(Path(sys.argv[1]))
        except JournalError as error:
            print(error)
    """
    run = subprocess.run(
        [sys.executable, "-c", program, "/nobody.db" if os.getuid() == 0 else str(tmp_path / "events.db")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be written: Permission denied" in run.stdout


def test_a_deleted_journal_is_recreated_with_continued_numbers(path: Path, journal: Writer) -> None:
    journal.epoch("door")
    journal.append(resets(3))
    assert journal.there()
    path.unlink()
    assert not journal.there()
    journal.renew()
    assert journal.there()
    (stored, text) = journal.append(resets(1, first=4))[0]
    assert (int(stored.cursor), stored.sequence) == (4, 4)
    gap, after = everything(path)
    assert decode(gap).data == GapData("0", "3", "retention")
    assert after == text
    assert journal.epoch("door") == 2


def test_renewing_a_journal_without_its_folder_is_retried(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "events.db"
    journal = Writer(path)
    journal.append(resets(2))
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    path.parent.touch()  # a file takes the folder's name
    for _ in range(2):
        with pytest.raises(JournalError, match="cannot be written"):
            journal.renew()
    with pytest.raises(JournalError):
        journal.append(resets(1, first=3))
    path.parent.unlink()
    journal.renew()
    assert int(journal.append(resets(1, first=3))[0][0].cursor) == 3
    journal.close()


def test_a_journal_deleted_while_closed_never_reuses_numbers(path: Path) -> None:
    with Writer(path) as first:
        epoch, (event, _) = first.epoch("door"), first.append(resets(1))[0]
    path.unlink()
    with Writer(path) as second:
        assert "was taken away: a new one begins" in second.notice
        assert second.epoch("door") > epoch, "otherwise an id would be repeated"
        assert second.cursor() > 1_000_000_000 > int(event.cursor)
        assert decode(everything(path, after=1)[0]).data == GapData("1", str(second.cursor()), "retention")
    for part in path.parent.iterdir():
        part.unlink()
    with Writer(path) as third:
        assert (third.notice, third.epoch("door"), third.cursor()) == ("", 1, 0), (
            "with all files deleted, numbering starts again"
        )


BEGINNING = """if True:
    import os, shutil, sqlite3, sys
    from pathlib import Path
    from fer_stream.journal.sqlite import Writer

    class Mortal(sqlite3.Connection):
        left, ending = 0, None

        def step(self, call, *arguments):
            if not Mortal.left:
                Mortal.ending()
            Mortal.left -= 1
            return call(*arguments)

        def execute(self, *arguments):
            return self.step(super().execute, *arguments)

        def executemany(self, *arguments):
            return self.step(super().executemany, *arguments)

        def executescript(self, *arguments):
            return self.step(super().executescript, *arguments)

    def killed():
        os._exit(9)

    def full():
        raise sqlite3.OperationalError("database or disk is full")

    def begin(path, left):
        connect, Mortal.left, Mortal.ending = sqlite3.connect, left, globals()[sys.argv[2]]
        sqlite3.connect = lambda *args, **named: connect(*args, **named, factory=Mortal)
        Writer(path)

    path = Path(sys.argv[1])
    Writer(path).close()
    for left in range(100):
        path.unlink()
        if not (child := os.fork()):
            try:
                begin(path, left)
            except BaseException:
                os._exit(9)
            os._exit(0)
        if not os.waitpid(child, 0)[1]:
            break
        with Writer(path) as journal:
            print(journal.cursor(), journal.epoch("door"), bool(journal.notice))
"""


@pytest.mark.parametrize("ending", ["killed", "full"])
def test_a_start_interrupted_at_any_statement_never_reuses_numbers(path: Path, ending: str) -> None:
    """The start after a journal was deleted is interrupted at each statement that creates the next one."""
    run = subprocess.run(
        [sys.executable, "-c", BEGINNING, str(path), ending], capture_output=True, text=True, check=True
    )
    starts = [line.split() for line in run.stdout.splitlines()]
    assert len(starts) > 10
    assert min(int(cursor) for cursor, *_ in starts) > 1_000_000_000
    assert min(int(epoch) for _, epoch, _ in starts) > 1_000_000_000
    noticed = [notice == "True" for *_, notice in starts]
    assert noticed[0], "interrupted with only an empty file"
    assert noticed == sorted(noticed, reverse=True), "until the new file is complete"


@pytest.mark.parametrize("size", [0, None])
def test_a_truncated_journal_never_reuses_numbers(path: Path, size: int | None) -> None:
    with Writer(path) as first:
        first.append(resets(3))
    if size is None:
        path.unlink()
        db = sqlite3.connect(path)
        db.execute("PRAGMA journal_mode = WAL")  # writes one page with this setting only
        db.close()
    else:
        os.truncate(path, size)
    with Writer(path) as second:
        assert second.notice == (
            f"the journal {path} was emptied: a new one begins, and a gap covers the old one's events"
        )
        assert second.epoch("door") > 1_000_000_000
        assert decode(everything(path, after=1)[0]).data == GapData("1", str(second.cursor()), "retention")
        (stored, _) = second.append(resets(1, first=4))[0]
    with Writer(path) as third:
        assert (third.notice, third.cursor()) == ("", int(stored.cursor))


def test_numbers_are_not_reused_if_creating_the_next_file_fails_after_setting_one_aside(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Writer(path) as first:
        first.append(resets(3))
    path.with_name("events.db.lock").unlink()
    execute(path, "DROP TABLE cameras")
    with monkeypatch.context() as patch:
        patch.setattr("fer_stream.journal.sqlite.files.JournalFiles.clear", lambda files: (files.path / "x").stat())
        with pytest.raises(JournalError, match="cannot be written"):
            Writer(path)
    assert not path.exists()
    with Writer(path) as second:
        assert second.cursor() > 1_000_000_000


def test_the_log_of_a_deleted_journal_is_not_applied_to_the_next_one(path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from journals import *; from fer_stream.journal.sqlite import *\n"
    )
    program += "Writer(Path(sys.argv[1])).append(resets(9)); os._exit(9)"
    helpers = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", program, str(path)], check=False, env=os.environ | {"PYTHONPATH": helpers})
    assert path.with_name("events.db-wal").stat().st_size > 0
    path.unlink()
    path.with_name("events.db.lock").unlink()
    with Writer(path) as writer:
        (stored, text) = writer.append(resets(1))[0]
        gap, kept = everything(path)
        assert decode(gap).data == GapData("0", str(int(stored.cursor) - 1), "retention")
        assert kept == text


def modes(path: Path) -> dict[str, int]:
    return {part.name: part.stat().st_mode & 0o777 for part in path.parent.iterdir()}


def test_a_journal_has_mode_0600_with_any_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        with Writer(path) as journal:
            journal.append(resets(1))
            parts = ("events.db", "events.db-wal", "events.db-shm", "events.db.lock")
            assert modes(path) == dict.fromkeys(parts, 0o600)
            path.unlink()
            journal.renew()
            assert modes(path) == dict.fromkeys(parts, 0o600)
    finally:
        os.umask(before)
    path.chmod(0o640)
    with Writer(path) as journal:
        journal.append(resets(1, first=2))
        assert modes(path)["events.db-wal"] == 0o640, "permissions granted by the owner are kept"


def test_a_refused_file_leaves_no_lock_file(path: Path) -> None:
    path.write_text("Dear diary,\n" * 1000)
    with pytest.raises(JournalError):
        Writer(path)
    assert [part.name for part in path.parent.iterdir()] == ["events.db"]


def test_a_removed_lock_file_never_admits_two_writers(path: Path) -> None:
    """Several processes take and withdraw the lock in a loop; only one may hold it at a time."""
    program = """if True:
        import os, sys
        from pathlib import Path
        from fer_stream.errors import JournalError
        from fer_stream.journal.sqlite.files import JournalFiles
        path, had = Path(sys.argv[1]), 0
        while had < 100:
            try:
                files = JournalFiles(path)
            except JournalError:
                continue
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            path.unlink()
            files.known, had = False, had + 1
            files.release(withdraw=True)
    """
    run = [sys.executable, "-c", program, str(path)]
    rivals = [subprocess.Popen(run, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(rival.communicate()[1], rival.returncode) for rival in rivals] == [("", 0)] * 3
    assert list(path.parent.iterdir()) == []
