"""The live page behind a real nginx and a real Caddy, configured as in the how-to, in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from documents import ROOT, blocks
from playwright.sync_api import expect
from processes import free_port, wait_for
from served import Service

from fer_stream.client import status
from fer_stream.live import server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

PAGE = ROOT / "docs/how-to/reverse-proxy.md"
BLOCKS = {block.title: block.text for block in blocks(PAGE) if block.title}
TOKEN = "0123456789abcdef-token"
NAME, HOME = "cameras.example.org", "home.example.net"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``cameras.pem`` and ``cameras.key``."""
    folder = tmp_path_factory.mktemp("certificate")
    names = f"subjectAltName=DNS:{NAME},DNS:{HOME}"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", f"/CN={NAME}", "-addext", names, "-keyout", "cameras.key", "-out", "cameras.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


class Site:
    """A service with a camera ``film``, and the pages and proxies that a test starts in front of it."""

    def __init__(self, folder: Path, certificate: Path, model: Path, clip: Path) -> None:
        self.folder, self._certificate = folder, certificate
        self.service = Service(
            folder, model, {"film": {"source": str(clip), "loop": True}}, **{"deployment.purpose": "research"}
        )
        self.service.pipeline()
        self._token = folder / "live.token"
        self._token.write_text(TOKEN)
        self._token.chmod(0o600)
        self.ends: list[Callable[[], object]] = []
        """What ends each started page and proxy, in the order of their starts."""
        self._number = 0

    def live(self, **changes: Any) -> int:
        """Serve a page; return its port."""
        port = free_port()
        changes = {"bind": f"127.0.0.1:{port}", "token_file": self._token, "hosts": [NAME], **changes}
        settings = self.service.settings
        live = settings.live.model_copy(update=changes)
        self.ends.append(self.service.start(server.run, settings=settings.model_copy(update={"live": live})))
        _listening(port)
        return port

    def done(self) -> int:
        """Return how many frames of the film (15 a second) have been processed or superseded."""
        ledger: dict[str, int] = status(self.service.settings)["cameras"]["film"]["ledger"]
        return ledger["done"] + ledger["superseded"]

    def nginx(self, text: str) -> int:
        """Run nginx with ``text`` as a file in ``conf.d``, with a free port for TLS; return that port."""
        folder, text, port = self._prepare(text)
        (folder / "conf.d").mkdir()
        (folder / "conf.d/fer-stream.conf").write_text(text)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {kind};" for kind in kinds)
        main = "daemon off; pid nginx.pid; error_log stderr; worker_processes 1; events {} http { access_log off;"
        (folder / "nginx.conf").write_text(f"{main} {temporary} include conf.d/*.conf; }}")
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        self._run([program, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")], folder)
        return _listening(port)

    def caddy(self, text: str) -> int:
        """Run Caddy with ``text`` as Caddyfile, with a free port for TLS; return that port."""
        folder, text, port = self._prepare(text)
        (folder / "Caddyfile").write_text(text)
        self._run(["caddy", "run"], folder, CADDY_ADMIN=f"127.0.0.1:{free_port()}", HOME=str(folder))
        return _listening(port)

    def _prepare(self, text: str) -> tuple[Path, str, int]:
        self._number += 1
        folder = self.folder / f"proxy-{self._number}"
        shutil.copytree(self._certificate, folder)
        port = free_port()
        assert "8443" in text
        return folder, text.replace("8443", str(port)), port

    def _run(self, command: list[str], folder: Path, **environment: str) -> None:
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=os.environ | environment)

        def end() -> None:
            process.terminate()
            process.wait()

        self.ends.append(end)

    def end(self) -> None:
        """End all pages and proxies, the last one first."""
        while self.ends:
            self.ends.pop()()


def _listening(port: int) -> int:
    def accepts() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    wait_for(accepts, f"a server at port {port}")
    return port


def before(port: int, text: str, **changes: str) -> str:
    """Return a configuration with the page's port and ``changes`` replaced; each old text must occur in it."""
    for old, new in {"8090": str(port), **changes}.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def shared_site(certificate: Path, tiny_model: Path, clip: Path) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="f-", dir="/tmp") as folder:
        made = Site(Path(folder), certificate, tiny_model, clip)
        yield made
        made.end()
        made.service.close()


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    yield shared_site
    shared_site.end()


