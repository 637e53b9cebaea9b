"""A receiver is away while many events pass: the other sink never waits, and then all of them arrive, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deliveries import Bench, ids
from journals import resets
from processes import gapless

from fer_stream.journal.sqlite import Writer

if TYPE_CHECKING:
    from scale import Scale

TURNS, FULL = 12, 720
"""Parts in which events pass. The full number is as many events as an hour has at 100 a second."""

PART = 500
"""Events in a part: ten batches of the receiver."""


def test_a_receiver_that_was_away_for_long_gets_everything(bench: Bench, scale: Scale) -> None:
    turns = scale.of(TURNS, FULL)
    bench.settings(main={"sink": f"receiver:{bench.port}"}, file={"sink": "file:out.jsonl"})
    writer = Writer(bench.folder / "e.db")
    writer.append(resets(1))
    run = bench.deliver()
    run.until_said("the sink main takes no events and is tried again: the receiver cannot be reached")
    out = bench.folder / "out.jsonl"
    for turn in range(turns):
        writer.append(resets(PART, first=2 + turn * PART))
        total = 1 + (turn + 1) * PART
        # The file has this part before the next one comes, while the receiver is still away.
        run.until(lambda total=total: out.read_bytes().count(b"\n") == total, "this part in the file")  # type: ignore[misc]
    writer.close()
    assert bench.states()["main"]["cursor"] == "0"
    assert bench.states()["main"]["state"] == "failing"
    assert not bench.got()
    bench.receive()
    bench.manage("retry", "main")
    run.until(lambda: bench.states()["main"]["delivered"] >= total, "all events at the receiver")
    assert run.stop() == 0
    got = bench.got()
    assert gapless(got)
    assert ids(got) == ids(bench.got("out.jsonl"))
    assert bench.states()["main"]["dead_letters"] == bench.states()["file"]["dead_letters"] == 0
