"""Calls over a Unix socket: answers, limits, strangers, and a service that ends meanwhile."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from processes import wait_for

from fer_stream.errors import ConfigError, FerStreamError, TransportError
from fer_stream.operations import calls as module
from fer_stream.operations.calls import Calls, call

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Service:
    """Answers calls in a thread of its own, which stands for a service's main thread."""

    def __init__(self, path: Path) -> None:
        self.calls = Calls(path)
        self.seen: list[dict[str, Any]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        while not self._end.wait(0.001):
            while (found := self.calls.next()) is not None:
                self.seen.append(found.request)
                if "fail" in found.request:
                    found.refuse(ConfigError("no") if found.request["fail"] == 2 else FerStreamError("cannot"))
                else:
                    found.answer({"got": found.request})

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self.calls.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A path that is longer than a socket's may be."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    return folder / "calls"


@pytest.fixture
def service(path: Path) -> Iterator[Service]:
    made = Service(path)
    yield made
    made.close()


def test_an_answer_and_both_kinds_of_errors(service: Service, path: Path) -> None:
    assert call(path, {"do": "x", "text": "ä"}) == {"got": {"do": "x", "text": "ä"}}
    with pytest.raises(ConfigError, match=r"^no$"):
        call(path, {"fail": 2})
    with pytest.raises(FerStreamError, match=r"^cannot$") as caught:
        call(path, {"fail": 1})
    assert not isinstance(caught.value, ConfigError)


def test_many_at_once(service: Service, path: Path) -> None:
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(call(path, {"n": n}))) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer["got"]["n"] for answer in answers) == list(range(40))


@pytest.mark.parametrize("text", [b"\n", b"[]\n", b"nonsense\n", b"[" * 60_000 + b"\n", b"x" * 70_000, b"\xff\n"])
def test_what_is_no_call_never_reaches_the_service(text: bytes, service: Service, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock, module._short(path) as where:
        sock.connect(where)
        sock.sendall(text)
        answer = json.loads(sock.makefile().readline())
    assert answer["error"] == "a call that is not a JSON object on one line"
    assert call(path, {}) == {"got": {}}
    assert service.seen == [{}]


def test_a_client_that_says_nothing_delays_nobody(service: Service, path: Path) -> None:
    silent = []
    for _ in range(10):
        sock = socket.socket(socket.AF_UNIX)
        with module._short(path) as where:
            sock.connect(where)
        silent.append(sock)
    assert call(path, {"n": 1}) == {"got": {"n": 1}}
    for sock in silent:
        sock.close()


STRANGER = """
import os, socket, sys
folder = os.open(os.path.dirname(sys.argv[1]), os.O_PATH)  # opened before the user changes
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(f"/proc/self/fd/{folder}/calls")
    sock.sendall(b'{"do": "list"}\\n')
    print(sock.recv(1000))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_not_answered(service: Service, path: Path) -> None:
    def ask() -> str:
        command = [sys.executable, "-c", STRANGER, path]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert ask() == "PermissionError", "the socket's mode"
    path.chmod(0o666)
    path.parent.chmod(0o777)
    assert ask() in ("b''", "ConnectionResetError", "BrokenPipeError"), "the kernel's word about the peer"
    assert service.seen == []


def test_a_service_that_ends_meanwhile_refuses_what_waits(path: Path) -> None:
    calls = Calls(path)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            call(path, {"do": "x"})
        except FerStreamError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: not calls._calls.empty(), "the call")
    calls.close()
    calls.close()
    thread.join()
    assert [str(error) for error in errors] == ["the service is ending: nothing was changed"]
    assert not path.exists()
    with pytest.raises(TransportError, match=r"cannot be called: No such file or directory; is it ending?"):
        call(path, {})


def test_a_service_that_dies_or_hangs(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        with module._short(path) as where:
            server.bind(where)
        server.listen()
        with pytest.raises(TransportError, match="cannot be called: it does not answer"):
            call(path, {}, timeout=0.05)
        server.accept()[0].close()
        thread = threading.Thread(target=_hang_up, args=(server,))
        thread.start()
        with pytest.raises(TransportError, match=r"ended before it answered|cannot be called"):
            call(path, {})
        thread.join()


def _hang_up(server: socket.socket) -> None:
    server.accept()[0].close()


def test_threads_and_descriptors_of_calls_end(service: Service, path: Path) -> None:
    call(path, {})
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    threads = threading.active_count()
    for _ in range(100):
        call(path, {})
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before, "closed connections")  # noqa: PTH208
    wait_for(lambda: threading.active_count() <= threads, "the end of the threads")
