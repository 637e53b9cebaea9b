"""The HTTP API: a real service, asked over real sockets."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import psutil
import pytest
from api_client import ask, refused, stream
from journals import everything, resets
from processes import Cli, free_port, wait_for
from served import Service, get

from fer_stream import plugins
from fer_stream.aggregator import aggregator
from fer_stream.capture import process as capture
from fer_stream.errors import JournalError
from fer_stream.events.cloudevents import decode, from_rfc3339
from fer_stream.events.spans import Parts
from fer_stream.events.statistics import Record
from fer_stream.inference import models, worker
from fer_stream.journal.sqlite import Writer
from fer_stream.live import server
from fer_stream.live.api import contract, events, history, recognition

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "0123456789abcdef-token"
PORTRAIT = Path(models.__file__).parents[1] / "assets" / "grace_hopper.jpg"
API = contract.PREFIX


@pytest.fixture
def ended(service: Service, printed: Callable[[], str], short_folder: Path) -> tuple[str, list[str]]:
    """A page whose service has seen a film once; and the texts of all events."""
    film = service.settings.cameras["film"].model_copy(update={"loop": False})
    service.settings = service.settings.model_copy(update={"cameras": {"film": film}})
    service.pipeline()
    url, _ = service.live(printed)
    wait_for(lambda: any('"camera.offline"' in text for text in stored(short_folder)), "the film's end")
    return url, stored(short_folder)


def stored(folder: Path) -> list[str]:
    try:
        return everything(folder / "events.db")
    except JournalError:  # the aggregator is about to make it
        return []


# Now


def test_what_there_is_now(service: Service, printed: Callable[[], str]) -> None:
    service.pipeline()
    url, _ = service.live(printed)
    found = wait_for(lambda: ask(url, "/intervals")["intervals"], "an open interval")
    assert {interval["camera"] for interval in found} == {"film"}
    assert {interval["label"] for interval in found} == {"happy"}
    assert all(0 < interval["probability"] <= 1 for interval in found)
    assert all(interval["since"].startswith("1970-01-01T00:00") for interval in found)
    (camera,) = ask(url, "/cameras")["cameras"]
    assert (camera["name"], camera["state"], camera["live"]) == ("film", "online", False)
    later = ask(url, "/cameras/film")
    assert later["ledger"]["captured"] >= camera["ledger"]["captured"] > 0
    state = ask(url, "/status")
    assert state["cameras"] == {"online": 1, "offline": 0, "ended": 0}
    assert (state["workers"], state["events"]["camera.online"]) == (1, 1)
    assert "there is no camera 'gate'" in refused(url, "/cameras/gate", 404)


def test_without_an_aggregator(service: Service, printed: Callable[[], str]) -> None:
    url, _ = service.live(printed)
    for path in ("/status", "/cameras", "/cameras/film", "/intervals", "/events", "/events/stream", "/statistics"):
        assert "no aggregator answers" in refused(url, path, 503)


# Events


def test_pages_give_every_event_once(ended: tuple[str, list[str]]) -> None:
    url, texts = ended
    assert len(texts) > 5
    seen: list[Any] = []
    cursor, more = "0", True
    while more:
        page = ask(url, "/events", after=cursor, limit=2)
        assert len(page["events"]) <= 2
        seen, cursor, more = [*seen, *page["events"]], page["cursor"], page["more"]
    assert seen == list(map(json.loads, texts))
    assert ask(url, "/events", after=cursor) == {"events": [], "cursor": cursor, "more": False}
    some = ask(url, "/events", type=["face", "camera.online"], limit=1000)["events"]
    assert some == [each for each in seen if each["type"].startswith("face") or each["type"] == "camera.online"]
    assert ask(url, "/events", camera="gate")["events"] == []


def test_a_stream_can_be_resumed_after_each_event(ended: tuple[str, list[str]]) -> None:
    url, texts = ended
    with stream(url, after="0") as messages:
        first = [next(messages) for _ in range(1 + len(texts))]
    assert first[0] == {"id": "0"}
    assert [message["data"] for message in first[1:]] == texts
    assert [message["id"] for message in first] == ["0", *(json.loads(text)["cursor"] for text in texts)]
    for number, message in enumerate(first[:-1]):
        with stream(url, message["id"]) as messages:
            assert [next(messages).get("data") for _ in range(2)] == [None, texts[number]]
    with stream(url, after="0", type="camera.offline") as messages:
        assert [next(messages).get("data") for _ in range(2)] == [None, texts[-1]]


def test_a_stream_goes_on_after_a_restart_of_the_service_without_a_gap(
    service: Service, printed: Callable[[], str], short_folder: Path
) -> None:
    end_aggregator = service.start(aggregator.run)
    service.start(worker.run, "1")
    service.start(capture.run, "film")
    url, end_page = service.live(printed)
    seen: list[str] = []

    def read(last: str, enough: Callable[[str], bool]) -> str:
        with stream(url, last) as messages:
            for message in messages:
                last = message["id"]
                if "data" in message:
                    seen.append(message["data"])
                    if enough(message["data"]):
                        return last
        raise AssertionError("the stream has ended")

    last = read("0", lambda text: "emotion.started" in text)
    end_aggregator()
    end_aggregator = service.start(aggregator.run)
    last = read(last, lambda text: '"epoch":2' in text and "emotion.started" in text)
    end_page()
    url, _ = service.live(printed)
    read(last, lambda text: "emotion" in text)
    texts = stored(short_folder)
    assert seen == texts[: len(seen)], "none is missing, none comes twice"


def test_a_stream_without_a_cursor_begins_now_and_ends_with_its_reader(
    ended: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, texts = ended
    monkeypatch.setattr(events, "MOST_STREAMS", 1)
    monkeypatch.setattr(events, "QUIET", 0.05)
    with stream(url) as messages:
        latest = json.loads(texts[-1])["cursor"]
        assert [next(messages) for _ in range(3)] == [{"id": latest}] * 3, "the cursor alone, while nothing comes"
        assert "1 streams are open already" in refused(url, "/events/stream", 503)

    def free() -> bool:
        answer = get(url, f"{API}/events/stream", "HEAD")
        return answer.status == 200

    wait_for(free, "the end of the stream")


def test_a_reader_that_does_not_read_is_dropped(
    service: Service, printed: Callable[[], str], monkeypatch: pytest.MonkeyPatch, short_folder: Path
) -> None:
    writer = Writer(short_folder / "events.db")
    for first in range(1, 60_000, 900):  # more than the sockets hold
        writer.append(resets(900, first=first))
    writer.close()
    monkeypatch.setattr(events, "MOST_STREAMS", 1)
    monkeypatch.setattr(server, "STALLED", 1.0)
    service.start(aggregator.run)
    url, _ = service.live(printed)
    parts = urlsplit(url)
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect((parts.hostname, parts.port))
        stalled.sendall(f"GET {API}/events/stream?after=0 HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        assert stalled.recv(15) == b"HTTP/1.1 200 OK"
        process = psutil.Process()
        wait_for(lambda: get(url, f"{API}/events/stream", "HEAD").status == 503, "the stream")
        before = process.memory_info().rss
        wait_for(lambda: get(url, f"{API}/events/stream", "HEAD").status == 200, "the end of the stream")
        assert process.memory_info().rss - before < 15_000_000, "a fraction of the events"
        with pytest.raises(ConnectionResetError):
            _ = [chunk for chunk in iter(lambda: stalled.recv(100_000), b"") if not chunk]


@pytest.mark.parametrize(
    ("path", "parameters", "sentence"),
    [
        ("/events", {"after": "x"}, "the parameter after: "),
        ("/events", {"after": "01:1,00:2"}, "it has partition 01 in place of 00"),
        ("/events", {"limit": "0"}, "the parameter limit: input should be greater than or equal to 1"),
        ("/events", {"limit": ["1", "2"]}, "the parameter 'limit' is given twice"),
        ("/events", {"after": "abc"}, "the parameter after: 'abc' is not a cursor: give the cursor of an event"),
        ("/statistics", {"camera": "../x"}, "the parameter camera: '../x' cannot be a camera's name"),
        ("/statistics", {"every": "0"}, "the parameter every: '0' is no length: give a number and s, m, h or d"),
        ("/events", {"since": "1"}, "there is no parameter 'since'; there are: camera, type, after, limit"),
        ("/events", {"type": "smile"}, "no event is of type 'smile'"),
        ("/events", {"camera": "../x"}, "the parameter camera: "),
        ("/status", {"x": "1"}, "there are: none"),
        ("/statistics", {"from": "yesterday"}, "must be a time with a time zone"),
        ("/statistics", {"from": "0001-01-01T00:00:00Z"}, "must be from 1700 to 2200"),
        ("/statistics", {"every": "5"}, "the parameter every: "),
        ("/statistics", {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "the period is empty"),
        (
            "/statistics",
            {"from": "1990-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z", "every": "1s"},
            "choose a shorter period or longer parts",
        ),
    ],
)
def test_a_wrong_parameter_gets_one_sentence(
    path: str, parameters: dict[str, Any], sentence: str, service: Service, printed: Callable[[], str]
) -> None:
    service.start(aggregator.run)
    url, _ = service.live(printed)
    assert sentence in refused(url, path, 400, **parameters)


def test_wrong_addresses_methods_and_cursors(ended: tuple[str, list[str]]) -> None:
    url, _ = ended
    assert "openapi.json lists the operations" in refused(url, "/nothing", 404)
    assert "of 2 partitions, and the events are in 1" in refused(url, "/events", 409, after="00:1,01:2")
    assert "of 2 partitions" in refused(url, "/events/stream", 409, after="00:1,01:2")
    answer = get(url, f"{API}/events/stream", Last_Event_ID="x")
    assert (answer.status, b"the header Last-Event-ID: " in answer.body) == (400, True)  # type: ignore[attr-defined]
    answer = get(url, f"{API}/status", "DELETE")
    assert (answer.status, set(answer.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})
    assert "does not take 'DELETE'" in json.loads(answer.body)["detail"]  # type: ignore[attr-defined]


# Statistics


def test_statistics_are_those_of_the_journal(ended: tuple[str, list[str]]) -> None:
    url, texts = ended
    record = Record()
    for text in texts:
        record.take(decode(text))
    start, end = "1970-01-01T00:00:00Z", "1970-01-01T00:00:20Z"
    rows = record.rows(Parts.of(from_rfc3339(start), from_rfc3339(end), 5_000_000_000))
    found = ask(url, "/statistics", **{"from": start, "to": end, "every": "5s"})["rows"]
    assert found == [row.as_dict() for row in rows]
    assert found[0]["labels_s"]["happy"] > 0
    assert found == ask(url, "/statistics", **{"from": start, "to": end, "every": "5s"})["rows"], "a second time"
    by_valence = ask(url, "/statistics", **{"from": start, "to": end, "by": "valence"})["rows"]
    assert list(by_valence[0]["labels_s"]) == ["positive"]
    withheld = ask(url, "/statistics", **{"from": start, "to": end, "least_faces": "1000"})["rows"]
    assert [row["withheld"] for row in withheld] == [True]
    assert "faces" not in withheld[0]
    assert ask(url, "/statistics", camera="gate")["rows"] == []


def test_statistics_of_a_large_journal(
    service: Service, printed: Callable[[], str], monkeypatch: pytest.MonkeyPatch, short_folder: Path
) -> None:
    writer = Writer(short_folder / "events.db")
    for first in range(1, 40_000, 900):
        writer.append(resets(900, first=first))
    writer.close()
    service.start(aggregator.run)
    period = {"from": "1970-01-01T00:00:00Z", "to": "1970-01-02T00:00:00Z"}
    with monkeypatch.context() as patch:
        patch.setattr(history, "SECONDS", 0.01)
        url, end = service.live(printed)
        wait_for(lambda: get(url, f"{API}/status").status == 200, "the aggregator")
        assert re.search(r"are being read, (\d+ %|none) so far", refused(url, "/statistics", 503, **period))
        assert get(url, f"{API}/status").status == 200, "other requests are answered meanwhile"
        end()
    url, end = service.live(printed)
    wait_for(lambda: get(url, f"{API}/status").status == 200, "the aggregator")
    (row,) = ask(url, "/statistics", **period)["rows"]  # the request waits
    assert row["online_s"] == 40_500 - 1
    end()


def test_what_the_journal_deletes_leaves_the_statistics_and_no_request_is_refused(
    service: Service, printed: Callable[[], str], monkeypatch: pytest.MonkeyPatch, short_folder: Path
) -> None:
    writer = Writer(short_folder / "events.db")
    for first in range(1, 9000, 900):
        writer.append(resets(900, first=first))
    writer.close()
    monkeypatch.setattr(history, "RENEWED", (0.05, 86_400.0))
    monkeypatch.setattr(history, "REST", 0.01)
    monkeypatch.setattr(history, "FOLLOWED", 0.01)
    service.start(aggregator.run)
    url, _ = service.live(printed)
    wait_for(lambda: get(url, f"{API}/status").status == 200, "the aggregator")
    period = {"from": "1970-01-01T00:00:00Z", "to": "1970-01-02T00:00:00Z"}
    assert len(ask(url, "/statistics", **period)["rows"]) == 1
    plugins.journal(service.settings.journal).purge(time.time() + 1)
    wait_for(lambda: ask(url, "/statistics", **period)["rows"] == [], "the events are gone")  # ask: status 200


# Recognition


def post(url: str, body: bytes, **headers: str) -> tuple[int, Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=60)
    connection.request("POST", f"{API}/recognize", body, {name.replace("_", "-"): v for name, v in headers.items()})
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    return answer.status, found


def test_a_picture_in_and_faces_out(service: Service, printed: Callable[[], str], tmp_path: Path) -> None:
    url, _ = service.live(printed)
    picture = PORTRAIT.read_bytes()
    status, found = post(url, picture, Content_Type="image/jpeg")
    assert status == 200, found
    height, width = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape[:2]  # type: ignore[union-attr]
    assert (found["width"], found["height"]) == (width, height)
    (face,) = found["faces"]
    x1, y1, x2, y2 = face["box"]
    assert 0 < x1 < x2 < width
    assert 0 < y1 < y2 < height
    assert face["confidence"] > 0.9
    assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert post(url, b"no picture")[0] == 422
    assert post(url, picture[:1000])[0] == 422
    assert post(url, b"")[0] == 422
    status, found = post(url, picture, Content_Type="multipart/form-data; boundary=x")
    assert (status, "and no form" in found["detail"]) == (415, True)


def test_what_is_too_large_is_refused_before_it_is_read(service: Service, printed: Callable[[], str]) -> None:
    url, _ = service.live(printed)
    parts = urlsplit(url)
    head = f"POST {API}/recognize HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    for more, status in (
        (f"Content-Length: {contract.MOST_BYTES + 1}\r\n\r\n", 413),
        ("Content-Length: 999999999999999999\r\n\r\n", 413),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 411),
    ):
        with socket.create_connection((parts.hostname or "", parts.port or 0), 30) as connection:
            connection.sendall((head + more).encode())  # the body does not follow
            assert connection.recv(1000).startswith(f"HTTP/1.1 {status} ".encode())


def test_no_file_is_written(cli: Cli) -> None:
    """The page's server under strace, while pictures of several sizes arrive, and a form."""
    port, log = free_port(), cli.folder / "strace.log"
    calls = "open,openat,openat2,creat,memfd_create,link,linkat,symlink,symlinkat,mknod,mknodat,shmget"
    cli.under = ("strace", "-D", "-f", "--seccomp-bpf", "-qq", "-s", "4096", "-o", str(log), "-e", f"trace={calls}")
    address = f"ipc://{cli.temporary}/none"
    live = cli.start("live", "--page", f"127.0.0.1:{port}", "--connect", address, PYTHONDONTWRITEBYTECODE="1")
    live.until(lambda: "the live page is at" in live.out, "the page")
    url = f"http://127.0.0.1:{port}/"
    picture = PORTRAIT.read_bytes()
    assert post(url, picture)[0] == 200  # the models are loaded
    before = len(log.read_text(errors="replace"))
    large = cv2.imencode(".png", np.random.default_rng(1).integers(0, 255, (1800, 1800, 3), np.uint8))[1].tobytes()
    assert 8_000_000 < len(large) < contract.MOST_BYTES
    assert post(url, large)[0] == 200
    assert post(url, picture)[0] == 200
    form = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + large + b"\r\n--x--\r\n"
    assert post(url, form, Content_Type="multipart/form-data; boundary=x")[0] == 415
    assert live.stop() == 0
    text = log.read_text(errors="replace")
    assert "openat(" in text[:before], "strace sees"
    writing = ("O_WRONLY", "O_RDWR", "O_CREAT", "creat(", "memfd_create(", "link", "mknod", "shmget")
    assert [line for line in text[before:].splitlines() if any(sign in line for sign in writing)] == []


