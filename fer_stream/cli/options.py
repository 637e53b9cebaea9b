"""The options that commands share: the flag, the help text, and the settings that each option sets."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_stream.cli.values import seconds
from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fer_stream.settings.tree import Loaded, Settings


class Option(NamedTuple):
    """One option. If it sets settings, its value is validated with the settings, like one from a file."""

    flag: str
    metavar: str | None
    help: str
    settings: tuple[str, ...] = ()
    how: dict[str, Any] = {}  # noqa: RUF012  (further arguments for argparse, never changed)


def _scan(text: str) -> float:
    try:
        return 0.0 if text == "every-frame" else seconds(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither every-frame nor a number of seconds above 0") from None


OPTIONS = (
    Option("--config", "FILE", "TOML file of settings; see `fer-stream config --template`", how={"type": Path}),
    Option("--labels", "LIST", "emotions, valence, or labels: happy,surprise,neutral", ("labels",)),
    Option(
        "--policy",
        "NAME",
        "drop_oldest: the freshest frame wins; wait: every frame, in order",
        ("policy", "cameras.*.policy"),
    ),
    Option("--workers", "N", "inference workers (default: one per CPU core)", ("workers",)),
    Option(
        "--min-face", "PX", "size in pixels of the smallest faces searched for (default: 40)", ("detector.min_face",)
    ),
    Option(
        "--scan",
        "S",
        "seconds between searches of the whole picture, or every-frame (default: 2)",
        ("search.scan_interval",),
        {"type": _scan},
    ),
    Option("--detector", "NAME", "detector plug-in (default: mtcnn)", ("detector.name",)),
    Option(
        "--model",
        "FILE",
        "ONNX classifier: a file, or one of the shipped emotion-tiny.onnx (takes less than half the time) and "
        "emotion.onnx (default: emotion-ferplus.onnx)",
        ("classifier.model",),
    ),
    Option(
        "--provider",
        "NAME",
        "what runs the models: cpu, cuda, openvino, coreml, ... (default: cpu)",
        ("detector.provider", "classifier.provider"),
    ),
    Option(
        "--batch",
        "N",
        "frames that a worker takes at a time (default: 8 on an accelerator, else 1)",
        ("batch",),
    ),
    Option("--rate", "FPS", "cap a live camera's rate, or force a file's pace", ("cameras.*.rate",)),
    Option(
        "--stream", "N", "which video stream of a file, from 0 (default: the file's own default)", ("cameras.*.stream",)
    ),
    Option(
        "--loop",
        None,
        "begin a file again at its end",
        ("cameras.*.loop",),
        {"action": "store_const", "const": True},
    ),
    Option(
        "--journal",
        "FILE",
        "the event log: a file (default: in the user's state directory), or nats://HOST:PORT",
        ("journal.path",),
    ),
    Option("--metrics", "HOST:PORT", "serve /metrics, /healthz and /readyz there", ("metrics",)),
    Option(
        "--sink",
        "NAME:ARG",
        "further sink, such as file:events.jsonl; may be repeated",
        ("sinks",),
        {"action": "append"},
    ),
    Option("--bind", "ADDRESS", "ipc://FOLDER or tcp://HOST:PORT to listen on", ("address",)),
    Option(
        "--connect",
        "ADDRESS",
        "the aggregator's address: ipc://FOLDER or tcp://HOST:PORT; several with commas",
        ("address",),
    ),
    Option("--key", "FILE", "this process's key, for an aggregator on another machine", ("key",)),
    Option("--keys", "FOLDER", "the aggregator's keys (default: in the user's configuration)", ("keys",)),
    Option("--machine", "NAME", "this machine's name in the cell (default: its host name)", ("fleet.machine",)),
    Option("--purpose", "NAME", "what this installation is for, such as research", ("deployment.purpose",)),
    Option("--page", "HOST:PORT", "where the live page is served (default: 127.0.0.1:8090)", ("live.bind",)),
    Option("--token-file", "FILE", "the token that the live page asks for", ("live.token_file",)),
    Option(
        "--show-faces",
        None,
        "show faces as they are, rather than blurred",
        ("live.show_faces",),
        {"action": "store_const", "const": True},
    ),
    Option("--least-faces", "N", "withhold rows about fewer faces (default: 1)", ("least_faces",)),
    Option("--log-level", "LEVEL", "debug, info, warning or error (default: info)", ("log_level",)),
    Option("--duration", "S", "end after this many seconds", how={"type": seconds}),
    Option("--summary", "FILE", "write a JSON summary: frame ledgers, events, times", how={"type": Path}),
    Option(
        "--format",
        None,
        "pretty: lines for people; jsonl: one JSON document per line (default: pretty)",
        how={"choices": ["pretty", "jsonl"], "default": "pretty"},
    ),
)

_FLAG = {"action": argparse.BooleanOptionalAction}

CAMERA_OPTIONS = (
    Option("--machine", "NAME", "in a cell: the machine that captures it, or * for any", ("machine",)),
    Option("--plugin", "NAME", "the source plug-in (default: derived from the source)", ("plugin",)),
    Option("--policy", "NAME", "drop_oldest: the freshest frame wins; wait: every frame, in order", ("policy",)),
    Option("--rate", "FPS", "cap a live camera's rate, or force a file's pace", ("rate",)),
    Option("--loop", None, "begin a file again at its end", ("loop",), _FLAG),
    Option("--masks", "JSON", "privacy masks: '[[0, 0, 0.25, 1]]' blanks the left quarter", ("masks",)),
    Option("--zones", "JSON", "zones: '{\"till\": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]}' is the left half", ("zones",)),
    Option("--lines", "JSON", 'lines: \'{"door": {"points": [[0.5, 0], [0.5, 1]]}}\' is a vertical one', ("lines",)),
    Option("--encoding", "NAME", "how frames are sent: auto, raw or jpeg", ("encoding",)),
    Option("--jpeg-quality", "N", "JPEG quality, from 1 to 100", ("jpeg_quality",)),
    Option("--max-width", "PX", "scale wider pictures down to this width", ("max_width",)),
    Option("--transfer-time", "S", "seconds that a frame may take to reach the aggregator", ("transfer_time",)),
    Option("--pixel-format", "NAME", "a webcam's pixel format, such as MJPG", ("format",)),
    Option("--size", "WxH", "a webcam's picture size, such as 1280x720", ("size",)),
    Option("--stream", "N", "which video stream of a file, from 0", ("stream",)),
    Option("--rtsp-transport", "NAME", "auto, tcp or udp", ("rtsp_transport",)),
    Option("--retry", None, "reopen a live source that fails", ("retry",), _FLAG),
    Option("--open-timeout", "S", "seconds that opening an address may take", ("open_timeout",)),
    Option("--read-timeout", "S", "seconds without a frame after which a stream counts as failed", ("read_timeout",)),
    Option("--decoder-threads", "N", "decoder threads", ("decoder_threads",)),
    Option("--hardware-decoding", None, "decode on the GPU", ("hardware_decoding",), _FLAG),
    Option("--start-time", "TIME", "the capture time of a file's first frame (RFC 3339)", ("start_time",)),
)
"""The options of all settings of one camera but its source; ``settings`` has the name in the camera's table."""

