"""The page's data: threads receive it from the service, and a `Feed` in the event loop collects it for all browsers.

The feed requests only what a browser shows: it subscribes to frames and observations only of cameras that a browser
watches, and it polls the status less often while no browser is connected.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from fer_stream import plugins
from fer_stream.client import NoAnswerError, StateReader, subscribe
from fer_stream.client.scouts import first
from fer_stream.errors import FerStreamError, TransportError, WireError
from fer_stream.events.cursor import to_cursor, to_numbers
from fer_stream.live.picture import Pairing, Shown, render
from fer_stream.protocol import messages, shared
from fer_stream.system.waiting import wait_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fer_stream.plugins import Peer
    from fer_stream.settings.tree import Settings

BACKLOG = 500
"""Number of past events that a newly opened page gets."""

WATCHED, ALONE = 1.0, 5.0
"""Seconds between status requests, with and without a connected browser."""

SHORTLY, PATIENCE = 0.5, 2.0
"""Timeout in seconds of one status request, and seconds without an answer after which the aggregator counts as gone."""

BRIDGED = 3.0
"""Seconds that a request waits for a status: until the aggregator counts as gone, and another one has answered."""

PAUSE = 1.0
"""Seconds until a failed operation is retried."""

_log = logging.getLogger(__name__)


class Watcher(Protocol):
    """One connected browser (`fer_stream.live.viewer.Viewer`)."""

    watching: dict[str, int]
    """The cameras in view, and the width in pixels that each one's picture should have."""

    def wake(self) -> None:
        """Announce new data. Called in the event loop."""


