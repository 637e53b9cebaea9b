"""Writes a project of BORIS, and a table of events that BORIS imports (https://www.boris.unito.it).

BORIS 8.27 and 9.15 import events from a spreadsheet with the columns ``time``, ``subject``, ``code``, ``modifier`` and
``comment`` into the open observation (*Observations, Import observations*). They do not import text files. The project
has what a user would otherwise enter by hand: labels as state events, tracks as subjects, and the film. Its format is
7.0. A state event is two rows with the same code: the first starts it, the second stops it.
"""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fer_stream.analysis.exports.recording import label_text, one_line, rows, track_name
from fer_stream.interchange.annotations import IN_VIEW
from fer_stream.system.extras import require

if TYPE_CHECKING:
    from fer_stream.analysis.exports.recording import Recording

FORMAT = "7.0"
"""The version of BORIS's project format."""

COLUMNS = ("time", "subject", "code", "modifier", "comment")
"""The columns of BORIS's import of events."""

_KEYS = "abcdefghijklmnopqrstuvwxyz"

_PLAYERS = 8
"""The number of BORIS's players, each with a list of films."""

Event = tuple[float, str, str, str, str]


def files(recording: Recording) -> dict[str, bytes]:
    """Return the contents of ``NAME.boris`` and ``NAME_boris.xlsx``."""
    events = _events(recording)
    project = json.dumps(_project(recording, events), indent=1, ensure_ascii=True).encode() + b"\n"
    return {f"{recording.name}.boris": project, f"{recording.name}_boris.xlsx": _spreadsheet(events)}


def _events(recording: Recording) -> list[Event]:
    """Return the start and the stop of each span, in order of time."""
    found = []
    for track, _, spans in rows(recording.spans):
        for start, end, span in spans:
            code = _code(label_text(span.label))
            comment = "" if span.probability is None else f"mean probability {span.probability:.4f}"
            found.append((start / 1000, track_name(track), code, "", comment))
            found.append((end / 1000, track_name(track), code, "", ""))
    return sorted(found, key=lambda event: event[:3])


def _code(label: str) -> str:
    """Return a label as a code of BORIS, where ``|`` and ``,`` are delimiters."""
    return one_line(label.replace("|", "/").replace(",", ";"))


def _project(recording: Recording, events: list[Event]) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    codes = dict.fromkeys([IN_VIEW, *map(_code, recording.vocabulary)])
    subjects = dict.fromkeys(track_name(track) for track, _, _ in rows(recording.spans))
    return {
        "time_format": "s",
        "project_date": now,
        "project_name": recording.title,
        "project_description": f"Apparent expressions, by {recording.author}. An expression is not a feeling.",
        "project_format_version": FORMAT,
        "subjects_conf": {
            str(number): {"key": "", "name": name, "description": "a face followed by its motion, not an identity"}
            for number, name in enumerate(subjects)
        },
        "behaviors_conf": {
            str(number): {
                "type": "State event",
                "key": _KEYS[number] if number < len(_KEYS) else "",
                "code": code,
                "description": "a face is in view" if code == IN_VIEW else f"the apparent expression {code}",
                "color": "",
                "category": "",
                "modifiers": {},
                "excluded": "",
                "coding map": "",
            }
            for number, code in enumerate(codes)
        },
        "observations": {recording.name: _observation(recording, events, now)},
        "behavioral_categories": [],
        "behavioral_categories_config": {},
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }


def _observation(recording: Recording, events: list[Event], now: str) -> dict[str, Any]:
    film = recording.media
    films: dict[str, list[str]] = {str(player): [] for player in range(1, _PLAYERS + 1)}
    media: dict[str, Any] = {key: {} for key in ("length", "fps", "hasVideo", "hasAudio", "display")}
    media["offset"] = {"1": 0.0}
    if film:
        films["1"].append(film)
        media["length"][film] = round(recording.duration, 3)
        steps = max(recording.frames - 1, 1)
        media["fps"][film] = round(steps / recording.duration, 3) if recording.duration else 25.0
        media["hasVideo"][film], media["hasAudio"][film] = True, False
        media["display"][film] = "Nothing"
    return {
        "file": films if film else {},
        "type": "MEDIA" if film else "LIVE",
        "date": now,
        "description": f"Apparent expressions, by {recording.author}",
        "time offset": 0.0,
        "events": [[*event, "NA"] if film else [*event] for event in events],
        "observation time interval": [0, 0],
        "independent_variables": {},
        "visualize_spectrogram": False,
        "visualize_waveform": False,
        "close_behaviors_between_videos": False,
        "scan_sampling_time": 0,
        "start_from_current_time": False,
        "start_from_current_epoch_time": False,
        "media_info": media,
    }


def _spreadsheet(events: list[Event]) -> bytes:
    xlsxwriter, file = require("xlsxwriter", "analyze"), io.BytesIO()
    texts = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(file, texts) as book:
        sheet = book.add_worksheet("events")
        for number, row in enumerate((COLUMNS, *events)):
            sheet.write_row(number, 0, row)
    return file.getvalue()
