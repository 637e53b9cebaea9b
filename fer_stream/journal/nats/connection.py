"""One connection to NATS in a thread of its own, its requests, and a sentence for each thing that can go wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import socket
import ssl
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from fer_stream.errors import ConfigError, JournalError
from fer_stream.settings.deployment import loopback
from fer_stream.settings.redaction import redact
from fer_stream.system import extras

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from concurrent.futures import Future

    from nats.aio.client import Client

    from fer_stream.settings.tree import JournalSettings

REQUEST = 1.0
"""Seconds for an answer of the server."""

OPENING = 10.0
"""Seconds for a server or cluster to answer at the start: a cluster may be electing its leader."""

PING = 1
"""Seconds between two pings. A connection that does not answer two of them is given up."""

DELIVERY = 2.0
"""Seconds after which undelivered data ends a connection."""

RECONNECT = 0.25
"""Seconds between two attempts to connect to the same server again."""

LEAST = (2, 12)
"""The first version of nats-server with atomic batches."""

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

# asyncio says this whenever an encrypted connection ends, because nats-py encrypts one that is open already.
logging.getLogger("asyncio").addFilter(lambda record: "eof_received() has no effect" not in record.getMessage())


_CAUSES = (
    (
        ("authorization", "authentication", "credentials", "nkey"),
        "refuses this process: check the user and password in its address, or journal.credentials",
    ),
    (
        ("certificate", "ssl", "tls", "secure"),
        "has no encrypted connection that can be trusted ({}): use tls://, and check journal.ca",
    ),
    (
        ("refused", "connect call failed"),
        "cannot be reached: nothing listens there; start nats-server --jetstream, or check the address",
    ),
    (
        ("name or service", "resolution", "getaddrinfo", "nodename"),
        "cannot be reached: there is no such host",
    ),
)
"""What a client's error contains, and the sentence for it."""


_NOT_PERMITTED = 403
"""The code of a `RefusedError` that the server's permissions cause."""


class UnclearError(Exception):
    """A request has no answer, or none that says whether it was carried out. The text says why."""


