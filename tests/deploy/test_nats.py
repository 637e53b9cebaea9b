"""deploy/nats: three real servers with TLS, nkeys and rights. The journal works, and who may not write cannot."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import stat
import subprocess
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from journals import event, resets
from nats.errors import NoRespondersError
from nats_cell import PATIENCE, Cell, Owner, make_cell
from processes import wait_for

from fer_stream import plugins
from fer_stream.errors import JournalError
from fer_stream.journal.migration import migrate
from fer_stream.journal.sqlite import Writer
from fer_stream.settings.sections import FleetSettings
from fer_stream.types import AnnotationQuery
from tests.journal.test_annotations import annotation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Cli

USERS = ("--aggregator", "a1", "a2", "--node", "n1", "--operator", "desk", "--reader", "wall", "hall")
QUESTIONS = ("STREAM.INFO.FER_EV_00", "DIRECT.GET.FER_AN", "DIRECT.GET.FER_EV_00", "DIRECT.GET.FER_EV_01")


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    made = Cell(tmp_path_factory.mktemp("nats"), "--cell", "local", "--partitions", 2, *USERS).start()
    try:
        yield made.until_ready()
    finally:
        made.kill()


def contents(cell: Cell) -> dict[str, int]:
    """The number of the last message of each stream, as an aggregator sees them."""

    async def work(client: Any) -> dict[str, int]:
        found = {}
        for name in ("FER_EV_00", "FER_EV_01", "KV_cameras", "KV_parts"):
            answer = json.loads((await client.request(f"$JS.API.STREAM.INFO.{name}", timeout=5)).data)
            found[name] = answer["state"]["last_seq"] if "state" in answer else -1
        return found

    return dict(cell.ask("a1", work))


@pytest.fixture(scope="module")
def stored(cell: Cell) -> Cell:
    """The cell with events in both partitions, stored by an aggregator alone, and by one of a cell."""
    alone = plugins.journal(cell.settings("a1")).writer()
    alone.append([event("camera.online"), event("emotion.started", track=1)]).result(PATIENCE)
    alone.epoch("door").result(PATIENCE)
    alone.close()
    owner = Owner(cell.settings("a2"), "local", 2)
    assert owner.append(1, resets(1))
    owner.close()
    return cell


def test_a_run_keeps_its_journal_there_and_a_reader_reads_it(cell: Cell, cli: Cli, clip: Path) -> None:
    run = cli.run(
        "run", f"film={clip}", "--policy", "wait", "--workers", 1, "--format", "jsonl", **cell.environment("a1")
    )
    assert run.popen.returncode == 0, run.err
    assert run.events
    for reader in ("wall", "desk"):
        options = ("--journal", cell.address, "--camera", "film", "--format", "jsonl")
        assert cli.run("subscribe", *options, **cell.environment(reader)).events == run.events
    doctor = cli.run("doctor", **cell.environment("a2"))
    assert "3 copies" in doctor.out
    older = cli.run("purge", "--older-than", "1d", **cell.environment("desk"))
    assert older.out.startswith("0 events deleted from tls://")


def test_an_aggregator_of_a_cell_has_the_rights_that_it_needs(stored: Cell) -> None:
    """See `stored`: it has written an event of partition 1, as an aggregator of a cell does."""
    assert contents(stored)["FER_EV_01"] == 2


def test_the_servers_write_to_their_disks_at_once(cell: Cell) -> None:
    for host in cell.hosts:
        with urllib.request.urlopen(f"http://{host}:{cell.ports['8222']}/jsz") as answer:
            assert json.load(answer)["config"]["sync_always"] is True


def test_a_stranger_cannot_connect(cell: Cell, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert make_cell(other, "--server", "127.0.0.1", "--aggregator", "a1").returncode == 0
    settings = cell.settings("a1")
    for wrong, sentence in (
        ({"credentials": None}, "refuses this process"),
        ({"credentials": other / "a1.nk"}, "refuses this process"),
        ({"ca": other / "ca.pem"}, "has no encrypted connection that can be trusted"),
        ({"path": cell.address.replace("tls://", "nats://"), "credentials": None}, "has no encrypted connection"),
    ):
        with pytest.raises(JournalError, match=sentence):
            plugins.journal(settings.model_copy(update=wrong)).reader()


def test_a_server_of_another_authority_cannot_join(cell: Cell, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_cell(other, "--server", "127.0.0.1")
    context = ssl.create_default_context(cafile=cell.folder / "ca.pem")
    context.load_cert_chain(other / "127.0.0.1/server.pem", other / "127.0.0.1/server.key")

    def joins() -> bytes:
        with (
            socket.create_connection((cell.hosts[1], cell.ports["6222"]), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=cell.hosts[1]) as route,
        ):
            return route.recv(100)

    with pytest.raises((ssl.SSLError, ConnectionError)):
        joins()
    context.load_cert_chain(cell.folder / "127.0.0.1/server.pem", cell.folder / "127.0.0.1/server.key")
    assert joins().startswith(b"INFO ")


def attempts(cell: Cell) -> list[tuple[str, bytes, str]]:
    """Ways to write: subject, data, and the subject at which the answer is to arrive."""
    consumer = {"stream_name": "FER_EV_00", "config": {"name": "x", "deliver_subject": "$KV.cameras.00.door"}}
    inbox = "_INBOX.x"
    return [
        ("fer.local.ev.00.c.door", b"{}", inbox),
        ("fer.local.ev.01.fence", b"stranger", inbox),
        ("fer.local.an.door.0.x", b"{}", inbox),
        ("fer.local.live.00.c.door", b"{}", ""),
        ("$KV.cameras.00.door", b"{}", inbox),
        ("$KV.parts.00", b"{}", inbox),
        ("$KV.registry.door", b"{}", inbox),
        ("$JS.API.STREAM.PURGE.FER_EV_00", b"", inbox),
        ("$JS.API.STREAM.DELETE.FER_EV_00", b"", inbox),
        ("$JS.API.STREAM.CREATE.mine", b'{"name": "mine", "subjects": ["x"]}', inbox),
        ("$JS.API.CONSUMER.CREATE.FER_EV_00.x", json.dumps(consumer).encode(), inbox),
        # The server writes the answer to any subject that the question names.
        *((f"$JS.API.{each}", b'{"seq": 1}', "fer.local.ev.01.c.door") for each in QUESTIONS),
        *((f"FER.API.{each}", b"", "fer.local.ev.01.c.door") for each in QUESTIONS),
        ("$JS.API.INFO", b"", "fer.local.ev.01.fence"),
    ]


async def attempt(client: Any, ways: list[tuple[str, bytes, str]]) -> None:
    for subject, data, reply in ways:
        await client.publish(subject, data, reply=reply)
    await client.flush()
    await client.request("$JS.API.STREAM.INFO.FER_EV_00", timeout=5)  # answered after what was sent before


def test_a_reader_reads_the_annotations_of_a_cell(stored: Cell) -> None:
    fleet = FleetSettings(cell="local", partitions=2)
    with plugins.journal(stored.settings("wall"), fleet).reader() as reader:
        assert reader.annotations(AnnotationQuery()) == ([], 0), "there is no stream yet"
    alone = plugins.journal(stored.settings("a1")).writer()
    made = alone.annotate(annotation(1)).result(PATIENCE)
    alone.close()
    for user in ("wall", "desk", "a2"):
        with plugins.journal(stored.settings(user), fleet).reader() as reader:
            assert reader.annotations(AnnotationQuery()).found == [made]
            assert reader.annotations(AnnotationQuery(made.start, made.end, "door")).found == [made]
            assert reader.annotations(AnnotationQuery(made.end)).found == []


def test_a_reader_reads_and_writes_nothing(stored: Cell) -> None:
    before = contents(stored)

    async def work(client: Any) -> dict[str, Any]:
        await attempt(client, attempts(stored))
        with pytest.raises(NoRespondersError):
            await client.request("$JS.API.DIRECT.GET.KV_cameras", b'{"seq": 1}')
        for other in ("STREAM.INFO.KV_cameras", "STREAM.MSG.GET.FER_EV_00", "STREAM.LIST"):
            answer = await client.request(f"$JS.API.{other}", b'{"seq": 1}', timeout=5)
            assert "not enabled for account" in json.loads(answer.data)["error"]["description"]
        answer = await client.request("$JS.API.STREAM.INFO.FER_EV_00", timeout=5)
        return dict(json.loads(answer.data)["state"])

    assert stored.ask("wall", work)["last_seq"] == before["FER_EV_00"]
    assert contents(stored) == before


def test_the_ways_to_write_are_real_ones(stored: Cell) -> None:
    """An aggregator's key is in the account of the streams: the same attempts change them."""
    before = contents(stored)
    injected = [way for way in attempts(stored) if way[2].startswith("fer.")]
    stored.ask("a1", lambda client: attempt(client, injected))
    wait_for(lambda: contents(stored)["FER_EV_01"] > before["FER_EV_01"], "an answer in the stream")


