"""The webhook sink: its options, what each answer means, and which events of a refused batch are refused."""

from __future__ import annotations

import ssl
import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from fer_stream.errors import ConfigError, DeliveryError, FatalError, RejectedError, RetryError, SourceError
from fer_stream.settings import references
from fer_stream.settings.kinds import FilePath, Reference, Seconds  # noqa: TC001  (pydantic needs them)
from fer_stream.settings.options import read
from fer_stream.settings.redaction import redact
from fer_stream.settings.sections import Section
from fer_stream.sinks.webhook import messages
from fer_stream.sinks.webhook.client import Client, parse
from fer_stream.system.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fer_stream.plugins import Delivery
    from fer_stream.sinks.webhook.client import Answer

_FATAL = {
    HTTPStatus.UNAUTHORIZED: "check the token, the password or the secret",
    HTTPStatus.PAYMENT_REQUIRED: "ask its operator",
    HTTPStatus.FORBIDDEN: "check the token, the password or the secret, and what they permit",
    HTTPStatus.METHOD_NOT_ALLOWED: "the address takes no POST, check it",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "a proxy is in the way",
    HTTPStatus.GONE: "it wants no more events; give another address, or remove the sink",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "set the option mode to what it takes",
    HTTPStatus.UPGRADE_REQUIRED: "it does not take this version of HTTP",
}
"""Refusals of everything that is sent, with what the operator can do."""

_PASSING = {
    HTTPStatus.NOT_FOUND,  # also the answer of a proxy whose service starts just now
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.MISDIRECTED_REQUEST,
    HTTPStatus.LOCKED,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}
"""Refusals that may pass, besides all of 500 and above. Others from 400 on refuse what is in the request."""

_NO_OPTIONS = {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.UNSUPPORTED_MEDIA_TYPE}
"""Answers of receivers that take no ``OPTIONS``."""

SAID = 200
"""Most characters of an answer that are quoted."""

_FOR_GOOD = {HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.PERMANENT_REDIRECT}


class WebhookOptions(Section):
    """The options of the webhook sink."""

    mode: Literal["batched", "structured", "binary"] = Field(
        "batched", description="how events are sent: many in a request, or each in its own, as JSON or as headers"
    )
    most: Annotated[int, Field(ge=1, le=1000)] = Field(100, description="most events in a request")
    timeout: Annotated[Seconds, Field(le=300)] = Field(15.0, description="seconds for a whole answer")
    secret: Reference | None = Field(
        None,
        description="names the secret that requests are signed with, whsec_...; several, separated by blanks, all sign",
        examples=["file:/run/secrets/hook"],
    )
    token: Reference | None = Field(
        None, description="names the token that is sent as Authorization: Bearer", examples=["env:HOOK_TOKEN"]
    )
    ca: FilePath | None = Field(
        None,
        description="file with the certificate authority of the receiver (default: the system's)",
        examples=["ca.pem"],
    )
    certificate: FilePath | None = Field(
        None, description="file with the certificate of this process, if the receiver wants one", examples=["fer.pem"]
    )
    key: FilePath | None = Field(
        None, description="file with its key (default: it is in the certificate's file)", examples=["fer.key"]
    )


class _Access(NamedTuple):
    """What is read anew for each batch, because it may be replaced at any time."""

    target: str
    authorization: str
    keys: list[bytes]
    hidden: list[str]
    """What no message may repeat."""