@pytest.fixture(scope="module")
def resolver() -> list[str]:
    return ["--host-resolver-rules=MAP *.example.org 127.0.0.1, MAP *.example.net 127.0.0.1"]


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[[str], Visit]]:
    """``visit(url)`` opens a page; requests to `NAME` outside of the folder ``/fer/`` fail the test."""
    visits: list[Visit] = []

    def open_page(url: str) -> Visit:
        visits.append(Visit(chromium, url))
        return visits[-1]

    yield open_page
    for each in visits:
        each.page.context.close()
    assert [address for each in visits for address in each.outside] == []


class Visit:
    """A page in a browser context of its own, and the requests that it has made."""

    def __init__(self, chromium: Browser, url: str) -> None:
        self.page = chromium.new_context(ignore_https_errors=True).new_page()
        self.outside: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.page.on("request", lambda request: self._record(request.method, request.url))
        self.page.on("websocket", lambda opened: self._record("websocket", opened.url))
        self.page.goto(url)

    def _record(self, method: str, url: str) -> None:
        self.requests.append((method, url))
        if NAME in url and not re.fullmatch(r"\w+://[^/]+/fer(/.*)?", url):
            self.outside.append(url)

    def enter(self, token: str = TOKEN) -> Self:
        return self.enter_in(self.page, token)

    def enter_in(self, frame: Any, token: str = TOKEN) -> Self:
        frame.get_by_label("Token").fill(token)
        frame.get_by_role("button", name="Enter").click()
        return self


def shows_a_face(frame: Any) -> None:
    """Wait until the page shows a face, which needs its files, the token and the WebSocket."""
    expect(frame.locator(".face").first).to_be_visible()
    expect(frame.locator("#health")).to_have_text("All well")


