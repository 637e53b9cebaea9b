"""The operations of the API with their parameters and answers. `openapi` describes them, `routes` serves them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from fer_stream.errors import ConfigError
from fer_stream.events.cloudevents import from_rfc3339
from fer_stream.events.cursor import to_numbers
from fer_stream.events.schema import event_schema
from fer_stream.settings.kinds import CAMERA_NAME, YEARS
from fer_stream.system.version import __version__
from fer_stream.types import EventType

PREFIX = "/api/v1"

MOST_EVENTS = 1000
"""Most events of one page."""

MOST_ROWS = 10_000
"""Most rows of statistics in one answer."""

MOST_BYTES = 16 * 1024 * 1024
"""Most bytes of a picture to recognize."""

TYPES = (*dict.fromkeys(kind.partition(".")[0] for kind in EventType), *map(str, EventType))
"""The families and types of events."""


# Parameters


def cursor(text: str) -> str:
    """Return ``text`` if it is a cursor.

    Raises:
        ValueError: it is not.
    """
    to_numbers(text)
    return text


def _moment(text: str) -> str:
    try:
        time = from_rfc3339(text)
    except (ValueError, OverflowError):
        raise ValueError(_NO_TIME) from None
    if not YEARS[0] <= 1970 + time / 31_557_600e9 < YEARS[-1] + 1:
        raise ValueError(f"must be from {YEARS[0]} to {YEARS[-1]}")
    return text


def _type(text: str) -> str:
    if text not in TYPES:
        raise ValueError(f"no event is of type {text!a:.60}; there are {', '.join(TYPES)}")
    return text


_NO_TIME = "must be a time with a time zone, such as 2026-01-31T08:00:00Z"

Cursor = Annotated[
    str,
    StringConstraints(pattern=r"^(0|[1-9][0-9]{0,18}|[0-9a-f]{2}:[0-9]{1,19}(,[0-9a-f]{2}:[0-9]{1,19})+)$"),
    AfterValidator(cursor),
]
Camera = Annotated[str, StringConstraints(pattern=CAMERA_NAME)]
Moment = Annotated[str, AfterValidator(_moment), Field(json_schema_extra={"format": "date-time"})]
Type = Annotated[str, AfterValidator(_type), Field(json_schema_extra={"enum": list(TYPES)})]


class Query(BaseModel):
    """The parameters of an operation. An unknown one is an error, so that a typing error is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Nothing(Query):
    """No parameters."""


class _Filter(Query):
    camera: Camera | None = Field(None, description="only this camera's events")
    type: list[Type] = Field(
        [], description="only events of this type, or of this family, such as emotion; may be repeated"
    )


class PageQuery(_Filter):
    """Which events a page has."""

    after: Cursor = Field("0", description="the cursor of the event after which the page begins; 0 is the beginning")
    limit: int = Field(100, ge=1, le=MOST_EVENTS, description="the most events of the page")


class StreamQuery(_Filter):
    """Which events a stream has."""

    after: Cursor | None = Field(
        None,
        description="the cursor of the event after which the stream begins; 0 is the beginning; by default it begins "
        "now; the header Last-Event-ID, which browsers send when they connect again, counts before it",
    )


class StatisticsQuery(Query):
    """Which statistics."""

    since: Moment | None = Field(None, alias="from", description="the period's beginning; by default an hour before to")
    to: Moment | None = Field(None, description="the period's end, exclusive; by default now")
    every: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,5}[smhd]$")] | None = Field(
        None, description="the length of the parts of the period, such as 30s, 5m, 1h or 1d; by default one part"
    )
    camera: Camera | None = Field(None, description="only this camera")
    group: Literal["camera", "track", "zone", "line"] = Field(
        "camera", description="of what the rows are: a camera, a track, a zone, or a direction of a line"
    )
    by: Literal["label", "valence"] = Field("label", description="label, or valence, the groups of the settings")
    least_faces: int = Field(
        1, ge=1, le=1_000_000, description="say nothing of fewer faces; the setting least_faces counts if it is higher"
    )


