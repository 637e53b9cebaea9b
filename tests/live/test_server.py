"""The live page's server: access, what it sends to a browser and at which rate, and the load on the aggregator."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from processes import Cli, wait_for
from served import Browser, Service, get
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fer_stream import plugins
from fer_stream.aggregator import aggregator
from fer_stream.errors import ConfigError, PluginError, TransportError
from fer_stream.live import server
from fer_stream.live.access import names, token
from fer_stream.settings.tree import DeploymentSettings, LiveSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOKEN = "0123456789abcdef-token"


# What the server sends


def test_a_browser_gets_hello_status_events_and_pictures(service: Service, printed: Callable[[], str]) -> None:
    service.pipeline()
    url, _ = service.live(printed)
    with Browser(url) as browser:
        hello = browser.hear()
        assert (hello["type"], hello["blurred"], hello["valence"]["happy"]) == ("hello", True, "positive")

        def captured(state: dict[str, Any]) -> int:
            cameras = state["status"].get("cameras", {})
            return cameras["film"]["ledger"]["captured"] if "film" in cameras else 0

        state = browser.until("state", lambda state: state["status"].get("workers") and captured(state))
        assert list(state["status"]["workers"]) == ["1"]
        heard = browser.until(
            "events", lambda message: any(event["type"] == "emotion.started" for event in message["events"])
        )
        browser.say(watch={"film": 300})
        picture = browser.until("picture")
        while not any(track["label"] for track in picture["tracks"]):
            browser.say(shown="film")
            picture = browser.until("picture")
    image = cv2.imdecode(np.frombuffer(picture["jpeg"], np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (240, 320, 3), "the smallest width that fills the tile"
    assert picture["size"] == [640, 480]
    assert {track["label"] for track in picture["tracks"]} - {None} == {"happy"}
    with Browser(url) as late:
        first = late.until("events")
        past = first["events"]
        assert int(heard["events"][-1]["cursor"]) <= first["past"] <= len(past)
        new = late.until("events", lambda message: int(message["events"][-1]["cursor"]) > int(past[-1]["cursor"]))
        assert new["past"] == 0
        assert [int(event["cursor"]) for event in past] == list(range(1, len(past) + 1)), (
            "a browser that connects late gets all past events"
        )


def test_the_next_picture_is_sent_only_after_the_last_one_is_shown_and_is_the_newest(
    service: Service, printed: Callable[[], str]
) -> None:
    service.pipeline()
    url, _ = service.live(printed)
    with Browser(url) as browser:
        browser.say(watch={"film": 320})
        first = browser.until("picture")
        done: list[int] = []
        while not done or done[-1] < done[0] + 20:  # until the worker has processed 20 more frames
            message = browser.hear()
            assert message["type"] != "picture", "the last one is not shown yet"
            if message["type"] == "state":
                done.append(message["status"]["cameras"]["film"]["ledger"]["done"])
        browser.say(shown="film")
        second = browser.until("picture")
        browser.say(shown="film")
        third = browser.until("picture")
    assert second["frame"] - first["frame"] > 10, "frames in between are skipped"
    assert third["frame"] > second["frame"]


def test_frames_are_subscribed_to_only_while_a_browser_watches(
    short_folder: Path, tiny_model: Path, printed: Callable[[], str]
) -> None:
    """The test plays the aggregator, and sees each subscription."""
    service = Service(short_folder, tiny_model, {"door": {}})
    hub = plugins.transport(service.settings).bind(service.settings.address)
    latest: dict[tuple[str, bytes], bool] = {}

    def listens(link: str, topic: bytes) -> bool | None:
        """Return the latest notice about a topic: True subscribed, False unsubscribed, None if there was none."""
        for sent, _, parts in hub.receive(0.05):
            if sent in plugins.BROADCASTS:
                latest[sent, bytes(parts[0][1:])] = bytes(parts[0][:1]) == b"\x01"
        return latest.get((link, topic))

    def watched(*topics: bytes) -> bool:
        return all(listens(link, topic) for link in ("preview", "observations") for topic in topics)

    try:
        url, _ = service.live(printed)
        with Browser(url) as one, Browser(url) as two:
            assert listens("preview", b"door/") is None
            one.say(watch={"door": 320})
            wait_for(lambda: watched(b"door/"), "a listener")
            two.say(watch={"door": 640, "gate": 640})
            wait_for(lambda: watched(b"door/", b"gate/"), "a listener to both")
            one.say(watch={})
            two.say(watch={"door": 640})
            wait_for(lambda: listens("preview", b"gate/") is False and watched(b"door/"), "the unsubscription of gate")
        for link in ("preview", "observations"):
            wait_for(lambda link=link: listens(link, b"door/") is False, f"the unsubscription of {link}")
    finally:
        service.close()
        hub.close()


def test_only_the_browser_that_sends_an_invalid_message_is_disconnected(
    service: Service, printed: Callable[[], str]
) -> None:
    url, _ = service.live(printed)
    wrong = ("no JSON", "[]", '{"watch": 1}', '{"watch": {"film": "wide"}}', '{"shown": 1}', '{"other": 1}')
    wrong += ('{"watch": {"\\ud800": 320}}', '{"watch": {"": 320}}', '{"watch": {"a/": 320}}', "[" * 60_000, b"{}")  # type: ignore[assignment]
    with Browser(url) as good:
        for message in wrong:
            with Browser(url) as bad:
                bad.socket.send(message)
                with pytest.raises(ConnectionClosed) as closed:
                    bad.until("nothing")
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1008, message
        assert good.until("state")["connected"] is False, "this test has no aggregator"


def test_a_message_that_is_too_long_ends_the_connection(service: Service, printed: Callable[[], str]) -> None:
    url, _ = service.live(printed)
    with Browser(url) as browser:
        browser.say(shown="x" * server.MAX_MESSAGE)
        with pytest.raises(ConnectionClosed):
            browser.until("nothing")


def test_the_page_reconnects_to_a_restarted_aggregator(service: Service, printed: Callable[[], str]) -> None:
    end = service.start(aggregator.run)
    url, _ = service.live(printed)
    with Browser(url) as browser:
        browser.until("state", lambda state: state["connected"])
        end()
        browser.until("state", lambda state: not state["connected"])
        service.start(aggregator.run)
        browser.until("state", lambda state: state["connected"])


# Access


def test_every_answer_has_the_security_headers(service: Service, printed: Callable[[], str]) -> None:
    url, _ = service.live(printed)
    for path in ("/", "/main.js", "/live.css", "/nowhere"):
        answer = get(url, path)
        assert answer.status == (404 if path == "/nowhere" else 200)
        assert "default-src 'self'" in (answer.headers["Content-Security-Policy"] or "")
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] is None
    assert get(url, "/../server.py").status == 404
    assert get(url, "/%2e%2e/server.py").status == 404


def test_a_request_with_an_unknown_host_is_refused(service: Service, printed: Callable[[], str]) -> None:
    url, _ = service.live(printed)
    for host in ("evil.example", "localhost.evil.example", "", "[::1", "192.0.2.1"):
        assert get(url, Host=host).status == 421, host
    for host in ("localhost", "127.0.0.1:1", "[::1]", "LOCALHOST:80"):
        assert get(url, Host=host).status == 200, host


def test_behind_a_proxy_the_page_has_another_name_and_needs_the_token(
    short_folder: Path, tiny_model: Path, printed: Callable[[], str], tmp_path: Path
) -> None:
    service = Service(short_folder, tiny_model, {"film": {}}, **{"deployment.purpose": "research"})
    try:
        url, _ = service.live(printed, hosts=["page.example"], token_file=token_file(tmp_path))
        assert get(url, Host="evil.example").status == 421
        for host in ("page.example", "localhost"):  # a proxy may pass on either
            assert get(url, Host=host).status == 401, host
            assert get(url, Host=host, Authorization=f"Bearer {TOKEN}").status == 200, host
        proxied = {"Origin": "https://page.example", "X_Forwarded_Proto": "https"}
        answer = get(url, "/", "POST", f"token={TOKEN}", Host="page.example", **proxied)
        assert (answer.status, "Secure" in answer.headers["Set-Cookie"].split("; ")) == (303, True)
    finally:
        service.close()


def test_only_the_page_itself_opens_a_socket(service: Service, printed: Callable[[], str]) -> None:
    url, _ = service.live(printed)
    for origin in (
        "http://evil.example",
        "null",
        "http://[",
        "http://127.0.0.1:1",
        f"ftp://{urlsplit(url).netloc}",
        None,
    ):
        with pytest.raises(InvalidStatus) as refused, Browser(url, origin):
            pass
        assert refused.value.response.status_code == 403
    with Browser(url) as browser:
        assert browser.hear()["type"] == "hello"


def token_file(folder: Path, text: str = TOKEN) -> Path:
    path = folder / "live.token"
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def test_only_the_right_token_opens_the_page(service: Service, printed: Callable[[], str], tmp_path: Path) -> None:
    url, _ = service.live(printed, token_file=token_file(tmp_path))
    for path in ("/", "/main.js", f"/?token={TOKEN}x", "/?token=", f"/main.js?token={TOKEN}"):
        answer = get(url, path)
        assert (answer.status, b"<form" in answer.body, answer.headers["Set-Cookie"]) == (
            401,
            path.partition("?")[0] == "/",
            None,
        )  # type: ignore[attr-defined]
    for value in (TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer "):
        assert get(url, Authorization=value).status == 401
    assert get(url, Authorization=f"Bearer {TOKEN}").status == 200
    assert get(url, Cookie="fer_stream_live=wrong").status == 401
    assert get(url, Cookie=f"fer_stream_live={TOKEN}").status == 401, "a cookie is not the token"
    assert get(url, "/live.css").status == 200, "the form uses it"
    for answer in (
        get(url, f"/?token={TOKEN}"),
        get(url, "/", "POST", f"token={TOKEN}", Origin=url.rstrip("/")),
    ):
        assert (answer.status, answer.headers["Location"]) == (303, "./?entered")
        cookie = answer.headers["Set-Cookie"]
        assert TOKEN not in cookie
        assert {"HttpOnly", "SameSite=strict"} == set(cookie.split("; ")[1:]), "no Path: only for the page's folder"
        value = cookie.partition(";")[0]
        assert get(url, Cookie=value).status == 200
        for other in ('a={"x": 1}', "x", "a[0]=1", "a@b=1"):  # cookies of programs on other ports of this host
            assert get(url, Cookie=f"{other}; {value}").status == 200, other
        with Browser(url, Cookie=value) as browser:
            assert browser.hear()["type"] == "hello"
    assert get(url, "/", "POST", f"token={TOKEN}", Origin="http://evil.example").status == 403
    assert get(url, "/", "POST", "token=" + "x" * 2000, Origin=url.rstrip("/")).status == 401
    with pytest.raises(InvalidStatus), Browser(url):
        pass
    assert TOKEN not in printed()


def test_a_page_that_other_machines_reach_needs_a_token(tmp_path: Path) -> None:
    assert token(LiveSettings()) is None
    assert token(LiveSettings(hosts=["LocalHost", "127.0.0.1"])) is None, (
        "loopback names: other machines do not reach the page"
    )
    path = token_file(tmp_path)
    for reachable, where in (
        ({"bind": "0.0.0.0:0"}, "0.0.0.0:0"),
        ({"hosts": ["page.example"]}, r"page.example \(live.hosts\)"),
    ):
        with pytest.raises(
            ConfigError, match=where + r" may be reached from other machines, and has no token: put one"
        ):
            token(LiveSettings(**reachable))
        assert token(LiveSettings(**reachable, token_file=path)) == TOKEN
        settings = Settings(live=LiveSettings(**reachable, token_file=path))
        with pytest.raises(ConfigError, match=where + r" may be reached from other machines: state what it is used"):
            server.check(settings)
        server.check(settings.model_copy(update={"deployment": DeploymentSettings(purpose="research")}))
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"others may read .*live.token: chmod 600 it"):
        token(LiveSettings(token_file=path))


def test_a_page_that_other_machines_reach_still_checks_host() -> None:
    known = names(LiveSettings(bind="0.0.0.0:0", hosts=["page.example"])).known
    for host in ("192.0.2.1:80", "[2001:db8::1]", "page.example", socket.gethostname(), "localhost"):
        assert known(host), host
    for host in ("evil.example", "192.0.2.1.evil.example", "", ":80"):
        assert not known(host), host


# As a command


def test_the_command_prints_its_address_and_ends_cleanly(cli: Cli, short_folder: Path) -> None:
    process = cli.start("live", "--page", "127.0.0.1:0", "--connect", f"ipc://{short_folder}")
    process.until(lambda: "the live page is at http://127.0.0.1:" in process.out, "its address")
    url = process.out.split()[-1]
    assert "the live page is at" not in process.err, "the address is printed once"
    assert get(url).status == 200
    with Browser(url) as browser:
        assert browser.hear()["type"] == "hello"
        taken = cli.run("live", "--page", urlsplit(url).netloc, "--connect", f"ipc://{short_folder}")
        assert taken.errors == [
            f"fer-stream: error: the live page cannot be served at {urlsplit(url).netloc}: Address already in use; "
            "stop what uses it, or choose another address with --page"
        ]
        assert taken.popen.returncode == TransportError.exit_code
        assert process.stop() == 0


def test_a_run_also_serves_the_page_and_survives_its_crash(cli: Cli, short_folder: Path, clip: Path) -> None:
    process = cli.start(
        *("run", f"film={clip}", "--loop", "--workers", 1, "--format", "jsonl", "--journal", "events.db"),
        *("--bind", f"ipc://{short_folder}", "--live", "--page", "127.0.0.1:0"),
    )
    for life in (1, 2):
        process.until(lambda life=life: process.err.count("the live page is at ") == life, "the page")
        url = next(word for word in reversed(process.err.replace('"', " ").split()) if word.startswith("http://127"))
        with Browser(url) as browser:
            browser.say(watch={"film": 320})
            browser.until("picture")
            process.child("live").kill()
            with suppress(ConnectionClosed):
                while True:
                    browser.hear()
    assert process.stop() == 0
    assert "aggregator is started again" not in process.err


def test_a_missing_extra_is_reported_in_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError('no', name='uvicorn')")
    for command in (("live",), ("run", "--live")):
        process = cli.run(*command, PYTHONPATH=str(tmp_path))
        assert process.errors == ["fer-stream: error: this needs uvicorn (no): pip install 'fer-stream[live]'"]
        assert process.popen.returncode == PluginError.exit_code
