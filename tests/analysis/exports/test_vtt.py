"""Subtitles are read back by webvtt-py and by FFmpeg; tests/browser shows them in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import pytest
import webvtt

from fer_stream.analysis import exports

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.analysis.exports import Recording

CUES = [
    (0.0, 0.04, "track 1: uncertain"),
    (0.04, 10.0, "track 1: happy"),
    (5.0, 5.001, "track 2: x --&gt; y"),
    (10.0, 20.124, 'track 1: sad &lt;&amp;"&gt; tired'),
    (12.0, 14.0, "track 3: uncertain"),
    (20.124, 20.125, "track 1: a, b | c"),
    (20.125, 30.0, "track 1: naïve 😀"),
    (30.0, 3661.001, "track 1: uncertain"),
    (3661.001, 3725.5, "track 1: two lines"),
]


def _write(recording: Recording, folder: Path) -> Path:
    assert exports.write(["vtt"], recording, folder) == [f"{recording.name}.vtt"]
    return folder / f"{recording.name}.vtt"


def test_webvtt_reads_all_cues(recording: Recording, tmp_path: Path) -> None:
    found = webvtt.read(str(_write(recording, tmp_path)))
    assert [cue.raw_text for cue in found] == [text for _, _, text in CUES]
    for cue, (start, end, _) in zip(found, CUES, strict=True):
        assert (cue.start_in_seconds, cue.end_in_seconds) == (pytest.approx(int(start)), pytest.approx(int(end)))
    assert (found[-1].start, found[-1].end) == ("01:01:01.001", "01:02:05.500")


def test_ffmpeg_reads_all_cues(recording: Recording, tmp_path: Path) -> None:
    with av.open(str(_write(recording, tmp_path))) as file:
        assert file.streams.subtitles[0].codec_context.name == "webvtt"
        found = [(p.pts * p.time_base, p.duration * p.time_base, bytes(p)) for p in file.demux() if p.pts is not None]
    assert [(float(start), float(start + length)) for start, length, _ in found] == [
        (pytest.approx(start), pytest.approx(end)) for start, end, _ in CUES
    ]
    assert [text.decode() for _, _, text in found] == [text for _, _, text in CUES]


def test_a_recording_without_a_face_has_no_cue(empty: Recording, tmp_path: Path) -> None:
    path = _write(empty, tmp_path)
    assert path.read_text().startswith("WEBVTT\n\nNOTE ")
    assert len(webvtt.read(str(path))) == 0
