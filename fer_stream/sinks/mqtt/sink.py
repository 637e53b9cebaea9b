"""The mqtt sink: publishes events, and what is retained: the state of each camera, and whether all of it is current.

Below the prefix ``fer_stream`` of topics::

    fer_stream/door/emotion/started    an event
    fer_stream/door/state              retained: the camera's present state
    fer_stream/status                  retained: online, or offline if the states are not current; also the last will
"""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from fer_stream.errors import ConfigError, DeliveryError, FatalError, RejectedError, RetryError
from fer_stream.settings.options import read
from fer_stream.settings.redaction import redact
from fer_stream.sinks.mqtt import home_assistant, presence
from fer_stream.sinks.mqtt.connection import CLOSE, Connection, Message
from fer_stream.sinks.mqtt.options import MqttOptions, broker, client_id, parts
from fer_stream.system import extras

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.plugins import Delivery
    from fer_stream.settings.tree import DeliverSettings
    from fer_stream.types import Event

MOST = 500
"""Most events in a batch."""

LATE = 10.0
"""Seconds that the oldest undelivered event may wait, or the service may not answer, until the states count as old."""

SYNC = 5.0
"""Seconds until what this sink publishes has come back."""


def open_sink(argument: str, settings: DeliverSettings) -> Mqtt:
    """Return a sink for the broker at ``argument``: ``//HOST:PORT``, ``//USER:PASSWORD@HOST`` or ``mqtts://HOST``.

    Raises:
        ConfigError: this is not such an address, or an option is not allowed.
        PluginError: paho-mqtt is not installed.
    """
    return _opened(f"mqtt:{argument}" if argument.startswith("//") else argument, settings)


def open_tls_sink(argument: str, settings: DeliverSettings) -> Mqtt:
    """Return a sink for the broker at ``argument``, ``//HOST:PORT``, to which the connection is encrypted.

    Raises:
        ConfigError: as `open_sink`.
        PluginError: as `open_sink`.
    """
    return _opened(f"mqtts:{argument}", settings)


def _opened(address: str, settings: DeliverSettings) -> Mqtt:
    extras.require("paho.mqtt.client", "mqtt")
    options = read(MqttOptions, settings.options)
    scheme = parts(address)[0]
    for name in ("ca", "certificate", "key"):
        if scheme != "mqtts" and getattr(options, name) is not None:
            raise ConfigError(f"option {name} is for an encrypted connection: give mqtts://HOST, not {redact(address)}")
    if options.key is not None and options.certificate is None:
        raise ConfigError("option key needs the option certificate, too")
    filters = [name for name in ("types", "labels", "min_probability") if getattr(settings, name)]
    if filters and (options.state or options.home_assistant):
        raise ConfigError(
            f"the states of cameras follow from all of their events: remove {', '.join(filters)}, or the options state "
            "and home_assistant; another sink with a topic of its own can have the filters"
        )
    if options.home_assistant and options.state is False:
        raise ConfigError("option home_assistant needs the states of cameras: remove state = false")
    return Mqtt(address, options, settings, states=not filters if options.state is None else options.state)


