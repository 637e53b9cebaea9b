"""The postgres sink of `fer-stream deliver`, with a real PostgreSQL, which ``psql`` reads as a second witness."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from journals import event
from nats_servers import AnswersProxy
from postgres_servers import UNDER, PostgresServer
from processes import free_port, wait_for

from fer_stream.errors import ConfigError, FatalError, RejectedError, RetryError
from fer_stream.events.cloudevents import encode, event_id
from fer_stream.events.rows import Row
from fer_stream.events.spans import Parts
from fer_stream.events.statistics import Record
from fer_stream.journal.contents import gap
from fer_stream.plugins import Delivery
from fer_stream.settings.tree import DeliverSettings
from fer_stream.sinks.postgres import open_sink
from fer_stream.sinks.postgres import sink as module
from fer_stream.types import (
    Event,
    EventType,
    ExpressionData,
    Level,
    MeasureData,
    Milliseconds,
    Nanoseconds,
    Probability,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fer_stream.sinks.postgres.sink import Postgres

SECOND = 1_000_000_000


def as_delivery(one: Event) -> Delivery:
    return Delivery(event_id(one), one, encode(one))


def resets(*frames: int, camera: str = "door") -> list[Delivery]:
    return [as_delivery(event("camera.reset", camera, frame)) for frame in frames]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that a test may stop and configure."""
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.close()


_numbers = itertools.count(1)


class Database:
    """A new database, and sinks that are closed at the end."""

    def __init__(self, server: PostgresServer) -> None:
        self.server, self.name = server, f"d{next(_numbers)}"
        server.psql(f"CREATE DATABASE {self.name}")
        self._sinks: list[Postgres] = []

    def sink(self, user: str = "admin", parameters: dict[str, object] | None = None, **options: Any) -> Postgres:
        return self.opened(self.server.address(self.name, user, **(parameters or {})), **options)

    def opened(self, address: str, **options: Any) -> Postgres:
        made = open_sink(address.removeprefix("postgres:"), DeliverSettings(sink="postgres:x", options=options))
        self._sinks.append(made)  # type: ignore[arg-type]
        return made  # type: ignore[return-value]

    def psql(self, statement: str, user: str = "admin") -> list[list[str]]:
        return self.server.psql(statement, self.name, user)

    def ids(self) -> list[str]:
        return [row[0] for row in self.psql("SELECT id FROM fer_stream.events ORDER BY time")]

    def role(self, rights: str = "") -> str:
        """Make a role without rights of its own, and return its name."""
        name = f"r{next(_numbers)}"
        self.psql(f"CREATE ROLE {name} LOGIN {rights}")
        return name

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()
            sink.close()


@pytest.fixture
def database(server: PostgresServer) -> Iterator[Database]:
    made = Database(server)
    yield made
    made.close()


@pytest.fixture
def own_database(own_server: PostgresServer) -> Iterator[Database]:
    made = Database(own_server)
    yield made
    made.close()


def test_each_event_is_a_row_once(database: Database) -> None:
    sink = database.sink()
    batch = [
        as_delivery(replace(event("emotion.ended", track=3), sequence=7, cursor="9")),  # type: ignore[arg-type]
        as_delivery(event("face.entered", track=3)),
        *resets(2),
        as_delivery(gap(1, 4, "retention")),
    ]
    sink.write(batch)
    sink.write([*resets(3), *batch])
    rows = database.psql(
        "SELECT id, extract(epoch FROM time), camera, type, epoch, frame, track, sequence, cursor, start_time, "
        "end_time = time, label, probability, peak, confidence FROM fer_stream.events ORDER BY time, type"
    )
    start = "1970-01-01 00:00:00+00"
    assert ["|".join(row) for row in rows] == [
        f"{batch[3].id}|0.000000||stream.gap|0|0||0|4||||||",
        f"{batch[0].id}|1.000000|door|emotion.ended|1|1|3|7|9|{start}|t|happy|0.5|0.6|0.9",
        f"{batch[1].id}|1.000000|door|face.entered|1|1|3|0|0|{start}|||||0.9",
        f"{batch[2].id}|2.000000|door|camera.reset|1|2||0|0||||||",
        f"{resets(3)[0].id}|3.000000|door|camera.reset|1|3||0|0||||||",
    ]
    data = dict(database.psql("SELECT id, data FROM fer_stream.events"))
    assert all(json.loads(data[one.id]) == json.loads(one.text)["data"] for one in batch)


