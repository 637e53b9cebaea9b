"""The command `fer-stream cameras`: its options are all settings of a camera, and wrong use is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fer_stream.cli.main import parser
from fer_stream.cli.options import CAMERA_OPTIONS, camera_values
from fer_stream.settings import tree
from fer_stream.settings.tree import CameraSettings

if TYPE_CHECKING:
    from processes import Cli


def test_there_is_an_option_for_each_setting_of_a_camera() -> None:
    assert [option.settings[0] for option in CAMERA_OPTIONS] == [
        name for name in CameraSettings.model_fields if name != "source"
    ]


def test_options_set_what_they_name() -> None:
    words = (
        "cameras add door demo --machine kitchen --plugin demo --policy wait --rate 5 --loop --encoding raw "
        "--jpeg-quality 80 "
        "--max-width 640 --transfer-time 0.5 --pixel-format MJPG --size 1280x720 --stream 1 --rtsp-transport tcp "
        "--no-retry --open-timeout 3 --read-timeout 4 --decoder-threads 2 --hardware-decoding "
        "--start-time 2026-01-01T00:00:00Z"
    )
    places = {"masks": "[[0, 0, 0.25, 1]]", "zones": '{"till": [[0, 0], [1, 0], [0, 1]]}'}
    places["lines"] = '{"door": {"points": [[0.5, 0], [0.5, 1]]}}'
    values = camera_values(
        parser().parse_args([*words.split(), *(f"--{name}={text}" for name, text in places.items())])
    )
    assert values.keys() == CameraSettings.model_fields.keys() - {"source"}
    camera = tree.cameras({"door": values | {"source": "demo"}})["door"]
    assert (camera.rate, camera.loop, camera.retry, camera.format) == (5.0, True, False, "MJPG")
    assert camera.masks == [(0.0, 0.0, 0.25, 1.0)]
    assert camera.zones == {"till": [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]}
    assert camera.lines["door"].points == ((0.5, 0.0), (0.5, 1.0))
    assert camera_values(parser().parse_args(["cameras", "change", "door"])) == {}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("list door", "fer-stream cameras list takes no 'door': it is about all cameras"),
        ("reload door", "fer-stream cameras reload takes no 'door': it is about all cameras"),
        ("add", "which camera? fer-stream cameras add NAME SOURCE"),
        ("add door", "camera door has no source: fer-stream cameras add door SOURCE"),
        ("change", "which camera? fer-stream cameras change NAME"),
        ("remove", "which camera? fer-stream cameras remove NAME"),
        ("remove door --rate 5", "fer-stream cameras remove takes no --rate"),
        ("remove door demo", "fer-stream cameras remove takes no demo"),
        ("add door demo --unset rate", "fer-stream cameras add takes no --unset"),
        ("list --pixel-format MJPG", "fer-stream cameras list takes no --pixel-format"),
        ("list --config nowhere.toml", "there is no settings file nowhere.toml"),
    ],
)
def test_wrong_use_is_told(arguments: str, sentence: str, cli: Cli) -> None:
    process = cli.run("cameras", *arguments.split())
    assert process.popen.returncode == 2
    (error,) = process.errors
    assert sentence in error


def test_whom_it_cannot_find(cli: Cli, short_folder: str) -> None:
    nobody = cli.run("cameras", "list")
    assert nobody.popen.returncode == 1
    assert "no service of yours runs on this machine" in nobody.errors[0]
    elsewhere = cli.run("cameras", "list", "--connect", "tcp://192.0.2.1:5550")
    assert elsewhere.popen.returncode == 1
    assert "its cameras are changed on its own machine, by the user who runs it" in elsewhere.errors[0]
    address = f"ipc://{short_folder}"
    cli.start("aggregator", "--bind", address, "--journal", "events.db").until_said("ready")
    for more in ((), ("--connect", address)):
        alone = cli.run("cameras", "list", *more)
        assert alone.popen.returncode == 1
        assert (
            f"the service at {address} is no `fer-stream run`: start and stop its captures one by one"
            in (alone.errors[0])
        )


def test_one_of_several_services_is_chosen_by_its_address(cli: Cli, short_folder: str) -> None:
    for name in "ab":
        process = cli.start(
            *("run", f"{name}=demo", "--loop", "--workers", 1, "--format", "jsonl", "--journal", f"{name}.db"),
            *("--bind", f"ipc://{short_folder}/{name}"),
        )
        process.until_event("camera.online")
    several = cli.run("cameras", "list")
    assert several.popen.returncode == 2
    assert "2 services of yours run here" in several.errors[0]
    cli.run("cameras", "add", "c", "demo", "--connect", f"ipc://{short_folder}/b")
    assert "cameras b, c; process" in cli.run("cameras", "list").errors[0], "the list of services follows"
    listed = cli.run("cameras", "list", "--connect", f"ipc://{short_folder}/b", "--format", "jsonl")
    assert [camera["camera"] for camera in listed.events] == ["b", "c"]