class Mqtt:
    """Publishes batches. It connects with the first batch or call of `follow`, and anew after every failure."""

    most = MOST

    def __init__(self, address: str, options: MqttOptions, settings: DeliverSettings, *, states: bool) -> None:
        """Prepare it.

        Args:
            address: the broker's, with its scheme.
            options: the sink's own.
            settings: those of every sink.
            states: whether to publish the states of cameras.
        """
        self._address, self._options, self._cameras, self._states = address, options, set(settings.cameras), states
        self._client_id = options.client_id or client_id(options.topic, settings)
        self._forgotten = {name.strip() for name in options.forget.split(",")} - {""}
        self._connection: Connection | None = None
        self._presence = presence.Presence()
        self._due: set[str] = set()
        """The cameras whose state the broker does not have."""
        self._announced: dict[str, list[Message]] = {}
        """What Home Assistant was told about each camera, in this connection."""
        self._status = ""
        """What the broker has as status, as far as it is known."""
        self._current, self._continued = True, True
        self._singly = False
        """Whether the broker has ended the connection because of a message that is to be found now."""
        self._answered = time.monotonic()
        """When the events here were last all there are, or nearly."""

    def write(self, batch: Sequence[Delivery]) -> None:
        """Publish events, and the states that follow from them; return when the broker has acknowledged all.

        Raises:
            RetryError: the broker does not answer, or takes nothing now.
            RejectedError: some are larger than the broker allows.
            FatalError: the broker refuses this process.
        """
        connection = self._connected()
        try:
            for one in batch:
                if self._states and self._wanted(one.event.camera):
                    self._due |= self._presence.take(one.event)
            messages = [self._message(one) for one in batch]
            refused = connection.publish(messages, singly=self._singly)
            self._singly = False
            if refused:
                raise RejectedError({batch[index].id: reason for index, reason in refused.items()})
            self._refresh(connection)
        except RejectedError:
            raise
        except BaseException:
            self._singly = connection.too_large
            self._disconnect()
            raise

    def follow(self, lag: float | None, *, continued: bool) -> None:
        """Publish what is due, also if there are no events: see `fer_stream.plugins.FollowingSink.follow`.

        Raises:
            RetryError: as `write`.
            FatalError: as `write`.
        """
        now = time.monotonic()
        if lag is not None and lag < LATE:
            self._answered, self._current = now, True
        elif self._connection is None or now > self._answered + LATE:
            self._current = False
        self._continued = continued
        connection = self._connected()
        try:
            self._hear(connection)
            self._refresh(connection)
        except BaseException:
            self._disconnect()
            raise

    def check(self) -> None:
        """Connect with a client id of its own, and publish nothing.

        Raises:
            RetryError: as `write`.
            FatalError: as `write`.
        """
        connection = Connection(broker(self._address, self._options, f"{self._client_id}-check"))
        try:
            connection.open()
        finally:
            connection.close()

    def close(self) -> None:
        """Publish that the service is offline, and end the connection; a second call does nothing."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        published = False
        try:
            if connection.error is None:
                connection.publish([self._is("offline")], CLOSE)
                published = True
        except DeliveryError:  # the broker publishes the will, which says the same
            pass
        finally:
            connection.close(will=not published)

    # The connection

    def _connected(self) -> Connection:
        """Return a connection in which the broker's retained states are read."""
        connection = self._connection
        if connection is not None:
            failure = connection.error
            if failure is None:
                return connection
            self._disconnect()
            if isinstance(failure, FatalError):
                raise failure
        connection = Connection(broker(self._address, self._options, self._client_id), will=self._is("offline"))
        self._connection = connection
        try:
            connection.open()
            self._begin(connection)
        except BaseException:
            self._disconnect()
            raise
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(will=True)

    def _begin(self, connection: Connection) -> None:
        """Read what the broker has retained, and let it forget what is not to be shown."""
        status, nonce = self._topic("status"), secrets.token_hex(8)
        connection.subscribe(status, own=True)
        connection.subscribe(self._topic("+", "state"))
        if self._options.home_assistant:
            connection.subscribe(*home_assistant.births(self._options.discovery_prefix))
        # What is retained comes before this message comes back. Offline, as the states are not yet what they should be.
        connection.publish([self._is("offline")._replace(attributes=(("sync", nonce),))])
        removals: list[Message] = []
        deadline = time.monotonic() + SYNC
        for message in connection.received(wait=SYNC):
            if ("sync", nonce) in message.attributes:
                break
            if message.retain and message.topic.endswith("/state"):
                removals += self._found(message)
            if time.monotonic() > deadline:
                self._missing(status)
        else:
            self._missing(status)
        self._status, self._due, self._announced = "offline", self._presence.cameras(), {}
        connection.publish(removals)

    def _missing(self, status: str) -> None:
        raise RetryError(
            f"the MQTT broker {redact(self._address)} does not send back what is published to {status}: let this "
            f"client read {self._options.topic}/#"
        )

    def _found(self, message: Message) -> list[Message]:
        """Take a retained state; return what removes what is not to be shown any more."""
        shown = presence.read(message.payload)
        if shown is None or message.topic != self._topic(_level(shown.camera), "state"):
            return []
        kept = self._states and self._wanted(shown.camera)
        removals: list[Message] = []
        prefix = self._options.discovery_prefix if kept and self._options.home_assistant else None
        if shown.discovery not in (None, prefix):
            removals += home_assistant.removal(shown.discovery or "", shown.camera, status=self._topic("status"))
        if kept:
            self._presence.restore(shown, continued=self._continued)
            return removals
        return [*removals, Message(message.topic, b"", retain=True)]  # in this order: the device reads the state

    # What is published

    def _hear(self, connection: Connection) -> None:
        """React to what others have published meanwhile."""
        births = home_assistant.births(self._options.discovery_prefix)
        for message in connection.received():
            if message.topic == self._topic("status"):
                self._status = message.payload.decode(errors="replace")
            elif message.topic in births and message.payload == b"online" and self._options.home_assistant:
                self._announced, self._due = {}, self._presence.cameras()

    def _refresh(self, connection: Connection) -> None:
        """Publish what the broker does not have: what Home Assistant is told, the states, and at last the status."""
        messages: list[Message] = []
        announced: dict[str, list[Message]] = {}
        for name in sorted(self._due):
            shown = self._presence.show(name)
            state = self._topic(_level(name), "state")
            if self._options.home_assistant:
                shown.discovery = self._options.discovery_prefix
                status = self._topic("status")
                told = home_assistant.discovery(shown.discovery, name, shown.labels, status=status, state=state)
                messages += [one for one in told if one not in self._announced.get(name, [])]
                announced[name] = told
            messages.append(Message(state, shown.model_dump_json().encode(), True, "application/json"))
        wanted = "online" if self._current else "offline"
        if self._status != wanted:
            messages.append(self._is(wanted))
        refused = connection.publish(messages)
        for index, reason in refused.items():
            raise FatalError(f"the MQTT broker {redact(self._address)} refuses {messages[index].topic}: {reason}")
        self._announced |= announced
        self._due, self._status = set(), wanted

    def _message(self, delivery: Delivery) -> Message:
        """Return an event as a message, as the CloudEvents MQTT binding says: structured, and with its attributes."""
        event = delivery.event
        names = ("specversion", "id", "source", "type", "time", "subject", "sequence")
        values = json.loads(delivery.text)
        attributes = tuple((name, str(values[name])) for name in names if name in values)
        content = "application/cloudevents+json; charset=utf-8"
        return Message(self._event_topic(event), delivery.text.encode(), False, content, attributes)

    def _event_topic(self, event: Event) -> str:
        return self._topic(_level(event.camera), *event.type.split("."))

    def _is(self, status: str) -> Message:
        return Message(self._topic("status"), status.encode(), retain=True)

    def _topic(self, *levels: str) -> str:
        return "/".join([self._options.topic, *levels])

    def _wanted(self, camera: str) -> bool:
        return camera not in self._forgotten and (not self._cameras or not camera or camera in self._cameras)


def _level(camera: str) -> str:
    """Return a camera's level of a topic: its name; ``_`` for a ``stream.gap``, which is of no camera."""
    return quote(camera, safe="") or "_"