_FORMS = {
    "after": "is not a cursor: give the cursor of an event, or 0 for the beginning",
    "camera": "cannot be a camera's name, which has letters, digits, '_', '.' and '-'",
    "every": "is no length: give a number and s, m, h or d, such as 5m",
}
"""What is wrong with a parameter whose text does not match its pattern."""


def parse(kind: type[Query], given: list[tuple[str, str]]) -> Query:
    """Return the parameters of a request, given as pairs of name and text.

    Raises:
        ConfigError: one of them is unknown, is given twice, or has an invalid value; the message is one sentence.
    """
    lists = {name for name, about in kind.model_fields.items() if about.default == []}
    values: dict[str, Any] = {}
    for name, text in given:
        if name in lists:
            values.setdefault(name, []).append(text)
        elif name in values:
            raise ConfigError(f"the parameter {name!a:.60} is given twice")
        else:
            values[name] = text
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            known = ", ".join(about.alias or each for each, about in kind.model_fields.items())
            raise ConfigError(f"there is no parameter {name!a:.60}; there are: {known or 'none'}") from error
        if first["type"] == "string_pattern_mismatch":
            raise ConfigError(f"the parameter {name}: {first['input']!a:.60} {_FORMS[name]}") from error
        why = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"the parameter {name}: {why[0].lower()}{why[1:]}") from error


# Answers


class Answer(BaseModel):
    """An answer, or a part of one."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class StatusAnswer(Answer):
    """The service in short."""

    version: str = Field(description="the version of the page's server")
    uptime_s: Seconds = Field(description="seconds since the start of the aggregator; in a cell, of one of them")
    cursor: str = Field(description="the cursor of the latest event; opaque: compare cursors for equality only")
    labels: list[str] = Field(description="the labels of the events; none until a worker has connected")
    cameras: dict[str, Count] = Field(description="how many cameras are online, offline and ended")
    workers: Count
    events: dict[str, Count] = Field(description="how many events there were since the start, by type")


class FaceInView(Answer):
    """A face in a camera's latest frame."""

    track: Count = Field(description="its number, until it leaves")
    box: list[float] = Field(min_length=4, max_length=4, description="[x1, y1, x2, y2] in pixels of the picture")
    confidence: Share
    label: str | None = Field(description="the label of its open interval; null: uncertain")
    since: Time | None = Field(description="when that interval began")
    probabilities: dict[str, float] = Field(description="the smoothed probability of each label")
    measures: dict[str, float] = Field({}, description="each smoothed measure; absent if the model has none")


class CameraAnswer(Answer):
    """A camera now."""

    name: str
    state: Literal["online", "offline", "ended"]
    live: bool = Field(description="false: a recording")
    epoch: Count = Field(description="counts the starts of its capture and of its aggregator")
    rate: Seconds = Field(description="frames per second")
    frame_age_s: float = Field(description="how old its latest frame was when its result came")
    ledger: dict[str, Count] = Field(description="the outcome of its frames")
    faces: list[FaceInView]


class CamerasAnswer(Answer):
    """All cameras."""

    cameras: list[CameraAnswer]


class Interval(Answer):
    """An open interval of a face in view."""

    camera: str
    track: Count
    label: str
    since: Time
    probability: Share = Field(description="the smoothed probability of its label now")


class IntervalsAnswer(Answer):
    """What is open now. A face in view without an interval is uncertain."""

    intervals: list[Interval]
    uncertain: Count = Field(description="how many faces in view have no label")


