"""Writes WebVTT (https://www.w3.org/TR/webvtt1/): subtitles with the labels of each track.

Tracks that are in view at the same time have cues that overlap; players show them one above the other.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from fer_stream.analysis.exports.recording import UNCERTAIN, one_line, rows, track_name

if TYPE_CHECKING:
    from fer_stream.analysis.exports.recording import Recording


def files(recording: Recording) -> dict[str, bytes]:
    """Return the content of ``NAME.vtt``; time in view without a label has a cue that says so."""
    cues: list[tuple[int, int, int, str]] = []
    labels = {track: spans for track, labelled, spans in rows(recording.spans) if labelled}
    cues += [(start, end, track, span.label or "") for track, spans in labels.items() for start, end, span in spans]
    for track, labelled, stays in rows(recording.spans):
        for start, end, _ in () if labelled else stays:
            at = start
            for begin, stop, _ in (*labels.get(track, ()), (end, end, None)):
                if at < begin <= end:
                    cues.append((at, begin, track, UNCERTAIN))
                at = max(at, stop)
    note = escape(one_line(recording.author), quote=False).replace("--", "- -")
    blocks = ["WEBVTT", f"NOTE Apparent expressions, by {note}"]
    for start, end, track, label in sorted(cues):
        text = escape(one_line(f"{track_name(track)}: {label}"), quote=False)
        blocks.append(f"{_time(start)} --> {_time(end)}\n{text}")
    return {f"{recording.name}.vtt": ("\n\n".join(blocks) + "\n").encode()}


def _time(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{rest:03}"
