"""The kinds of values of settings, each with its check. A check's error message is shown after the setting's name."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from fer_stream.settings import origins
from fer_stream.settings.outlines import polygon
from fer_stream.system import folders
from fer_stream.types import EventType

_Value = TypeVar("_Value")

MAX_BATCH = 64
"""Maximum number of frames that a worker takes at a time."""

MOST_PLACES = 32
"""Most zones of a camera, most lines, and most points of a zone: the event that tells them stays small."""

CAMERA_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"

MACHINE = CAMERA_NAME
"""The pattern of a machine's name in a cell."""

YEARS = range(1700, 2201)
"""Permitted years. Their times in nanoseconds since 1970 fit into 64 bits, with a reserve."""


def host_port(text: str) -> tuple[str, int]:
    """Return the host and port of ``HOST:PORT`` or ``[IPV6]:PORT``.

    Raises:
        ValueError: it is neither.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        name = host.encode("idna")  # as a DNS query will encode it
    except UnicodeError:
        name = b""
    if not name or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:9108")
    return host, int(port)


def _host_port(text: str) -> str:
    host_port(text)
    return text


def _labels(text: str) -> str:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ValueError("must be emotions, valence, or labels separated by commas, such as happy,neutral")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"names {twice[0]} twice")
    if len(names) > 1 and (whole := {"emotions", "valence"} & set(names)):
        raise ValueError(f"{whole.pop()} is a whole label set and cannot be combined with labels")
    return text


def addresses(text: str) -> tuple[str, ...]:
    """Return the addresses in a list of them, separated by commas. A comma in a folder's name does not separate."""
    return tuple(re.split(rf",(?={_SCHEME})", text))


_SCHEME = "[a-z][a-z0-9+.-]*://"


def _address(text: str) -> str:
    several = addresses(text)
    if not all(re.match(rf"(?!tcp:.*,){_SCHEME}.", each) for each in several):
        raise ValueError("must be ipc://FOLDER or tcp://HOST:PORT, or several of them with commas between them")
    if twice := sorted({each for each in several if several.count(each) > 1}):
        raise ValueError(f"names {twice[0]} twice")
    return text


def _sink(text: str) -> str:
    if not text.partition(":")[0]:
        raise ValueError("must be NAME:ARGUMENT, such as file:events.jsonl")
    return text


def _file(path: Path) -> Path:
    if not path.name:
        raise ValueError("must be a file")
    expanded = folders.expand(path)
    if expanded.parts[0].startswith("~"):
        raise ValueError(f"must be a complete path: there is no user {expanded.parts[0][1:]}")
    return expanded


def _journal(value: object) -> Path | str:
    """Return a file's path, or the address of a server as text."""
    text = str(value)
    return text if re.match(r"(nats|tls)://", text) else _file(Path(text))


def _moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment.year not in YEARS:
        raise ValueError(
            f"must be a time with a time zone, such as 2026-01-01T00:00:00Z, from {YEARS[0]} to {YEARS[-1]}"
        )
    return text


def _rectangle(mask: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = mask
    if x1 >= x2 or y1 >= y2:
        raise ValueError("a mask needs x1 below x2, and y1 below y2")
    return mask


def distinct(named: dict[str, _Value]) -> dict[str, _Value]:
    """Return a table by names.

    Raises:
        ValueError: two names differ only in case.
    """
    seen: dict[str, str] = {}
    for name in named:
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise ValueError(f"{other} and {name} differ only in case; rename one")
    return named


def _two_points(points: tuple[Point, Point]) -> tuple[Point, Point]:
    if points[0] == points[1]:
        raise ValueError("a line needs two different points")
    return points


def _reference(text: str) -> str:
    is_file = re.fullmatch(r"file:.{2,}", text) and Path(text.removeprefix("file:")).is_absolute()
    if not (is_file or re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*", text)):  # the text may be the secret: do not tell it
        raise ValueError("a secret does not stand in the settings: give env:NAME or file:/PATH, which hold it")
    return text


def _event_types(text: str) -> str:
    known = [*EventType, *dict.fromkeys(kind.partition(".")[0] for kind in EventType)]
    if text not in known:
        raise ValueError(f"no event is of type {text!r}; there are {', '.join(known)}")
    return text


Fraction = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0)]


def _not_upright(degrees: float) -> float:
    if degrees == 0:
        raise ValueError("0 is upright, which is always searched: leave it out")
    return degrees


Rotation = Annotated[float, Field(gt=-180, le=180), AfterValidator(_not_upright)]
Policy = Literal["drop_oldest", "wait"]
Provider = Literal["cpu", "cuda", "tensorrt", "openvino", "coreml", "directml", "rocm"]
Purpose = Literal[
    "development",
    "research",
    "personal",
    "art",
    "health",
    "audience",
    "public_space",
    "workplace",
    "education",
    "other",
]
HostPort = Annotated[str, AfterValidator(_host_port)]
PageName = Annotated[str, AfterValidator(origins.page_name)]
BasePath = Annotated[str, AfterValidator(origins.base_path)]
Ancestor = Annotated[str, AfterValidator(origins.ancestor)]
EventTypes = Annotated[str, AfterValidator(_event_types)]
Sink = Annotated[str, AfterValidator(_sink)]
Mask = Annotated[tuple[Fraction, Fraction, Fraction, Fraction], AfterValidator(_rectangle)]
Point = Annotated[tuple[Fraction, Fraction], Field(description="x and y in fractions of the picture")]
Name = Annotated[str, Field(pattern=CAMERA_NAME)]
Polygon = Annotated[list[Point], Field(max_length=MOST_PLACES), AfterValidator(polygon)]
TwoPoints = Annotated[tuple[Point, Point], AfterValidator(_two_points)]
Reference = Annotated[str, AfterValidator(_reference), Field(json_schema_extra={"writeOnly": True})]
"""Names a secret: the variable or the file that holds it. `fer_stream.settings.references.secret` returns it."""
FilePath = Annotated[Path, AfterValidator(_file)]
JournalPath = Annotated[Path | str, BeforeValidator(_journal)]
Address = Annotated[str, AfterValidator(_address)]
Labels = Annotated[str, AfterValidator(_labels)]
Moment = Annotated[str, AfterValidator(_moment)]
