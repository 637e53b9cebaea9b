"""The protocol page matches the service: it is checked with a client in another language, and with real messages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import protocol
import pytest
import write
from documents import ROOT
from house import House, event
from processes import free_port, wait_for
from scripted import Cell, camera_of
from served import Service

from fer_stream import plugins
from fer_stream.client import status
from fer_stream.events import cloudevents
from fer_stream.fleet import answers
from fer_stream.imaging import limits
from fer_stream.protocol import messages, results
from fer_stream.protocol.messages import Kind
from fer_stream.transports import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from fer_stream.types import Event

EXAMPLES = ROOT / "docs/examples"
PAGE = (ROOT / "docs/reference/protocol.md").read_text()


def test_generated_pages_are_up_to_date() -> None:
    assert write.stale() == [], "run make reference, and commit what it writes"


def test_an_outdated_page_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("docs", "models", "tests/plugin"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.setattr(write, "DOCS", tmp_path / "docs")
    assert write.stale() == []
    page = tmp_path / "docs/reference/protocol.md"
    page.write_text(
        page.read_text().replace("| 92 bytes", "| 93 bytes").replace("92 bytes, big endian", "96 bytes, big endian")
    )
    (tmp_path / "docs/reference/asyncapi.json").unlink()
    assert write.stale() == ["reference/asyncapi.json", "reference/protocol.md"]


def test_pages_need_no_site_builder() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        text = page.read_text()
        assert not re.search(r"^(:::|--8<--)", text, re.MULTILINE), page
        for part in re.findall(r"<!-- generated: .+? -->\n(.*?)<!-- end -->", text, re.DOTALL):
            assert len(part.strip()) > 20, page
        if page.parent.name == "reference":
            for target in re.findall(r"\]\(([^)#:]+\.(?:md|json|mjs))[)#]", text):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_example_in_bytes_is_a_message() -> None:
    dumps = re.findall(r"^part \d, (\d+) bytes\n((?:[0-9a-f]{4}  .+\n)+)", PAGE, re.MULTILINE)
    parts = []
    for length, rows in dumps:
        data = bytes.fromhex("".join(row[6:53] for row in rows.splitlines()))
        assert len(data) == int(length)
        parts.append(data)
    asked, answered = messages.unpack(parts[:2]), messages.unpack(parts[2:])
    assert (asked.kind, asked.ticket, asked.body()) == (Kind.REPLAY, 1, {"after": 0, "camera": None})
    assert (answered.kind, answered.ticket, answered.seq, answered.time) == (Kind.EVENTS, 1, 1, 1)


def test_the_bodies_are_those_of_a_service(short_folder: Path, tiny_model: Path, clip: Path) -> None:
    def documented(name: str) -> set[str]:
        return {key for key, _, _ in protocol.BODIES[name]}

    service = Service(short_folder, tiny_model, {"film": {"source": str(clip), "loop": True}})
    try:
        service.pipeline()
        listener = plugins.transport(service.settings).subscribe(service.settings.address, "observations", ["film/"])

        def seen() -> dict[str, Any] | None:
            parts = listener.receive(1.0)
            found = json.loads(bytes(parts[1])) if parts else {}
            return found if found.get("tracks") else None

        observation = wait_for(seen, "a face")
        listener.close()
        state = wait_for(lambda: (found := status(service.settings))["workers"] and found, "a worker")
    finally:
        service.close()
    assert set(observation) == documented("observation")
    assert set(observation["tracks"][0]) == documented("track") - {"measures"}, "the model has none"
    assert set(state) == documented("status")
    assert set(state["cameras"]["film"]) == documented("status-camera")
    assert set(next(iter(state["workers"].values()))) == documented("status-worker")
    everywhere = {**vars(limits), **vars(messages), **vars(results), **vars(answers)}
    assert protocol.LIMITS.keys() <= everywhere.keys()


# The example in JavaScript


@pytest.fixture(scope="module")
def modules() -> Path:
    """The packages that ``npm install`` installs for the example."""
    subprocess.run(["make", "--silent", ".venv/.node"], cwd=ROOT, check=True)
    return ROOT / ".venv/node/node_modules"


class Follower:
    """``node follow.mjs``, and the events that it prints."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        command = ["node", str(folder / "follow.mjs"), *map(str, arguments)]
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.texts: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        self.texts.extend(iter(self.popen.stdout.readline, ""))

    @property
    def cursors(self) -> list[int]:
        return [int(json.loads(text)["cursor"]) for text in list(self.texts)]

    def until(self, condition: Callable[[list[int]], object]) -> None:
        self._wait(lambda: condition(self.cursors))

    def _wait(self, condition: Callable[[], object]) -> None:
        def log() -> str:
            self.popen.kill()
            return f"{self.texts[-20:]}\n{self.popen.stderr.read() if self.popen.stderr else ''}"

        wait_for(condition, "events", lambda: self.popen.poll() is None, log)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in list(self.texts)]

    def until_known(self, expected: Sequence[Event | dict[str, Any]]) -> None:
        """Wait for these events, by camera and sequence, each once, and those of each camera in order."""

        def name(each: Event | dict[str, Any]) -> tuple[str, int]:
            if isinstance(each, dict):
                return each["source"], int(each["sequence"])
            return f"/cameras/{each.camera}", each.sequence

        wanted = sorted(map(name, expected))
        self._wait(lambda: len(self.texts) >= len(wanted))
        found = [name(each) for each in self.events]
        assert sorted(found) == wanted
        for camera in {camera for camera, _ in found}:
            sequences = [sequence for source, sequence in found if source == camera]
            assert sequences == sorted(sequences)

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._reader.join()
        for stream in (self.popen.stdout, self.popen.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def follow_folder(tmp_path: Path, modules: Path) -> Path:
    """A folder with the client and its packages."""
    shutil.copy(EXAMPLES / "follow.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(modules)
    return tmp_path


@pytest.fixture
def follow(follow_folder: Path) -> Iterator[Callable[..., Follower]]:
    made: list[Follower] = []

    def start(*arguments: object) -> Follower:
        made.append(Follower(follow_folder, *arguments))
        return made[-1]

    yield start
    for follower in made:
        follower.close()


@pytest.fixture
def house(short_folder: Path, tmp_path: Path) -> Iterator[House]:
    made = House("zeromq", f"ipc://{short_folder}", tmp_path / "events.db")
    made.start()
    yield made
    made.end()


def test_the_client_in_javascript_sets_the_options_that_the_page_names() -> None:
    page = (ROOT / "docs/reference/protocol.md").read_text()
    client = (EXAMPLES / "follow.mjs").read_text()
    for option, name in {
        "ZMQ_TCP_KEEPALIVE": "tcpKeepalive",
        "ZMQ_TCP_KEEPALIVE_IDLE": "tcpKeepaliveIdle",
        "ZMQ_TCP_KEEPALIVE_INTVL": "tcpKeepaliveInterval",
        "ZMQ_TCP_MAXRT": "tcpMaxRetransmitTimeout",
        "ZMQ_HANDSHAKE_IVL": "handshakeInterval",
        "ZMQ_RECONNECT_IVL": "reconnectInterval",
        "ZMQ_RECONNECT_IVL_MAX": "reconnectMaxInterval",
    }.items():
        value = page.split(f"| `{option}` | ")[1].split(" |")[0].replace(",", "")
        assert f"{name}: {value}," in client


def test_the_client_in_javascript_ends_quietly_if_its_reader_closes_the_pipe(house: House, follow_folder: Path) -> None:
    house.take(700)
    command = f"node {follow_folder}/follow.mjs {house.address} | head -n 1"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, timeout=60)
    assert int(json.loads(done.stdout)["cursor"]) == 1
    assert not done.stderr


def test_a_client_in_javascript_gets_old_and_new_events(house: House, follow: Callable[..., Follower]) -> None:
    house.take(700)  # more than fit into one answer
    before = len(house.stored())
    everything, rest = follow(house.address), follow(house.address, "--after", before - 3)
    everything.until(lambda cursors: len(cursors) == before)
    rest.until(lambda cursors: len(cursors) == 3)
    house.take(30)
    after = len(house.stored())
    everything.until(lambda cursors: cursors == list(range(1, after + 1)))
    rest.until(lambda cursors: cursors == list(range(before - 2, after + 1)))
    assert [json.loads(text) for text in everything.texts] == [json.loads(text) for text in house.stored()]


def test_a_client_in_javascript_continues_after_a_restart_of_the_aggregator(
    house: House, follow: Callable[..., Follower]
) -> None:
    client = follow(house.address)
    house.take(5)
    client.until(lambda cursors: cursors == list(range(1, len(house.stored()) + 1)))
    house.end()
    house.start()
    house.take(5)
    client.until(lambda cursors: cursors == list(range(1, len(house.stored()) + 1)))


def test_a_client_in_javascript_follows_one_camera(house: House, follow: Callable[..., Follower]) -> None:
    client = follow(house.address, "--camera", "door")
    for count in (3, 4):
        house.take(count, "door-2")
        house.take(count, "door")
    wanted = [int(json.loads(text)["cursor"]) for text in house.stored(camera="door")]
    client.until(lambda cursors: cursors == wanted)
    assert all(json.loads(text)["source"] == "/cameras/door" for text in client.texts)


def test_a_client_in_javascript_uses_a_key(
    short_folder: Path, tmp_path: Path, tiny_model: Path, clip: Path, follow: Callable[..., Follower]
) -> None:
    folder = tmp_path / "keys"
    key = keys.new(folder, "desk", "client")
    address = f"tcp://127.0.0.1:{free_port()}"
    how = {"address": address, "keys": folder, "key": keys.new(folder, "all", "all")}
    service = Service(short_folder, tiny_model, {"film": {"source": str(clip), "loop": True}}, **how)
    try:
        service.pipeline()
        with_key, without = follow(address, "--key", key), follow(address)
        with_key.until(lambda cursors: len(cursors) > 3)
        assert not without.texts
    finally:
        service.close()


@pytest.fixture
def cell() -> Iterator[Cell]:
    made = Cell([f"tcp://127.0.0.1:{free_port()}"], 4)
    made.all[0].start()
    yield made
    made.close()


CAMERAS = [camera_of(number, 4, nth) for number in (0, 1, 3) for nth in (0, 1)]


def test_a_client_in_javascript_follows_a_cell(cell: Cell, follow: Callable[..., Follower]) -> None:
    cell.store(*CAMERAS * 20)
    client = follow(cell.all[0].address)
    client.until_known(cell.stored)
    cell.fence(0)
    for n in range(30):
        cell.store(CAMERAS[n % 6], deaf=n % 3 == 0)
    client.until_known(cell.stored)
    resumed = follow(cell.all[0].address, "--after", client.events[99]["cursor"])
    resumed.until_known(client.events[100:])
    cell.store(*CAMERAS)
    resumed.until_known([*client.events[100:150], *cell.stored[150:]])


def test_a_client_in_javascript_follows_one_camera_of_a_cell(cell: Cell, follow: Callable[..., Follower]) -> None:
    cell.store(*CAMERAS * 3)
    client = follow(cell.all[0].address, "--camera", CAMERAS[2])
    client.until_known([each for each in cell.stored if each.camera == CAMERAS[2]])
    cell.store(*CAMERAS, deaf=True)
    cell.store(*CAMERAS * 2)
    client.until_known([each for each in cell.stored if each.camera == CAMERAS[2]])
    assert client.cursors == sorted(client.cursors), "they are those of the camera's partition"


class Played:
    """A simulated aggregator, with which the test can cause rare situations on purpose."""

    def __init__(self, address: str) -> None:
        self._hub = plugins.load("transports", "zeromq")().bind(address)

    def listened(self) -> None:
        def began() -> bool:
            return any(link == "events" and parts[0][:1] == b"\x01" for link, _, parts in self._hub.receive(0.1))

        wait_for(began, "a subscription")

    def asked(self) -> tuple[bytes, int, dict[str, Any]]:
        """Return the next request: its peer, ticket and body."""

        def ask() -> tuple[bytes, int, dict[str, Any]] | None:
            for link, peer, parts in self._hub.receive(0.1):
                if link == "control":
                    message = messages.unpack(parts)
                    assert message.kind is Kind.REPLAY
                    return peer, message.ticket, message.body()
            return None

        found: tuple[bytes, int, dict[str, Any]] = wait_for(ask, "a question")
        return found

    def answer(self, peer: bytes, ticket: int, *cursors: int, reached: int, newest: int) -> None:
        payload = b"\n".join(map(self._event, cursors))
        self._hub.send(
            "control",
            peer,
            messages.pack(messages.Message(Kind.EVENTS, payload, seq=reached, time=newest, ticket=ticket)),
        )

    def publish(self, cursor: int) -> None:
        self._hub.publish("events", "door/", [self._event(cursor)])

    def beat(self, cursor: int) -> None:
        self._hub.publish("events", "/", [str(cursor).encode()])

    def _event(self, cursor: int) -> bytes:
        return cloudevents.encode(event(cursor)).encode()

    def close(self) -> None:
        self._hub.close()


@pytest.fixture
def played(short_folder: Path) -> Iterator[Played]:
    made = Played(f"ipc://{short_folder}")
    yield made
    made.close()


def test_a_client_in_javascript_requests_missed_events(
    played: Played, short_folder: Path, follow: Callable[..., Follower]
) -> None:
    client = follow(f"ipc://{short_folder}")
    played.listened()
    peer, ticket, body = played.asked()
    assert body == {"after": 0, "camera": None}
    played.answer(peer, ticket, 1, 2, reached=2, newest=3)
    peer, ticket, body = played.asked()
    assert body["after"] == 2, "there are more events"
    played.answer(peer, ticket, 3, reached=3, newest=3)
    client.until(lambda cursors: cursors == [1, 2, 3])
    played.publish(3)  # a duplicate
    played.publish(4)
    played.publish(6)  # event 5 is missing
    peer, ticket, body = played.asked()
    assert body["after"] == 4
    played.answer(peer, ticket, 5, 6, reached=6, newest=6)
    client.until(lambda cursors: cursors == [1, 2, 3, 4, 5, 6])
    played.beat(6)
    played.beat(7)  # event 7 is missing
    peer, ticket, body = played.asked()
    assert body["after"] == 6
    played.answer(peer, ticket, 7, reached=7, newest=7)
    client.until(lambda cursors: cursors == [1, 2, 3, 4, 5, 6, 7])
    played.beat(2)  # another journal
    peer, ticket, body = played.asked()
    played.answer(peer, ticket, reached=2, newest=2)
    peer, ticket, body = played.asked()
    assert body["after"] == 0
    played.answer(peer, ticket, 1, 2, reached=2, newest=2)
    client.until(lambda cursors: cursors[7:] == [1, 2])


def test_a_client_in_javascript_accepts_late_answers(
    played: Played, short_folder: Path, follow: Callable[..., Follower]
) -> None:
    client = follow(f"ipc://{short_folder}")
    peer, first, _ = played.asked()
    _, second, body = played.asked()  # after a silence
    assert first != second
    assert body["after"] == 0
    played.answer(peer, first, 1, 2, reached=2, newest=2)
    client.until(lambda cursors: cursors == [1, 2])
    played.answer(peer, second, 1, 2, reached=2, newest=2)
    played.publish(3)
    client.until(lambda cursors: cursors == [1, 2, 3])
