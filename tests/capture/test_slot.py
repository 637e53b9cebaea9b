"""The slot keeps the latest frame and counts all of them."""

from __future__ import annotations

import time

from jpegs import jpeg

from fer_stream import Frame, Jpeg
from fer_stream.capture.slot import Slot
from fer_stream.protocol.messages import Totals
from fer_stream.types import Nanoseconds

PICTURES = [jpeg(seed=seed) for seed in range(3)]


def test_a_closed_slot_counts_nothing() -> None:
    slot = Slot("drop_oldest")
    slot.reject()
    slot.close()
    slot.reject()
    assert slot.state() == (Totals(captured=1, rejected=1), False)


def test_superseded_frames_are_never_decoded() -> None:
    slot, jpegs = Slot("drop_oldest"), [Jpeg(data) for data in PICTURES]
    for seq, content in enumerate(jpegs, 1):
        slot.put(Frame("door", seq, Nanoseconds(seq), content), time.monotonic())
    assert slot.state()[0] == Totals(captured=3, superseded=2)
    held = slot.take()
    assert held is not None
    assert held[0].content is jpegs[-1]
    assert [content._image for content in jpegs] == [None] * 3
