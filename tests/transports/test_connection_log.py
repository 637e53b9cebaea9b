"""A missing aggregator is logged by every process that connects, except supervisors and their children."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from fer_stream.operations.process import PARENT, supervising
from fer_stream.transports import connection_log

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


@pytest.mark.parametrize(
    ("within", "parent", "warnings"),
    [(nullcontext(), "", 1), (supervising(), "", 0), (nullcontext(), "1", 0)],
    ids=["a client", "a supervisor", "a child"],
)
def test_a_missing_aggregator_is_logged_except_under_a_supervisor(
    within: AbstractContextManager[None],
    parent: str,
    warnings: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(connection_log.time, "monotonic", lambda: now[0])
    monkeypatch.delenv(PARENT, raising=False)
    if parent:
        monkeypatch.setenv(PARENT, parent)
    with within, caplog.at_level(logging.WARNING):
        tested = connection_log.ConnectionLog(f"ipc:///nowhere/{warnings}{parent}", lambda: "nothing listens there")
        for _ in range(20):
            now[0] += 1
            tested.look(up=False)
            for thread in connection_log.threading.enumerate():
                if thread.name == "connection-log":
                    thread.join()
    assert len(caplog.messages) == warnings


def test_after_supervising_a_process_counts_as_a_client_again() -> None:
    with supervising(), supervising():
        pass
    assert not connection_log.starts_aggregator()
