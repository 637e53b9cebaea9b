"""Two writers of one journal without a working lock: one is refused, and no event is lost, repeated or damaged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from journals import everything, execute, resets
from processes import wait_for

from fer_stream.errors import JournalError, RivalError
from fer_stream.events.cloudevents import decode
from fer_stream.journal.sqlite import Writer, purge, shared
from fer_stream.system import machine
from fer_stream.types import GapData

if TYPE_CHECKING:
    from collections.abc import Iterator

    from processes import Cli

HELPERS = str(Path(__file__).parents[1])


@pytest.fixture
def unlocked(path: Path) -> Iterator[tuple[Writer, Writer]]:
    """Two writers of one file, as the lock file was deleted between their starts."""
    with Writer(path) as first:
        path.with_name("events.db.lock").unlink()
        with Writer(path) as second:
            yield first, second


def test_the_second_to_write_is_refused(path: Path, unlocked: tuple[Writer, Writer]) -> None:
    first, second = unlocked
    stored = [text for _, text in first.append(resets(3))]
    for write in (
        lambda: second.append(resets(2, "hall")),
        lambda: second.epoch("hall"),
        lambda: second.purge(1e12),
        lambda: second.append([], 4),
    ):
        with pytest.raises(RivalError, match="is written by another aggregator, too: this one ends; give each"):
            write()
    assert not second.broken, "the other writer's events are no damage"
    stored += [text for _, text in first.append(resets(3, first=4))]
    assert everything(path) == stored


def test_the_second_to_begin_an_epoch_is_refused(path: Path, unlocked: tuple[Writer, Writer]) -> None:
    first, second = unlocked
    assert first.epoch("door") == 1
    with pytest.raises(RivalError):
        second.epoch("door")
    assert second.epoch("hall") == 1
    with pytest.raises(RivalError):
        first.epoch("hall")
    assert first.epoch("door") == 2
    first.append(resets(1))


def test_a_journal_restored_to_an_older_state_is_continued(path: Path, journal: Writer) -> None:
    """For example, a backup is copied over the file while it is written."""
    before = [text for _, text in journal.append(resets(2))]
    execute(path, "CREATE TABLE kept AS SELECT * FROM head")
    journal.append(resets(3, first=3))
    execute(path, "UPDATE head SET cursor = 2", "DELETE FROM events WHERE cursor > 2", "DROP TABLE kept")
    execute(path, "UPDATE cameras SET sequence = 2")
    assert everything(path) == before
    with pytest.raises(JournalError, match="was put back to an older state") as caught:
        journal.append(resets(1, first=6))
    assert not isinstance(caught.value, RivalError)
    assert not journal.there()
    journal.renew()
    assert "was put back to an older state" in journal.notice
    ((stored, text),) = journal.append(resets(1, first=6))
    assert (int(stored.cursor), stored.sequence) == (6, 6)
    gap, last = everything(path, after=2)
    assert decode(gap).data == GapData("2", "5", "retention")
    assert last == text


# Two FUSE mounts of one folder simulate two machines: each has its own locks and its own cache.


@pytest.fixture
def hosts() -> Iterator[tuple[Path, Path]]:
    if not shutil.which("bindfs") or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("needs bindfs and FUSE to simulate two machines")
    with ExitStack() as last:
        folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
        last.callback(shutil.rmtree, folder, ignore_errors=True)
        mounts = []
        for name in ("share", "one", "two"):
            (folder / name).mkdir()
        for name in ("one", "two"):
            done = subprocess.run(["bindfs", folder / "share", folder / name], capture_output=True, check=False)
            if done.returncode:
                pytest.skip(f"FUSE cannot mount here: {done.stderr.decode()}")
            last.callback(subprocess.run, ["fusermount3", "-uz", folder / name], check=False)
            mounts.append(folder / name / "events.db")
        yield mounts[0], mounts[1]


WRITER = """if True:
    import sys
    from pathlib import Path
    from journals import resets
    from fer_stream.errors import JournalError
    from fer_stream.journal.sqlite import Writer
    try:
        with Writer(Path(sys.argv[1])) as journal:
            print("open", flush=True)
            sys.stdin.readline()
            journal.epoch(sys.argv[2])
            for first in range(1, 31):
                journal.append(resets(1, sys.argv[2], first))
            print("done", flush=True)
    except JournalError as error:
        print(error, flush=True)