class StatisticsRow(Answer):
    """One camera, track, zone or line in one part of the period: online_s + offline_s + unknown_s is the whole part.

    online_s is unseen_s and the time in which at least one face was in view, or in the zone. in_view_s is uncertain_s
    and the labels' times, summed over the faces. What is withheld is absent.
    """

    camera: str
    epoch: Count | None = Field(None, description="of the track, if rows are of tracks")
    track: Count | None = Field(None, description="the track's number in the epoch, if rows are of tracks")
    zone: str | None = Field(None, description="the zone, if rows are of zones")
    line: str | None = Field(None, description="the line, if rows are of lines")
    direction: str | None = Field(None, description="in which the line was crossed")
    start: Time
    end: Time
    online_s: Seconds
    offline_s: Seconds
    unknown_s: Seconds = Field(description="about which the events say nothing")
    withheld: bool = Field(description="true: there were some faces, but fewer than the least number")
    faces: Count = Field(0, description="how many were in view; one that leaves and comes back counts twice")
    unseen_s: Seconds = Field(0.0, description="the camera was online, and no face was in view")
    in_view_s: Seconds = Field(0.0, description="the times that the faces were in view, added")
    uncertain_s: Seconds = Field(0.0, description="the part of in_view_s without a label")
    visits: Count = Field(0, description="how many visits to the zone there were")
    median_visit_s: Seconds = Field(0.0, description="how long half of the visits were at most, in this part")
    longest_visit_s: Seconds = Field(0.0, description="how long the longest visit was, in this part")
    crossings: Count = Field(0, description="how often the line was crossed in this direction")
    labels_s: dict[str, Seconds] = Field({}, description="the part of in_view_s of each label")
    share: dict[str, Share] = Field({}, description="labels_s as parts of in_view_s")


class StatisticsAnswer(Answer):
    """Statistics of a period."""

    rows: list[StatisticsRow]


class RecognizedFace(Answer):
    """A face in a picture."""

    box: list[float] = Field(min_length=4, max_length=4, description="[x1, y1, x2, y2] in pixels of the picture")
    confidence: Share
    probabilities: dict[str, Share] = Field(description="the probability of each label of the model")
    measures: dict[str, float] = Field({}, description="each measure of the model; absent if it has none")


class RecognitionAnswer(Answer):
    """The faces in a picture."""

    width: Count
    height: Count
    faces: list[RecognizedFace]


class Problem(Answer):
    """An error (RFC 9457)."""

    title: str
    status: int
    detail: str = Field(description="one sentence: what is wrong, and what to do")


# Operations


@dataclass(frozen=True)
class Operation:
    """One operation; ``name`` is that of the method of `fer_stream.live.api.routes.Api` that serves it."""

    name: str
    path: str
    summary: str
    query: type[Query] = Nothing
    answer: type[Answer] | None = None
    method: Literal["GET", "POST"] = "GET"
    problems: dict[int, str] = field(default_factory=dict)


_SILENT = "No aggregator answers, or the server is busy: try again."
_OTHER_CELL = "The cursor is of another number of partitions."

OPERATIONS = (
    Operation("status", "/status", "The service in short", answer=StatusAnswer, problems={503: _SILENT}),
    Operation("cameras", "/cameras", "All cameras", answer=CamerasAnswer, problems={503: _SILENT}),
    Operation(
        "camera",
        "/cameras/{camera}",
        "One camera",
        answer=CameraAnswer,
        problems={404: "There is no such camera.", 503: _SILENT},
    ),
    Operation("intervals", "/intervals", "The open intervals", answer=IntervalsAnswer, problems={503: _SILENT}),
    Operation(
        "events", "/events", "A page of events after a cursor", PageQuery, problems={409: _OTHER_CELL, 503: _SILENT}
    ),
    Operation(
        "stream",
        "/events/stream",
        "Events as server-sent events",
        StreamQuery,
        problems={409: _OTHER_CELL, 503: _SILENT},
    ),
    Operation(
        "statistics",
        "/statistics",
        "For how long each apparent expression was seen on each camera",
        StatisticsQuery,
        StatisticsAnswer,
        problems={503: _SILENT},
    ),
    Operation(
        "recognize",
        "/recognize",
        "Find the faces in a picture, which is not stored, and their apparent expressions",
        answer=RecognitionAnswer,
        method="POST",
        problems={
            408: "The picture takes too long to arrive.",
            411: "The length of the picture is not given.",
            413: f"The picture has more than {MOST_BYTES} bytes.",
            415: "The body is not a picture's, such as a form.",
            422: "The body is no picture that can be read.",
            503: "The server is busy, or the models cannot be loaded.",
        },
    ),
    Operation("openapi", "/openapi.json", "This document"),
)


# The document

_EVENT = {"$ref": "#/components/schemas/Event"}

