"""The nats sink of ``fer-stream deliver``: publishes events to NATS JetStream, each under a subject of its camera.

The header ``Nats-Msg-Id`` has the event's id, so the server drops a repeat within its stream's duplicate window.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import Field

from fer_stream.errors import ConfigError, FatalError, RejectedError, RetryError, SourceError
from fer_stream.settings.kinds import FilePath  # noqa: TC001  (pydantic needs it)
from fer_stream.settings.options import read
from fer_stream.settings.redaction import redact
from fer_stream.settings.references import resolve
from fer_stream.settings.sections import Section
from fer_stream.system import extras

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from fer_stream.plugins import Delivery
    from fer_stream.settings.tree import DeliverSettings

MOST = 500
"""Most events in a batch, all of which are on their way at the same time."""

CONNECT = 5.0
"""Seconds for a connection."""

ANSWERS = 10.0
"""Seconds for the answers to a batch."""

CLOSE = 1.0
"""Seconds for an orderly end of the connection."""

_TOO_LARGE = 10_054
"""JetStream's code: a message is larger than its stream allows."""

_NO_STREAM = {"code": 503, "description": "no stream takes this subject"}
"""Stands for the server's statement that nobody listens to a subject."""

Result = TypeVar("Result")


class NatsOptions(Section):
    """The options of the nats sink."""

    subject: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")] = Field(
        "fer_stream", description="what subjects begin with; the camera and the event's type follow"
    )
    stream: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = Field(
        "fer_stream", description="the stream that is made if none takes these subjects"
    )
    create: bool = Field(True, description="make the stream if none takes these subjects")
    max_days: Annotated[float, Field(gt=0)] = Field(
        30.0, description="days for which the stream that is made keeps events"
    )
    replicas: Annotated[int, Field(ge=1, le=5)] = Field(
        1, description="copies of each event in the stream that is made"
    )
    credentials: FilePath | None = Field(
        None, description="a credentials file, or a file with an nkey seed", examples=["fer-stream.creds"]
    )
    ca: FilePath | None = Field(
        None,
        description="file with the certificate authority of the servers, for tls:// (default: the system's)",
        examples=["ca.pem"],
    )


def open_sink(argument: str, settings: DeliverSettings) -> JetStream:
    """Return a sink for the servers at ``argument``: ``//HOST:PORT``, ``nats://USER:PASSWORD@HOST`` or ``tls://HOST``.

    Raises:
        ConfigError: this is not such an address, or an option is not allowed.
        PluginError: nats-py is not installed.
    """
    extras.require("nats", "fleet")
    return JetStream(f"nats:{argument}" if argument.startswith("//") else argument, read(NatsOptions, settings.options))


def _servers(address: str) -> tuple[str, list[str], str, str]:
    """Return the scheme of an address, its servers, user and password.

    Raises:
        ConfigError: this is not an address of NATS servers.
    """
    scheme, _, rest = address.partition("://")
    who, _, hosts = rest.rstrip("/").rpartition("@")
    servers = [f"{scheme}://{host}" for host in hosts.split(",")]
    try:
        named = all(urlsplit(server).hostname and urlsplit(server).port != 0 for server in servers)
        whole = all(not (urlsplit(server).path or urlsplit(server).query) for server in servers)
    except ValueError:  # a port that is not a number
        named = whole = False
    if scheme not in ("nats", "tls") or not named or not whole:
        raise ConfigError(
            f"{redact(address)!r} is not the address of NATS servers: give nats://HOST:PORT, "
            "nats://USER:PASSWORD@HOST:PORT, nats:tls://HOST:PORT, or several as HOST:PORT,HOST:PORT"
        )
    user, _, password = who.partition(":")
    return scheme, servers, unquote(user), unquote(password)


