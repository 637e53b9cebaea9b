"""A source much faster than the workers: memory does not grow, frames stay fresh, the ledger is exact."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil
from faults.service import megabytes
from processes import balanced, free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from faults.service import Service
    from faults.table import Tell
    from scale import Scale

LOAD = 200
"""Frames per second; two workers that search each frame completely process a tenth of them or less."""


def test_overload(service: Callable[..., Service], clip: Path, scale: Scale, tell: Tell) -> None:
    seconds = scale.of(5, 3600)
    it = service(
        *(clip, "--policy", "drop_oldest", "--rate", LOAD, "--loop"),
        *("--metrics", f"127.0.0.1:{free_port()}", "--sink", "file:copy.jsonl"),
        FER_STREAM_SEARCH__SCAN_INTERVAL="0",  # every frame is searched completely, for small faces too
        FER_STREAM_DETECTOR__MIN_FACE="20",
    )
    it.run.until_event("emotion.started")

    def at_work() -> bool:
        workers = it.status()["workers"].values()
        return len(workers) == 2 and min(worker["frames"] for worker in workers) > 5

    it.until(at_work, "both workers at work")
    begin, age = time.monotonic(), 0.0
    grown: dict[int, list[float]] = {}
    while (passed := time.monotonic() - begin) < seconds:
        state = it.status()
        film = state["cameras"]["film"]
        assert balanced(film["ledger"]), "at every moment"
        age = max(age, film["frame_age_s"])
        for part in (psutil.Process(it.run.pid), *it.run.children()):
            grown.setdefault(part.pid, []).append(megabytes([part]))
        assert len(grown) == 6, "no process died"
        time.sleep(min(1.0, max(0.05, passed / 50)))
    more = {pid: max(seen[-3:]) - max(seen[: 1 + len(seen) // 4]) for pid, seen in grown.items()}
    ledger, events = it.end()
    assert (it.cli.folder / "copy.jsonl").read_text() == it.run.out
    assert ledger["lost_link"] == ledger["lost_worker"] == ledger["rejected"] == 0
    assert ledger["superseded"] > ledger["done"] > 0
    most = max(more.values())
    assert most < 50
    tell(
        "overload" + (f", {seconds / 60:.0f} min" if scale.share else ""),
        f"{ledger['captured']} frames captured = {ledger['done']} done + {ledger['superseded']} superseded"
        + (f" + {ledger['expired']} expired" if ledger["expired"] else "")
        + f"; x{ledger['captured'] / ledger['done']:.0f}; {len(events)} events",
        f"frame age at most {age:.2f} s; memory after the first quarter {most:+.1f} MB at most in any process",
        (age, 2.0), (most, 20.0),
    )  # fmt: skip
