"""Stores batches of events. A batch is one transaction, in which rows that are there already are left alone."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field

from fer_stream.errors import ConfigError, FatalError, RejectedError, RetryError, SourceError
from fer_stream.settings.options import read
from fer_stream.settings.redaction import redact
from fer_stream.settings.references import resolve
from fer_stream.settings.sections import Section
from fer_stream.sinks.postgres import schema
from fer_stream.sinks.postgres.failures import about_events, failure, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fer_stream.plugins import Delivery

MOST = 1000
"""Most events in a batch."""

CONNECT = 5
"""Seconds for a connection, unless the address says something else."""

STATEMENT = 15
"""Seconds for a statement, after which the server gives it up."""

LIMIT = 30.0
"""Seconds for a batch, after which the connection is cut."""

REFUSED = 10
"""Most events of a batch that are found one by one to be refused."""

HOUR = 3600.0
"""Seconds between two deletions of old events."""

DELETED = 10_000
"""Most events that are deleted at a time."""

DEFAULTS = {
    "connect_timeout": CONNECT,
    "fallback_application_name": "fer-stream deliver",
    # A peer that is gone is noticed also while nothing is sent.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 1000 * STATEMENT,
}
"""Parameters of libpq that hold unless the address has them."""

_BEGIN = """
SELECT set_config('statement_timeout', %s, true),
    set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
        ELSE current_setting('synchronous_commit') END, true)
"""
"""Begins a transaction whose end means that the events are on disk, whatever the server's default is."""

# The server takes the texts apart: that is five times as fast as an array of texts or a statement for each event.
_INSERT = """
INSERT INTO "{schema}".events (time, id, camera, type, epoch, frame, track, sequence, cursor, start_time, end_time,
    label, probability, peak, confidence, data, zone, line, direction)
SELECT (event->>'time')::timestamptz, event->>'id', nullif(substr(event->>'source', 10), ''), event->>'type',
    (event->>'epoch')::bigint, (event->>'frame')::bigint, substr(event->>'subject', 8)::bigint,
    (event->>'sequence')::bigint, event->>'cursor', (event->'data'->>'start_time')::timestamptz,
    (event->'data'->>'end_time')::timestamptz, event->'data'->>'label',
    (event->'data'->'probability'->>'mean')::real, (event->'data'->'probability'->>'peak')::real,
    (event->'data'->>'confidence')::real, event->'data', event->'data'->>'zone', event->'data'->>'line',
    event->'data'->>'direction'
FROM jsonb_array_elements(%s::jsonb) AS event
ON CONFLICT (time, id) DO NOTHING
"""
"""``substr`` removes ``/cameras/`` and ``tracks/``."""

_DELETE = """
DELETE FROM "{schema}".events WHERE (time, id) IN (
    SELECT time, id FROM "{schema}".events WHERE time < now() - make_interval(secs => %s) ORDER BY time LIMIT %s)
"""


class PostgresOptions(Section):
    """The options of the postgres sink."""

    schema_: Annotated[str, Field(pattern=schema.SCHEMA)] = Field(
        "fer_stream", alias="schema", description="the schema with the tables"
    )
    migrate: bool = Field(True, description="make and update the tables; otherwise somebody else has to")
    keep_days: Annotated[float, Field(gt=0)] | None = Field(
        None, description="delete events that are older than this; by default none is deleted", examples=[90.0]
    )


def open_database(argument: str, options: Mapping[str, object]) -> Postgres:
    """Return a sink; see `fer_stream.sinks.postgres.open_sink`.

    Raises:
        ConfigError: the address or an option is not allowed.
    """
    address = f"postgres:{argument}" if argument.startswith("//") else argument
    try:
        if not address.startswith(("postgres://", "postgresql://")):
            raise ConfigError("it does not begin with postgres://")
        given = conninfo_to_dict(redact(address))  # without the references, which may contain slashes
        ports = [port for port in str(given.get("port", "")).split(",") if port]
        if not all(port.isdecimal() and 0 < int(port) < 65_536 for port in ports):
            raise ConfigError("its port is not a number from 1 to 65535")
    except (psycopg.ProgrammingError, ConfigError) as error:
        raise ConfigError(
            f"{redact(address)!r} is not the address of a database: {str(error).strip()}; give "
            "postgres://USER@HOST:PORT/DATABASE, with ?PARAMETER=VALUE for more"
        ) from error
    return Postgres(address, read(PostgresOptions, options))