def test_the_same_numbers_in_a_new_journal_are_other_events(database: Database) -> None:
    sink = database.sink()
    first = event("camera.online")
    later = replace(first, time=Nanoseconds(first.time + 86_400 * SECOND))
    assert event_id(first) == event_id(later)
    sink.write([as_delivery(first)])
    sink.write([as_delivery(later)])
    assert len(database.ids()) == 2


def test_a_server_that_crashes_and_comes_back(own_database: Database) -> None:
    sink, server = own_database.sink(), own_database.server
    sink.write(resets(1))
    server.kill()
    with pytest.raises(RetryError, match="the PostgreSQL server postgres://admin@127"):
        sink.write(resets(1, 2))
    with pytest.raises(RetryError, match=r"takes no events now: .*Connection refused"):
        sink.write(resets(1, 2))
    with pytest.raises(RetryError, match="Connection refused"):
        sink.check()
    server.start(wait=False)

    def taken() -> bool:
        with suppress(RetryError):  # no other error, also while it starts and recovers
            sink.write(resets(1, 2))
            return True
        return False

    wait_for(taken, "the server")
    assert own_database.ids() == [one.id for one in resets(1, 2)]


def test_a_connection_that_the_server_ends(database: Database) -> None:
    sink = database.sink()
    sink.write(resets(1))
    database.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE application_name = 'fer-stream deliver' AND datname = '{database.name}'"
    )
    with pytest.raises(RetryError, match="terminating connection"):
        sink.write(resets(2))
    sink.write(resets(2))
    assert len(database.ids()) == 2


# Who may


