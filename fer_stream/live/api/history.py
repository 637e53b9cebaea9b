"""Reads all events, for statistics and history: once in the background, and then only the new ones.

Reading a large journal takes longer than a request may. So reading starts with the server, and runs at half speed until
a request waits for it. All events are read again from time to time, so that deleted events do not stay in memory: more
often, the less time it takes. Meanwhile requests are answered from the previous reading.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.exceptions import HTTPException

from fer_stream.client import subscribe
from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.events.cloudevents import from_rfc3339, to_rfc3339
from fer_stream.events.cursor import to_numbers
from fer_stream.events.spans import Parts
from fer_stream.events.statistics import Record
from fer_stream.imaging.palette import colour
from fer_stream.live.api import answers
from fer_stream.live.api.answers import HistoryAnswer, StatisticsRow
from fer_stream.live.api.contract import MOST_ROWS
from fer_stream.types import BEGINNING, Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_stream.events.history import CameraHistory
    from fer_stream.events.rows import Group, LineRow, Row
    from fer_stream.live.api.contract import HistoryQuery, StatisticsQuery
    from fer_stream.live.feed import Feed
    from fer_stream.settings.tree import Settings

SECONDS = 20.0
"""Seconds that a request may wait until all events are read: less than clients and proxies wait for an answer."""

SILENCE = 8.0
"""Seconds without an answer of the aggregator after which reading fails."""

SLICE = 0.5
"""Seconds for which events are read before a pause of the same length, while no request waits for them."""

FOLLOWED = 10.0
"""Seconds between two reads of new events if there is no request."""

RENEWED = (60.0, 86_400.0)
"""Least and most seconds between two readings of all events."""

REST = 100
"""Seconds between two readings of all events for each second that one takes, within the limits of `RENEWED`."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
HOUR = 3600 * 1_000_000_000
DAY = 24 * HOUR

MOST_SPANS = 4000
"""Most spans of one answer; if there are more, it has statistics of the period's parts instead."""

PARTS = 120
"""Most parts of a period with statistics instead of spans, unless the request gives their length."""

LENGTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
"""Lengths of a part in seconds; longer ones are whole days."""

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class _Reading:
    """The record of the events up to a cursor."""

    def __init__(self) -> None:
        self.record, self.cursor = Record(), str(BEGINNING)
        self.took = 0.0
        """Seconds of reading, with the pauses."""

    def advance(self, feed: Feed, settings: Settings, proceed: Callable[[], bool]) -> bool:
        """Read the events after the cursor, as long as ``proceed()``; return whether all have been read.

        Raises:
            FerStreamError: no aggregator answers, or it refuses this process.
        """
        began = time.monotonic()
        with subscribe(feed.where, after=self.cursor, until_now=True, timeout=SILENCE, settings=settings) as events:
            while not events.ended and proceed():
                found = events.receive(SLICE)
                if found is not None:
                    self.record.take(found[0])
                self.cursor = events.cursor
            self.cursor = events.cursor
        self.took += time.monotonic() - began
        return events.ended


