"""An SQLite journal goes on in NATS: numbers continue, ids stay unique, and an interrupted migration is repeated."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from journals import event, everything, resets
from nats_servers import NatsServer, api
from processes import wait_for

from fer_stream import plugins
from fer_stream.errors import ConfigError, JournalError
from fer_stream.events.cloudevents import decode
from fer_stream.fleet.partitions import partition
from fer_stream.journal.migration import migrate
from fer_stream.journal.nats.streams import escape
from fer_stream.journal.sqlite import Writer
from fer_stream.settings.sections import FleetSettings
from fer_stream.settings.tree import JournalSettings
from fer_stream.types import GapData

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Cli

PATIENCE = 60
ALONE = FleetSettings()
CELL = FleetSettings(cell="site", partitions=8)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    started = NatsServer(tmp_path).start()
    yield started
    started.kill()


@pytest.fixture
def target(server: NatsServer) -> JournalSettings:
    return JournalSettings(path=server.address)


def fill(path: Path, cameras: int = 2) -> int:
    """Write two epochs of each camera, and return the latest cursor."""
    with Writer(path) as old:
        for epoch in (1, 2):
            for number in range(cameras):
                name = f"cam.{number}"
                assert old.epoch(name) == epoch
                old.append([event("camera.online", name, epoch, epoch=epoch)])
                old.append([event("camera.offline", name, epoch, epoch=epoch)])
        return old.cursor()


def first(server: NatsServer, number: int) -> int:
    return int(api(server.address, f"STREAM.INFO.FER_EV_{number:02x}")["state"]["first_seq"])


def counters(server: NatsServer, camera: str, count: int) -> dict[str, Any]:
    """What the bucket holds about a camera, as text."""
    subject = f"$KV.cameras.{partition(camera, count):02x}.{escape(camera)}"
    message = api(server.address, "STREAM.MSG.GET.KV_cameras", {"last_by_subj": subject})["message"]
    found: dict[str, Any] = json.loads(base64.b64decode(message["data"]))
    return found


def test_an_aggregator_alone_goes_on(path: Path, target: JournalSettings) -> None:
    cursor = fill(path)
    before = [decode(text) for text in everything(path)]
    assert migrate(path, target, ALONE)[:2] == (cursor, 2)
    assert migrate(path, target, ALONE)[:2] == (cursor, 2), "nothing has happened since: it is repeated"

    new = plugins.journal(target).writer()
    assert new.cursor == cursor + 1, "its fence"
    assert new.epoch("cam.0").result(PATIENCE) == 3
    assert new.epoch("new").result(PATIENCE) == 1
    ((stored, _),) = new.append([event("camera.online", "cam.0", 3, epoch=3)]).result(PATIENCE)
    assert stored.sequence == max(each.sequence for each in before if each.camera == "cam.0") + 1
    assert stored.cursor == str(cursor + 2)
    assert new.unclosed() == [stored]
    new.close()

    with plugins.journal(target).reader() as reader:
        texts, reached = reader.read(3)
        gap, again = map(decode, texts)
        assert gap.data == GapData("3", str(cursor), "retention")
        assert (again, reached) == (stored, cursor + 2)
        assert reader.read(cursor)[0] == texts[1:], "whoever has read the old file to its end misses nothing"
    assert [decode(text) for text in everything(path)] == before, "the old file answers older cursors"
    with pytest.raises(JournalError, match=rf"used already \(its stream FER_EV_00 has reached {cursor + 2}\)"):
        migrate(path, target, ALONE)


def test_every_stream_of_a_cell_goes_on(path: Path, server: NatsServer, target: JournalSettings) -> None:
    cursor = fill(path, cameras=40)
    assert migrate(path, target, CELL)[:2] == (cursor, 40)
    assert {first(server, number) for number in range(8)} == {cursor + 1}
    for number in range(40):
        assert counters(server, f"cam.{number}", 8) == {"epoch": 2, "sequence": 4, "joined": [cursor, cursor]}


def test_what_a_killed_aggregator_left_open_is_closed(path: Path, target: JournalSettings) -> None:
    with Writer(path) as old:
        old.epoch("door")
        old.append([event("camera.online"), event("face.entered", track=1), event("emotion.started", track=1)])
    migrate(path, target, ALONE)
    assert [decode(text).type for text in everything(path)][3:] == ["emotion.ended", "face.left", "camera.offline"]
    new = plugins.journal(target).writer()
    assert new.unclosed() == []
    assert new.cursor == 7
    new.close()


def test_an_interrupted_migration_is_repeated(path: Path, server: NatsServer, cli: Cli) -> None:
    """It is killed in the middle, the old journal goes on meanwhile, and the next one carries over the new numbers."""
    fill(path, cameras=200)
    settings = {"FER_STREAM_FLEET__CELL": "site", "FER_STREAM_FLEET__PARTITIONS": "64"}
    command = ("migrate", path, "--journal", server.address)

    def written(stream: str) -> int:
        return int(api(server.address, f"STREAM.INFO.{stream}").get("state", {}).get("messages", -1))

    interrupted = [
        lambda: written("KV_cameras") > 0,
        lambda: written("FER_EV_00") == 0,
        lambda: written("FER_EV_08") == 0,
    ]
    for number, reached in enumerate(interrupted):
        process = cli.start(*command, **settings)
        process.until(reached, "the middle")
        process.popen.kill()
        assert process.end() == -9, "it was killed before its end"
        with Writer(path) as old:
            assert old.epoch("cam.1") == 3 + number
            cursor = old.cursor() + len(old.append(resets(2, "cam.1", first=10 + 2 * number)))
    assert "FER_EV_3f" not in api(server.address, "STREAM.NAMES")["streams"]
    done = cli.run(*command, **settings)
    assert done.popen.returncode == 0, done.err
    assert done.out.startswith(
        f"{server.address} goes on after cursor {cursor}, with the numbers of 200 cameras; keep "
    )
    assert {first(server, number) for number in range(64)} == {cursor + 1}
    assert counters(server, "cam.0", 64) == {"epoch": 2, "sequence": 4, "joined": [cursor, cursor]}
    assert counters(server, "cam.1", 64) == {"epoch": 5, "sequence": 10, "joined": [cursor, cursor]}


def test_what_cannot_be_moved_is_told(path: Path, server: NatsServer, target: JournalSettings, cli: Cli) -> None:
    with pytest.raises(JournalError, match="there is no journal at"):
        migrate(path, target, ALONE)
    assert not list(path.parent.glob("events.db*")), "and none is made"
    cursor = fill(path)
    with pytest.raises(ConfigError, match="give the servers of the new journal with --journal"):
        migrate(path, JournalSettings(path=path), ALONE)
    with Writer(path), pytest.raises(JournalError, match="is in use by another aggregator: stop that one"):
        migrate(path, target, ALONE)
    other = path.with_name("other.db")
    other.write_text("no journal")
    with pytest.raises(JournalError, match=r"other\.db cannot be read"):
        migrate(other, target, ALONE)

    longer = path.with_name("longer.db")
    with Writer(longer) as old:
        old.append(resets(cursor + 5))
    migrate(longer, target, ALONE)
    refused = cli.run("migrate", path, "--journal", server.address)
    assert refused.popen.returncode == 1
    (sentence,) = refused.errors
    assert f"used already (its stream FER_EV_00 has reached {cursor + 5})" in sentence


def test_a_camera_with_later_numbers_is_told(path: Path, target: JournalSettings) -> None:
    other = path.with_name("other.db")
    with Writer(other) as old:
        for _ in range(9):
            old.epoch("cam.0")
    migrate(other, target, ALONE)
    fill(path)
    with pytest.raises(JournalError, match=r"used already \(camera cam\.0 has epoch 9 and sequence 0 there\)"):
        migrate(path, target, ALONE)


def test_servers_that_do_not_answer_lose_nothing(path: Path, server: NatsServer, target: JournalSettings) -> None:
    cursor = fill(path)
    server.kill()
    with pytest.raises(JournalError, match="cannot be reached"):
        migrate(path, target, ALONE)
    server.start()
    assert wait_for(lambda: migrate(path, target, ALONE), "the migration")[0] == cursor
