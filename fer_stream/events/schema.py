"""The JSON Schema (draft 2020-12) of every event, as journaled, published and printed, and an AsyncAPI document of it.

Schema and encoder are both derived from `fer_stream.events.cloudevents.data_fields`, so they cannot differ. The schema
allows no additional keys.
"""

from __future__ import annotations

import re
from inspect import getdoc
from typing import Any, get_args, get_origin

from fer_stream.events.cloudevents import DATA, SEQUENCE_DIGITS, data_fields
from fer_stream.settings.kinds import CAMERA_NAME
from fer_stream.system.version import __version__
from fer_stream.types import Box, Cursor, EventType, GapData, Level, Milliseconds, Nanoseconds, Outline, Setting

Schema = dict[str, Any]

_TIME: Schema = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$",
    "description": "A point in capture time.",
}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_CURSOR: Schema = {"type": "string", "minLength": 1, "description": "Opaque: compare cursors for equality only."}
_PROBABILITY: Schema = {"type": "number", "minimum": 0, "maximum": 1}

_JSON_TYPES: dict[Any, Schema] = {
    Nanoseconds: _TIME,
    Milliseconds: _COUNT,
    Cursor: _CURSOR,
    Box: {
        "type": "array",
        "items": {"type": "number"},
        "minItems": 4,
        "maxItems": 4,
        "description": "[x1, y1, x2, y2] in pixels of the picture, not clipped to it.",
    },
    Outline: {
        "type": "array",
        "items": {"type": "array", "items": _PROBABILITY, "minItems": 2, "maxItems": 2},
        "minItems": 2,
        "description": "Points [x, y] as fractions of the picture's width and height.",
    },
    int: _COUNT,
    float: _PROBABILITY,
    Level: {"type": "number", "description": "On the measure's scale, which the model gives."},
    Setting: {"type": "number"},
    str: {"type": "string"},
}
"""The schema of each field type. Integers are counts, and plain floats are probabilities."""

_ENVELOPE: Schema = {
    "specversion": {"const": "1.0", "description": "The version of CloudEvents."},
    "id": {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "Identical if the same event is sent again."},
    "datacontenttype": {"const": "application/json"},
    "time": _TIME | {"description": "Capture time of the frame that caused the event."},
    "sequence": {
        "type": "string",
        "pattern": f"^[0-9]{{{SEQUENCE_DIGITS}}}$",
        "description": "Counts the camera's events without gaps: decimal digits, padded with zeros on the left, so "
        "that the texts sort as the numbers do (an extension of CloudEvents).",
    },
    "cursor": _CURSOR | {"description": "Where to resume after this event. Opaque: compare cursors for equality only."},
    "epoch": _COUNT | {"description": "Counts the starts of the camera's capture and of its aggregator."},
    "frame": _COUNT | {"description": "Number of the frame that caused the event, within the epoch."},
}


def event_schema() -> Schema:
    """Return the schema of an event: the common properties, and a branch for each event type."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An event of fer_stream",
        "description": "A CloudEvent 1.0. Labels are apparent expressions, not what a person feels.",
        "type": "object",
        "properties": _ENVELOPE,
        "required": list(_ENVELOPE),
        "oneOf": [_branch(kind) for kind in EventType],
        "unevaluatedProperties": False,
        "$defs": {cls.__name__: _object(cls) for cls in dict.fromkeys(DATA.values())},
    }


def asyncapi() -> Schema:
    """Return an AsyncAPI 3.0 document: the broadcast link ``events``, its topics, and a message for each type."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Events of fer_stream",
            "version": __version__,
            "description": "An aggregator publishes every event after journaling it, and its latest cursor twice a "
            "second. Labels are apparent expressions, not what a person feels.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "localhost",
                "pathname": "/events",
                "protocol": "zmq",
                "description": "A SUB socket connects to ipc://FOLDER/events, where ipc://FOLDER is the aggregator's "
                "address.",
            },
            "network": {
                "host": "{host}:{port}",
                "protocol": "zmq",
                "description": "The same over tcp://, encrypted with CURVE beyond the aggregator's machine.",
                "variables": {
                    "host": {"description": "The aggregator's machine."},
                    "port": {"description": "The port of the aggregator's address, plus 3."},
                },
            },
        },
        "channels": {
            "events": {
                "address": "{camera}/",
                "title": "A camera's events",
                "description": "Two parts: the topic, and one event as JSON.",
                "parameters": {"camera": {"description": "The camera's name."}},
                "messages": {str(kind): {"$ref": f"#/components/messages/{kind}"} for kind in EventType},
            },
            "cursor": {
                "address": "/",
                "title": "The latest event's cursor",
                "description": "Two parts: the topic, and the cursor as text. A subscriber with another "
                "cursor requests the events that it missed.",
                "messages": {"cursor": {"$ref": "#/components/messages/cursor"}},
            },
        },
        "operations": {
            name: {"action": "send", "channel": {"$ref": f"#/channels/{name}"}} for name in ("events", "cursor")
        },
        "components": {
            "messages": {
                **{str(kind): _message(kind) for kind in EventType},
                "cursor": {"contentType": "text/plain", "payload": _CURSOR},
            }
        },
    }


def _message(kind: EventType) -> Schema:
    """Return an AsyncAPI message; its payload's schema has no references."""
    branch = _branch(kind)
    parts = branch["properties"]["data"]
    data = _object(DATA[kind])
    for name, narrower in parts.get("properties", {}).items():
        data["properties"][name] = _TIME if narrower["type"] == "string" else narrower
    properties = _ENVELOPE | branch["properties"] | {"data": data}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {
        "name": str(kind),
        "contentType": "application/json",
        "payload": {"schemaFormat": "application/schema+json;version=draft-2020-12", "schema": schema},
    }


def _branch(kind: EventType) -> Schema:
    about, _, what = kind.partition(".")
    camera = CAMERA_NAME.removeprefix("^").removesuffix("$")
    properties: Schema = {
        "type": {"const": str(kind)},
        # A gap concerns all cameras.
        "source": {"const": "/cameras/"}
        if DATA[kind] is GapData
        else {"type": "string", "pattern": f"^/cameras/{camera}$"},
        "data": {"$ref": f"#/$defs/{DATA[kind].__name__}"},
    }
    if about not in ("camera", "stream"):
        properties["subject"] = {"type": "string", "pattern": "^tracks/[1-9][0-9]*$"}
    if about in ("face", "emotion", "valence", "zone"):
        ended = what in ("left", "ended")
        properties["data"] |= {"properties": {"end_time": {"type": "string" if ended else "null"}}}
    return {"title": str(kind), "properties": properties, "required": list(properties)}


def _object(cls: type) -> Schema:
    """Return the schema of a data class: fields that are not left out are required, and no others are allowed."""
    properties, required = {}, []
    for field in data_fields(cls):
        schema = _of_type(field.type)
        nullable = field.optional and not field.omitted
        properties[field.name] = {"anyOf": [schema, {"type": "null"}]} if nullable else schema
        required += [] if field.omitted else [field.name]
    return {
        "type": "object",
        "description": re.sub(r"`+", "", " ".join((getdoc(cls) or "").split())),
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _of_type(kind: Any) -> Schema:
    if kind in _JSON_TYPES:
        return _JSON_TYPES[kind]
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": _of_type(get_args(kind)[1])}
    return _object(kind)
