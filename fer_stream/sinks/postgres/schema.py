"""The tables of the postgres sink: numbered migrations, of which a database has none, some or all.

Each is a file of SQL in ``migrations``. The table ``migrations`` in the database says which have been applied.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from fer_stream.errors import FatalError

if TYPE_CHECKING:
    from psycopg import Connection

SCHEMA = r"^[a-z_][a-z0-9_]{0,62}$"
"""The pattern of a schema's name: as it is with and without quotation marks, which make it a name and no keyword."""

LOCK = 0x46455244
"""First key of the advisory lock that keeps two processes from migrating at the same time."""


_NOTE = "INSERT INTO migrations (version) VALUES ({version});"
_LATEST = 'SELECT coalesce(max(version), 0) FROM "{schema}".migrations'


def migrations() -> dict[int, str]:
    """Return the SQL of every migration by its number, which counts from 1."""
    found = {
        int(file.name.removesuffix(".sql")): file.read_text(encoding="utf-8")
        for file in (files(__package__) / "migrations").iterdir()
        if file.name.endswith(".sql")
    }
    return dict(sorted(found.items()))


def script(schema: str, after: int = 0, *, create: bool = True) -> str:
    """Return the SQL that applies all migrations after a version, without BEGIN and COMMIT.

    Args:
        schema: the name of the schema with the tables.
        after: the version of the tables; 0: there are none.
        create: begin with the schema itself, unless it is there.
    """
    parts = [f'CREATE SCHEMA IF NOT EXISTS "{schema}";'] if create else []
    parts.append(f'SET LOCAL search_path TO "{schema}";')
    for version, text in migrations().items():
        if version > after:
            parts += [text.strip(), _NOTE.format(version=version)]
    return "\n\n".join(parts) + "\n"


def prepare(connection: Connection, schema: str, *, migrate: bool) -> None:
    """Bring the tables up to date in one transaction, unless they are.

    Args:
        connection: to the database.
        schema: the name of the schema with the tables.
        migrate: whether missing migrations may be applied.

    Raises:
        FatalError: they are of a newer program, or may not be changed.
        psycopg.Error: the server refuses.
    """
    if _is_current(connection, schema, migrate=migrate):
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (LOCK, schema))
        if not _is_current(connection, schema, migrate=migrate):  # another process may have done it meanwhile
            # Whoever may not create schemas can be given an empty one.
            create = connection.execute("SELECT to_regnamespace(%s)", (f'"{schema}"',)).fetchone() == (None,)
            connection.execute(script(schema, _version(connection, schema), create=create).encode())


def _is_current(connection: Connection, schema: str, *, migrate: bool) -> bool:
    """Return whether all migrations have been applied; raise if that is not the case and cannot be changed."""
    known, found = max(migrations()), _version(connection, schema)
    if found > known:
        raise FatalError(
            f"the tables in the schema {schema} have version {found}, and this program knows version {known}: update "
            "fer-stream, or give another schema (option schema)"
        )
    if found < known and not migrate:
        tables = f"the tables in it have version {found}" if found else "there are no tables"
        after = f" --after {found}" if found else ""
        raise FatalError(
            f"the schema {schema} is not ready, {tables}, and the option migrate forbids to change that: apply what "
            f"`python -m fer_stream.sinks.postgres --schema {schema}{after}` prints"
        )
    return found == known


def _version(connection: Connection, schema: str) -> int:
    """Return the number of the latest migration that has been applied; 0 if there is none."""
    if connection.execute("SELECT to_regclass(%s)", (f'"{schema}".migrations',)).fetchone() == (None,):
        return 0
    row = connection.execute(_LATEST.format(schema=schema).encode()).fetchone()
    return int(row[0]) if row else 0
