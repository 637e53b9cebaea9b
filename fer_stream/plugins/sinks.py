"""The interfaces of sinks, to which events are delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.types import Event


class Delivery(NamedTuple):
    """An event for a sink."""

    id: str
    """The event's id. An event that is delivered again has the same id."""
    event: Event
    text: str
    """The event's JSON as it was journaled, without a line end."""


class BatchSink(Protocol):
    """Passes events on to a receiver, for ``fer-stream deliver``. One thread uses it.

    Its factory checks the argument and the options, and does not connect. It raises `ConfigError` if they are invalid,
    `PluginError` if a package is missing, and another `FerStreamError` if the sink cannot work.
    """

    most: int
    """Most events in one `write`."""

    def write(self, batch: Sequence[Delivery]) -> None:
        """Hand events over, in order; return when the receiver has taken all of them, and would keep them in a crash.

        Put a limit on every wait. A batch may come again, after an error, and after a restart.

        Raises:
            RetryError: the receiver cannot take them now. The same batch comes again, after a pause that grows with
                each attempt. Any other exception that is not listed here is treated in the same way.
            RejectedError: the receiver refuses some of them for good. The others come again at once.
            FatalError: the operator has to change something first.
        """
        ...

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        ...


@runtime_checkable
class CheckableSink(BatchSink, Protocol):
    """A sink that can be checked before there are events, which ``fer-stream doctor`` does."""

    def check(self) -> None:
        """Find out whether `write` would work now. Send no event, and change nothing at the receiver.

        Put a limit on every wait; 15 s in all is enough for the receiver.

        Raises:
            RetryError: as of `write`; doctor warns.
            FatalError: as of `write`; doctor reports a failure.
        """
        ...


@runtime_checkable
class FollowingSink(BatchSink, Protocol):
    """A sink that is also told how current its events are, because it shows the present state."""

    def follow(self, lag: float | None, *, continued: bool) -> None:
        """Do what is due. Called before the first `write`, and then about every second between the batches.

        Args:
            lag: waiting time, in seconds, of the oldest event that this sink has not received; 0.0 if there is none;
                infinity while events are left from before this process began; ``None`` if the service does not answer.
            continued: whether the events follow those that a sink with this name has received before. Otherwise the
                sink is new, and data that its receiver has from earlier may be wrong.

        Raises:
            RetryError: as `write`.
            FatalError: as `write`.
        """
        ...


class Sink(Protocol):
    """Receives single events. `BatchSink` is better, because it can say what went wrong.

    A sink whose reader is gone may set an attribute ``closed`` to true.
    """

    def write(self, event: Event, text: str) -> None:
        """Write one event; ``text`` is its JSON as journaled, without a line end."""
        ...

    def close(self) -> None:
        """Flush and release; a second call does nothing."""
        ...
