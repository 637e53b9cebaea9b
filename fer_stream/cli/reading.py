"""The commands that print results, subscribe, status and recognize, and the command that deletes events, purge."""

from __future__ import annotations

import json
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.cli.options import await_service, begin
from fer_stream.errors import ConfigError, SourceError
from fer_stream.system import folders
from fer_stream.types import BEGINNING, EventType

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence

    from fer_stream.settings.tree import Settings
    from fer_stream.types import Event


def subscribe(arguments: Namespace) -> None:
    """Print the events of a running aggregator, or of a journal."""
    from fer_stream.client import read_journal  # noqa: PLC0415

    settings = begin(arguments, "subscribe")
    types = _checked_types(arguments.type)
    sink = plugins.load("sinks", "stdout")(arguments.format)
    # Signals raise KeyboardInterrupt in this command, also during a write that waits for a reader of the pipe.
    if arguments.journal_file:
        # With the settings' credentials. A server's address is no path: "//" would become "/".
        where = str(arguments.journal_file)
        path = where if "://" in where else folders.expand(Path(where))
        journal = settings.model_copy(update={"journal": settings.journal.model_copy(update={"path": path})})
        after = arguments.after or BEGINNING
        events = read_journal(journal, after=after, camera=arguments.camera, types=types)
    else:
        events = _follow(arguments, settings, types)
    for event, text in events:
        sink.write(event, text)
        if sink.closed:
            break


def purge(arguments: Namespace) -> None:
    """Delete old events from the journal, and old dead letters."""
    import time  # noqa: PLC0415

    from fer_stream.delivery.state import DeliveryState, path_of  # noqa: PLC0415

    settings = begin(arguments, "purge")
    journal = plugins.journal(settings.journal, settings.fleet)
    before = time.time() - arguments.older_than
    count = journal.purge(before)
    sys.stdout.write(f"{count} events deleted from {journal.name}\n")
    if (record := path_of(settings)).exists():
        state = DeliveryState(record)
        letters = state.purge(before)
        state.close()
        sys.stdout.write(f"{letters} dead letters deleted from {record}\n")


def _follow(arguments: Namespace, settings: Settings, types: Sequence[str]) -> Iterator[tuple[Event, str]]:
    from fer_stream.client import subscribe as listen  # noqa: PLC0415

    if not arguments.until_now:
        settings = await_service(settings)
    with listen(
        camera=arguments.camera,
        types=types,
        after=arguments.after,
        until_now=arguments.until_now,
        timeout=arguments.timeout,
        settings=settings,
    ) as events:
        while not events.ended:
            found = events.receive(0.25)
            if found is not None:
                yield found


def _checked_types(names: Sequence[str] | None) -> list[str]:
    """Return the event types and families to print.

    Raises:
        ConfigError: a name is neither a type nor a family.
    """
    known = [*EventType, *dict.fromkeys(kind.partition(".")[0] for kind in EventType)]
    for name in names or ():
        if name not in known:
            near = get_close_matches(name, known, 1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"flag --type: no event is of type {name!r}; {advice}")
    return list(names or ())


