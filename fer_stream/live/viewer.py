"""One connected browser: sends it data at the rate that it can show.

One WebSocket carries both directions.

To the browser: JSON messages (``hello``, ``state``, ``events``) and binary pictures. A picture is the length of a JSON
header (4 bytes, big endian), the header (camera, frame, time, size, tracks) and a JPEG. In ``events``, the first
``past`` events were journaled before this browser connected or before the page's server started.

From the browser: ``{"watch": {camera: width}}`` for the tiles in view, and ``{"shown": camera}`` when a picture is on
the screen. Until then the server sends no further picture of that camera. It skips the pictures in between and then
sends the newest.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocketDisconnect

from fer_stream.imaging import palette
from fer_stream.live.picture import WIDTHS
from fer_stream.settings.kinds import CAMERA_NAME
from fer_stream.system.version import __version__

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from fer_stream.live.feed import Feed
    from fer_stream.settings.tree import Settings

MOST_WATCHED = 256
"""Most cameras that one browser may watch."""


class Viewer:
    """Serves one WebSocket until it closes."""

    def __init__(self, feed: Feed, settings: Settings, socket: WebSocket) -> None:
        self.watching: dict[str, int] = {}
        self._feed = feed
        self._settings = settings
        self._socket = socket
        self._news = asyncio.Event()
        self._last: dict[str, tuple[int, int]] = {}
        self._unanswered: set[str] = set()
        self._turn = -1
        self._event = 0
        self._joined = feed.events[-1][0] if feed.events else 0

    def wake(self) -> None:
        """See `fer_stream.live.feed.Watcher`."""
        self._news.set()

    async def run(self) -> None:
        """Send data and receive messages until the browser disconnects."""
        await self._socket.accept()
        self._feed.join(self)
        tasks = [asyncio.create_task(self._send_all()), asyncio.create_task(self._listen())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._feed.leave(self)
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, ValueError):
                    with suppress(RuntimeError):  # the browser has disconnected already
                        await self._socket.close(1008, str(result)[:100])
                elif isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
                    raise result

    async def _listen(self) -> None:
        while True:
            try:
                message = await self._socket.receive_json()
            except (KeyError, RecursionError) as error:
                raise ValueError("not JSON text") from error
            match message:
                case {"watch": dict(wanted)} if len(wanted) <= MOST_WATCHED:
                    if not all(re.fullmatch(CAMERA_NAME, name) for name in wanted):
                        raise ValueError("not a camera's name")
                    self._watch({name: _width(width) for name, width in wanted.items()})
                case {"shown": str(camera)}:
                    self._unanswered.discard(camera)
                    self._news.set()
                case _:
                    raise ValueError("neither a watch nor a shown message")

    def _watch(self, wanted: dict[str, int]) -> None:
        for name in self.watching.keys() - wanted.keys():  # the browser may never confirm their last pictures
            self._unanswered.discard(name)
            self._last.pop(name, None)
        self.watching = wanted
        self._feed.watch()
        self._news.set()

    async def _send_all(self) -> None:
        live = self._settings.live
        colours = {"known": palette.COLOURS, "others": palette.OTHERS, "uncertain": palette.UNCERTAIN}
        hello = {
            "version": __version__,
            "blurred": not live.show_faces,
            "valence": self._settings.valence,
            "colours": colours,
        }
        await self._send("hello", hello)
        self._news.set()
        with suppress(WebSocketDisconnect):
            while True:
                await self._news.wait()
                self._news.clear()
                if self._turn != self._feed.turn:
                    self._turn = self._feed.turn
                    await self._send("state", {"connected": self._feed.connected, "status": self._feed.status})
                await self._send_events()
                for camera, width in list(self.watching.items()):
                    await self._send_picture(camera, width)

    async def _send(self, kind: str, body: dict[str, Any]) -> None:
        await self._socket.send_text(json.dumps({"type": kind, **body}, separators=(",", ":")))

    async def _send_events(self) -> None:
        new = [(number, text) for number, text in self._feed.events if number > self._event]
        if new:
            self._event = new[-1][0]
            past = sum(number <= max(self._joined, self._feed.past) for number, _ in new)
            texts = ",".join(text for _, text in new)  # each text is JSON already
            await self._socket.send_text(f'{{"type":"events","past":{past},"events":[{texts}]}}')

    async def _send_picture(self, camera: str, width: int) -> None:
        shown = self._feed.shown.get(camera)
        if shown is None or camera in self._unanswered:
            return
        which = (shown.message.epoch, shown.message.seq)
        if which == self._last.get(camera):
            return
        self._last[camera] = which
        jpeg = await self._feed.picture(shown, width)
        if jpeg is None or camera not in self.watching:
            return
        self._unanswered.add(camera)
        head = json.dumps({key: shown.seen[key] for key in ("camera", "frame", "time", "size", "tracks")}).encode()
        await self._socket.send_bytes(len(head).to_bytes(4, "big") + head + jpeg)


def _width(wanted: Any) -> int:
    """Return the smallest of `WIDTHS` that fills a tile of ``wanted`` pixels, or else the largest.

    Raises:
        ValueError: ``wanted`` is not an int.
    """
    if type(wanted) is not int:
        raise ValueError("not a width in pixels")
    return next((width for width in WIDTHS if width >= wanted), WIDTHS[-1])
