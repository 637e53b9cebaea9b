"""The HTTP server for operators' pages, over real sockets: answers, limits, malformed requests and tokens."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import psutil
import pytest
from processes import free_port, wait_for

from fer_stream.errors import ConfigError
from fer_stream.operations import http
from fer_stream.operations.http import CONNECTIONS, MAX_HEAD, Answer, Server, read_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from processes import Cli

TOKEN = "0123456789abcdef0123456789abcdef"


def pages() -> dict[str, Callable[[bool], Answer | None]]:
    return {
        "/all": lambda _: Answer(200, "text/plain", b"for all\n"),
        "/own": lambda trusted: Answer(200, "text/plain", b"for some\n") if trusted else None,
        "/bad": lambda _: Answer(200, "text/plain", str(1 / 0).encode()),
    }


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server("127.0.0.1:0", pages(), None)
    yield made
    made.close()


def connect(server: Server | int) -> socket.socket:
    port = server if isinstance(server, int) else server.port
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def ask(server: Server | int, request: bytes) -> bytes:
    """Send the request, and return all bytes received until the server closes the connection."""
    with connect(server) as sock:
        with suppress(ConnectionError):
            sock.sendall(request)
        answer = b""
        with suppress(ConnectionError):
            while got := sock.recv(65_536):
                answer += got
        return answer


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def get(server: Server | int, path: str, *headers: str) -> bytes:
    return ask(server, "\r\n".join([f"GET {path} HTTP/1.1", "Host: here", *headers, "", ""]).encode())


def test_a_page_is_served_and_says_nothing_of_the_server(server: Server) -> None:
    assert get(server, "/all?x=1") == (
        b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\nfor all\n"
    )
    assert ask(server, b"HEAD /all HTTP/1.1\r\n\r\n").endswith(b"Content-Length: 8\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "X" * 100])
def test_nothing_but_get_and_head(server: Server, method: str) -> None:
    answer = ask(server, f"{method} /all HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody".encode())
    assert status(answer) == 405
    assert b"Allow: GET, HEAD\r\n" in answer
    assert b"for all" not in answer


@pytest.mark.parametrize(
    "path", ["/", "/all/", "//all/x", "/../../etc/passwd", "/%2e%2e/etc/passwd", "/all%00", "http://other/all", "*"]
)
def test_no_path_leads_elsewhere(server: Server, path: str) -> None:
    head, _, body = get(server, path).partition(b"\r\n\r\n")
    assert status(head) == 404
    assert body == b"the pages are /all, /own and /bad\n"


@pytest.mark.parametrize(
    "request_line",
    [b"\r\n\r\n", b"GET\r\n\r\n", b"GET /all HTTP/9.9\r\n\r\n", b"\xff\xfe\0\r\n\r\n", b"a b c d\r\n\r\n"],
)
def test_what_is_no_request_is_told_nothing(server: Server, request_line: bytes) -> None:
    answer = ask(server, request_line)
    assert answer == b"" or status(answer) in (400, 405, 505)
    assert b"python" not in answer.lower()
    assert status(get(server, "/all")) == 200


@pytest.mark.parametrize("filler", [b"GET /" + b"a" * 100_000, b"GET /all HTTP/1.1\r\n" + b"A: b\r\n" * 20_000])
def test_a_long_request_is_cut_off(server: Server, filler: bytes) -> None:
    assert len(filler) > 2 * MAX_HEAD
    answer = ask(server, filler)
    assert answer == b"" or status(answer) == 431, "the reset of the connection may discard the answer"
    assert status(get(server, "/all")) == 200


def test_a_slow_request_is_cut_off_however_often_a_byte_comes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SECONDS", 0.5)
    with connect(server) as slow:
        slow.settimeout(0.1)
        ended, sent = False, 0
        while not ended and sent < 600:
            with suppress(TimeoutError):
                try:
                    slow.sendall(b"a")
                    sent += 1
                    ended = slow.recv(100) == b""
                except ConnectionError:
                    ended = True
        assert ended, "the limit must be on the whole request, not on the pause between bytes"


def test_one_who_does_not_take_the_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SECONDS", 0.5)
    before = threading.active_count()
    asked = threading.Event()

    def much(_: bool) -> Answer:
        asked.set()
        return Answer(200, "text/plain", bytes(50_000_000))

    server = Server("127.0.0.1:0", {"/much": much}, None)
    with connect(server) as client:
        client.sendall(b"GET /much HTTP/1.1\r\n\r\n")
        assert asked.wait(60)
        wait_for(lambda: threading.active_count() <= before + 1, "the end of the connection's thread")
    server.close()


def test_only_so_many_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SECONDS", 60.0)
    before, files = threading.active_count(), psutil.Process().num_fds()
    with ExitStack() as crowd:
        waiting = [crowd.enter_context(connect(server)) for _ in range(CONNECTIONS)]
        wait_for(lambda: threading.active_count() == before + CONNECTIONS, "the maximum number of connections")
        for _ in range(3 * CONNECTIONS):
            assert ask(server, b"GET /all HTTP/1.1\r\n\r\n") == b"", "closed without an answer"
        assert threading.active_count() == before + CONNECTIONS
        waiting[0].sendall(b"GET /all HTTP/1.1\r\n\r\n")
        assert waiting[0].recv(100).startswith(b"HTTP/1.0 200"), "a connection within the limit is served"
    wait_for(lambda: threading.active_count() == before, "the end of all connections' threads")
    assert status(get(server, "/all")) == 200
    wait_for(lambda: psutil.Process().num_fds() <= files, "all sockets to be closed")


def test_a_page_that_fails_ends_its_connection_alone(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    assert get(server, "/bad") == b""
    assert "a page of the metrics server failed" in caplog.text
    assert status(get(server, "/all")) == 200


# Tokens


def test_a_token_is_asked_for() -> None:
    server = Server("127.0.0.1:0", pages(), TOKEN)
    try:
        assert status(get(server, "/all")) == 200
        for wrong in (
            (),
            ("Authorization: Bearer",),
            (f"Authorization: Bearer {TOKEN[:-1]}",),
            (f"Authorization: {TOKEN}",),
        ):
            answer = get(server, "/own", *wrong)
            assert status(answer) == 401
            assert b"WWW-Authenticate: Bearer\r\n" in answer
        assert status(get(server, "/own", "Authorization: Bearer \xff")) == 401
        assert get(server, "/own", f"Authorization: Bearer {TOKEN}").endswith(b"for some\n")
    finally:
        server.close()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:9108", "metrics.example:9108"])
def test_beyond_this_machine_nothing_is_served_without_a_token(address: str) -> None:
    with pytest.raises(ConfigError, match=r"may be read from other machines: set metrics_token to a file with a token"):
        Server(address, pages(), None)


def test_with_a_token_it_is() -> None:
    server = Server("0.0.0.0:0", pages(), TOKEN)
    assert status(get(server, "/own")) == 401
    server.close()


def test_a_token_s_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(ConfigError, match=r"the token file .* cannot be read: No such file"):
        read_token(file)
    file.write_text(TOKEN + "\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"others may read .*: chmod 600 it"):
        read_token(file)
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    for wrong in ("", "short", "two words of thirty characters", "é" * 40):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match="contains no token: create one, for example with `openssl rand -hex 32`"):
            read_token(file)


def test_a_role_asks_for_its_token(cli: Cli, tmp_path: Path) -> None:
    refused = cli.run("aggregator", "--bind", f"ipc://{tmp_path}/a", "--journal", "e.db", "--metrics", "0.0.0.0:0")
    assert refused.popen.returncode == 2
    assert "metrics at 0.0.0.0:0 may be read from other machines: set metrics_token" in refused.err
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    port = free_port()
    role = cli.start(
        *("aggregator", "--bind", f"ipc://{tmp_path}/a", "--journal", "e.db", "--metrics", f"127.0.0.1:{port}"),
        FER_STREAM_METRICS_TOKEN=str(tmp_path / "token"),
    )
    role.until_said("ready at")
    ready = get(port, "/readyz")
    assert (status(ready), json.loads(ready.rpartition(b"\r\n\r\n")[2])) == (503, {"status": "not ready"})
    assert status(get(port, "/metrics")) == 401
    assert b"fer_stream_" in get(port, "/metrics", f"Authorization: Bearer {TOKEN}")
    trusted = get(port, "/readyz", f"Authorization: Bearer {TOKEN}")
    assert json.loads(trusted.rpartition(b"\r\n\r\n")[2])["missing"] == "a worker"
    assert role.stop() == 0
