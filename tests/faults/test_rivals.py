"""Two aggregators of a journal, captures of a camera or workers of a name: the second is refused, also if the first is
frozen."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from faults.service import sound, standing, stored
from processes import balanced, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from faults.table import Tell
    from processes import Cli, Process


def test_two_aggregators_on_one_journal(cli: Cli, short_folder: Path, tell: Tell) -> None:
    first = cli.start("aggregator", "--bind", f"ipc://{short_folder}/a", "--journal", "events.db")
    first.until_said("ready")
    (cli.folder / "link.db").symlink_to("events.db")
    first.signal(signal.SIGSTOP)
    for name in ("events.db", "link.db"):
        second = cli.run("aggregator", "--bind", f"ipc://{short_folder}/b", "--journal", name)
        assert second.popen.returncode == 1
        (sentence,) = second.errors
        assert sentence.endswith("is in use by another aggregator: stop that one, or give another path")
    first.signal(signal.SIGCONT)
    assert first.stop() == 0
    tell("two aggregators on one journal", "the second is refused in one sentence, also while the first is frozen", "-")


def test_two_captures_of_one_camera(cli: Cli, short_folder: Path, clip: Path, tell: Tell) -> None:
    address = f"ipc://{short_folder}"
    aggregator = cli.start("aggregator", "--bind", address, "--journal", "events.db")
    cli.start("worker", "--name", "1", "--connect", address)
    film = ("capture", clip, "--camera", "film", "--loop", "--rate", 15, "--connect", address)

    def holder() -> int:
        pid: int = (standing(address) or {"cameras": {}})["cameras"].get("film", {"pid": 0})["pid"]
        return pid

    first = cli.start(*film)
    wait_for(lambda: holder() == first.pid, "the first capture")
    second = cli.start(*film)
    assert second.end() == 2
    (sentence,) = second.errors
    assert f"camera film is captured by process {first.pid} already: stop that one" in sentence
    # Frozen, the first counts as dead: another one takes its place, and it is fenced when it comes back.
    first.signal(signal.SIGSTOP)
    third = cli.start(*film)
    wait_for(lambda: holder() == third.pid, "another capture in its place")
    first.signal(signal.SIGCONT)
    assert first.end() == 2
    (sentence,) = first.errors
    assert f"camera film is captured by process {third.pid} already: stop that one" in sentence
    wait_for(lambda: holder() == third.pid, "the one in its place")
    assert third.stop() == 0
    ledger = wait_for(lambda: standing(address), "an answer")["cameras"]["film"]["ledger"]
    assert balanced(ledger)
    assert aggregator.stop() == 0
    sound(stored(cli))
    tell("two captures of one camera name", "the second is refused; one that was frozen and replaced is fenced", "-")


def test_two_workers_of_one_name(cli: Cli, short_folder: Path, tell: Tell) -> None:
    address = f"ipc://{short_folder}"
    soon = {"FER_STREAM_DISPATCH__SILENCE": "1"}
    aggregator = cli.start("aggregator", "--bind", address, "--journal", "events.db", **soon)

    def worker() -> Process:
        return cli.start("worker", "--name", "gpu", "--connect", address, **soon)

    def holder() -> int:
        pid: int = (standing(address) or {"workers": {}})["workers"].get("gpu", {"pid": 0})["pid"]
        return pid

    both = worker(), worker()
    wait_for(lambda: any(process.popen.poll() is not None for process in both), "the end of one of them")
    second, first = sorted(both, key=lambda process: process.popen.poll() is None)
    assert second.end() == 2
    (sentence,) = second.errors
    assert f"worker gpu is process {first.pid} already: stop that one, or choose another --name" in sentence
    wait_for(lambda: holder() == first.pid, "the first one")
    # Frozen, it counts as dead: another one takes its place, and it is fenced when it comes back.
    first.signal(signal.SIGSTOP)
    third = worker()
    wait_for(lambda: holder() == third.pid, "another worker in its place")
    first.signal(signal.SIGCONT)
    assert first.end() == 2
    (sentence,) = first.errors
    assert f"worker gpu is process {third.pid} already: stop that one" in sentence
    wait_for(lambda: holder() == third.pid, "the one in its place")
    assert third.stop() == 0
    assert aggregator.stop() == 0
    tell("two workers of one name", "the second is refused; one that was frozen and replaced is fenced", "-")
