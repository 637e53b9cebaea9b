"""The schema accepts encoded events of every type, and nothing else."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from fer_stream.events.cloudevents import encode
from fer_stream.events.schema import asyncapi, event_schema
from fer_stream.journal import gap
from fer_stream.types import (
    Box,
    CameraData,
    Event,
    EventType,
    ExpressionData,
    FaceData,
    LineData,
    Milliseconds,
    Nanoseconds,
    Probability,
    ZoneData,
)

VALIDATOR = Draft202012Validator(event_schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)


def example(kind: EventType) -> Event:
    about, _, what = kind.partition(".")
    end = Nanoseconds(2_500_000_000) if what in ("left", "ended") else None
    box = Box(-3.5, 10.0, 80.25, 120.0)
    if kind is EventType.STREAM_GAP:
        return gap(3, 9, "retention")
    if about == "camera":
        return Event(kind, "front.door", 1, 0, 0, Nanoseconds(0), CameraData("started", 640, 480), 1, "1")
    data: FaceData | ExpressionData | ZoneData | LineData
    if about == "face":
        data = FaceData(Nanoseconds(0), end, Milliseconds(2500), box, 0.99)
    elif about == "zone":
        data = ZoneData("till", Nanoseconds(0), end, Milliseconds(2500), box, 0.99)
    elif about == "line":
        data = LineData("door", "in", box, 0.99)
    else:
        data = ExpressionData(
            Nanoseconds(0), end, Milliseconds(0), "happy", None, Probability(0.8, 0.9), {"happy": 0.8}, box, 0.99
        )
    return Event(kind, "front.door", 1, 75, 4, Nanoseconds(2_500_000_000), data, 7, "12")


def document(kind: EventType) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode(example(kind)))
    return body


def test_the_schema_is_a_valid_json_schema() -> None:
    Draft202012Validator.check_schema(event_schema())


@pytest.mark.parametrize("kind", EventType)
def test_the_cncf_s_package_reads_every_type_of_event(kind: EventType) -> None:
    event = JSONFormat().read(CloudEvent, encode(example(kind)))
    expected = document(kind)
    assert event.get_data() == expected.pop("data")
    assert event.get_attributes() == expected | {"time": datetime.fromisoformat(expected["time"])}


@pytest.mark.parametrize("kind", EventType)
def test_accepts_encoded_events(kind: EventType) -> None:
    VALIDATOR.validate(document(kind))


@pytest.mark.parametrize("kind", EventType)
def test_refuses_unknown_keys_everywhere(kind: EventType) -> None:
    assert not VALIDATOR.is_valid(document(kind) | {"colour": "red"})
    extra = document(kind)
    extra["data"]["colour"] = "red"
    assert not VALIDATOR.is_valid(extra)


@pytest.mark.parametrize("kind", EventType)
def test_refuses_missing_keys_everywhere(kind: EventType) -> None:
    for key in document(kind):
        assert not VALIDATOR.is_valid({k: v for k, v in document(kind).items() if k != key}), key
    for key in document(kind)["data"]:
        short = document(kind)
        del short["data"][key]
        assert not VALIDATOR.is_valid(short), key


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        (EventType.FACE_ENTERED, ("type",), "face.seen"),
        (EventType.FACE_ENTERED, ("type",), "camera.online"),
        (EventType.FACE_ENTERED, ("specversion",), "0.3"),
        (EventType.FACE_ENTERED, ("source",), "/cameras/front door"),
        (EventType.FACE_ENTERED, ("source",), 3),
        (EventType.FACE_ENTERED, ("subject",), "tracks/0"),
        (EventType.FACE_ENTERED, ("time",), "1970-01-01T00:00:02Z"),
        (EventType.FACE_ENTERED, ("sequence",), 7),
        (EventType.FACE_ENTERED, ("sequence",), "7"),
        (EventType.FACE_ENTERED, ("cursor",), 7),
        (EventType.FACE_ENTERED, ("cursor",), ""),
        (EventType.FACE_ENTERED, ("data", "box"), [1, 2, 3]),
        (EventType.FACE_ENTERED, ("data", "confidence"), 1.5),
        (EventType.FACE_ENTERED, ("data", "end_time"), "1970-01-01T00:00:02.000000Z"),
        (EventType.FACE_LEFT, ("data", "end_time"), None),
        (EventType.EMOTION_ENDED, ("data", "end_time"), None),
        (EventType.EMOTION_STARTED, ("data", "label"), None),
        (EventType.EMOTION_STARTED, ("data", "probabilities"), {"happy": "much"}),
        (EventType.EMOTION_STARTED, ("data", "probability"), {"mean": 0.5}),
        (EventType.ZONE_ENTERED, ("data", "end_time"), "1970-01-01T00:00:02.000000Z"),
        (EventType.ZONE_LEFT, ("data", "end_time"), None),
        (EventType.ZONE_LEFT, ("data", "zone"), None),
        (EventType.LINE_CROSSED, ("data", "direction"), 1),
        (EventType.CAMERA_ONLINE, ("subject",), "tracks/4"),
        (EventType.STREAM_GAP, ("data", "from"), 1),
    ],
)
def test_refuses_wrong_values(kind: EventType, path: tuple[str, ...], value: Any) -> None:
    body = document(kind)
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert not VALIDATOR.is_valid(body)


def test_an_interval_may_follow_another() -> None:
    body = document(EventType.EMOTION_STARTED)
    body["data"]["previous"] = "sad"
    VALIDATOR.validate(body)


def test_has_descriptions_of_the_data() -> None:
    described = event_schema()["$defs"]["ExpressionData"]["description"]
    assert "apparent expression" in described
    assert "`" not in described


ASYNCAPI = asyncapi()


def resolve(reference: str) -> Any:
    found: Any = ASYNCAPI
    for key in reference.removeprefix("#/").split("/"):
        found = found[key]
    return found


def test_the_asyncapi_document_has_a_message_for_each_type() -> None:
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    channels = [resolve(operation["channel"]["$ref"]) for operation in ASYNCAPI["operations"].values()]
    assert [channel["address"] for channel in channels] == ["{camera}/", "/"]
    events, cursor = ({name: resolve(link["$ref"]) for name, link in c["messages"].items()} for c in channels)
    assert list(events) == [message["name"] for message in events.values()] == list(EventType)
    Draft202012Validator(cursor["cursor"]["payload"]).validate("42")


@pytest.mark.parametrize("kind", EventType)
def test_an_asyncapi_message_accepts_only_its_own_type(kind: EventType) -> None:
    payload = ASYNCAPI["components"]["messages"][kind]["payload"]["schema"]
    Draft202012Validator.check_schema(payload)
    validator = Draft202012Validator(payload, format_checker=Draft202012Validator.FORMAT_CHECKER)
    assert [other for other in EventType if validator.is_valid(document(other))] == [kind]
    assert not validator.is_valid(document(kind) | {"more": 1})
