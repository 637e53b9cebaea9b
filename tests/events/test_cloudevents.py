"""Events as JSON: the text is canonical and complete, and other texts are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.errors import WireError
from fer_stream.events.cloudevents import MAX_TEXT, decode, encode, event_id, from_rfc3339, to_rfc3339
from fer_stream.events.cursor import to_cursor
from fer_stream.types import (
    Box,
    CameraData,
    Event,
    EventType,
    ExpressionData,
    FaceData,
    GapData,
    Level,
    LineData,
    LineShape,
    MeasureData,
    Milliseconds,
    Nanoseconds,
    Outline,
    Probability,
    ZoneData,
)

profile = settings(deadline=None, max_examples=150)

# Values that the text represents exactly: microseconds, tenths of a pixel, four decimal places.
moments = st.integers(-(2**62) // 1000, 2**62 // 1000).map(lambda us: Nanoseconds(us * 1000))
units = st.integers(0, 10_000).map(lambda n: n / 10_000)
sides = st.integers(-100_000, 100_000).map(lambda n: n / 10)
boxes = st.builds(Box, sides, sides, sides, sides)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
counts = st.integers(0, 2**63)
levels = st.integers(-50_000, 50_000).map(lambda n: Level(n / 10_000))
durations = counts.map(Milliseconds)
outlines = st.lists(st.tuples(units, units), min_size=2, max_size=5).map(lambda points: Outline(tuple(points)))

DATA = {
    "camera": st.builds(
        CameraData,
        words,
        counts,
        counts,
        zones=st.none() | st.dictionaries(words, outlines, min_size=1, max_size=3),
        lines=st.none() | st.dictionaries(words, st.builds(LineShape, outlines, words, words), min_size=1, max_size=3),
    ),
    "face": st.builds(FaceData, moments, st.none() | moments, durations, boxes, units),
    "expression": st.builds(
        ExpressionData,
        moments,
        st.none() | moments,
        durations,
        words,
        st.none() | words,
        st.builds(Probability, units, units),
        st.dictionaries(words, units, max_size=4),
        boxes,
        units,
        st.none() | st.dictionaries(words, st.builds(MeasureData, levels, levels, levels), min_size=1, max_size=3),
    ),
    "zone": st.builds(ZoneData, words, moments, st.none() | moments, durations, boxes, units),
    "line": st.builds(LineData, words, words, boxes, units),
    "stream": st.builds(GapData, counts.map(to_cursor), counts.map(to_cursor), words),
}


@st.composite
def events(draw: st.DrawFn) -> Event:
    kind = draw(st.sampled_from(EventType))
    family = kind.partition(".")[0]
    camera = "" if family == "stream" else draw(st.from_regex(r"\A[a-z0-9][a-z0-9_.-]{0,8}\Z"))
    return Event(
        type=kind,
        camera=camera,
        epoch=draw(counts),
        frame=draw(counts),
        track=draw(st.integers(1, 999)) if family not in ("camera", "stream") else 0,
        time=draw(moments),
        data=draw(DATA.get(family, DATA["expression"])),
        sequence=draw(counts),
        cursor=draw(counts.map(to_cursor)),
    )


ONLINE = Event(EventType.CAMERA_ONLINE, "door", 1, 1, 0, Nanoseconds(1_000), CameraData("first frame", 640, 480), 1, 1)
HAPPY = Event(
    EventType.EMOTION_STARTED,
    "door",
    2,
    30,
    4,
    Nanoseconds(1_700_000_000_123_456_000),
    ExpressionData(
        Nanoseconds(1_700_000_000_000_000_000),
        None,
        Milliseconds(123),
        "happy",
        None,
        Probability(0.7, 0.8),
        {"happy": 0.75, "sad": 0.25},
        Box(1.0, 2.0, 3.0, 4.5),
        0.99,
    ),
    7,
    "9",
)


@profile
@given(events())
def test_encoded_events_are_decoded_unchanged(event: Event) -> None:
    text = encode(event)
    assert "\n" not in text
    assert text == json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False), (
        "as the json module writes it"
    )
    assert decode(text) == event
    assert decode(text.encode()) == event
    assert encode(decode(text)) == text


@profile
@given(st.floats(-1, 1) | st.floats(-1000, 1000) | st.sampled_from([0.00005, 0.03125, -0.0, 1e-9]))
def test_numbers_are_rounded_and_written_as_the_json_module_writes_them(value: float) -> None:
    data = FaceData(Nanoseconds(0), None, Milliseconds(0), Box(value, 0, 1, 1), value)
    text = encode(replace(ONLINE, type=EventType.FACE_ENTERED, data=data))
    assert f'"box":[{round(value, 1)!r},0.0,1.0,1.0],"confidence":{round(value, 4)!r}}}' in text


@profile
@given(events(), st.data())
def test_mutated_events_are_decoded_or_refused(event: Event, data: st.DataObject) -> None:
    text = bytearray(encode(event).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    for candidate in (bytes(text), bytes(text[: data.draw(st.integers(0, len(text)))])):
        try:
            got = decode(candidate)
        except WireError:
            continue
        # A decoded event can be encoded again.
        assert decode(encode(got).encode()).type is got.type
        candidate.decode()


@profile
@given(st.binary(max_size=100) | st.text(max_size=100))
def test_random_text_is_refused(text: str | bytes) -> None:
    with pytest.raises(WireError):
        decode(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@profile
@given(events(), st.data(), json_values)
def test_another_value_in_any_field_is_decoded_or_refused(event: Event, data: st.DataObject, value: object) -> None:
    body = json.loads(encode(event))
    inner = data.draw(st.booleans())
    target = body["data"] if inner else body
    target[data.draw(st.sampled_from(sorted(target)))] = value
    try:
        got = decode(json.dumps(body))
    except WireError:
        return
    json.dumps(json.loads(encode(got)), allow_nan=False)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("source", "door"),
        ("source", "/somewhere/door"),
        ("type", "cat.entered"),
        ("type", []),
        ("time", "yesterday"),
        ("time", "2026-01-01T00:00:00"),
        ("time", 7),
        ("sequence", 7),
        ("sequence", "7"),
        ("sequence", "0" * 21),
        ("sequence", "-" + "0" * 19),
        ("sequence", "\u0660" * 20),  # digits of another script
        ("cursor", 9),
        ("cursor", "-1"),
        ("cursor", "09"),
        ("cursor", ""),
        ("cursor", "1" * 20),
        ("epoch", "1"),
        ("frame", None),
        ("subject", "4"),
        ("subject", "tracks/four"),
        ("subject", "tracks/-4"),
        ("data", None),
        ("data", {}),
        ("data.box", "1234"),
        ("data.box", [1, 2, 3]),
        ("data.box", ["1", "2", "3", "4"]),
        ("data.confidence", float("nan")),
        ("data.confidence", float("inf")),
        ("data.confidence", "0.5"),
        ("data.confidence", True),
        ("data.probabilities", {"happy": float("nan")}),
        ("data.probabilities", []),
        ("data.label", 7),
        ("data.label", None),
        ("data.start_time", None),
        ("data.duration_ms", 1.5),
        ("data.extra", 1),
        ("source", "/cameras/\ud800"),  # a lone surrogate
        ("data.label", "\udc00"),
    ],
)
def test_values_that_the_encoder_never_writes_are_refused(where: str, value: object) -> None:
    body = json.loads(encode(HAPPY))
    *path, last = where.split(".")
    (body[path[0]] if path else body)[last] = value
    with pytest.raises(WireError, match="not an event of fer_stream"):
        decode(json.dumps(body))


@pytest.mark.parametrize("missing", ["type", "source", "time", "sequence", "cursor", "epoch", "frame", "data"])
def test_an_event_with_a_missing_field_is_refused(missing: str) -> None:
    body = json.loads(encode(HAPPY))
    del body[missing]
    with pytest.raises(WireError, match=missing):
        decode(json.dumps(body))


def test_text_that_is_too_long_or_too_deep_is_refused() -> None:
    with pytest.raises(WireError, match="longer than"):
        decode(" " * (MAX_TEXT + 1))
    with pytest.raises(WireError):
        decode("[" * 60_000)


def test_only_utf_8_is_accepted() -> None:
    for encoding in ("utf-16", "utf-32"):
        with pytest.raises(WireError):
            decode(encode(HAPPY).encode(encoding))


def test_a_label_of_another_script_and_a_line_separator_stay_one_line() -> None:
    for label in ("радость", "a\u2028b", "a\x85b", "a\nb"):
        event = replace(HAPPY, data=replace(HAPPY.data, label=label))
        assert decode(encode(event)) == event


def test_an_event_is_a_cloud_event() -> None:
    assert json.loads(encode(HAPPY)) == {
        "specversion": "1.0",
        "id": event_id(HAPPY),
        "source": "/cameras/door",
        "subject": "tracks/4",
        "type": "emotion.started",
        "time": "2023-11-14T22:13:20.123456Z",
        "datacontenttype": "application/json",
        "sequence": "00000000000000000007",
        "cursor": "9",
        "epoch": 2,
        "frame": 30,
        "data": {
            "start_time": "2023-11-14T22:13:20.000000Z",
            "end_time": None,
            "duration_ms": 123,
            "label": "happy",
            "previous": None,
            "probability": {"mean": 0.7, "peak": 0.8},
            "probabilities": {"happy": 0.75, "sad": 0.25},
            "box": [1.0, 2.0, 3.0, 4.5],
            "confidence": 0.99,
        },
    }
    assert "subject" not in json.loads(encode(ONLINE))


def test_numbers_are_rounded_only_by_the_encoder() -> None:
    data = replace(
        HAPPY.data,  # type: ignore[type-var]
        box=Box(1.04, 2.06, 3.0, 4.0),
        confidence=0.123456,
        probability=Probability(0.00004, 1.0000001),
        probabilities={"happy": 0.99995},
    )
    got = decode(encode(replace(HAPPY, data=data))).data
    assert isinstance(got, ExpressionData)
    assert got.box == Box(1.0, 2.1, 3.0, 4.0)
    assert got.confidence == 0.1235
    assert got.probability == Probability(0.0, 1.0)


def test_ids_differ_between_events_and_are_equal_for_a_repeat() -> None:
    others = [
        replace(HAPPY, camera="gate"),
        replace(HAPPY, epoch=3),
        replace(HAPPY, track=5),
        replace(HAPPY, type=EventType.EMOTION_UPDATED),
        replace(HAPPY, frame=31),
    ]
    assert len({event_id(event) for event in (HAPPY, *others)}) == 6
    assert event_id(replace(HAPPY, sequence=70, cursor="90")) == event_id(HAPPY)


IDS = {
    "camera.online": "ad1e5b73503297454244e36f5edc1039",
    "camera.offline": "375e4d2516854e8a490bd6c2160ca1fa",
    "camera.reset": "e38c7a26de6300b38d44824b4acb6ccc",
    "face.entered": "47bd596100068d23a50d67bbf2c57362",
    "face.left": "08f5797743305afe8cf9b1015024d825",
    "emotion.started": "a222945cae19db7d381875fea69465dc",
    "emotion.updated": "c0d45f6df20fb1a2415d1827efd4113e",
    "emotion.ended": "6ad1509efaf333dcc3e1246b7404e8fd",
    "valence.started": "2c3c77a9b7d2f996110b030c6d3c29c9",
    "valence.updated": "e852ecc85a388be3802b14adde99d758",
    "valence.ended": "2bc2921ebb0ca913ca75f9c21881e49e",
    "zone.entered": "c85cf54191a1c8519e0246da9f4e0554",
    "zone.left": "bd95d43465cef5b0eb7cb09afea0b375",
    "line.crossed": "202447b0e823bd1612e296d086ea471c",
    "stream.gap": "215abe872cf693b545be53dfd4960580",
}
"""Ids that the code for journals of format 2 computed; those of zones and lines are of the first code that had them."""


@pytest.mark.parametrize("kind", EventType)
def test_ids_are_those_that_earlier_versions_computed(kind: EventType) -> None:
    family = kind.partition(".")[0]
    data = {"camera": CameraData("live", 640, 480), "stream": GapData("3", "9", "retention")}.get(family, HAPPY.data)
    track = 0 if family in ("camera", "stream") else 2
    event = Event(kind, "door", 7, 41, track, Nanoseconds(10**18), data, 5, "9")
    box = Box(1, 2, 3, 4)
    if family == "face":
        event = replace(event, data=FaceData(Nanoseconds(0), None, Milliseconds(0), box, 0.9))
    elif family == "zone":
        event = replace(event, data=ZoneData("till", Nanoseconds(0), None, Milliseconds(0), box, 0.9))
    elif family == "line":
        event = replace(event, data=LineData("door", "in", box, 0.9))
    assert json.loads(encode(event))["id"] == event_id(event) == IDS[kind]


def test_sequences_sort_as_texts() -> None:
    texts = [json.loads(encode(replace(HAPPY, sequence=n)))["sequence"] for n in (0, 9, 10, 99, 100, 2**62, 2**64 - 1)]
    assert texts == sorted(texts)
    assert {len(text) for text in texts} == {20}


def test_two_intervals_that_end_with_one_frame_have_different_ids() -> None:
    """The last frame ends one interval and starts another, which the end of the stream then closes, too."""
    ended = replace(HAPPY, type=EventType.EMOTION_ENDED)
    assert event_id(ended) != event_id(replace(ended, data=replace(ended.data, label="sad")))


def test_the_text_is_the_same_in_every_process() -> None:
    program = (
        "import sys; from fer_stream.events.cloudevents import decode, encode;"
        "sys.stdout.write(encode(decode(sys.argv[1])))"
    )
    for seed in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", program, encode(HAPPY)],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout == encode(HAPPY)


# Times


@profile
@given(moments)
def test_times_are_encoded_and_decoded_unchanged(time: Nanoseconds) -> None:
    assert from_rfc3339(to_rfc3339(time)) == time


def test_times_are_truncated_to_microseconds_and_written_in_utc() -> None:
    assert to_rfc3339(1_999) == "1970-01-01T00:00:00.000001Z"
    assert to_rfc3339(-1) == "1969-12-31T23:59:59.999999Z"
    assert from_rfc3339("1970-01-01T01:00:00+01:00") == 0
    assert to_rfc3339(from_rfc3339("0042-01-01T00:00:00Z")) == "0042-01-01T00:00:00.000000Z"
    with pytest.raises(ValueError, match="no time zone"):
        from_rfc3339("1970-01-01T00:00:00")
