"""Every command, run by a user without a passwd entry, as in containers, and with read-only file systems."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import strangers
from strangers import Stranger

from fer_stream.cli.commands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCKERFILE = Path(__file__).parents[2] / "deploy" / "Dockerfile"

READ_ONLY = """
mount --make-rprivate /
for folder in /tmp /var/tmp /usr/tmp /; do
    ! mountpoint --quiet $folder || mount --options remount,ro,bind $folder || exit 77
done
exec "$@"
"""


@pytest.fixture
def stranger(tiny_model: Path, clip: Path) -> Iterator[Stranger]:
    with strangers.folder() as name:
        shutil.copy(tiny_model, name)
        shutil.copy(clip, name)
        (Path(name) / "trials.csv").write_text("start,end,name\n0,2,greeting\n")
        yield Stranger(Path(name))
    shutil.rmtree(f"/tmp/runtime-{strangers.UID}", ignore_errors=True)


@pytest.fixture
def settings(stranger: Stranger, tiny_model: Path) -> dict[str, str]:
    return {"FER_STREAM_CLASSIFIER__MODEL": str(stranger.folder / tiny_model.name), "FER_STREAM_WORKERS": "1"}


COMMAND_LINES = {
    "run": "run --duration 1",
    "capture": "capture nothing.mp4",
    "worker": "worker --key nothing.key",
    "aggregator": "aggregator",
    "node": "node",
    "live": "live --page 192.0.2.1:8090",
    "subscribe": "subscribe --until-now",
    "analyze": "analyze portraits.avi --output found --export eaf,boris,bids,vtt --markers trials.csv",
    "agree": "agree nothing.jsonl nothing.eaf",
    "recognize": "recognize portraits.avi",
    "config": "config",
    "purge": "purge --older-than 1d",
    "migrate": "migrate nothing.db",
    "deliver": "deliver status",
    "annotations": "annotations list",
    "stats": "stats",
    "schema": "schema",
    "status": "status",
    "cameras": "cameras list",
    "doctor": "doctor",
    "model": "model check tiny.onnx",
    "keys": "keys new door --role capture",
    "version": "version",
}


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_a_command_works_or_prints_one_error(command: str, stranger: Stranger, settings: dict[str, str]) -> None:
    assert stranger.run(command, "--help").returncode == 0
    done = stranger.run(*COMMAND_LINES[command].split(), **settings)
    if command in ("analyze", "config", "model", "schema", "version"):
        assert done.returncode == 0, done.stderr
    elif command == "doctor":
        assert (done.returncode, done.stderr) == (1, "")
        fails = [line for line in done.stdout.splitlines() if line.startswith("fail")]
        assert fails == [
            "fail  the journal /.local/state/fer_stream/events.db cannot be made in /: give another path with --journal"
        ]
    else:
        assert done.returncode in (1, 2)
        assert len([line for line in done.stderr.splitlines() if line.startswith("fer-stream: error: ")]) == 1


@pytest.mark.parametrize("home", [{}, {"HOME": "/"}, {"HOME": "/nonexistent"}])
def test_run_needs_a_writable_journal_and_no_other_folder(
    home: dict[str, str], stranger: Stranger, settings: dict[str, str]
) -> None:
    refused = stranger.run("run", "portraits.avi", **settings, **home)
    assert refused.returncode == 1
    path = home.get("HOME", "/").rstrip("/")
    assert refused.stderr.splitlines()[-1] == (
        f"fer-stream: error: the journal {path}/.local/state/fer_stream/events.db cannot be written: Permission "
        "denied; give another path"
    )
    done = stranger.run("run", "portraits.avi", "--journal", "events.db", "--format", "jsonl", **settings, **home)
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert "emotion.started" in {event["type"] for event in printed}
    again = stranger.run("subscribe", "--journal", "events.db", "--format", "jsonl", **home)
    assert again.stdout == done.stdout


def test_the_home_folder_of_an_unknown_user_is_refused(stranger: Stranger) -> None:
    refused = stranger.run("run", "--journal", "~nobody-is-called-this/events.db")
    assert (refused.returncode, refused.stderr) == (
        2,
        'fer-stream: error: flag --journal: journal.path = "~nobody-is-called-this/events.db": must be a complete '
        "path: there is no user nobody-is-called-this\n",
    )


def test_a_read_only_machine(stranger: Stranger, settings: dict[str, str]) -> None:
    """As with `docker run --read-only`: only /dev/shm, which is memory, is writable."""
    strangers.python()
    contained = Stranger(Path("/"), "unshare", "--mount", "sh", "-c", READ_ONLY, "sh")
    if subprocess.run(["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", "true"], check=False).returncode:
        pytest.skip("the file systems of this machine cannot be made read-only")
    film = stranger.folder / "portraits.avi"
    refused = contained.run("run", film, **settings)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].endswith(
        "cannot be used: Read-only file system; set XDG_RUNTIME_DIR to a folder of your own"
    )
    refused = contained.run("analyze", film, "--output", "/dev/shm/never", **settings)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        "fer-stream: error: no folder for temporary files is writable: set TMPDIR to a writable folder, or mount one "
        "at /tmp"
    )
    assert "portraits.avi" in contained.run("recognize", film, **settings).stderr, "it writes nothing"
    assert contained.run("config", **settings).returncode == 0
    memory = Path(f"/dev/shm/f-{stranger.folder.name}")
    memory.mkdir()
    memory.chmod(0o1777)  # sticky, like /tmp, so that other users cannot replace the folder made in it
    try:
        done = contained.run("run", film, "--journal", memory / "events.db", **settings, TMPDIR=str(memory))
        assert done.returncode == 0, done.stderr
        assert "emotion.started" in done.stdout or "happy" in done.stdout
    finally:
        shutil.rmtree(memory)


def test_the_image_s_folder_and_variables_are_enough_for_any_user_of_group_0(
    stranger: Stranger, settings: dict[str, str]
) -> None:
    """OpenShift: the folder and the variables of the Dockerfile work for a user id that the image does not know."""
    text = DOCKERFILE.read_text()
    made = re.search(r"install --directory --owner (\d+) --group (\d+) --mode (\d+) (\S+)", text)
    assert made is not None
    variables = dict(re.findall(r"^(?:ENV|   ) *([A-Z_]+)=(\S+?)(?: \\)?$", text, re.M))
    home = stranger.folder / "home"
    subprocess.run(
        ["install", "--directory", "--owner", made[1], "--group", made[2], "--mode", made[3], home], check=True
    )
    here = {
        key: value.replace(made[4], str(home)) for key, value in variables.items() if key.startswith(("FER_", "HO"))
    }
    assert here.keys() == {"HOME", "FER_STREAM_JOURNAL__PATH", "FER_STREAM_METRICS"}
    done = stranger.run("run", "portraits.avi", **settings, **here | {"FER_STREAM_METRICS": "127.0.0.1:0"})
    assert done.returncode == 0, done.stderr
    assert (home / "events.db").stat().st_uid == strangers.UID