class Postgres:
    """Stores batches. It connects with the first batch, and anew after every failure."""

    most = MOST

    def __init__(self, address: str, options: PostgresOptions) -> None:
        self._address, self._options = address, options
        self._connection: psycopg.Connection | None = None
        self._ready = False
        """Whether the tables have been looked at since it was connected."""
        self._delete_at = 0.0
        self._insert, self._delete = (text.format(schema=options.schema_).encode() for text in (_INSERT, _DELETE))

    def write(self, batch: Sequence[Delivery]) -> None:
        """Store events; return when the server has them on disk.

        Raises:
            RetryError: no server answers, or it cannot store events now.
            RejectedError: the server refuses the values of some of them.
            FatalError: the server refuses this process, or the tables are missing or of a newer program.
        """
        with self._session() as connection:
            if not self._ready:
                schema.prepare(connection, self._options.schema_, migrate=self._options.migrate)
                self._ready = True
            if refused := self._store(connection, batch):
                raise RejectedError(refused)
            if self._options.keep_days is not None and time.monotonic() >= self._delete_at:
                self._purge(connection, self._options.keep_days)

    def check(self) -> None:
        """Do all that `write` does, on a connection of its own and without an event, and undo it.

        Raises:
            RetryError: as `write`.
            FatalError: as `write`.
        """
        self.close()
        with self._session() as connection, connection.transaction(force_rollback=True):
            schema.prepare(connection, self._options.schema_, migrate=self._options.migrate)
            self._execute(connection, self._insert, "[]")
            if self._options.keep_days is not None:
                self._execute(connection, self._delete, 0, 0)
        self.close()

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        connection, self._connection, self._ready = self._connection, None, False
        if connection is not None:
            connection.close()

    def _store(self, connection: psycopg.Connection, batch: Sequence[Delivery]) -> dict[str, str]:
        """Store the events that the server takes; return why it refuses others, by their ids.

        After `REFUSED` of them the rest is left, and comes again, so that the time for a batch is enough.
        """
        parts, refused = [batch], dict[str, str]()
        while parts and len(refused) < REFUSED:
            part = parts.pop()
            try:
                self._execute(connection, self._insert, f"[{','.join(one.text for one in part)}]")
            except psycopg.Error as error:
                if not about_events(error):
                    raise
                if len(part) == 1:
                    refused[part[0].id] = sentence(error)
                else:
                    half = len(part) // 2
                    parts += [part[half:], part[:half]]
        return refused

    def _purge(self, connection: psycopg.Connection, days: float) -> None:
        """Delete some of the events that are too old; go on with the next batch if there are more."""
        deleted = self._execute(connection, self._delete, 86_400 * days, DELETED)
        self._delete_at = 0.0 if deleted == DELETED else time.monotonic() + HOUR

    @staticmethod
    def _execute(connection: psycopg.Connection, statement: bytes, *values: object) -> int:
        """Execute a statement in a transaction of its own; return how many rows it has changed."""
        with connection.transaction():
            connection.execute(_BEGIN, (f"{STATEMENT}s",))
            return connection.execute(statement, values).rowcount

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection]:
        """Give a connection for at most `LIMIT` seconds. After a failure it is closed."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            with _cut_after(LIMIT, self._connection) as cut:
                try:
                    yield self._connection
                except psycopg.Error as error:
                    if cut.is_set():
                        raise RetryError(f"{self._name} does not answer within {LIMIT:g} s") from error
                    raise failure(error, self._name) from error
        except RejectedError:
            raise
        except BaseException:
            self.close()
            raise

    def _connect(self) -> psycopg.Connection:
        try:
            given = conninfo_to_dict(resolve(self._address))
        except SourceError as error:
            raise (RetryError if error.transient else FatalError)(str(error)) from error
        parameters: dict[str, Any] = {**DEFAULTS, **given, "client_encoding": "utf8"}
        try:  # prepared statements are of no use here, and a pooler may not know them
            return psycopg.connect(**parameters, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise failure(error, self._name) from error

    @property
    def _name(self) -> str:
        return f"the PostgreSQL server {redact(self._address)}"


@contextmanager
def _cut_after(seconds: float, connection: psycopg.Connection) -> Iterator[threading.Event]:
    """Break a connection that is still in use after some time; the event says so.

    A statement's own limit does not help if the server, or a proxy before it, does not answer at all.
    """
    cut = threading.Event()

    def shut() -> None:
        cut.set()
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)

    with socket.socket(fileno=socket.dup(connection.fileno())) as line:
        timer = threading.Timer(seconds, shut)
        timer.daemon = True
        timer.start()
        try:
            yield cut
        finally:
            timer.cancel()
