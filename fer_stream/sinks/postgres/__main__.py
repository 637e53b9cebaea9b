"""Prints the SQL that makes or updates the tables, for an administrator: ``python -m fer_stream.sinks.postgres``."""

from __future__ import annotations

import argparse
import re
import sys

from fer_stream.sinks.postgres.schema import SCHEMA, migrations, script


def _schema(text: str) -> str:
    if not re.fullmatch(SCHEMA, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a schema: use a to z, digits and _")
    return text


def main(arguments: list[str] | None = None) -> None:
    """Print the SQL, as one transaction."""
    parser = argparse.ArgumentParser(
        "python -m fer_stream.sinks.postgres", description="Print the SQL of the postgres sink's tables."
    )
    parser.add_argument("--schema", type=_schema, default="fer_stream", help="name of the schema (default: fer_stream)")
    versions = [0, *migrations()]
    parser.add_argument(
        "--after", type=int, default=0, choices=versions, metavar="VERSION", help="version that the tables have already"
    )
    given = parser.parse_args(arguments)
    sys.stdout.write(f"BEGIN;\n\n{script(given.schema, given.after)}\nCOMMIT;\n")


if __name__ == "__main__":
    main()
