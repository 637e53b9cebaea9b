"""The commands of ``fer-stream``: a table of their functions, options and help texts."""

from __future__ import annotations

from typing import Any, NamedTuple

from fer_stream.cli import values
from fer_stream.cli.agree_options import agree_arguments
from fer_stream.cli.annotation_options import annotation_arguments
from fer_stream.cli.options import camera_arguments, model_arguments

COMMON = ("--config", "--log-level")
CAMERA = ("--policy", "--rate", "--stream", "--loop")
MODELS = ("--detector", "--min-face", "--model", "--provider")
EVENTS = ("--labels", "--journal")
LIVE = ("--page", "--token-file", "--show-faces")


class Command(NamedTuple):
    """One command: ``function`` is ``module:name`` in `fer_stream.cli`, ``own`` are the arguments that only it has.

    A command that is ``endless`` runs until it is told to end: an interruption is success. For any other command, and
    with one of the arguments ``ending``, an interruption is a failure.
    """

    name: str
    function: str
    summary: str
    example: str
    options: tuple[str, ...] = ()
    own: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = ()
    endless: bool = False
    ending: tuple[str, ...] = ()


def _argument(*names: str, **how: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return names, how


COMMANDS = (
    Command(
        "run",
        "pipeline:run",
        "run everything on this machine and print events: captures, workers, aggregator",
        "fer-stream run door=rtsp://192.0.2.10/stream --workers 2",
        (
            *CAMERA,
            "--workers",
            *MODELS,
            "--batch",
            "--scan",
            *EVENTS,
            "--duration",
            "--format",
            "--sink",
            "--summary",
            "--metrics",
            "--bind",
            "--keys",
            "--purpose",
            *LIVE,
            *COMMON,
        ),
        (
            _argument("--live", action="store_true", help="also serve the live page, as `fer-stream live` does"),
            _argument(
                "sources",
                metavar="[NAME=]SOURCE",
                nargs="*",
                help="webcam index, video file, image folder, rtsp:// or http:// address (default: the cameras of the "
                "settings file, or else the demo); cameras that were added at run time come in any case",
            ),
        ),
        endless=True,
    ),
    Command(
        "capture",
        "pipeline:capture",
        "run one camera's process",
        "fer-stream capture rtsp://192.0.2.10/stream --camera door --connect tcp://10.0.0.1:7000",
        (*CAMERA, "--metrics", "--connect", "--key", *COMMON),
        (
            _argument("source", metavar="SOURCE", nargs="?", help="as for run (default: the source in the settings)"),
            _argument("--camera", metavar="NAME", help="the camera's name (default: the file's, or camera-1)"),
        ),
        endless=True,
    ),
    Command(
        "worker",
        "pipeline:worker",
        "run one inference worker",
        "fer-stream worker --name 2 --connect tcp://10.0.0.1:7000",
        (*MODELS, "--batch", "--metrics", "--connect", "--key", *COMMON),
        (_argument("--name", metavar="NAME", help="its name in logs and status (default: a unique name)"),),
        endless=True,
    ),
    Command(
        "aggregator",
        "pipeline:aggregator",
        "dispatch frames, track and smooth, keep the journal, publish events",
        "fer-stream aggregator --bind tcp://127.0.0.1:7000 --journal events.db",
        ("--scan", *EVENTS, "--metrics", "--bind", "--keys", "--purpose", *COMMON),
        endless=True,
    ),
    Command(
        "node",
        "node:node",
        "capture this machine's share of a cell's cameras; optionally run an aggregator and workers, too",
        "fer-stream node --config cell.toml --bind tcp://10.0.0.1:7000 --workers 2",
        ("--machine", "--metrics", "--connect", "--key", "--keys", "--journal", "--purpose", *COMMON),
        (
            _argument(
                "--bind",
                dest="own_aggregator",
                metavar="ADDRESS",
                help="also run an aggregator of the cell on this machine, which listens there",
            ),
            _argument(
                "--workers",
                dest="own_workers",
                metavar="N",
                type=values.count,
                default=0,
                help="also run so many inference workers on this machine (default: 0)",
            ),
        ),
        endless=True,
    ),
    Command(
        "live",
        "pipeline:live",
        "serve a page that shows what a running aggregator sees; faces are blurred",
        "fer-stream live --page 127.0.0.1:8090",
        (*LIVE, "--metrics", "--connect", "--key", "--purpose", *COMMON),
        endless=True,
    ),
    Command(
        "subscribe",
        "reading:subscribe",
        "print the events of a running aggregator, or of a journal",
        "fer-stream subscribe --camera door --type emotion.started --from 0 --format jsonl",
        ("--format", "--connect", "--key", *COMMON),
        (
            _argument("--camera", metavar="NAME", help="only this camera's"),
            _argument(
                "--type",
                metavar="TYPE",
                action="append",
                help="only of this type, such as face.entered, or of a family, such as emotion; may be repeated",
            ),
            _argument(
                "--from",
                dest="after",
                metavar="CURSOR",
                type=values.cursor,
                help="begin after the event with this cursor; 0 is the beginning (default: from now on)",
            ),
            _argument("--until-now", action="store_true", help="end with the latest event, instead of following"),
            _argument(
                "--timeout",
                metavar="SECONDS",
                type=values.seconds,
                help="fail if no aggregator answers within this time (default: 10 with --until-now, otherwise wait "
                "without limit)",
            ),
            _argument(
                "--journal",
                dest="journal_file",
                metavar="FILE",
                help="read this journal, a file or nats://HOST:PORT, from the cursor (default: 0) to its end; no "
                "aggregator is needed",
            ),
        ),
        endless=True,
        ending=("until_now", "journal_file"),
    ),
    Command(
        "deliver",
        "deliver:deliver",
        "deliver events to files, brokers, databases and others, each at least once; or show and change the progress",
        "fer-stream deliver --sink file:events.jsonl --sink nats://127.0.0.1:4222",
        ("--format", "--metrics", "--connect", "--key", *COMMON),
        (
            _argument(
                "action",
                choices=["status", "retry", "skip", "discard", "forget"],
                nargs="?",
                help="status: show all sinks, or one sink's dead letters; retry: send dead letters again, and try now "
                "what waits, also if the sink has stopped; skip: turn the batch at which a sink waits into dead "
                "letters; discard: delete dead letters; forget: delete what is recorded of a sink that is no longer "
                "served (default: deliver)",
            ),
            _argument("receiver", metavar="SINK", nargs="?", help="the sink's name, as status shows it"),
            _argument("event", metavar="ID", nargs="?", help="only the event with this id"),
            _argument(
                "--sink",
                dest="further",
                metavar="NAME:ARG",
                action="append",
                default=[],
                help="a sink besides those in the settings, such as file:events.jsonl; may be repeated",
            ),
            _argument(
                "--journal",
                dest="journal_file",
                metavar="FILE",
                help="follow this journal, a file or nats://HOST:PORT; no aggregator is needed",
            ),
            _argument(
                "--from",
                dest="after",
                metavar="CURSOR",
                type=values.cursor,
                help="begin new sinks after the event with this cursor, instead of with the next event",
            ),
        ),
        endless=True,
        ending=("action",),
    ),
    Command(
        "stats",
        "stats:stats",
        "print for how long each apparent expression was seen, computed from a journal or from analysed films",
        "fer-stream stats --every 5m --from 2026-01-31T08:00:00Z --to 2026-01-31T18:00:00Z --format csv",
        ("--journal", "--least-faces", *COMMON),
        (
            _argument(
                "--every",
                metavar="TIME",
                type=values.duration,
                help="a row for each part of the period, such as 5m or 1h",
            ),
            _argument(
                "--from",
                dest="since",
                metavar="TIME",
                type=values.moment,
                help="the period's beginning, or its age, such as 12h (default: the first event)",
            ),
            _argument(
                "--to",
                metavar="TIME",
                type=values.moment,
                help="the period's end, exclusive (default: the latest event)",
            ),
            _argument("--camera", metavar="NAME", help="only this camera"),
            _argument(
                "--events",
                metavar="PATH",
                nargs="+",
                help="read folders that `fer-stream analyze` has written, or files of events, in place of the journal: "
                "rows for each film",
            ),
            _argument(
                "--markers",
                metavar="FILE",
                help="rows for each trial in this file: CSV with start, end and name, or BIDS events; times are "
                "seconds from the film's beginning, or for a journal from --from",
            ),
            _argument(
                "--group",
                choices=["camera", "track", "zone", "line"],
                default="camera",
                help="what a row is about: a camera, a track, a zone, or a direction of a line (default: camera)",
            ),
            _argument(
                "--by",
                choices=["label", "valence"],
                default="label",
                help="group the times by label, or by valence as the settings say (default: label)",
            ),
            _argument(
                "--format",
                choices=["pretty", "csv", "jsonl"],
                default="pretty",
                help="pretty: a table for people; csv: one with all columns; jsonl: one JSON object per line (default: "
                "pretty)",
            ),
        ),
    ),
    Command(
        "analyze",
        "analyze:analyze",
        "make tables, events, plots and a report of recordings, as fast as this machine can; after an interruption, "
        "the same command continues",
        "fer-stream analyze talk.mp4 --output talk --video",
        ("--labels", "--stream", "--workers", *MODELS, "--scan", *COMMON),
        (
            _argument("sources", metavar="RECORDING", nargs="+", help="a video, an image, or a folder of either"),
            _argument(
                "-o",
                "--output",
                metavar="FOLDER",
                required=True,
                help="where to write; each of several recordings gets a subfolder, and this folder the tables of all",
            ),
            _argument("--pictures", action="store_true", help="a folder's images are unrelated: make no tracks"),
            _argument("--video", action="store_true", help="also write the video with faces and labels drawn in"),
            _argument("--show-faces", action="store_true", help="do not blur the faces in the video"),
            _argument(
                "--export",
                metavar="KINDS",
                help="also write the intervals for other programs: one or more of eaf (ELAN), boris, bids (events.tsv) "
                "and vtt (subtitles), separated by commas",
            ),
            _argument(
                "--markers",
                metavar="FILE",
                help="a table of trials (start, end, name, film), or a BIDS events file: the tables get a column trial",
            ),
            _argument(
                "--force",
                action="store_true",
                help="repeat what is done, and overwrite files that analyze did not write",
            ),
        ),
    ),
    Command(
        "agree",
        "agree:agree",
        "compare the labels of fer-stream with those of coders: kappa, alpha, F1, onset errors",
        "fer-stream agree talk anna.eaf ben.csv --map joy=happy --output agreement",
        COMMON,
        agree_arguments(),
    ),
    Command(
        "annotations",
        "annotations:carry_out",
        "add an annotation of a label, such as that it is wrong, or list the annotations",
        "fer-stream annotations list --from 7d --format csv",
        ("--connect", "--key", "--journal", *COMMON),
        annotation_arguments(),
    ),
    Command(
        "recognize",
        "reading:recognize",
        "find the faces in images and their apparent expressions: one JSON line per image",
        "fer-stream recognize portrait.jpg --min-face 20",
        (*MODELS, *COMMON),
        (_argument("images", metavar="IMAGE", nargs="+", help="an image file"),),
    ),
    Command(
        "config",
        "install:config",
        "print the effective settings and where each came from, as TOML without passwords",
        "fer-stream config --template > cameras.toml",
        (*CAMERA, "--workers", *MODELS, "--scan", *EVENTS, "--sink", "--metrics", "--bind", "--purpose", *COMMON),
        (_argument("--template", action="store_true", help="print a commented file of all settings instead"),),
    ),
    Command(
        "purge",
        "reading:purge",
        "delete old events from the journal, and old dead letters, also while others use them",
        "fer-stream purge --older-than 7d",
        ("--journal", *COMMON),
        (
            _argument(
                "--older-than",
                metavar="AGE",
                type=values.age,
                required=True,
                help="such as 30d, 12h, or 0s for all events",
            ),
        ),
    ),
    Command(
        "migrate",
        "migrate:migrate",
        "continue the numbering of an SQLite journal in a new NATS journal",
        "fer-stream migrate events.db --journal tls://n1.example.org,n2.example.org,n3.example.org",
        ("--journal", *COMMON),
        (_argument("old", metavar="FILE", help="the SQLite file, which no aggregator uses any more"),),
    ),
    Command(
        "schema",
        "install:schema",
        "print the JSON Schema of every event",
        "fer-stream schema > event.schema.json",
        (),
        (
            _argument("--asyncapi", action="store_true", help="print an AsyncAPI document of the event link instead"),
            _argument("--openapi", action="store_true", help="print an OpenAPI document of the HTTP API instead"),
        ),
    ),
    Command(
        "status",
        "reading:status",
        "show what a running aggregator sees: cameras, workers, ledger, open emotions",
        "fer-stream status --format jsonl",
        ("--format", "--connect", "--key", *COMMON),
        (
            _argument(
                "--timeout",
                metavar="SECONDS",
                type=values.seconds,
                default=3.0,
                help="fail if no aggregator answers within this time (default: 3)",
            ),
        ),
    ),
    Command(
        "cameras",
        "cameras:cameras",
        "list, add, change and remove the cameras of a running service",
        "fer-stream cameras add door rtsp://user:file:/home/me/door.password@192.0.2.10/stream --rate 10",
        ("--format", "--connect", *COMMON),
        (
            _argument("action", choices=["list", "add", "change", "remove", "reload"], help="what to do"),
            _argument("name", metavar="NAME", nargs="?", help="the camera's name"),
            _argument("source", metavar="SOURCE", nargs="?", help="as for run; a password is given as a reference"),
            *camera_arguments(),
            _argument(
                "--unset",
                metavar="SETTING",
                action="append",
                default=[],
                help="change: give this setting its default again; may be repeated",
            ),
            _argument(
                "--timeout",
                metavar="SECONDS",
                type=values.seconds,
                default=15.0,
                help="how long to wait until the camera is online, or gone (default: 15)",
            ),
        ),
    ),
    Command(
        "doctor",
        "install:doctor",
        "check install, models, sources, sinks and ports, and say what to do about each finding",
        "fer-stream doctor --config cameras.toml",
        (*MODELS, "--workers", "--journal", "--metrics", "--bind", *COMMON),
    ),
    Command(
        "model",
        "model:model",
        "check whether a model of your own can be used, write its sidecar, or measure its cost",
        "fer-stream model adopt mine.onnx --channels RGB --pixels imagenet --labels happy,other --crop box",
        ("--provider", *COMMON),
        (
            _argument(
                "action",
                choices=["check", "adopt", "bench"],
                help="check: show how fer-stream understands the model, or all that is missing or wrong; adopt: find "
                "out or ask for what the file does not say, and write it into a file beside the model, the sidecar; "
                "bench: compare its cost with that of the included model",
            ),
            _argument("file", metavar="FILE", help="an ONNX file"),
            _argument(
                "-o", "--output", metavar="FILE", help="adopt: the file to write (default: FILE with the suffix .toml)"
            ),
            _argument("--force", action="store_true", help="adopt: overwrite an existing one"),
            *model_arguments(),
        ),
    ),
    Command(
        "keys",
        "keys:keys",
        "make, allow, list and revoke the keys of processes on other machines",
        "fer-stream keys new door --role capture",
        ("--keys", *COMMON),
        (
            _argument("action", choices=["new", "allow", "list", "revoke"], help="what to do"),
            _argument("name", metavar="NAME", nargs="?", help="the key's name"),
            _argument(
                "--role",
                metavar="ROLE",
                help="what it may do: capture, worker, node (both, for any camera), client, live (sees pictures), "
                "annotator (sends annotations under the key's name), or all",
            ),
            _argument(
                "--camera",
                metavar="NAME",
                action="append",
                default=[],
                help="a camera that a capture with this key may send, or * for any (default: the key's name); may be "
                "repeated",
            ),
            _argument("--public", metavar="KEY", help="allow: the public half of a key that was made elsewhere"),
        ),
    ),
    Command(
        "version",
        "install:version",
        "print the version, and the models with their digests",
        "fer-stream version --model mine.onnx",
        ("--model", *COMMON),
    ),
)
