"""``fer-stream stats``: statistics of a period, computed from events (`fer_stream.events.statistics`)."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fer_stream.cli.options import begin
from fer_stream.cli.reading import table
from fer_stream.client.recorded import EVENTS, recordings
from fer_stream.errors import ConfigError
from fer_stream.events.cloudevents import to_rfc3339

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence

    from fer_stream.client.recorded import Recording
    from fer_stream.events.rows import LineRow, Row
    from fer_stream.events.spans import Parts, Trial
    from fer_stream.events.statistics import Record
    from fer_stream.settings.tree import Settings


class _Source(NamedTuple):
    """The events of a film or of the journal."""

    film: str
    """Empty for the journal."""
    trials: Sequence[Trial]
    """The trials of ``--markers``."""
    record: Record
    labels: Sequence[str] = ()
    """Those that the model may give, if they are known."""


def stats(arguments: Namespace) -> None:
    """Print statistics as a table, as CSV or as JSON lines."""
    from fer_stream.events.rows import cells, write_csv  # noqa: PLC0415

    settings = begin(arguments, "stats")
    since, until = _nanoseconds(arguments.since), _nanoseconds(arguments.to)
    rows: list[Row | LineRow] = []
    films: list[str] = []
    labels: dict[str, None] = {}
    groups = settings.valence if arguments.by == "valence" else None
    for source in _sources(arguments, settings, since, until):
        found = source.record.rows(
            _parts(arguments, source, since, until),
            arguments.group,
            least_faces=settings.least_faces,
            groups=groups,
        )
        rows += found
        films += [source.film] * len(found) if source.film else []
        labels |= dict.fromkeys(source.labels if groups is None else groups.values())
    if arguments.format == "jsonl":
        for number, row in enumerate(rows):
            values = ({"film": films[number]} if films else {}) | row.as_dict()
            sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")
    elif arguments.format == "csv":
        write_csv(rows, sys.stdout, arguments.group, films, labels)
    else:
        sys.stdout.write("\n".join(table(cells(rows, arguments.group, films))) + "\n")


def _sources(arguments: Namespace, settings: Settings, since: int | None, until: int | None) -> Iterator[_Source]:
    """Yield the events of each recording, or of the journal.

    Raises:
        AnnotationError: the markers cannot be read, or do not fit.
        ConfigError: there are no events, or options do not go together.
    """
    from fer_stream.client import read_journal  # noqa: PLC0415
    from fer_stream.events.statistics import FOREVER, Record  # noqa: PLC0415

    whose = f" of the camera {arguments.camera}" if arguments.camera else ""
    bounds = since or 0, FOREVER if until is None else until
    read = recordings(arguments.events or ())
    trials = _trials(arguments, read, since)
    for recording, own in zip(read, trials, strict=False):
        record = Record(*bounds)
        for event in recording.events():
            if arguments.camera in (None, event.camera) or not event.camera:
                record.take(event)
        if record.first == FOREVER:
            raise ConfigError(f"{str(recording.path)!r} holds no event{whose}")
        yield _Source(recording.film, own, record, recording.labels)
    if not arguments.events:
        record = Record(*bounds)
        for event, _ in read_journal(settings, camera=arguments.camera):
            record.take(event)
        if record.first == FOREVER:
            raise ConfigError(f"the journal holds no event{whose}: give another journal with --journal")
        yield _Source("", trials[0], record)


def _trials(arguments: Namespace, read: Sequence[Recording], since: int | None) -> list[Sequence[Trial]]:
    """Return the trials of each recording, or of the journal.

    Raises:
        AnnotationError: the markers cannot be read, or do not fit.
        ConfigError: options do not go together.
    """
    if arguments.markers is None:
        return [()] * max(1, len(read))
    from fer_stream.analysis.trials import by_film, spans  # noqa: PLC0415
    from fer_stream.interchange.markers import read_markers  # noqa: PLC0415

    for option in ("every", "to", *(["since"] if read else [])):
        if getattr(arguments, option) is not None:
            flag = "from" if option == "since" else option
            raise ConfigError(f"--{flag} does not work with --markers, whose trials are the periods: leave out one")
    if not read and since is None:
        raise ConfigError("--markers of a journal needs --from: the markers' times are seconds from there")
    markers = read_markers(Path(arguments.markers))
    if not read:
        return [spans(by_film(markers, {"": "the journal"})[""], since or 0)]
    names = [each.path.parent.name if each.path.name == EVENTS else each.path.name for each in read]
    keys = [name if names.count(name) == 1 else str(each.path) for name, each in zip(names, read, strict=True)]
    found = by_film(markers, {key: each.source for key, each in zip(keys, read, strict=True)})
    return [spans(found[key], each.start) for key, each in zip(keys, read, strict=True)]


def _parts(arguments: Namespace, source: _Source, since: int | None, until: int | None) -> Parts:
    """Return the periods; there are none for a film without trials."""
    from fer_stream.events.spans import Parts  # noqa: PLC0415

    if arguments.markers is not None:
        return Parts(source.trials)
    record = source.record
    every = None if arguments.every is None else round(arguments.every * 1e9)
    if since is None:  # whole parts, such as from 08:00 to 08:05, are easier to read
        since = record.first - record.first % (every or 1)
    end = record.last + 1 if until is None else until
    if until is None and since >= end:
        raise ConfigError(
            f"the period is empty: the latest event is of {to_rfc3339(record.last)}, before --from (the demo and "
            "recordings begin in 1970)"
        )
    return Parts.of(since, end, every)


def _nanoseconds(moment: int | float | None) -> int | None:
    """Return a point in time in nanoseconds; a float is an age in seconds."""
    return time.time_ns() - round(moment * 1e9) if isinstance(moment, float) else moment
