"""After temporary failures between the live page and the aggregator, the page retries until it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from processes import free_port, wait_for
from served import Browser, Service

from fer_stream.aggregator import aggregator
from fer_stream.capture import process as capture
from fer_stream.errors import TransportError
from fer_stream.inference import worker
from fer_stream.transports import keys
from fer_stream.transports.zeromq import ZeroMQ

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_events_from_before_the_start_of_the_page_s_server_count_as_past_whenever_they_arrive(
    service: Service, printed: Callable[[], str]
) -> None:
    service.pipeline()
    url, end = service.live(printed)
    with Browser(url) as browser:
        started = browser.until("events", lambda message: message["events"][-1]["type"] == "emotion.started")
        before = int(started["events"][-1]["cursor"])
    end()
    url, _ = service.live(printed)
    with Browser(url) as browser:  # it may connect before the server has received any event
        received: list[tuple[int, bool]] = []
        while not received or received[-1][1]:
            message = browser.until("events")
            received += [(int(event["cursor"]), n < message["past"]) for n, event in enumerate(message["events"])]
    old = [past for cursor, past in received if cursor <= before]
    assert old
    assert all(old)


@pytest.mark.parametrize("link", ["observations", "preview"])
def test_a_failed_subscription_is_retried_without_a_change_of_topics(
    link: str, service: Service, printed: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = ["no more sockets"]
    subscribe = ZeroMQ.subscribe

    def fails_once(self: ZeroMQ, address: str, other: str, topics: list[str]) -> Any:
        if other == link and failures:
            raise TransportError(failures.pop())
        return subscribe(self, address, other, topics)

    monkeypatch.setattr(ZeroMQ, "subscribe", fails_once)
    service.pipeline()
    url, _ = service.live(printed)
    with Browser(url) as browser:
        browser.say(watch={"film": 320})
        browser.until("picture")
    assert not failures


def test_a_key_without_permission_for_pictures_is_logged_before_any_browser_connects(
    short_folder: Path, tmp_path: Path, tiny_model: Path, printed: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "keys"
    service = Service(short_folder, tiny_model, {}, keys=folder, key=keys.new(folder, "desk", "client"))
    try:
        service.start(aggregator.run)
        service.live(printed)
        refused = "refused the key desk (role client): ask its operator to allow it with `fer-stream keys allow`; "
        wait_for(lambda: refused + "the link preview is open to the roles live, all" in caplog.text, "a refusal")
    finally:
        service.close()


def test_a_page_whose_key_was_refused_connects_once_the_key_is_allowed(
    short_folder: Path, tmp_path: Path, tiny_model: Path, printed: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    folder, own = tmp_path / "keys", tmp_path / "page.key"
    keys.new(folder, "page", "live").rename(own)
    public = keys.load(own).public
    keys.revoke(folder, "page")
    service = Service(short_folder, tiny_model, {}, keys=folder, key=own)
    try:
        service.start(aggregator.run)
        url, _ = service.live(printed)
        wait_for(lambda: "refused the key page (role live)" in caplog.text, "a refusal")
        with Browser(url) as browser:
            assert browser.until("state")["connected"] is False
            keys.allow(folder, "page", "live", public)
            browser.until("state", lambda state: state["connected"])
    finally:
        service.close()


def test_a_page_of_several_aggregators_shows_one_that_answers_and_another_one_when_that_dies(
    service: Service, printed: Callable[[], str], tmp_path: Path
) -> None:
    first, second = service.settings, f"tcp://127.0.0.1:{free_port()}"
    journal = first.journal.model_copy(update={"path": tmp_path / "other.db"})
    other = first.model_copy(update={"address": second, "journal": journal})
    both = f"{first.address},{second}"
    end = service.start(aggregator.run)
    service.settings = first.model_copy(update={"address": both})
    url, _ = service.live(printed)
    with Browser(url) as browser:
        browser.until("state", lambda state: state["connected"])
        service.start(aggregator.run, settings=other)
        end()
        service.start(worker.run, "1")
        service.start(capture.run, "film")
        browser.say(watch={"film": 320})
        browser.until("picture")
