"""The link between a capture and its aggregator: corrupted pictures, silence, cuts, noise."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from faults.proxy import Proxy
from faults.service import sound, standing, stored
from processes import balanced, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.table import Tell
    from processes import Cli, Process
    from scale import Scale


class Link:
    """An aggregator, a worker, and a capture that reaches them through a proxy."""

    def __init__(self, cli: Cli, clip: Path, policy: str) -> None:
        self._cli = cli
        port = free_port()
        self._address = f"tcp://127.0.0.1:{port}"
        self.proxy = Proxy(port)
        text = '[cameras.film]\nencoding = "jpeg"\n[dispatch]\ntransfer = 5.0\n'
        (cli.folder / "settings.toml").write_text(text)
        self.aggregator: Process = cli.start(
            *("aggregator", "--config", "settings.toml", "--bind", self._address, "--journal", "events.db")
        )
        cli.start("worker", "--name", "1", "--connect", self._address)
        self.capture: Process = cli.start(
            *("capture", clip, "--camera", "film", "--config", "settings.toml", "--policy", policy, "--loop"),
            *("--rate", 60, "--connect", self.proxy.address),
        )

    def ledger(self) -> dict[str, int]:
        def film() -> Any:
            found = standing(self._address)
            return found and found["cameras"].get("film")

        ledger: dict[str, int] = wait_for(film, "a camera", log=lambda: self.aggregator.err)["ledger"]
        assert balanced(ledger)
        return ledger

    def goes_on(self) -> None:
        done = self.ledger()["done"]
        wait_for(lambda: self.ledger()["done"] > done + 3, "frames that go on", log=lambda: self.aggregator.err)

    def end(self) -> dict[str, int]:
        """Stop the capture, then the aggregator; check the ledger and the events; return the last ledger."""
        assert self.capture.stop() == 0, self.capture.err
        wait_for(lambda: self.ledger()["in_flight"] == 0, "the last frames")
        ledger = self.ledger()
        assert self.aggregator.stop() == 0, self.aggregator.err
        assert "Traceback" not in self.aggregator.err + self.capture.err
        sound(stored(self._cli))
        return ledger


@pytest.fixture
def link(cli: Cli, clip: Path, request: pytest.FixtureRequest) -> Iterator[Link]:
    found = Link(cli, clip, request.param)
    yield found
    found.proxy.close()


@pytest.mark.parametrize("link", ["wait"], indirect=True)
def test_pictures_that_are_corrupted(link: Link, scale: Scale, tell: Tell) -> None:
    frames = scale.of(60, 6000)
    link.proxy.spoil = 0.1
    wait_for(lambda: link.proxy.pictures >= frames and link.proxy.spoiled, "frames")
    link.proxy.spoil = 0.0
    ledger = link.end()
    assert ledger["rejected"] == ledger["rejected_corrupt"] == link.proxy.spoiled
    assert ledger["captured"] == ledger["done"] + ledger["rejected"] == link.proxy.pictures
    assert link.aggregator.err.count('"camera film is here"') == 1
    assert "is given up" not in link.aggregator.err
    tell(
        "10% of frames corrupted on the wire",
        f"{link.proxy.spoiled} of {link.proxy.pictures} had a byte changed: these were rejected, the others done",
        f"{ledger['rejected_corrupt']} rejected_corrupt, 0 others lost",
    )


@pytest.mark.parametrize("link", ["drop_oldest"], indirect=True)
def test_stalls_cuts_and_noise(link: Link, scale: Scale, tell: Tell) -> None:
    link.goes_on()
    link.proxy.stall()
    silences = link.aggregator.err.count("camera film is silent")
    wait_for(lambda: link.aggregator.err.count("camera film is silent") > silences, "a silence that is noticed")
    link.proxy.flow()
    link.goes_on()
    cuts = scale.of(3, 300)
    for _ in range(cuts):
        wait_for(link.proxy.cut, "a connection to cut")
        time.sleep(0.3 * random.random())
    link.goes_on()
    link.proxy.noise = 0.05
    time.sleep(scale.of(2, 120))
    wait_for(lambda: link.proxy.disturbed, "a changed byte")
    link.proxy.noise = 0.0
    link.goes_on()
    ledger = link.end()
    tell(
        "link stalled, cut, and disturbed by noise in 5% of its pieces",
        f"{cuts} cuts; the ledger adds up at every moment, no gap, every interval closed",
        f"{ledger['lost_link']} of {ledger['captured']} frames lost_link, {ledger['rejected']} rejected",
    )
