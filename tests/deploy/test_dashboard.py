"""Grafana's dashboard: each query runs on a real Prometheus that scrapes a real run, and alerts fire there."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
from deploy_files import DEPLOY, RUNBOOK, dashboard, load, panels, queries
from foreign import measuring
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from processes import Cli, free_port, wait_for
from prometheus_server import Prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Process


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Iterator[tuple[Process, Prometheus]]:
    """A run of two cameras and two workers, and a Prometheus that scrapes it and evaluates our rules."""
    folder, port = tmp_path_factory.mktemp("service"), free_port()
    cli = Cli(folder, measuring(folder / "measuring.onnx"))
    cameras = [f"door={clip}", f"hall={clip}"]
    nobody = ("--sink", "nats://127.0.0.1:1")  # a receiver that never answers, so that there are failures to show
    run = cli.start("run", *cameras, "--loop", "--workers", 2, "--metrics", f"127.0.0.1:{port}", *nobody)
    prometheus = Prometheus(folder, {"fer-stream": port}, DEPLOY / "prometheus" / "rules.yml")
    wait_for(
        lambda: prometheus.query('count(fer_stream_events_total{type="emotion.started"} > 0)') == {(): 2.0},
        "an emotion at each camera",
        log=lambda: run.err,
    )
    yield run, prometheus
    prometheus.close()
    cli.close()


CELL = "fer_stream_fleet_"
"""Begins the metrics that only the aggregators of a cell have."""

ALONE = [(title, query) for title, query in queries() if CELL not in query]


@pytest.mark.parametrize(("title", "query"), ALONE, ids=[title for title, _ in ALONE])
def test_a_panel_shows_something(service: tuple[Process, Prometheus], title: str, query: str) -> None:
    _, prometheus = service
    for camera in (".*", "door|hall"):
        asked = query.replace("$camera", camera).replace("$__rate_interval", "10s")
        assert "$" not in asked
        wait_for(lambda asked=asked: prometheus.query(asked), f"a series for {title}: {asked}")


def test_the_panels_of_a_cell_show_something(tmp_path: Path) -> None:
    """A Prometheus scrapes two aggregators of a cell, as far as their metrics go: the second one is in trouble."""
    ports = {"first": free_port(), "second": free_port()}
    page = """fer_stream_fleet_aggregators 2
fer_stream_fleet_partitions{{state="owned"}} 8
fer_stream_fleet_partitions{{state="unowned"}} {0}
fer_stream_fleet_takeovers_total{{cause="dead"}} 3
fer_stream_fleet_engine_failing {0}
fer_stream_fleet_doubtful {0}
"""
    servers = [serve_text(port, page.format(number)) for number, port in enumerate(ports.values())]
    prometheus = Prometheus(tmp_path, ports, DEPLOY / "prometheus" / "rules.yml")
    try:
        expected = {
            "Aggregators that live": {(): 2.0},
            "Partitions without an owner": {(): 1.0},
            "Aggregators without servers": {(): 1.0},
            "Partitions by owner": {(f"127.0.0.1:{port}", "owned"): 8.0 for port in ports.values()},
            "Partitions taken": {("dead",): 0.0},
            "Aggregators in doubt": {(f"127.0.0.1:{port}",): float(n) for n, port in enumerate(ports.values())},
        }
        cell = {title: query for title, query in queries() if CELL in query}
        for title, query in cell.items():
            asked = query.replace("$__rate_interval", "10s")
            wait_for(lambda a=asked, t=title: prometheus.query(a) == expected[t], f"the series for {title}")
    finally:
        prometheus.close()
        for server in servers:
            server.shutdown()
            server.server_close()


def serve_text(port: int, text: str) -> ThreadingHTTPServer:
    """Serve a text at every path."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_the_cameras_can_be_chosen(service: tuple[Process, Prometheus]) -> None:
    _, prometheus = service
    (variable,) = [v for v in dashboard()["templating"]["list"] if v["name"] == "camera"]
    asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
    assert asked is not None
    assert prometheus.get(f"label/{asked[2]}/values", **{"match[]": asked[1]}) == ["door", "hall"]


def test_alerts_are_quiet_until_a_worker_is_killed(service: tuple[Process, Prometheus]) -> None:
    run, prometheus = service
    (groups,) = prometheus.get("rules").values()
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    assert prometheus.query('ALERTS{alertstate="firing"}') == {}
    run.child("worker 1").kill()
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    wait_for(lambda: ("FerStreamWorkerDeaths",) in prometheus.query(firing), "the alert", log=lambda: run.err)


def lost(written: Any, known: Any, path: str = "") -> list[str]:
    """Return the paths at which ``known`` lacks a value of ``written``, or has another one."""
    if isinstance(written, dict) and isinstance(known, dict):
        return [at for key, value in written.items() for at in lost(value, known.get(key), f"{path}.{key}")]
    if isinstance(written, list) and isinstance(known, list) and len(written) == len(known):
        return [at for n, (a, b) in enumerate(zip(written, known, strict=True)) for at in lost(a, b, f"{path}[{n}]")]
    return [] if written == known else [path]


def test_grafana_knows_every_field() -> None:
    """Grafana's types drop unknown fields when they read and write a dashboard."""
    plugins.register_default_plugins()

    def unknown(board: dict[str, Any]) -> list[str]:
        return lost(board, json.loads(JSONEncoder().encode(Dashboard.from_json(board))))

    # Fields of the Prometheus plug-in and for display only, which the schema does not have.
    beside = {".annotations.list[0].titleFormat", ".annotations.list[0].textFormat", ".templating.list[1].definition"}
    assert set(unknown(dashboard())) == beside
    wrong = dashboard()
    number = next(n for n, panel in enumerate(wrong["panels"]) if panel["type"] == "stat")
    panel = wrong["panels"][number]
    for part in (panel, panel["options"], panel["targets"][0], panel["fieldConfig"]["defaults"]):
        part["colourMode"] = "value"
    assert len(set(unknown(wrong)) - beside) == 4, "unknown fields are detected"


def test_panels_are_described_and_do_not_overlap() -> None:
    everything = dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for one, other in combinations([panel["gridPos"] for panel in everything], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    for panel in panels():
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["description"].endswith(".")
        for pages in re.findall(r"Runbook: ([a-z, -]+)\.", panel["description"]):
            assert all((RUNBOOK / f"{page}.md").is_file() for page in pages.split(", "))


def test_grafana_finds_the_dashboard_and_prometheus() -> None:
    services = load("compose.yaml")["services"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    (provider,) = load("grafana/provisioning/dashboards/fer-stream.yaml")["providers"]
    assert mounts["./grafana/dashboard.json"].startswith(f"{provider['options']['path']}/")
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services
    assert source["jsonData"]["timeInterval"] == load("prometheus/prometheus.yml")["global"]["scrape_interval"]
    sources = {str(panel["datasource"]) for panel in panels()}
    assert sources == {str({"type": source["type"], "uid": "${datasource}"})}