def test_a_password_is_right_or_for_the_operator(
    own_database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = own_database.server
    server.psql("CREATE ROLE fer LOGIN PASSWORD 'ri:gh/t@1' CREATEDB")
    own_database.psql(f"GRANT CREATE ON DATABASE {own_database.name} TO fer")
    server.admit("host all fer 127.0.0.1/32 scram-sha-256")
    server.reload()
    where = f"127.0.0.1:{server.port}/{own_database.name}"
    for user in ("fer:wrong", "fer", "fer:env:FER_PASSWORD", "fer:file:/tmp/pw"):
        monkeypatch.setenv("FER_PASSWORD", "secret-in-env")
        sink = own_database.opened(f"postgres://{user}@{where}")
        errors = (RetryError, FatalError) if "file" in user else FatalError
        with pytest.raises(errors) as caught:
            sink.write(resets(1))
        assert "wrong" not in str(caught.value)
        assert "secret" not in str(caught.value)
        if "file" not in user:
            assert "check the user and the password" in str(caught.value)
    with pytest.raises(FatalError, match="the variable FER_NONE, which is not set"):
        own_database.opened(f"postgres://fer:env:FER_NONE@{where}").write(resets(1))
    own_database.opened(f"postgres://fer:ri%3Agh%2Ft%401@{where}").write(resets(1))
    monkeypatch.setenv("FER_PASSWORD", "ri:gh/t@1")
    own_database.opened(f"postgres://fer:env:FER_PASSWORD@{where}").write(resets(2))
    password = tmp_path / "password"
    password.write_text("ri:gh/t@1\n")
    password.chmod(0o600)
    own_database.opened(f"postgres://fer:file:{password}@{where}").write(resets(3))
    own_database.opened(f"postgres://{where}?user=fer&password=env:FER_PASSWORD").write(resets(4))
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    (tmp_path / "pgpass").write_text(f"127.0.0.1:{server.port}:*:fer:ri\\:gh/t@1\n")
    (tmp_path / "pgpass").chmod(0o600)
    own_database.opened(f"postgres://fer@{where}").write(resets(5))
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    (tmp_path / "services").write_text(
        f"[faces]\nhost=127.0.0.1\nport={server.port}\nuser=fer\ndbname={own_database.name}\n"
    )
    own_database.opened("postgres://?service=faces").write(resets(6))
    monkeypatch.setenv("PGHOST", str(server.folder))
    monkeypatch.setenv("PGPORT", str(server.port))
    monkeypatch.setenv("PGUSER", "admin")
    monkeypatch.setenv("PGDATABASE", own_database.name)
    own_database.opened("postgres://").write(resets(7))
    assert len(own_database.ids()) == 7


@pytest.mark.parametrize(
    ("user", "name", "sentence"),
    [
        ("admin", "none", 'database "none" does not exist; check the database\'s name'),
        ("stranger", "postgres", 'role "stranger" does not exist; check the user'),
        ("nologin", "postgres", "is not permitted to log in; check the user"),
    ],
)
def test_a_login_that_is_refused(
    server: PostgresServer, database: Database, user: str, name: str, sentence: str
) -> None:
    server.psql("DO $$ BEGIN IF to_regrole('nologin') IS NULL THEN CREATE ROLE nologin; END IF; END $$")
    sink = database.opened(server.address(name, user))
    with pytest.raises(FatalError) as caught:
        sink.write(resets(1))
    assert str(caught.value).endswith(sentence)
    with pytest.raises(FatalError):
        sink.check()


def test_an_address_that_the_server_does_not_admit(own_database: Database) -> None:
    own_database.server.admit("host all all 192.0.2.0/24 trust")
    own_database.server.reload()
    with pytest.raises(FatalError, match=r"no pg_hba.conf entry .*; let this user connect in the server's pg_hba.conf"):
        own_database.sink().write(resets(1))


def test_an_operator_without_rights_to_create(database: Database) -> None:
    user = database.role()
    with pytest.raises(FatalError, match=r"permission denied for database .*; grant this user what the page"):
        database.sink(user).write(resets(1))
    sink = database.sink(user, migrate=False, schema="faces")
    for call in (lambda: sink.write(resets(1)), sink.check):
        with pytest.raises(FatalError, match=r"`python -m fer_stream\.sinks\.postgres --schema faces` prints"):
            call()
    printed = subprocess.run(
        [sys.executable, "-m", "fer_stream.sinks.postgres", "--schema", "faces"],
        capture_output=True,
        text=True,
        check=True,
    )
    database.psql(printed.stdout)
    with pytest.raises(FatalError, match="permission denied for schema faces; grant this user what the page"):
        sink.write(resets(1))
    database.psql(
        f"GRANT USAGE ON SCHEMA faces TO {user}; GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA faces TO {user}"
    )
    sink.check()
    sink.write(resets(1))
    database.sink(user, schema="faces").write(resets(2))  # nothing is to be migrated, so no right is needed
    with pytest.raises(FatalError, match="permission denied for table events"):
        database.sink(user, schema="faces", keep_days=30).write(resets(3))
    assert database.psql("SELECT count(*) FROM faces.events") == [["3"]]


def test_an_empty_schema_is_filled_by_its_owner(database: Database) -> None:
    user = database.role()
    database.psql(f'CREATE SCHEMA "user" AUTHORIZATION {user}')
    database.sink(user, schema="user").write(resets(1))
    assert database.psql('SELECT count(*) FROM "user".events', user) == [["1"]]


def test_tables_of_a_newer_program(database: Database) -> None:
    sink = database.sink()
    sink.write(resets(1))
    database.psql("INSERT INTO fer_stream.migrations (version) VALUES (99)")
    sink.close()
    with pytest.raises(FatalError, match="have version 99, and this program knows version 2: update fer-stream"):
        sink.write(resets(2))


def test_tables_that_are_dropped(database: Database) -> None:
    sink = database.sink()
    sink.write(resets(1))
    database.psql("DROP TABLE fer_stream.events CASCADE")
    with pytest.raises(FatalError, match=r'relation "fer_stream\.events" does not exist; make the tables again'):
        sink.write(resets(2))
    database.psql("DROP SCHEMA fer_stream CASCADE")
    sink.write(resets(2))
    assert len(database.ids()) == 1


def test_several_processes_make_the_tables_at_the_same_time(database: Database) -> None:
    sinks = [database.sink() for _ in range(6)]
    errors: list[BaseException] = []

    def write(sink: Postgres, number: int) -> None:
        try:
            sink.write(resets(number, number + 1))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(sink, number)) for number, sink in enumerate(sinks, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(database.ids()) == 7
    assert database.psql("SELECT version FROM fer_stream.migrations ORDER BY 1") == [["1"], ["2"]]


def test_a_check_changes_nothing(database: Database) -> None:
    sink = database.sink(keep_days=1)
    sink.check()
    assert database.psql("SELECT to_regnamespace('fer_stream') IS NULL") == [["t"]]
    sink.write([])
    sink.check()
    assert database.ids() == []


# What is refused, and what passes


def test_only_the_event_that_the_database_refuses_is_refused(database: Database) -> None:
    sink = database.sink()
    wrong = [as_delivery(event("emotion.started", frame=frame, label="a\0b")) for frame in (11, 12)]
    long = as_delivery(replace(event("camera.reset"), epoch=1 << 63))
    batch = [*resets(1, 2, 3), wrong[0], *resets(4), wrong[1], *resets(5), long]
    with pytest.raises(RejectedError) as caught:
        sink.write(batch)
    assert caught.value.reasons == {
        wrong[0].id: "unsupported Unicode escape sequence",
        wrong[1].id: "unsupported Unicode escape sequence",
        long.id: 'value "9223372036854775808" is out of range for type bigint',
    }
    sink.write(resets(1, 2, 3, 4, 5))
    assert database.ids() == [one.id for one in resets(1, 2, 3, 4, 5)]


def test_many_events_that_are_refused(database: Database) -> None:
    sink = database.sink()
    wrong = [as_delivery(event("emotion.started", frame=frame, label="a\0b")) for frame in range(101, 126)]
    pending, refused = [*resets(*range(1, 101)), *wrong], set[str]()
    while True:  # as the process that delivers does it
        try:
            sink.write(pending)
            break
        except RejectedError as error:
            refused |= set(error.reasons)
            pending = [one for one in pending if one.id not in refused]
    assert refused == {one.id for one in wrong}
    assert database.ids() == [one.id for one in resets(*range(1, 101))]


def test_a_rule_of_the_operator_refuses_an_event(database: Database) -> None:
    sink = database.sink()
    sink.write(resets(1))
    database.psql("ALTER TABLE fer_stream.events ADD CONSTRAINT no_gate CHECK (camera <> 'gate')")
    with pytest.raises(RejectedError, match='violates check constraint "no_gate"') as caught:
        sink.write([*resets(2), *resets(2, camera="gate")])
    assert len(caught.value.reasons) == 1


def waits(database: Database) -> Callable[[], bool]:
    """Return whether a sink waits for a lock."""
    query = f"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '{database.name}'"
    return lambda: database.server.psql(query) != [["0"]]


def failing(sink: Postgres, batch: list[Delivery]) -> tuple[threading.Thread, list[BaseException]]:
    """Write in another thread, and keep its error."""
    errors: list[BaseException] = []

    def write() -> None:
        try:
            sink.write(batch)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    return thread, errors


def test_a_statement_that_takes_too_long_or_is_cancelled(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = database.sink()
    sink.write(resets(1))
    with database.server.session(database.name) as session:
        session.execute("LOCK TABLE fer_stream.events")
        thread, errors = failing(sink, resets(2))
        wait_for(waits(database), "the lock")
        database.psql(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
            f"WHERE wait_event_type = 'Lock' AND datname = '{database.name}'"
        )
        thread.join()
        monkeypatch.setattr(module, "STATEMENT", 0.2)
        with pytest.raises(RetryError, match="canceling statement due to statement timeout"):
            sink.write(resets(2))
    (error,) = errors
    assert isinstance(error, RetryError)
    assert "canceling statement due to user request" in str(error)
    sink.write(resets(2))
    assert len(database.ids()) == 2


INSERT = (
    "INSERT INTO fer_stream.events (time, id, type, epoch, frame, sequence, cursor, data) "
    "VALUES (%s, %s, '', 1, 1, 1, '', '{}')"
)
"""Stores an event with a time and an id, as another process would."""


def test_a_deadlock(database: Database) -> None:
    sink = database.sink()
    sink.write([])
    first, second = resets(1, 2)
    with database.server.session(database.name) as session:
        session.execute("SET deadlock_timeout = '100s'")  # so that the sink is the one that finds it
        session.execute(INSERT, ("1970-01-01T00:00:02Z", second.id))
        thread, errors = failing(sink, [first, second])
        wait_for(waits(database), "the sink to wait")
        session.execute(INSERT, ("1970-01-01T00:00:01Z", first.id))
        thread.join()
        session.rollback()
    if errors:  # otherwise the sink had looked for a deadlock before there was one, and the session gave way
        assert isinstance(errors[0], RetryError)
        assert "deadlock detected" in str(errors[0])
    sink.write([first, second])
    assert database.ids() == [first.id, second.id]


def test_a_serialization_failure(database: Database) -> None:
    database.psql(f"ALTER DATABASE {database.name} SET default_transaction_isolation = 'repeatable read'")
    sink = database.sink()
    sink.write([])
    (one,) = resets(1)
    with database.server.session(database.name) as session:
        session.execute(INSERT, ("1970-01-01T00:00:01Z", one.id))
        thread, errors = failing(sink, [one])
        wait_for(waits(database), "the sink to wait")
        session.commit()
        thread.join()
    (error,) = errors
    assert isinstance(error, RetryError)
    assert "could not serialize access" in str(error)
    sink.write([one])


def test_too_many_connections(database: Database) -> None:
    user = database.role("SUPERUSER")
    database.psql(f"ALTER ROLE {user} NOSUPERUSER CONNECTION LIMIT 0")
    with pytest.raises(RetryError, match="too many connections for role"):
        database.sink(user).write(resets(1))


def test_a_database_that_may_only_be_read(database: Database) -> None:
    sink = database.sink()
    sink.write([])
    sink.close()
    database.psql(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    with pytest.raises(
        RetryError, match="is a standby, or read-only: cannot execute INSERT in a read-only transaction"
    ):
        sink.write(resets(1))


def test_a_standby_that_becomes_the_primary(own_database: Database) -> None:
    sink, server = own_database.sink(), own_database.server
    sink.write(resets(1))
    server.kill()
    signal = server.data / "standby.signal"
    signal.touch()
    server.own(signal)
    server.start()
    sink.close()
    for call in (lambda: sink.write(resets(2)), sink.check):
        with pytest.raises(RetryError, match="is a standby, or read-only"):
            call()
    server.psql("SELECT pg_promote()")
    sink.write(resets(2))
    assert len(own_database.ids()) == 2


@pytest.fixture
def small_disk(server: PostgresServer) -> Iterator[Path]:
    """A folder with 4 MiB of space."""
    folder = server.folder / f"small{next(_numbers)}"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if not UNDER or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a small file system")
    server.own(folder)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(server: PostgresServer, small_disk: Path) -> None:
    server.psql(f"CREATE TABLESPACE small{small_disk.name} LOCATION '{small_disk}'")
    database = Database(server)
    sink = database.sink()
    sink.write([])
    database.psql(f"ALTER TABLE fer_stream.events SET TABLESPACE small{small_disk.name}")
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    batch = resets(*range(1, 1001))
    with pytest.raises(RetryError, match=r"takes no events now: could not extend file .*: No space left on device"):
        sink.write(batch)
    filler.unlink()
    sink.write(batch)
    assert len(database.ids()) == 1000
    database.close()
    server.psql(f"DROP DATABASE {database.name}")
    server.psql(f"DROP TABLESPACE small{small_disk.name}")


def test_a_server_that_does_not_answer(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = AnswersProxy(database.server.port)
    monkeypatch.setattr(module, "LIMIT", 0.5)
    try:
        where = proxy.address.removeprefix("nats://")
        sink = database.opened(f"postgres://admin@{where}/{database.name}?connect_timeout=2&sslmode=disable")
        sink.write(resets(1))
        proxy.hold_answers()
        with pytest.raises(RetryError, match=r"does not answer within 0\.5 s"):
            sink.write(resets(2))
        with pytest.raises(RetryError, match="timeout"):
            sink.write(resets(2))
        proxy.release_answers()
        sink.write(resets(2))
    finally:
        proxy.close()
    assert len(database.ids()) == 2


def test_old_events_are_deleted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELETED", 2)
    sink = database.sink(keep_days=30)
    now = [replace(one.event, time=Nanoseconds(module.time.time_ns())) for one in resets(8)]
    sink.write([*resets(1, 2, 3, 4, 5), *map(as_delivery, now)])
    left = [len(database.ids())]
    for _ in range(2):
        sink.write([])
        left.append(len(database.ids()))
    assert left == [4, 2, 1]
    sink.write(resets(6))
    assert len(database.ids()) == 2, "it looks again after an hour"


# Ways to the server


def test_a_socket(database: Database) -> None:
    sink = database.sink(parameters={"host": database.server.folder})
    sink.write(resets(1))
    assert len(database.ids()) == 1


def certificate(server: PostgresServer) -> Path:
    """Let a server speak TLS, and return its certificate."""
    key, cert = server.data / "server.key", server.data / "server.crt"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=db"]
    command = [
        "openssl",
        "req",
        "-x509",
        *options,
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        key,
        "-out",
        cert,
    ]
    subprocess.run(command, capture_output=True, check=True)
    for path in (key, cert):
        path.chmod(0o600)
        server.own(path)
    server.configure(ssl="on")
    server.kill()
    server.start()
    return cert


def test_tls(own_database: Database, tmp_path: Path) -> None:
    with pytest.raises(FatalError, match=r"server does not support SSL.*; set up TLS on the server, or change sslmode"):
        own_database.sink(parameters={"sslmode": "verify-full", "sslrootcert": "system"}).write(resets(1))
    right = tmp_path / "ca.pem"
    right.write_text(certificate(own_database.server).read_text())
    own_database.sink(parameters={"sslmode": "verify-full", "sslrootcert": right}).write(resets(1))
    for root, kind, sentence in (
        ("system", RetryError, "certificate verify failed"),
        (tmp_path / "none.pem", FatalError, "certificate file .* does not exist"),
    ):
        sink = own_database.sink(parameters={"sslmode": "verify-full", "sslrootcert": root})
        with pytest.raises(kind, match=sentence):
            sink.write(resets(2))
    with pytest.raises(FatalError, match="invalid sslmode"):
        own_database.sink(parameters={"sslmode": "always"}).write(resets(2))
    assert len(own_database.ids()) == 1


def test_pgbouncer_in_transaction_mode(own_database: Database) -> None:
    server, port = own_database.server, free_port()
    file = server.folder / "pgbouncer.ini"
    file.write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port} user=admin\n[pgbouncer]\nlisten_addr=127.0.0.1\n"
        f"listen_port={port}\nauth_type=any\npool_mode=transaction\nmax_client_conn=20\ndefault_pool_size=1\n"
        "server_login_retry=0\n"
    )
    server.own(file)
    with (server.folder / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen([*UNDER, "/usr/sbin/pgbouncer", str(file)], stdout=log, stderr=log)
    try:
        sinks = [own_database.opened(f"postgres://admin@127.0.0.1:{port}/{own_database.name}") for _ in range(2)]

        def taken(sink: Postgres, *frames: int) -> Callable[[], bool]:
            def write() -> bool:
                with suppress(RetryError):
                    sink.write(resets(*frames))
                    return True
                return False

            return write

        wait_for(taken(sinks[0], 1), "pgbouncer", lambda: process.poll() is None)
        for frame in range(2, 12):
            sinks[frame % 2].write(resets(1, frame))
        sinks[0].check()
        server.kill()
        with pytest.raises(RetryError):
            sinks[0].write(resets(12))
        server.start()
        wait_for(taken(sinks[0], 12), "the server behind it")
        assert len(own_database.ids()) == 12
        sink = own_database.opened(f"postgres://admin@127.0.0.1:{port}/none")
        with pytest.raises(FatalError, match="check the database's name"):
            sink.write(resets(1))
    finally:
        process.kill()
        process.wait()


# What the views say


def film(seed: int) -> list[Event]:
    """Return the events of a random camera: faces that come and go, and whose labels follow each other."""
    draw = random.Random(seed)
    found: list[Event] = []
    camera, sequence, epoch = f"cam-{seed}", 0, 0

    def say(kind: str, track: int, time: int, data: Any) -> None:
        nonlocal sequence
        sequence += 1
        found.append(
            Event(
                EventType(kind), camera, epoch, time // SECOND, track, Nanoseconds(time), data, sequence, str(sequence)
            )  # type: ignore[arg-type]
        )

    time = 1_700_000_000 * SECOND
    last, again = draw.randint(1, 3), draw.random() < 0.5
    for epoch in range(1, last + 1):
        if again:  # a recording that is read again has the same times
            time = 1_700_000_000 * SECOND
        say("camera.online", 0, time, event("camera.online").data)
        stays: dict[int, int] = {}
        open_: dict[int, ExpressionData] = {}

        def end(track: int, time: int) -> None:
            was = open_.pop(track)  # noqa: B023
            say("emotion.ended", track, time, replace(was, end_time=Nanoseconds(time)))

        for _ in range(draw.randint(5, 60)):
            time += draw.randint(1, 5) * SECOND // 4 * 4
            what, track = draw.random(), draw.randint(1, 3)
            if track not in stays:
                stays[track] = time
                face = replace(event("face.entered").data, start_time=Nanoseconds(time))  # type: ignore[type-var]
                say("face.entered", track, time, face)
            elif track in open_ and what < 0.4:
                old = open_[track].probability.peak
                peak = max(old, round(draw.random(), 4))
                open_[track] = replace(open_[track], probability=Probability(0.5, peak))
                say("emotion.updated", track, time, open_[track])
            elif track in open_ and what < 0.8:
                end(track, time)
            elif track not in open_:
                label = draw.choice(["happy", "sad", "neutral"])
                base = event("emotion.started", label=label).data
                assert isinstance(base, ExpressionData)
                open_[track] = replace(
                    base,
                    start_time=Nanoseconds(time),
                    duration_ms=Milliseconds(0),
                    probability=Probability(0.5, round(draw.random(), 4)),
                )
                say("emotion.started", track, time, open_[track])
        if epoch == last or draw.random() < 0.5:  # else the end is missing, as after a crash
            for track in list(open_):
                end(track, time)
            for track, since in stays.items():
                data = replace(event("face.left").data, start_time=Nanoseconds(since), end_time=Nanoseconds(time))  # type: ignore[type-var]
                say("face.left", track, time, data)
            say("camera.offline", 0, time, event("camera.offline").data)
        time += 10 * SECOND
    return found


def told(events: list[Event]) -> set[tuple[str, ...]]:
    """Return the intervals that these events tell of, by another way than the view's."""
    latest: dict[tuple[object, ...], Event] = {}
    for one in events:
        if isinstance(one.data, ExpressionData):
            latest[one.camera, one.epoch, one.track, one.data.start_time] = one
    found = set()
    for one in latest.values():
        assert isinstance(one.data, ExpressionData)
        end = "" if one.data.end_time is None else f"{one.data.end_time / 1e9:.6f}"
        start, peak = f"{one.data.start_time / 1e9:.6f}", f"{one.data.probability.peak:g}"
        found.add((one.camera, str(one.epoch), str(one.track), one.data.label, start, end, peak))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_intervals_are_those_of_the_events(database: Database, seed: int) -> None:
    films = [film(seed * 10 + number) for number in range(3)]
    events = list(itertools.chain(*films))
    batch = [as_delivery(one) for one in events]
    random.Random(seed).shuffle(batch)  # a dead letter that is sent again arrives out of order
    sink = database.sink()
    for begin in range(0, len(batch), 50):
        sink.write(batch[begin : begin + 50])
    sink.write(batch[:50])
    columns = "camera, epoch, track, label, extract(epoch FROM start_time), extract(epoch FROM end_time), peak"
    rows = database.psql(f"SELECT {columns} FROM fer_stream.intervals")
    assert {tuple(row) for row in rows} == told(events)
    assert len(rows) == len(told(events))
    # The package's own statistics.
    record = Record()
    for one in events:
        record.take(one)
    start, end = min(one.time for one in events), max(one.time for one in events) + SECOND
    seconds: dict[tuple[str, str], float] = {}
    for row in record.rows(Parts.of(start, end)):
        assert isinstance(row, Row)
        assert row.faces is not None
        seconds |= {(row.camera, label): round(part / 1e9, 3) for label, part in row.faces.labels.items() if part}
    sums = database.psql(
        "SELECT camera, label, sum(seconds) FROM fer_stream.intervals GROUP BY 1, 2 HAVING sum(seconds) > 0"
    )
    assert {(row[0], row[1]): round(float(row[2]), 3) for row in sums} == seconds
    assert seconds
    stays = database.psql("SELECT count(*), count(end_time) FROM fer_stream.stays")
    count = [sum(one.type is kind for one in events) for kind in (EventType.FACE_ENTERED, EventType.FACE_LEFT)]
    assert stays == [[str(number) for number in count]]


def test_a_recording_that_is_read_twice_has_its_intervals_twice(database: Database) -> None:
    kinds = ("face.entered", "emotion.started", "emotion.ended", "face.left")
    database.sink().write([as_delivery(event(kind, track=1, epoch=epoch)) for epoch in (1, 2) for kind in kinds])
    for view in ("intervals", "stays"):
        assert database.psql(f"SELECT epoch FROM fer_stream.{view} ORDER BY epoch") == [["1"], ["2"]]


def test_visits_to_zones_and_crossings_of_lines(database: Database) -> None:
    kinds = ("face.entered", "zone.entered", "line.crossed", "zone.left", "face.left")
    database.sink().write([as_delivery(event(kind, track=1, frame=frame)) for frame, kind in enumerate(kinds, 1)])
    visits = database.psql("SELECT zone, track, seconds, end_time IS NULL FROM fer_stream.visits")
    assert visits == [["till", "1", "4", "f"]]
    crossed = database.psql("SELECT line, direction, track FROM fer_stream.events WHERE type = 'line.crossed'")
    assert crossed == [["door", "in", "1"]]
    assert database.psql("SELECT count(*) FROM fer_stream.stays") == [["1"]], "a visit is not a stay"


def test_views_have_the_measures_of_a_model(database: Database) -> None:
    levels = {"valence": MeasureData(Level(-0.25), Level(-0.5), Level(0.5))}
    batch = []
    for track, measures in ((1, levels), (2, None)):
        for kind in ("face.entered", "emotion.started", "face.left"):
            one = event(kind, track=track)
            given = None if kind == "face.entered" else measures
            batch.append(as_delivery(replace(one, data=replace(one.data, measures=given))))  # type: ignore[type-var]
    database.sink().write(batch)
    for view in ("intervals", "stays"):
        rows = database.psql(
            "SELECT track, measures->'valence'->>'mean', measures->'valence'->>'highest' "
            f"FROM fer_stream.{view} ORDER BY track"
        )
        assert rows == [["1", "-0.25", "0.5"], ["2", "", ""]]


def test_views_use_the_index_of_the_start(database: Database) -> None:
    sink = database.sink()
    started = event("emotion.started", track=1)
    batch = []
    for number in range(5000):
        data = replace(started.data, start_time=Nanoseconds(number * SECOND))  # type: ignore[type-var]
        batch.append(as_delivery(replace(started, frame=number, time=Nanoseconds(number * SECOND), data=data)))
    for begin in range(0, 5000, 1000):
        sink.write(batch[begin : begin + 1000])
    database.psql("ANALYZE fer_stream.events")
    for view in ("intervals", "stays"):
        plan = database.psql(
            f"EXPLAIN SELECT * FROM fer_stream.{view} WHERE start_time BETWEEN 'epoch' AND timestamptz 'epoch' + '9 s'"
        )
        assert any("events_start" in line for (line, *_) in plan), plan


# Arguments


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("", "it does not begin with postgres://"),
        ("host=127.0.0.1 password=secret", "it does not begin with postgres://"),
        ("http://127.0.0.1/db", "it does not begin with postgres://"),
        ("//h:x/db", "its port is not a number from 1 to 65535"),
        ("//u:secret@h/db?sslmod=require", 'invalid URI query parameter: "sslmod"'),
        ("//[::1/db", 'end of string reached when looking for matching "]"'),
    ],
)
def test_addresses_that_are_none(argument: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_sink(argument, DeliverSettings(sink="postgres:x"))
    assert sentence in str(caught.value)
    assert "u:secret" not in str(caught.value)


@pytest.mark.parametrize("options", [{"schema": "A b"}, {"keep_days": 0}, {"migrate": "perhaps"}, {"tables": 1}])
def test_invalid_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"option .*{next(iter(options))}"):
        open_sink("//h/db", DeliverSettings(sink="postgres:x", options=options))


def test_opening_does_not_connect() -> None:
    open_sink("//u:env:NONE@127.0.0.1:1/db", DeliverSettings(sink="postgres:x")).close()


def test_the_printed_sql_is_one_transaction_and_knows_its_versions() -> None:
    command = [sys.executable, "-m", "fer_stream.sinks.postgres"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.startswith('BEGIN;\n\nCREATE SCHEMA IF NOT EXISTS "fer_stream";')
    assert printed.endswith("COMMIT;\n")
    for wrong in (["--schema", "a;b"], ["--after", "3"]):
        assert subprocess.run([*command, *wrong], capture_output=True, check=False).returncode == 2
