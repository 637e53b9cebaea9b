"""History and annotations over HTTP: the events of a period, and who may annotate a label as wrong."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from api_client import ask, refused
from processes import wait_for
from served import get

from fer_stream.aggregator import aggregator
from fer_stream.errors import ConfigError
from fer_stream.events.cloudevents import decode, from_rfc3339, to_rfc3339
from fer_stream.events.statistics import Record
from fer_stream.journal.sqlite import Writer
from fer_stream.live.access import annotators
from fer_stream.live.api import contract, history
from fer_stream.settings.tree import LiveSettings
from tests.journal.test_annotations import event

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from served import Service

PAGE, ANNA, BEN = "0123456789abcdef-page", "0123456789abcdef-anna", "0123456789abcdef-ben"
DAY = {"from": "2026-01-31T00:00:00Z", "to": "2026-02-01T00:00:00Z"}
WRONG = {"camera": "door", "track": 1, "start": "2026-01-31T08:00:00Z", "end": "2026-01-31T08:00:09Z", "label": "sad"}
PATH = f"{contract.PREFIX}/annotations"


@pytest.fixture
def site(service: Service, printed: Callable[[], str], short_folder: Path, tmp_path: Path) -> Callable[..., str]:
    """``site(page=True)`` starts a page with the annotators anna and ben, and with a token of its own or without."""
    with Writer(short_folder / "events.db") as journal:
        journal.append([event("camera.online", "door")])
    for name, token in (("page", PAGE), ("anna", ANNA), ("ben", BEN)):
        (tmp_path / name).write_text(token)
        (tmp_path / name).chmod(0o600)

    def start(*, page: bool = True) -> str:
        service.start(aggregator.run)
        files = {name: tmp_path / name for name in ("anna", "ben")}
        url, _ = service.live(printed, annotators=files, token_file=tmp_path / "page" if page else None)
        token = {"Authorization": f"Bearer {PAGE}"}
        wait_for(lambda: get(url, f"{contract.PREFIX}/status", **token).status == 200, "the aggregator")
        return url

    return start


def send(url: str, token: str | None, body: Any, kind: str = "application/json", **headers: str) -> tuple[int, Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=60)
    about = {"Content-Type": kind} | ({"Authorization": f"Bearer {token}"} if token else {}) | headers
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", PATH, text, about)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if answer.headers["content-type"].endswith("json") else content.decode()


def listed(url: str, token: str, **query: Any) -> Any:
    answer = get(
        url, PATH + "?" + "&".join(f"{name}={value}" for name, value in query.items()), Authorization=f"Bearer {token}"
    )
    assert answer.status == 200, answer.body  # type: ignore[attr-defined]
    return json.loads(answer.body)  # type: ignore[attr-defined]


def test_an_annotator_marks_a_label_and_nothing_is_overwritten(
    site: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    url = site()
    note = "<img src=x onerror=alert(1)> \u2603\nline"
    status, made = send(url, ANNA, WRONG | {"previous": "happy", "note": note})
    assert status == 200, made
    assert (made["number"], made["annotator"], made["note"], made["previous"]) == (1, "anna", note, "happy")
    assert send(url, BEN, WRONG | {"label": "wrong"})[1]["number"] == 2
    found = listed(url, ANNA)
    assert [each["label"] for each in found["annotations"]] == ["sad", "wrong"]
    assert (found["more"], found["annotator"]) == (0, "anna")
    assert listed(url, PAGE)["annotator"] is None
    first = listed(url, BEN, limit=1)
    assert (first["annotations"], first["more"]) == (found["annotations"][:1], 1)
    assert listed(url, BEN, after=1)["annotations"] == found["annotations"][1:]
    assert listed(url, BEN, **{"from": "2026-01-31T08:00:09Z"})["annotations"] == []
    assert "annotation 1 by anna, from 127.0.0.1" in caplog.text


def test_only_an_annotator_may_send(site: Callable[..., str]) -> None:
    url = site()
    status, problem = send(url, PAGE, WRONG)
    assert (status, "only an annotator may send annotations" in problem["detail"]) == (403, True)
    assert send(url, None, WRONG)[0] == 401
    assert send(url, "0123456789abcdef-carla", WRONG)[0] == 401
    assert send(url, ANNA, WRONG, Origin="http://example.org")[0] == 403
    assert send(url, ANNA, WRONG | {"annotator": "ben"})[0] == 400, "under one's own name"
    assert listed(url, PAGE)["annotations"] == []


def test_an_annotator_enters_a_page_without_a_token(site: Callable[..., str]) -> None:
    url = site(page=False)
    assert send(url, None, WRONG)[0] == 403
    assert get(url, "/enter", "POST", f"token={PAGE}", Origin=url[:-1]).status == 401
    assert get(url, "/enter", "POST", f"token={ANNA}", Origin="http://example.org").status == 403
    entered = get(url, "/enter", "POST", f"token={ANNA}", Origin=url[:-1])
    assert (entered.status, entered.headers["location"]) == (303, "history.html?entered")
    cookie = entered.headers["set-cookie"].partition(";")[0]
    assert ANNA not in cookie
    status, made = send(url, None, WRONG, Origin=url[:-1], Cookie=cookie)
    assert (status, made["annotator"]) == (200, "anna")
    assert send(url, None, WRONG, Origin="http://example.org", Cookie=cookie)[0] == 403
    assert send(url, None, WRONG, Cookie=cookie)[0] == 403, "a browser's request has an Origin"


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (WRONG | {"camera": "gate"}, 400, "there is no camera 'gate' in the journal"),
        (WRONG | {"end": WRONG["start"]}, 400, "its end must be after its start"),
        (WRONG | {"start": "yesterday"}, 400, "the field start: must be a time with a time zone"),
        (WRONG | {"track": True}, 400, "the field track: input should be a valid integer"),
        (WRONG | {"track": 0}, 400, "the field track: input should be greater than or equal to 1"),
        (WRONG | {"note": "x" * 501}, 400, "the field note: "),
        (WRONG | {"note": "\0"}, 400, "the note has control characters"),
        (WRONG | {"label": " sad"}, 400, "must be a label"),
        (WRONG | {"id": "../x"}, 400, "the field id: '../x' is no id"),
        (WRONG | {"colour": 1}, 400, "there is no field 'colour'; there are: camera, track"),
        ({"camera": "door"}, 400, "the field track: field required"),
        (b'{"track": NaN}', 400, "the field "),
        (b"[" * 16_000, 400, "the body is not JSON"),
        (b"[]", 400, "the body is not a JSON object"),
        (b"{" + b" " * 20_000, 413, "the body has more than 16384 bytes"),
    ],
)
def test_an_invalid_annotation_gets_one_sentence(
    site: Callable[..., str], body: Any, status: int, sentence: str
) -> None:
    url = site()
    found, problem = send(url, ANNA, body)
    assert (found, sentence in problem["detail"]) == (status, True), problem
    assert "\n" not in problem["detail"]
    assert listed(url, ANNA)["annotations"] == []


def test_both_methods_of_the_address_are_named(site: Callable[..., str]) -> None:
    answer = get(site(page=False), PATH, "DELETE")
    assert (answer.status, set(answer.headers["allow"].split(", "))) == (405, {"GET", "HEAD", "POST"})


def test_a_form_is_no_annotation(site: Callable[..., str]) -> None:
    status, problem = send(site(), ANNA, b"camera=door", "application/x-www-form-urlencoded")
    assert (status, "send application/json" in problem["detail"]) == (415, True)


def test_tokens_of_annotators_are_their_own(tmp_path: Path) -> None:
    for name in ("anna", "ben"):
        (tmp_path / name).write_text(ANNA)
        (tmp_path / name).chmod(0o600)
    one = LiveSettings(annotators={"anna": tmp_path / "anna"})
    assert annotators(one, None) == {"anna": ANNA}
    with pytest.raises(ConfigError, match="is the page's"):
        annotators(one, ANNA)
    with pytest.raises(ConfigError, match="anna and ben have the same token"):
        annotators(LiveSettings(annotators={name: tmp_path / name for name in ("anna", "ben")}), None)
    (tmp_path / "anna").chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        annotators(one, None)


# History


def test_the_history_is_that_of_the_journal(
    service: Service, printed: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    film = service.settings.cameras["film"].model_copy(update={"loop": False})
    service.settings = service.settings.model_copy(update={"cameras": {"film": film}})
    service.pipeline()
    url, _ = service.live(printed)
    ended = lambda: ask(url, "/events", type="camera.offline")["events"]  # noqa: E731
    wait_for(lambda: get(url, f"{contract.PREFIX}/status").status == 200 and ended(), "the film's end")
    texts = [json.dumps(each) for each in ask(url, "/events", limit=1000)["events"]]
    period = {"from": "1970-01-01T00:00:00Z", "to": "1970-01-01T01:00:00Z"}
    found = ask(url, "/history", **period)
    assert not found["aggregated"]
    (camera,) = found["cameras"]
    record = Record()
    for text in texts:
        record.take(decode(text))
    (row,) = ask(url, "/statistics", **period)["rows"]

    def length(spans: list[Any]) -> float:
        return sum(from_rfc3339(each["end"]) - from_rfc3339(each["start"]) for each in spans) / 1e9

    for state in ("online", "offline", "unknown"):
        told = [each for each in camera["states"] if each["state"] == state]
        assert length(told) == pytest.approx(row[f"{state}_s"], abs=0.001)
    assert length(camera["states"]) == 3600
    assert length(camera["stays"]) == pytest.approx(row["in_view_s"], abs=0.001)
    labels = [each for stay in camera["stays"] for each in stay["labels"]]
    assert {each["label"] for each in labels} == {"happy"} == set(row["labels_s"])
    assert length(labels) == pytest.approx(row["labels_s"]["happy"], abs=0.001)
    assert ask(url, "/history", camera="gate", **period)["cameras"] == []
    monkeypatch.setattr(history, "MOST_SPANS", 2)
    many = ask(url, "/history", **period, resolution=60)
    assert (many["aggregated"], many["cameras"], len(many["rows"]), many["resolution_s"]) == (True, [], 60, 60)
    assert sum(each["in_view_s"] for each in many["rows"]) == pytest.approx(row["in_view_s"], abs=0.05)
    assert len(ask(url, "/history", **period)["rows"]) == 120


def test_single_faces_are_withheld_if_least_faces_is_above_1(
    service: Service, printed: Callable[[], str], site: Callable[..., str]
) -> None:
    service.settings = service.settings.model_copy(update={"least_faces": 3})
    url = site(page=False)
    found = ask(url, "/history", **{"from": to_rfc3339(event("camera.online").time), "to": "2026-01-01T00:00:00Z"})
    assert (found["aggregated"], found["cameras"], found["least_faces"]) == (True, [], 3)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"from": DAY["to"], "to": DAY["from"]}, "the period is empty"),
        ({"from": "nan"}, "must be a time with a time zone"),
        ({"from": "0001-01-01T00:00:00Z"}, "must be from 1700 to 2200"),
        ({"resolution": "0"}, "the parameter resolution: "),
        ({"resolution": "NaN"}, "the parameter resolution: "),
        ({"camera": "<b>"}, "cannot be a camera's name"),
    ],
)
def test_a_wrong_period_gets_one_sentence(site: Callable[..., str], query: dict[str, str], sentence: str) -> None:
    assert sentence in refused(site(page=False), "/history", 400, **query)


def test_a_huge_period_has_few_parts(site: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    url = site(page=False)
    monkeypatch.setattr(history, "MOST_SPANS", 0)
    huge = {"from": "1700-01-01T00:00:00Z", "to": "2200-12-31T00:00:00Z"}
    assert len(ask(url, "/history", **huge)["rows"]) == 120
    assert "choose a shorter period or longer parts" in refused(url, "/history", 400, **huge, resolution=1)
