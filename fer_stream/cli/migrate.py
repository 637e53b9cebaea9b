"""The command that moves a journal: migrate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.cli.options import begin
from fer_stream.system import folders

if TYPE_CHECKING:
    from argparse import Namespace


def migrate(arguments: Namespace) -> None:
    """Go on with an SQLite journal's numbers in NATS."""
    from fer_stream.journal.migration import migrate as move  # noqa: PLC0415

    settings = begin(arguments, "migrate")
    done = move(folders.expand(Path(arguments.old)), settings.journal, settings.fleet)
    sys.stdout.write(
        f"{done.where} goes on after cursor {done.cursor}, with the numbers of {done.cameras} cameras; "
        f"keep {arguments.old} as long as somebody may ask for older events\n"
    )
