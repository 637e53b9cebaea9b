"""The wall clock of a whole run is moved by a day, forward and back: no process dies, and no wait lasts a day."""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from faults.service import Service, sound

if TYPE_CHECKING:
    from faults.table import Tell
    from processes import Cli
    from scale import Scale

DAY_MS = 86_400_000


class Clock:
    """The wall clock of processes that start with ``environment``: a preloaded library (clock.c) replaces it."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        assert compiler, "install a C compiler (Debian: gcc)"
        library, self._file = folder / "clock.so", folder / "clock"
        source = Path(__file__).with_name("clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-nostdlib", "-o", library, source], check=True)
        self._file.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(self._file)}

    def move(self, days: int) -> None:
        """Set the clock ahead by a number of days."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", 86_400 * days))


def ahead(it: Service) -> int:
    """Return how many days the clock was ahead when the latest event was journaled."""
    with closing(sqlite3.connect(it.cli.folder / "events.db")) as db:
        (journaled,) = db.execute("SELECT journaled FROM events ORDER BY cursor DESC LIMIT 1").fetchone()
    return round((journaled - time.time()) / 86_400)


def test_moved_by_a_day(cli: Cli, short_folder: Path, scale: Scale, tell: Tell) -> None:
    clock = Clock(cli.folder)
    it = Service(cli, short_folder, "demo", "--loop", **clock.environment)
    it.run.until_event("emotion.started")
    moves = scale.of(2, 40)
    for number in range(moves):
        days = (1, -1, 0)[number % 3]
        clock.move(days)
        it.until(lambda days=days: ahead(it) == days, "a clock that has moved")
        done, events = it.done(), len(it.run.events)
        it.until(lambda at=done: it.done() > at + 10, "frames that go on")
        it.until(lambda at=events: len(it.run.events) > at, "events that go on")
    ledger, events = it.end()
    assert "is silent" not in it.run.err
    assert "is given up" not in it.run.err
    assert "is replaced" not in it.run.err
    kinds = [event["type"] for event in events]
    assert kinds.count("camera.online") == kinds.count("camera.offline") == 1
    assert ledger["lost_worker"] == ledger["lost_link"] == 0
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert json.loads((cli.folder / "s.json").read_text())["duration_s"] < 3600
    longest = max(event["data"].get("duration_ms", 0) for event in events)
    assert 0 <= longest < DAY_MS / 10
    sound(events)
    tell(
        "wall clock moved by a day, both ways",
        f"{moves} moves: no peer is given up, times and sequences in order, one camera.online",
        f"longest duration {longest / 1000:.1f} s",
    )
