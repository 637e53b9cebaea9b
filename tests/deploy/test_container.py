"""The image and compose.yaml: both are linted, and compose's commands run with the keys that make-secrets makes."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest
from compose_spec import PyCompose
from deploy_files import DEPLOY, ROOT, load
from nats_cell import Cell
from processes import free_port, wait_for
from served import Browser
from websockets.exceptions import InvalidStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from processes import Cli, Process


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "hadolint"
    return subprocess.run([program, "--no-color", path], capture_output=True, text=True, check=False, timeout=60)


def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    done = hadolint(DEPLOY / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /tmp\n")
    assert hadolint(tmp_path / "Dockerfile").returncode == 1, "hadolint can find errors"


def test_the_image_copies_existing_files_that_the_build_context_includes() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M) for word in line.split()[:-1]]
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().split("\n")
    for path in copied:
        assert (ROOT / path).exists()
        assert f"!{path}" in allowed or f"!{Path(path).parent}/*{Path(path).suffix}" in allowed
    assert re.search(r"^USER (\d+)", text, re.M)[1] != "0"
    assert "torch" not in text + (DEPLOY / "requirements.lock").read_text()


FILES = ("compose.yaml", "compose.cell.yaml")


def compose(file: str, change: Callable[[dict[str, Any]], object] = lambda _: None) -> PyCompose:
    services = copy.deepcopy(load(file))
    change(services)
    checked = PyCompose.from_json(json.dumps(services))
    checked.validate()
    return checked


@pytest.mark.parametrize("file", FILES)
def test_compose_matches_the_compose_specification(file: str) -> None:
    assert compose(file).service_names() == list(load(file)["services"])
    for wrong in (
        lambda d: d["services"]["worker"].update(readonly=True),
        lambda d: d["services"]["worker"].update(mem_limit="lots"),
        lambda d: d["services"]["worker"]["networks"].append("nowhere"),
        lambda d: d["services"]["worker"].update(secrets=["nothing"]),
    ):
        with pytest.raises(ValueError, match=r"readonly|lots|nowhere|nothing"):
            compose(file, wrong)


@pytest.mark.parametrize("file", FILES)
def test_every_service_is_restricted(file: str) -> None:
    for name, service in load(file)["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
        assert service["pids_limit"]
        assert service["ulimits"]["nofile"] >= 65_536
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        if service["image"] == "fer-stream":
            user = re.search(r"^USER (.*)$", (DEPLOY / "Dockerfile").read_text(), re.M)
            assert service["user"] == user[1] if user else False


def make_secrets(folder: Path, *cameras: str) -> subprocess.CompletedProcess[str]:
    python = Path(sys.executable)
    # Use the name without its path: FER_STREAM is split into words, and the path may contain a space.
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"SECRETS": str(folder), "FER_STREAM": f"{python.name} -m fer_stream", "PATH": path}
    return subprocess.run(
        [DEPLOY / "make-secrets", *cameras], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_services_of_compose_find_each_other(cli: Cli, clip: Path, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    done = make_secrets(secrets, "door", "hall")
    assert done.returncode == 0, done.stderr
    settings = (secrets / "settings.toml").read_text()
    (secrets / "settings.toml").write_text(settings.replace('"demo"', json.dumps(str(clip))))
    archive = local_sink(secrets, tmp_path)

    port, metrics, page = free_port(), free_port(), free_port()
    replaced = {
        load("compose.yaml")["services"]["aggregator"]["environment"]["FER_STREAM_DEPLOYMENT__PURPOSE"]: "research",
        "${LIVE_HOSTS:-}": "",
        "0.0.0.0:8090": f"127.0.0.1:{page}",
        "0.0.0.0:5550": f"127.0.0.1:{port}",
        "aggregator:5550": f"127.0.0.1:{port}",
        "/run/secrets": str(secrets),
        "/etc/fer-stream/keys": str(secrets / "keys"),
        "/etc/fer-stream/deliver": str(secrets / "deliver"),
        "/var/lib/fer-stream": str(tmp_path),
    }

    def here(text: str) -> str:
        for there, local in replaced.items():
            text = text.replace(there, local)
        return text

    services = {name: s for name, s in load("compose.yaml")["services"].items() if s["image"] == "fer-stream"}
    for number, service in enumerate(services.values()):
        variables = {key: here(value) for key, value in service["environment"].items()}
        variables["FER_STREAM_METRICS"] = f"127.0.0.1:{metrics + number}"
        cli.start(*map(here, service["command"]), **variables, FER_STREAM_JOURNAL__PATH=str(tmp_path / "events.db"))
        for secret in service.get("secrets", []):
            assert (secrets / secret).stat().st_mode & 0o777 == 0o600
    follow = ["subscribe", "--connect", f"tcp://127.0.0.1:{port}", "--from", 0, "--format", "jsonl"]
    client = cli.start(*follow, "--key", secrets / "client.key")
    client.until(
        lambda: (
            {event["source"] for event in client.events if event["type"] == "emotion.started"}
            == {"/cameras/door", "/cameras/hall"}
        ),
        "an emotion at each camera",
    )
    stranger = cli.start(*follow, "--until-now", "--key", secrets / "worker.key")
    assert stranger.end() == 1, "a worker's key is not valid for a client's link"
    assert stranger.out == ""
    url = f"http://127.0.0.1:{page}/"
    with pytest.raises(InvalidStatus), Browser(url):
        pass
    with Browser(url, Authorization=f"Bearer {(secrets / 'live.token').read_text()}") as browser:
        browser.say(watch={"door": 320, "hall": 320})
        # One picture of each camera; the next is sent only after the client confirms that it was shown.
        assert {browser.until("picture")["camera"] for _ in range(2)} == {"door", "hall"}
    wait_for_events(archive, "emotion.started", "/cameras/door", "/cameras/hall")
    assert (tmp_path / "deliveries.db").stat().st_mode & 0o777 == 0o600


def local_sink(secrets: Path, folder: Path) -> Path:
    """Let the sink of deploy/deliver.toml write here from the beginning, and return its file."""
    path = secrets / "deliver" / "settings.toml"
    assert path.read_text() == (DEPLOY / "deliver.toml").read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    here = path.read_text().replace("/var/lib/fer-stream", str(folder))
    path.write_text(here.replace("options =", 'begin = "beginning"\noptions ='))
    return folder / "events.jsonl"


def wait_for_events(path: Path, kind: str, *sources: str) -> None:
    """Wait until a file has an event of a type from each camera."""

    def found() -> set[str]:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return {event["source"] for event in events if event["type"] == kind}

    wait_for(lambda: found() >= set(sources), f"{kind} of each camera in {path}")


def cell_metrics(ports: dict[str, int], token: str) -> dict[str, float]:
    """The sums over all aggregators of what the alerts for a cell watch."""
    found: dict[str, float] = {}
    for port in ports.values():
        asked = Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {token}"})
        with urlopen(asked) as answer:
            text = answer.read().decode()
        samples = re.findall(r'^fer_stream_fleet_(\w+)(?:\{\w+="(\w+)"\})? (\S+)$', text, re.M)
        for name, label, value in samples:
            found[label or name] = found.get(label or name, 0.0) + float(value)
    names = ("aggregators", "owned", "unowned", "engine_failing", "doubtful", "dead")
    return {name: found[name] for name in names if name in found}


def test_the_services_of_a_cell_find_each_other(cli: Cli, clip: Path, tmp_path: Path) -> None:
    """The commands of compose.cell.yaml with the keys that it names, and real servers in place of the three."""
    secrets = tmp_path / "secrets"
    done = make_secrets(secrets, "--cell")
    assert done.returncode == 0, done.stderr
    assert not (secrets / "settings.toml").exists()
    text = (DEPLOY / "compose.cell.yaml").read_text()
    (users,) = re.findall(r"make_cell\.py \S+ --server n1 n2 n3 (.*)$", text, re.M)
    cell = Cell(tmp_path, *shlex.split(users)).start()
    services = {n: s for n, s in load("compose.cell.yaml")["services"].items() if s["image"] == "fer-stream"}
    addresses = {name: f"127.0.0.1:{free_port()}" for name in ("aggregator-1", "aggregator-2")}
    ports, token = {name: free_port() for name in addresses}, (secrets / "metrics.token").read_text()
    expected = {"aggregators": 4.0, "owned": 16.0, "unowned": 0.0, "engine_failing": 0.0, "doubtful": 0.0, "dead": 0.0}
    replaced = {f"{name}:5550": address for name, address in addresses.items()} | {
        services["aggregator-1"]["environment"]["FER_STREAM_DEPLOYMENT__PURPOSE"]: "research",
        "tls://n1,n2,n3": cell.address,
        "/run/secrets/ca.pem": str(cell.folder / "ca.pem"),
        "/run/secrets": str(secrets),
        "/etc/fer-stream/keys": str(secrets / "keys"),
        "/etc/fer-stream/deliver": str(secrets / "deliver"),
        "/var/lib/fer-stream": str(tmp_path),
    }
    archive = local_sink(secrets, tmp_path)

    def environment(name: str) -> dict[str, str]:
        nkey = [secret["source"] for secret in services[name]["secrets"] if isinstance(secret, dict)]
        own = {"0.0.0.0:5550": addresses.get(name, ""), "/run/secrets/nats.nk": str(cell.folder / "".join(nkey))}
        found = services[name]["environment"] | {"command": json.dumps(services[name]["command"])}
        for there, here in (own | replaced).items():
            found = {key: value.replace(there, here) for key, value in found.items()}
        metrics = f"127.0.0.1:{ports.get(name) or free_port()}"
        return found | {"FER_STREAM_METRICS": metrics, "FER_STREAM_FLEET__MACHINE": "machine"}

    def run(name: str, *command: object) -> Process:
        variables = environment(name)
        words = json.loads(variables.pop("command"))
        return cli.start(*(command or words), **variables)

    try:
        cell.until_ready()
        roles = [run(name) for name in ("aggregator-1", "aggregator-2", "node")]
        for aggregator in roles[:2]:
            aggregator.until_said("ready at")
        variables = cli.environment | environment("allow")
        variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
        for _ in range(2):  # it can be repeated
            allowed = subprocess.run(
                ["sh", DEPLOY / "allow-keys"], env=variables, capture_output=True, text=True, check=False
            )
            assert (allowed.returncode, allowed.stderr) == (0, "")
        workers = [run("worker")]
        added = run("operator", "cameras", "add", "door", clip, "--loop", "--machine", "*", "--timeout", 60)
        assert added.end() == 0, added.err
        assert added.out == "camera door is added, and online\n", added.out + roles[-1].err
        follow = ["subscribe", "--connect", f"tcp://{addresses['aggregator-2']}", "--from", 0, "--format", "jsonl"]
        client = cli.start(*follow, "--key", secrets / "client.key")

        def recognized() -> bool:
            """Look for an emotion. As Docker does, start the worker again: its key was perhaps not known yet."""
            if workers[-1].popen.poll() is not None:
                assert workers[-1].popen.returncode == 1, workers[-1].err
                workers.append(run("worker"))
            return any(event["type"] == "emotion.started" for event in client.events)

        client.until(recognized, "an emotion")
        wait_for(lambda: cell_metrics(ports, token) == expected, "the metrics that the alerts watch")
        assert services["deliver"]["command"][-1] == services["worker"]["command"][2], "it knows all aggregators"
        run("deliver")
        wait_for_events(archive, "emotion.started", "/cameras/door")
        stranger = cli.start(*follow, "--until-now", "--key", secrets / "worker.key")
        assert stranger.end() == 1, "a worker's key is not valid for a client's link"
        listed = run("operator", "keys", "list")
        assert listed.end() == 0
        assert {line.split()[0] for line in listed.out.splitlines()} >= {"worker", "node", "client", "live", "deliver"}
    finally:
        cell.kill()


def test_existing_secrets_are_kept(tmp_path: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    assert make_secrets(tmp_path, "door").returncode == 0
    before = content()
    assert make_secrets(tmp_path, "door", "yard").returncode == 0
    after = content()
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed == {"allowed.json"}
    assert {path.name for path in after.keys() - before.keys()} == {"yard.key"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in after)
    assert make_secrets(tmp_path).returncode == 2
    assert "cannot name a key" in make_secrets(tmp_path, "a/b").stderr