def status(arguments: Namespace) -> None:
    """Print the status of a running aggregator."""
    from fer_stream.client import status as ask  # noqa: PLC0415

    state = ask(begin(arguments, "status"), arguments.timeout)
    if arguments.format == "jsonl":
        sys.stdout.write(json.dumps(state, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("\n".join(status_lines(state)) + "\n")


def status_lines(state: dict[str, Any]) -> list[str]:
    """Return the status of an aggregator or a cell (`fer_stream.client.status`) as lines for people."""
    fleet = state.get("fleet")
    lines = _cell_lines(fleet) if fleet else []
    lines += [
        f"up {state['uptime_s']:.0f} s, {sum(state['events'].values())} events, cursor {state['cursor']}, "
        f"labels: {', '.join(state['labels']) or ('none' if state['workers'] else 'none until a worker connects')}",
        "",
    ]
    cameras, workers = state["cameras"], state["workers"]
    # Show a term that is 0 for all cameras only if it is one of these.
    always = ("captured", "done", "in_flight")
    terms = [
        term
        for term in dict.fromkeys(term for camera in cameras.values() for term in camera["ledger"])
        if term in always or any(camera["ledger"].get(term) for camera in cameras.values())
    ]
    where = ("aggregator", "partition") if fleet else ()
    rows = [
        ["camera", *where, "state", "policy", "fps", "age ms", *(term.replace("_", " ") for term in terms), "faces"]
    ]
    for name, camera in cameras.items():
        counts = [str(camera["ledger"].get(term, 0)) for term in terms]
        age = f"{1000 * camera['frame_age_s']:.0f}"
        head = [name, *(str(camera[key]) for key in where)]
        head += [camera["state"], camera["policy"], f"{camera['rate']:.1f}", age]
        rows.append([*head, *counts, str(len(camera["tracks"]))])
    lines += table(rows) if cameras else ["no cameras"]
    keys = ("aggregator",) if fleet else ()
    rows = [["worker", *keys, "state", "frames", "pid", "model", "detector"]]
    for name, worker in workers.items():
        rows.append([name, *(str(worker[key]) for key in rows[0][1:])])
    lines += ["", *(table(rows) if workers else ["no workers"])]
    rows = [["sink", "state", "delivered", "undelivered", "behind", "error"]]
    for name, sink in state.get("sinks", {}).items():
        rows.append([name, *(str(sink[key]) for key in rows[0][1:])])
    lines += ["", *table(rows)] if len(rows) > 1 else []
    rows = [["camera", "face", "apparent expression"]]
    for name, camera in cameras.items():
        for track in camera["tracks"]:
            rows.append([name, f"#{track['track']}", _expression(track)])
    return [*lines, "", *table(rows)] if len(rows) > 1 else lines


def _expression(track: dict[str, Any]) -> str:
    """Return the label of a face, and its measures; no label where the model has none."""
    label, shares, measures = track["label"], track["probabilities"], track.get("measures", {})
    shown = [f"{label} {shares.get(label, 0):.0%}" if label else "uncertain"] if shares or not measures else []
    return ", ".join([*shown, *(f"{name} {value:.2f}" for name, value in measures.items())])


def _cell_lines(fleet: dict[str, Any]) -> list[str]:
    """Return the aggregators of a cell, and what is wrong with it, as lines for people."""
    rows = [["aggregator", "address", "up s", "load", "workers", "idle", "partitions", "state"]]
    for name, each in fleet["aggregators"].items():
        state = each["error"] or ("leaving" if each["leaving"] else "ok")
        up = "" if each["uptime_s"] is None else f"{each['uptime_s']:.0f}"
        numbers = [f"{each['load']:.1f}", str(each["workers"]), str(each["idle"]), str(len(each["owns"]))]
        rows.append([name, each["address"], up, *numbers, state])
    lines = [f"cell {fleet['cell']}, partitions: {fleet['partitions']}", *table(rows)]
    if fleet["unowned"]:
        lines.append(f"partitions without an aggregator: {', '.join(map(str, fleet['unowned']))}")
    return [*lines, ""]


def table(rows: list[list[str]]) -> list[str]:
    """Return rows as lines of aligned columns: names to the left, numbers to the right. A dash is no number."""
    columns = list(zip(*rows, strict=True))
    right = [
        number > 0 and all(text == "-" or text.replace(".", "").isdigit() for text in column[1:])
        for number, column in enumerate(columns)
    ]
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join(
            text.rjust(width) if numeric else text.ljust(width)
            for text, width, numeric in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]


def recognize(arguments: Namespace) -> int:
    """Print one JSON line per image; after an image that cannot be read, continue with the next."""
    from fer_stream.inference.recognizer import Recognizer  # noqa: PLC0415
    from fer_stream.operations.logs import tell_error  # noqa: PLC0415
    from fer_stream.sources.images import load  # noqa: PLC0415

    recognizer = Recognizer.from_settings(begin(arguments, "recognize"))
    failures = 0
    for name in arguments.images:
        path = Path(name)
        try:
            image = load(path)
        except SourceError as error:
            tell_error(str(error))
            failures += 1
            continue
        faces = [face.as_dict() for face in recognizer.recognize(image).faces]
        sys.stdout.write(json.dumps({"image": name, "faces": faces}, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    return 1 if failures else 0
