"""Nodes as processes, with a real server, aggregator and workers: who captures what, and what moves when one dies."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from nats_servers import Cluster, NatsServer
from processes import balanced, free_port, wait_for
from running_cameras import page

from fer_stream.client import status
from fer_stream.errors import TransportError
from fer_stream.fleet.commons import NODES, commons
from fer_stream.fleet.nodes import decode
from fer_stream.service.cell import CellCommands
from fer_stream.settings import tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Cli, Process
    from scale import Scale


class Site:
    """A cell with one aggregator, which is not part of it, and nodes that are given its address."""

    def __init__(self, cli: Cli, server: NatsServer | Cluster) -> None:
        self.cli = cli
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.settings = tree.load({"fleet": {"cell": "site"}, "journal": {"path": server.address}})
        (cli.folder / "cell.toml").write_text(
            f'[fleet]\ncell = "site"\n[journal]\npath = "{server.address}"\n[smoother]\nupdate_interval = 1.0\n'
        )
        self.aggregator = cli.start("aggregator", "--bind", self.address, "--journal", "events.db")
        self.nodes: dict[str, Process] = {}

    def node(self, name: str, *more: object) -> Process:
        self.nodes[name] = self.cli.start(
            *("node", "--config", "cell.toml", "--machine", name, "--connect", self.address, *more)
        )
        return self.nodes[name]

    def operator(self, do: str, **request: Any) -> dict[str, Any]:
        with CellCommands(self.settings) as commands:
            return commands.call({"do": do} | request)

    def add(self, name: str, source: str = "demo", machine: str = "*", **values: Any) -> None:
        values = {"source": source, "machine": machine, "rate": 2.0, "loop": True} | values
        self.operator("add", camera=name, settings=values)

    def listed(self) -> dict[str, dict[str, Any]]:
        return {camera["camera"]: camera for camera in self.operator("list")["cameras"]}

    def holders(self) -> dict[str, str]:
        """The node that captures each camera, of those that are online."""
        return {name: one["node"] for name, one in self.listed().items() if one["state"] == "online"}

    def beats(self) -> dict[str, int]:
        """The number of each node's latest beat."""
        with commons(self.settings).table(self.settings.fleet, NODES) as table:
            beats = {key: decode(text) for key, text in table.read().items()}
        return {key: beat.number for key, beat in beats.items() if beat is not None}

    def status(self) -> dict[str, Any]:
        try:
            return status(tree.load({"address": self.address}), timeout=10)
        except TransportError:
            return {"cameras": {}}

    def events(self, kind: str) -> list[dict[str, Any]]:
        found = self.cli.run("subscribe", "--journal", "events.db", "--format", "jsonl").events
        return [event for event in found if event["type"] == kind]

    def until(self, condition: Any, what: str) -> Any:
        def alive() -> bool:
            return all(node.popen.poll() is None for node in self.nodes.values())

        return wait_for(condition, what, alive, lambda: "\n".join(node.err for node in self.nodes.values()))

    def captures(self, node: str) -> set[str]:
        titles = ["".join(child.cmdline()[:1]) for child in self.nodes[node].children()]
        return {title.partition("capture ")[2] for title in titles if "capture " in title}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    folder = tmp_path / "nats"
    folder.mkdir()
    found = NatsServer(folder).start()
    yield found
    found.kill()


@pytest.fixture
def site(cli: Cli, server: NatsServer) -> Site:
    return Site(cli, server)


def test_two_nodes_share_the_cameras_and_one_takes_over(site: Site) -> None:
    for number in range(6):
        site.add(f"cam-{number}")
    site.add("desk", machine="a")
    names = {*(f"cam-{number}" for number in range(6)), "desk"}
    port = free_port()
    a = site.node("a", "--workers", 1, "--metrics", f"127.0.0.1:{port}")
    site.until(lambda: site.holders() == dict.fromkeys(names, "a"), "all cameras at the only node")
    wait_for(lambda: ready(port), "readiness")
    assert 'fer_stream_capture_frames_total{camera="cam-0",' in page(port)
    b = site.node("b")
    shared = site.until(
        lambda: (found := site.holders()).keys() == names and 3 <= list(found.values()).count("b") <= 4 and found,
        "both nodes capture",
    )
    assert shared["desk"] == "a", "a camera that belongs to a machine stays there"
    assert site.captures("a") | site.captures("b") == names
    assert not site.captures("a") & site.captures("b")
    ledgers = {name: one["ledger"] for name, one in site.status()["cameras"].items()}
    assert ledgers.keys() == names
    assert all(balanced(ledger) for ledger in ledgers.values()), ledgers

    b.signal(signal.SIGKILL)
    for child in b.children():
        child.kill()
    b.end()
    del site.nodes["b"]
    site.until(lambda: site.holders() == dict.fromkeys(names, "a"), "the other node takes over")

    site.operator("remove", camera="cam-0")
    site.operator("change", camera="cam-1", settings={"rate": 3.0}, unset=[])
    site.until(lambda: site.holders() == dict.fromkeys(names - {"cam-0"}, "a"), "one fewer")
    site.until(lambda: "cam-0" not in site.captures("a"), "the end of its capture")
    assert a.stop() == 0, a.err
    assert not a.children()
    assert "Traceback" not in a.err
    reasons = {(event["source"], event["data"]["reason"]) for event in site.events("camera.offline")}
    assert reasons >= {("/cameras/cam-0", "camera removed"), ("/cameras/cam-1", "capture ended")}
    assert not any(reason == "camera removed" for camera, reason in reasons if camera != "/cameras/cam-0")


def ready(port: int) -> bool:
    with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
        return bool(answer.status == 200)
    return False