_CAMERA = "camera."
"""Begins the destinations of `CAMERA_OPTIONS`, some of whose flags are also in `OPTIONS`."""

MODEL_OPTIONS = (
    Option("--layout", "NAME", "the order of the input's axes: NCHW or NHWC"),
    Option("--channels", "NAME", "the order of the channels: grey, RGB or BGR"),
    Option("--size", "HxW", "height and width of a face in pixels, such as 224x224"),
    Option("--batch", "N", "the number of faces in each run, if it is fixed"),
    Option(
        "--pixels",
        "NAME",
        "the values of its pixels: bytes (0 to 255), unit (0 to 1), signed (-1 to 1), or imagenet (ImageNet's mean and "
        "standard deviation)",
    ),
    Option("--scale", "FACTOR", "in place of --pixels: the factor by which pixels are multiplied"),
    Option("--mean", "NUMBERS", "after --scale, what is subtracted: one number, or one for each channel, with commas"),
    Option("--std", "NUMBERS", "after --mean, the divisor: one number, or one for each channel, with commas"),
    Option("--labels", "LIST", "the labels, with commas, in the order of the columns; none if it has only measures"),
    Option("--labels-output", "NAME", "the output that has the labels"),
    Option("--values", "NAME", "what the labels' columns are: probabilities or logits"),
    Option("--columns", "FIRST:AFTER", "the labels' columns, from 0: the first, and the one after the last"),
    Option(
        "--measure",
        "NAME=COLUMN[,LEAST,GREATEST[,OUTPUT]]",
        "a number on a scale, such as valence=8,-1,1; may be repeated",
        how={"action": "append"},
    ),
    Option(
        "--crop",
        "CROP",
        "how a face is cropped: box, fer2013 (as the included models), arcface (aligned by five landmarks), or "
        "X,Y,SIDE in units of the detector's box",
    ),
    Option("--version", "TEXT", "name and version"),
    Option("--license", "TEXT", "the licence of the weights"),
    Option("--trained-on", "TEXT", "the faces on which it was trained"),
)
"""The options of ``fer-stream model adopt``: the answers that `fer_stream.inference.classifiers.adoption` takes."""

