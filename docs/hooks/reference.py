"""Generates the reference from the code: settings, command line, events and metrics, each as Markdown."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from prometheus_client.metrics import MetricWrapperBase

from fer_stream.analysis.columns import Columns, Layout, PictureLayout
from fer_stream.analysis.tables import OPENFACE, TableFiles
from fer_stream.cli import main
from fer_stream.cli.commands import COMMANDS
from fer_stream.cli.options import OPTIONS
from fer_stream.events import schema
from fer_stream.events.cloudevents import DATA
from fer_stream.inference.classifiers.contract import Contract
from fer_stream.operations import metrics
from fer_stream.settings.schema import allowed, dotted, leaves, schema_at, template, toml
from fer_stream.settings.tree import Settings
from fer_stream.types import EventType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a bar in a cell is escaped, a line end becomes a space."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", r"\|").split()) for cell in row) + " |" for row in lines
    )


def code(text: str) -> str:
    """Return text as inline code; empty text stays empty."""
    return f"`{text}`" if text else ""


# Tables --------------------------------------------------------------------------------------------------------------


def tables() -> str:
    """Return a table of the columns of each table that `fer-stream analyze` writes."""
    film, album = Layout(["LABEL"], ["LABEL"], ["MEASURE"]), PictureLayout(["LABEL"], ["MEASURE"])
    found = {
        "faces": film.faces,
        "events": film.events,
        "frames": film.frames,
        OPENFACE: film.openface,
        "faces, of pictures": album.faces,
        "frames, of pictures": album.frames,
    }
    return "\n".join(f"\n## {title}\n\n{_files(title)}\n\n{_columns(columns)}" for title, columns in found.items())


def _files(title: str) -> str:
    return " and ".join(map(code, TableFiles.names([title.partition(",")[0]]))) + "."


def _columns(columns: Columns) -> str:
    kinds = {bool: "truth value", int: "whole number", float: "number", str: "text"}
    return table(
        ("column", "type", "meaning"), ((code(name), kinds[kind], meaning) for name, (kind, meaning) in columns.items())
    )


# Settings ------------------------------------------------------------------------------------------------------------


def settings() -> str:
    """Return a table of settings for each section, and the template that `fer-stream config --template` prints."""
    root = Settings.model_json_schema()
    defaults = Settings.model_construct().model_dump(mode="json")
    groups: dict[str, list[tuple[str, ...]]] = {}
    for path in leaves(root):
        groups.setdefault(path[0] if len(path) > 1 else "", []).append(path)
    flags: dict[str, list[str]] = {}
    for option in OPTIONS:
        for name in option.settings:
            flags.setdefault(name.replace("*", "NAME"), []).append(option.flag)
    text = ""
    for group, paths in groups.items():
        text += f"\n## {group or 'General'}\n\n"
        about = "One table a camera; `NAME` is the camera's." if group == "cameras" else ""
        if group:
            text += (about or schema_at(root, (group,)).get("description", "")) + "\n\n"
        text += table(
            ("setting", "allowed", "default", "meaning", "option"),
            (_setting(root, defaults, path, flags) for path in paths),
        )
        text += "\n"
    head = "\n## As a file\n\nWhat `fer-stream config --template` prints, on a machine of four cores.\n\n"
    example = template(root, _on_some_machine(defaults))
    return f'{text}{head}```toml title="cameras.toml"\n{example}```\n'


def _on_some_machine(defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults without values that depend on this machine, so that the page is the same on every machine."""
    journal = defaults["journal"] | {"path": "~/.local/state/fer_stream/events.db"}
    return defaults | {"workers": 4, "address": "ipc:///run/user/1000/fer_stream", "journal": journal}


def _setting(
    root: dict[str, Any], defaults: Any, path: tuple[str, ...], flags: dict[str, list[str]]
) -> tuple[str, ...]:
    found, value = schema_at(root, path), defaults
    if "NAME" in path:
        value = found.get("default")
    else:
        for key in path:
            value = value[key] if isinstance(value, dict) else getattr(value, key)
    if "default_factory" in _field(path):
        value = _field(path)["default_factory"]
    shown = (
        "not set" if value in (None, [], {}) else code(toml(value)) if not isinstance(value, _Computed) else str(value)
    )
    name = dotted(path)
    return (
        f'<span id="{name}"></span>`{name}`',
        allowed(found).replace("'", "`"),
        shown,
        found.get("description", ""),
        ", ".join(map(code, flags.get(name, []))),
    )


class _Computed(str):
    """Return a description of a default that depends on the machine."""

    __slots__ = ()