def test_while_the_engine_is_away_everything_goes_on(site: Site, server: NatsServer) -> None:
    for number in range(4):
        site.add(f"cam-{number}")
    a, _ = site.node("a", "--workers", 1), site.node("b")
    names = {f"cam-{number}" for number in range(4)}
    before = site.until(
        lambda: (found := site.holders()).keys() == names and set(found.values()) == {"a", "b"} and found, "both"
    )
    processes = {child.pid for node in site.nodes.values() for child in node.children()}
    done = {name: camera["ledger"]["done"] for name, camera in site.status()["cameras"].items()}
    server.kill()
    site.until(
        lambda: all(site.status()["cameras"][name]["ledger"]["done"] > done[name] + 16 for name in names),
        "frames for twice the time after which a node counts as dead",
    )
    server.start()
    site.until(lambda: site.holders() == before, "the nodes' word")
    assert processes == {child.pid for node in site.nodes.values() for child in node.children()}, "none was restarted"
    site.add("new", machine="b")
    site.until(lambda: site.holders().get("new") == "b", "a camera that was added afterwards")
    assert a.stop() == 0


def test_the_death_of_the_bucket_s_leader_moves_nothing(cli: Cli, tmp_path: Path, scale: Scale) -> None:
    folder = tmp_path / "nats"
    folder.mkdir()
    cluster = Cluster(folder).start()
    try:
        site = Site(cli, cluster)
        for number in range(4):
            site.add(f"cam-{number}")
        site.node("a", "--workers", 1)
        site.node("b")
        before = site.until(
            lambda: len(found := site.holders()) == 4 and set(found.values()) == {"a", "b"} and found, "both nodes"
        )
        processes = {child.pid for node in site.nodes.values() for child in node.children()}
        for _ in range(scale.of(1, 50)):
            leader = cluster.leader("KV_nodes")
            leader.kill()
            # Nobody counts as silent until T seconds after the others can write again, and a newcomer waits for longer.
            said = wait_for(site.beats, "the nodes' words")
            site.until(
                lambda said=said: all(now > said[name] + 20 for name, now in site.beats().items()),
                "ten seconds of beats",
            )
            leader.start(wait=False)
            # A server that has just started may answer before it knows what was said.
            site.until(lambda: site.holders() == before, "the same holders")
            assert {child.pid for node in site.nodes.values() for child in node.children()} == processes
    finally:
        cluster.kill()


def test_a_node_that_leaves_gives_its_cameras_at_once(site: Site) -> None:
    for number in range(4):
        site.add(f"cam-{number}")
    site.node("a", "--workers", 1)
    b = site.node("b")
    site.until(lambda: set(site.holders().values()) == {"a", "b"} and len(site.holders()) == 4, "both")
    assert b.stop() == 0, b.err
    del site.nodes["b"]
    site.until(lambda: list(site.holders().values()) == ["a"] * 4, "all at the other")
    reasons = {event["data"]["reason"] for event in site.events("camera.offline")}
    assert reasons == {"capture ended"}, "nothing was lost or silent"


def test_two_nodes_of_one_name(site: Site) -> None:
    first = site.node("a")
    first.until_said("ready")
    second = site.cli.run("node", "--config", "cell.toml", "--machine", "a", "--connect", site.address)
    assert second.popen.returncode == 2
    assert "another node of the cell has the name a" in second.errors[0]
    assert first.popen.poll() is None


def test_what_a_node_needs(cli: Cli, site: Site, server: NatsServer) -> None:
    site.aggregator.until_said("ready")
    alone = cli.run("node")
    assert alone.popen.returncode == 2
    assert "this needs a cell: set its name (fleet.cell)" in alone.errors[0]
    everywhere = cli.run("node", "--config", "cell.toml", "--bind", f"tcp://0.0.0.0:{free_port()}")
    assert everywhere.popen.returncode == 2
    assert "state what it is used for with --purpose" in everywhere.errors[0]
    taken = cli.run("node", "--config", "cell.toml", "--bind", site.address)
    assert taken.popen.returncode == 1
    assert f"{site.address}" in taken.errors[0]
    assert "cannot be bound" in taken.errors[0]
    server.kill()
    gone = cli.run("node", "--config", "cell.toml")
    assert gone.popen.returncode == 1
    assert "nothing listens there" in gone.errors[0]


def test_a_camera_that_cannot_be_captured_is_listed_with_its_reason(site: Site) -> None:
    site.add("gone", source=str(site.cli.folder / "nowhere.mp4"), machine="a")
    site.add("elsewhere", machine="attic")
    site.node("a")
    site.until(lambda: site.listed()["gone"]["state"] == "failing", "the reason")
    listed = site.listed()
    assert "nowhere.mp4" in listed["gone"]["reason"]
    assert listed["gone"]["node"] == "a"
    assert listed["elsewhere"]["state"] == "waiting"
    assert listed["elsewhere"]["reason"] == "no node runs on the machine attic"


def test_a_child_that_is_killed_or_hangs_is_replaced(site: Site) -> None:
    site.add("desk", machine="a")
    a = site.node("a", "--workers", 1)
    site.until(lambda: site.holders() == {"desk": "a"}, "online")
    for title in ("worker 1", "capture desk"):
        child = a.child(title)
        child.kill()
        site.until(lambda title=title, pid=child.pid: a.child(title).pid != pid, f"another {title}")
    worker = a.child("worker 1")
    site.until(lambda: site.status().get("workers"), "its worker")
    worker.suspend()
    site.until(lambda: a.child("worker 1").pid != worker.pid, "a worker in place of the one that hangs")
    site.until(lambda: site.holders() == {"desk": "a"}, "online again")
