"""One connection to an MQTT 5 broker, in which every message is acknowledged. It says what each failure means.

paho-mqtt does the protocol in a thread of its own. A connection is used once: after a failure, make another one.
"""

from __future__ import annotations

import queue
import socket
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_stream.errors import DeliveryError, FatalError, RetryError
from fer_stream.system import extras

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONNECT = 5.0
"""Seconds for a connection, and again for the broker's greeting."""

ANSWERS = 10.0
"""Seconds without any acknowledgement after which the broker counts as gone."""

CLOSE = 1.0
"""Seconds for an orderly end."""

KEEP_ALIVE = 15
"""Seconds between signs of life. After one and a half times that, the broker publishes the will."""

LARGEST = 1_048_576
"""Bytes of the largest message that the broker may send."""

WAITING = 10_000
"""Most received messages that wait; further ones are dropped."""

_UNSPECIFIC = 0x80
_NOT_AUTHORISED, _TAKEN_OVER, _TOPIC_INVALID, _TOO_LARGE, _PAYLOAD_INVALID = 0x87, 0x8E, 0x90, 0x95, 0x99

_FATAL = {
    0x84: "does not speak MQTT 5, which this sink needs",
    0x85: "refuses the client id {client}: give another one (option client_id)",
    0x86: "refuses the user or the password: check both",
    _NOT_AUTHORISED: "refuses this client: check the user, the password and its access list",
    0x8A: "has banned this client: ask its administrator",
    0x8C: "wants another way of authentication than user and password",
    _TAKEN_OVER: "says that another client took the client id {client}: give each its own (option client_id)",
    _TOPIC_INVALID: "refuses topics as invalid: give another prefix (option topic)",
    0x9A: "keeps no retained messages, which this sink needs: allow them (in mosquitto: retain_available true)",
    0x9B: "does not take messages with QoS 1, which this sink needs",
    0x9C: "wants clients to use another server{reference}: change the address",
    0x9D: "has moved{reference}: change the address",
}
"""The reason codes after which the operator has to change something; any other one may pass."""


class Message(NamedTuple):
    """What is published or received."""

    topic: str
    payload: bytes
    retain: bool = False
    content_type: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    """The user properties."""


class Broker(NamedTuple):
    """Where a broker is, and how to be let in."""

    name: str
    """For error messages, without a password."""
    host: str
    port: int
    client: str
    """The client id."""
    user: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None


