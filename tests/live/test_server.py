"""The live page's server: who gets in, what a browser is told, at which pace, and what it costs the others."""

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


# What a browser is told


def test_a_browser_is_told_all_there_is(service: Service, told: Callable[[], str]) -> None:
    service.pipeline()
    url, _ = service.live(told)
    with Browser(url) as browser:
        hello = browser.hear()
        assert (hello["type"], hello["blurred"], hello["valence"]["happy"]) == ("hello", True, "positive")

        def captured(state: dict[str, Any]) -> int:
            cameras = state["status"].get("cameras", {})
            return cameras["film"]["ledger"]["captured"] if "film" in cameras else 0

        state = browser.until("state", lambda state: state["status"].get("workers") and captured(state))
        assert list(state["status"]["workers"]) == ["1"]
        heard = browser.until("events", lambda it: any(event["type"] == "emotion.started" for event in it["events"]))
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
        told_first = late.until("events")
        past = told_first["events"]
        assert int(heard["events"][-1]["cursor"]) <= told_first["past"] <= len(past)
        assert (
            late.until("events", lambda it: int(it["events"][-1]["cursor"]) > int(past[-1]["cursor"]))["past"] == 0
        ), "news"
        assert [int(event["cursor"]) for event in past] == list(range(1, len(past) + 1)), (
            "who comes late learns the past"
        )


def test_a_picture_comes_once_the_last_one_is_shown_and_it_is_the_newest(
    service: Service, told: Callable[[], str]
) -> None:
    service.pipeline()
    url, _ = service.live(told)
    with Browser(url) as browser:
        browser.say(watch={"film": 320})
        first = browser.until("picture")
        done: list[int] = []
        while not done or done[-1] < done[0] + 20:  # many more are there to be seen
            message = browser.hear()
            assert message["type"] != "picture", "the last one is not shown yet"
            if message["type"] == "state":
                done.append(message["status"]["cameras"]["film"]["ledger"]["done"])
        browser.say(shown="film")
        second = browser.until("picture")
        browser.say(shown="film")
        third = browser.until("picture")
    assert second["frame"] - first["frame"] > 10, "those in between are passed over"
    assert third["frame"] > second["frame"]


def test_frames_are_asked_for_only_while_somebody_watches(
    short_folder: Path, tiny_model: Path, told: Callable[[], str]
) -> None:
    """This test is the aggregator, and is told who listens to what."""
    service = Service(short_folder, tiny_model, {"door": {}})
    hub = plugins.transport(service.settings).bind(service.settings.address)
    latest: dict[tuple[str, bytes], bool] = {}

    def listens(link: str, topic: bytes) -> bool | None:
        """Return what the latest notice of a topic was: somebody listens, nobody does any more, or there was none."""
        for sent, _, parts in hub.receive(0.05):
            if sent in plugins.BROADCASTS:
                latest[sent, bytes(parts[0][1:])] = bytes(parts[0][:1]) == b"\x01"
        return latest.get((link, topic))

    def watched(*topics: bytes) -> bool:
        return all(listens(link, topic) for link in ("preview", "observations") for topic in topics)

    try:
        url, _ = service.live(told)
        with Browser(url) as one, Browser(url) as two:
            assert listens("preview", b"door/") is None
            one.say(watch={"door": 320})
            wait_for(lambda: watched(b"door/"), "a listener")
            two.say(watch={"door": 640, "gate": 640})
            wait_for(lambda: watched(b"door/", b"gate/"), "a listener to both")
            one.say(watch={})
            two.say(watch={"door": 640})
            wait_for(lambda: listens("preview", b"gate/") is False and watched(b"door/"), "the end of listening to one")
        for link in ("preview", "observations"):
            wait_for(lambda link=link: listens(link, b"door/") is False, f"the end of listening to {link}")
    finally:
        service.close()
        hub.close()


def test_a_browser_that_says_what_it_should_not_is_shown_out_alone(service: Service, told: Callable[[], str]) -> None:
    url, _ = service.live(told)
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
        assert good.until("state")["connected"] is False, "there is no aggregator here"


def test_what_is_too_long_is_not_read(service: Service, told: Callable[[], str]) -> None:
    url, _ = service.live(told)
    with Browser(url) as browser:
        browser.say(shown="x" * server.MAX_MESSAGE)
        with pytest.raises(ConnectionClosed):
            browser.until("nothing")


def test_an_aggregator_that_goes_and_comes_back(service: Service, told: Callable[[], str]) -> None:
    end = service.start(aggregator.run)
    url, _ = service.live(told)
    with Browser(url) as browser:
        browser.until("state", lambda state: state["connected"])
        end()
        browser.until("state", lambda state: not state["connected"])
        service.start(aggregator.run)
        browser.until("state", lambda state: state["connected"])


# Who gets in


def test_headers_keep_strangers_out(service: Service, told: Callable[[], str]) -> None:
    url, _ = service.live(told)
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


def test_only_names_of_this_machine_are_served(service: Service, told: Callable[[], str]) -> None:
    url, _ = service.live(told)
    for host in ("evil.example", "localhost.evil.example", "", "[::1", "192.0.2.1"):
        assert get(url, Host=host).status == 421, host
    for host in ("localhost", "127.0.0.1:1", "[::1]", "LOCALHOST:80"):
        assert get(url, Host=host).status == 200, host