"""


def writer(path: Path, camera: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), camera],
        env=os.environ | {"PYTHONPATH": HELPERS},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_of_two_writers_that_start_at_once_on_a_share_one_is_refused(hosts: tuple[Path, Path]) -> None:
    writers = [writer(path, camera) for path, camera in zip(hosts, ("door", "hall"), strict=True)]
    first = [
        process.stdout.readline().strip() if process.stdout else "" for process in writers
    ]  # both have started before one writes
    outputs = [process.communicate("\n", timeout=90)[0].strip() for process in writers]
    (refused,) = [line for line in first if line != "open"]
    assert "is in use by another aggregator (process " in refused
    assert sorted(outputs) == ["", "done"]
    # If the refused process created the file just before, the writer begins the new journal with a gap.
    written = [event for event in map(json.loads, everything(hosts[0])) if event["type"] != "stream.gap"]
    assert len(written) == 30
    assert len({event["source"] for event in written}) == 1
    assert everything(hosts[1]) == everything(hosts[0])
    db = sqlite3.connect(hosts[0].parents[1] / "share" / "events.db")
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA journal_mode").fetchone() != ("wal",), "WAL needs shared memory within one machine"
    db.close()


def test_two_aggregators_on_a_share(cli: Cli, short_folder: Path, hosts: tuple[Path, Path]) -> None:
    def start(number: int) -> list[str]:
        return ["aggregator", "--bind", f"ipc://{short_folder}/{number}", "--journal", str(hosts[number])]

    first = cli.start(*start(0))
    first.until_said("ready")
    assert "file locks may not work between machines" in first.err
    refused = cli.run(*start(1))
    assert refused.popen.returncode == 1
    (sentence,) = refused.errors
    assert f"is in use by another aggregator (process {first.pid} on " in sentence
    purged = cli.run("purge", "--older-than", "1d", "--journal", str(hosts[1]))
    assert purged.popen.returncode == 1
    assert "purge it on that machine" in purged.errors[0]
    assert cli.run("purge", "--older-than", "1d", "--journal", str(hosts[0])).popen.returncode == 0

    first.signal(signal.SIGSTOP)  # until its claim has expired
    second = cli.start(*start(1))
    second.until_said("ready")
    first.signal(signal.SIGCONT)
    assert first.end() == 2, "so that systemd does not restart it"
    assert f"is written by another aggregator, too (process {second.pid} on " in first.errors[0]

    second.kill()  # killed, it leaves its name in the lock file
    third = cli.start(*start(0))
    third.until_said("ready")
    assert third.stop() == 0
    fourth = cli.start(*start(1))
    fourth.until_said("ready")
    assert fourth.stop() == 0


def test_doctor_warns_about_a_share(cli: Cli, short_folder: Path, hosts: tuple[Path, Path], path: Path) -> None:
    assert shared(path) == ""
    assert shared(hosts[0]) == f"fuse, mounted at {hosts[0].parent}"
    done = cli.run("doctor", "--bind", f"ipc://{short_folder}", "--journal", str(hosts[0]))
    (line,) = [line for line in done.out.splitlines() if "is on fuse" in line]
    assert line.startswith("warn  ")


@pytest.mark.parametrize(
    ("kind", "is_shared"),
    [(kind, False) for kind in ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "vfat")]
    + [
        (kind, True)
        for kind in ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.glusterfs", "fuse.sshfs", "lustre", "virtiofs")
    ],
)
def test_kinds_of_file_systems(kind: str, is_shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    lines = ["22 1 8:1 / / rw - ext4 /dev/sda1 rw", f"40 22 0:50 / /mnt/my\\040share rw - {kind} server:/x rw"]
    (tmp_path / "proc" / "self" / "mountinfo").write_text("\n".join(lines) + "\n")
    here = machine.file_system
    monkeypatch.setattr(machine, "file_system", lambda path: here(path, tmp_path))
    assert bool(shared(Path("/mnt/my share/deep/events.db"))) == is_shared
    assert shared(Path("/mnt/elsewhere/events.db")) == ""


def test_purge_of_a_share_whose_writer_died(hosts: tuple[Path, Path]) -> None:
    with Writer(hosts[0]) as journal:
        journal.append(resets(3))
    assert purge(hosts[1], 1e12) == 3
    wait_for(lambda: len(everything(hosts[0])) == 1, "only the gap")
