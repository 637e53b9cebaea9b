"""The four roles, started in any order: each waits for the others, and under ``wait`` the events are the same."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from faults.service import STEADY, sound, standing
from processes import free_port, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from faults.table import Tell
    from processes import Cli
    from scale import Scale

ROLES = ("aggregator", "worker", "capture", "subscribe")

FEW = ((2, 0, 3, 1), (3, 1, 2, 0))
"""Orders for `make test-long`: over ipc, the capture before the aggregator; over tcp, the aggregator last."""


def test_all_start_orders(cli: Cli, short_folder: Path, clip: Path, scale: Scale, tell: Tell) -> None:
    orders = list(itertools.permutations(range(4))) if scale.share else list(FEW)
    cli.environment |= STEADY
    outputs = []
    for number, order in enumerate(orders):
        # On one machine, tcp carries raw pixels like ipc; JPEG would change pixels and events.
        address = f"tcp://127.0.0.1:{free_port()}" if number % 2 else f"ipc://{short_folder}/{number}"
        commands: dict[str, tuple[Any, ...]] = {
            "aggregator": ("aggregator", "--bind", address, "--journal", f"{number}.db"),
            "worker": ("worker", "--name", "1", "--connect", address),
            "capture": ("capture", clip, "--camera", "film", "--policy", "wait", "--connect", address),
            "subscribe": ("subscribe", "--from", "0", "--format", "jsonl", "--connect", address),
        }
        started = {}
        for index in order:
            role = ROLES[index]
            started[role] = cli.start(*commands[role])
            if number % 4 >= 1 and role in ("aggregator", "worker"):  # or all start at once
                started[role].until_said("ready")
        second = cli.start("worker", "--name", "2", "--connect", address)
        assert started["capture"].end() == 0
        subscriber = started["subscribe"]
        subscriber.until_event("camera.offline")
        outputs.append(subscriber.out)
        state = wait_for(lambda at=address: standing(at), "an answer")
        ledger = state["cameras"]["film"]["ledger"]
        assert {term: count for term, count in ledger.items() if count} == {"captured": 60, "done": 60}
        assert sum(known["frames"] for known in state["workers"].values()) == 60
        for process in (subscriber, started["worker"], second, started["aggregator"]):
            assert process.stop() == 0, process.err
        assert not [process for process in started.values() if "Traceback" in process.err]
        sound(subscriber.events)
    assert outputs[0].count("face.entered") == 2
    assert outputs == [outputs[0]] * len(orders)
    tell(
        f"{len(orders)} of the 24 start orders of the four roles, `wait`",
        "the same events, byte for byte",
        "60 of 60 frames done each time",
    )
