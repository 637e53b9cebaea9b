"""Behind proxies: every refusal gives its reason, and no answer contains an address outside the page's folder."""

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
def served(short_folder: Path, tmp_path: Path, printed: Callable[[], str]) -> Iterator[Callable[..., str]]:
    """``served(**settings)`` starts a page without an aggregator, and returns its address."""
    path = tmp_path / "live.token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    service = Service(short_folder, tmp_path / "none.onnx", {}, **{"deployment.purpose": "research"})
    yield lambda **changes: service.live(printed, token_file=path, **changes)[0]
    service.close()


def enter(url: str, path: str = "/", **headers: str) -> dict[str, str | None]:
    answer = get(url, path, "POST", f"token={TOKEN}", **headers)
    assert answer.status == 303, answer.body  # type: ignore[attr-defined]
    return {name: answer.headers[name] for name in ("Location", "Set-Cookie")}


PROXIES = {
    "passes on the Host": ("cameras.example.org:8443", ["cameras.example.org"]),
    "leaves the port out": ("cameras.example.org", ["cameras.example.org"]),
    "sends its target as Host": ("127.0.0.1:8090", ["cameras.example.org:8443"]),
    "sends its target as Host, and the settings have no port": ("127.0.0.1:8090", ["cameras.example.org"]),
}
"""What a proxy does with Host: the Host that arrives, and the setting ``hosts``."""


@pytest.mark.parametrize("proxy", PROXIES)
def test_tls_on_another_port(proxy: str, served: Callable[..., str]) -> None:
    host, hosts = PROXIES[proxy]
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


def test_every_refusal_has_the_same_sentence_in_the_answer_and_in_the_log(
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
        assert get(url, "/feed", "POST", Origin=origin, **changes).status == status, (
            "the page's question why gets the same answer"
        )
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


def test_a_browser_above_the_limit_is_refused(served: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
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
    wait_for(lambda: get(url, "/feed", "POST", Origin=own, **bearer).status == 426, "a free slot for a browser")


def test_the_log_of_refusals_is_rate_limited_and_escaped(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(logging.getLogger("test"))
    for number in range(1000):
        refusals.refuse({"path": "/\n\x1b[2J", "client": ("192.0.2.1", 1)}, 421, f"reason {number}")
        refusals.tell("again")
    assert len(caplog.records) == MOST
    assert "\n" not in caplog.records[0].message
    assert "\x1b" not in caplog.records[0].message


def test_a_header_is_shortened_and_escaped_in_the_log(
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


def test_a_base_path_that_the_proxy_does_not_remove(served: Callable[..., str]) -> None:
    url = served(base_path="/cams/fer/")
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/cams/fer/", "/cams/fer/main.js", "/", "/main.js"):  # a proxy may remove the base path or not
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


def test_no_request_header_gets_into_an_answer(served: Callable[..., str]) -> None:
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


def test_only_the_configured_origins_may_show_the_page_in_a_frame(served: Callable[..., str]) -> None:
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
    assert "SameSite=strict" in (enter(framed, Origin=own)["Set-Cookie"] or ""), (
        "without TLS browsers reject SameSite=none"
    )
    cookie = enter(framed, X_Forwarded_Proto="https", Origin=own.replace("http:", "https:"))["Set-Cookie"] or ""
    assert set(cookie.split("; ")[1:]) == {"HttpOnly", "Secure", "SameSite=none", "Partitioned"}
    value = cookie.partition(";")[0]
    with pytest.raises(InvalidStatus) as refused, Browser(framed, "https://home.example.net:8123", Cookie=value):
        pass
    assert refused.value.response.status_code == 403, (
        "an origin that may show the page in a frame may not open its WebSocket"
    )
