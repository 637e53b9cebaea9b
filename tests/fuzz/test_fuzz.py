"""Whatever a stranger sends is parsed, or is the one error: a few thousand mutated inputs, the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest
from fuzz.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from fuzz.targets import Target

ROOM = 64 * 2**20
"""Bytes that all inputs of a target together may leave this process with."""

FOUND: dict[str, list[bytes]] = {
    "metadata": [b'\x80labels\0["a"]', b"version\0\xff"],  # text that is none
}
"""What the fuzzers found, mended since; for journals see `fuzz.targets`, which says it in SQL."""


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Return a seed in which some bytes are changed, cut out, repeated or put in."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 16)))
        match draw(st.integers(0, 3)):
            case 0:
                data[at:end] = draw(st.binary(min_size=end - at, max_size=end - at))
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end] * draw(st.integers(1, 64))
            case _:
                data[at:at] = draw(st.one_of(st.binary(max_size=16), st.sampled_from(TOKENS)))
    return bytes(data)


TOKENS = (b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}", b"\xff\xff\xff\xff", b"\0" * 8, b"9" * 40, b"\\ud800", b'"')


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_the_one_error_comes_of_any_bytes(name: str) -> None:
    target: Target = TARGETS[name]
    seeds = target.seeds()
    for data in (b"", *seeds, *FOUND.get(name, [])):
        target.check(data)

    @settings(
        max_examples=target.examples, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(mutated(seeds) | st.binary(max_size=200))
    def tried(data: bytes) -> None:
        target.check(data)

    before = psutil.Process().memory_info().rss
    tried()
    assert psutil.Process().memory_info().rss - before < ROOM
