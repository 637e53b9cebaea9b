"""Metrics: counters that never decrease, the three pages over real HTTP, and several processes in one folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fer_stream.aggregator.export import LedgerExport
from fer_stream.aggregator.ledger import Ledger
from fer_stream.errors import ConfigError, TransportError
from fer_stream.operations import metrics
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fer_stream.operations.http import Server


def value(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(name, labels)


def frames(camera: str, outcome: str, reason: str = "") -> float | None:
    return value("fer_stream_frames_total", camera=camera, outcome=outcome, reason=reason)


# The ledger


def test_a_ledger_s_totals_become_counters() -> None:
    export = LedgerExport("ledger-1")
    export.export(Ledger(captured=10, done=4, superseded=2, rejected={"corrupt": 1}, lost_link=2, in_flight=1))
    assert frames("ledger-1", "captured") == 10
    assert frames("ledger-1", "done") == 4
    assert frames("ledger-1", "rejected", "corrupt") == 1
    assert frames("ledger-1", "expired") == 0, "the series exists up front, so that rate() sees the first increment"
    assert value("fer_stream_frames_in_flight", camera="ledger-1") == 1

    export.export(Ledger(captured=12, done=7, superseded=2, rejected={"corrupt": 1, "capture": 1}, lost_link=2))
    assert frames("ledger-1", "captured") == 12
    assert frames("ledger-1", "done") == 7
    assert frames("ledger-1", "rejected", "corrupt") == 1
    assert frames("ledger-1", "rejected", "capture") == 1
    assert value("fer_stream_frames_in_flight", camera="ledger-1") == 0


def test_a_counter_never_falls() -> None:
    export = LedgerExport("ledger-2")
    for done in (5, 3, 4, 6):
        export.export(Ledger(captured=done, done=done))
    assert frames("ledger-2", "done") == 6


def test_two_cameras_are_told_apart() -> None:
    LedgerExport("ledger-3").export(Ledger(captured=1, done=1))
    LedgerExport("ledger-4").export(Ledger(captured=2, done=2))
    assert (frames("ledger-3", "done"), frames("ledger-4", "done")) == (1, 2)


# Over HTTP


def served(address: str, ready: Callable[[], str] = str, token: Path | None = None) -> Server:
    server = metrics.serve(Settings.model_construct(metrics=address, metrics_token=token), ready)
    assert server is not None
    return server


class Role:
    """A metrics server with a settable readiness."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self.missing = ""
        self.server = served(address, lambda: self.missing)
        self.host = address.rpartition(":")[0]

    def get(self, path: str) -> tuple[int, str, str]:
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.server.port}{path}", timeout=10) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read().decode()


@pytest.fixture
def role() -> Iterator[Role]:
    found = Role()
    yield found
    found.server.close()