class JetStream:
    """Publishes batches. It connects with the first batch, and anew after every failure."""

    most = MOST

    def __init__(self, address: str, options: NatsOptions) -> None:
        _servers(address)
        self._address, self._options = address, options
        self._client: Client | None = None
        self._inbox = ""
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        """The answers that are still to come, by the last token of their subject."""
        self._tokens = itertools.count()
        self._problem = ""
        self._loop = asyncio.new_event_loop()  # it runs between batches, too, to answer the server's pings
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)

    def write(self, batch: Sequence[Delivery]) -> None:
        """Publish events; return when the server has stored all of them.

        Raises:
            RetryError: no server answers, no stream takes them, or one cannot store them now.
            RejectedError: some are larger than the server or the stream allows.
            FatalError: the server refuses this process.
        """
        if not self._thread.is_alive():
            self._thread.start()
        try:
            self._submit(self._publish(batch))
        except RejectedError:
            raise
        except BaseException:
            self._submit(self._disconnect())
            raise

    def check(self) -> None:
        """Find out whether a server answers, lets this process in, and has or may make a stream; publish nothing.

        Raises:
            RetryError: as `write`.
            FatalError: as `write`.
        """
        if not self._thread.is_alive():
            self._thread.start()
        try:
            self._submit(self._look())
        except BaseException:
            self._submit(self._disconnect())
            raise

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            self._submit(self._disconnect())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def _submit(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # In the loop

    async def _publish(self, batch: Sequence[Delivery], *, new: bool = False) -> None:
        client = self._client or await self._connect()
        reasons = {
            one.id: f"it has {len(one.text.encode())} bytes, and the server takes {client.max_payload}"
            for one in batch
            if len(one.text.encode()) > client.max_payload - 200  # the headers count
        }
        if reasons:
            raise RejectedError(reasons)
        try:
            async with asyncio.timeout(ANSWERS):
                answers = [await self._send(client, one) for one in batch]
                errors = [answer.get("error", {}) for answer in await asyncio.gather(*answers)]
        except TimeoutError as error:
            raise RetryError(f"{self._name} does not answer within {ANSWERS:g} s{self._because()}") from error
        except (OSError, extras.require("nats.errors", "fleet").Error) as error:
            raise RetryError(f"the connection to {self._name} broke: {error or type(error).__name__}") from error
        if not new and _NO_STREAM in errors:
            await self._make_stream(client)
            await self._publish(batch, new=True)
            return
        for one, refusal in zip(batch, errors, strict=True):
            if refusal.get("err_code") == _TOO_LARGE:
                reasons[one.id] = refusal["description"]
        if reasons:
            raise RejectedError(reasons)
        for refusal in filter(None, errors):
            raise RetryError(f"{self._name} does not store events: {refusal.get('description', refusal)}")

    async def _send(self, client: Client, delivery: Delivery) -> asyncio.Future[dict[str, Any]]:
        """Publish an event, and return its answer to come. nats-py's own method loses answers that are errors."""
        token = str(next(self._tokens))
        answer = self._waiting[token] = self._loop.create_future()
        await client.publish(
            self._subject(delivery),
            delivery.text.encode(),
            reply=f"{self._inbox}.{token}",
            headers={"Nats-Msg-Id": delivery.id, "Content-Type": "application/cloudevents+json"},
        )
        return answer

    async def _answered(self, message: Msg) -> None:
        answer = self._waiting.pop(message.subject.rpartition(".")[2], None)
        if answer is None or answer.done():
            return
        status = (message.headers or {}).get("Status")
        try:
            answer.set_result({"error": _NO_STREAM} if status == "503" else json.loads(message.data))
        except ValueError:
            answer.set_result({"error": {"description": "an answer that is not JetStream's"}})

    @property
    def _name(self) -> str:
        return f"the NATS server {redact(self._address)}"

    def _because(self) -> str:
        return f": {self._problem}" if self._problem else ""

    def _subject(self, delivery: Delivery) -> str:
        """Return ``PREFIX.CAMERA.FAMILY.WHAT``. A dot in a camera's name, which would begin a token, becomes ``_``."""
        camera = delivery.event.camera.replace(".", "_") or "_"
        return f"{self._options.subject}.{camera}.{delivery.event.type}"

    async def _look(self) -> None:
        """Find the stream that takes the subjects; there need be none if it may be made."""
        client = self._client or await self._connect()
        options, js = self._options, extras.require("nats.js.errors", "fleet")
        try:
            await client.jetstream(timeout=CONNECT).find_stream_name_by_subject(f"{options.subject}.>")
        except js.NotFoundError as error:
            if not options.create:
                raise RetryError(self._no_stream()) from error
        except js.ServiceUnavailableError as error:
            raise RetryError(f"{self._name} has no JetStream: start it with --jetstream") from error
        except (js.Error, OSError, extras.require("nats.errors", "fleet").Error) as error:
            reason = getattr(error, "description", None) or error or type(error).__name__
            raise RetryError(f"{self._name} does not say which streams it has: {reason}{self._because()}") from error

    def _no_stream(self) -> str:
        subjects = f"{self._options.subject}.>"
        return f"{self._name}: no stream takes the subjects {subjects}; make one, or set the option create"

    async def _make_stream(self, client: Client) -> None:
        options, js = self._options, extras.require("nats.js.errors", "fleet")
        subjects = f"{options.subject}.>"
        if not options.create:
            raise RetryError(self._no_stream())
        try:
            await client.jetstream().add_stream(
                name=options.stream,
                subjects=[subjects],
                num_replicas=options.replicas,
                max_age=options.max_days * 86_400,
                duplicate_window=min(3600.0, options.max_days * 86_400),
            )
        except (js.Error, TimeoutError) as error:
            reason = getattr(error, "description", None) or error or type(error).__name__
            raise RetryError(
                f"{self._name}: no stream takes the subjects {subjects}, and none can be made: {reason}"
            ) from error

    async def _connect(self) -> Client:
        nats = extras.require("nats.aio.client", "fleet")
        client: Client = nats.Client()
        self._problem = ""
        try:
            async with asyncio.timeout(CONNECT):
                await client.connect(
                    **self._given(), error_cb=self._note, allow_reconnect=False, name="fer-stream deliver"
                )
        except Exception as error:
            with suppress(Exception):
                await asyncio.wait_for(client.close(), CLOSE)
            said = f"{error} {self._problem}".lower()
            if "authorization" in said or "authentication" in said:
                raise FatalError(
                    f"{self._name} refuses this process: check the user, the password or the credentials"
                ) from error
            reason = self._problem or str(error) or type(error).__name__
            raise RetryError(f"{self._name} cannot be reached: {reason}") from error
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.*", cb=self._answered)
        self._client = client
        return client

    def _given(self) -> dict[str, Any]:
        options = self._options
        try:
            scheme, servers, user, password = _servers(resolve(self._address))
            given: dict[str, Any] = {"servers": servers, "connect_timeout": CONNECT / 2, "ping_interval": 5}
            given |= {"reconnect_time_wait": 0.25}
            if user:
                given |= {"user": user, "password": password}
            if options.credentials is not None:
                extras.require("nkeys", "fleet")
                jwt = "USER JWT" in options.credentials.read_text(encoding="utf-8", errors="replace")
                given["user_credentials" if jwt else "nkeys_seed"] = str(options.credentials)
            if scheme == "tls":
                given["tls"] = ssl.create_default_context(cafile=options.ca)
        except SourceError as error:
            raise RetryError(str(error)) from error
        except OSError as error:  # an ssl.SSLError, too
            raise FatalError(
                f"{options.credentials or options.ca} cannot be read: {error.strerror or error}"
            ) from error
        return given

    async def _note(self, error: Exception) -> None:
        self._problem = str(error) or type(error).__name__

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        self._waiting.clear()
        if client is not None:
            with suppress(Exception):  # whatever state it is in, this is the end of it
                await asyncio.wait_for(client.close(), CLOSE)
