"""SIGINT and SIGTERM at different moments: a run drains, the ledger adds up, and nothing is left behind."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults.service import sound
from processes import balanced

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.service import Service
    from faults.table import Tell
    from scale import Scale

LIMIT = 5.0
"""Seconds within which everything must end after a signal; only a soak checks this."""


def shared_memory() -> set[str]:
    """Return the names in /dev/shm that belong to fer_stream or to Python; other programs may use it, too."""
    return {path.name for path in Path("/dev/shm").glob("*") if path.name.startswith(("fer_stream", "psm_"))}


@pytest.mark.parametrize("moment", ["at once", "starting", "running"])
def test_a_signal(moment: str, service: Callable[..., Service], clip: Path, scale: Scale, tell: Tell) -> None:
    times, longest, before = scale.of(1, 67), 0.0, shared_memory()
    for _ in range(times):
        it = service(clip, "--loop")
        if moment == "at once":
            it.until(it.started, "the start of the children")
        elif moment == "starting":
            it.run.until_said("ready")
            time.sleep(random.random())
        else:
            it.run.until_event("camera.online")
            time.sleep(random.random())
        first = len(it.run.events)
        begin = time.monotonic()
        it.run.signal(random.choice((signal.SIGINT, signal.SIGTERM)))
        assert it.run.end() == 0, it.run.err
        longest = max(longest, time.monotonic() - begin)
        assert not it.cli.left_over(it.run, it.folder)
        assert "Traceback" not in it.run.err
        assert len(it.run.events) >= first
        summary = json.loads((it.cli.folder / "s.json").read_text())
        assert all(map(balanced, summary["cameras"].values()))
        assert all(known["in_flight"] == 0 for known in summary["cameras"].values())
        assert sum(summary["events"].values()) == len(it.run.events)
        for part in it.cli.folder.glob("events.db*"):
            part.unlink()
        sound(it.run.events)
    assert shared_memory() == before
    tell(
        f"SIGINT or SIGTERM, {moment}",
        f"{times} times: ledger exact, every interval closed, no process, socket, folder or shared memory left",
        f"ended within {longest:.1f} s",
        (longest, LIMIT),
    )
