"""The options of the mqtt sink, the broker's address, and how to be let in."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote, urlsplit

from pydantic import Field

from fer_stream.errors import ConfigError, FatalError, RetryError, SourceError
from fer_stream.settings.kinds import FilePath  # noqa: TC001  (pydantic needs it)
from fer_stream.settings.redaction import redact
from fer_stream.settings.references import resolve
from fer_stream.settings.sections import Section
from fer_stream.sinks.mqtt.connection import Broker
from fer_stream.sinks.mqtt.home_assistant import PREFIX

if TYPE_CHECKING:
    from fer_stream.settings.tree import DeliverSettings

PORTS = {"mqtt": 1883, "mqtts": 8883}

_TOPIC = r"^[A-Za-z0-9_-][A-Za-z0-9_. -]*(/[A-Za-z0-9_. -]+)*$"


class MqttOptions(Section):
    """The options of the mqtt sink."""

    topic: Annotated[str, Field(pattern=_TOPIC, max_length=200)] = Field(
        "fer_stream", description="what topics begin with; each sink that writes to a broker needs its own"
    )
    state: bool | None = Field(
        None,
        description="publish the state of each camera; by default if no filter leaves out some of a camera's events",
    )
    home_assistant: bool = Field(False, description="tell Home Assistant about the cameras (MQTT discovery)")
    discovery_prefix: Annotated[str, Field(pattern=_TOPIC)] = Field(
        PREFIX, description="Home Assistant's discovery prefix"
    )
    forget: str = Field(
        "",
        description="cameras that are gone, separated by commas: what is retained of them is deleted",
        examples=["old-door"],
    )
    client_id: Annotated[str, Field(pattern=r"^\S{1,200}$")] | None = Field(
        None, description="the client id; by default one that is made from this machine's name and the sink's settings"
    )
    ca: FilePath | None = Field(
        None,
        description="file with the certificate authority of the broker, for mqtts:// (default: the system's)",
        examples=["ca.pem"],
    )
    certificate: FilePath | None = Field(
        None, description="file with this client's certificate, for mqtts://", examples=["client.pem"]
    )
    key: FilePath | None = Field(
        None, description="file with the key of the client's certificate, if it is in one of its own"
    )


def parts(address: str) -> tuple[str, str, int, str, str]:
    """Return scheme, host, port, user and password of an address.

    Raises:
        ConfigError: this is not a broker's address.
    """
    try:
        scheme, rest = address.split("://", 1)
        who, _, where = rest.removesuffix("/").rpartition("@")
        found = urlsplit(f"//{where}")
        host, port = found.hostname, found.port
    except ValueError:  # no scheme, or a port that is not a number
        scheme, host, port, found, who = "", None, None, None, ""
    if scheme not in PORTS or not host or port == 0 or found is None or found.path or found.query or found.fragment:
        raise ConfigError(
            f"{redact(address)!r} is not the address of an MQTT broker: give mqtt://HOST:PORT, "
            "mqtt://USER:PASSWORD@HOST:PORT, or mqtts://HOST:PORT for an encrypted connection"
        )
    user, _, password = who.partition(":")
    return scheme, host, port or PORTS[scheme], unquote(user), unquote(password)


def broker(address: str, options: MqttOptions, client_id: str) -> Broker:
    """Return the broker at an address, with the password and the certificates as they are now.

    Raises:
        RetryError: a password cannot be read now.
        FatalError: a certificate cannot be read.
    """
    try:
        scheme, host, port, user, password = parts(resolve(address))
    except SourceError as error:
        raise RetryError(str(error)) from error
    context = None
    if scheme == "mqtts":
        file = options.ca
        try:
            context = ssl.create_default_context(cafile=file)
            if options.certificate is not None:
                file = options.certificate
                context.load_cert_chain(options.certificate, options.key, password=_no_password)
        except OSError as error:  # an ssl.SSLError, too
            why = getattr(error, "reason", None) or error.strerror or error
            raise FatalError(f"{file} cannot be used for the connection to the MQTT broker: {why}") from error
    return Broker(redact(address), host, port, client_id, user, password, context)


def client_id(topic: str, settings: DeliverSettings) -> str:
    """Return a client id that a restart does not change, and that differs between sinks and machines."""
    given = [socket.gethostname(), redact(settings.sink), topic, settings.model_dump_json(exclude={"sink", "options"})]
    return f"fer_stream-{hashlib.sha256(json.dumps(given).encode()).hexdigest()[:12]}"


def _no_password() -> str:
    raise ssl.SSLError(0, "its key is encrypted, and has to be without a password")