class RefusedError(Exception):
    """JetStream refused a request: ``code`` is its error code (``err_code``)."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("description", error)))
        self.code = int(error.get("err_code", error.get("code", 0)))


class Stored(NamedTuple):
    """A message of a stream."""

    sequence: int
    subject: str
    text: str
    identity: str


class Address(NamedTuple):
    """The setting ``journal.path`` in parts."""

    name: str
    servers: tuple[str, ...]
    user: str
    password: str
    encrypted: bool


def parse(address: str) -> Address:
    """Return the parts of ``nats://USER:PASSWORD@HOST:PORT,HOST:PORT``; port 4222 may be left out.

    Raises:
        ConfigError: this is not such an address.
    """
    scheme, _, rest = address.partition("://")
    who, at, hosts = rest.rpartition("@")
    user, colon, password = who.partition(":")
    servers = []
    for host in hosts.split(","):
        match = re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?/?", host)
        if match is None or not 0 < int(match[2] or 4222) < 65_536 or (at and not (user and colon)):
            raise ConfigError(
                f"{redact(address)!r} is not the address of NATS servers: give nats://HOST:PORT, "
                "nats://USER:PASSWORD@HOST:PORT, or several as HOST:PORT,HOST:PORT"
            )
        servers.append(f"{scheme}://{match[1]}:{match[2] or 4222}")
    name = f"{scheme}://{','.join(server.partition('://')[2] for server in servers)}"
    return Address(name, tuple(servers), unquote(user), unquote(password), scheme == "tls")


def _limit(client: Client) -> None:
    """Let the system give up what it has not delivered after `DELIVERY` seconds; it could deliver it much later."""
    transport: Any = client._transport
    sock = transport._io_writer.get_extra_info("socket")
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(DELIVERY * 1000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing drops what is not sent


class Connection:
    """A connection, and the thread with the event loop that serves it. Its coroutines run in this loop only.

    It reconnects by itself, without limit. While there is no connection, requests fail at once, and a broken connection
    takes with it what it had not delivered: no request arrives long after it was given up.
    """

    def __init__(self, settings: JournalSettings) -> None:
        self.address = parse(str(settings.path))
        self.name = self.address.name
        self.settings = settings
        self.on_connect: list[Callable[[Client], Awaitable[None]]] = []
        """Called in the loop, at the same time, when the client has reconnected, or is a new one."""
        self._problem = ""
        self.ending = False
        """Whether `close` was called."""
        self._connected = False
        self._client: Client | None = None
        self._options: dict[str, Any] = {}
        self._hopeless: asyncio.Future[Exception] | None = None
        """Done when a refusal says that further attempts are of no use."""
        self._renewing: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="journal", daemon=True)

    # From other threads

    @property
    def warning(self) -> str:
        """What should be improved, for display; empty if nothing."""
        far = [server for server in self.address.servers if not loopback(urlsplit(server).hostname or "")]
        if self.address.encrypted or not far:
            return ""
        return f"the journal {self.name} is on another machine, and its connection is not encrypted: use tls://"

    def start(self) -> None:
        """Start the thread, connect, and check that the server can be used.

        Raises:
            JournalError: no server can be reached, it refuses this process, or it has no suitable JetStream.
            ConfigError: the credentials cannot be read.
            PluginError: nats-py is not installed.
        """
        try:
            options = self._given_options()
        except BaseException:
            self._loop.close()
            raise
        self._thread.start()
        try:
            self.submit(self._connect(options)).result()
        except BaseException:
            self.close()
            raise

    def submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run a coroutine in the loop, and return its future."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Give up what still runs, and close the connection; a second call does nothing."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            self.submit(self._end()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    # In the loop

    async def _end(self) -> None:
        self.ending = True
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if self._client is not None:
            with suppress(Exception):  # whatever the state it is in, this process is done with it
                await asyncio.wait_for(self._client.close(), REQUEST)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=REQUEST)

    def _given_options(self) -> dict[str, Any]:
        address, settings = self.address, self.settings
        options: dict[str, Any] = {"servers": list(address.servers)}
        if address.user:
            options |= {"user": address.user, "password": address.password}
        try:
            if settings.credentials is not None:
                content = settings.credentials.read_text(encoding="utf-8", errors="replace")
                extras.require("nkeys", "fleet")
                kind = "user_credentials" if "USER JWT" in content else "nkeys_seed"
                options[kind] = str(settings.credentials)
            if address.encrypted:
                options["tls"] = ssl.create_default_context(cafile=settings.ca)
        except OSError as error:  # an ssl.SSLError, too
            which = settings.credentials if "tls" not in options and settings.credentials else settings.ca
            raise ConfigError(
                f"{which} cannot be read: {error.strerror or error}; check the journal's settings"
            ) from error
        return options

    async def _connect(self, options: dict[str, Any]) -> None:
        options |= {"name": "fer-stream", "connect_timeout": 2, "ping_interval": PING, "max_outstanding_pings": 2}
        options |= {"max_reconnect_attempts": -1, "reconnect_time_wait": RECONNECT, "error_cb": self._note}
        options |= {"pending_size": 0}  # nothing is kept while there is no connection
        options |= {"disconnected_cb": self._disconnected, "reconnected_cb": self._reconnected}
        self._options = options | {"closed_cb": self._closed}
        client = await self._new_client()
        version = client.connected_server_version
        if (version.major, version.minor) < LEAST:
            raise JournalError(
                f"the journal {self.name} needs nats-server {LEAST[0]}.{LEAST[1]} or newer, and this is "
                f"{version.major}.{version.minor}: update the server"
            )
        self._connected = True

    async def _new_client(self) -> Client:
        client: Client = extras.require("nats.aio.client", "fleet").Client()
        self._client, self._problem = client, ""
        connecting = asyncio.ensure_future(client.connect(**self._options))
        hopeless = self._hopeless = asyncio.get_running_loop().create_future()
        both: set[asyncio.Future[Any]] = {connecting, hopeless}
        await asyncio.wait(both, timeout=OPENING / 2, return_when=asyncio.FIRST_COMPLETED)
        if not client.is_connected:
            connecting.cancel()
            await asyncio.wait({connecting}, timeout=REQUEST)
            failed = connecting.done() and not connecting.cancelled()
            error = hopeless.result() if hopeless.done() else connecting.exception() if failed else None
            raise JournalError(self._why(error))
        self._problem = ""
        _limit(client)
        return client

    async def _note(self, error: Exception) -> None:
        self._problem = str(error) or type(error).__name__
        _log.debug("NATS: %s", self._problem)
        refused = any(word in self._problem.lower() for words, _ in _CAUSES[:2] for word in words)
        if refused and self._hopeless is not None and not self._hopeless.done():
            self._hopeless.set_result(error)

    async def _disconnected(self) -> None:
        if self._client is not None:  # what was not sent would be sent when it is connected again: too late
            self._client._pending, self._client._pending_data_size = [], 0
        if not self.ending:
            _log.info("the connection to %s is lost", self.name)

    async def _reconnected(self) -> None:
        _log.info("the connection to %s is back", self.name)
        self._problem = ""
        if self._client is not None:
            _limit(self._client)
            await asyncio.gather(*(action(self._client) for action in self.on_connect))

    async def _closed(self) -> None:
        """Replace a client that gave up for good: after a refusal, which may be temporary, it does not reconnect."""
        if self._connected and not self.ending and self._renewing is None:
            self._renewing = asyncio.ensure_future(self._renew())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(1)
            with suppress(JournalError):
                await self._new_client()
                break
        self._renewing = None
        await self._reconnected()

    def _why(self, error: BaseException | None = None) -> str:
        """Return the sentence for a connection or a request that fails."""
        cause = f"{self._problem} {error or ''}".lower()
        journal = f"the journal {self.name}"
        for words, sentence in _CAUSES:
            if any(word in cause for word in words):
                return f"{journal} {sentence.format(error or self._problem)}"
        if not self._connected and any(word in cause for word in ("info", "json", "parse", "protocol", "eof")):
            return f"{journal} cannot be used: what listens there is no NATS server; check the port"
        return f"{journal} does not answer: check that the servers run and can be reached"

    def _unclear(self, error: Exception, subject: str) -> UnclearError | RefusedError:
        """Return the error to raise for a request without an answer."""
        # The server reports what it does not permit beside the requests, and nats-py in lower case.
        if f'"{subject.lower()}"' in self._problem.lower():
            return RefusedError({"err_code": _NOT_PERMITTED, "description": subject})
        return UnclearError(self._why(error))

    def trouble(self, error: Exception) -> str:
        """Return a sentence for an `UnclearError` or `RefusedError`."""
        if isinstance(error, RefusedError):
            return self._refusal(error)
        return str(error)

    def _refusal(self, error: RefusedError) -> str:
        journal = f"the journal {self.name}"
        match error.code:
            case 10077 if "maximum bytes" in str(error):
                return (
                    f"{journal} is full: it has reached journal.max_gib ({self.settings.max_gib:g}); "
                    "set more, or delete old events with fer-stream purge"
                )
            case 10047 | 10028:
                return (
                    f"{journal} has no room for journal.max_gib ({self.settings.max_gib:g}): "
                    "set less, or give the server more storage"
                )
            case 10039 | 10076:
                return f"{journal} has no JetStream for this user: start nats-server --jetstream, or enable the account"
            case code if code == _NOT_PERMITTED:
                return f"{journal} denies this user {error}: grant it in the server's permissions"
            case 10059:
                return f"there is no journal at {self.name}: an aggregator makes it"
            case _:
                return f"{journal} refuses: {error} ({error.code})"

    @property
    def client(self) -> Client:
        """The connected client.

        Raises:
            UnclearError: there is no connection at present.
        """
        if self._client is None or not self._client.is_connected:
            raise UnclearError(self._why())
        return self._client

    async def request(self, subject: str, data: bytes = b"", headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Send a message, and return the answer.

        Raises:
            UnclearError: there is none.
            RefusedError: it is an error of JetStream.
        """
        errors = extras.require("nats.errors", "fleet")
        try:
            answer = json.loads((await self.client.request(subject, data, timeout=REQUEST, headers=headers)).data)
        except errors.NoRespondersError as error:
            if subject.startswith("$JS.API."):
                raise RefusedError({"err_code": 10076, "description": "no JetStream"}) from error
            raise UnclearError(f"the journal {self.name} has no leader at present: wait until it has one") from error
        except (errors.Error, OSError, ValueError, TimeoutError) as error:
            raise self._unclear(error, subject) from error
        if found := answer.get("error"):
            raise RefusedError(found)
        return dict(answer)

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a message without an answer.

        Raises:
            UnclearError: there is no connection.
        """
        errors = extras.require("nats.errors", "fleet")
        try:
            await self.client.publish(subject, data, headers=headers)
        except (errors.Error, OSError, ValueError) as error:
            raise UnclearError(self._why(error)) from error

    async def api(self, subject: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call JetStream's API (``$JS.API.<subject>``), as `request`."""
        return await self.request(f"$JS.API.{subject}", json.dumps(body).encode() if body is not None else b"")

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the latest message of a subject, from the stream's leader; as `request`."""
        return await self.get(stream, {"last_by_subj": subject})

    async def get(self, stream: str, what: Mapping[str, Any]) -> Stored | None:
        """Return a message from the stream's leader (``STREAM.MSG.GET``), or ``None``; as `request`."""
        try:
            found = (await self.api(f"STREAM.MSG.GET.{stream}", what))["message"]
        except RefusedError as error:
            if error.code == 10037:
                return None
            raise
        identity = re.search(rb"Nats-Msg-Id: ?(\S+)", base64.b64decode(found.get("hdrs", "")))
        text = base64.b64decode(found.get("data", "")).decode(errors="replace")
        return Stored(found["seq"], found["subject"], text, identity[1].decode() if identity else "")

    async def fetch(self, stream: str, what: Mapping[str, Any]) -> tuple[list[Stored], dict[str, str]]:
        """Return several messages from any copy of the stream, and the headers of the answer's end.

        Args:
            stream: the stream's name.
            what: a request for a batch: NATS ADR-31.

        Raises:
            UnclearError: the answer is missing or incomplete.
            RefusedError: the request is refused.
        """
        errors = extras.require("nats.errors", "fleet")
        found: list[Stored] = []
        subject = f"$JS.API.DIRECT.GET.{stream}"
        try:
            client = self.client
            inbox = client.new_inbox()
            answers = await client.subscribe(inbox)
            try:
                await client.publish(subject, json.dumps(what).encode(), reply=inbox)
                while True:
                    message = await answers.next_msg(timeout=REQUEST)
                    headers = {str(getattr(key, "value", key)): value for key, value in (message.headers or {}).items()}
                    if "Nats-Sequence" not in headers:
                        break
                    found.append(
                        Stored(
                            int(headers["Nats-Sequence"]),
                            headers["Nats-Subject"],
                            message.data.decode(errors="replace"),
                            headers.get("Nats-Msg-Id", ""),
                        )
                    )
            finally:
                await answers.unsubscribe()
        except (errors.Error, OSError, ValueError, TimeoutError) as error:
            raise self._unclear(error, subject) from error
        status = headers.get("Status", "")
        if status == "503":
            raise RefusedError({"err_code": 10059, "description": "no stream"})
        if status not in ("204", "404"):
            raise RefusedError({"err_code": int(status or 0), "description": headers.get("Description", "")})
        return found, headers
