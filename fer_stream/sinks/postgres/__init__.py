"""The postgres sink of ``fer-stream deliver``: stores events as rows of a table in PostgreSQL, each event once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_stream.system import extras

if TYPE_CHECKING:
    from fer_stream.plugins import BatchSink
    from fer_stream.settings.tree import DeliverSettings


def open_sink(argument: str, settings: DeliverSettings) -> BatchSink:
    """Return a sink for the database at ``argument``: ``//USER@HOST:PORT/DATABASE?PARAMETER=VALUE``.

    Raises:
        ConfigError: this is not such an address, or an option is not allowed.
        PluginError: psycopg is not installed.
    """
    extras.require("psycopg", "postgres")
    from fer_stream.sinks.postgres.sink import open_database  # noqa: PLC0415  (needs the extra)

    return open_database(argument, settings.options)
