"""The registry of a cell: `fer-stream cameras` from any machine, with a real server, while no node runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from nats_servers import Cluster, NatsServer, api, ask

from fer_stream.errors import ConfigError, JournalError
from fer_stream.fleet.commons import REGISTRY, commons
from fer_stream.service.cell import LONGEST_REASON, CellCommands, decode_states, encode_states
from fer_stream.service.supervisor import CameraState
from fer_stream.settings import tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Cli, Process

    from fer_stream.settings.tree import Settings


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    found = NatsServer(tmp_path_factory.mktemp("nats")).start()
    yield found
    found.kill()


@pytest.fixture
def settings(server: NatsServer) -> Settings:
    for bucket in ("registry", "nodes", "keys"):
        api(server.address, f"STREAM.DELETE.KV_{bucket}")
    return tree.load({"fleet": {"cell": "site", "machine": "office"}, "journal": {"path": server.address}})


@pytest.fixture
def commands(settings: Settings) -> Iterator[CellCommands]:
    with CellCommands(settings) as found:
        yield found


def add(commands: CellCommands, name: str, source: str, **values: Any) -> None:
    commands.call({"do": "add", "camera": name, "settings": {"source": source, **values}})


def listed(commands: CellCommands) -> dict[str, dict[str, Any]]:
    return {camera["camera"]: camera for camera in commands.call({"do": "list"})["cameras"]}


def stored(settings: Settings) -> dict[str, Any]:
    with commons(settings).table(settings.fleet, REGISTRY) as table:
        return {name: json.loads(text) for name, text in table.read().items()}


def test_cameras_are_added_changed_and_removed_while_no_node_runs(settings: Settings, commands: CellCommands) -> None:
    add(commands, "front.door", "rtsp://user:file:/run/door@192.0.2.10/stream", rate=10.0)
    add(commands, "desk", "0")
    assert stored(settings) == {
        "front.door": {"source": "rtsp://user:file:/run/door@192.0.2.10/stream", "rate": 10.0},
        "desk": {"source": "0", "machine": "office"},
    }
    found = listed(commands)
    assert [found[name]["machine"] for name in ("front.door", "desk")] == ["*", "office"]
    assert {(camera["state"], camera["node"]) for camera in found.values()} == {("waiting", "")}
    assert "no node runs" in found["desk"]["reason"]
    change = {"do": "change", "camera": "front.door", "settings": {"rate": 5.0}, "unset": []}
    assert commands.call(change) == {"changed": True, "lasts": True}
    assert commands.call(change) == {"changed": False, "lasts": True}
    commands.call({"do": "remove", "camera": "desk"})
    assert stored(settings) == {"front.door": {"source": "rtsp://user:file:/run/door@192.0.2.10/stream", "rate": 5.0}}
    add(commands, "desk", "0")
    assert stored(settings).keys() == {"front.door", "desk"}, "a name may come again"


def test_the_machine_follows_the_source(settings: Settings, commands: CellCommands) -> None:
    def change(**values: Any) -> str | None:
        unset = values.pop("unset", [])
        commands.call({"do": "change", "camera": "a", "settings": values, "unset": unset})
        machine: str | None = stored(settings)["a"].get("machine")
        return machine

    add(commands, "a", "demo", machine="kitchen")
    assert change(source="1") == "kitchen", "still a source of its machine"
    assert change(rate=5.0) == "kitchen"
    assert change(unset=["machine"]) == "office"
    assert change(source="rtsp://192.0.2.10/") is None
    assert change(machine="kitchen") == "kitchen"
    assert change(source="rtsp://192.0.2.11/") == "kitchen", "an operator has chosen it"
    assert change(unset=["machine"]) is None
    assert change(source="/films/a.mp4") == "office"
    assert change(machine="*") == "*", "a file that lies on every machine"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"source": "rtsp://user:secret@192.0.2.10/"}, "passwords are not stored"),
        ({"source": "demo", "machine": "not a name"}, "machine"),
        ({"source": "demo", "rate": -1}, "rate"),
    ],
)
def test_what_is_refused_changes_nothing(
    values: dict[str, Any], sentence: str, settings: Settings, commands: CellCommands
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        commands.call({"do": "add", "camera": "a", "settings": values})
    assert stored(settings) == {}


def test_two_operators_do_not_overwrite_each_other(settings: Settings, commands: CellCommands) -> None:
    add(commands, "a", "demo")
    with CellCommands(settings) as other:
        other.call({"do": "change", "camera": "a", "settings": {"rate": 5.0}})
        with pytest.raises(JournalError, match="somebody else has changed a in the registry"):
            commands.call({"do": "change", "camera": "a", "settings": {"rate": 9.0}})
        with pytest.raises(JournalError, match="somebody else"):
            commands.call({"do": "remove", "camera": "a"})
        assert stored(settings)["a"]["rate"] == 5.0
        listed(commands)  # has looked at it
        commands.call({"do": "change", "camera": "a", "settings": {"rate": 9.0}})
        assert stored(settings)["a"]["rate"] == 9.0
        with pytest.raises(ConfigError, match="there is a camera a already"):
            add(commands, "A", "demo")


def test_an_answer_that_was_lost_is_no_conflict(settings: Settings) -> None:
    """The first attempt was carried out, and the second one meets its own result."""
    with (
        commons(settings).table(settings.fleet, REGISTRY) as table,
        commons(settings).table(settings.fleet, REGISTRY) as other,
    ):
        table.read()
        other.read()
        other.put("a", "text")
        table.put("a", "text")
        with pytest.raises(JournalError, match="somebody else"):
            change_after(settings, other)


def change_after(settings: Settings, table: Any) -> None:
    with commons(settings).table(settings.fleet, REGISTRY) as third:
        third.read()
        third.put("a", "new")
    table.put("a", "other")


def test_what_another_program_wrote_is_told_and_can_be_removed(settings: Settings, commands: CellCommands) -> None:
    async def write(client: Any) -> None:
        for name, value in (("odd", b"no table"), ("wrong", b'{"source": "demo", "unknown": 1}')):
            await client.jetstream().publish(f"$KV.registry.{name}", value)

    ask(settings.journal.path, write)
    answer = commands.call({"do": "list"})
    assert [camera["camera"] for camera in answer["unused"]] == ["odd", "wrong"]
    assert answer["cameras"] == []
    for name in ("odd", "wrong"):
        commands.call({"do": "remove", "camera": name})
    assert stored(settings) == {}


def test_what_nodes_tell_and_what_another_program_wrote() -> None:
    told = {"b": CameraState("failing", 7.0, "x" * 1000), "a": CameraState("online", 5.0, "")}
    assert decode_states(encode_states(told)) == {
        "a": CameraState("online", 5.0, ""),
        "b": CameraState("failing", 7.0, "x" * LONGEST_REASON),
    }
    for text in ("", "x", "[]", '{"cameras": []}', '{"cameras": {"a": 1}}', '{"cameras": {"a": ["online"]}}'):
        assert decode_states(text) == {}
    many = {"n" * 60 + str(number): CameraState("failing", 1.8e9, "x" * 1000) for number in range(256)}
    assert len(encode_states(many)) < 65_536


def test_settings_of_no_cell(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set its name"):
        commons(tree.load({"journal": {"path": settings.journal.path}}))
    with pytest.raises(ConfigError, match=r"needs a journal in NATS, and journal.path is .*events.db"):
        commons(tree.load({"fleet": {"cell": "site"}, "journal": {"path": tmp_path / "events.db"}}))
    with CellCommands(settings):
        pass
    other = settings.model_copy(update={"fleet": settings.fleet.model_copy(update={"cell": "other"})})
    with pytest.raises(JournalError, match="has another cell"):
        CellCommands(other)


def operator(cli: Cli, server: NatsServer, *arguments: object, code: int = 0) -> Process:
    names = {"FER_STREAM_FLEET__CELL": "site", "FER_STREAM_FLEET__MACHINE": "office"}
    process = cli.run("cameras", *arguments, FER_STREAM_JOURNAL__PATH=server.address, **names)
    assert process.popen.returncode == code, process.err
    return process


def test_the_command(cli: Cli, server: NatsServer, settings: Settings) -> None:
    added = operator(cli, server, "add", "desk", "demo", "--rate", "5", "--timeout", "5")
    assert added.out == "camera desk is added\n"
    assert "camera desk gives no pictures: no node runs: start `fer-stream node`" in added.err
    operator(cli, server, "add", "door", "rtsp://user:env:DOOR@192.0.2.10/", "--timeout", "5")
    operator(cli, server, "change", "door", "--machine", "kitchen", "--timeout", "5")
    lines = operator(cli, server, "list").out.splitlines()
    assert lines[0].split() == ["camera", "state", "since", "machine", "node", "source", "settings", "reason"]
    assert lines[1].split()[:6] == ["desk", "waiting", "office", "demo", "rate=5.0", "no"]
    assert "kitchen" in lines[2]
    assert "rtsp://user:env:DOOR@192.0.2.10/" in lines[2]
    assert operator(cli, server, "remove", "door").out == "camera door is removed\n"
    (left,) = operator(cli, server, "list", "--format", "jsonl").events
    assert (left["camera"], left["machine"], left["node"]) == ("desk", "office", "")
    assert "a cell has no reload" in operator(cli, server, "reload", code=2).err


def test_without_servers(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    gone = NatsServer(folder)
    assert "nothing listens there" in operator(cli, gone, "list", code=1).err


def test_the_registry_survives_a_server(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path).start()
    try:
        settings = tree.load({"fleet": {"cell": "site"}, "journal": {"path": cluster.address}})
        with CellCommands(settings) as commands:
            add(commands, "a", "rtsp://192.0.2.10/")
            assert api(cluster.address, "STREAM.INFO.KV_registry")["config"]["num_replicas"] == 3
            cluster.leader("KV_registry").kill()
            add(commands, "b", "rtsp://192.0.2.11/")
            assert stored(settings).keys() == {"a", "b"}
    finally:
        cluster.kill()
