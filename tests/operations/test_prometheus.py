"""A real Prometheus scrapes every role of a pipeline, and answers an operator's queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from faults.service import standing
from processes import balanced, free_port, wait_for
from prometheus_server import Prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Cli

LIVE = ("aggregator", "worker-1", "worker-2", "door")


@pytest.fixture
def pipeline(cli: Cli, short_folder: Path, clip: Path) -> Iterator[tuple[Prometheus, dict[str, Any]]]:
    """Four running roles, each with its metrics, and a Prometheus that scrapes all of them."""
    address, first = f"ipc://{short_folder}", free_port()
    ports = {name: first + number for number, name in enumerate(LIVE)}

    def start(name: str, *arguments: object) -> Any:
        return cli.start(*arguments, "--metrics", f"127.0.0.1:{ports[name]}")

    roles = {
        "aggregator": start("aggregator", "aggregator", "--bind", address, "--journal", "events.db"),
        "worker-1": start("worker-1", "worker", "--name", 1, "--connect", address),
        "worker-2": start("worker-2", "worker", "--name", 2, "--connect", address),
        "door": start("door", "capture", clip, "--camera", "door", "--loop", "--rate", 60, "--connect", address),
    }
    prometheus = Prometheus(cli.folder, ports)
    yield prometheus, {"cli": cli, "address": address, **roles}
    prometheus.close()


def resolved(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the status if it has no frame in flight, else ``None``."""
    return state if state and not state["cameras"]["door"]["ledger"]["in_flight"] else None


def test_prometheus_scrapes_every_role(pipeline: tuple[Prometheus, dict[str, Any]]) -> None:
    prometheus, roles = pipeline
    wait_for(lambda: prometheus.query("sum(up)") == {(): 4.0}, "four targets that are up")
    seen = wait_for(
        lambda: prometheus.query('sum(fer_stream_events_total{type="emotion.started"}) > 0'), "an event in Prometheus"
    )
    assert seen
    wait_for(lambda: prometheus.query("sum(fer_stream_workers)") == {(): 2.0}, "two workers in Prometheus")
    wait_for(lambda: prometheus.query("max(fer_stream_frames_waiting)").get((), 99) <= 4, "at most four waiting frames")
    online = "sum by (camera, job) (fer_stream_camera_online)"
    wait_for(lambda: prometheus.query(online) == {("door", "aggregator"): 1}, "a camera that is online")
    age = "histogram_quantile(0.99, sum by (le) (fer_stream_frame_age_seconds_bucket))"
    wait_for(lambda: prometheus.query(age).get((), 99) < 5, "fresh frames")
    stages = {("worker-1", "detect"), ("worker-2", "classify"), ("door", "read"), ("aggregator", "journal")}
    query = "sum by (job, stage) (fer_stream_stage_seconds_count) > 0"
    wait_for(lambda: stages <= set(prometheus.query(query)), "each role's stages in Prometheus")

    # After the capture's end no frame is in flight. Then the status and Prometheus agree to the frame.
    assert roles["door"].stop() == 0
    state = wait_for(lambda: resolved(standing(roles["address"])), "no frame to be in flight")
    ledger: dict[str, int] = state["cameras"]["door"]["ledger"]
    assert balanced(ledger)
    captured = f'fer_stream_frames_total{{camera="door", outcome="captured"}} == {ledger["captured"]}'
    wait_for(lambda: prometheus.query(captured), "the last frames in Prometheus")
    query = 'sum by (outcome) (fer_stream_frames_total{camera="door"})'
    outcomes = wait_for(lambda: prometheus.query(query), "the frames' outcomes")
    assert outcomes.items() >= {(term,): float(ledger[term]) for term in ("captured", "done", "superseded")}.items()
    assert outcomes.pop(("captured",)) == sum(outcomes.values()) > 0
    wait_for(
        lambda: prometheus.query("sum by (camera) (fer_stream_frames_in_flight)") == {("door",): 0},
        "no frame in flight",
    )
    wait_for(
        lambda: prometheus.query("max(fer_stream_journal_cursor)") == {(): float(state["cursor"])}, "the last event"
    )
    wait_for(lambda: prometheus.query('up{job="door"} == 0'), "the capture's absence in Prometheus")