def test_nodes_and_operators_write_no_events(stored: Cell) -> None:
    forbidden = ("fer.local.ev.00.c.door", "fer.local.ev.00.fence", "$KV.parts.00", "$KV.alive.x")

    async def work(client: Any) -> list[str]:
        for subject in (*forbidden, "$JS.API.STREAM.DELETE.FER_EV_00"):
            await client.publish(subject, b"x")
        await client.flush()
        await asyncio.wait_for(_until(lambda: len(client.errors) == 5), PATIENCE)
        return list(client.errors)

    before = contents(stored)
    for user in ("n1", "desk"):
        assert all("permissions violation for publish" in error for error in stored.ask(user, work))
    assert contents(stored) == before


async def _until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.02)


def test_a_user_can_be_added_and_removed_while_the_servers_run(stored: Cell) -> None:
    def opened(user: str) -> plugins.JournalReader:
        return plugins.journal(stored.settings(user), FleetSettings(cell="local", partitions=2)).reader()

    before = {path: path.read_bytes() for path in stored.folder.rglob("*.*") if path.suffix in (".pem", ".key", ".nk")}
    assert make_cell(stored.folder, "--reader", "late", "--remove", "hall").returncode == 0
    gone = stored.folder / "hall.nk"
    assert {path: path.read_bytes() for path in before if path != gone} == {
        path: text for path, text in before.items() if path != gone
    }
    assert not gone.exists()
    gone.touch(0o600)
    gone.write_bytes(before[gone])
    opened("hall").close()
    with pytest.raises(JournalError, match="refuses this process"):
        opened("late")
    stored.write()
    for server in stored.servers:
        server.signal(signal.SIGHUP)
        wait_for(lambda s=server: "Reloaded: accounts" in s.log, "the new users", log=lambda s=server: s.log)
    opened("late").close()
    with pytest.raises(JournalError, match="refuses this process"):
        opened("hall")


