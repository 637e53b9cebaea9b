"""Behind proxies: who is refused is told why, and nothing in an answer leads out of the page's own folder."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from processes import wait_for
from served import Browser, Service, get
from websockets.exceptions import InvalidStatus

from fer_stream.live import server
from fer_stream.live.refusals import MOST, Refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOKEN = "0123456789abcdef-token"


@pytest.fixture
def served(short_folder: Path, tmp_path: Path, told: Callable[[], str]) -> Iterator[Callable[..., str]]:
    """``served(**settings)`` starts a page without an aggregator, and returns its address."""
    path = tmp_path / "live.token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    service = Service(short_folder, tmp_path / "none.onnx", {}, **{"deployment.purpose": "research"})
    yield lambda **changes: service.live(told, token_file=path, **changes)[0]
    service.close()


def enter(url: str, path: str = "/", **headers: str) -> dict[str, str | None]:
    answer = get(url, path, "POST", f"token={TOKEN}", **headers)
    assert answer.status == 303, answer.body  # type: ignore[attr-defined]
    return {name: answer.headers[name] for name in ("Location", "Set-Cookie")}


PROXIES = {
    "passes on the Host": ("cameras.example.org:8443", ["cameras.example.org"]),
    "leaves the port out": ("cameras.example.org", ["cameras.example.org"]),
    "says its own name": ("127.0.0.1:8090", ["cameras.example.org:8443"]),
    "says its own name, and the settings no port": ("127.0.0.1:8090", ["cameras.example.org"]),
}


@pytest.mark.parametrize("what", PROXIES)
def test_tls_on_another_port(what: str, served: Callable[..., str]) -> None:
    host, hosts = PROXIES[what]
    url = served(hosts=hosts)
    proxied = {"Host": host, "X_Forwarded_Proto": "https"}
    origin = "https://cameras.example.org:8443"
    cookie = enter(url, Origin=origin, **proxied)["Set-Cookie"] or ""
    assert set(cookie.split("; ")[1:]) == {"HttpOnly", "Secure", "SameSite=strict"}
    value = cookie.partition(";")[0]
    with Browser(url, origin, Cookie=value, **proxied) as browser:
        assert browser.hear()["type"] == "hello"
    for other in (
        "https://evil.example",
        "https://cameras.example.org.evil.example:8443",
        "http://cameras.example.org",
    ):
        with pytest.raises(InvalidStatus) as refused, Browser(url, other, Cookie=value, **proxied):
            pass
        assert refused.value.response.status_code == 403
        assert get(url, "/", "POST", f"token={TOKEN}", Origin=other, **proxied).status == 403


def test_every_refusal_has_its_sentence_there_and_in_the_log(
    served: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    url = served(hosts=["cameras.example.org"])
    own = url.rstrip("/")
    sentences = []
    for status, changes in (
        (421, {"Host": "evil.example"}),
        (403, {"Origin": "http://evil.example"}),
        (401, {"Origin": own}),
    ):
        origin = changes.pop("Origin", own)
        with pytest.raises(InvalidStatus) as refused, Browser(url, origin, **changes):
            pass
        answer = refused.value.response
        assert answer.status_code == status
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        (sentence,) = answer.body.decode().splitlines()
        assert get(url, "/feed", "POST", Origin=origin, **changes).status == status, "what a page hears that asks why"
        sentences.append(sentence)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for method in ("GET", "POST"):
        answer = get(url, "/feed", method, Origin=own, **bearer)
        assert (answer.status, answer.body.decode().strip()) == (426, server.NO_UPGRADE)  # type: ignore[attr-defined]
    for sentence in (*sentences, server.NO_UPGRADE):
        assert any(record.message.endswith(sentence) for record in caplog.records), sentence
    assert len(set(sentences)) == 3
    assert "evil.example" in sentences[0]
    assert "live.hosts" in sentences[0]
    assert "live.hosts as NAME:PORT" in sentences[1]
    assert "This is not the token." in get(url, "/", "POST", "token=wrong", Origin=own).body.decode()  # type: ignore[attr-defined]
    assert "keeps no cookie" in get(url, "/?entered").body.decode()  # type: ignore[attr-defined]
    assert "a wrong token was given, from 127.0.0.1" in caplog.text
    assert TOKEN not in caplog.text


def test_a_page_that_is_full_says_so(served: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    url = served()
    own = url.rstrip("/")
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    monkeypatch.setattr(server, "MOST_VIEWERS", 1)
    with Browser(url, **bearer) as first:
        first.hear()
        with pytest.raises(InvalidStatus) as refused, Browser(url, **bearer):
            pass
        assert refused.value.response.status_code == 503
        assert refused.value.response.body == b"1 browsers show this page already: close one of them\n"
        assert get(url, "/feed", "POST", Origin=own, **bearer).status == 503
    wait_for(lambda: get(url, "/feed", "POST", Origin=own, **bearer).status == 426, "room")


def test_strangers_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(logging.getLogger("test"))
    for number in range(1000):
        refusals.refuse({"path": "/\n\x1b[2J", "client": ("192.0.2.1", 1)}, 421, f"reason {number}")
        refusals.tell("again")
    assert len(caplog.records) == MOST
    assert "\n" not in caplog.records[0].message
    assert "\x1b" not in caplog.records[0].message


def test_what_the_log_says_of_a_header_is_short_and_printable(
    served: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    url = served()
    body = get(url, Host="evil\x1b[2J<script>" + "x" * 5000).body.decode()  # type: ignore[attr-defined]
    assert body.isascii()
    assert "\x1b" not in body
    assert len(body) < 400
    get(url, "/", "POST", "token=wrong", Origin=url.rstrip("/"), X_Forwarded_For="\xff\x85" + "x" * 5000)
    assert "a wrong token was given, from " in caplog.text
    assert all(record.message.isascii() for record in caplog.records)
    assert all(len(record.message) < 500 and record.message.isprintable() for record in caplog.records)


def test_a_base_path_that_the_proxy_leaves(served: Callable[..., str]) -> None:
    url = served(base_path="/cams/fer/")
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/cams/fer/", "/cams/fer/main.js", "/", "/main.js"):  # another proxy may take it away
        assert get(url, path, **bearer).status == 200, path
    for path in ("/cams/", "/fer/", "/cams/fermain.js", "/cams/fer/cams/fer/", "/cams/fer/../../etc/passwd"):
        assert get(url, path, **bearer).status == 404, path
    slash = get(url, "/cams/fer")
    assert (slash.status, slash.headers["Location"]) == (308, "fer/")
    own = url.rstrip("/")
    assert enter(url, "/cams/fer/", Origin=own)["Location"] == "./?entered"
    value = (enter(url, "/cams/fer/", Origin=own)["Set-Cookie"] or "").partition(";")[0]
    with Browser(url + "cams/fer/", own, Cookie=value) as browser:
        assert browser.hear()["type"] == "hello"


def test_no_header_of_a_proxy_or_a_stranger_gets_into_an_answer(served: Callable[..., str]) -> None:
    url = served(base_path="/fer/")
    own = url.rstrip("/")
    for name in (
        "X_Forwarded_Prefix",
        "X_Forwarded_Host",
        "X_Ingress_Path",
        "X_Script_Name",
        "Forwarded",
        "X_Original_URL",
    ):
        for path in ("/", "/fer", "/fer/", "/feed", "//evil.example/", "/fer//evil.example/", "/\\evil.example"):
            for method in ("GET", "POST"):
                answer = get(
                    url, path, method, f"token={TOKEN}", Origin=own, **{name: "//evil.example/\t;x=evil.example"}
                )
                headers = {key: value for key, value in answer.getheaders() if "evil" in value}
                assert not headers
                assert b"evil.example" not in answer.body  # type: ignore[attr-defined]
                assert answer.headers["Location"] in (None, "./?entered", "fer/")


def test_frames_are_for_those_who_are_named(served: Callable[..., str]) -> None:
    url = served()
    answer = get(url)
    assert "frame-ancestors 'none'" in (answer.headers["Content-Security-Policy"] or "")
    assert answer.headers["X-Frame-Options"] == "DENY"
    tls = {"X_Forwarded_Proto": "https", "Origin": f"https://{url.split('/')[2]}"}
    assert "SameSite=strict" in (enter(url, **tls)["Set-Cookie"] or "")
    framed = served(frame_ancestors=["self", "https://home.example.net:8123"])
    answer = get(framed)
    policy = answer.headers["Content-Security-Policy"] or ""
    assert policy.endswith("frame-ancestors 'self' https://home.example.net:8123")
    assert answer.headers["X-Frame-Options"] is None
    own = framed.rstrip("/")
    assert "SameSite=strict" in (enter(framed, Origin=own)["Set-Cookie"] or ""), "without TLS no other is kept"
    cookie = enter(framed, X_Forwarded_Proto="https", Origin=own.replace("http:", "https:"))["Set-Cookie"] or ""
    assert set(cookie.split("; ")[1:]) == {"HttpOnly", "Secure", "SameSite=none", "Partitioned"}
    value = cookie.partition(";")[0]
    with pytest.raises(InvalidStatus) as refused, Browser(framed, "https://home.example.net:8123", Cookie=value):
        pass
    assert refused.value.response.status_code == 403, "who may show the page in a frame may not speak for it"