_MACHINE = {
    "workers": _Computed("one a CPU core"),
    "address": _Computed("`ipc://` and a folder of the user's session"),
    "journal.path": _Computed("`fer_stream/events.db` in the user's state folder"),
}


def _field(path: tuple[str, ...]) -> dict[str, Any]:
    name = dotted(path)
    return {"default_factory": _MACHINE[name]} if name in _MACHINE else {}


def sidecar() -> str:
    """Return a table of what can be said in a model's sidecar."""
    root = Contract.model_json_schema()
    rows = []
    for path in leaves(root):
        found = schema_at(root, path)
        default = toml(found["default"]) if found.get("default") is not None else ""
        rows.append((code(dotted(path)), allowed(found), code(default), found.get("description", "")))
    return table(("entry", "allowed", "default", "meaning"), rows)


# Command line --------------------------------------------------------------------------------------------------------


def command_line() -> str:
    """Return a section for each command: usage, arguments, example."""
    os.environ["COLUMNS"] = "100"  # argparse breaks lines at the terminal's width
    top = main.parser()
    (commands,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    text = table(("command", "does"), ((f"[`fer-stream {c.name}`](#{c.name})", c.summary) for c in COMMANDS))
    for command in COMMANDS:
        parser = commands.choices[command.name]
        summary = f"{command.summary[0].upper()}{command.summary[1:]}."
        usage = parser.format_usage().removeprefix("usage: ").rstrip()
        text += f"\n\n## {command.name}\n\n{summary}\n\n```text\n{usage}\n```\n\n"
        rows = [(_argument(action), action.help or "") for action in parser._actions]
        text += table(("argument", "meaning"), rows)
        text += f"\n\nExample:\n\n```bash\n{command.example}\n```\n"
    return text


def _argument(action: argparse.Action) -> str:
    value = "|".join(map(str, action.choices)) if action.choices else str(action.metavar or "")
    if not action.option_strings:
        return code(value)
    return ", ".join(code(f"{flag} {value}".strip()) for flag in action.option_strings)


# Events --------------------------------------------------------------------------------------------------------------

_WORDS = {"integer": "whole number", "number": "number", "string": "text", "array": "list", "object": "object"}


def events() -> str:
    """Return the fields of all events, and the data of each event type."""
    found = schema.event_schema()
    text = "## What all events have\n\n"
    rows = [(code(name), _type(part), part.get("description", "")) for name, part in found["properties"].items()]
    rows += [
        ("`type`", "text", "One of those below."),
        ("`source`", "text", "`/cameras/` and the camera's name."),
        ("`subject`", "text", "`tracks/` and the track's number, where the event is about a face."),
        ("`data`", "object", "What happened, by type: below."),
    ]
    text += table(("key", "type", "meaning"), rows)
    text += "\n\n## Types\n\n"
    text += table(
        ("type", "data"),
        ((f"`{kind}`", f"[{DATA[kind].__name__}](#{DATA[kind].__name__.lower()})") for kind in EventType),
    )
    for name, part in found["$defs"].items():
        text += f"\n\n### {name}\n\n{part['description']}\n\n"
        text += table(
            ("key", "type", "meaning"),
            (
                (code(key), _type(value), _inner(value).get("description", ""))
                for key, value in part["properties"].items()
            ),
        )
    return text + "\n"


def _inner(part: dict[str, Any]) -> dict[str, Any]:
    inner: dict[str, Any] = part["anyOf"][0] if "anyOf" in part else part
    return inner


def _type(part: dict[str, Any]) -> str:
    if "anyOf" in part:
        return f"{_type(part['anyOf'][0])}, or `null`"
    if "const" in part:
        return code(json.dumps(part["const"]))
    word = _WORDS[part["type"]]
    if part.get("format") == "date-time":
        return "time (RFC 3339, microseconds)"
    if part["type"] == "array":
        return f"list of {part['minItems']} numbers"
    if part["type"] == "object" and "properties" in part:
        return "object of " + ", ".join(code(key) for key in part["properties"])
    if part["type"] == "object":
        return f"object of {_type(part['additionalProperties'])} by name"
    if part.get("maximum") == 1:
        return "number, 0 to 1"
    return word


# Metrics -------------------------------------------------------------------------------------------------------------


def collectors() -> list[MetricWrapperBase]:
    """Return the metrics of `fer_stream.operations.metrics`, in the order of their definition."""
    return [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]


def metrics_table() -> str:
    """Return a table of all metrics."""
    rows = []
    for collector in collectors():
        (family,) = collector.describe()
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(code(label) for label in collector._labelnames)
        rows.append((f'<span id="{name}"></span>`{name}`', family.type, labels, family.documentation))
    return table(("metric", "type", "labels", "meaning"), rows) + "\n"
