"""A whole cell in nodes: each runs an aggregator, a worker and its share of the cameras, with keys; one dies."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
from cells import CELL, Cell
from nats_servers import NatsServer
from processes import free_port, wait_for

from fer_stream.service.cell import CellCommands, CellRing
from fer_stream.settings import tree
from fer_stream.transports import keys
from fer_stream.transports.zeromq import ZeroMQ

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Cli, Process

CAMERAS = tuple(f"cam-{number}" for number in range(6))


class Nodes(Cell):
    """A cell whose processes are started by nodes."""

    def __init__(self, cli: Cli, servers: str) -> None:
        super().__init__(cli, servers)
        self.nodes: dict[str, Process] = {}
        self.folders: dict[str, Path] = {}
        """Of the keys of each aggregator."""
        self.settings = tree.load(
            {"fleet": {"cell": CELL, "partitions": self.partitions}, "journal": {"path": servers}}
        )

    def node(self, name: str, *more: object) -> Process:
        self.nodes[name] = self.cli.start(
            *("node", "--machine", name, "--journal", self.servers, *more), **self.environment
        )
        return self.nodes[name]

    def node_with_all(self, name: str) -> Process:
        address, folder = f"tcp://127.0.0.1:{free_port()}", self.cli.folder / f"keys-{name}"
        node = self.node(name, "--bind", address, "--workers", 1, "--keys", folder)
        self.aggregators[address], self.folders[address] = node, folder
        return node

    def status(self, address: str) -> dict[str, Any] | None:
        if not (self.folders[address] / "local.key").exists():
            return None
        return super().status(address)

    def connect(self, address: str) -> Any:
        return ZeroMQ(keys=self.folders[address]).connect(address, "control")

    def add(self, name: str, machine: str = "*") -> None:
        with CellCommands(self.settings) as commands:
            values = {"source": "demo", "machine": machine, "rate": 3.0, "loop": True}
            commands.call({"do": "add", "camera": name, "settings": values})

    def holders(self) -> dict[str, str]:
        with CellCommands(self.settings) as commands:
            listed = commands.call({"do": "list"})["cameras"]
        return {one["camera"]: one["node"] for one in listed if one["state"] == "online"}

    def log(self) -> str:
        return "\n".join(f"--- {name}\n{node.err[-4000:]}" for name, node in self.nodes.items())


@pytest.fixture
def cell(cli: Cli, tmp_path: Path) -> Iterator[Nodes]:
    folder = tmp_path / "nats"
    folder.mkdir()
    server = NatsServer(folder).start()
    yield Nodes(cli, server.address)
    server.kill()


def test_nodes_that_run_everything(cell: Nodes) -> None:
    """Two machines with an aggregator each, and one with captures only, which has a key of the cell."""
    for name in CAMERAS:
        cell.add(name)
    a, b = cell.node_with_all("a"), cell.node_with_all("b")
    with CellRing(cell.settings) as ring:
        key = keys.new(cell.cli.folder / "office", "cellar", "node", ring=ring)
    cell.node("c", "--key", key)
    cell.until(lambda: set(cell.holders().values()) == {"a", "b", "c"} and len(cell.holders()) == 6, "all three")
    cell.until_owned(*cell.aggregators)
    cell.until_processed(6, *CAMERAS)
    assert set(cell.cameras()) == set(CAMERAS), "each has one aggregator"

    before = a.child("aggregator")
    before.kill()
    cell.until(lambda: a.child("aggregator").pid != before.pid, "another aggregator, at once")
    cell.until_owned(*cell.aggregators)
    done = {name: camera["ledger"]["done"] for name, (_, camera) in cell.cameras().items()}
    cell.until(
        lambda: (
            len(found := cell.cameras()) == 6
            and all(found[name][1]["ledger"]["done"] > done.get(name, 0) + 3 for name in CAMERAS)
        ),
        "frames of all cameras",
    )

    children = b.children()
    b.signal(signal.SIGKILL)  # the machine dies, with everything on it
    for child in children:
        child.kill()
    b.end()
    (dead,) = (address for address, node in cell.aggregators.items() if node is b)
    del cell.aggregators[dead], cell.nodes["b"]
    cell.until_owned(*cell.aggregators)
    cell.until(lambda: set(cell.holders().values()) == {"a", "c"} and len(cell.holders()) == 6, "both others")
    cell.until(lambda: len(cell.cameras()) == 6, "all cameras at the aggregator that is left")

    for node in ("c", "a"):
        assert cell.nodes[node].stop() == 0, cell.nodes[node].err
        assert not cell.nodes[node].children()
        assert "Traceback" not in cell.nodes[node].err
    cell.events()
    cell.check_closed()


def test_a_stranger_s_node_captures_nothing(cell: Nodes) -> None:
    cell.add("cam-0")
    cell.node_with_all("a")
    cell.until(lambda: cell.holders() == {"cam-0": "a"}, "the camera")
    cell.add("cam-1", machine="b")
    key = keys.new(cell.cli.folder / "strange", "stranger", "node")
    b = cell.node("b", "--key", key)
    wait_for(
        lambda: cell.nodes["a"].err.count("refused on frames"), "a refusal", lambda: b.popen.poll() is None, cell.log
    )
    assert cell.holders() == {"cam-0": "a"}
    (address,) = cell.aggregators
    status = cell.status(address)
    assert status is not None
    assert set(status["cameras"]) == {"cam-0"}