def test_a_picture_that_does_not_arrive_ends_its_request(
    service: Service, printed: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recognition, "SECONDS", 0.2)
    url, _ = service.live(printed)
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), 30) as connection:
        connection.sendall(
            f"POST {API}/recognize HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 100\r\n\r\nx".encode()
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


# Who may


def test_the_token_opens_the_api(service: Service, printed: Callable[[], str], tmp_path: Path) -> None:
    service.start(aggregator.run)
    path = tmp_path / "live.token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    url, _ = service.live(printed, token_file=path)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for operation in contract.OPERATIONS:
        where = API + operation.path.format(camera="film")
        assert get(url, where, operation.method).status == 401, where
        assert get(url, where, operation.method, Authorization="Bearer wrong").status == 401, where
        if operation.name != "stream":
            assert get(url, where, operation.method, **bearer).status in (200, 403, 404, 411, 422), where
    assert get(url, f"{API}/events/stream", "HEAD", **bearer).status == 200


def test_a_foreign_page_may_not_send_pictures(service: Service, printed: Callable[[], str]) -> None:
    url, _ = service.live(printed)
    own = url.rstrip("/")
    for headers, status in (
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Cookie": "fer_stream_live=x"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Origin": own}, 422),
        ({}, 422),
    ):
        assert get(url, f"{API}/recognize", "POST", "x", **headers).status == status, headers
