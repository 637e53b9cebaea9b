"""Writes task events of BIDS (https://bids-specification.readthedocs.io, "Task events"), with their JSON sidecar."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from fer_stream.analysis.exports.recording import label_text, one_line
from fer_stream.interchange.annotations import IN_VIEW

if TYPE_CHECKING:
    from fer_stream.analysis.exports.recording import Recording, Span

_MISSING = "n/a"

_ENTITIES = re.compile(r"(sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9]+)*)_[A-Za-z0-9]+")
"""A name of BIDS with a suffix, such as ``sub-01_task-talk_video``."""


def files(recording: Recording) -> dict[str, bytes]:
    """Return the contents of ``NAME_events.tsv`` and ``NAME_events.json``.

    In the name of a recording that is named by BIDS, ``events`` replaces the suffix.
    """
    name = match[1] if (match := _ENTITIES.fullmatch(recording.name)) else recording.name
    spans = sorted(recording.spans, key=lambda span: span.start)
    lines = ["\t".join(("onset", "duration", "trial_type", "track", "probability")), *map(_line, spans)]
    sidecar = json.dumps(_columns(recording), indent=2, ensure_ascii=False) + "\n"
    return {
        f"{name}_events.tsv": ("\n".join(lines) + "\n").encode(),
        f"{name}_events.json": sidecar.encode(),
    }


def _line(span: Span) -> str:
    probability = _MISSING if span.probability is None else f"{span.probability:.4f}"
    duration = max(span.end - span.start, 0.0)
    label = one_line(label_text(span.label)) or _MISSING
    return f"{span.start:.3f}\t{duration:.3f}\t{label}\t{span.track}\t{probability}"


def _columns(recording: Recording) -> dict[str, Any]:
    levels = {IN_VIEW: "The face was in view, with or without a label"}
    levels |= {one_line(label): f"The apparent expression was labelled {label!r}" for label in recording.vocabulary}
    return {
        "onset": {"Description": "Start, from the beginning of the film's clock", "Units": "s"},
        "duration": {"Description": "Time from the start to the last frame with the label or the face", "Units": "s"},
        "trial_type": {
            "LongName": "Apparent expression",
            "Description": f"Label that the model gave a face in {recording.title}. An expression is not a feeling",
            "Levels": levels,
        },
        "track": {
            "Description": "Number of the track: a face followed by its motion while it is in view, not an identity"
        },
        "probability": {
            "Description": f"Mean probability of the label over the interval, 0 to 1, by {recording.author}",
        },
    }
