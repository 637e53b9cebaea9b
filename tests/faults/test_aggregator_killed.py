"""An aggregator that is killed repeatedly under load: journaled events are never lost or duplicated."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from faults.service import sound, stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.service import Service
    from faults.table import Tell
    from scale import Scale


def test_killed(service: Callable[..., Service], scale: Scale, tell: Tell) -> None:
    it = service("demo", "--loop", "--rate", 30)
    times, back = scale.of(2, 100), list[float]()
    far = it.cli.start("subscribe", "--connect", it.address, "--from", 0, "--format", "jsonl")
    for number in range(1, times + 1):
        it.run.until_event("emotion.started", number)
        time.sleep(random.random())
        seen, done = len(it.run.events), it.status()["pid"]
        killed = it.run.child("aggregator")
        killed.kill()
        took = it.until(lambda old=done: it.status()["pid"] != old and it.done() > 0, "work that goes on")
        back.append(took - it.pause("aggregator"))
        assert len(it.run.events) >= seen
    it.run.until_event("camera.online", times + 1)
    far.until_event("camera.online", times + 1)
    ledger, events = it.end()
    assert events == stored(it.cli), "the published and the journaled events are the same"
    far.until(lambda: len(far.events) == len(events), "every event")
    assert far.events == events
    ends = [event for event in events if event["data"].get("reason") == "aggregator restarted"]
    assert [event["type"] for event in ends] == ["camera.offline"] * times
    for number in range(times):
        sound([event for event in events if int(event["cursor"]) <= int(ends[number]["cursor"])])
    tell(
        "aggregator killed (-9) under load",
        f"{times} times, {len(events)} events: none lost, no id twice, no gap; open intervals are closed",
        f"working again within {max(back):.1f} s and the pause; "
        f"{ledger['lost_link']} of {ledger['captured']} frames lost_link",
        (max(back), 3.0),
    )  # fmt: skip
