"""``fer-stream annotations``: sends an annotation to an aggregator, or lists those in the journal."""

from __future__ import annotations

import csv
import json
import sys
import time
from typing import TYPE_CHECKING

from fer_stream.cli.options import begin
from fer_stream.cli.reading import table
from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from fer_stream.settings.tree import Settings
    from fer_stream.types import Annotation

NEEDED = ("camera", "track", "since", "to", "label", "annotator")
"""The arguments that `add` needs."""


def carry_out(arguments: Namespace) -> None:
    """Add an annotation, or list those of a period.

    Raises:
        ConfigError: wrong use.
        AnnotationRefusedError: the annotation is invalid, or of an unknown camera, or the key may not annotate.
        JournalError: the journal cannot be read or written.
        TransportError: no aggregator answers.
    """
    settings = begin(arguments, "annotations")
    if arguments.action == "add":
        _add(arguments, settings)
        return
    if unused := [name for name in ("track", "label", "annotator", "note", "previous") if getattr(arguments, name)]:
        raise ConfigError(f"--{unused[0]} applies to add, not to list: leave it out")
    _print(_found(arguments, settings), arguments.format)


def _add(arguments: Namespace, settings: Settings) -> None:
    from fer_stream.client.annotations import annotate  # noqa: PLC0415

    if missing := [name for name in NEEDED if getattr(arguments, name) is None]:
        raise ConfigError(f"an annotation needs --{missing[0].replace('since', 'from')}: give it")
    given = {name: getattr(arguments, name) for name in ("camera", "track", "label", "annotator", "note", "previous")}
    given |= {"start": _nanoseconds(arguments.since), "end": _nanoseconds(arguments.to)}
    made = annotate(settings, {name: value for name, value in given.items() if value is not None})
    sys.stderr.write(f"annotation {made.number} is stored\n")


def _found(arguments: Namespace, settings: Settings) -> Iterator[Annotation]:
    from fer_stream.client.annotations import stored_annotations  # noqa: PLC0415
    from fer_stream.types import EARLIEST, LATEST, AnnotationQuery  # noqa: PLC0415

    since = EARLIEST if arguments.since is None else _nanoseconds(arguments.since)
    until = LATEST if arguments.to is None else _nanoseconds(arguments.to)
    if until <= since:
        raise ConfigError("the period is empty: its end must be after its beginning")
    return stored_annotations(settings, AnnotationQuery(since, until, arguments.camera))


def _print(found: Iterator[Annotation], how: str) -> None:
    from fer_stream.events.annotations import FIELDS, as_row  # noqa: PLC0415

    rows = map(as_row, found)
    if how == "jsonl":
        for row in rows:
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    elif how == "csv":
        writer = csv.DictWriter(sys.stdout, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        cells = [[" ".join(str("" if row[name] is None else row[name]).split()) for name in FIELDS] for row in rows]
        sys.stdout.write("\n".join(table([list(FIELDS), *cells])) + "\n")


def _nanoseconds(moment: int | float) -> int:
    return time.time_ns() - round(moment * 1e9) if isinstance(moment, float) else moment
