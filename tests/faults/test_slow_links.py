"""Links on which a frame takes seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from networks import Machines, write_film
from processes import balanced
from slow_link import slow_link

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from faults.table import Tell
    from processes import Cli, Process
    from scale import Scale

BYTES = 440_000
"""Bytes of a frame of the film, as a JPEG of quality 90."""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("films") / "film.mp4")


def settings(cli: Cli, film: Path, more: str = "") -> tuple[object, ...]:
    """Return the command of a capture of the film, with additional camera settings."""
    (cli.folder / "door.toml").write_text(f'[cameras.door]\nsource = "{film}"\nloop = true\n{more}')
    return "capture", "--camera", "door", "--config", "door.toml"


class Seen:
    """Polls the ledger until a condition holds; each time it must add up, and nothing may be lost."""

    def __init__(self, machines: Machines, hub: Process) -> None:
        self.machines, self.hub, self.ledger = machines, hub, {"done": 0}

    def until(self, condition: Callable[[dict[str, int]], object]) -> None:
        def holds() -> object:
            camera = self.machines.status()["cameras"].get("door")
            if camera is None:
                return False
            self.ledger = camera["ledger"]
            assert balanced(self.ledger)
            assert self.ledger["lost_link"] == self.ledger["lost_worker"] == self.ledger["expired"] == 0, self.hub.err
            return condition(self.ledger)

        self.hub.until(holds, "frames")

    def until_done(self, more: int) -> None:
        done = self.ledger["done"]
        self.until(lambda ledger: ledger["done"] >= done + more)


@pytest.mark.parametrize("rate", [1_500_000, pytest.param(500_000, marks=pytest.mark.soak)])
def test_a_camera_behind_a_slow_link(cli: Cli, film: Path, rate: int, scale: Scale, tell: Tell) -> None:
    with slow_link(rate, latency=0.02) as link:
        machines = Machines(cli, link)
        hub = machines.aggregator()
        machines.far("worker").until_said("ready")
        capture = machines.near("capture", *settings(cli, film))
        seen = Seen(machines, hub)
        seen.until_done(1)
        before = link.passed["far"]
        seen.until_done(scale.of(2, 20))
        share = BYTES * (seen.ledger["done"] - 1) / (link.passed["far"] - before)
        assert "is silent" not in hub.err
        capture.until_said("the link to the aggregator is slow: a frame of ")
        assert capture.err.count("is slow") == 1
        assert "cameras.door.jpeg_quality" in capture.err
        tell(
            f"a 1080p camera behind a link of {rate / 1e6:g} Mbit/s",
            f"{seen.ledger['done']} frames done, none lost; the capture says how slow the link is",
            f"{min(share, 1):.0%} of what the link carried were frames that were done",
        )


def test_a_worker_behind_a_slow_link(cli: Cli, film: Path, tell: Tell) -> None:
    with slow_link(500_000, latency=0.02) as link:
        machines = Machines(cli, link)
        hub = machines.aggregator()
        worker = machines.near("worker", "worker", "--name", "w")
        worker.until_said("ready")
        # A transfer takes longer than `dispatch.deadline`, which begins when the worker has the frame.
        machines.far(*settings(cli, film, 'encoding = "jpeg"\n'))
        seen = Seen(machines, hub)
        seen.until_done(3)
        assert "given up" not in hub.err
        assert hub.err.count("the link to worker w at") == 1
        tell("a worker behind a link of 0.5 Mbit/s", f"{seen.ledger['done']} frames done", "0 lost")


def test_picture_quality_and_size_follow_the_link(cli: Cli, film: Path, tell: Tell) -> None:
    with slow_link(1_500_000, latency=0.02) as link:
        machines = Machines(cli, link)
        hub = machines.aggregator()
        machines.far("worker").until_said("ready")
        capture = machines.near("capture", *settings(cli, film, "transfer_time = 0.5\n"))
        seen = Seen(machines, hub)
        capture.until_said("frames of camera door are now sent at JPEG quality 30")
        seen.until_done(1)
        before, done = link.passed["far"], seen.ledger["done"]
        seen.until_done(20)
        each = (link.passed["far"] - before) / (seen.ledger["done"] - done)
        assert each < BYTES / 3
        link.rate = 300_000
        capture.until_said("of their size")
        assert "is slow" not in capture.err, "no warning: the capture adapts by itself"
        tell(
            "a 1080p camera behind a link of 1.5 Mbit/s, transfer_time = 0.5",
            "quality and size follow the link",
            f"{each / 1000:.0f} kB a frame, {BYTES / 1000:.0f} kB before",
        )


def test_smaller_pictures_by_settings(cli: Cli, film: Path) -> None:
    with slow_link(1_500_000, latency=0.02) as link:
        machines = Machines(cli, link)
        hub = machines.aggregator()
        machines.far("worker").until_said("ready")
        machines.near("capture", *settings(cli, film, "max_width = 640\njpeg_quality = 70\n"))
        seen = Seen(machines, hub)
        seen.until_done(1)
        before, done = link.passed["far"], seen.ledger["done"]
        seen.until_done(10)
        assert (link.passed["far"] - before) / (seen.ledger["done"] - done) < BYTES / 5
        events = machines.far("subscribe", "--from", 0, "--until-now", "--format", "jsonl", "--type", "camera")
        assert events.end() == 0, events.err
        assert [(event["data"]["width"], event["data"]["height"]) for event in events.events] == [(640, 360)]


def test_a_link_that_is_cut_during_a_frame_is_detected_and_recovers(cli: Cli, film: Path) -> None:
    with slow_link(1_500_000, latency=0.02) as link:
        machines = Machines(cli, link)
        hub = machines.aggregator()
        machines.far("worker").until_said("ready")
        capture = machines.near("capture", *settings(cli, film))
        seen = Seen(machines, hub)
        seen.until_done(1)
        passed = link.passed["far"]
        hub.until(lambda: link.passed["far"] > passed + BYTES / 10, "a part of a frame")
        assert "is silent" not in hub.err
        link.cut()
        hub.until_said("camera door is silent")
        link.mend()
        lost = machines.ledger()
        assert balanced(lost)
        hub.until(lambda: machines.ledger()["done"] > lost["done"] + 1, "frames that go on")
        ledger = machines.ledger()
        assert balanced(ledger)
        assert ledger["lost_link"] <= 2
        assert capture.popen.poll() is None
