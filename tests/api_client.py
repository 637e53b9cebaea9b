"""A client of the HTTP API, over real sockets."""

from __future__ import annotations

import http.client
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from served import get

from fer_stream.live.api.contract import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator


def ask(url: str, path: str, status: int = 200, **parameters: Any) -> Any:
    answer = get(url, f"{PREFIX}{path}?{urlencode(parameters, doseq=True)}")
    assert answer.status == status, answer.body  # type: ignore[attr-defined]
    kind = "application/json" if status == 200 else "application/problem+json"
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    return json.loads(answer.body)  # type: ignore[attr-defined]


def refused(url: str, path: str, status: int, **parameters: Any) -> str:
    found = ask(url, path, status, **parameters)
    assert found["status"] == status
    return found["detail"]


@contextmanager
def stream(url: str, after: str | None = None, **parameters: Any) -> Iterator[Iterator[dict[str, str]]]:
    """The messages of a stream of events, each with its fields; ``after`` is sent as Last-Event-ID."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=60)
    headers = {} if after is None else {"Last-Event-ID": after}
    connection.request("GET", f"{PREFIX}/events/stream?{urlencode(parameters, doseq=True)}", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"

    def messages() -> Iterator[dict[str, str]]:
        message: dict[str, str] = {}
        for line in answer:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                message[name] = value
            else:
                yield message
                message = {}

    try:
        yield messages()
    finally:
        answer.close()
        connection.close()
