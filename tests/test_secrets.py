"""Passwords of cameras are not shown anywhere: checks everything that a run with such cameras writes or shows."""

from __future__ import annotations

import base64
import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import psutil
import pytest
from camera_servers import Server, rtsp
from processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterable

    from processes import Cli, Process

PASSWORD = "Xy7-Qm3@Hz9:w"
"""It has characters that must be quoted in an address."""

WRONG = "Vb4nKr8sLp2d"

USER = "inspector"


def shapes() -> list[bytes]:
    """Return each secret in plain text, quoted as in an address, and encoded as HTTP and RTSP send it."""
    found = []
    for secret in (PASSWORD, WRONG):
        found += [secret, urllib.parse.quote(secret, safe=""), base64.b64encode(f"{USER}:{secret}".encode()).decode()]
    return [shape.encode() for shape in found]


def leaks(outputs: Iterable[tuple[str, bytes]]) -> list[str]:
    return [f"{shape!r} in {where}" for where, data in outputs for shape in shapes() if shape in data]


@pytest.fixture
def film(tmp_path: Path) -> bytes:
    path = tmp_path / "camera.ts"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp2v"), 20.0, (64, 48))
    rough = np.random.default_rng(1).integers(0, 40, (48, 64, 3))
    for n in range(200):
        writer.write((rough + n).astype(np.uint8))
    writer.release()
    data = path.read_bytes()
    path.unlink()
    return data


def ours(process: Process) -> list[psutil.Process]:
    return [psutil.Process(process.pid), *process.children()]


def shown_by(processes: list[psutil.Process]) -> list[tuple[str, bytes]]:
    """Return what ``ps`` shows of processes, including their environment, which only the owner can see."""
    found = []
    for process in processes:
        for name in ("cmdline", "comm", "environ", "status"):
            with suppress(OSError):
                found.append((f"{name} of {process.pid}", Path(f"/proc/{process.pid}/{name}").read_bytes()))
    return found


def files(folder: Path) -> list[tuple[str, bytes]]:
    found = []
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                found.append((str(path), path.read_bytes()))
    return found


def fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:  # not ready
        with error:
            return bytes(error.read())


@pytest.mark.parametrize("given", ["in a file", "as arguments"])
def test_a_password_is_not_shown_anywhere(given: str, cli: Cli, short_folder: Path, film: bytes) -> None:
    asked: list[str] = []
    metrics, quoted = free_port(), urllib.parse.quote(PASSWORD, safe="")
    folder = cli.folder / "work"
    folder.mkdir()
    with Server(rtsp(film, asked, f"{USER}:{PASSWORD}", 0.02)) as camera:
        sources = {
            "door": f"rtsp://{USER}:{quoted}@127.0.0.1:{camera.port}/stream",
            "locked": f"rtsp://{USER}:{WRONG}@127.0.0.1:{camera.port}/stream?token={WRONG}",
            "away": f"http://{USER}:{WRONG}@127.0.0.1:{free_port()}/video.cgi?user=a&password={WRONG}",
        }
        options = ["--log-level", "debug", "--workers", 1, "--bind", f"ipc://{short_folder}", "--format", "jsonl"]
        options += ["--journal", folder / "events.db", "--summary", folder / "summary.json"]
        options += ["--sink", f"file:{folder / 'events.jsonl'}", "--metrics", f"127.0.0.1:{metrics}"]
        if given == "in a file":
            file = cli.folder / "cameras.toml"
            file.write_text("".join(f"[cameras.{name}]\nsource = '{url}'\n" for name, url in sources.items()))
            process = cli.start("run", "--config", file, *options)
        else:
            process = cli.start("run", *(f"{name}={url}" for name, url in sources.items()), *options)
        process.until_event("camera.online")
        process.until(lambda: process.err.count("trying again") >= 2, "cameras that cannot be opened")
        # While it runs, check what it shows, serves and has written so far.
        process.child("capture locked")
        outputs = shown_by(ours(process))
        assert len(outputs) >= 4 * 5, "at least run, the aggregator, a worker and two captures"
        for page in ("/metrics", "/readyz", "/healthz"):
            outputs.append((page, fetch(f"http://127.0.0.1:{metrics}{page}")))
        state = cli.run("status", "--connect", f"ipc://{short_folder}", "--format", "jsonl")
        assert json.loads(state.out)["cameras"]["door"]["state"] == "online"
        outputs += [("status", state.out.encode() + state.err.encode())]
        outputs += [("temporary " + name, data) for name, data in files(cli.temporary)]
        outputs += files(folder) + files(short_folder)
        assert leaks(outputs) == []
        # Check also after a child, and then the whole service, is killed.
        process.child("capture door").kill()
        process.until(lambda: "is started again" in process.err, "the restart of the capture")
        for child in process.children():
            child.kill()
        process.kill()
    assert any(f"{base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}" in request for request in asked)
    outputs = [("stdout", process.out.encode()), ("stderr", process.err.encode())]
    outputs += files(cli.temporary) + files(folder) + files(short_folder)
    assert leaks(outputs) == []
    assert "rtsp://inspector:***@127.0.0.1" in process.err, "the address was logged, without the password"
    shutil.rmtree(folder)


def test_settings_and_findings_are_printed_without_passwords(cli: Cli) -> None:
    file = cli.folder / "cameras.toml"
    file.write_text(f"[cameras.door]\nsource = 'rtsp://{USER}:{WRONG}@127.0.0.1:{free_port()}/x?key={WRONG}'\n")
    for command in ("config", "doctor"):
        process = cli.run(command, "--config", file)
        assert "rtsp://inspector:***@" in process.out
        assert leaks([(command, process.out.encode() + process.err.encode())]) == []


def test_an_unexpected_error_is_reported_without_passwords(cli: Cli) -> None:
    """The traceback of an unexpected error has the address in its message and in source lines."""
    broken = cli.folder / "site"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import fer_stream.sources.media as opencv\n"
        "def broken(address, settings):\n"
        "    raise RuntimeError(f'cannot open {address}')\n"
        "opencv.open_source = broken\n"
    )
    source = f"rtsp://{USER}:{WRONG}@127.0.0.1:9/x"
    process = cli.start(
        *("capture", source, "--camera", "door", "--connect", f"ipc://{cli.temporary}/x"), PYTHONPATH=str(broken)
    )
    assert process.end() == 1
    assert "RuntimeError: cannot open rtsp://inspector:***@127.0.0.1:9/x" in process.err
    assert leaks([("stderr", process.err.encode())]) == []
