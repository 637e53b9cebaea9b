"""The state of cameras as it follows from events. What is not known is never guessed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journals import event

from fer_stream.events.cloudevents import encode
from fer_stream.journal.contents import gap
from fer_stream.sinks.mqtt.presence import Presence, read
from fer_stream.types import Cursor

if TYPE_CHECKING:
    from fer_stream.types import Event


def story(*kinds: str, first: int = 1, camera: str = "door") -> list[Event]:
    """Return events such as ``face.entered 1`` or ``emotion.started 1 happy``, with the sequence from ``first`` on."""
    found = []
    for number, text in enumerate(kinds, first):
        kind, track, label = [*text.split(), *["0", "happy"][text.count(" ") :]][:3]
        one = event(kind, camera, frame=number, track=int(track), label=label)
        found.append(replace(one, sequence=number, cursor=Cursor(str(number))))
    return found


def shown(events: list[Event], camera: str = "door") -> dict[str, Any]:
    presence = Presence()
    for one in events:
        presence.take(one)
    return presence.show(camera).model_dump()


@pytest.mark.parametrize(
    ("kinds", "online", "faces", "expression"),
    [
        (["camera.online"], True, 0, "none"),
        (["camera.online", "face.entered 1"], True, 1, "none"),
        (["camera.online", "face.entered 1", "emotion.started 1 sad"], True, 1, "sad"),
        (["camera.online", "face.entered 1", "emotion.started 1 sad", "emotion.ended 1 sad"], True, 1, "none"),
        (["camera.online", "face.entered 1", "face.left 1"], True, 0, "none"),
        (["camera.online", "face.entered 1", "camera.offline"], False, 0, "none"),
        (["camera.online", "face.entered 1", "camera.reset"], True, 0, "none"),
        (["face.entered 1"], True, None, None),
        (["emotion.updated 1 sad"], True, None, None),
        (["face.left 1"], None, None, None),
        (["camera.online", "face.entered 1", "zone.entered 1", "line.crossed 1", "zone.left 1"], True, 1, "none"),
        (["zone.left 1"], None, None, None),
        (["face.left 1", "camera.offline"], False, 0, "none"),
    ],
)
def test_what_is_shown(kinds: list[str], online: bool | None, faces: int | None, expression: str | None) -> None:
    found = shown(story(*kinds))
    assert (found["online"], found["faces"], found["expression"]) == (online, faces, expression)


def test_most_faces_prevail_and_of_equals_the_first() -> None:
    two = [
        "camera.online",
        "face.entered 1",
        "face.entered 2",
        "valence.started 2 negative",
        "valence.started 1 positive",
    ]
    assert shown(story(*two))["expression"] == "positive"
    assert shown(story(*two, "face.entered 3", "valence.started 3 negative"))["expression"] == "negative"


def test_a_missing_event_makes_the_faces_unknown_until_the_camera_begins_anew() -> None:
    events = story("camera.online", "face.entered 1", "face.entered 2", "face.left 1", "face.entered 3")
    del events[3]
    found = shown(events)
    assert (found["online"], found["faces"], found["expression"]) == (True, None, None)
    assert shown([*events, *story("camera.reset", first=6)])["faces"] == 0


def test_a_gap_makes_every_camera_unknown_and_lets_sequences_begin_anew() -> None:
    presence = Presence()
    for one in [*story("camera.online", "face.entered 1"), *story("camera.online", camera="yard")]:
        presence.take(one)
    assert presence.take(gap(1, 2, "another journal")) == {"door", "yard"}
    assert [presence.show(name).online for name in ("door", "yard")] == [None, None]
    assert presence.take(story("camera.online")[0]) == {"door"}
    assert presence.show("door").faces == 0


def test_a_repeat_changes_nothing() -> None:
    events = story("camera.online", "face.entered 1", "face.left 1")
    presence = Presence()
    assert [presence.take(one) for one in [*events, *events]] == [{"door"}] * 3 + [set()] * 3
    assert presence.show("door").faces == 0


_STEPS = st.lists(
    st.sampled_from(
        ["camera.online", "camera.offline", "camera.reset", *(f"{kind} {track}" for track in (1, 2, 3) for kind in (
            "face.entered", "face.left", "emotion.started", "emotion.ended"))]
    ),
    min_size=1, max_size=30,
)  # fmt: skip


@given(kinds=_STEPS, cut=st.integers(0, 30), repeated=st.integers(0, 30))
def test_a_restart_anywhere_ends_in_the_same_state(kinds: list[str], cut: int, repeated: int) -> None:
    """The published state is read again, and some of the events that it has in it come again."""
    events = story(*kinds)
    before, after = events[:cut], events[max(0, cut - repeated) :]
    first = Presence()
    for one in before:
        first.take(one)
    second = Presence()
    if before:
        state = read(first.show("door").model_dump_json().encode())
        assert state is not None
        second.restore(state, continued=True)
    for one in after:
        second.take(one)
    assert second.show("door").model_dump() == shown(events)


def test_a_state_that_is_not_continued_is_not_believed() -> None:
    old = Presence()
    for one in story("camera.online", "emotion.started 1"):
        old.take(one)
    new = Presence()
    new.restore(old.show("door"), continued=False)
    found = new.show("door")
    assert (found.online, found.faces, found.expression, found.labels) == (None, None, None, ["happy"])
    new.take(story("camera.online")[0])
    assert new.show("door").faces == 0


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b"\xff", b"[]", encode(event("camera.online")).encode(), b'{"camera":"door","online":"yes"}'],
)
def test_other_messages_are_not_a_state(payload: bytes) -> None:
    assert read(payload) is None


@pytest.mark.parametrize(("key", "value"), [("time", "noon"), ("tracks", {"one": None}), ("sequence", "7"), ("x", 1)])
def test_a_damaged_state_is_none(key: str, value: Any) -> None:
    presence = Presence()
    presence.take(story("camera.online")[0])
    whole = presence.show("door").model_dump()
    assert read(json.dumps(whole).encode()) is not None
    assert read(json.dumps(whole | {key: value}).encode()) is None
