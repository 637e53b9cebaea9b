"""Runs of one camera, and plug-ins that fail, for tests of `fer-stream run`."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import termios
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from faults.service import standing

if TYPE_CHECKING:
    from processes import Cli, Process

PLUGINS = '''
"""Failing plug-ins: a detector and a source that crash, a sink that raises, and a sink that never returns."""
import os, signal, time
from pathlib import Path
from fer_stream.sources.demo import open_source as demo

class Crashing:
    def __init__(self, settings): pass
    def detect(self, image): os.kill(os.getpid(), signal.SIGSEGV)

class Breaking:
    live, frames, left = True, None, 3
    def __init__(self, settings): self._demo = demo("demo", settings)
    def read(self):
        self.left -= 1
        if not self.left: os.kill(os.getpid(), signal.SIGSEGV)
        return self._demo.read()
    def close(self): pass

class Raising:
    def __init__(self, argument): self._writes, self._file = 0, open(argument, "a")
    def write(self, event, text):
        self._writes += 1
        if self._writes % 2: raise ValueError("rtsp://user:secret@h does not fit")
        self._file.write(text + "\\n")
        self._file.flush()
    def close(self): raise RuntimeError("not even this")

class Stuck:
    def __init__(self, argument):
        self.opens = argument == "open"
        while self.opens: time.sleep(1)
    def write(self, event, text):
        while True: time.sleep(1)
    def close(self): pass

def crashing(settings): return Crashing(settings)
def breaking(address, settings): return Breaking(settings)
def raising(argument): return Raising(argument)
def stuck(argument): return Stuck(argument)
'''

ENTRIES = """
[fer_stream.detectors]
crashing = failing:crashing
[fer_stream.sources]
breaking = failing:breaking
[fer_stream.sinks]
raising = failing:raising
stuck = failing:stuck
"""


def start(cli: Cli, name: str, source: object, *more: object, **environment: str) -> Process:
    """Start a run of one camera, without an address."""
    return cli.start(
        *("run", f"{name}={source}", "--loop", "--format", "jsonl", "--workers", 1, "--journal", f"{name}.db"),
        *("--summary", f"{name}.json", *more),
        **environment,
    )


def addresses(process: Process) -> str:
    """Return the address in the log of the run's aggregator, or an empty text before it is logged."""
    lines = [json.loads(line) for line in process.err.splitlines() if '"ready at ' in line]
    return str(lines[-1]["message"]).removeprefix("ready at ") if lines else ""


def sinks(address: str) -> dict[str, Any]:
    found: dict[str, Any] = (standing(address) or {"sinks": {}})["sinks"]
    return found


def readiness(port: int) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return {"code": answer.status} | json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return {"code": error.code} | json.load(error)
    except OSError:  # the server does not listen yet
        return {"code": 0}


def unread() -> tuple[int, int]:
    """Return the reading and the writing end of a pipe that is full after 4096 bytes."""
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    return ours, theirs


def buffered(pipe: int) -> int:
    """Return the number of unread bytes in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


class Dead:
    """Stands for a process that has ended and has no children."""

    @staticmethod
    def children() -> list[object]:
        return []
