"""Where Kafka's brokers are, the options of the sink, and what librdkafka is told of both."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote

from pydantic import Field

from fer_stream.errors import ConfigError
from fer_stream.settings.kinds import FilePath, host_port
from fer_stream.settings.redaction import redact
from fer_stream.settings.references import resolve
from fer_stream.settings.sections import Section

PORT = 9092
"""Where brokers listen by default."""

GROUP = 65_536
"""Bytes of the messages that are sent, and taken or refused by a broker, together."""

CONNECT = 5.0
"""Seconds for a connection."""

HOST = r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(:\d+)?"
"""The pattern of a broker: a name or an address, and a port."""

TOPIC = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,248}$"
"""The pattern of a topic's name."""


class KafkaOptions(Section):
    """The options of the kafka sink."""

    topic: Annotated[str, Field(pattern=TOPIC)] | None = Field(
        None, description="the topic, unless the address ends with it", examples=["fer_stream"]
    )
    mode: Literal["structured", "binary"] = Field(
        "structured",
        description="structured: a message is the event's whole JSON; binary: it is the event's data, and everything "
        "else is in headers",
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="how the user and the password are given to the brokers"
    )
    ca: FilePath | None = Field(
        None,
        description="file with the certificate authority of the brokers, for tls:// (default: the system's)",
        examples=["ca.pem"],
    )
    certificate: FilePath | None = Field(
        None, description="file with this client's certificate, for brokers that want one", examples=["client.pem"]
    )
    key: FilePath | None = Field(None, description="file with the certificate's key", examples=["client.key"])


class Address(NamedTuple):
    """Where the brokers are, and how to log in there."""

    encrypted: bool
    hosts: str
    user: str
    password: str
    topic: str


def parse(text: str) -> Address:
    """Return the parts of an address.

    Raises:
        ConfigError: this is not an address of Kafka brokers.
    """
    scheme, _, rest = text.partition("://")
    who, _, place = rest.rpartition("@")
    hosts, _, topic = place.partition("/")
    user, _, password = who.partition(":")
    try:
        parts = [re.fullmatch(HOST, host) for host in hosts.split(",")]
        named = [f"{part[1]}{part[2] or f':{PORT}'}" for part in parts if part]
        valid = scheme in ("kafka", "tls") and all(parts) and all(host_port(host)[1] for host in named)
    except ValueError:
        valid = False
    if not valid or (topic and not re.fullmatch(TOPIC, topic)):
        raise ConfigError(
            f"{redact(text)!r} is not the address of Kafka brokers: give kafka://HOST:PORT/TOPIC, "
            "kafka://USER:PASSWORD@HOST:PORT/TOPIC, kafka:tls://HOST:PORT/TOPIC, or several brokers as "
            "HOST:PORT,HOST:PORT"
        )
    return Address(scheme == "tls", ",".join(named), unquote(user), unquote(password), topic)


def configuration(text: str, options: KafkaOptions) -> dict[str, Any]:
    """Return librdkafka's settings for brokers at an address.

    Raises:
        SourceError: its password cannot be read.
    """
    address = parse(resolve(text))
    files = {"ssl.ca": options.ca, "ssl.certificate": options.certificate, "ssl.key": options.key}
    security = ("sasl_" if address.user else "") + ("ssl" if address.encrypted else "plaintext")
    given = {
        "bootstrap.servers": address.hosts,
        "client.id": "fer-stream-deliver",
        "security.protocol": security,
        "enable.idempotence": True,  # with acks=all, and the order kept in each partition
        "enable.gapless.guarantee": True,
        "message.timeout.ms": 0,  # librdkafka's own limit could leave out some messages, and send the next ones
        "batch.size": GROUP,
        "partitioner": "murmur2_random",  # as Kafka's own clients choose a key's partition
        "reconnect.backoff.ms": 250,
        "reconnect.backoff.max.ms": 2000,
        "socket.connection.setup.timeout.ms": int(CONNECT * 1000),
        "debug": "msg",  # two lines for each group of messages: they say why one is sent again
        **{f"{name}.location": str(path) for name, path in files.items() if path is not None},
    }
    if address.user:
        given |= {"sasl.mechanism": options.mechanism}
        given |= {"sasl.username": address.user, "sasl.password": address.password}
    return given
