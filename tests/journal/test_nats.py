"""NATS: what happens when servers, connections and writers die, and the sentence for each wrong setting."""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from journals import resets
from nats_servers import STREAM, AnswersProxy, Cluster, NatsServer, api, ask
from processes import free_port, wait_for

from fer_stream import plugins
from fer_stream.errors import ConfigError, JournalError, RivalError
from fer_stream.events.cloudevents import decode
from fer_stream.journal.nats.connection import parse
from fer_stream.journal.nats.streams import escape, unescape
from fer_stream.settings.tree import JournalSettings
from fer_stream.types import GapData

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fer_stream.plugins import JournalWriter
    from fer_stream.plugins.journals import Stored

PATIENCE = 90.0
ANSWERED = 10.0
"""Seconds within which a batch is stored, unless its connection broke."""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[NatsServer]:
    """A server that a test may kill."""
    server = NatsServer(tmp_path).start()
    yield server
    server.kill()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    servers = Cluster(tmp_path).start()
    yield servers
    servers.kill()


@pytest.fixture
def opened() -> Iterator[Callable[..., JournalWriter]]:
    """Opens writers, which are closed at the end."""
    writers: list[JournalWriter] = []

    def open_writer(address: str, **settings: Any) -> JournalWriter:
        writers.append(plugins.journal(JournalSettings(path=address, **settings)).writer())
        return writers[-1]

    yield open_writer
    for writer in writers:
        writer.close()


def texts(address: str, after: int = 0, **settings: Any) -> list[str]:
    found: list[str] = []
    with plugins.journal(JournalSettings(path=address, **settings)).reader() as reader:
        while after < reader.cursor():
            more, after = reader.read(after)
            found += more
    return found


def write_until(writer: JournalWriter, enough: Callable[[int], bool], fault: Callable[[], None], at: int) -> list[str]:
    """Store events one batch after the other; cause a fault after ``at`` batches, and go on until it is enough."""
    stored: list[str] = []
    batches = 0
    while not enough(batches):
        batch: Future[list[Stored]] = writer.append(resets(3, first=1 + 3 * batches))
        batches += 1
        if batches == at:
            fault()
        stored += [text for _, text in batch.result(PATIENCE)]
        writer.check()
    return stored


def test_a_server_that_is_killed_and_started_again_loses_and_doubles_nothing(
    own: NatsServer, opened: Callable[..., JournalWriter]
) -> None:
    writer = opened(own.address)

    def restart() -> None:
        own.kill()
        own.start()

    stored: list[str] = []
    for round_ in range(3):
        first = 1 + 1000 * round_
        batches = [resets(3, first=first + 3 * n) for n in range(20)]
        for number, batch in enumerate(batches):
            future = writer.append(batch)
            if number == 7 + round_:
                restart()
            stored += [text for _, text in future.result(PATIENCE)]
    assert len(stored) == 180
    assert texts(own.address) == stored
    assert [decode(text).sequence for text in stored] == list(range(1, 181))


def test_the_leader_of_three_is_killed(cluster: Cluster, opened: Callable[..., JournalWriter]) -> None:
    writer = opened(cluster.address)
    assert api(cluster.address, f"STREAM.INFO.{STREAM}")["config"]["num_replicas"] == 3
    assert writer.epoch("door").result(PATIENCE) == 1
    leader = cluster.leader()
    stored = write_until(writer, lambda batches: batches >= 30, leader.kill, at=10)
    assert len(stored) == 90
    leader.start(wait=False)
    second = cluster.leader()
    more = writer.append(resets(5, "hall"))
    second.signal(signal.SIGSTOP)  # as if its machine was cut off
    try:
        stored += [text for _, text in more.result(PATIENCE)]
        stored += [text for _, text in writer.append(resets(5, "hall", 6)).result(PATIENCE)]
    finally:
        second.signal(signal.SIGCONT)
    assert texts(cluster.address) == stored
    assert [decode(text).sequence for text in stored if decode(text).camera == "hall"] == list(range(1, 11))
    with plugins.journal(JournalSettings(path=cluster.address)).reader() as reader:
        assert reader.read(0, camera="hall")[0] == stored[90:]


