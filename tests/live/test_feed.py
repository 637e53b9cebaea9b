"""What goes wrong between the live page and the aggregator for a while is tried again until it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from processes import wait_for
from served import Browser, Service

from fer_stream.aggregator import aggregator
from fer_stream.errors import TransportError
from fer_stream.transports import keys
from fer_stream.transports.zeromq import ZeroMQ

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_events_from_before_the_page_s_server_are_the_past_whenever_they_come(
    service: Service, told: Callable[[], str]
) -> None:
    service.pipeline()
    url, end = service.live(told)
    with Browser(url) as browser:
        started = browser.until("events", lambda it: it["events"][-1]["type"] == "emotion.started")
        before = int(started["events"][-1]["cursor"])
    end()
    url, _ = service.live(told)
    with Browser(url) as browser:  # it may be there before the server knows of any event
        heard: list[tuple[int, bool]] = []
        while not heard or heard[-1][1]:
            message = browser.until("events")
            heard += [(int(one["cursor"]), n < message["past"]) for n, one in enumerate(message["events"])]
    assert all(past for cursor, past in heard if cursor <= before)


@pytest.mark.parametrize("link", ["observations", "preview"])
def test_a_listener_that_fails_listens_again_though_nobody_wants_anything_else(
    link: str, service: Service, told: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = ["no more sockets"]
    subscribe = ZeroMQ.subscribe

    def fails_once(self: ZeroMQ, address: str, other: str, topics: list[str]) -> Any:
        if other == link and failures:
            raise TransportError(failures.pop())
        return subscribe(self, address, other, topics)

    monkeypatch.setattr(ZeroMQ, "subscribe", fails_once)
    service.pipeline()
    url, _ = service.live(told)
    with Browser(url) as browser:
        browser.say(watch={"film": 320})
        browser.until("picture")
    assert not failures


def test_a_key_that_opens_no_pictures_is_told_of_before_anybody_looks(
    short_folder: Path, tmp_path: Path, tiny_model: Path, told: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "keys"
    service = Service(short_folder, tiny_model, {}, keys=folder, key=keys.new(folder, "desk", "client"))
    try:
        service.start(aggregator.run)
        service.live(told)
        refused = "refused the key desk (role client): ask its operator to allow it with `fer-stream keys allow`; "
        wait_for(lambda: refused + "the link preview is open to the roles live, all" in caplog.text, "a refusal")
    finally:
        service.close()


def test_a_page_whose_key_was_refused_gets_in_once_it_is_allowed(
    short_folder: Path, tmp_path: Path, tiny_model: Path, told: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    folder, own = tmp_path / "keys", tmp_path / "page.key"
    keys.new(folder, "page", "live").rename(own)
    public = keys.load(own).public
    keys.revoke(folder, "page")
    service = Service(short_folder, tiny_model, {}, keys=folder, key=own)
    try:
        service.start(aggregator.run)
        url, _ = service.live(told)
        wait_for(lambda: "refused the key page (role live)" in caplog.text, "a refusal")
        with Browser(url) as browser:
            assert browser.until("state")["connected"] is False
            keys.allow(folder, "page", "live", public)
            browser.until("state", lambda state: state["connected"])
    finally:
        service.close()
