"""Events as the body and headers of a request, and the signature of a request.

The content modes are those of the CloudEvents HTTP protocol binding 1.0, the signature is that of Standard Webhooks
(https://www.standardwebhooks.com).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import string
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.plugins import Delivery

    Mode = Literal["batched", "structured", "binary"]

KEY = 24
"""Least bytes of a key, as Standard Webhooks demands."""

_PLAIN = "".join(sorted({*string.printable} - {*string.whitespace, '"', "%"}))
"""What a header of the binary mode holds as it is; all else is percent-encoded."""


class Message(NamedTuple):
    """A request without its address. ``id`` depends only on the events, so a repeat can be recognised."""

    id: str
    headers: dict[str, str]
    body: bytes


def make(mode: Mode, deliveries: Sequence[Delivery]) -> Message:
    """Return the request for events; in another mode than ``batched`` it is exactly one."""
    identity = deliveries[0].id
    if len(deliveries) > 1:
        identity = hashlib.sha256("\n".join(one.id for one in deliveries).encode()).hexdigest()[:32]
    if mode == "batched":
        body = f"[{','.join(one.text for one in deliveries)}]"
        return Message(identity, _typed("application/cloudevents-batch+json; charset=utf-8"), body.encode())
    (only,) = deliveries
    if mode == "structured":
        return Message(identity, _typed("application/cloudevents+json; charset=utf-8"), only.text.encode())
    attributes = json.loads(only.text)
    data = json.dumps(attributes.pop("data", None), ensure_ascii=False, separators=(",", ":"))
    headers = _typed(attributes.pop("datacontenttype", "application/json"))
    headers |= {f"ce-{name}": _header(value) for name, value in attributes.items() if value is not None}
    return Message(identity, headers, data.encode())


def _typed(kind: str) -> dict[str, str]:
    return {"Content-Type": kind}


def _header(value: object) -> str:
    return quote(value if isinstance(value, str) else json.dumps(value), safe=_PLAIN)


def keys(secrets: str) -> list[bytes]:
    """Return the keys in one or more secrets with blanks between them, each ``whsec_`` and base64.

    Raises:
        ValueError: there is none, or one is not such a secret; the message does not repeat it.
    """
    found = []
    if not secrets.split():
        raise ValueError("it is blank")
    for secret in secrets.split():
        try:
            text = secret.removeprefix("whsec_").rstrip("=")
            key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except binascii.Error:
            key = b""
        if not secret.startswith("whsec_") or len(key) < KEY:
            raise ValueError(f"a secret is whsec_ and at least {KEY} bytes in base64")
        found.append(key)
    return found


def signature(message: Message, keys: Sequence[bytes], now: int) -> dict[str, str]:
    """Return the headers that identify and sign a request: a signature for each key, at ``now`` in Unix seconds."""
    signed = f"{message.id}.{now}.".encode() + message.body
    signatures = [base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys]
    headers = {"webhook-id": message.id, "webhook-timestamp": str(now)}
    return headers | ({"webhook-signature": " ".join(f"v1,{one}" for one in signatures)} if signatures else {})
