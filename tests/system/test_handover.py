"""Settings, the word to end and the sign of life reach a child, with Linux's calls and without (`tests/portable`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes import free_port

from fer_stream.system import handover

if TYPE_CHECKING:
    from processes import Cli

LARGE = """
import os, sys
from fer_stream.settings import tree

settings = tree.load({"cameras": {f"c{n}": {"source": 500 * "x"} for n in range(150)}})
handed = tree.save(settings)
children = [handed.start(["config"], dict(os.environ), ()) for _ in range(2)]
handed.close()
codes = [child.wait() for child in children]
print(codes, [sys.argv[1] in str(child.args) for child in children])
"""

ENDING = """
import os
from fer_stream.settings import tree
from fer_stream.system import handover

handed = tree.save(tree.load({"address": os.environ["ADDRESS"], "journal": {"path": "a.db"}}))
child = handed.start(["aggregator"], {k: v for k, v in os.environ.items() if k != "ADDRESS"}, ())
handover.ask_to_end(child)
print(child.wait())
handover.release(child)
handed.close()
"""


def outcome(cli: Cli, script: str, system: str, *arguments: str, **environment: str) -> str:
    (cli.folder / "script.py").write_text(script)
    there = {"PYTHONPATH": str(Path(__file__).parents[1] / "portable/elsewhere"), "ELSEWHERE": system}
    answer = subprocess.run(
        [sys.executable, "script.py", *arguments],
        cwd=cli.folder, env=cli.environment | (there if system else {}) | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.parametrize(("system", "argument"), [("", "/dev/fd/"), ("macos", "'-'"), ("windows", "'-'")])
def test_large_settings_reach_several_children(cli: Cli, system: str, argument: str) -> None:
    assert outcome(cli, LARGE, system, argument) == "[0, 0] [True, True]\n"


@pytest.mark.parametrize("system", ["", "macos", "windows"])
def test_a_child_ends_in_order_if_it_is_asked_early(cli: Cli, system: str, short_folder: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}" if system == "windows" else f"ipc://{short_folder}/a"
    found = int(outcome(cli, ENDING, system, ADDRESS=address))
    assert found == 0 or (found == -signal.SIGTERM and not system), "only a real signal may come before its handler"


def test_only_a_supervised_process_reads_its_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(handover.PARENT, raising=False)
    assert handover.received(Path("-")) is None
    monkeypatch.setenv(handover.PARENT, str(os.getppid()))
    assert handover.received(Path("settings.json")) is None
    assert not handover.supervisor_gone(os.getppid())
    assert handover.supervisor_gone(os.getpid())


def test_settings_are_in_memory_without_a_path() -> None:
    handed = handover.Handover(json.dumps({"workers": 1}))
    path = Path(handed.argument)
    assert json.loads(path.read_text()) == {"workers": 1}
    assert str(path.resolve()).startswith("/memfd:")
    handed.close()
    handed.close()
