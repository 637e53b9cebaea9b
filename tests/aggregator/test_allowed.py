"""The keys of a cell: a real server has the list, and an aggregator's links let in what it says."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from nats_servers import NatsServer, api, ask
from processes import free_port, wait_for

from fer_stream.aggregator.allowed import following
from fer_stream.errors import ConfigError, JournalError
from fer_stream.fleet.commons import KEYS, commons
from fer_stream.service.cell import CellRing
from fer_stream.settings import tree
from fer_stream.transports import keys
from fer_stream.transports.zeromq import ZeroMQ

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Cli

    from fer_stream.settings.tree import Settings
    from fer_stream.transports.keys import CellList
    from fer_stream.transports.zeromq import ZeroMQHub


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    found = NatsServer(tmp_path_factory.mktemp("nats")).start()
    yield found
    found.kill()


@pytest.fixture
def server(shared: NatsServer) -> NatsServer:
    api(shared.address, "STREAM.DELETE.KV_keys")
    return shared


def settings_at(server: NatsServer, folder: Path) -> Settings:
    return tree.load(
        {
            "fleet": {"cell": "site"},
            "journal": {"path": server.address},
            "address": f"tcp://127.0.0.1:{free_port()}",
            "keys": folder,
        }
    )


class Aggregator:
    """The links of an aggregator of the cell, with a folder of its own."""

    def __init__(self, settings: Settings, last: ExitStack) -> None:
        allowed = last.enter_context(following(settings))
        assert allowed is not None
        self.allowed: CellList = allowed
        self.hub: ZeroMQHub = ZeroMQ(keys=settings.keys).bind(settings.own_address, allowed)
        last.callback(self.hub.close)
        pair = keys.server(settings.keys or keys.default_folder())
        assert pair is not None
        self.address = f"{settings.own_address}#{pair[0]}"

    def hears(self, key: Path | None, link: str, folder: Path | None = None, seconds: float = 1.0) -> bool:
        """Whether a message arrives from a peer with this key, or with the key `LOCAL` of a folder."""
        peer = ZeroMQ(key, folder).connect(self.address, link)
        try:
            peer.send([b"hello"])
            end = time.monotonic() + seconds
            return any(
                bytes(parts[0]) == b"hello"
                for _ in iter(lambda: time.monotonic() < end, False)
                for _, _, parts in self.hub.receive(0.02)
            )
        finally:
            peer.close()


@pytest.fixture
def last() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_key_opens_the_links_of_its_role_at_every_aggregator(
    server: NatsServer, tmp_path: Path, last: ExitStack
) -> None:
    one, two = (settings_at(server, tmp_path / name) for name in ("one", "two"))
    with CellRing(one) as ring:
        node = keys.new(tmp_path / "office", "kitchen", "node", ring=ring)
        door = keys.new(tmp_path / "office", "door", "capture", ["door", "*"], ring)
        assert [(entry.name, entry.role) for entry in ring.entries()] == [("door", "capture"), ("kitchen", "node")]
    for settings in (one, two):
        aggregator = Aggregator(settings, last)
        public = keys.load(node).public
        wait_for(lambda found=aggregator, key=public: found.allowed.may(key, "frames"), "the list")
        for link in ("control", "frames", "work"):
            assert aggregator.hears(node, link, seconds=20), link
        assert aggregator.allowed.objection(public, "any") == ""
        assert aggregator.allowed.objection(keys.load(door).public, "any") == "", "* is any camera"
        assert aggregator.hears(door, "frames", seconds=20)
        assert not aggregator.allowed.may(keys.load(door).public, "control")


def test_a_revoked_key_and_a_stranger_s_open_nothing(server: NatsServer, tmp_path: Path, last: ExitStack) -> None:
    settings = settings_at(server, tmp_path / "one")
    aggregator = Aggregator(settings, last)
    with CellRing(settings) as ring:
        path = keys.new(tmp_path / "office", "kitchen", "node", ring=ring)
        kept = tmp_path / "kept.key"
        kept.write_bytes(path.read_bytes())
        kept.chmod(0o600)
        public = keys.load(kept).public
        wait_for(lambda: aggregator.allowed.may(public, "frames"), "a key that was made meanwhile")
        assert aggregator.hears(kept, "frames", seconds=20)
        keys.revoke(tmp_path / "office", "kitchen", ring)
        assert not path.exists()
        wait_for(lambda: not aggregator.allowed.may(public, "frames"), "that it was revoked")
        assert not aggregator.hears(kept, "frames")
        assert "not allowed any more" in aggregator.allowed.objection(public, "door")
    stranger = keys.new(tmp_path / "elsewhere", "stranger", "all")
    assert not aggregator.hears(stranger, "control")


def test_aggregators_may_ask_each_other(server: NatsServer, tmp_path: Path, last: ExitStack) -> None:
    one, two = (Aggregator(settings_at(server, tmp_path / name), last) for name in ("one", "two"))
    for asked, folder in ((one, tmp_path / "two"), (two, tmp_path / "one")):
        public = keys.load(folder / "local.key").public
        wait_for(lambda found=asked, key=public: found.allowed.may(key, "control"), "the other's key")
        assert asked.hears(None, "control", folder, seconds=20)


def test_keys_of_the_folder_do_not_count_in_a_cell(server: NatsServer, tmp_path: Path, last: ExitStack) -> None:
    settings = settings_at(server, tmp_path / "one")
    old = keys.new(tmp_path / "one", "old", "all")
    aggregator = Aggregator(settings, last)
    assert not aggregator.hears(old, "control")
    assert aggregator.hears(None, "control", tmp_path / "one", seconds=20), "but its own key does"


def test_the_last_known_list_is_in_force_while_the_servers_are_away(tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    folder.mkdir()
    server = NatsServer(folder).start()
    try:
        settings = settings_at(server, tmp_path / "one")
        with CellRing(settings) as ring:
            node = keys.new(tmp_path / "office", "kitchen", "node", ring=ring)
        public = keys.load(node).public
        with ExitStack() as last:
            aggregator = Aggregator(settings, last)
            wait_for(lambda: aggregator.allowed.may(public, "frames"), "the list")
            server.kill()
            assert aggregator.hears(node, "frames", seconds=20)
        with ExitStack() as last:  # the aggregator starts again
            aggregator = Aggregator(settings, last)
            assert aggregator.hears(node, "frames", seconds=20)
            server.start()
            with CellRing(settings) as ring:
                ring.entries()
                keys.revoke(tmp_path / "office", "kitchen", ring)
            wait_for(lambda: not aggregator.allowed.may(public, "frames"), "the servers' list again")
    finally:
        server.kill()


def test_a_damaged_copy_opens_nothing_and_is_replaced(server: NatsServer, tmp_path: Path) -> None:
    settings = settings_at(server, tmp_path / "one")
    with CellRing(settings) as ring:
        public = keys.load(keys.new(tmp_path / "office", "kitchen", "node", ring=ring)).public
    with following(settings) as allowed:
        wait_for(lambda: allowed.may(public, "frames"), "the list")
    copy = tmp_path / "one" / "cell.json"
    assert copy.stat().st_mode & 0o777 == 0o600
    copy.write_text("damaged")
    with following(settings) as allowed:
        wait_for(lambda: allowed.may(public, "frames"), "the list again")
    assert {key["name"] for key in json.loads(copy.read_text())["keys"]} >= {"kitchen"}


def test_what_another_program_wrote_is_no_key(server: NatsServer, tmp_path: Path) -> None:
    settings = settings_at(server, tmp_path / "one")
    texts = (b"no json", b"[]", b'{"role": "all", "public": "short"}', b'{"role": 1}', b"{}")

    async def write(client: object) -> None:
        for number, text in enumerate(texts):
            await client.jetstream().publish(f"$KV.keys.odd-{number}", text)  # type: ignore[attr-defined]

    with CellRing(settings) as ring:
        ask(server.address, write)
        assert ring.entries() == []
        public = keys.load(keys.new(tmp_path / "office", "kitchen", "node", ring=ring)).public
    with following(settings) as allowed:
        wait_for(lambda: allowed.may(public, "frames"), "the list")


def test_two_operators_who_make_a_key_of_one_name(server: NatsServer, tmp_path: Path) -> None:
    settings = settings_at(server, tmp_path / "one")
    with CellRing(settings) as ring, CellRing(settings) as other:
        assert ring.entries() == other.entries() == []
        keys.new(tmp_path / "office", "kitchen", "node", ring=ring)
        with pytest.raises(JournalError, match="somebody else has changed kitchen in the keys"):
            other.put(keys.Entry("kitchen", "node", "x" * 40))
        with pytest.raises(ConfigError, match="there is a key kitchen already"):
            keys.new(tmp_path / "attic", "kitchen", "node", ring=other)
    with commons(settings).table(settings.fleet, KEYS) as table:
        assert table.read().keys() == {"kitchen"}


def test_on_one_machine_nobody_needs_a_key(server: NatsServer) -> None:
    settings = settings_at(server, None)  # type: ignore[arg-type]
    with following(settings) as allowed:
        assert allowed is None


def test_the_command(cli: Cli, server: NatsServer) -> None:
    where = {"FER_STREAM_FLEET__CELL": "site", "FER_STREAM_JOURNAL__PATH": server.address}
    empty = cli.run("keys", "list", **where)
    assert empty.err == "no key is allowed: the cell site lists none; `fer-stream keys new` makes one\n"
    made = cli.run("keys", "new", "kitchen", "--role", "node", "--keys", "mine", **where)
    assert made.out == "mine/kitchen.key\n"
    assert keys.load(cli.folder / "mine" / "kitchen.key").server == ""
    assert [line.split()[:2] for line in cli.run("keys", "list", **where).out.splitlines()] == [["kitchen", "node"]]
    assert cli.run("keys", "list", "--keys", "mine").out == "", "the folder lists none"
    without = cli.run("status", "--connect", "tcp://192.0.2.1:7000", "--key", "mine/kitchen.key")
    assert without.popen.returncode == 2
    assert "names no aggregator: add the public half" in without.errors[0]
    assert cli.run("keys", "revoke", "kitchen", "--keys", "mine", **where).popen.returncode == 0
    assert cli.run("keys", "list", **where).out == ""