class Feed:
    """The data for all watchers. It belongs to the event loop; the threads change it only through `post`."""

    def __init__(self, settings: Settings) -> None:
        """Create the transport and the threads; `start` connects.

        Raises:
            ConfigError: the settings' address, keys or transport are invalid.
        """
        self.events: deque[tuple[int, str]] = deque(maxlen=BACKLOG)
        """The latest events as journaled, numbered in the order of arrival."""
        self.connected = False
        self.status: dict[str, Any] = {}
        self.turn = 0
        """How often the status has been updated."""
        self.shown: dict[str, Shown] = {}
        """The newest picture of each watched camera."""
        self._settings = settings
        self.addresses: tuple[str, ...] = () if len(settings.addresses) > 1 else settings.addresses
        """The aggregator's address, then those of its cell's others; empty until one of several has answered."""
        self._show_faces = settings.live.show_faces
        self._transport = plugins.transport(settings)
        self._reader = shared.MappedFrames()
        self._pool = ThreadPoolExecutor(2, "picture")
        self._pairs: dict[str, Pairing] = {}
        self._watchers: set[Watcher] = set()
        self._awaiting: set[asyncio.Future[dict[str, Any] | None]] = set()
        self._gone = time.monotonic()
        """Since when no aggregator answers, if none does."""
        self._number = self.past = 0
        self._stopping = threading.Event()
        self._ask = threading.Event()
        self._cursor: str | None = None
        self._caught_up = False
        self._fetch = False
        self._listeners = (_Listener(self, "observations"), _Listener(self, "preview"))
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=work.__name__, daemon=True)
            for work in (self._follow_status, self._follow_events, *(each.listen for each in self._listeners))
        ]

    def start(self) -> None:
        """Start the threads; call it in the event loop."""
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop the threads."""
        self._stopping.set()
        self._ask.set()
        for listener in self._listeners:
            listener.wake()
        for thread in self._threads:
            thread.join(2.0)
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def missing(self) -> str:
        """What the feed still waits for, or an empty text. Part of the process's readiness."""
        return "" if self.connected else "an aggregator"

    @property
    def where(self) -> str | None:
        """The addresses of the aggregators, for `fer_stream.client.subscribe`; ``None``: as the settings say."""
        return ",".join(self.addresses) or None

    async def fresh_status(self) -> dict[str, Any] | None:
        """Ask for the status now; return it, or ``None`` if no aggregator answers.

        If the aggregator has just gone, wait: it may be restarted, and in a cell another one answers soon.
        """
        answer: asyncio.Future[dict[str, Any] | None] = self._loop.create_future()
        self._awaiting.add(answer)
        self._ask.set()
        try:
            return await asyncio.wait_for(answer, BRIDGED)
        except TimeoutError:
            return None
        finally:
            self._awaiting.discard(answer)

    def join(self, watcher: Watcher) -> None:
        """Add a watcher, and request the status at once."""
        self._watchers.add(watcher)
        self._ask.set()

    def leave(self, watcher: Watcher) -> None:
        """Remove a watcher, and end subscriptions that only it needed."""
        self._watchers.discard(watcher)
        self.watch()

    def watch(self) -> None:
        """Adapt the subscriptions after a change of what the watchers watch."""
        cameras = sorted(set().union(*(watcher.watching for watcher in self._watchers)))
        self._pairs = {name: self._pairs.get(name) or Pairing(self._show_faces) for name in cameras}
        self.shown = {name: shown for name, shown in self.shown.items() if name in self._pairs}
        observations, preview = self._listeners
        observations.want(f"{name}/" for name in cameras)
        preview.want(f"/{name}/" if self._fetch else f"{name}/" for name in cameras)

    async def picture(self, shown: Shown, width: int) -> bytes | None:
        """Return a picture as a JPEG of this width, rendered once for all watchers; ``None`` as `render`."""
        if width not in shown.made:
            work = partial(render, shown, width, self._reader, self._show_faces)
            shown.made[width] = self._loop.run_in_executor(self._pool, work)
        return await asyncio.shield(shown.made[width])

    # Called in the event loop, posted by the threads

    def _wake(self, camera: str | None = None) -> None:
        for watcher in self._watchers:
            if camera is None or camera in watcher.watching:
                watcher.wake()

    def _take_status(self, status: dict[str, Any] | None) -> None:
        if status is None and self.connected:
            self._gone = time.monotonic()
        self.connected = status is not None
        if status is not None:
            # Without memory shared with the aggregator, this process must request frames with their pixels.
            memory = status.pop("memory", "")
            fetch = self._fetch or memory != shared.identity()
            self.status = status
            if fetch != self._fetch:
                self._fetch = fetch
                self.watch()
        self.turn += 1
        if self.connected or time.monotonic() > self._gone + BRIDGED:
            for answer in self._awaiting:
                if not answer.done():
                    answer.set_result(status)
        self._wake()

    def _take_event(self, text: str, past: bool) -> None:
        self._number += 1
        self.past = self._number if past else self.past
        self.events.append((self._number, text))
        self._wake()

    def _take_observations(self, parts: list[bytes]) -> None:
        seen = json.loads(parts[1])
        pair = self._pairs.get(seen["camera"])
        if pair is not None:
            self._show(seen["camera"], pair.observe(seen))

    def _take_preview(self, parts: list[Any]) -> None:
        name = bytes(parts[0]).decode().strip("/")
        pair = self._pairs.get(name)
        if pair is None:
            return
        message = messages.unpack(parts[1:])
        if message.encoding.in_memory and not self._fetch:
            try:
                self._reader.intact(message)
            except shared.UnreachableError:  # the same shared memory, but this process may not open it
                self._fetch = True
                self.watch()
                return
        self._show(name, pair.frame(message))

    def _show(self, camera: str, shown: Shown | None) -> None:
        if shown is not None:
            self.shown[camera] = shown
            self._wake(camera)

    def take(self, link: str, parts: list[Any]) -> None:
        """Process a message of a broadcast link."""
        try:
            if link == "preview":
                self._take_preview(parts)
            else:
                self._take_observations(parts)
        except (WireError, ValueError, KeyError) as error:
            _log.warning("a message on %s is rejected: %s", link, error)

    # Called in the threads

    def post(self, function: Callable[..., None], *arguments: Any) -> None:
        """Schedule a function call in the event loop, from another thread."""
        if not self._stopping.is_set():
            self._loop.call_soon_threadsafe(function, *arguments)

    def subscribe(self, address: str, link: str, topics: list[str]) -> Peer:
        """Return a peer that is subscribed to topics of an aggregator's broadcast link."""
        return self._transport.subscribe(address, link, topics)

    @property
    def stopping(self) -> bool:
        """Whether the threads shall end."""
        return self._stopping.is_set()

    def _guard(self, work: Callable[[], None]) -> None:
        """Repeat some work until `stopping`; after a failure, log it and retry."""
        while not self.stopping:
            try:
                work()
            except FerStreamError as error:
                _log.warning("%s; trying again", error)
            except Exception:
                if not self.stopping:
                    _log.exception("%s failed and is restarted", work.__name__)
            self._stopping.wait(PAUSE)

    def _follow_status(self) -> None:
        while not self.stopping:  # an aggregator after the other
            self._follow_status_of_first()

    def _follow_status_of_first(self) -> None:
        address = first(self._transport, self._settings.address, PATIENCE, self.addresses[1:])
        self._take_addresses(address, *(other for other in self.addresses[1:] if other != address))
        reader = StateReader(self._transport, address)
        try:
            self._ask_for_status(reader)
        finally:  # after a refused connection this reader never gets an answer; the retry makes a new one
            self.post(self._take_status, None)
            reader.close()

    @property
    def _several(self) -> bool:
        return len(self._settings.addresses) > 1 or len(self.addresses) > 1

    def _take_addresses(self, *addresses: str) -> None:
        if addresses != self.addresses:
            self.addresses = addresses
            for listener in self._listeners:
                listener.wake()

    def _ask_for_status(self, reader: StateReader) -> None:
        answered = time.monotonic() if self._several else 0.0
        while not self.stopping:
            try:
                status = reader.ask(timeout=SHORTLY)
            except NoAnswerError:
                if time.monotonic() - answered > PATIENCE:
                    self.post(self._take_status, None)
                    if self._several:
                        return  # and ask all of them again
            else:
                answered = time.monotonic()
                self._take_addresses(self.addresses[0], *reader.others)
                self._cursor = self._cursor or _earlier(status["cursor"])
                self.post(self._take_status, status)
                self._ask.wait(WATCHED if self._watchers else ALONE)
            self._ask.clear()

    def _follow_events(self) -> None:
        if self._cursor is None:  # the first status, which has the journal's last cursor, has not come yet
            return
        self._caught_up = self._caught_up or self._receive_events(self._cursor, past=True)
        if self._caught_up:
            self._receive_events(self._cursor, past=False)

    def _receive_events(self, after: str, past: bool) -> bool:
        """Receive events; if they are those of the past, up to the latest one. Return whether all have come."""
        first_ = self.addresses[:1]
        with subscribe(*first_, after=after, until_now=past, timeout=math.inf, settings=self._settings) as events:
            while not self.stopping and not events.ended and self.addresses[:1] == first_:
                found = events.receive(0.25)
                self._cursor = events.cursor
                if found is not None:
                    self.post(self._take_event, found[1], past)
            return events.ended


