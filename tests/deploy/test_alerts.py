"""Prometheus' rules, checked with promtool; every metric that they use exists."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from deploy_files import DEPLOY, ROOT, alerts, load, named, queries, rules, series

if TYPE_CHECKING:
    from pathlib import Path


def promtool(*arguments: str, folder: Path = DEPLOY / "prometheus") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_promtool_accepts_the_configuration_and_its_rules(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "prometheus", tmp_path, dirs_exist_ok=True)
    written = (tmp_path / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(written.replace("/run/secrets", str(tmp_path)))
    (tmp_path / "prometheus.token").write_text("secret")  # promtool checks that it exists
    done = promtool("check", "config", "prometheus.yml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_the_rules_pass_their_tests() -> None:
    done = promtool("test", "rules", "rules_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_in_the_rules_tests() -> None:
    text = (DEPLOY / "prometheus" / "rules_test.yml").read_text()
    fired = {
        case["alertname"]
        for test in yaml.safe_load(text)["tests"]
        for case in test.get("alert_rule_test", [])
        if case.get("exp_alerts")
    }
    for alert in alerts():
        assert alert["alert"] in fired or f'ALERTS{{alertname="{alert["alert"]}", alertstate="firing"}}' in text


@pytest.mark.parametrize("number", range(len(rules())), ids=[rule.get("alert", rule.get("record")) for rule in rules()])
def test_the_rules_tests_detect_a_broken_rule(number: int, tmp_path: Path) -> None:
    groups = load("prometheus/rules.yml")["groups"]
    [rule for group in groups for rule in group["rules"]][number]["expr"] = "vector(0) > 1"
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    shutil.copy(DEPLOY / "prometheus" / "rules_test.yml", tmp_path)
    assert promtool("test", "rules", "rules_test.yml", folder=tmp_path).returncode == 1


def test_an_alert_has_a_severity_a_sentence_and_a_page() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"]["summary"].endswith(".")
        page = ROOT / alert["annotations"]["runbook_url"]
        assert page.read_text().startswith(f"# {alert['alert']}\n")


def test_rules_and_panels_use_only_existing_series() -> None:
    watched = [rule["expr"] for rule in rules()] + [query for _, query in queries()]
    assert set().union(*map(named, watched)) <= series().keys()


def test_every_metric_is_used_by_a_rule_or_a_panel() -> None:
    watched = [alert["expr"] for alert in alerts()] + [query for _, query in queries()]
    seen = {series()[name] for name in set().union(*map(named, watched))}
    assert seen == set(series().values())


def test_prometheus_scrapes_every_role_of_compose() -> None:
    (job,) = load("prometheus/prometheus.yml")["scrape_configs"]
    files = [load(file)["services"] for file in ("compose.yaml", "compose.cell.yaml")]
    ours = {
        name: service
        for services in files
        for name, service in services.items()
        if service["image"] == "fer-stream" and name not in ("allow", "operator")  # they end at once
    }
    assert set(job["dns_sd_configs"][0]["names"]) == set(ours)
    assert job["job_name"] == "fer-stream", "the alert FerStreamProcessDown uses this name"
    port = job["dns_sd_configs"][0]["port"]
    assert all(service["environment"]["FER_STREAM_METRICS"].endswith(f":{port}") for service in ours.values())