def test_what_is_written_is_for_the_owner_only(cell: Cell) -> None:
    for path in cell.folder.rglob("*"):
        if path.name != "server.conf":
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_an_operator_moves_a_journal_to_the_servers(tmp_path: Path) -> None:
    cell = Cell(tmp_path, "--cell", "site", "--partitions", 2, "--operator", "desk", "--reader", "wall").start()
    try:
        cell.until_ready()
        with Writer(tmp_path / "events.db") as old:
            old.epoch("door")
            old.append(resets(3))
        fleet = FleetSettings(cell="site", partitions=2)
        assert migrate(tmp_path / "events.db", cell.settings("desk"), fleet)[:2] == (3, 1)
        with pytest.raises(JournalError, match="has no JetStream for this user"):
            migrate(tmp_path / "events.db", cell.settings("wall"), fleet)
    finally:
        cell.kill()


def test_a_certificate_is_for_the_server_s_name_and_is_kept(tmp_path: Path) -> None:
    names = ("nats-0.nats", "192.0.2.1", "2001:db8::1")
    assert make_cell(tmp_path, "--server", *names).returncode == 0
    before = [(tmp_path / name / "server.pem").read_bytes() for name in names]
    for name, kind in zip(
        names, ("DNS:nats-0.nats", "IP Address:192.0.2.1", "IP Address:2001:DB8:0:0:0:0:0:1"), strict=True
    ):
        shown = ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", tmp_path / name / "server.pem"]
        assert f"{kind}, " in subprocess.run(shown, capture_output=True, text=True, check=True).stdout
        signed = ["openssl", "verify", "-CAfile", tmp_path / "ca.pem", tmp_path / name / "server.pem"]
        assert subprocess.run(signed, capture_output=True, check=False).returncode == 0
    assert make_cell(tmp_path, "--server", "n4").returncode == 0
    assert [(tmp_path / name / "server.pem").read_bytes() for name in names] == before
    assert '"tls://[2001:db8::1]:6222", "tls://n4:6222"' in (tmp_path / "nats-0.nats/machine.conf").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "name the servers"),
        (("--server", "a/b"), "'a/b' cannot be a name"),
        (("--server", "n", "--partitions", "257"), "a cell 1 to 256 partitions"),
        (("--server", "n", "--remove", "x"), "no user or server x"),
    ],
)
def test_what_cannot_be_made_is_told(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    done = make_cell(tmp_path / "cell", *arguments)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert not (tmp_path / "cell").exists()


def test_a_cell_stays_what_it_is(tmp_path: Path) -> None:
    assert make_cell(tmp_path, "--server", "n", "--reader", "wall").returncode == 0
    assert "has partitions 16, which cannot be changed" in make_cell(tmp_path, "--partitions", "8").stderr
    assert "there is a user wall with the role reader" in make_cell(tmp_path, "--node", "wall").stderr
