"""Annotations as JSON, and the checks of their fields.

This module uses no clock, socket or file.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from fer_stream.errors import AnnotationRefusedError, WireError
from fer_stream.events.cloudevents import from_rfc3339, to_rfc3339
from fer_stream.types import EARLIEST, LATEST, Annotation, Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

WRONG = "wrong"
"""In place of a label: the shown label is wrong, and the right one is not given."""

LONGEST = 86_400 * 1_000_000_000
"""Most nanoseconds from start to end: with this limit, journals find the annotations of a period by their start."""

CLOCKS = 3600 * 1_000_000_000
"""Most nanoseconds by which an annotation's end may be ahead of the aggregator's clock: cameras' clocks may differ."""

MOST_NOTE = 500
"""Most characters of a note."""

MOST_NAME = 64
"""Most characters of a label."""

ANNOTATOR = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
"""The names of annotators."""

FIELDS = ("camera", "track", "start", "end", "label", "previous", "annotator", "note", "made")
"""The columns of a table of annotations, in order; times are texts (RFC 3339)."""

_CAMERA = re.compile(r"[^\x00-\x1f\x7f]{1,255}")
_UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029\ud800-\udfff]")
"""Characters that a note may not have: line separators, lone surrogates, controls except tabs and line feeds."""


def checked(given: Mapping[str, Any]) -> Annotation:
    """Return the annotation that a sender describes, with times in nanoseconds or as texts (RFC 3339).

    Args:
        given: the fields of `Annotation` by name, without ``made`` and ``number``.

    Raises:
        AnnotationRefusedError: a field is missing, unknown or invalid; the message is one sentence.
    """
    known = ("id", "camera", "track", "start", "end", "label", "previous", "annotator", "note")
    if unknown := given.keys() - set(known):
        raise _refused(f"there is no field {min(unknown)!a:.60}; there are {', '.join(known)}")
    if missing := [name for name in known if name not in given and name not in ("previous", "note")]:
        raise _refused(f"the field {missing[0]} is missing")
    start, end = _time("start", given["start"]), _time("end", given["end"])
    if end <= start:
        raise _refused("its end must be after its start")
    if end - start > LONGEST:
        raise _refused("it is longer than a day: divide it")
    track = given["track"]
    if type(track) is not int or not 0 < track < 2**63:
        raise _refused(f"track is {track!a:.40}, and must be the number of a face, from 1")
    return Annotation(
        id=_matching("id", given["id"], re.compile("[0-9a-f]{32}"), "32 hexadecimal digits"),
        camera=_matching("camera", given["camera"], _CAMERA, "a camera's name"),
        track=track,
        start=start,
        end=end,
        label=_label("label", given["label"]),
        previous=None if given.get("previous") is None else _label("previous", given["previous"]),
        annotator=_matching(
            "annotator", given["annotator"], re.compile(ANNOTATOR), "letters, digits, '_', '.' and '-', 63 at most"
        ),
        note=_note(given.get("note", "")),
    )


def _refused(why: str) -> AnnotationRefusedError:
    return AnnotationRefusedError(f"the annotation is refused: {why}")


def _matching(name: str, value: Any, pattern: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _refused(f"{name} is {value!a:.60}, and must be {what}")
    return value


def _label(name: str, value: Any) -> str:
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= MOST_NAME
        or value != value.strip()
        or not value.isprintable()
    ):
        raise _refused(f"{name} is {value!a:.60}, and must be a label of at most {MOST_NAME} characters")
    return value


def _note(value: Any) -> str:
    if not isinstance(value, str):
        raise _refused("note must be a text")
    if len(value) > MOST_NOTE:
        raise _refused(f"the note has {len(value)} characters, and may have {MOST_NOTE}")
    if _UNFIT.search(value):
        raise _refused("the note has control characters: leave them out")
    return value


def _time(name: str, value: Any) -> Nanoseconds:
    if isinstance(value, str):
        try:
            value = from_rfc3339(value)
        except (ValueError, OverflowError):
            raise _refused(
                f"{name} is {value!a:.40}, and must be a time with a time zone, such as 2026-01-31T08:00:00Z"
            ) from None
    if type(value) is not int or not EARLIEST <= value <= LATEST:
        raise _refused(f"{name} is {value!a:.40}, and must be a time from 1700 to 2200")
    return Nanoseconds(value)


def check_label(annotation: Annotation, labels: Collection[str]) -> None:
    """Check that its label is one of the service's ``labels``; if these are empty, as before a worker connects, any is.

    Raises:
        AnnotationRefusedError: it is another one.
    """
    if labels and annotation.label not in (*labels, WRONG):
        raise _refused(f"there is no label {annotation.label!a:.70}: choose {', '.join(labels)} or {WRONG}")


def check_past(annotation: Annotation, now: Nanoseconds) -> None:
    """Check that its interval is in the past: its end may be ahead of the aggregator's clock by `CLOCKS` at most.

    Raises:
        AnnotationRefusedError: its end is further ahead.
    """
    if annotation.end > now + CLOCKS:
        raise _refused(
            f"it ends at {to_rfc3339(annotation.end)}, and the aggregator's clock says {to_rfc3339(now)}: "
            "give a time in the past, or correct the clocks"
        )


def unknown_camera(camera: str) -> AnnotationRefusedError:
    """Return the error for a camera that has never been in the journal."""
    return _refused(f"there is no camera {camera!a:.70} in the journal; fer-stream status lists the cameras")


def encode(annotation: Annotation) -> str:
    """Return an annotation as the JSON text that journals store; its number is not in it."""
    fields = asdict(annotation)
    del fields["number"]
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def decode(text: str, number: int) -> Annotation:
    """Return the annotation in a text that `encode` has made, with its number.

    Raises:
        WireError: it is not such a text.
    """
    try:
        fields = json.loads(text)
        made = fields.pop("made")
        if type(made) is not int:
            raise WireError("an annotation without a time")
        return replace(checked(fields), made=Nanoseconds(made), number=number)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, AnnotationRefusedError) as error:
        raise WireError(f"an invalid annotation: {error}") from error


def as_row(annotation: Annotation) -> dict[str, str | int | None]:
    """Return the values of `FIELDS` by name."""
    found: dict[str, Any] = {name: getattr(annotation, name) for name in FIELDS}
    return found | {name: to_rfc3339(found[name]) for name in ("start", "end", "made")}


def within(annotation: Annotation, since: int, until: int) -> bool:
    """Return whether an annotation reaches into a period, in nanoseconds; its end is exclusive."""
    return annotation.start < until and annotation.end > since
