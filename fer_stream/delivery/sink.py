"""Makes the sinks that the settings name: those of today's contract, and wraps those of the older one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fer_stream import plugins
from fer_stream.errors import ConfigError, FatalError, FerStreamError, PluginError, RetryError
from fer_stream.settings.redaction import redact
from fer_stream.settings.tree import DeliverSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fer_stream.plugins import BatchSink, Delivery, Sink
    from fer_stream.settings.tree import Settings


class Order(NamedTuple):
    """A sink that is to be served: its name, under which its progress is recorded, and its settings."""

    name: str
    settings: DeliverSettings

    def open(self) -> BatchSink:
        """Make the sink.

        Raises:
            FerStreamError: it cannot work, or there is no such sink.
        """
        kind, _, argument = self.settings.sink.partition(":")
        if kind == "stdout":  # a view: its reader may go, and then nothing can be delivered any more
            raise ConfigError(
                f"{self.name}: events are not delivered to standard output; fer-stream run and subscribe print them, "
                "in the --format that you choose"
            )
        try:
            if kind in plugins.available("batch_sinks"):
                made: BatchSink = plugins.load("batch_sinks", kind)(argument, self.settings)
                return made
            if kind in plugins.available("sinks"):
                if self.settings.options:
                    raise ConfigError(f"the sink {kind} has no options")
                return OlderSink(plugins.load("sinks", kind), argument)
        except FerStreamError as error:
            error.args = (f"{self.name}: {error}",)
            raise
        names = sorted({*plugins.available("batch_sinks"), *plugins.available("sinks")} - {"stdout"})
        raise PluginError(f"{self.name}: there is no sink {kind!r}; installed are: {', '.join(names)}")


def orders(settings: Settings, further: Sequence[str] = ()) -> list[Order]:
    """Return the sinks in the settings, and further ones as NAME:ARGUMENT, whose name is this text without passwords.

    Raises:
        ConfigError: there is none, two have the same name, or a further one is not NAME:ARGUMENT.
    """
    found = [Order(name, one) for name, one in settings.deliver.items()]
    for text in further:
        if not text.partition(":")[0]:
            raise ConfigError(f"{text!r} is not a sink: give NAME:ARGUMENT, such as file:events.jsonl")
        found.append(Order(redact(text), DeliverSettings(sink=text)))
    if not found:
        raise ConfigError(
            "there is no sink to deliver to: give --sink NAME:ARGUMENT, or a table deliver.NAME in the settings"
        )
    names = [order.name for order in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"there are two sinks {twice[0]}: give each a table deliver.NAME in the settings")
    return found


def check(settings: Settings, further: Sequence[str]) -> None:
    """Check that the sinks can be opened; there may be none.

    Raises:
        FerStreamError: one cannot.
    """
    if settings.deliver or further:
        for order in orders(settings, further):
            order.open().close()


class OlderSink:
    """A `Sink` as a `BatchSink`. It is opened with the first batch, because that may connect or wait.

    Its contract does not say whether an error is for good, so every one counts as one that may pass. After it, only the
    events that the sink has not taken come again.
    """

    most = 100

    def __init__(self, factory: Callable[[str], Sink], argument: str) -> None:
        self._factory, self._argument = factory, argument
        self._sink: Sink | None = None
        self._taken: set[str] = set()

    def write(self, batch: Sequence[Delivery]) -> None:
        """Write the events one by one.

        Raises:
            RetryError: the sink has raised an exception.
            FatalError: it cannot be opened with this argument, or its reader has gone.
        """
        if self._sink is None:
            try:
                self._sink = self._factory(self._argument)
            except (ConfigError, PluginError) as error:
                raise FatalError(str(error)) from error
        for delivery in batch:
            if delivery.id in self._taken:
                continue
            try:
                self._sink.write(delivery.event, delivery.text)
            except FerStreamError as error:
                raise RetryError(str(error)) from error
            if getattr(self._sink, "closed", False):
                raise FatalError("its reader has gone")
            self._taken.add(delivery.id)
        self._taken.clear()

    def close(self) -> None:
        """Close the sink; a second call does nothing."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None
