"""Annotations through a real aggregator: who may send them, and what is stored when it is killed meanwhile."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from journals import everything
from processes import Cli, free_port, wait_for
from served import Service

from fer_stream.aggregator import aggregator
from fer_stream.client import subscribe
from fer_stream.client.annotations import annotate, fetch_annotations, stored_annotations
from fer_stream.errors import AnnotationRefusedError, TransportError
from fer_stream.journal.sqlite import Writer
from fer_stream.plugins import transport
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind
from fer_stream.settings import tree
from fer_stream.transports import keys
from fer_stream.types import AnnotationQuery
from tests.journal.test_annotations import event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRONG = {
    "camera": "door",
    "track": 1,
    "start": "2026-01-31T08:00:00Z",
    "end": "2026-01-31T08:00:09.5Z",
    "label": "sad",
    "previous": "happy",
    "annotator": "anna",
    "note": "<script>alert(1)</script>",
}


@pytest.fixture
def service(short_folder: Path, tiny_model: Path) -> Iterator[Service]:
    with Writer(short_folder / "events.db") as journal:
        journal.append([event("camera.online", "door")])
    made = Service(short_folder, tiny_model, {})
    yield made
    made.close()


def test_an_annotation_is_stored_beside_the_events(service: Service, short_folder: Path) -> None:
    service.start(aggregator.run)
    before = wait_for(lambda: everything(short_folder / "events.db")[1:], "the end of what was left open")
    made = annotate(service.settings, WRONG)
    later = annotate(service.settings, WRONG | {"label": "neutral", "previous": None, "annotator": "ben"})
    assert (made.number, later.number, made.note) == (1, 2, WRONG["note"])
    assert fetch_annotations(service.settings, AnnotationQuery()) == ([made, later], 0)
    assert fetch_annotations(service.settings, AnnotationQuery(limit=1)) == ([made], 1)
    assert fetch_annotations(service.settings, AnnotationQuery(made.end)).found == []
    assert list(stored_annotations(service.settings, AnnotationQuery(limit=1))) == [made, later]
    assert everything(short_folder / "events.db")[1:] == before


def test_a_repeated_request_is_stored_once_and_another_annotation_with_its_id_is_refused(service: Service) -> None:
    service.start(aggregator.run)
    mine = WRONG | {"id": "0" * 32}
    made = annotate(service.settings, mine)
    assert annotate(service.settings, mine) == made
    for changed in ({"annotator": "ben"}, {"label": "neutral"}, {"note": ""}):
        with pytest.raises(AnnotationRefusedError, match=r"another one has the id 0{32}; choose an id for each"):
            annotate(service.settings, mine | changed)
    assert fetch_annotations(service.settings, AnnotationQuery()) == ([made], 0)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"camera": "gate"}, "there is no camera 'gate' in the journal; fer-stream status lists the cameras"),
        ({"end": "2026-01-31T07:00:00Z"}, "its end must be after its start"),
        ({"end": "2026-03-31T07:00:00Z"}, "it is longer than a day"),
        ({"start": float("nan")}, "start is nan, and must be a time"),
        ({"start": "yesterday"}, "must be a time with a time zone"),
        ({"track": True}, "track is True, and must be the number of a face"),
        ({"note": "x" * 501}, "the note has 501 characters, and may have 500"),
        ({"note": "\x1b[31m"}, "the note has control characters"),
        (
            {"start": "2100-01-01T00:00:00Z", "end": "2100-01-01T00:01:00Z"},
            "it ends at 2100-01-01T00:01:00.000000Z, and",
        ),
        ({"annotator": "anna & ben"}, "annotator is 'anna & ben'"),
        ({"colour": "red"}, "there is no field 'colour'"),
    ],
)
def test_an_invalid_annotation_is_refused_with_one_sentence(
    service: Service, changed: dict[str, Any], sentence: str
) -> None:
    service.start(aggregator.run)
    with pytest.raises(AnnotationRefusedError, match=r"^the annotation is refused: ") as error:
        annotate(service.settings, WRONG | changed)
    assert sentence in str(error.value)
    assert fetch_annotations(service.settings, AnnotationQuery()) == ([], 0)


def test_what_no_client_of_ours_sends_is_refused_by_the_aggregator(service: Service) -> None:
    service.start(aggregator.run)
    peer = transport(service.settings).connect(service.settings.address, "control")
    for body in ({"camera": 1}, WRONG, WRONG | {"id": "0" * 32, "end": 0}, {"id": []}):
        peer.send(messages.json_message(Kind.ANNOTATE, body, ticket=7))
        answer = messages.unpack(wait_for(lambda: peer.receive(1.0), "an answer"))
        assert (answer.kind, answer.ticket) == (Kind.ANNOTATE, 7)
        assert answer.body()["refused"].startswith("the annotation is refused: ")
    for body in ({"limit": 501}, {"limit": 0}, {"after": -1}, {"since": 1.5}, {"until": 10**30}, {"camera": []}):
        peer.send(messages.json_message(Kind.ANNOTATIONS, body, ticket=8))  # ignored, as every invalid message
    peer.send(messages.json_message(Kind.ANNOTATIONS, {"since": -(2**62)}, ticket=9))
    answer = messages.unpack(wait_for(lambda: peer.receive(1.0), "an answer"))
    assert (answer.ticket, answer.body()) == (9, {"annotations": [], "more": 0})
    peer.close()


def test_only_an_annotator_s_key_may_annotate_and_only_under_its_name(service: Service, tmp_path: Path) -> None:
    folder, address = tmp_path / "keys", f"tcp://127.0.0.1:{free_port()}"
    files = {role: keys.new(folder, f"a-{role}", role) for role in ("annotator", "client", "live", "worker")}
    shared = service.settings.model_copy(update={"address": address})
    service.start(aggregator.run, settings=shared.model_copy(update={"keys": folder}))

    def send(role: str, annotator: str) -> int:
        return annotate(shared.model_copy(update={"key": files[role]}), WRONG | {"annotator": annotator}).number

    assert send("annotator", "a-annotator") == 1
    assert send("live", "carla") == 2, "the page knows its users"
    with pytest.raises(AnnotationRefusedError, match="use the name of your key, a-annotator"):
        send("annotator", "carla")
    with pytest.raises(AnnotationRefusedError, match="use a key of the role annotator"):
        send("client", "a-client")
    with pytest.raises(TransportError, match="refused the key a-worker"):
        send("worker", "a-worker")
    mine = shared.model_copy(update={"key": files["annotator"]})
    assert len(fetch_annotations(mine, AnnotationQuery()).found) == 2
    with (
        pytest.raises(TransportError, match="refused the key a-annotator"),
        subscribe(settings=mine, after=0) as events,
    ):
        assert events.receive(30) is None, "an annotator gets no event"


def test_an_annotator_reads_no_event_and_a_revoked_key_is_refused_at_once(service: Service, tmp_path: Path) -> None:
    folder, address = tmp_path / "keys", f"tcp://127.0.0.1:{free_port()}"
    key = keys.new(folder, "anna", "annotator")
    mine = service.settings.model_copy(update={"address": address, "key": key})
    service.start(aggregator.run, settings=service.settings.model_copy(update={"address": address, "keys": folder}))
    peer = transport(mine).connect(address, "control")

    def ask(kind: Kind, body: dict[str, Any], ticket: int) -> None:
        peer.send(messages.json_message(kind, body, ticket=ticket))

    def answer() -> messages.Message:
        return messages.unpack(wait_for(lambda: peer.receive(1.0), "an answer"))

    ask(Kind.STATUS, {}, 1)  # not answered
    ask(Kind.REPLAY, {"after": 0}, 2)
    replay = answer()
    assert (replay.kind, replay.ticket, bytes(replay.payload)) == (Kind.EVENTS, 2, b"")
    ask(Kind.STATUS, {"parts": True}, 3)
    assert answer().ticket == 3
    ask(Kind.ANNOTATE, WRONG | {"annotator": "anna", "id": "1" * 32}, 4)
    assert answer().body()["number"] == 1
    keys.revoke(folder, "anna")
    ask(Kind.ANNOTATE, WRONG | {"annotator": "anna", "id": "2" * 32}, 5)  # on the same connection
    refused = answer()
    assert (refused.ticket, "use a key of the role annotator" in refused.body()["refused"]) == (5, True)
    ask(Kind.ANNOTATIONS, {}, 6)
    assert "the key may not read annotations" in answer().body()["refused"]
    ask(Kind.STATUS, {}, 7)
    ask(Kind.REPLAY, {"after": 0}, 8)
    assert bytes(answer().payload) == b""
    peer.close()


def test_annotators_at_once_and_a_killed_aggregator_lose_and_repeat_nothing(cli: Cli, short_folder: Path) -> None:
    with Writer(short_folder / "events.db") as journal:
        journal.append([event("camera.online", "door")])
    settings = tree.load({"address": f"ipc://{short_folder}", "journal.path": short_folder / "events.db"})
    start = ("aggregator", "--bind", settings.address, "--journal", short_folder / "events.db")
    running = cli.start(*start)
    acknowledged: list[str] = []
    ended = threading.Event()

    def work(name: str) -> None:
        number = 0
        while not ended.is_set():
            number += 1
            made = annotate(settings, WRONG | {"annotator": name, "track": number}, timeout=60)
            acknowledged.append(made.id)

    def more_than(least: int) -> None:
        wait_for(lambda: len(acknowledged) > least, "annotations", log=lambda: running.err)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("anna", "ben", "carla")]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(2):
            more_than(20 * (round_ + 1))
            running.signal(signal.SIGKILL)
            running.end()
            running = cli.start(*start)
        more_than(len(acknowledged))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    stored = list(stored_annotations(settings, AnnotationQuery(limit=50)))
    assert sorted(each.id for each in stored) == sorted(acknowledged)
    assert len(set(acknowledged)) == len(acknowledged)
    assert [each.number for each in stored] == sorted({each.number for each in stored})
    for name in ("anna", "ben", "carla"):  # each in the order in which it was sent
        tracks = [each.track for each in stored if each.annotator == name]
        assert tracks == list(range(1, len(tracks) + 1))
