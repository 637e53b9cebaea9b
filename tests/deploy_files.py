"""The files of deploy/, parsed for tests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from fer_stream.operations import metrics

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
RUNBOOK = ROOT / "docs" / "runbook"


def load(path: str) -> Any:
    """A YAML file of deploy/."""
    return yaml.safe_load((DEPLOY / path).read_text())


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def rules() -> list[dict[str, Any]]:
    return [rule for group in load("prometheus/rules.yml")["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Each query of the dashboard, with its panel's title."""
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


def named(query: str) -> set[str]:
    """The fer_stream_* series in a query."""
    return set(re.findall(r"(?<![\w:])fer_stream_\w+(?![\w:])", query))


def series() -> dict[str, str]:
    """The metric of fer_stream/operations/metrics.py for each name of its series in Prometheus."""
    found = {}
    for family in metrics.REGISTRY.collect():
        if family.name.startswith("fer_stream_"):
            endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
            found |= {family.name + ending: family.name for ending in endings}
    return found