def test_metrics_are_served_as_prometheus_reads_them(role: Role) -> None:
    LedgerExport("served").export(Ledger(captured=3, done=3))
    code, kind, text = role.get("/metrics?format=prometheus")
    assert code == 200
    assert kind.startswith("text/plain; version=")
    samples = {
        (sample.name, sample.labels.get("camera"), sample.labels.get("outcome")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["fer_stream_frames_total", "served", "done"] == 3


def test_alive_is_not_ready(role: Role) -> None:
    role.missing = 'a "worker"'
    assert role.get("/healthz") == (200, "application/json", '{"status":"alive"}\n')
    code, kind, text = role.get("/readyz")
    assert (code, kind, json.loads(text)) == (
        503,
        "application/json",
        {"status": "not ready", "missing": 'a "worker"'},
    )
    role.missing = ""
    code, _, text = role.get("/readyz")
    assert (code, json.loads(text)) == (200, {"status": "ready"})


@pytest.mark.parametrize("path", ["/", "/metricsx", "/metrics/", "/../etc/passwd"])
def test_there_is_nothing_else(role: Role, path: str) -> None:
    assert role.get(path) == (404, "text/plain", "the pages are /metrics, /healthz and /readyz\n")


def test_one_who_asks_slowly_does_not_keep_the_others_waiting(role: Role) -> None:
    with socket.create_connection(("127.0.0.1", role.server.port)) as slow:
        slow.sendall(b"GET /metr")
        assert role.get("/healthz")[0] == 200


def test_after_closing_the_port_is_free_again(role: Role) -> None:
    role.server.close()
    again = Role(f"127.0.0.1:{role.server.port}")
    assert again.get("/healthz")[0] == 200
    again.server.close()


def test_a_port_in_use_is_told(role: Role) -> None:
    sentence = r"metrics cannot be served at 127.0.0.1:\d+: Address already in use; stop what uses it, or choose"
    with pytest.raises(TransportError, match=sentence):
        Role(f"127.0.0.1:{role.server.port}")


def test_a_host_that_is_not_ours_is_told(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef")
    (tmp_path / "token").chmod(0o600)
    with pytest.raises(TransportError, match=r"metrics cannot be served at 192\.0\.2\.1:0"):
        served("192.0.2.1:0", token=tmp_path / "token")


@pytest.mark.parametrize("address", ["", "9100", ":9100", "host:", "host:x", "host:65536", "host:-1", "host:²"])
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(ConfigError, match=r"is not an address for metrics: give HOST:PORT, such as 127\.0\.0\.1:9108"):
        served(address)


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_ipv6_is_served() -> None:
    found = Role("[::1]:0")
    assert found.get("/healthz")[0] == 200
    found.server.close()


def test_no_address_no_server() -> None:
    assert metrics.serve(Settings(), lambda: "") is None
    served("127.0.0.1:0").close()


# Checked by promtool

FILLED = """
    from fer_stream.operations import environment
    environment.prepare()
    from fer_stream.operations import metrics
    from fer_stream.aggregator.export import LedgerExport
    from fer_stream.aggregator.ledger import Ledger
    LedgerExport("door").export(Ledger(captured=3, done=1, rejected={"corrupt": 1}, in_flight=1))
    for histogram in (metrics.frame_age, metrics.latency):
        histogram.labels("door").observe(0.1)
    metrics.stage.labels("detect").observe(0.02)
    metrics.batch.observe(4)
    metrics.faces.labels("door").inc(2)
    metrics.events.labels("door", "emotion.started", "happy").inc()
    metrics.camera_online.labels("door").set(1)
    metrics.tracks.labels("door").set(1)
    metrics.measure.labels("door", "valence").set(0.25)
    metrics.waiting.labels("door").set(1)
    metrics.workers.labels("idle").set(2)
    metrics.fenced.labels("deadline").inc()
    metrics.journal_cursor.set(7)
    metrics.journal_failing.set(0)
    metrics.events_held.set(0)
    metrics.events_lost.inc()
    metrics.rejected_messages.labels("work").inc()
    metrics.annotated.labels("stored").inc()
    metrics.capture_frames.labels("door", "sent").inc()
    metrics.source_failures.labels("door").inc()
    metrics.fleet_aggregators.set(2)
    metrics.fleet_partitions.labels("owned").set(8)
    metrics.fleet_takeovers.labels("dead").inc()
    metrics.fleet_engine_failing.set(0)
    metrics.fleet_doubtful.set(0)
    metrics.export_view("stdout:jsonl", undelivered=1, behind=2)
    metrics.deliveries.labels("bus", "delivered").inc()
    metrics.delivery_retries.labels("bus").inc()
    metrics.delivery_lag_events.labels("bus").set(3)
    metrics.delivery_lag_seconds.labels("bus").set(0.5)
    metrics.delivery_dead_letters.labels("bus").set(1)
"""


def run(code: str, **environment: str) -> str:
    program = textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def promtool(text: str) -> str:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    return f"{checked.returncode} {checked.stdout}{checked.stderr}"


def test_promtool_finds_nothing() -> None:
    text = run(FILLED + "    print(metrics.exposition().decode())")
    ours = {family.name for family in text_string_to_metric_families(text) if family.name.startswith("fer_stream_")}
    assert len(ours) == 36, "FILLED sets every metric"
    assert promtool(text) == "0 "


def test_promtool_would_find_something() -> None:
    assert promtool("# TYPE frames counter\nframes 1\n").startswith("3 ")


def test_processes_of_one_folder_are_served_as_one(tmp_path: Path) -> None:
    """Counters of all processes are added, also after a restart; for gauges the latest value counts."""
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for process, online in (("capture door", 1), ("aggregator", 1), ("aggregator", 0)):
        run(FILLED + f"    metrics.camera_online.labels('door').set({online})", FER_STREAM_PROCESS=process, **shared)
    text = run("from fer_stream.operations import metrics; print(metrics.exposition().decode())", **shared)
    samples = {
        (sample.name, sample.labels.get("outcome") or sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["fer_stream_frames_total", "done"] == 3
    assert samples["fer_stream_faces_total", None] == 6
    assert samples["fer_stream_frame_age_seconds_bucket", "+Inf"] == 3
    assert samples["fer_stream_camera_online", None] == 0
    assert samples["fer_stream_journal_cursor", None] == 7
    assert promtool(text) == "0 "
    assert {"aggregator.db", "capture-door.db"} <= {path.name.rpartition("_")[2] for path in tmp_path.iterdir()}


FORGETTING = (
    FILLED
    + """
    metrics.camera_online.labels("hall").set(1)
    metrics.forget("door")
    print(metrics.exposition().decode())
    metrics.remember("door")
    metrics.camera_online.labels("door").set(1)
    print("=====", metrics.exposition().decode())
"""
)


@pytest.mark.parametrize("several", [False, True], ids=["one process", "processes of one folder"])
def test_a_forgotten_camera_has_no_series_until_it_is_back(several: bool, tmp_path: Path) -> None:
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "FER_STREAM_PROCESS": "aggregator"} if several else {}
    gone, back = run(FORGETTING, **shared).split("=====")
    assert 'camera="door"' not in gone
    assert 'fer_stream_camera_online{camera="hall"} 1.0' in gone
    assert "fer_stream_journal_cursor 7.0" in gone
    assert 'fer_stream_camera_online{camera="door"} 1.0' in back


def test_a_sink_s_totals_become_counters() -> None:
    for undelivered in (2, 2, 5):
        metrics.export_view("file:x", undelivered, behind=3)
    assert value("fer_stream_sink_events_undelivered_total", sink="file:x") == 5
    assert value("fer_stream_sink_events_behind", sink="file:x") == 3


def test_a_rate_is_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    rate, now = metrics.Rate(), 1000.0
    monkeypatch.setattr(metrics, "time", SimpleNamespace(monotonic=lambda: now))
    assert rate.now() == 0.0
    for tenth in range(100):  # ten per second for ten seconds; only the last five seconds count
        rate.add(now - 10 + tenth / 10)
    assert rate.now() == pytest.approx(10, rel=0.05)
    for _ in range(2500):
        rate.add(now - 1)
    assert rate.now() > 300
