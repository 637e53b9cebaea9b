"""The page about a cell of three machines, followed word by word: three machines in namespaces, in one network."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from documents import ROOT, Block, blocks
from machines import PROGRAMS, Network, possible
from processes import Cli, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from machines import Machine

PAGE = ROOT / "docs/how-to/fleet.md"

pytestmark = pytest.mark.skipif(not possible(), reason="this user may not make network namespaces")


class Followed:
    """Runs the page's blocks on the machines that their titles name, in their order."""

    def __init__(self, machines: list[Machine]) -> None:
        self.machines = machines
        self.blocks = [block for block in blocks(PAGE) if block.language == "bash" and block.title]

    def on(self, title: str) -> list[Machine]:
        first = re.search(rf"{re.escape('192.0.2.')}(\d)", title)
        if first:
            return [self.machines[int(first[1]) - 1]]
        return self.machines if "each machine" in title else self.machines[:1]

    def next(self, beginning: str) -> list[str]:
        """Follow the next block, which begins like this; return what it printed on each machine."""
        block: Block = self.blocks.pop(0)
        assert block.text.startswith(beginning), block
        printed = []
        for machine in self.on(block.title):
            if block.title.endswith("keeps running"):
                machine.start(block.text)
            else:
                printed.append(machine.run(block.text))
        return printed


@pytest.fixture
def page(tmp_path: Path, tiny_model: Path) -> Iterator[Followed]:
    cli = Cli(tmp_path, tiny_model)
    environment = cli.environment | {"PATH": f"{PROGRAMS}:{cli.environment['PATH']}"}
    environment["FER_STREAM_SMOOTHER__UPDATE_INTERVAL"] = "1"  # more events
    network = Network(tmp_path / "machines")
    try:
        machines = [network.machine(number, environment) for number in (1, 2, 3)]
        (machines[0].home / "deploy").symlink_to(ROOT / "deploy")
        yield Followed(machines)
    finally:
        network.close()
        cli.close()


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def status(machine: Machine) -> dict[str, Any]:
    """The state of the cell as an aggregator tells it."""
    text = machine.run(f"fer-stream status --format jsonl --connect tcp://{machine.address}:5550")
    return dict(json.loads(text))


def cameras(machine: Machine) -> dict[str, dict[str, Any]]:
    listed = machine.run("fer-stream cameras list --format jsonl --config /etc/fer-stream/cell.toml")
    return {camera["camera"]: camera for camera in events_of(listed)}


def test_the_page_is_followed_word_by_word(page: Followed) -> None:
    first, second, third = page.machines

    def log() -> str:
        return "\n\n".join(f"{machine.address}:\n{machine.log}" for machine in page.machines)

    (settings,) = (block for block in blocks(PAGE) if block.title == "cell.toml")
    (first.home / "cell.toml").write_text(settings.text)

    page.next("fer-stream run")
    old_events = f"fer-stream subscribe --journal {first.home}/.local/state/fer_stream/events.db --format jsonl"
    wait_for(lambda: first.log.count("emotion") > 20, "events of the old service", log=log)
    page.next("python deploy/nats/make_cell.py cell")
    page.next("mkdir")
    page.next("for n in 1 2 3")
    assert not list((first.home / "cell").glob("a?.nk"))
    first.stop()  # here, so that its children do not compete with the servers for the test's time
    page.next("nats-server")
    examined = page.blocks[0].text
    for machine in page.machines:
        wait_for(lambda m=machine: m.attempt(examined).returncode == 0, "servers that have found each other", log=log)
    for printed in page.next("fer-stream doctor"):
        assert "ok    journal tls://" in printed
    (told,) = page.next("fer-stream migrate")
    old = events_of(first.run(old_events))
    assert f"goes on after cursor {old[-1]['cursor']}, with the numbers of 2 cameras" in told
    page.next("fer-stream subscribe")
    assert events_of((first.home / "old-events.jsonl").read_text()) == old[17:]

    for _ in page.machines:
        page.next("fer-stream node")
    wait_for(lambda: all("ready at" in machine.log for machine in page.machines), "the aggregators", log=log)
    (listed,) = page.next("export FER_STREAM_JOURNAL__CREDENTIALS=cell/desk.nk\nfer-stream cameras add door demo")
    assert re.search(r"^door +online ", listed, re.M)
    assert re.search(r"^hall +online ", listed, re.M)

    def stored() -> list[dict[str, Any]]:
        """What is stored in the cell, as a reader sees it."""
        first.run(read)
        return events_of((first.home / "all-events.jsonl").read_text())

    def follows(events: list[dict[str, Any]]) -> bool:
        """Whether each camera's sequences go on after those of the old file, without a gap."""
        events = [event for event in [*old, *events] if event["type"] != "stream.gap"]
        found: dict[str, list[int]] = {}
        for event in events:
            found.setdefault(event["source"], []).append(int(event["sequence"]))
        assert len({event["id"] for event in events}) == len(events)
        return all(numbers == list(range(1, len(numbers) + 1)) for numbers in found.values())

    read = page.blocks[1].text
    assert read.startswith("export FER_STREAM_JOURNAL__CREDENTIALS=cell/wall.nk")
    wait_for(lambda: {e["source"] for e in stored() if e["type"] == "emotion.started"} == SOURCES, "emotions", log=log)
    (state,) = page.next("fer-stream status")
    assert re.search(r"cell site, partitions: 16", state)
    assert len(re.findall(r" tcp://192\.0\.2\.\d:5550 .* ok$", state, re.M)) == 3
    page.next("export")
    seen = events_of((second.home / "events.jsonl").read_text())
    assert {event["id"] for event in seen} <= {event["id"] for event in stored()}
    assert {event["source"] for event in seen} >= SOURCES
    assert follows(stored())

    third.switch_off()

    def owned() -> bool:
        """Whether the two that are left own all partitions."""
        fleet = status(first)["fleet"]
        alive = {each["address"]: each["owns"] for each in fleet["aggregators"].values() if not each["error"]}
        return sorted(number for owns in alive.values() for number in owns) == list(range(16)) and len(alive) == 2

    wait_for(owned, "owners of all partitions", log=log)
    before = len(stored())
    wait_for(
        lambda: (
            {camera["state"] for camera in cameras(first).values()} == {"online"}
            and {camera["node"] for camera in cameras(first).values()} <= {"machine-1", "machine-2"}
        ),
        "both cameras at the machines that are left",
        log=log,
    )
    wait_for(lambda: len(stored()) > before, "further events", log=log)
    (printed,) = page.next("fer-stream status")
    assert len(re.findall(r" tcp://192\.0\.2\.\d:5550 .* ok$", printed, re.M)) == 2
    assert page.blocks == []
    assert follows(stored())


SOURCES = {"/cameras/door", "/cameras/hall"}
