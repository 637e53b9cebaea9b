"""Generates the reference of the Python interface from its signatures and docstrings, which are in Google's style."""

from __future__ import annotations

import re
import textwrap
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import griffe
from reference import code, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]

GROUPS: dict[str, tuple[str, ...]] = {
    "events": ("subscribe", "Subscription", "read_journal", "status"),
    "pictures": ("recognize", "Recognizer", "analyze", "Tables"),
    "settings": ("settings.tree.load",),
    "values": (
        "Event",
        "EventType",
        "Box",
        "Face",
        "Probabilities",
        "Measure",
        "Measures",
        "Estimate",
        "Track",
        "Frame",
        "Picture",
        "Jpeg",
        "Yuv",
    ),
    "errors": (
        *("FerStreamError", "ConfigError", "SourceError", "ModelError", "PluginError", "TransportError", "WireError"),
        *("AnnotationError", "JournalError", "AnalysisWarning"),
    ),
    "plugins": (
        *(
            "plugins.Source",
            "plugins.AllocatingSource",
            "plugins.DamageCountingSource",
            "plugins.Detector",
            "plugins.FollowingDetector",
        ),
        *(
            "plugins.Classifier",
            "plugins.MeasuringClassifier",
            "plugins.BatchSink",
            "plugins.CheckableSink",
            "plugins.FollowingSink",
            "plugins.Delivery",
            "plugins.Sink",
            "plugins.Transport",
        ),
        *("plugins.Journal", "plugins.JournalReader", "plugins.JournalWriter"),
        *("plugins.Hub", "plugins.Peer", "plugins.ConnectionState"),
        *("errors.DeliveryError", "errors.RetryError", "errors.RejectedError", "errors.FatalError"),
    ),
}
"""The names on the page, by section."""


@cache
def _package() -> griffe.Object:
    found = griffe.load("fer_stream", search_paths=[ROOT], docstring_parser="google", resolve_aliases=True)
    if not isinstance(found, griffe.Object):
        raise TypeError("fer_stream is no package")
    return found


def section(group: str) -> str:
    """Return the Markdown of a group."""
    return "\n\n".join("\n\n".join(_described(f"fer_stream.{name}", _find(name))) for name in GROUPS[group])


def _find(name: str) -> griffe.Object:
    found = _package()[name]
    return found.final_target if isinstance(found, griffe.Alias) else found


def _described(name: str, found: griffe.Object) -> Iterator[str]:
    yield f'<a id="{name}"></a>'
    yield f"### {name.removeprefix('fer_stream.')}"
    if isinstance(found, griffe.Class):
        yield from _class(name, found)
    else:
        yield from _function(name, found)


def _class(name: str, found: griffe.Class) -> Iterator[str]:
    bases = ", ".join(map(str, found.bases))
    yield fenced(f"class {name}{f'({bases})' if bases else ''}")
    yield from _docstring(found)
    constructor = found.members.get("__init__")
    if isinstance(constructor, griffe.Function) and "Protocol" not in bases:
        yield from _function(name, constructor)
    rows = [
        (code(member.name), code(str(member.annotation or member.value or "")), _text(member))
        for member in found.members.values()
        if isinstance(member, griffe.Attribute) and member.is_public and "property" not in member.labels
    ]
    if rows:
        yield table(("attribute", "type", "meaning"), rows)
    for member in found.members.values():
        if isinstance(member, griffe.Attribute) and "property" in member.labels and member.is_public:
            yield f"#### {found.name}.{member.name}"
            yield fenced(f"{member.name}: {member.annotation}")
            yield from _docstring(member)
        elif isinstance(member, griffe.Function) and member.name[0] != "_":
            yield f"#### {found.name}.{member.name}"
            yield from _function(member.name, member)


def _function(name: str, found: griffe.Object) -> Iterator[str]:
    if isinstance(found, griffe.Function):
        yield fenced(_signature(name, found))
    yield from _docstring(found)


def _signature(name: str, found: griffe.Function) -> str:
    parts: list[str] = []
    starred = False
    for parameter in found.parameters:
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is griffe.ParameterKind.keyword_only and not starred:
            parts, starred = [*parts, "*"], True
        stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(
            parameter.kind, ""
        )
        annotation = f": {parameter.annotation}" if parameter.annotation else ""
        default = f" = {parameter.default}" if parameter.default is not None and not stars else ""
        parts.append(f"{stars}{parameter.name}{annotation}{default}")
    returned = f" -> {found.returns}" if found.returns and found.name != "__init__" else ""
    line = f"{name}({', '.join(parts)}){returned}"
    return line if len(line) <= 100 else f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returned}"


def _docstring(found: griffe.Object) -> Iterator[str]:
    if found.docstring is None:
        return
    for part in found.docstring.parsed:
        if isinstance(part, griffe.DocstringSectionText):
            yield _markdown(part.value)
        elif isinstance(part, griffe.DocstringSectionParameters):
            yield table(("argument", "meaning"), ((code(it.name), _markdown(it.description)) for it in part.value))
        elif isinstance(part, griffe.DocstringSectionRaises):
            yield table(
                ("raises", "when"), ((code(str(it.annotation)), _markdown(it.description)) for it in part.value)
            )
        elif isinstance(part, griffe.DocstringSectionReturns):
            yield "Returns: " + " ".join(_markdown(it.description) for it in part.value)
        else:
            raise ValueError(f"{found.path}: a docstring with a section that this does not know: {part.kind}")


def _text(found: griffe.Object) -> str:
    return "\n\n".join(_docstring(found))


def _markdown(text: str) -> str:
    """Return a docstring's text as Markdown: an indented block after ``::`` is Python."""
    parts = re.split(r"::\n\n((?: {4}.*(?:\n|$)|\n)+)", text)
    for number, part in enumerate(parts):
        if number % 2:
            parts[number] = fenced(textwrap.dedent(part).strip())
        elif number + 1 < len(parts):
            before = part.rstrip()
            parts[number] = f"{before}:\n\n" if before and not part.endswith("\n") else f"{before}\n\n"
    return "\n".join(parts).strip()


def fenced(text: str) -> str:
    """Return a code block that tests do not run; they run blocks with the language ``python``."""
    return f"```py\n{text}\n```"


PARTS: dict[str, Callable[[], str]] = {f"python-{group}": partial(section, group) for group in GROUPS}
"""What stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``."""
