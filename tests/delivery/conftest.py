"""`fer-stream deliver` from a journal to a receiver in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from deliveries import Bench

if TYPE_CHECKING:
    from processes import Cli


@pytest.fixture
def bench(cli: Cli) -> Bench:
    return Bench(cli)