def test_a_server_that_refuses_for_a_while_is_used_again(own: NatsServer, opened: Callable[..., JournalWriter]) -> None:
    """After a refusal nats-py closes a client for good."""
    writer = opened(own.address)
    writer.append(resets(1)).result(PATIENCE)
    own.kill()
    own.configure(USERS)
    own.start()
    batch = writer.append(resets(1, first=2))
    wait_for(lambda: "refuses this process" in writer.trouble, "a sentence")
    own.kill()
    own.configure("")
    own.start()
    assert [e.sequence for e, _ in batch.result(PATIENCE)] == [2]
    other = opened(own.address)
    with pytest.raises(RivalError):
        writer.append(resets(1, first=3)).result(PATIENCE)
    assert other.append(resets(1, first=3)).result(PATIENCE)


def test_no_quorum_is_reported_and_events_wait(cluster: Cluster, opened: Callable[..., JournalWriter]) -> None:
    writer = opened(cluster.address)
    writer.append(resets(1)).result(PATIENCE)
    leader = cluster.leader()
    others = [server for server in cluster.servers if server is not leader]
    for server in others:
        server.kill()
    batch = writer.append(resets(1, first=2))
    assert writer.trouble or wait_for(lambda: writer.trouble, "a sentence")
    with pytest.raises(JournalError):
        writer.epoch("door").result(PATIENCE)
    others[0].start(wait=False)
    assert [e.sequence for e, _ in batch.result(PATIENCE)] == [2]
    assert len(texts(cluster.address)) == 2


# Answers that do not arrive, and writers that are suspended or killed


@pytest.fixture
def proxied(own: NatsServer) -> Iterator[AnswersProxy]:
    proxy = AnswersProxy(own.port)
    yield proxy
    proxy.close()


def in_stream(server: NatsServer) -> int:
    """The number of messages that were ever in the stream."""
    return int(api(server.address, f"STREAM.INFO.{STREAM}").get("state", {}).get("last_seq", 0))


class Program:
    """A process that writes events of the camera ``door``, and reports each batch before and after."""

    WRITER = """
        import sys
        from journals import resets
        from fer_stream import plugins
        from fer_stream.settings.tree import JournalSettings
        writer = plugins.journal(JournalSettings(path=sys.argv[1])).writer()
        for count in range(3, 100_000, 3):
            print("write", count, flush=True)
            writer.append(resets(3, first=count - 2)).result()
            print("wrote", count, flush=True)
    """

    PIPELINE = """
        import asyncio, sys
        import nats
        async def main():
            client = await nats.connect(sys.argv[1])
            last = 1
            for number in range(30_000):
                headers = {"Nats-Expected-Last-Sequence": str(last + number)}
                await client.publish("fer.local.ev.00.c.door", b"stale", headers=headers)
                if number % 10 == 0:
                    print("write", number, flush=True)
                    await client.flush()
            print("end", flush=True)
        asyncio.run(main())
    """

    def __init__(self, address: str, text: str = WRITER) -> None:
        self.lines: list[str] = []
        helpers = str(Path(__file__).parents[1])
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(text), address],
            env=os.environ | {"PYTHONPATH": helpers},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(line.strip() for line in self.process.stdout)

    def _collect(self) -> None:
        self._reader.join()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def until(self, condition: Callable[[], Any], what: str) -> None:
        wait_for(condition, what, lambda: self.process.poll() is None)

    def kill(self) -> None:
        self.process.kill()
        self._collect()

    def end(self) -> str:
        """Wait for its end, and return what it wrote to stderr."""
        assert self.process.stderr is not None
        errors = self.process.stderr.read()
        self._collect()
        return errors


