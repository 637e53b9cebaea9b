"""The page on PostgreSQL, word by word: its commands, its SQL, and Grafana's query as Grafana sends it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from documents import ROOT, blocks
from journals import event
from postgres_servers import PostgresServer

from fer_stream.journal.sqlite import Writer
from fer_stream.types import Event, ExpressionData, FaceData, Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from processes import Cli

BLOCKS = list(blocks(ROOT / "docs/how-to/deliver-postgres.md"))
SQL = {block.title: block.text for block in BLOCKS if block.language == "sql"}
COMMANDS = [line for block in BLOCKS if block.language == "bash" for line in block.text.splitlines()]
SECOND = 1_000_000_000
HOUR = 3600 * SECOND

EXPANDED = {
    "$__timeGroupAlias(start_time, '5m')": 'floor(extract(epoch from start_time)/300)*300 AS "time"',
    "$__timeFilter(start_time)": "start_time BETWEEN now() - interval '6 hours' AND now()",
}
"""Grafana's macros, and what its data source for PostgreSQL makes of them."""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.admit("host all all 127.0.0.1/32 scram-sha-256")
        yield server.start()
    finally:
        server.close()


def command(beginning: str) -> str:
    (found,) = (line for line in COMMANDS if line.startswith(beginning))
    return found


def at(kind: str, time: int, **more: int) -> Event:
    """Return an event at a time, which begins or ends something."""
    made = event(kind, frame=time // SECOND, track=1)
    data = made.data
    assert isinstance(data, FaceData | ExpressionData)
    start, end = Nanoseconds(more["start"]), Nanoseconds(time) if data.end_time is not None else None
    return replace(made, time=Nanoseconds(time), data=replace(data, start_time=start, end_time=end))


def test_from_nothing_to_a_first_query(server: PostgresServer, cli: Cli) -> None:
    server.psql(SQL["database.sql"])
    hour = time.time_ns() // HOUR * HOUR
    begin, end = hour - 2 * HOUR - 600 * SECOND, hour - HOUR - 1800 * SECOND  # 10 min of one hour, 30 of the next
    writer = Writer(cli.folder / "e.db")
    writer.append([at("face.entered", begin, start=begin), at("emotion.started", begin, start=begin)])
    writer.append([at("emotion.ended", end, start=begin), at("face.left", end, start=begin)])
    writer.append([event("emotion.started", "gate", frame=time.time_ns() // SECOND, track=2, label="sad")])
    writer.close()
    password = re.fullmatch(r"export (\w+)='(.*)'", command("export"))
    assert password is not None
    words = command("fer-stream run --sink").replace(":5432/", f":{server.port}/").split()
    (cli.folder / "s.toml").write_text(f'[deliver.db]\nsink = "{words[3]}"\nbegin = "beginning"\n')
    run = cli.start("deliver", "--config", "s.toml", "--journal", "e.db", **{password[1]: password[2]})

    def stored() -> bool:
        tables = server.psql("SELECT to_regclass('fer_stream.events') IS NOT NULL", "faces") == [["t"]]
        return tables and server.psql("SELECT count(*) FROM fer_stream.events", "faces") == [["5"]]

    run.until(stored, "the events")
    assert run.stop() == 0
    share = server.psql(SQL["share.sql"], "faces")
    assert [row[1:] for row in share] == [["door", "happy", seconds, "1.000"] for seconds in ("600.0", "1800.0")]
    faces = server.psql(SQL["faces.sql"], "faces")
    assert [row[1:] for row in faces] == [["door", "1", "2400.0"]]
    latest = server.psql(SQL["latest.sql"], "faces")
    assert [row[1:] for row in latest if row[1] == "door"] == [["door", "1", "happy", "2400", "0.6", "f"]]
    assert {row[1] for row in latest} == {"door", "gate"}
    server.psql(SQL["reader.sql"], "faces")
    query = SQL["grafana.sql"]
    for macro, text in EXPANDED.items():
        assert macro in query
        query = query.replace(macro, text)
    assert [row[1:] for row in server.psql(f"SET ROLE grafana; {query}", "faces")] == [["happy", "2400"]]
    server.psql(SQL["delete.sql"], "faces")
    assert server.psql("SELECT count(*) FROM fer_stream.events", "faces") == [["5"]]
    server.psql("UPDATE fer_stream.events SET time = time - interval '91 days' WHERE camera = 'door'", "faces")
    server.psql(SQL["delete.sql"], "faces")
    assert server.psql("SELECT count(*) FROM fer_stream.events", "faces") == [["1"]]


def test_without_the_right_to_make_tables(server: PostgresServer, cli: Cli) -> None:
    server.psql(SQL["database.sql"])
    environment = os.environ | {"PGHOST": str(server.folder), "PGPORT": str(server.port), "PGUSER": "admin"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    subprocess.run(["bash", "-o", "pipefail", "-c", command("python -m")], env=environment, check=True, cwd=ROOT)
    server.psql(SQL["grants.sql"], "faces")
    address = f"postgres://writer:env:P@127.0.0.1:{server.port}/faces"
    options = "options = { migrate = false, keep_days = 1 }"
    (cli.folder / "s.toml").write_text(f'[deliver.db]\nsink = "{address}"\nbegin = "beginning"\n{options}\n')
    writer = Writer(cli.folder / "e.db")
    writer.append([event("camera.reset"), event("camera.reset", "gate", frame=time.time_ns() // SECOND)])
    writer.close()
    run = cli.start("deliver", "--config", "s.toml", "--journal", "e.db", P="a third one")
    query = "SELECT camera FROM fer_stream.events"
    run.until(lambda: server.psql(query, "faces") == [["gate"]], "the event that is not old")
    assert run.stop() == 0


def test_every_block_is_used() -> None:
    """Without this, a query that is added to the page could stay untested."""
    names = ("database", "latest", "delete", "share", "faces", "grafana", "reader", "grants")
    assert set(SQL) == {f"{name}.sql" for name in names}
    assert [line.split()[0] for line in COMMANDS] == ["pip", "export", "fer-stream", "python"]