class Webhook:
    """Sends each batch in one request, or each event in its own.

    If a request with several events is refused, its halves are sent, and so on, until it is known which events are
    refused. What the receiver has taken of a batch is not sent again when the rest comes again.
    """

    def __init__(self, argument: str, options: Mapping[str, object]) -> None:
        """Check the argument, an ``http://`` or ``https://`` address, and the options.

        Raises:
            ConfigError: this is not such an address, or an option is not allowed.
        """
        self._options = read(WebhookOptions, options)
        shown = redact(argument)
        try:
            self._address = parse(references.without(argument))
        except ValueError as error:
            raise ConfigError(
                f"{shown!r} is not the address of a receiver, {error}: give webhook:https://HOST/PATH or "
                "webhook:http://HOST:PORT/PATH"
            ) from error
        if self._address.user and self._options.token:
            raise ConfigError(f"{shown} has a user, and the option token is set: a request has room for one of them")
        if self._options.key and not self._options.certificate:
            raise ConfigError("option key: set the option certificate, too")
        self.most = self._options.most
        self._given, self._name = argument, f"the receiver {self._address}"
        self._client: Client | None = None
        self._taken: set[str] = set()

    def write(self, batch: Sequence[Delivery]) -> None:
        """Send events; return when the receiver has answered all requests with a status from 200 to 299.

        Raises:
            RetryError: it cannot be reached, is overloaded or has failed, or a file with a secret is missing.
            RejectedError: it refuses some of the events.
            FatalError: it refuses everything from this process, or a secret or certificate cannot be used.
        """
        access = self._access()
        self._taken &= {one.id for one in batch}
        waiting = [one for one in batch if one.id not in self._taken]
        parts = [waiting] if self._options.mode == "batched" else [[one] for one in waiting]
        parts = [part for part in reversed(parts) if part]
        refused: dict[str, str] = {}
        try:
            while parts:
                part = parts.pop()
                reason = self._post(part, access)
                if not reason:
                    self._taken |= {one.id for one in part}
                elif len(part) == 1:
                    refused[part[0].id] = reason
                else:
                    half = len(part) // 2
                    parts += [part[half:], part[:half]]
        except DeliveryError:
            if not refused:
                raise  # else they are dead letters from now on, and what was not sent comes again at once
        if refused:
            raise RejectedError(refused)
        self._taken.clear()

    def check(self) -> None:
        """Ask the receiver what it takes, with ``OPTIONS``, and send no event.

        Raises:
            RetryError: as `write`; or it answers that there is nothing, which may be true only of this question.
            FatalError: as `write`.
        """
        access = self._access()
        answer = self._ask("OPTIONS", access, {}, None)
        name = self._name
        if answer.status in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
            raise RetryError(
                f"{name} answers {_status(answer)} to OPTIONS: check the address if it does so to POST, too"
            )
        if answer.status not in _NO_OPTIONS:
            self._judge(answer)

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _post(self, part: Sequence[Delivery], access: _Access) -> str:
        """Send a request; return why its events are refused, or an empty text."""
        message = messages.make(self._options.mode, part)
        signature = messages.signature(message, access.keys, int(time.time()))
        return self._judge(self._ask("POST", access, message.headers | signature, message.body))

    def _ask(self, method: str, access: _Access, headers: dict[str, str], body: bytes | None) -> Answer:
        headers |= {"User-Agent": f"fer-stream/{__version__}", "Accept-Encoding": "identity"}
        if access.authorization:
            headers |= {"Authorization": access.authorization}
        self._client = self._client or self._connect()
        try:
            answer = self._client.send(method, access.target, headers, body)
        except DeliveryError:
            self.close()  # the next connection reads the certificates anew
            raise
        said = answer.said
        for hidden in access.hidden:  # some receivers repeat what they got
            said = said.replace(hidden, "***")
        return answer._replace(said=said[:SAID])

    def _connect(self) -> Client:
        options = self._options
        context = None
        if self._address.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=options.ca)
            except OSError as error:  # an ssl.SSLError, too
                raise FatalError(f"the option ca: {options.ca} cannot be used: {error.strerror or error}") from error
            if options.certificate is not None:
                try:  # without a password, OpenSSL would ask for one at the terminal
                    context.load_cert_chain(options.certificate, options.key, password="")
                except OSError as error:
                    files = " and ".join(str(path) for path in (options.certificate, options.key) if path)
                    raise FatalError(
                        f"the options certificate and key: {files} cannot be used: {error.strerror or error}; the key "
                        "needs to be there, without a password"
                    ) from error
        return Client(self._address, context, options.timeout)

    def _access(self) -> _Access:
        options = self._options
        try:
            address = parse(references.resolve(self._given))
            secrets = references.secret(options.secret) if options.secret else ""
            token = references.secret(options.token) if options.token else ""
        except SourceError as error:
            raise (RetryError if error.transient else FatalError)(str(error)) from error
        except ValueError as error:
            raise FatalError(f"{self._name}: its address is invalid with the password put in: {error}") from error
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise FatalError(f"the token that {options.token} holds has characters that a header cannot have")
        try:
            keys = messages.keys(secrets) if options.secret else []
        except ValueError as error:
            raise FatalError(f"what {options.secret} holds cannot be used: {error}") from error
        password = address.user.partition(":")[2]
        authorization = f"Bearer {token}" if token else address.authorization
        hidden = [*filter(None, [authorization.partition(" ")[2], token, password]), *secrets.split()]
        return _Access(address.target, authorization, keys, hidden)

    def _judge(self, answer: Answer) -> str:
        """Return why the events of a request are refused; an empty text if the receiver has taken them.

        Raises:
            RetryError: this answer may pass.
            FatalError: all events would get it until the operator has changed something.
        """
        status = answer.status
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return ""
        says = f"{self._name} answers {_status(answer)}"
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            where = redact(answer.location) or "somewhere else"
            raise (FatalError if status in _FOR_GOOD else RetryError)(
                f"{says}: it redirects to {where}; give the address that takes the events"
            )
        if answer.again is not None and status != HTTPStatus.GONE:
            raise RetryError(f"{says}, and wants the events in {answer.again:.0f} s", after=answer.again)
        if status in _FATAL:
            raise FatalError(f"{says}: {_FATAL[HTTPStatus(status)]}")
        if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR or status < HTTPStatus.OK:
            advice = ": check the address, if this does not pass" if status == HTTPStatus.NOT_FOUND else ""
            raise RetryError(says + advice)
        return says


def _status(answer: Answer) -> str:
    phrase = ""
    with suppress(ValueError):
        phrase = f" {HTTPStatus(answer.status).phrase}"
    return f"{answer.status}{phrase}" + (f" ({answer.said})" if answer.said else "")