def test_a_batch_whose_answer_is_lost_is_stored_once(
    own: NatsServer, opened: Callable[..., JournalWriter], proxied: AnswersProxy
) -> None:
    writer = opened(proxied.address)
    stored = writer.append(resets(2)).result(PATIENCE)
    proxied.hold_answers()
    batch = writer.append(resets(3, first=3))
    wait_for(lambda: in_stream(own) == 6, "the batch in the stream")
    wait_for(lambda: writer.trouble, "a sentence")
    assert not batch.done()
    proxied.release_answers()
    stored += [*batch.result(PATIENCE), *writer.append(resets(1, first=6)).result(PATIENCE)]
    assert texts(own.address) == [text for _, text in stored]
    assert in_stream(own) == 7


def test_a_batch_stored_before_its_writer_was_killed_is_not_doubled(
    own: NatsServer, opened: Callable[..., JournalWriter], proxied: AnswersProxy
) -> None:
    program = Program(proxied.address)
    try:
        held = -math.inf

        def unanswered() -> bool:
            nonlocal held
            what, _, count = program.lines[-1].partition(" ") if program.lines else ("", "", "")
            if what == "write" and in_stream(own) == 1 + int(count):
                return True
            if time.monotonic() - held > ANSWERED:  # the connection broke before the batch was sent: hold another one
                lines = len(program.lines)
                proxied.release_answers()
                program.until(lambda: len(program.lines) > lines, "another batch")
                proxied.hold_answers()
                held = time.monotonic()
            return False

        program.until(unanswered, "a batch that is stored and not acknowledged")
    finally:
        program.kill()
    written = int(program.lines[-1].partition(" ")[2])
    writer = opened(own.address)
    assert [e.sequence for e in map(decode, texts(own.address))] == list(range(1, written + 1))
    made_again = resets(3, first=written - 2)
    ((new, _),) = writer.append([*made_again, *resets(1, first=written + 1)]).result(PATIENCE)
    assert new.sequence == written + 1


@pytest.mark.parametrize("kind", ["ours", "pipelined"])
def test_a_suspended_writer_stores_nothing_after_another_took_over(
    own: NatsServer, opened: Callable[..., JournalWriter], kind: str
) -> None:
    """The second kind, which does not wait for answers, proves that this test can fail."""
    first = opened(own.address)  # makes the stream
    program = Program(own.address, Program.WRITER if kind == "ours" else Program.PIPELINE)
    try:
        program.until(lambda: len(program.lines) > 10, "some batches")
        program.process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)  # what it had sent arrives
        second = opened(own.address)
        fence = second.cursor
        second.append(resets(3, "hall")).result(PATIENCE)
        program.process.send_signal(signal.SIGCONT)
        if kind == "ours":
            assert "RivalError" in program.end()
            assert second.append(resets(1, "hall", 4)).result(PATIENCE)[0][0].sequence == 4
        else:
            program.until(lambda: program.lines[-1] == "end", "its last message")
    finally:
        program.kill()

    async def subjects(client: Any) -> list[str]:
        found = []
        for sequence in range(fence + 1, in_stream_of(own) + 1):
            message = await client.jetstream().get_msg(STREAM, sequence)
            found.append(message.subject)
        return found

    def in_stream_of(server: NatsServer) -> int:
        return min(last, fence + 50)

    last = in_stream(own)
    stale = [subject for subject in ask(own.address, subjects) if subject.endswith(".door")]
    assert (len(stale) == 0) == (kind == "ours")
    with pytest.raises(RivalError):
        wait_for(first.check, "its rival")


def test_an_idle_writer_learns_that_another_took_over(own: NatsServer, opened: Callable[..., JournalWriter]) -> None:
    first, _ = opened(own.address), opened(own.address)

    def raised() -> bool:
        try:
            first.check()
        except RivalError:
            return True
        return False

    wait_for(raised, "the error")
    with pytest.raises(RivalError):
        first.epoch("door").result(PATIENCE)


# What a server may lose, and what retention deletes