_PAGE = {
    "type": "object",
    "description": "A page of events.",
    "properties": {
        "events": {"type": "array", "items": _EVENT},
        "cursor": {"type": "string", "description": "after which the next page begins"},
        "more": {"type": "boolean", "description": "whether there were more events when the page was made"},
    },
    "required": ["events", "cursor", "more"],
    "additionalProperties": False,
}

_BODIES: dict[str, dict[str, Any]] = {
    "events": {"application/json": {"schema": {"$ref": "#/components/schemas/Page"}}},
    "stream": {
        "text/event-stream": {
            "schema": {
                "type": "string",
                "description": "The data of each message is one event, its id is the event's cursor. A message without "
                "data moves the cursor on. A browser's EventSource resumes by itself.",
            }
        }
    },
    "openapi": {"application/json": {"schema": {"type": "object"}}},
}


class _Schemas(GenerateJsonSchema):
    """Leaves out the titles, which repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the API."""
    schemas: dict[str, Any] = {"Page": _PAGE, **_event_schemas()}
    answers: list[type[Answer]] = [*(each.answer for each in OPERATIONS if each.answer), Problem]
    for model in answers:
        made = model.model_json_schema(
            ref_template="#/components/schemas/{model}", schema_generator=_Schemas, mode="validation"
        )
        schemas |= made.pop("$defs", {})
        schemas[model.__name__] = made
    paths: dict[str, Any] = {}
    for each in OPERATIONS:
        paths.setdefault(PREFIX + each.path, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fer_stream",
            "version": __version__,
            "description": "Cameras, events and statistics of a running service, and faces in pictures. Labels are "
            "apparent expressions, not what a person feels.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The live page's token, if it has one. The page's cookie counts as well.",
                }
            },
        },
    }


def _event_schemas() -> dict[str, Any]:
    """Return the schema of an event as components."""
    made = json.loads(json.dumps(event_schema()).replace("#/$defs/", "#/components/schemas/"))
    parts: dict[str, Any] = made.pop("$defs")
    del made["$schema"]
    return {"Event": made, **parts}


_REFUSED = {
    401: "The token is missing or wrong.",
    403: "A page of another server sends this.",
    421: "The server is not known by this name.",
}
"""What `fer_stream.live.access` answers, before a request reaches an operation."""


def _operation(each: Operation) -> dict[str, Any]:
    content = _BODIES.get(each.name) or {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{each.answer.__name__ if each.answer else ''}"}}
    }
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    text = {"text/plain": {"schema": {"type": "string"}}}
    responses = {status: {"description": about, "content": text} for status, about in _REFUSED.items()}
    for status, about in ({400: "A parameter is unknown or invalid."} | each.problems).items():
        responses[status] = {"description": about, "content": problem}
    responses[200] = {"description": each.summary, "content": content}
    found: dict[str, Any] = {
        "operationId": each.name,
        "summary": each.summary,
        "parameters": _parameters(each),
        "responses": {str(status): responses[status] for status in sorted(responses)},
    }
    if each.method == "POST":
        picture = {"schema": {"type": "string", "format": "binary", "maxLength": MOST_BYTES}}
        kinds = ("application/octet-stream", "image/jpeg", "image/png", "image/webp")
        found["requestBody"] = {"required": True, "content": dict.fromkeys(kinds, picture)}
    return found


def _parameters(each: Operation) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": CAMERA_NAME}}
        for name in re.findall(r"\{(\w+)\}", each.path)
    ]
    for name, schema in each.query.model_json_schema(schema_generator=_Schemas)["properties"].items():
        about = schema.pop("description", "")
        if schema.get("default", "") is None:  # an absent parameter, which no text stands for
            del schema["default"]
            (schema,) = (part for part in schema["anyOf"] if part != {"type": "null"})  # noqa: PLW2901
        found.append({"name": name, "in": "query", "required": False, "description": about, "schema": schema})
    if each.name == "stream":
        found.append(
            {
                "name": "Last-Event-ID",
                "in": "header",
                "required": False,
                "description": "the cursor of the last event that came; counts before after",
                "schema": {"type": "string"},
            }
        )
    return found
