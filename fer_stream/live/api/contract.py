"""The operations of the API with their parameters and answers. `openapi` describes them, `routes` serves them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from fer_stream.errors import ConfigError
from fer_stream.events.cloudevents import from_rfc3339
from fer_stream.events.cursor import to_numbers
from fer_stream.events.schema import event_schema
from fer_stream.live.api.answers import (
    AnnotationAnswer,
    AnnotationsAnswer,
    Answer,
    CameraAnswer,
    CamerasAnswer,
    HistoryAnswer,
    IntervalsAnswer,
    Problem,
    RecognitionAnswer,
    StatisticsAnswer,
    StatusAnswer,
)
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

MOST_ANNOTATIONS = 500
"""Most annotations of one page."""

MOST_BODY = 16_384
"""Most bytes of an annotation."""

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
        "camera", description="what a row is about: a camera, a track, a zone, or a direction of a line"
    )
    by: Literal["label", "valence"] = Field("label", description="label, or valence, the groups of the settings")
    least_faces: int = Field(
        1,
        ge=1,
        le=1_000_000,
        description="withhold rows about fewer faces; the setting least_faces applies if it is higher",
    )


class HistoryQuery(Query):
    """Which history."""

    since: Moment | None = Field(None, alias="from", description="the period's beginning; by default a day before to")
    to: Moment | None = Field(None, description="the period's end, exclusive; by default now")
    camera: Camera | None = Field(None, description="only this camera")
    resolution: int | None = Field(
        None,
        ge=1,
        le=86_400,
        description="the seconds of a part, if there are too many spans; by default there are at most 120 parts",
    )


class AnnotationsQuery(Query):
    """Which annotations: those that reach into the period."""

    since: Moment | None = Field(None, alias="from", description="the period's beginning; by default all")
    to: Moment | None = Field(None, description="the period's end, exclusive")
    camera: Camera | None = Field(None, description="only this camera's")
    after: int = Field(0, ge=0, lt=2**63, description="the number of the annotation after which the page begins")
    limit: int = Field(MOST_ANNOTATIONS, ge=1, le=MOST_ANNOTATIONS, description="the most annotations of the page")


class AnnotationBody(Query):
    """An annotation to store; the token determines the annotator."""

    camera: Camera
    track: int = Field(ge=1, lt=2**63, strict=True)
    start: Moment
    end: Moment = Field(description="after start, by at most a day")
    label: str = Field(
        min_length=1,
        max_length=64,
        description="the right label, or the word wrong if only the shown label is known to be wrong",
    )
    previous: str | None = Field(None, max_length=64, description="the label that was shown; null: none")
    note: str = Field("", max_length=500, description="a remark, without control characters except line ends and tabs")
    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = Field(
        None, description="32 hexadecimal digits; an annotation that is sent again with its id is not stored again"
    )


_FORMS = {
    "after": "is not a cursor: give the cursor of an event, or 0 for the beginning",
    "camera": "cannot be a camera's name, which has letters, digits, '_', '.' and '-'",
    "id": "is no id, which has 32 hexadecimal digits",
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
    return _validated(kind, values, "parameter")


Given = TypeVar("Given", bound=Query)


def parse_body(kind: type[Given], content: bytes) -> Given:
    """Return the fields of a body.

    Raises:
        ConfigError: it is not a JSON object, or a field is unknown, missing or invalid; the message is one sentence.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError("the body is not JSON") from error
    if not isinstance(values, dict):
        raise ConfigError("the body is not a JSON object")
    return _validated(kind, values, "field")


def _validated(kind: type[Given], values: dict[str, Any], what: str) -> Given:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            known = ", ".join(about.alias or each for each, about in kind.model_fields.items())
            raise ConfigError(f"there is no {what} {name!a:.60}; there are: {known or 'none'}") from error
        if first["type"] == "string_pattern_mismatch":
            raise ConfigError(f"the {what} {name}: {first['input']!a:.60} {_FORMS[name]}") from error
        why = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"the {what} {name}: {why[0].lower()}{why[1:]}") from error


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
    body: type[Query] | None = None
    """The fields of the JSON body; without it, the body of a POST is a picture."""
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
        "history",
        "/history",
        "The history: when faces were in view, with which labels, and when cameras were online, offline or unknown",
        HistoryQuery,
        HistoryAnswer,
        problems={503: _SILENT},
    ),
    Operation(
        "annotations",
        "/annotations",
        "A page of annotations",
        AnnotationsQuery,
        AnnotationsAnswer,
        problems={503: _SILENT},
    ),
    Operation(
        "annotate",
        "/annotations",
        "Add an annotation: a label is wrong, or another one is right; earlier annotations stay",
        answer=AnnotationAnswer,
        method="POST",
        body=AnnotationBody,
        problems={
            400: "The annotation is invalid, or its camera is unknown.",
            403: "The token is not an annotator's, or a page of another server sends this.",
            413: f"The body has more than {MOST_BODY} bytes.",
            415: "The body is not JSON.",
            503: _SILENT,
        },
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
                    "description": "The live page's token, if it has one, or an annotator's. "
                    "The page's cookie counts as well.",
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
    if each.body:
        schema = each.body.model_json_schema(schema_generator=_Schemas)
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    elif each.method == "POST":
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