def test_a_stream_that_was_deleted_begins_again_with_higher_numbers(
    own: NatsServer, opened: Callable[..., JournalWriter]
) -> None:
    writer = opened(own.address)
    assert writer.epoch("door").result(PATIENCE) == 1
    last = int(writer.append(resets(4)).result(PATIENCE)[-1][0].cursor)
    for stream in (STREAM, "KV_cameras"):
        assert api(own.address, f"STREAM.DELETE.{stream}")["success"]
    ((stored, text),) = writer.append(resets(1, first=5)).result(PATIENCE)
    assert int(stored.cursor) > last
    assert stored.sequence == 5
    gap, *rest = texts(own.address)
    assert isinstance(decode(gap).data, GapData)
    assert rest[-1] == text
    assert writer.epoch("door").result(PATIENCE) == 2


def test_a_server_put_back_to_an_older_state_repeats_no_number(
    own: NatsServer, opened: Callable[..., JournalWriter], tmp_path: Path
) -> None:
    writer = opened(own.address)
    kept = [text for _, text in writer.append(resets(2)).result(PATIENCE)]
    own.kill()
    shutil.copytree(tmp_path / "one" / "data", tmp_path / "copy")
    own.start()
    last = int(writer.append(resets(1500 - 3, first=3)[:999]).result(PATIENCE)[-1][0].cursor)
    last = int(writer.append(resets(700, first=3000)).result(PATIENCE)[-1][0].cursor)
    own.kill()
    shutil.rmtree(tmp_path / "one" / "data")
    (tmp_path / "copy").rename(tmp_path / "one" / "data")
    own.start()
    ((stored, text),) = writer.append(resets(1, first=9000)).result(PATIENCE)
    assert int(stored.cursor) > last
    assert stored.sequence == 2 + 999 + 700 + 1
    *found, gap, latest = texts(own.address)
    assert (found, latest) == (kept, text)
    assert decode(gap).data == GapData(decode(kept[-1]).cursor, str(last), "retention")


def test_expired_events_are_a_gap_and_their_numbers_are_not_used_again(
    own: NatsServer, opened: Callable[..., JournalWriter]
) -> None:
    """The fence expires, too, and is renewed."""
    days = 1 / 86_400
    writer = opened(own.address, retention_days=days)
    assert writer.epoch("door").result(PATIENCE) == 1
    last = int(writer.append(resets(3)).result(PATIENCE)[-1][0].cursor)
    writer.purge(time.time() - days * 86_400).result(PATIENCE)
    wait_for(lambda: api(own.address, f"STREAM.INFO.{STREAM}")["state"]["messages"] == 0, "retention")
    (gap,) = texts(own.address)
    assert decode(gap).data == GapData("0", str(last), "retention")
    ((stored, _),) = writer.append(resets(1, first=9)).result(PATIENCE)
    assert (stored.sequence, int(stored.cursor) > last) == (4, True)
    writer.close()
    again = opened(own.address, retention_days=days)
    assert again.epoch("door").result(PATIENCE) == 2


def test_a_full_stream_holds_events_and_names_the_limit(own: NatsServer, opened: Callable[..., JournalWriter]) -> None:
    limit = 40_000 / 2**30
    writer = opened(own.address, max_gib=limit)
    stored: list[str] = []
    while not writer.trouble:
        batch = writer.append(resets(1, first=1 + len(stored)))

        def answered(batch: Future[list[Stored]] = batch) -> bool:
            return batch.done() or bool(writer.trouble)

        wait_for(answered, "an answer")
        stored += [text for _, text in batch.result()] if batch.done() else []
    assert "is full: it has reached journal.max_gib" in writer.trouble
    assert texts(own.address) == stored
    assert plugins.journal(JournalSettings(path=own.address)).purge(time.time() + 60) == len(stored)
    assert len(batch.result(PATIENCE)) == 1
    assert writer.trouble == ""


