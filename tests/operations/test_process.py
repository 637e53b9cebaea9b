"""The common parts of processes, tested from outside: titles, signals, exit codes and error messages."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import pytest

from fer_stream.errors import ConfigError, SourceError
from fer_stream.operations import process as process_module
from fer_stream.operations.process import (
    LAST_WORDS,
    NOTES,
    PARENT,
    REMOVED,
    REPORTS,
    Report,
    Stop,
    install_stop,
    leave_note,
    main_guard,
    parent_gone,
    read_note,
    report_trouble,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT = 60


@pytest.fixture
def stop() -> Iterator[Stop]:
    with install_stop() as installed:
        yield installed


def start(code: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def outcome(code: str, **environment: str) -> tuple[int, str, str]:
    with start(code, **environment) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, out, err


def test_a_process_of_ours_starts_no_thread_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "from fer_stream.operations.environment import prepare; prepare();"
        "import numpy, os; print(len(os.listdir('/proc/self/task')))"
    )
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "1\n"


# Titles


def test_the_title_hides_the_command_line() -> None:
    process = start(
        """
        import sys
        from fer_stream.operations.process import set_title
        set_title("worker 2")
        print("ready", flush=True)
        sys.stdin.read()
        """
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        assert psutil.Process(process.pid).cmdline()[0] == "fer-stream: worker 2"


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_sets_stop_and_wakes_who_waits(stop: Stop, number: int) -> None:
    assert not stop.is_set()
    assert not stop.wait(0)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), number))
    timer.start()
    assert stop.wait(TIMEOUT)
    timer.join()
    assert stop.is_set()


def test_it_stays_set(stop: Stop) -> None:
    stop.set()
    stop.set()
    assert stop.wait(0)
    assert stop.wait(0)


def test_a_closed_stop_gives_the_signals_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = install_stop()
    assert signal.getsignal(signal.SIGTERM) != before
    stop.close()
    stop.close()
    assert signal.getsignal(signal.SIGTERM) == before
    assert not stop.wait(0)
    stop.set()
    assert not stop.is_set()


def test_sighup_that_is_ignored_stays_so() -> None:
    """As under nohup, before and after `install_stop`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with install_stop() as stop:
            assert main_guard(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_set()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_sighup_asks_who_can_read_its_settings_again_to_do_so() -> None:
    with install_stop(reloads=True) as stop:
        assert not stop.told_to_reload()
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.told_to_reload()
        assert not stop.told_to_reload(), "three signals ask once"
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.told_to_reload(), "it is ending"


@pytest.mark.parametrize("order", ["signal first", "terminal first"])
def test_sighup_of_a_terminal_that_is_closed_ends_the_process(order: str) -> None:
    """A shell passes SIGHUP on to its jobs, and then its terminal is closed, or the other way round."""
    ours, theirs = pty.openpty()
    code = """
import os, signal, sys
from fer_stream.operations.process import install_stop
signal.signal(signal.SIGHUP, lambda *_: None)
os.setsid()
terminal = os.open(os.ttyname(0), os.O_RDWR)  # the controlling terminal
child = os.fork()
if child:
    os.waitpid(child, 0)
    sys.exit()
os.close(terminal)
stop = install_stop(reloads=True)
print("begun", file=sys.stderr, flush=True)
while not stop.is_set():
    stop.wait(0.01)
    if stop.told_to_reload():
        print("reload", file=sys.stderr, flush=True)
print("end", file=sys.stderr, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stderr=subprocess.PIPE, text=True) as process:
        os.close(theirs)
        assert process.stderr is not None
        assert process.stderr.readline() == "begun\n"
        (child,) = psutil.Process(process.pid).children()
        if order == "signal first":
            child.send_signal(signal.SIGHUP)
            assert process.stderr.readline() == "reload\n"
            os.close(ours)
        else:
            os.close(ours)
            child.send_signal(signal.SIGHUP)
        assert process.stderr.readline() == "end\n"


def test_sighup_long_after_the_terminal_was_closed_asks_to_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a job that its shell has disowned."""
    open_now, now = True, 100.0
    monkeypatch.setattr(process_module.signals, "terminal", lambda: open_now)
    monkeypatch.setattr(process_module.time, "monotonic", lambda: now)
    with install_stop(reloads=True) as stop:
        open_now = False
        assert not stop.told_to_reload()
        now += process_module.CLOSING
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.told_to_reload()
        assert not stop.is_set()


def test_notes_reach_the_children_and_a_trouble_its_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_note(REMOVED) == {}
    report_trouble("nobody hears it")
    monkeypatch.setenv(NOTES, str(tmp_path))
    monkeypatch.setenv(LAST_WORDS, str(tmp_path / "words"))
    assert read_note(REMOVED) == {}
    leave_note(tmp_path, REMOVED, {"door": True})
    leave_note(tmp_path, REMOVED, {"door": False})
    assert read_note(REMOVED) == {"door": False}
    report_trouble("rtsp://user:secret@h/ does not answer")
    assert (tmp_path / "words").read_text() == "rtsp://user:***@h/ does not answer"
    for _ in range(2):
        report_trouble("")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["removed.json"]


def test_a_child_reports_only_to_a_supervisor_that_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Report().tell(state="online")
    monkeypatch.setenv(NOTES, str(tmp_path))
    Report().tell(state="online")
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv(REPORTS, "capture door")
    report = Report()
    report.tell(state="online")
    report.tell(state="offline")  # too soon after the first
    told = json.loads((tmp_path / "capture door.json").read_text())
    assert (told["pid"], told["state"]) == (os.getpid(), "online")
    assert told["at"] > 0
    Report().tell(state="offline")
    assert json.loads((tmp_path / "capture door.json").read_text())["state"] == "offline"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_told_to_end_does_not_wait_for_who_reads(number: int) -> None:
    ours, theirs = os.pipe()
    code = """
import sys
from fer_stream.operations.process import main_guard
def talk():
    print("begun", file=sys.stderr, flush=True)
    while True:
        print("x" * 5000)
sys.exit(main_guard(talk))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        assert process.stderr is not None
        process.stderr.readline()
        os.read(ours, 1)  # the process has begun to write; the pipe fills up and the next write blocks
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 0
    os.close(ours)


def test_another_thread_gets_a_stop_without_signals() -> None:
    before = signal.getsignal(signal.SIGTERM)
    made: list[Stop] = []
    thread = threading.Thread(target=lambda: made.append(install_stop()))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before
    made[0].set()
    assert made[0].wait(0)
    made[0].close()


def test_native_code_that_turns_an_interruption_into_an_error_of_its_own_is_a_normal_end() -> None:
    def native() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise RuntimeError("KeyboardInterrupt: ") from error
        return 5

    assert main_guard(native) == 0


def test_a_second_ctrl_c_ends_at_once() -> None:
    process = start(
        """
        import time
        from fer_stream.operations.process import install_stop
        stop = install_stop()
        print("ready", flush=True)
        stop.wait()
        print("stopping", flush=True)
        while True:
            time.sleep(1)
        """
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130


# Parents


def test_without_a_supervisor_no_parent_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PARENT, raising=False)
    assert not parent_gone()
    monkeypatch.setenv(PARENT, str(os.getppid()))
    assert not parent_gone()
    monkeypatch.setenv(PARENT, "x")
    with pytest.raises(ConfigError, match=PARENT):
        parent_gone()


def test_a_child_notices_that_its_supervisor_died() -> None:
    child = """
import time
from fer_stream.operations.process import parent_gone
print("alone" if parent_gone() else "together", flush=True)
while not parent_gone():
    time.sleep(0.02)
print("orphan", flush=True)
"""
    parent = f"""
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", {child!r}], env=os.environ | {{"{PARENT}": str(os.getpid())}})
sys.stdin.readline()
os._exit(1)
"""
    with start(parent) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "together\n"
        process.kill()
        assert process.stdout.readline() == "orphan\n"


# Errors


def test_our_errors_are_one_sentence_and_their_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: Exception) -> None:
        raise error

    assert main_guard(lambda: fail(ConfigError("no such label"))) == 2
    assert capsys.readouterr().err == "fer-stream: error: no such label\n"
    assert main_guard(lambda: fail(SourceError("rtsp://u:secret@h does not answer"))) == 1
    assert capsys.readouterr().err == "fer-stream: error: rtsp://u:***@h does not answer\n"
    assert main_guard(lambda: fail(PermissionError(13, "Permission denied", "/closed/a.jpg"))) == 1
    message = "/closed/a.jpg cannot be used: Permission denied; check the path and its permissions"
    assert capsys.readouterr().err == f"fer-stream: error: {message}\n"


def test_exit_codes_pass_through() -> None:
    assert main_guard(lambda: None) == 0
    assert main_guard(lambda: 3) == 3


@pytest.mark.parametrize(("seconds", "finalised"), [(0, "finalised\n"), (60, "")])
def test_who_hangs_in_native_code_is_not_waited_for(seconds: int, finalised: str) -> None:
    """With a thread in native code, the interpreter's shutdown would wait or abort, so it is skipped."""
    code, out, err = outcome(
        f"""
        import atexit, sys, threading, time
        from fer_stream.operations.process import leave_behind, main_guard
        def end():
            thread = threading.Thread(target=time.sleep, args=({seconds},), daemon=True)
            thread.start()
            leave_behind(thread, 0.5)
            return 3
        atexit.register(print, "finalised")
        sys.exit(main_guard(end))
        """
    )
    assert (code, out, err) == (3, finalised, "")


def test_ctrl_c_is_a_normal_end() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert main_guard(interrupted) == 0
    assert main_guard(interrupted, interrupted=130) == 130


def test_sigterm_is_a_normal_end_too() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main_guard(lambda: os.kill(os.getpid(), signal.SIGTERM) or threading.Event().wait(TIMEOUT)) == 0
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_fault_of_ours_is_logged_with_its_traceback() -> None:
    code, out, err = outcome(
        """
        import sys
        from fer_stream.operations.logs import setup_logging
        from fer_stream.operations.process import main_guard
        setup_logging("error", "worker 2")
        sys.exit(main_guard(lambda: 1 / 0))
        """
    )
    line = json.loads(err)
    assert (code, out) == (1, "")
    assert line["level"] == "critical"
    assert "ZeroDivisionError" in line["exception"]


def test_a_reader_who_left_is_a_normal_and_quiet_end() -> None:
    process = start(
        """
        import sys
        from fer_stream.operations.process import main_guard
        def talk():
            while True:
                print("x" * 1000)
        sys.exit(main_guard(talk))
        """
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == ""


def test_a_broken_pipe_elsewhere_is_a_fault() -> None:
    code, _, err = outcome(
        """
        import os, sys
        from fer_stream.operations.process import main_guard
        reader, writer = os.pipe()
        os.close(reader)
        sys.exit(main_guard(lambda: os.write(writer, b"x")))
        """
    )
    assert code == 1
    assert "BrokenPipeError" in err
