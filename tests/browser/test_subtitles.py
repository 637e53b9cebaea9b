"""A browser shows the subtitles that `analyze --export vtt` writes: all cues, also those at the same time."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

from fer_stream.analysis import exports
from fer_stream.analysis.exports import Recording, Span

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

LABELS = ("happy", "x --> y", 'sad <b>&amp; "tired"', "naïve 😀", "two\nlines")

CUES = [
    [0, 1, "track 1: happy"],
    [0.5, 0.501, "track 2: x --> y"],
    [1, 2.25, 'track 1: sad <b>&amp; "tired"'],
    [2.25, 3, "track 1: uncertain"],
    [3, 4, "track 1: naïve 😀"],
    [3661.001, 3725.5, "track 3: two lines"],
]

READ = """() => new Promise((resolve) => {
  const track = document.querySelector("track");
  const told = () => resolve([...track.track.cues].map((cue) => [cue.startTime, cue.endTime,
    cue.getCueAsHTML().textContent]));
  if (track.readyState === 2) told(); else { track.onload = told; track.onerror = () => resolve("error"); }
  track.track.mode = "showing";
})"""


def test_the_browser_reads_every_cue(page: Callable[..., Page], tmp_path: Path) -> None:
    spans = (
        *(Span(1, 0, 4), Span(2, 0.5, 0.5), Span(3, 3661.001, 3725.5)),
        *(Span(1, 0, 1, LABELS[0], 0.9), Span(2, 0.5, 0.5, LABELS[1], 0.9), Span(1, 1, 2.25, LABELS[2], 0.9)),
        *(Span(1, 3, 4, LABELS[3], 0.9), Span(3, 3661.001, 3725.5, LABELS[4], 0.9)),
    )
    recording = Recording("talk", "talk.mp4", "talk.mp4", 3725.5, 93138, "1.0", "tiny --> 1", LABELS, spans)
    exports.write(["vtt"], recording, tmp_path)
    (tmp_path / "page.html").write_text('<!DOCTYPE html><video><track src="talk.vtt" default></video>')
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:  # a page from a file loads no track
        (thread := Thread(target=server.serve_forever)).start()
        try:
            shown = page(f"http://127.0.0.1:{server.server_port}/page.html")
            assert shown.evaluate(READ) == CUES
        finally:
            server.shutdown()
            thread.join()