_MODEL = "model."
"""Begins the destinations of `MODEL_OPTIONS`."""

BY_FLAG = {option.flag: option for option in OPTIONS}


def _destination(option: Option) -> str:
    return option.flag.removeprefix("--").replace("-", "_")


def add_option(parser: argparse.ArgumentParser, flag: str) -> None:
    """Add the option with this flag to a command's parser."""
    option = BY_FLAG[flag]
    how: dict[str, Any] = {"metavar": option.metavar} if option.metavar else {}
    parser.add_argument(option.flag, dest=_destination(option), help=option.help, **how, **option.how)


def camera_arguments() -> tuple[tuple[tuple[str, ...], dict[str, Any]], ...]:
    """Return argparse's arguments for `CAMERA_OPTIONS`."""
    return tuple(
        (
            (option.flag,),
            {"dest": _CAMERA + option.settings[0], "help": option.help, "default": None}
            | ({"metavar": option.metavar} if option.metavar else {})
            | option.how,
        )
        for option in CAMERA_OPTIONS
    )


def camera_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the given `CAMERA_OPTIONS` by the name of the setting; they are not validated."""
    values = {name.removeprefix(_CAMERA): value for name, value in vars(arguments).items() if name.startswith(_CAMERA)}
    values = {name: value for name, value in values.items() if value is not None}
    for name in ("masks", "zones", "lines"):
        if name in values:
            with suppress(ValueError):  # the validation reports it
                values[name] = json.loads(values[name], object_pairs_hook=partial(_table, f"--{name}"))
    return values


def _table(flag: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; refuse equal names, of which Python would keep only the last."""
    if twice := {name for name, count in Counter(name for name, _ in pairs).items() if count > 1}:
        raise ConfigError(f"{flag} has the name {min(twice)} twice: rename one")
    return dict(pairs)


def model_arguments() -> tuple[tuple[tuple[str, ...], dict[str, Any]], ...]:
    """Return argparse's arguments for `MODEL_OPTIONS`."""
    return tuple(
        (
            (option.flag,),
            {
                "dest": _MODEL + option.flag.removeprefix("--"),
                "metavar": option.metavar,
                "help": f"adopt: {option.help}",
            }
            | option.how,
        )
        for option in MODEL_OPTIONS
    )


def model_answers(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the given `MODEL_OPTIONS` by name, as they were typed; repeated ones are joined by semicolons."""
    found = {name.removeprefix(_MODEL): value for name, value in vars(arguments).items() if name.startswith(_MODEL)}
    return {
        name: ";".join(value) if isinstance(value, list) else value
        for name, value in found.items()
        if value is not None
    }


def explain(arguments: argparse.Namespace, sources: Mapping[str, str] | None = None) -> Loaded:
    """Return the settings merged from a command's arguments, the environment and the settings file.

    Args:
        arguments: as parsed; an option that the command does not have, or that was not given, sets nothing.
        sources: cameras from the command line, by name.

    Raises:
        ConfigError: see `fer_stream.settings.tree.explain`.
    """
    from fer_stream.settings import tree  # noqa: PLC0415  (pydantic is slow to import, and --help comes through here)

    flags: dict[str, Any] = {}
    names: dict[str, str] = {}
    if sources:
        flags["cameras"] = {name: {"source": source} for name, source in sources.items()}
        names["cameras"] = "argument SOURCE"
    for option in OPTIONS:
        value = getattr(arguments, _destination(option), None)
        if value is not None:
            flags |= dict.fromkeys(option.settings, value)
            names |= dict.fromkeys(option.settings, f"flag {option.flag}")
    return tree.explain(flags, getattr(arguments, "config", None), names)


def begin(arguments: argparse.Namespace, role: str, sources: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this process, after setting its title and its logging.

    Raises:
        ConfigError: as `explain`.
    """
    from fer_stream.operations.logs import setup_logging  # noqa: PLC0415
    from fer_stream.operations.process import set_title  # noqa: PLC0415

    settings = explain(arguments, sources).settings
    set_title(role)
    setup_logging(settings.log_level, role)
    return settings


def await_service(settings: Settings) -> Settings:
    """Return settings with an address: the given one, or that of this user's running service. Waits for a service.

    Raises:
        ConfigError: several services run.
    """
    import logging  # noqa: PLC0415
    import time  # noqa: PLC0415

    from fer_stream.operations import instances  # noqa: PLC0415  (slow to import)

    if not instances.given(settings) and not instances.running():
        logging.getLogger(__name__).warning(
            "no service of yours runs on this machine yet: waiting for one; give another machine's with --connect"
        )
        while not instances.running():
            time.sleep(0.25)
    return settings.model_copy(update={"address": instances.find(settings)})
