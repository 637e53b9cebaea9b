"""Fixture: a network on each transport."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from processes import free_port
from transport_network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

numbers = itertools.count()


@pytest.fixture(params=["memory", "ipc", "tcp"])
def network(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[Network]:
    address = {
        "memory": f"memory://test-{next(numbers)}",
        "ipc": f"ipc://{short_folder}/hub",
        "tcp": f"tcp://127.0.0.1:{free_port()}",
    }[request.param]
    found = Network("memory" if request.param == "memory" else "zeromq", address)
    yield found
    found.close()
