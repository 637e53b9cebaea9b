"""Starts ``fer-stream`` commands as a shell does, with pipes for their output."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

TIMEOUT = 120

Environment = dict[str, str]


def clean(**more: str) -> Environment:
    return {key: value for key, value in os.environ.items() if not key.startswith("FER_STREAM_")} | more


def start(arguments: list[str], environment: Environment, **how: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fer_stream", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


def fer_stream(*arguments: str, environment: Environment | None = None) -> tuple[int, str, str]:
    with start(list(arguments), environment or clean()) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    assert "Traceback" not in err
    return process.returncode, out, err


def until(process: subprocess.Popen[str], text: str) -> str:
    """Return the next line of a process's log that contains ``text``."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"the process ended before it logged {text!r}")