def test_nginx_as_in_the_how_to(site: Site, visit: Callable[[str], Visit]) -> None:
    port = site.nginx(before(site.live(), BLOCKS["fer-stream.conf"]))
    seen = visit(f"https://{NAME}:{port}/fer").enter("wrong-token-0123456789")
    expect(seen.page.get_by_role("alert")).to_have_text("This is not the token.")
    shows_a_face(seen.enter().page)
    assert seen.page.url == f"https://{NAME}:{port}/fer/"
    (cookie,) = seen.page.context.cookies()
    assert (cookie["path"], cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == ("/fer", True, True, "Strict")
    assert [url for method, url in seen.requests if method == "POST"] == [f"https://{NAME}:{port}/fer/"] * 2
    assert ("websocket", f"wss://{NAME}:{port}/fer/feed") in seen.requests
    seen.page.reload()
    shows_a_face(seen.page)
    other = visit(f"https://{NAME}:{port}/fer/?token={TOKEN}")
    shows_a_face(other.page)
    assert other.page.url == f"https://{NAME}:{port}/fer/"


def test_caddy_as_in_the_how_to(site: Site, visit: Callable[[str], Visit]) -> None:
    port = site.caddy(before(site.live(), BLOCKS["Caddyfile"]))
    seen = visit(f"https://{NAME}:{port}/fer").enter()
    shows_a_face(seen.page)
    assert seen.page.url == f"https://{NAME}:{port}/fer/"
    (cookie,) = seen.page.context.cookies()
    assert (cookie["path"], cookie["secure"]) == ("/fer", True)


def test_a_connection_without_pictures_is_not_closed_by_a_proxy_as_idle(
    site: Site, visit: Callable[[str], Visit]
) -> None:
    quick = {"proxy_http_version 1.1;": "proxy_http_version 1.1; proxy_read_timeout 3s; proxy_send_timeout 3s;"}
    port = site.nginx(before(site.live(), BLOCKS["fer-stream.conf"], **quick))
    seen = visit(f"https://{NAME}:{port}/fer/").enter()
    shows_a_face(seen.page)
    seen.page.get_by_role("button", name="Pause").click()  # stop the pictures
    done = site.done()
    wait_for(lambda: site.done() > done + 150, "ten seconds of the film")
    seen.page.get_by_role("button", name="Resume").click()
    shows_a_face(seen.page)
    assert [method for method, _ in seen.requests].count("websocket") == 1


HOSTS = {
    "leaves the port out": "proxy_set_header Host $host;",
    "sends its target as Host": "",
}


@pytest.mark.parametrize("proxy", HOSTS)
def test_an_nginx_that_passes_on_another_host(proxy: str, site: Site, visit: Callable[[str], Visit]) -> None:
    text = before(site.live(), BLOCKS["fer-stream.conf"], **{"proxy_set_header Host $http_host;": HOSTS[proxy]})
    shows_a_face(visit(f"https://{NAME}:{site.nginx(text)}/fer/").enter().page)


def test_a_proxy_that_does_not_remove_the_base_path(site: Site, visit: Callable[[str], Visit]) -> None:
    port = site.live(base_path="/fer/")
    text = before(
        port,
        BLOCKS["fer-stream.conf"],
        **{f"127.0.0.1:{port}/;": f"127.0.0.1:{port};", "location /fer/": "location /fer"},
    )
    shows_a_face(visit(f"https://{NAME}:{site.nginx(text)}/fer").enter().page)


def test_a_proxy_that_serves_the_page_without_its_final_slash(site: Site, visit: Callable[[str], Visit]) -> None:
    """Without the slash, relative addresses and the form's would be those of another application on the host."""
    text = before(
        site.live(), BLOCKS["Caddyfile"], **{"redir /fer /fer/": "", "handle_path /fer/*": "handle_path /fer*"}
    )
    seen = visit(f"https://{NAME}:{site.caddy(text)}/fer")
    expect(seen.page).to_have_url(re.compile("/fer/$"))
    assert all(method == "GET" for method, _ in seen.requests)
    seen.outside.clear()  # files that the browser requested before the page redirected it
    shows_a_face(seen.enter().page)


def test_a_proxy_that_drops_the_upgrade_header_is_reported(
    site: Site, visit: Callable[[str], Visit], caplog: pytest.LogCaptureFixture
) -> None:
    text = before(site.live(), BLOCKS["fer-stream.conf"], **{"proxy_set_header Upgrade $http_upgrade;": ""})
    seen = visit(f"https://{NAME}:{site.nginx(text)}/fer/").enter()
    expect(seen.page.locator("#banner")).to_contain_text("have the proxy pass on the headers Upgrade and Connection")
    assert "have the proxy pass on the headers Upgrade and Connection" in caplog.text


def test_a_name_that_is_not_in_the_settings_is_reported(
    site: Site, visit: Callable[[str], Visit], caplog: pytest.LogCaptureFixture
) -> None:
    text = before(site.live(hosts=[f"{NAME}:1"]), BLOCKS["fer-stream.conf"], **{"Host $http_host;": "Host $host:1;"})
    port = site.nginx(text)
    seen = visit(f"https://{NAME}:{port}/fer/?token={TOKEN}")
    expect(seen.page.locator("#banner")).to_contain_text("name the page in live.hosts as NAME:PORT")
    assert f"the browser's page is at 'https://{NAME}:{port}', and the request is for '{NAME}:1'" in caplog.text


def test_a_proxy_whose_target_has_ended_is_reported(site: Site, visit: Callable[[str], Visit]) -> None:
    live = site.live()
    end = site.ends[-1]
    port = site.nginx(before(live, BLOCKS["fer-stream.conf"]))
    seen = visit(f"https://{NAME}:{port}/fer/").enter()
    shows_a_face(seen.page)
    end()
    expect(seen.page.locator("#banner")).to_contain_text(
        "A proxy between the browser and the page's server answers 502"
    )


class Buffering(threading.Thread):
    """A proxy that passes on a WebSocket's handshake, and drops all later data from the server."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]

    def run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._to)) as behind:
            threading.Thread(target=self._copy, args=(client, behind), daemon=True).start()
            head = b""
            while b"\r\n\r\n" not in head and (some := behind.recv(65_536)):
                head += some
            if b" 101 " not in head.partition(b"\r\n")[0]:
                client.sendall(head)
                self._copy(behind, client)
                return
            client.sendall(head[: head.index(b"\r\n\r\n") + 4])
            while behind.recv(65_536):
                pass

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while some := source.recv(65_536):
                target.sendall(some)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._server.close()


def test_a_proxy_that_buffers_is_reported(site: Site, visit: Callable[[str], Visit]) -> None:
    proxy = Buffering(site.live(hosts=[]))
    proxy.start()
    seen = visit(f"http://127.0.0.1:{proxy.port}/?token={TOKEN}")
    expect(seen.page.locator("#banner")).to_contain_text("no data arrives: a proxy holds it back")
    proxy.close()


@pytest.fixture(params=["https"])
def scheme(request: pytest.FixtureRequest) -> str:
    """The scheme of the other site's page."""
    return str(request.param)


@pytest.fixture
def home(scheme: str, certificate: Path) -> Iterator[Callable[[str], str]]:
    """``home(address)`` returns the URL of another site's page, which shows that address in a frame."""
    shown = ""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f'<iframe src="{shown}" width="1000" height="800"></iframe>'.encode())

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cameras.pem", certificate / "cameras.key")
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
    threading.Thread(target=listener.serve_forever, daemon=True).start()

    def show(address: str = "") -> str:
        nonlocal shown
        shown = address or shown
        return f"{scheme}://{HOME}:{listener.server_address[1]}"

    yield show
    listener.shutdown()
    listener.server_close()


