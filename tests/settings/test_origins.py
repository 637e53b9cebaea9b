"""Host names of the live page: valid settings, and which ``Host`` and ``Origin`` headers are the page's own."""

from __future__ import annotations

import pytest

from fer_stream.settings.origins import Names, ancestor, base_path, name_port, page_name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cameras.example.org", ("cameras.example.org", None)),
        ("Cameras.Example.org.:8443", ("cameras.example.org", 8443)),
        ("münchen.example", ("xn--mnchen-3ya.example", None)),
        ("fer_live:8090", ("fer_live", 8090)),
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("[2001:DB8::1]:8443", ("2001:db8::1", 8443)),
    ],
)
def test_names(text: str, found: tuple[str, int | None]) -> None:
    assert name_port(text) == found
    assert page_name(text) == text


@pytest.mark.parametrize(
    "text",
    ["", ":80", "a:", "a:0x1", "a:70000", "https://a", "a/b", "a?b", "a#b", "u@a", "a b", "a\nb", "[::1", "[a]", "a..b",
     "::1", "a;b", "*"],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match="must be NAME or NAME:PORT"):
        name_port(text)


def test_a_base_path_can_neither_leave_its_place_nor_a_header() -> None:
    for text in ("/", "/fer/", "/a/b-c_d.e~f/"):
        assert base_path(text) == text
    for text in ("", "fer", "/fer", "fer/", "//evil.example/", "/../", "/a/./", "/a//", "/a b/", "/a\r\nx: y/", "/%2e/",
                 "/a?b/", '/"/', "/a\\b/", "/fer/\n"):  # fmt: skip
        with pytest.raises(ValueError, match="must be a path that begins and ends with /"):
            base_path(text)


def test_who_may_frame_is_an_origin_and_nothing_that_widens_the_policy() -> None:
    for text in ("self", "https://home.example.org:8123", "http://homeassistant.local:8123", "https://*.example.org",
                 "https://[2001:db8::1]:8123"):  # fmt: skip
        assert ancestor(text) == text
    wrong = ["", "*", "'self'", "https:", "https://", "https://*", "home.example.org", "https://a/b", "javascript://a"]
    wrong += ["https://a; script-src *", "https://a https://b", "https://a,b", "https://a\r\nx: y", "https://a.*.b"]
    for text in (*wrong, "https://\u00e4.example"):
        with pytest.raises(ValueError, match="must be self, or an origin"):
            ancestor(text)


def same(origin: str, host: str, *given: str, encrypted: bool = False) -> bool:
    return Names(["localhost", "this-machine"], given, strangers=True).same(origin, host, encrypted)


def test_an_origin_is_the_page_s_if_the_host_is_the_same() -> None:
    assert same("http://localhost:8090", "localhost:8090")
    assert same("http://LOCALHOST:8090", "localhost.:8090")
    assert same("https://this-machine", "this-machine")
    assert same("https://this-machine", "this-machine:443"), "a proxy may include the default port"
    assert same("http://this-machine", "this-machine:80")
    assert same("http://[::1]:8090", "[::1]:8090")


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://localhost", "https://localhost:8443", "null", "",
                                    "http://evil.example", "ftp://localhost:8090", "http://[", "localhost:8090",
                                    "http://evil.example:8090", "http://localhost:8090.evil.example",
                                    "http://evil.example/http://localhost:8090"])  # fmt: skip
def test_another_port_or_name_is_another_page(origin: str) -> None:
    assert not same(origin, "localhost:8090")


def test_a_proxy_that_leaves_the_port_out() -> None:
    assert same("https://page.example:8443", "page.example", "page.example")
    assert same("https://this-machine:8443", "this-machine"), "only the proxy uses TLS"
    assert not same("http://this-machine:3000", "this-machine"), "this may be the origin of another program"
    assert not same("https://evil.example:8443", "page.example", "page.example")
    assert same("https://page.example:8443", "page.example", "page.example:8443")
    assert not same("https://page.example:9443", "page.example", "page.example:8443"), "the settings define the port"


def test_a_proxy_that_passes_on_no_host() -> None:
    for given in ("page.example", "page.example:8443"):
        assert same("https://page.example:8443", "127.0.0.1:8090", given)
        assert not same("https://evil.example:8443", "127.0.0.1:8090", given)
    assert not same("https://page.example:9443", "127.0.0.1:8090", "page.example:8443")
    assert not same("https://page.example:9443", "page.example:8443", "page.example"), (
        "the header Host defines the port"
    )


def test_a_page_without_encryption_is_not_the_one_with_it() -> None:
    """A man in the middle could change the page without TLS and let it send requests to the page with TLS."""
    assert not same("http://page.example", "page.example", "page.example", encrypted=True)
    assert same("https://page.example", "page.example", "page.example", encrypted=True)


def test_known_hosts() -> None:
    local = Names(["localhost"], ["page.example:8443"], strangers=False)
    for host in ("localhost:1", "127.0.0.9", "[::1]:80", "page.example", "PAGE.example.:9"):
        assert local.known(host), host
    for host in (
        "evil.example",
        "192.0.2.1",
        "",
        "localhost.evil.example",
        "page.example@evil.example",
        "[::1",
        "a:b:c",
    ):
        assert not local.known(host), host
    assert Names([], [], strangers=True).known("192.0.2.1:80")
