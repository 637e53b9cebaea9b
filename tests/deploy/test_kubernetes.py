"""The Kubernetes objects, checked with Kubernetes' own schemas, and KEDA's object with its types."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from deploy_files import DEPLOY, load, named, series

from fer_stream.cli.main import parser

FILES = tuple(f"kubernetes/{name}.yaml" for name in ("fer-stream", "live", "deliver", "cell"))
OBJECTS: list[dict[str, Any]] = [item for file in FILES for item in load(file)["items"]]


def pods() -> list[dict[str, Any]]:
    return [thing["spec"]["template"]["spec"] for thing in OBJECTS if "template" in thing["spec"]]


@pytest.mark.parametrize("number", range(len(OBJECTS)), ids=[f"{o['kind']}-{o['metadata']['name']}" for o in OBJECTS])
def test_kubernetes_knows_every_field(number: int) -> None:
    kubernetes_validate.validate(OBJECTS[number], "1.31", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(OBJECTS[number] | {"sepc": {}}, "1.31", strict=True)


def test_every_container_is_restricted() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["initContainers"] + pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("file", FILES)
def test_the_command_for_openshift_removes_users_and_groups(file: str) -> None:
    (command,) = re.findall(r"^#   (sed .*) \|", (DEPLOY / FILES[0]).read_text(), re.M)
    assert f"{command} | oc" in (DEPLOY / "README.md").read_text()
    sed, script, _ = shlex.split(command)
    text = subprocess.run([sed, script, DEPLOY / file], capture_output=True, text=True, check=True).stdout
    for thing in yaml.safe_load(text)["items"]:
        kubernetes_validate.validate(thing, "1.31", strict=True)
        if pod := thing["spec"].get("template", {}).get("spec"):
            assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_every_command_can_be_parsed() -> None:
    for pod in pods():
        for container in [one for one in pod["containers"] if one["image"] == "fer-stream" and "args" in one]:
            assert parser().parse_args(container["args"]).metrics == "0.0.0.0:9108"
            assert {"name": "FER_STREAM_METRICS_TOKEN", "value": "/keys/metrics.token"} in container["env"]


def test_mounted_volumes_and_secrets_exist() -> None:
    comments = "".join((DEPLOY / file).read_text().partition("apiVersion")[0] for file in FILES)
    claims = {claim["metadata"]["name"] for o in OBJECTS for claim in o["spec"].get("volumeClaimTemplates", [])}
    for pod in pods():
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["initContainers"] + pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes | claims
        for volume in pod["volumes"]:
            projected = [source["secret"]["name"] for source in volume.get("projected", {}).get("sources", [])]
            for name in [*projected, volume.get("secret", {}).get("secretName", "")]:
                rest = name.removeprefix("fer-stream-").removeprefix("nats-")
                assert name in comments or rest in comments, "the comments say how to make it"


def test_a_cell_survives_the_loss_of_a_machine() -> None:
    """The copies of what must survive are on different machines, and are not taken away at the same time."""
    objects = load("kubernetes/cell.yaml")["items"]
    budgets = {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == "PodDisruptionBudget"}
    sets = {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == "StatefulSet"}
    assert sets["nats"]["replicas"] == 3
    for name in ("nats", "aggregator"):
        assert sets[name]["replicas"] >= 2
        labels = sets[name]["template"]["metadata"]["labels"]
        assert budgets[name] == {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
        affinity = sets[name]["template"]["spec"]["affinity"]["podAntiAffinity"]
        (rule,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
        assert rule == {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}


def test_the_parts_of_a_cell_have_the_names_by_which_others_look_for_them() -> None:
    objects = {(o["kind"], o["metadata"]["name"]): o["spec"] for o in load("kubernetes/cell.yaml")["items"]}

    def variables(kind: str, name: str) -> dict[str, str]:
        (container,) = objects[kind, name]["template"]["spec"]["containers"]
        return {each["name"]: each.get("value", "") for each in container.get("env", [])}

    names = {
        name: [f"{name}-{n}.{objects['StatefulSet', name]['serviceName']}" for n in range(spec["replicas"])]
        for (kind, name), spec in objects.items()
        if kind == "StatefulSet"
    }
    text = (DEPLOY / "kubernetes/cell.yaml").read_text()
    assert f"--server {' '.join(names['nats'])} " in text, "their certificates are made for these names"
    for role in (("StatefulSet", "aggregator"), ("StatefulSet", "node"), ("Deployment", "operator")):
        assert variables(*role)["FER_STREAM_JOURNAL__PATH"] == f"tls://{','.join(names['nats'])}"
    assert variables("StatefulSet", "aggregator")["FER_STREAM_FLEET__ADVERTISE"] == "tcp://$(NAME).aggregator:5550"
    addresses = [f"tcp://{name}:5550" for name in names["aggregator"]]
    assert variables("Deployment", "worker")["FER_STREAM_ADDRESS"] == ",".join(addresses)
    for name in ("nats", "aggregator"):
        assert objects["Service", name]["clusterIP"] == "None", "so that each pod has a name"
        assert objects["Service", name]["selector"] == objects["StatefulSet", name]["selector"]["matchLabels"]


def test_one_process_delivers_with_a_record_that_lasts_and_knows_all_aggregators() -> None:
    (found,) = load("kubernetes/deliver.yaml")["items"]
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert found["spec"]["replicas"] == 1
    (record,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "record"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert variables["FER_STREAM_DELIVERIES"].startswith(f"{record}/")
    assert [claim["metadata"]["name"] for claim in found["spec"]["volumeClaimTemplates"]] == ["record"]
    (of_cell,) = re.findall(r'# In a cell: "(.*)"', (DEPLOY / "kubernetes/deliver.yaml").read_text())
    objects = {(o["kind"], o["metadata"]["name"]): o["spec"] for o in load("kubernetes/cell.yaml")["items"]}
    (worker,) = objects["Deployment", "worker"]["template"]["spec"]["containers"]
    assert {"name": "FER_STREAM_ADDRESS", "value": of_cell} in worker["env"]


def test_every_role_of_compose_is_scraped() -> None:
    (job,) = load("prometheus/prometheus.yml")["scrape_configs"]
    scraped = set(job["dns_sd_configs"][0]["names"])
    for file in ("compose.yaml", "compose.cell.yaml"):
        roles = {name for name, service in load(file)["services"].items() if service["image"] == "fer-stream"}
        assert roles - {"allow", "operator"} <= scraped


def test_keda_knows_every_field_and_scales_the_workers_by_an_existing_metric() -> None:
    written = load("kubernetes/scaling.yaml")
    known = ScaledObject.model_validate(written).model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert known == written
    assert written["spec"]["scaleTargetRef"]["name"] in {o["metadata"]["name"] for o in OBJECTS}
    (trigger,) = written["spec"]["triggers"]
    assert named(trigger["metadata"]["query"]) <= series().keys() - {""}