class Connection:
    """A connection that `open` makes. One thread uses it."""

    def __init__(self, broker: Broker, will: Message | None = None) -> None:
        """Prepare it.

        Args:
            broker: where to connect.
            will: what the broker publishes if the connection ends without `close`; retained.
        """
        self._broker = broker
        self._happened: queue.SimpleQueue[tuple[str, int, Any]] = queue.SimpleQueue()
        """What paho's thread reports: ``connected``, ``acknowledged``, ``subscribed`` or ``lost``."""
        self._received: queue.Queue[Message] = queue.Queue(WAITING)
        self._lost: tuple[int, str] | None = None
        """The reason code with which the broker ended the connection, or 0, and more about it."""
        self._window, self._largest = 65_535, 0
        self._replaced: dict[int, int] = {}
        """The reason codes that paho does not know, by the number of the message."""
        self._paho: Any = extras.require("paho.mqtt.client", "mqtt")
        self._types: Any = extras.require("paho.mqtt.packettypes", "mqtt").PacketTypes
        self._client = self._prepare(will)

    @property
    def error(self) -> DeliveryError | None:
        """Why the connection has ended; ``None`` while it lasts."""
        if self._lost is None:
            return None
        code, more = self._lost
        if code:
            return self._refusal(code, more)
        return RetryError(
            f"{self._name} has ended the connection without a reason: it restarts, the network is broken, or another "
            f"client has the client id {self._broker.client}"
        )

    @property
    def too_large(self) -> bool:
        """Whether the broker has ended the connection because a message was too large for it."""
        return self._lost is not None and self._lost[0] == _TOO_LARGE

    def open(self) -> None:
        """Connect.

        Raises:
            RetryError: the broker cannot be reached, or does not answer.
            FatalError: it refuses this client, or its certificate is not to be trusted.
        """
        broker, properties = self._broker, self._properties("CONNECT")
        properties.MaximumPacketSize = LARGEST
        try:
            self._client.connect(broker.host, broker.port, KEEP_ALIVE, clean_start=True, properties=properties)
        except ssl.SSLCertVerificationError as error:
            raise FatalError(
                f"the certificate of {self._name} is not to be trusted: {error.verify_message}; check the address, the "
                "option ca and this machine's clock"
            ) from error
        except ssl.SSLError as error:
            raise RetryError(f"{self._name} does not speak TLS as it should: {error.reason or error}") from error
        except (OSError, UnicodeError) as error:
            reason = (
                "it does not answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", "") or error
            )
            raise RetryError(f"{self._name} cannot be reached: {reason}") from error
        self._client.loop_start()
        try:
            kind, code, more = self._happened.get(timeout=CONNECT)
        except queue.Empty:
            raise RetryError(f"{self._name} has not greeted within {CONNECT:g} s: is it an MQTT broker?") from None
        if kind != "connected":
            certificate = ", or requires a client certificate (options certificate and key)" if broker.tls else ""
            raise RetryError(
                f"{self._name} has ended the connection without a greeting: it speaks no MQTT 5{certificate}"
            )
        if code >= 0x80:
            raise self._refusal(code, getattr(more, "ServerReference", ""))
        if not getattr(more, "RetainAvailable", 1):
            raise self._refusal(0x9A)
        if not getattr(more, "MaximumQoS", 1):
            raise self._refusal(0x9B)
        self._window, self._largest = getattr(more, "ReceiveMaximum", 65_535), getattr(more, "MaximumPacketSize", 0)

    def subscribe(self, *topics: str, own: bool = False) -> None:
        """Receive messages from now on, and what is retained under these topics.

        Args:
            topics: filters of topics.
            own: whether what this connection publishes comes back, too.

        Raises:
            DeliveryError: the broker does not allow it, or does not answer.
        """
        how = extras.require("paho.mqtt.subscribeoptions", "mqtt").SubscribeOptions(qos=1, noLocal=not own)
        _, number = self._client.subscribe([(topic, how) for topic in topics])
        for code in self._answer("subscribed", number):
            if code == _NOT_AUTHORISED:
                raise FatalError(f"{self._name} does not let this client read {' and '.join(topics)}: allow it there")
            if code >= 0x80:
                raise self._refusal(code)

    def publish(
        self, messages: Sequence[Message], patience: float = ANSWERS, *, singly: bool = False
    ) -> dict[int, str]:
        """Publish in order; return when the broker has acknowledged or refused each message.

        Args:
            messages: what to publish. As many are on their way at a time as the broker permits.
            patience: seconds to wait for the next acknowledgement.
            singly: have only one on its way at a time, to find the one for which the broker ends the connection
                (`too_large`). The messages after it are not published then.

        Returns:
            why a message is refused for good, by its index: because of what it is, such as its size.

        Raises:
            RetryError: the connection ends, the broker does not answer, or it cannot take a message now.
            FatalError: the operator has to change something.
        """
        refused: dict[int, str] = {}
        waiting: dict[int, int] = {}
        """The indices of the messages on their way, by paho's numbers."""
        try:
            for index, message in enumerate(messages):
                while len(waiting) >= (1 if singly else self._window):
                    self._take(messages, waiting, refused, patience)
                properties = self._properties("PUBLISH", message)
                size = len(message.payload) + 2 * len(message.topic) + len(properties.pack()) + 9
                if self._largest and size > self._largest:
                    refused[index] = f"it has {size} bytes, and the broker takes {self._largest}"
                    continue
                sent = self._client.publish(message.topic, message.payload, 1, message.retain, properties)
                waiting[sent.mid] = index
                if sent.rc != self._paho.MQTT_ERR_SUCCESS:
                    raise self.error or RetryError(f"the connection to {self._name} broke")
            while waiting:
                self._take(messages, waiting, refused, patience)
        except RetryError:
            if not (self.too_large and singly and waiting):
                raise
            for index in waiting.values():
                refused[index] = self._judge(_TOO_LARGE, messages[index])
        return refused

    def _take(
        self, messages: Sequence[Message], waiting: dict[int, int], refused: dict[int, str], patience: float
    ) -> None:
        """Wait for the next acknowledgement."""
        kind, number, code = self._next(patience)
        index = waiting.pop(number, None) if kind == "acknowledged" else None
        if index is not None and code >= 0x80:
            refused[index] = self._judge(code, messages[index])

    def received(self, wait: float = 0.0) -> Iterator[Message]:
        """Yield the messages that have come; wait this many seconds for each further one."""
        with suppress(queue.Empty):
            while True:
                yield self._received.get(timeout=wait) if wait else self._received.get_nowait()

    def close(self, *, will: bool = False) -> None:
        """End the connection; a second call does nothing.

        Args:
            will: whether the broker is to publish the will.
        """
        reason = extras.require("paho.mqtt.reasoncodes", "mqtt").ReasonCode
        name = "Disconnect with will message" if will else "Normal disconnection"
        if self._client.is_connected():
            self._client.disconnect(reason(self._types.DISCONNECT, name))
            deadline = time.monotonic() + CLOSE
            with suppress(queue.Empty):
                while self._lost is None and (left := deadline - time.monotonic()) > 0:
                    self._happened.get(timeout=left)
        if (sock := self._client.socket()) is not None:  # paho's thread would wait for a silent broker
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()
        if (sock := self._client.socket()) is not None:
            sock.close()

    # Answers

    @property
    def _name(self) -> str:
        return f"the MQTT broker {self._broker.name}"

    def _refusal(self, code: int, more: str = "") -> DeliveryError:
        """Return what a reason code means for the whole connection."""
        if code in _FATAL:
            why = _FATAL[code].format(client=self._broker.client, reference=f" ({more})" if more else "")
            return FatalError(f"{self._name} {why}")
        return RetryError(f"{self._name} takes nothing now: {self._meaning(code)}")

    def _judge(self, code: int, message: Message) -> str:
        """Return why a message is refused for good.

        Raises:
            DeliveryError: it is not.
        """
        if code == _TOO_LARGE:
            return f"it has {len(message.payload)} bytes, which is more than the broker takes"
        if code == _PAYLOAD_INVALID:
            return "the broker does not take this content"
        if code == _NOT_AUTHORISED:
            raise FatalError(f"{self._name} does not let this client publish to {message.topic}: allow it there")
        if code == _TOPIC_INVALID:
            raise FatalError(f"{self._name} refuses the topic {message.topic}: give another prefix (option topic)")
        raise self._refusal(code)

    def _meaning(self, code: int) -> str:
        names = extras.require("paho.mqtt.reasoncodes", "mqtt").ReasonCode.names
        return f"{next(iter(names[code])).lower()} (0x{code:02x})" if code in names else f"reason 0x{code:02x}"

    def _answer(self, wanted: str, number: int) -> Any:
        while True:
            found = self._next(ANSWERS)
            if found[:2] == (wanted, number):
                return found[2]

    def _next(self, patience: float) -> tuple[str, int, Any]:
        try:
            found = self._happened.get(timeout=patience)
        except queue.Empty:
            raise RetryError(f"{self._name} does not acknowledge within {patience:g} s") from None
        if found[0] == "lost":
            raise self.error or RetryError(f"the connection to {self._name} broke")
        return found

    # paho

    def _prepare(self, will: Message | None) -> Any:
        broker, paho = self._broker, self._paho
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, broker.client, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        client.connect_timeout, client.max_inflight_messages = CONNECT, 65_535
        if broker.user:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls is not None:
            client.tls_set_context(broker.tls)
        if will is not None:
            client.will_set(will.topic, will.payload, 1, retain=True)
        client.on_connect = lambda _client, _data, _flags, code, more: self._happened.put(
            ("connected", code.value, more)
        )
        client.on_publish = lambda _client, _data, number, code, _more: self._happened.put(
            ("acknowledged", number, self._replaced.pop(number, code.value))
        )
        self._accept_all_codes(client)
        client.on_subscribe = lambda _client, _data, number, codes, _more: self._happened.put(
            ("subscribed", number, [code.value for code in codes])
        )
        client.on_disconnect, client.on_message = self._on_disconnect, self._on_message
        return client

    def _accept_all_codes(self, client: Any) -> None:
        """Let acknowledgements have any reason code.

        Mosquitto refuses a message that is too large with a code that MQTT has for other packets only, and paho would
        end the connection. This changes a method of the client that is not public; without it, that happens.
        """
        original = getattr(client, "_handle_pubackcomp", None)
        if original is None:
            return

        def handle(command: str) -> Any:
            packet = client._in_packet["packet"]
            if len(packet) > 2 and packet[2] == _TOO_LARGE:
                self._replaced[int.from_bytes(packet[:2])] = packet[2]
                client._in_packet["packet"] = packet[:2] + bytes([_UNSPECIFIC]) + packet[3:]
            return original(command)

        client._handle_pubackcomp = handle

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, code: Any, more: Any) -> None:
        said = code.value if flags.is_disconnect_packet_from_server and code is not None else 0
        self._lost = (said, getattr(more, "ServerReference", ""))
        self._happened.put(("lost", said, None))

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        attributes = tuple(getattr(message.properties, "UserProperty", ()))
        with suppress(queue.Full):
            self._received.put_nowait(Message(message.topic, message.payload, message.retain, attributes=attributes))

    def _properties(self, kind: str, message: Message | None = None) -> Any:
        properties = extras.require("paho.mqtt.properties", "mqtt").Properties(getattr(self._types, kind))
        if message is not None and message.content_type:
            properties.PayloadFormatIndicator = 1
            properties.ContentType = message.content_type
        if message is not None and message.attributes:
            properties.UserProperty = list(message.attributes)
        return properties
