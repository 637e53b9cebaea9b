"""Any input is parsed, or raises the decoder's error: thousands of mutated inputs, the same in each run."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import psutil
import pytest
from fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuzz.targets import Target

ROOM = 64 * 2**20
"""Maximum growth of this process's memory over all inputs of a target, in bytes."""

FOUND: dict[str, list[bytes]] = {
    "event": [
        b'{"source":"/cameras/\\ud800","type":"camera.online","time":"2001-09-09T01:46:40.000000Z",'
        b'"sequence":"00000000000000000000","cursor":"0","epoch":1,"frame":7,'
        b'"data":{"reason":"","width":1,"height":1}}'  # a lone surrogate
    ],
    "metadata": [b'\x80labels\0["a"]', b"version\0\xff"],  # invalid UTF-8
}
"""Inputs for which fuzzing found bugs, fixed since; those for journals are in `fuzz.targets`, as SQL."""


def mutated(random: Random, seeds: list[bytes]) -> bytes:
    """Return a seed in which some bytes are changed, removed, repeated or inserted; sometimes random bytes instead."""
    if random.random() < 0.25:
        return random.randbytes(random.randrange(200))
    data = bytearray(random.choice(seeds))
    for _ in range(random.randint(0, 4)):
        at = random.randint(0, len(data))
        end = min(len(data), at + random.randint(0, 16))
        match random.randrange(4):
            case 0:
                data[at:end] = random.randbytes(end - at)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end] * random.randint(1, 64)
            case _:
                data[at:at] = random.choice((random.randbytes(random.randint(0, 16)), random.choice(TOKENS)))
    return bytes(data)


TOKENS = (b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}", b"\xff\xff\xff\xff", b"\0" * 8, b"9" * 40, b"\\ud800", b'"')


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_parsed_or_raise_the_targets_error(name: str) -> None:
    target: Target = TARGETS[name]
    seeds, random = target.seeds(), Random(name)
    tried(target, [b"", *seeds, *FOUND.get(name, [])])
    before = psutil.Process().memory_info().rss
    tried(target, (mutated(random, seeds) for _ in range(target.examples)))
    assert psutil.Process().memory_info().rss - before < ROOM


def tried(target: Target, inputs: Iterable[bytes]) -> None:
    for data in inputs:
        try:
            target.check(data)
        except Exception as error:
            error.add_note(f"the input: {data!r}")
            raise
