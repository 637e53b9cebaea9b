"""Subscriptions to the events of a running aggregator. They call `fer_stream.client.follower`, and wait in between."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Literal, Self

from fer_stream import plugins
from fer_stream.client.follower import Follower, SilenceError, wanted
from fer_stream.client.scouts import NoAnswerError, no_answer
from fer_stream.errors import ConfigError, TransportError
from fer_stream.events.cursor import to_numbers
from fer_stream.system.waiting import wait_readable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from fer_stream.types import Cursor, Event

__all__ = ["NoAnswerError", "Subscription", "no_answer", "numbers_after", "wanted"]

TIMEOUT = 10.0
"""Seconds without an answer after which a subscription with ``until_now`` fails, by default."""

LOOK = 0.05
"""Maximum seconds until a subscription notices `close`, in an event loop that cannot watch descriptors."""

TURN = 0.005
"""Seconds after which a subscription returns to its caller or to the event loop, even if more has arrived."""


class Subscription:
    """Events of a running aggregator, or of its whole cell, without a gap. Iterate with ``for`` or ``async for``.

    Each camera's events are in order, and so are those of one machine. The events of a cell's partitions come as they
    arrive.

    It waits for an aggregator that is not running, and resumes where it was. Save ``cursor`` to resume in a later
    process. Leaving a loop closes the sockets; the next loop continues from there.

    Use it in one thread or event loop at a time. In an event loop it waits on its sockets and needs no thread,
    except where the loop cannot watch sockets, as on Windows.
    """

    def __init__(
        self,
        address: str,
        *,
        camera: str | None = None,
        types: Sequence[str] = (),
        after: str | Literal[0] | None = None,
        until_now: bool = False,
        timeout: float | None = None,
        transport: str = "zeromq",
        key: Path | None = None,
        keys: Path | None = None,
    ) -> None:
        """Subscribe.

        Args:
            address: the aggregator's address; of several, with commas between them, it follows the first that answers,
                and the next one if that dies. Aggregators with journals of their own have cursors of their own; those
                of a cell share theirs, and one address is enough to learn the others.
            camera: only this camera's events.
            types: only these types, each in full (``emotion.started``) or a family (``emotion``); empty: all types.
            after: the cursor to resume after, from an event or ``cursor``; 0: all journaled events; ``None``: only
                events from now on.
            until_now: end after the latest event that was journaled when the subscription began.
            timeout: seconds without an answer until `NoAnswerError` is raised; ``math.inf``: never. ``None``: 10 with
                ``until_now``, never without.
            transport: name of the transport plug-in.
            key: this process's key file, needed for an aggregator on another machine.
            keys: the aggregator's folder of keys, if it runs on this machine.

        Raises:
            ConfigError: the address, the cursor or the timeout is invalid.
        """
        position = None if after is None else numbers_after(after)
        if timeout is not None and not timeout > 0:
            raise ConfigError(f"{timeout} is not a timeout: give seconds, or math.inf to wait for ever")
        self._address = address
        self._follower = Follower(
            plugins.load("transports", transport)(key, keys),
            address,
            camera=camera,
            types=types,
            after=position,
            until_now=until_now,
            timeout=timeout if timeout is not None else TIMEOUT if until_now else math.inf,
        )
        self._closed = False
        self._loop: object | None = None
        self._woken: asyncio.Future[None] | None = None

    @property
    def cursor(self) -> Cursor:
        """The cursor up to which every event was returned: pass it as ``after`` to a `Subscription` to resume here."""
        return self._follower.cursor

    @property
    def ended(self) -> bool:
        """Whether a subscription with ``until_now`` has returned all its events."""
        return self._follower.ended

    def receive(self, timeout: float) -> tuple[Event, str] | None:
        """Return the next event and its text as journaled, or ``None`` after ``timeout`` seconds or at the end.

        Raises:
            TransportError: the aggregator refuses this process, does not answer in time (see ``timeout`` of
                `Subscription`), or the subscription is closed.
            WireError: the answer is not that of an aggregator of this version.
            ConfigError: the cursor to resume after is of a cell with another number of partitions.
        """
        if self._closed:
            raise TransportError("this subscription is closed: subscribe again")
        deadline = time.monotonic() + timeout
        self._follower.enter()
        try:
            while not self._follower.ready and not self.ended:
                if self._follower.step():
                    if time.monotonic() > deadline + TURN:  # more arrives than it can read, and nothing for the user
                        return None
                    continue
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return None
                wait_readable(self._follower.descriptors(), min(remaining, self._follower.due_in()))
            return self._follower.ready.popleft() if self._follower.ready else None
        except SilenceError as error:
            raise no_answer(self._address, error.silent.diagnose(), error.seconds) from None
        finally:
            self._follower.leave()

    async def receive_async(self, timeout: float) -> tuple[Event, str] | None:
        """Return the same as `receive`, in an event loop.

        Raises:
            TransportError, WireError, ConfigError: as `receive`.
        """
        if self._closed:
            raise TransportError("this subscription is closed: subscribe again")
        begun = time.monotonic()
        return (await self._next(begun, begun + timeout))[0]

    # Loops

    def __iter__(self) -> Iterator[Event]:
        token = self._enter_loop()
        try:
            while not (self.ended or self._closed):
                found = self.receive(1.0)
                if found is not None:
                    yield found[0]
        finally:
            self._leave_loop(token)

    def __aiter__(self) -> AsyncIterator[Event]:
        return _AsyncLoop(self, self._enter_loop())

    async def _next(self, begun: float, deadline: float = math.inf) -> tuple[tuple[Event, str] | None, float]:
        """Return the next event and its text, and the time since which the event loop has not run.

        The event is ``None`` at the end, or after the deadline.
        """
        self._follower.enter()
        try:
            while not (self.ended or self._closed):
                if time.monotonic() - begun > TURN:
                    await asyncio.sleep(0)
                    begun = time.monotonic()
                elif self._follower.ready:
                    return self._follower.ready.popleft(), begun
                elif not self._follower.step():
                    if (remaining := deadline - time.monotonic()) <= 0:
                        break
                    await self._readable(min(remaining, self._follower.due_in()))
                    begun = time.monotonic()
        except SilenceError as error:
            cause = await asyncio.to_thread(error.silent.diagnose)
            raise no_answer(self._address, cause, error.seconds) from None
        finally:
            self._follower.leave()
        return None, begun

    async def _readable(self, timeout: float) -> None:
        """Wait until a descriptor is readable, for ``timeout`` seconds at most."""
        loop = asyncio.get_running_loop()
        descriptors = self._follower.descriptors()
        try:
            for number in descriptors:
                loop.add_reader(number, self._wake)
        except NotImplementedError:
            # The default loop on Windows has no `add_reader`. The wait is short, because `close` cannot interrupt it.
            await asyncio.to_thread(wait_readable, descriptors, min(timeout, LOOK))
            return
        self._woken = loop.create_future()
        timer = loop.call_later(timeout, self._wake)
        try:
            await self._woken
        finally:
            timer.cancel()
            for number in descriptors:
                loop.remove_reader(number)
            self._woken = None

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def _enter_loop(self) -> object:
        if self._loop is not None:
            raise ConfigError("a subscription serves one loop at a time: subscribe once for each")
        self._loop = object()
        return self._loop

    def _leave_loop(self, token: object) -> None:
        """Close the sockets, unless this loop has been left already."""
        if token is self._loop:
            self._loop = None
            self._follower.disconnect()

    def close(self) -> None:
        """Unsubscribe; a second call does nothing. A loop over the subscription ends."""
        self._closed = True
        self._wake()
        self._follower.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _AsyncLoop:
    """One ``async for``. Dropping it closes the sockets at once; an async generator would do so later."""

    def __init__(self, subscription: Subscription, token: object) -> None:
        self._subscription, self._token = subscription, token
        self._begun = time.monotonic()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        found = None
        try:
            if self._subscription._loop is self._token:
                found, self._begun = await self._subscription._next(self._begun)
        finally:
            if found is None:
                self._subscription._leave_loop(self._token)
        if found is None:
            raise StopAsyncIteration
        return found[0]

    def __del__(self) -> None:
        self._subscription._leave_loop(self._token)


def numbers_after(after: str | Literal[0]) -> tuple[int, ...]:
    """Return the numbers of the cursor to resume after.

    Raises:
        ConfigError: ``after`` is neither a cursor nor 0.
    """
    try:
        if not isinstance(after, str) and (type(after) is not int or after != 0):
            raise ValueError(f"{after!r} is not a cursor: give the cursor of an event as text, or 0 for the beginning")
        return to_numbers(str(after))
    except ValueError as error:
        raise ConfigError(str(error)) from error
