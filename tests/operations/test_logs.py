"""Logs as text and as JSON lines, and a stderr that is read slowly or not at all: no process waits for the reader."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fer_stream.operations import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

TALKER = """
import logging, sys, time
from fer_stream.operations import logs
from fer_stream.operations.process import main_guard
logs.setup_logging("info", "talker")
def talk():
    for n in range(int(sys.argv[1])):
        logging.getLogger("x").info("line %d of many that fill a pipe soon", n)
    print("said", flush=True)
    return 3
code = main_guard(talk)
sys.exit(code)
"""


@contextmanager
def start(number: int, stderr: int) -> Iterator[subprocess.Popen[str]]:
    """Start a process that logs ``number`` lines to the descriptor ``stderr``; kill it at the end of the context."""
    command = [sys.executable, "-c", TALKER, str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        os.close(stderr)
        try:
            yield process
        finally:
            process.kill()


def test_who_speaks_does_not_wait_for_a_reader_not_even_at_its_end() -> None:
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    with start(1000, theirs) as process:
        assert process.wait(60) == 3
        assert process.stdout is not None
        assert process.stdout.read() == "said\n"
    os.close(ours)


def test_a_reader_who_is_late_gets_every_line_in_order() -> None:
    ours, theirs = os.pipe()
    with start(2000, theirs) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with os.fdopen(ours) as reader:
            lines = reader.read().splitlines()
    assert [f"line {n} of" in line for n, line in enumerate(lines)] == [True] * 2000


def test_a_reader_who_has_gone_is_no_error() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with start(10, theirs) as process:
        assert process.wait(60) == 3


def test_a_full_disk_is_no_error() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with start(10, full) as process:
        assert process.wait(60) == 3


def test_what_is_too_much_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logs, "ROOM", 5)
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    stream = logs.Unhurried()
    with capfd.disabled(), os.fdopen(theirs, "w") as pipe, os.fdopen(ours) as reader:
        monkeypatch.setattr(sys, "stderr", pipe)
        for n in range(10):
            stream.write(f"{n}" * 4096 + "\n")
        assert not stream.drain(0.1)
        kept = [reader.readline()[0] for _ in range(5)]
        assert stream.drain(60)
    assert kept == list("01234")
    assert "5 log lines were dropped because stderr is not read fast enough" in caplog.text


# As text and as JSON lines


def test_logs_are_json_lines_where_nobody_reads() -> None:
    code = """
        import logging, warnings
        from fer_stream.operations.logs import setup_logging
        setup_logging("info", "worker 2")
        log = logging.getLogger("fer_stream.x")
        log.debug("unseen")
        log.warning("camera %s at rtsp://u:secret@h/x", "a", extra={"pid": 7, "source": "rtsp://u:secret@h/x"})
        warnings.warn("old")
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("broken")
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=60
    )
    out, err = done.stdout, done.stderr
    lines = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert [line["level"] for line in lines] == ["warning", "warning", "error"]
    assert lines[0] | {"time": ""} == {
        "time": "",
        "level": "warning",
        "role": "worker 2",
        "message": "camera a at rtsp://u:***@h/x",
        "pid": 7,
        "source": "rtsp://u:***@h/x",
    }
    assert lines[0]["time"].endswith("Z")
    assert "ZeroDivisionError" in lines[2]["exception"]


def test_logs_are_text_at_a_terminal() -> None:
    ours, theirs = pty.openpty()
    code = """
        import logging
        from fer_stream.operations.logs import setup_logging
        setup_logging("warning", "worker 2")
        setup_logging("warning", "worker 2")
        logging.getLogger("fer_stream.x").info("unseen")
        logging.getLogger("fer_stream.x").warning("slow: rtsp://u:secret@h/x", extra={"pid": 7})
        """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=theirs) as process:
        assert process.wait(60) == 0
    os.close(theirs)
    text = os.read(ours, 10_000).decode()
    os.close(ours)
    clock, _, rest = text.partition(" ")
    assert len(clock.split(":")) == 3
    assert rest == "worker 2  warning  slow: rtsp://u:***@h/x  pid=7\r\n"
