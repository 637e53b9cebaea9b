"""Annotations in a journal, whatever stores it: each once, in a sequence of their own, found by time, and purged."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from journals import event, resets
from nats_servers import api

from fer_stream import plugins
from fer_stream.errors import AnnotationRefusedError, JournalError
from fer_stream.events.annotations import LONGEST
from fer_stream.journal.nats import streams
from fer_stream.journal.nats.counters import Counters, save
from fer_stream.journal.sqlite import Reader, Writer, notes
from fer_stream.settings.tree import JournalSettings, load
from fer_stream.types import Annotation, AnnotationQuery, Nanoseconds

if TYPE_CHECKING:
    from pathlib import Path

    from nats_servers import NatsServer

    from tests.journal.conftest import Place

PATIENCE = 60.0
SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


def annotation(number: int, start: float = 0.0, camera: str = "door", **changed: Any) -> Annotation:
    begin = Nanoseconds(NOW + round(start * SECOND))
    made = Annotation(
        id=f"{number:032x}",
        camera=camera,
        track=1,
        start=begin,
        end=Nanoseconds(begin + 10 * SECOND),
        label="sad",
        previous="happy",
        annotator="anna",
        note="smiles, <b>\n\"'",
        made=Nanoseconds(time.time_ns()),
    )
    return replace(made, **changed)


@pytest.fixture(autouse=True)
def no_stream(request: pytest.FixtureRequest) -> None:
    if "nats" in request.node.name:
        server: NatsServer = request.getfixturevalue("nats_server")
        api(server.address, "STREAM.DELETE.FER_AN")


def test_annotations_have_a_sequence_of_their_own(place: Place) -> None:
    journal = place.writer()
    journal.append([event("camera.online", "door"), event("camera.online", "front.door")]).result(PATIENCE)
    cursor = place.reader().cursor()
    given = [annotation(1), annotation(2, 5), annotation(3, camera="front.door"), annotation(4)]
    stored = [journal.annotate(each).result(PATIENCE) for each in given]
    assert [replace(each, number=0) for each in stored] == given
    assert [each.number for each in stored] == [1, 2, 3, 4]
    assert journal.annotations(AnnotationQuery()).result(PATIENCE) == (stored, 0)
    with place.reader() as reader:
        assert reader.annotations(AnnotationQuery()) == (stored, 0)
        assert reader.annotations(AnnotationQuery(camera="door")).found == [stored[0], stored[1], stored[3]]
        assert reader.annotations(AnnotationQuery(camera="gate")) == ([], 0)
        assert reader.cursor() == cursor
        assert len(reader.read(0)[0]) == 2
    journal.append(resets(1, "door", 7)).result(PATIENCE)
    journal.close()
    again = place.writer()
    assert again.annotate(annotation(5)).result(PATIENCE).number == 5
    assert len(again.annotations(AnnotationQuery()).result(PATIENCE).found) == 5


def test_replays_are_the_same_bytes_with_and_without_annotations(place: Place, tmp_path: Path) -> None:
    batches = [[event("camera.online", "door")], *(resets(4, "door", 10 * number) for number in range(1, 6))]
    with Writer(tmp_path / "without.db") as journal:
        for batch in batches:
            journal.append(batch)
    writer = place.writer()
    for number, batch in enumerate(batches):
        writer.append(batch).result(PATIENCE)
        for again in range(3):
            writer.annotate(annotation(1 + 10 * number + again, number)).result(PATIENCE)
    assert len(writer.annotations(AnnotationQuery()).result(PATIENCE).found) == 18
    with place.reader() as reader, Reader(tmp_path / "without.db") as without:
        texts, reached = reader.read(0, limit=100)
        ahead = reached - len(texts)  # a stream's numbers may begin later

        def moved(text: str) -> str:
            return re.sub('"cursor":"([0-9]+)"', lambda found: f'"cursor":"{int(found[1]) + ahead}"', text)

        assert len(texts) == 21
        assert texts == [moved(text) for text in without.read(0, limit=100)[0]]
        assert reader.read(ahead + 9, limit=100)[0] == texts[9:]


def test_what_is_sent_twice_is_stored_once(place: Place) -> None:
    journal = place.writer()
    journal.append([event("camera.online", "door")]).result(PATIENCE)
    first = journal.annotate(annotation(1)).result(PATIENCE)
    again = journal.annotate(replace(annotation(1), made=Nanoseconds(first.made + 5))).result(PATIENCE)
    assert again == first
    assert journal.annotations(AnnotationQuery()).result(PATIENCE).found == [first]


def test_an_unknown_camera_is_refused(place: Place) -> None:
    journal = place.writer()
    journal.append([event("camera.online", "door")]).result(PATIENCE)
    with pytest.raises(AnnotationRefusedError, match="there is no camera 'gate' in the journal"):
        journal.annotate(annotation(1, camera="gate")).result(PATIENCE)
    assert journal.annotations(AnnotationQuery()).result(PATIENCE) == ([], 0)
    with place.reader() as reader:
        assert reader.annotations(AnnotationQuery()) == ([], 0)


@pytest.mark.parametrize("days", [1, 30, 365])
def test_a_period_has_those_that_reach_into_it(place: Place, days: int) -> None:
    journal = place.writer()
    journal.append([event("camera.online", "door")]).result(PATIENCE)
    starts = [-days * 86_400 - 20, -11, -10, -9.5, 0, days * 43_200, days * 86_400 - 1, days * 86_400, days * 90_000]
    stored = [journal.annotate(annotation(1 + n, start)).result(PATIENCE) for n, start in enumerate(starts)]
    long = annotation(50, -86_400 + 1)
    stored.append(journal.annotate(replace(long, end=Nanoseconds(long.start + LONGEST))).result(PATIENCE))
    wanted = AnnotationQuery(NOW, NOW + days * LONGEST)
    inside = [*stored[3:7], stored[-1]]
    for camera in (None, "door"):
        asked = wanted._replace(camera=camera)
        assert journal.annotations(asked).result(PATIENCE) == (inside, 0)
        paged, after = [], 0
        with place.reader() as reader:
            for _ in range(10):
                page = reader.annotations(asked._replace(after=after, limit=2))
                assert len(page.found) <= 2
                paged += page.found
                if not (after := page.more):
                    break
        assert paged == inside


def test_purge_deletes_annotations_with_their_events(place: Place) -> None:
    journal = place.writer()
    begin = Nanoseconds(NOW)
    journal.append([event("camera.online", "door"), event("camera.online", "gate")]).result(PATIENCE)
    early = journal.annotate(annotation(1)).result(PATIENCE)
    old = journal.annotate(annotation(2, 100, made=Nanoseconds((round(time.time()) - 86_400) * SECOND))).result(
        PATIENCE
    )
    other = journal.annotate(annotation(3, camera="gate")).result(PATIENCE)
    time.sleep(0.05)
    middle = time.time()
    time.sleep(0.05)
    late = [replace(each, time=Nanoseconds(begin + 50 * SECOND)) for each in resets(2, "door", 5)]
    journal.append(late).result(PATIENCE)
    assert place.journal.purge(middle - 3600) == 0
    assert journal.annotations(AnnotationQuery()).result(PATIENCE).found == [early, other]
    assert old.number == 2
    kept = journal.annotate(annotation(4, 45)).result(PATIENCE)
    journal.annotate(annotation(5)).result(PATIENCE)  # made now, about events that will be deleted
    gone = place.journal.purge(middle)
    assert gone == 2
    # The camera "gate" has no event any more, and those of "door" are later than annotations 1 and 5.
    assert journal.annotations(AnnotationQuery()).result(PATIENCE).found == [kept]
    journal.purge(time.time() + 60).result(PATIENCE)
    assert journal.annotations(AnnotationQuery()).result(PATIENCE).found == []
    journal.append(resets(1, "door", 9)).result(PATIENCE)
    assert journal.annotate(annotation(9, 60)).result(PATIENCE).number == 6  # no number is used twice


def test_a_journal_of_the_former_format_is_read_as_it_is_and_a_writer_goes_on_with_it(path: Path) -> None:
    with Writer(path) as journal:
        journal.append([event("camera.online", "door")])
    with closing(sqlite3.connect(path)) as db:  # as the former version left it
        db.execute("DROP TABLE annotations")
        db.execute("PRAGMA user_version = 3")
    with Reader(path) as reader:
        assert len(reader.read(0)[0]) == 1
        assert reader.annotations(AnnotationQuery()) == ([], 0)
    place = plugins.journal(JournalSettings(path=path))
    assert place.purge(0) == 0
    with Reader(path) as reader:
        assert reader.annotations(AnnotationQuery()) == ([], 0)
    with Writer(path) as journal:
        assert journal.annotate(annotation(1)).number == 1
        assert [each.number for each in journal.annotations(AnnotationQuery()).found] == [1]
    with Reader(path) as reader:
        assert len(reader.read(0)[0]) == 1
        assert [each.number for each in reader.annotations(AnnotationQuery()).found] == [1]


def test_a_changed_annotation_is_noticed(path: Path) -> None:
    with Writer(path) as journal:
        journal.append([event("camera.online", "door")])
        journal.annotate(annotation(1))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE annotations SET text = replace(text, 'sad', 'mad')")
    with Reader(path) as reader, pytest.raises(JournalError, match="is damaged"):
        reader.annotations(AnnotationQuery())


def test_a_day_is_found_by_the_index(path: Path) -> None:
    with Writer(path) as journal:
        journal.append([event("camera.online", "door")])
    asked: list[str] = []
    with Reader(path) as reader:
        reader._db._db.set_trace_callback(asked.append)
        reader.annotations(AnnotationQuery(NOW, NOW + LONGEST))
        plan = reader._db._db.execute(f"EXPLAIN QUERY PLAN {asked[-1]}").fetchall()
    assert any("SEARCH annotations USING INDEX annotations_start (start>? AND start<?)" in row[3] for row in plan)
    assert LONGEST * 31 == notes.SHORT


def test_only_the_days_of_a_period_are_read_from_nats(nats_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = nats_place.writer()
    journal.append([event("camera.online", "door")]).result(PATIENCE)
    for number in range(20):
        journal.annotate(annotation(1 + number, number * 10 * 86_400)).result(PATIENCE)
    with nats_place.reader() as reader:
        read: list[Any] = []
        fetch = reader.connection.fetch  # type: ignore[attr-defined]

        async def counting(*what: Any) -> Any:
            found = await fetch(*what)
            read.extend(found[0])
            return found

        monkeypatch.setattr(reader.connection, "fetch", counting)  # type: ignore[attr-defined]
        wanted = AnnotationQuery(NOW + 30 * LONGEST, NOW + 31 * LONGEST, "door")
        assert [each.number for each in reader.annotations(wanted).found] == [4]
        assert len(read) == 1


def test_a_cell_has_one_sequence(nats_server: NatsServer) -> None:
    for stream in ("FER_AN", "KV_cameras", "KV_parts", "KV_alive", *(f"FER_EV_{n:02x}" for n in range(4))):
        api(nats_server.address, f"STREAM.DELETE.{stream}")
    settings = load({"journal.path": nats_server.address, "fleet.cell": "site", "fleet.partitions": 4})
    journal: Any = plugins.journal(settings.journal)
    engine, other = (journal.engine(settings.fleet, me, lambda: None) for me in ("a1", "a2"))
    try:
        with pytest.raises(AnnotationRefusedError, match="there is no camera"):
            engine.annotate(annotation(1)).result(PATIENCE)
        cameras = ["door", "gate", "hall", "yard"]
        for camera in cameras:
            own, connection = streams.of_camera(streams.Partition("site", 0, 4), camera), engine._connection
            connection.submit(streams.ensure_all(connection, own)).result(PATIENCE)
            connection.submit(save(connection, own, camera, Counters(epoch=1))).result(PATIENCE)
        both = [engine, other] * 2
        numbered = enumerate(zip(both, cameras, strict=True))
        futures = [each.annotate(annotation(n, n, camera)) for n, (each, camera) in numbered]
        stored = sorted((each.result(PATIENCE) for each in futures), key=lambda each: each.number)
        assert [each.number for each in stored] == [1, 2, 3, 4]
        assert other.annotations(AnnotationQuery()).result(PATIENCE) == (stored, 0)
        with plugins.journal(settings.journal, settings.fleet).reader() as reader:
            assert reader.annotations(AnnotationQuery()) == (stored, 0)
    finally:
        engine.close()
        other.close()
        for stream in ("FER_AN", "KV_cameras", "KV_parts", "KV_alive", *(f"FER_EV_{n:02x}" for n in range(4))):
            api(nats_server.address, f"STREAM.DELETE.{stream}")