def test_a_full_stream_cannot_be_taken_over(own: NatsServer, opened: Callable[..., JournalWriter]) -> None:
    def take_over_often() -> None:
        for _ in range(100):
            opened(own.address, max_gib=2000 / 2**30)  # each needs room for its fence

    with pytest.raises(JournalError, match=r"is full: it has reached journal\.max_gib"):
        take_over_often()
    assert opened(own.address).append(resets(1)).result(PATIENCE), "with the default"


def test_changed_settings_change_the_stream(own: NatsServer, opened: Callable[..., JournalWriter]) -> None:
    opened(own.address).close()
    opened(own.address, retention_days=2, max_gib=0.5)
    found = api(own.address, f"STREAM.INFO.{STREAM}")["config"]
    assert (found["max_age"], found["max_bytes"]) == (2 * 86_400 * 10**9, 2**29)
    assert (found["discard"], found["allow_atomic"], found["deny_delete"]) == ("new", True, True)


# Sentences


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("nats://127.0.0.1", (("nats://127.0.0.1:4222",), "", "")),
        ("nats://me:pass%40word@a.example:1,b:2", (("nats://a.example:1", "nats://b:2"), "me", "pass@word")),
        ("tls://[::1]:7", (("tls://[::1]:7",), "", "")),
    ],
)
def test_an_address_has_these_parts(address: str, parts: tuple[tuple[str, ...], str, str]) -> None:
    found = parse(address)
    assert (found.servers, found.user, found.password) == parts
    assert "pass" not in found.name
    assert found.encrypted == address.startswith("tls")


@pytest.mark.parametrize(
    "address", ["nats://", "nats://a:0", "nats://a:99999", "nats://a/b", "nats://secret@a", "nats://a b", "nats://a,"]
)
def test_an_invalid_address_is_reported(address: str) -> None:
    with pytest.raises(ConfigError, match="is not the address of NATS servers: give nats://HOST:PORT"):
        plugins.journal(JournalSettings(path=address))


@pytest.mark.parametrize("name", ["door", "front.door", "a b", "*", ">", "tür", "=2E", "", "日本", "a=b"])
def test_an_escaped_name_is_one_token(name: str) -> None:
    token = escape(name)
    assert unescape(token) == name
    assert not set(token) & set(".*> ")
    assert token.isascii()


def refused(address: str, **settings: Any) -> str:
    """The sentence with which a writer, a reader and doctor refuse; no password is in it."""
    journal = plugins.journal(JournalSettings(path=address, **settings))
    sentences = set()
    for action in (journal.writer, journal.examine):
        with pytest.raises((JournalError, ConfigError)) as caught:
            action()
        sentences.add(str(caught.value))
    (sentence,) = sentences
    assert "secret" not in sentence
    assert "\n" not in sentence
    return sentence


def test_nothing_listens() -> None:
    assert "cannot be reached: nothing listens there; start nats-server" in refused(f"nats://127.0.0.1:{free_port()}")


def test_no_such_host() -> None:
    assert "cannot be reached: there is no such host" in refused("nats://nobody.invalid:4222")


def test_something_else_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            with suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    peer.close()

        threading.Thread(target=serve, daemon=True).start()
        assert "what listens there is no NATS server; check the port" in refused(f"nats://127.0.0.1:{port}")
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server_with(tmp_path: Path) -> Iterator[Callable[..., NatsServer]]:
    servers: list[NatsServer] = []

    def start(configuration: str, **options: Any) -> NatsServer:
        servers.append(NatsServer(tmp_path, configuration, name=f"s{len(servers)}", **options).start())
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


Servers = Callable[..., NatsServer]

USERS = 'authorization { users: [{user: fer, password: "secret"}] }'


def test_no_jetstream(server_with: Servers) -> None:
    address = server_with("", jetstream=False).address
    assert "has no JetStream for this user: start nats-server --jetstream" in refused(address)