def test_behind_a_proxy_the_page_has_a_further_name_and_asks_for_the_token(
    short_folder: Path, tiny_model: Path, told: Callable[[], str], tmp_path: Path
) -> None:
    service = Service(short_folder, tiny_model, {"film": {}}, **{"deployment.purpose": "research"})
    try:
        url, _ = service.live(told, hosts=["page.example"], token_file=token_file(tmp_path))
        assert get(url, Host="evil.example").status == 421
        for host in ("page.example", "localhost"):  # whatever a proxy passes on
            assert get(url, Host=host).status == 401, host
            assert get(url, Host=host, Authorization=f"Bearer {TOKEN}").status == 200, host
        proxied = {"Origin": "https://page.example", "X_Forwarded_Proto": "https"}
        answer = get(url, "/", "POST", f"token={TOKEN}", Host="page.example", **proxied)
        assert (answer.status, "Secure" in answer.headers["Set-Cookie"].split("; ")) == (303, True)
    finally:
        service.close()


def test_only_the_page_itself_opens_a_socket(service: Service, told: Callable[[], str]) -> None:
    url, _ = service.live(told)
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


def test_a_token_opens_the_page_and_nothing_less_does(
    service: Service, told: Callable[[], str], tmp_path: Path
) -> None:
    url, _ = service.live(told, token_file=token_file(tmp_path))
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
    assert get(url, "/live.css").status == 200, "the form has it"
    for answer in (
        get(url, f"/?token={TOKEN}"),
        get(url, "/", "POST", f"token={TOKEN}", Origin=url.rstrip("/")),
    ):
        assert (answer.status, answer.headers["Location"]) == (303, "./?entered")
        cookie = answer.headers["Set-Cookie"]
        assert TOKEN not in cookie
        assert {"HttpOnly", "SameSite=strict"} == set(cookie.split("; ")[1:]), "for the page's folder alone"
        value = cookie.partition(";")[0]
        assert get(url, Cookie=value).status == 200
        for other in ('a={"x": 1}', "x", "a[0]=1", "a@b=1"):  # programs on other ports of this host have cookies, too
            assert get(url, Cookie=f"{other}; {value}").status == 200, other
        with Browser(url, Cookie=value) as browser:
            assert browser.hear()["type"] == "hello"
    assert get(url, "/", "POST", f"token={TOKEN}", Origin="http://evil.example").status == 403
    assert get(url, "/", "POST", "token=" + "x" * 2000, Origin=url.rstrip("/")).status == 401
    with pytest.raises(InvalidStatus), Browser(url):
        pass
    assert TOKEN not in told()


def test_beyond_this_machine_a_page_needs_a_token(tmp_path: Path) -> None:
    assert token(LiveSettings()) is None
    assert token(LiveSettings(hosts=["LocalHost", "127.0.0.1"])) is None, "names of this machine, for itself alone"
    path = token_file(tmp_path)
    for there, where in (
        ({"bind": "0.0.0.0:0"}, "0.0.0.0:0"),
        ({"hosts": ["page.example"]}, r"page.example \(live.hosts\)"),
    ):
        with pytest.raises(
            ConfigError, match=where + r" may be reached from other machines, and has no token: put one"
        ):
            token(LiveSettings(**there))
        assert token(LiveSettings(**there, token_file=path)) == TOKEN
        settings = Settings(live=LiveSettings(**there, token_file=path))
        with pytest.raises(ConfigError, match=where + r" may be reached from other machines: state what it is used"):
            server.check(settings)
        server.check(settings.model_copy(update={"deployment": DeploymentSettings(purpose="research")}))
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"others may read .*live.token: chmod 600 it"):
        token(LiveSettings(token_file=path))


def test_beyond_this_machine_names_are_still_known_ones() -> None:
    known = names(LiveSettings(bind="0.0.0.0:0", hosts=["page.example"])).known
    for host in ("192.0.2.1:80", "[2001:db8::1]", "page.example", socket.gethostname(), "localhost"):
        assert known(host), host
    for host in ("evil.example", "192.0.2.1.evil.example", "", ":80"):
        assert not known(host), host


# As a command


def test_the_command_prints_its_address_and_ends_in_order(cli: Cli, short_folder: Path) -> None:
    process = cli.start("live", "--page", "127.0.0.1:0", "--connect", f"ipc://{short_folder}")
    process.until(lambda: "the live page is at http://127.0.0.1:" in process.out, "its address")
    url = process.out.split()[-1]
    assert "the live page is at" not in process.err, "told once"
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


def test_a_run_serves_the_page_too_and_does_not_depend_on_it(cli: Cli, short_folder: Path, clip: Path) -> None:
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


def test_a_missing_extra_is_told_in_a_sentence(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError('no', name='uvicorn')")
    for command in (("live",), ("run", "--live")):
        process = cli.run(*command, PYTHONPATH=str(tmp_path))
        assert process.errors == ["fer-stream: error: this needs uvicorn (no): pip install 'fer-stream[live]'"]
        assert process.popen.returncode == PluginError.exit_code