class History:
    """The record of all events. Call its methods in the event loop; it reads in threads."""

    def __init__(self, feed: Feed, settings: Settings) -> None:
        self._feed = feed
        self._settings = settings
        self._reading = _Reading()
        """The record that answers requests; it is incomplete until `_ready`."""
        self._lock = asyncio.Lock()
        """Held while the record is extended or used."""
        self._ready = asyncio.Event()
        self._waiting = 0
        """How many requests wait for it to be ready."""
        self._ending = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read; call it in the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._keep())

    def close(self) -> None:
        """Stop reading."""
        self._ending.set()
        if self._task is not None:
            self._task.cancel()

    async def rows(self, query: StatisticsQuery, state: dict[str, Any]) -> list[Row] | list[LineRow]:
        """Return the rows of an answer; ``state`` is the status of the service now.

        Raises:
            HTTPException: the period is empty or has too many parts, or the events are still being read.
            TransportError: no aggregator answers.
        """
        start, end = _period(query, HOUR)
        every = None if query.every is None else int(query.every[:-1]) * UNITS[query.every[-1]] * 1_000_000_000
        work = partial(
            self._rows,
            (start, end, every),
            query.group,
            camera=query.camera,
            least_faces=max(query.least_faces, self._settings.least_faces),
            groups=self._settings.valence if query.by == "valence" else None,
            online=_online(state),
            most=MOST_ROWS,
        )
        return await self._answer(work, state)

    async def spans(self, query: HistoryQuery, state: dict[str, Any]) -> HistoryAnswer:
        """Return the spans of a period, or statistics if there are too many spans, or if ``least_faces`` is above 1.

        Raises:
            HTTPException, TransportError: as `rows`.
        """
        period = _period(query, DAY)
        online = _online(state)
        return await self._answer(partial(self._spans, query, period, online, state["labels"]), state)

    def _spans(
        self, query: HistoryQuery, period: tuple[int, int], online: dict[str, int], labels: list[str]
    ) -> HistoryAnswer:
        start, end = period
        part = query.resolution or _part(end - start)
        about: dict[str, Any] = {"start": to_rfc3339(Nanoseconds(start)), "end": to_rfc3339(Nanoseconds(end))}
        record = self._reading.record
        ends = (record.first, record.last) if record.last else (None, None)
        about |= {
            name: None if at is None else to_rfc3339(Nanoseconds(at))
            for name, at in zip(("first", "last"), ends, strict=True)
        }
        least = self._settings.least_faces
        about |= {"least_faces": least, "resolution_s": part, "labels": labels}
        cameras = None
        if least == 1:  # otherwise rows about single faces are withheld
            cameras = record.history(start, end, camera=query.camera, online=online, most=MOST_SPANS)
        if cameras is not None:
            seen = {each.label for one in cameras for stay in one.stays for each in stay.labels}
            about["colours"] = {label: colour(label) for label in sorted({*labels, *seen})}
            return HistoryAnswer(aggregated=False, cameras=list(map(_to_answer, cameras)), rows=[], **about)
        how: dict[str, Any] = {"camera": query.camera, "least_faces": least, "online": online, "most": MOST_ROWS}
        rows = self._rows((start, end, part * 1_000_000_000), "camera", **how)
        shown = [StatisticsRow.model_validate(row.as_dict()) for row in rows]
        seen = {label for row in shown for label in row.labels_s}
        about["colours"] = {label: colour(label) for label in sorted({*labels, *seen})}
        return HistoryAnswer(aggregated=True, cameras=[], rows=shown, **about)

    async def _answer(self, work: Callable[[], Result], state: dict[str, Any]) -> Result:
        """Return the result of ``work()``, which runs in a thread when all events have been read."""
        deadline = time.monotonic() + SECONDS

        def in_time() -> bool:
            return time.monotonic() < deadline

        await self._until_ready(state["cursor"])
        async with self._lock:
            if not await asyncio.to_thread(self._reading.advance, self._feed, self._settings, in_time):
                raise _not_yet(self._reading, state["cursor"])
            try:
                return await asyncio.to_thread(work)
            except ConfigError as error:
                raise HTTPException(400, str(error)) from error

    def _rows(self, period: tuple[int, int, int | None], group: Group, **how: Any) -> list[Row] | list[LineRow]:
        return self._reading.record.rows(Parts.of(*period), group, **how)

    async def _until_ready(self, latest: str) -> None:
        self._waiting += 1
        try:
            await asyncio.wait_for(self._ready.wait(), SECONDS)
        except TimeoutError:
            raise _not_yet(self._reading, latest) from None
        finally:
            self._waiting -= 1

    async def _keep(self) -> None:
        """Read all events, and then the new ones; start over after a while (see `REST`)."""
        while True:
            renewed = _Reading() if self._ready.is_set() else self._reading
            while not await self._read(renewed):
                await asyncio.sleep(SLICE)
            async with self._lock:
                self._reading = renewed
            self._ready.set()
            again = time.monotonic() + min(max(RENEWED[0], REST * renewed.took), RENEWED[1])
            while time.monotonic() < again:
                await asyncio.sleep(FOLLOWED)
                async with self._lock:
                    await self._read(self._reading)

    async def _read(self, reading: _Reading) -> bool:
        """Read the new events, at the pace of the background; return whether all have been read."""
        try:
            return await asyncio.to_thread(reading.advance, self._feed, self._settings, self._paced())
        except FerStreamError:  # the feed asks the same aggregator, and logs the reason
            return False
        except Exception:
            _log.exception("the events cannot be read for the statistics; trying again")
            return False

    def _paced(self) -> Callable[[], bool]:
        """Return a function to call after each event. It pauses where needed, and returns whether to continue."""
        began = time.monotonic()

        def proceed() -> bool:
            nonlocal began
            if not self._waiting and time.monotonic() > began + SLICE:
                self._ending.wait(SLICE)
                began = time.monotonic()
            return not self._ending.is_set()

        return proceed


def _period(query: StatisticsQuery | HistoryQuery, length: int) -> tuple[int, int]:
    """Return start and end of the period in nanoseconds; without a start it has this length.

    Raises:
        HTTPException: it is empty.
    """
    end = time.time_ns() if query.to is None else int(from_rfc3339(query.to))
    start = end - length if query.since is None else int(from_rfc3339(query.since))
    if end <= start:
        raise HTTPException(400, "the period is empty: its end must be after its beginning")
    return start, end


def _part(length: int) -> int:
    """Return the length of the parts of a period, in seconds, for a period of ``length`` nanoseconds."""
    least = -(-length // (PARTS * 1_000_000_000))
    return next((each for each in LENGTHS if each >= least), -(-least // 86_400) * 86_400)


def _online(state: dict[str, Any]) -> dict[str, int]:
    """Return the time until which each live camera is known to be online; a recording's times are not the clock's."""
    now = time.time_ns()
    return {name: now for name, camera in state["cameras"].items() if camera["state"] == "online" and camera["live"]}


def _to_answer(camera: CameraHistory) -> answers.CameraHistory:
    def times(start: int, end: int) -> dict[str, str]:
        return {"start": to_rfc3339(Nanoseconds(start)), "end": to_rfc3339(Nanoseconds(end))}

    return answers.CameraHistory(
        camera=camera.camera,
        states=[answers.StateSpan.model_validate({"state": s, **times(*span)}) for s, *span in camera.states],
        stays=[
            answers.Stay.model_validate(
                {
                    **stay._asdict(),
                    **times(stay.start, stay.end),
                    "labels": [{**each._asdict(), **times(each.start, each.end)} for each in stay.labels],
                }
            )
            for stay in camera.stays
        ],
    )


def _not_yet(reading: _Reading, latest: str) -> HTTPException:
    read, total = (sum(to_numbers(cursor)) for cursor in (reading.cursor, latest))
    share = f"{100 * min(read, total) // total} %" if total else "none"
    return HTTPException(503, f"the events are being read, {share} so far: try again in some seconds")