@pytest.mark.parametrize("proxy", ["nginx", "caddy"])
def test_an_allowed_site_shows_the_page_in_a_frame(
    proxy: str, site: Site, visit: Callable[[str], Visit], home: Callable[..., str]
) -> None:
    live = site.live(frame_ancestors=[home()])
    port = (
        site.nginx(before(live, BLOCKS["fer-stream.conf"]))
        if proxy == "nginx"
        else site.caddy(before(live, BLOCKS["Caddyfile"]))
    )
    home(f"https://{NAME}:{port}/fer/")
    seen = visit(home())
    frame = seen.page.frame_locator("iframe")
    seen.enter_in(frame)
    shows_a_face(frame)
    seen.page.reload()
    shows_a_face(frame)
    (cookie,) = seen.page.context.cookies()
    assert (cookie["sameSite"], cookie["secure"], bool(cookie.get("partitionKey"))) == ("None", True, True)


def test_no_other_site_shows_the_page_in_a_frame(
    site: Site, visit: Callable[[str], Visit], home: Callable[..., str]
) -> None:
    for allowed in ([], ["https://other.example.net"]):
        port = site.nginx(before(site.live(frame_ancestors=allowed), BLOCKS["fer-stream.conf"]))
        home(f"https://{NAME}:{port}/fer/")
        page: Page = visit("about:blank").page
        with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
            page.goto(home())


@pytest.mark.parametrize("scheme", ["http"], indirect=True)
def test_a_frame_whose_cookie_the_browser_rejects_is_reported(
    site: Site, chromium: Browser, home: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """Without TLS, an allowed site may show the page in a frame, but the browser sends no cookie with it."""
    home(f"http://{NAME}:{site.live(frame_ancestors=[home()])}/")
    page = chromium.new_context().new_page()
    page.goto(home())
    frame = page.frame_locator("iframe")
    frame.get_by_label("Token").fill(TOKEN)
    frame.get_by_role("button", name="Enter").click()
    expect(frame.get_by_role("alert")).to_contain_text("In a frame of another site this requires https.")
    assert "a browser keeps no cookie of the page" in caplog.text
    page.context.close()