def test_a_wrong_password_and_the_right_one(server_with: Servers, opened: Callable[..., JournalWriter]) -> None:
    port = server_with(USERS).port
    for address in (f"nats://127.0.0.1:{port}", f"nats://fer:secretly@127.0.0.1:{port}"):
        assert "refuses this process: check the user and password" in refused(address)
    writer = opened(f"nats://fer:secret@127.0.0.1:{port}")
    assert writer.append(resets(1)).result(PATIENCE)


def test_a_user_without_permission(server_with: Servers) -> None:
    users = 'authorization { users: [{user: fer, password: "secret", permissions: {publish: "x", subscribe: ">"}}] }'
    port = server_with(users).port
    assert "denies this user $JS.API.STREAM.INFO.FER_EV_00: grant it" in refused_writer(
        f"nats://fer:secret@127.0.0.1:{port}"
    )


def refused_writer(address: str, **settings: Any) -> str:
    with pytest.raises(JournalError) as caught:
        plugins.journal(JournalSettings(path=address, **settings)).writer()
    assert "secret" not in str(caught.value)
    return str(caught.value)


def test_a_missing_package_is_named_with_its_extra() -> None:
    program = (
        "import sys; sys.modules['nats'] = None; from fer_stream.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "purge", "--older-than", "1d", "--journal", "nats://127.0.0.1"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("fer-stream: error: this needs nats (")
    assert run.stderr.endswith("): pip install 'fer-stream[fleet]'\n")


def test_an_old_server(own: NatsServer) -> None:
    proxy = AnswersProxy(own.port, (b'"version":"2.15', b'"version":"2.11'))
    try:
        assert "needs nats-server 2.12 or newer, and this is 2.11: update the server" in refused(proxy.address)
    finally:
        proxy.close()


def test_a_stream_of_another_program(own: NatsServer) -> None:
    body = {"name": STREAM, "subjects": ["theirs.>"], "storage": "memory"}
    assert "error" not in api(own.address, f"STREAM.CREATE.{STREAM}", body)
    sentence = refused_writer(own.address)
    assert "has a stream FER_EV_00 that another program made, or an operator changed: subjects is" in sentence
    assert "storage is 'memory' instead of 'file'" in sentence


def test_too_little_room(server_with: Servers, tmp_path: Path) -> None:
    server = server_with(f'jetstream {{ store_dir: "{tmp_path / "small"}", max_file_store: 1MB }}', jetstream=False)
    assert "has no room for journal.max_gib (10): set less" in refused_writer(server.address)


def test_credentials_files(server_with: Servers, opened: Callable[..., JournalWriter], tmp_path: Path) -> None:
    import nkeys  # noqa: PLC0415

    seed = tmp_path / "fer.nk"
    seed.write_bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
    public = nkeys.from_seed(bytearray(seed.read_bytes())).public_key.decode()
    address = server_with(f"authorization {{ users: [{{nkey: {public}}}] }}").address
    assert opened(address, credentials=seed).append(resets(1)).result(PATIENCE)
    assert "refuses this process" in refused(address)
    assert "nowhere.nk cannot be read: No such file" in refused(address, credentials=tmp_path / "nowhere.nk")


def test_encrypted_connections(server_with: Servers, opened: Callable[..., JournalWriter], tmp_path: Path) -> None:
    for name in ("ca", "other"):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        command += ["-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem")]
        subprocess.run(command, check=True, capture_output=True)
    server = server_with(f'tls {{ cert_file: "{tmp_path / "ca.pem"}", key_file: "{tmp_path / "ca.key"}" }}')
    address = server.address.replace("nats://", "tls://")
    assert opened(address, ca=tmp_path / "ca.pem").append(resets(1)).result(PATIENCE)
    for wrong in ({}, {"ca": tmp_path / "other.pem"}):
        assert "has no encrypted connection that can be trusted" in refused(address, **wrong)
    assert "cannot be read" in refused(address, ca=tmp_path / "ca.key")
    assert "cannot be read: No such file" in refused(address, ca=tmp_path / "nowhere.pem")