def _earlier(cursor: str) -> str:
    """Return a cursor about `BACKLOG` events before this one."""
    numbers = to_numbers(cursor)
    return to_cursor(*(max(0, number - BACKLOG // len(numbers)) for number in numbers))


class _Listener:
    """Receives from a broadcast link of all aggregators, of which each camera's own publishes; its topics may change.

    It connects even without topics, so that a key without permission for this link is logged before anyone watches.
    """

    def __init__(self, feed: Feed, link: str) -> None:
        self._feed = feed
        self._link = link
        self._lock = threading.Lock()
        self._wanted: list[str] = []
        self._changed = threading.Event()
        self._peers: list[Peer] = []

    def want(self, topics: Iterable[str]) -> None:
        """Set the topics to subscribe to from now on."""
        topics = list(topics)
        with self._lock:
            if topics != self._wanted:
                self._wanted = topics
                self.wake()

    def wake(self) -> None:
        """Make `listen` check for new topics, for other aggregators, and for the end."""
        self._changed.set()
        for peer in self._peers:
            peer.wake()

    def listen(self) -> None:
        """Receive until the feed stops; run it in a thread."""
        while not self._feed.stopping:
            with self._lock:
                self._changed.clear()
                wanted = list(self._wanted)
            addresses = self._feed.addresses
            if not addresses:
                self._changed.wait(PAUSE)
                continue
            try:
                for address in addresses:
                    self._peers = [*self._peers, self._feed.subscribe(address, self._link, wanted)]
                while not (self._changed.is_set() or self._feed.stopping):
                    self._receive()
            finally:
                peers, self._peers = self._peers, []
                for peer in peers:
                    peer.close()

    def _receive(self) -> None:
        """Receive a message from each peer, or wait for one."""
        descriptors: list[int] = []
        quiet = True
        for peer in self._peers:
            try:
                parts = peer.receive(0)
            except TransportError as error:
                if len(self._peers) == 1:
                    raise
                _log.warning("%s; its cameras are not shown", error)
                self._peers = [other for other in self._peers if other is not peer]
                peer.close()
                continue
            if parts is not None:
                quiet = False
                self._feed.post(self._feed.take, self._link, [bytes(part) for part in parts])
            descriptors += peer.descriptors()
        if quiet:
            wait_readable(descriptors, 1.0)
