"""The protocol's page is enough to speak with a service: a client in another language, and bodies as they are."""

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
from house import House
from processes import free_port, wait_for
from service import Service

from fer_stream import keys, plugins, wire
from fer_stream.client import status
from fer_stream.wire import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EXAMPLES = ROOT / "docs/examples"
PAGE = (ROOT / "docs/reference/protocol.md").read_text()


def test_pages_are_as_the_code_is() -> None:
    assert write.stale() == [], "run make reference, and commit what it writes"


def test_a_page_that_has_fallen_behind_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_every_page_reads_without_the_site_s_builder() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        text = page.read_text()
        assert not re.search(r"^(:::|--8<--)", text, re.MULTILINE), page
        for part in re.findall(r"<!-- generated: .+? -->\n(.*?)<!-- end -->", text, re.DOTALL):
            assert len(part.strip()) > 20, page
        if page.parent.name == "reference":
            for target in re.findall(r"\]\(([^)#:]+\.(?:md|json|mjs))[)#]", text):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_worked_example_is_a_message() -> None:
    dumps = re.findall(r"^part \d, (\d+) bytes\n((?:[0-9a-f]{4}  .+\n)+)", PAGE, re.MULTILINE)
    parts = []
    for length, rows in dumps:
        data = bytes.fromhex("".join(row[6:53] for row in rows.splitlines()))
        assert len(data) == int(length)
        parts.append(data)
    asked, answered = wire.unpack(parts[:2]), wire.unpack(parts[2:])
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
    assert set(observation["tracks"][0]) == documented("track")
    assert set(state) == documented("status")
    assert set(state["cameras"]["film"]) == documented("status-camera")
    assert set(next(iter(state["workers"].values()))) == documented("status-worker")
    assert sorted(protocol.LIMITS) == sorted(name for name in protocol.LIMITS if hasattr(wire, name))


# The example in JavaScript


@pytest.fixture(scope="module")
def modules() -> Path:
    """What ``npm install`` has installed for the example."""
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
        return [json.loads(text)["cursor"] for text in list(self.texts)]

    def until(self, condition: Callable[[list[int]], object]) -> None:
        def log() -> str:
            self.popen.kill()
            return f"{self.cursors}\n{self.popen.stderr.read() if self.popen.stderr else ''}"

        wait_for(lambda: condition(self.cursors), "events", lambda: self.popen.poll() is None, log)

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._reader.join()
        for stream in (self.popen.stdout, self.popen.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def follow(tmp_path: Path, modules: Path) -> Iterator[Callable[..., Follower]]:
    shutil.copy(EXAMPLES / "follow.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(modules)
    made: list[Follower] = []

    def start(*arguments: object) -> Follower:
        made.append(Follower(tmp_path, *arguments))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def house(short_folder: Path, tmp_path: Path) -> Iterator[House]:
    made = House("zeromq", f"ipc://{short_folder}", tmp_path / "events.db")
    made.start()
    yield made
    made.end()


def test_a_client_in_javascript_gets_what_was_and_what_happens(house: House, follow: Callable[..., Follower]) -> None:
    house.take(700)  # more than one answer's
    before = len(house.stored())
    all_of_it, rest = follow(house.address), follow(house.address, "--after", before - 3)
    all_of_it.until(lambda cursors: len(cursors) == before)
    rest.until(lambda cursors: len(cursors) == 3)
    house.take(30)
    after = len(house.stored())
    all_of_it.until(lambda cursors: cursors == list(range(1, after + 1)))
    rest.until(lambda cursors: cursors == list(range(before - 2, after + 1)))
    assert [json.loads(text) for text in all_of_it.texts] == [json.loads(text) for text in house.stored()]


def test_a_client_in_javascript_goes_on_after_the_aggregator_was_gone(
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
    wanted = [json.loads(text)["cursor"] for text in house.stored(camera="door")]
    client.until(lambda cursors: cursors == wanted)
    assert all(json.loads(text)["source"] == "/cameras/door" for text in client.texts)


def test_a_client_in_javascript_has_a_key(
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
