"""What an error of PostgreSQL means: it passes on its own, the operator has to act, or an event is refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg

from fer_stream.errors import FatalError, RetryError

if TYPE_CHECKING:
    from fer_stream.errors import DeliveryError

OF_EVENTS = ("22", "23", "54")
"""Classes of SQLSTATE that are about the data: invalid or too large values, broken constraints, limits of an index."""

READ_ONLY = "25006"

_ADVICE = {
    "42501": "grant this user what the page on this sink lists",
    "42P01": "make the tables again",
    "3F000": "make the tables again",
    "42703": "make the tables again",
}
"""What the operator is to do, by SQLSTATE."""

_REFUSED_AT_LOGIN = (
    (
        "authentication failed|no password supplied|password is (empty|null)|auth failed",
        "check the user and the password",
    ),
    (r"role .* does not exist|no such user|not permitted to log in", "check the user"),
    (r"database .* does not exist|no such database|not currently accepting connections", "check the database's name"),
    ("permission denied for database", "grant this user CONNECT"),
    ("no pg_hba.conf entry|pg_hba.conf rejects", "let this user connect in the server's pg_hba.conf"),
    ("server does not support SSL", "set up TLS on the server, or change sslmode"),
    (
        "certificate file|private key file|invalid sslmode|weak sslmode|definition of service|service file",
        "check the parameters of the address",
    ),
)
"""What libpq or the server say, without SQLSTATE, before there is a connection, and what the operator is to do."""


def about_events(error: psycopg.Error) -> bool:
    """Return whether an error is about the values of some of the events."""
    return (error.sqlstate or "")[:2] in OF_EVENTS


def sentence(error: psycopg.Error) -> str:
    """Return an error's text as a part of a sentence."""
    if error.diag.message_primary:
        return error.diag.message_primary
    text = str(error)
    attempts = dict.fromkeys(re.findall(r"connection to server .+", text))  # one for each address of each host
    return "; ".join(attempts) or text.partition("\n")[0].removeprefix("connection failed: ") or type(error).__name__


def failure(error: psycopg.Error, name: str) -> DeliveryError:
    """Return the error to raise for one of PostgreSQL's, which is not about events.

    Args:
        error: PostgreSQL's.
        name: the server's name, for display.
    """
    why, state = sentence(error), error.sqlstate or ""
    if not state:
        for pattern, advice in _REFUSED_AT_LOGIN:
            if re.search(pattern, why):
                return FatalError(f"{name} cannot be used: {why}; {advice}")
    if state == READ_ONLY:
        return RetryError(f"{name} is a standby, or read-only: {why}")
    if isinstance(error, psycopg.ProgrammingError | psycopg.NotSupportedError) or state[:2] == "28":
        return FatalError(f"{name} refuses to store events: {why}; {_ADVICE.get(state, 'see its log')}")
    return RetryError(f"{name} takes no events now: {why}")
