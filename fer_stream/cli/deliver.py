"""``fer-stream deliver``: hands events over to sinks; shows and changes how far they are."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream.cli.options import await_service, begin
from fer_stream.cli.reading import table
from fer_stream.errors import ConfigError
from fer_stream.operations.process import supervised
from fer_stream.system import folders

if TYPE_CHECKING:
    from argparse import Namespace

    from fer_stream.delivery.state import DeadLetter, DeliveryState, SinkState
    from fer_stream.settings.tree import Settings


def deliver(arguments: Namespace) -> None:
    """Deliver events, or show and change the record of deliveries."""
    settings = begin(arguments, "deliver")
    if arguments.journal_file:
        where = str(arguments.journal_file)
        path = where if "://" in where else folders.expand(Path(where))
        settings = settings.model_copy(update={"journal": settings.journal.model_copy(update={"path": path})})
    if arguments.action is not None:
        _manage(arguments, settings)
        return
    from fer_stream.delivery.process import run  # noqa: PLC0415
    from fer_stream.delivery.sink import check, orders  # noqa: PLC0415
    from fer_stream.delivery.state import claimed, path_of  # noqa: PLC0415
    from fer_stream.operations import instances  # noqa: PLC0415

    # A run hands its sinks to this child.
    further = [*arguments.further, *(settings.sinks if supervised() else ())]
    chosen = orders(settings, further)
    with claimed(path_of(settings)):
        check(settings, further)  # before it waits for a service
    from_journal = bool(arguments.journal_file)
    # A service that is started again may have another address.
    find = None if from_journal or instances.given(settings) else partial(instances.find, settings)
    settings = settings if from_journal else await_service(settings)
    run(settings, chosen, from_journal=from_journal, begin=arguments.after, find=find)


def _manage(arguments: Namespace, settings: Settings) -> None:
    from fer_stream.delivery.state import DeliveryState, in_use, path_of  # noqa: PLC0415

    if arguments.further:
        raise ConfigError(f"deliver {arguments.action} takes a sink's name, and no --sink")
    state = DeliveryState(path_of(settings))
    try:
        if arguments.action != "status":
            _change(arguments, state)
        elif arguments.receiver is None:
            _show(state.sinks(), state.count_dead_letters(), arguments.format, running=in_use(state.path))
        else:
            letters = state.dead_letters(_known(state, arguments.receiver).name, arguments.event or "")
            _show_dead([letter for _, letter in letters], arguments.format)
    finally:
        state.close()


def _known(state: DeliveryState, name: str | None) -> SinkState:
    """Return a sink by its name.

    Raises:
        ConfigError: there is none, or no name was given.
    """
    names = ", ".join(sink.name for sink in state.sinks()) or "none"
    if name is None:
        raise ConfigError(f"which sink? there are: {names}")
    sink = state.sink(name)
    if sink is None:
        raise ConfigError(f"there is no sink {name!r} in {state.path}; there are: {names}")
    return sink


def _change(arguments: Namespace, state: DeliveryState) -> None:
    from fer_stream.delivery.state import in_use  # noqa: PLC0415

    sink = _known(state, arguments.receiver)
    identity = arguments.event or ""
    letters = state.count_dead_letters().get(sink.name, 0)
    if identity and arguments.action != "skip" and not state.dead_letters(sink.name, identity):
        raise ConfigError(
            f"{sink.name} has no dead letter {identity!r}: fer-stream deliver status '{sink.name}' lists them"
        )
    served = in_use(state.path) and sink.state != "idle"
    if arguments.action == "skip" and not served:
        raise ConfigError(f"no fer-stream deliver serves {sink.name} now, so it waits at no batch to skip")
    if arguments.action == "forget":
        if served or identity:
            raise ConfigError(
                f"{sink.name} is served by a fer-stream deliver: remove it from the settings, and start that one again"
                if served
                else "deliver forget takes a sink's name alone"
            )
        state.forget(sink.name)
        sys.stdout.write(f"{sink.name} is forgotten, with {_letters(letters)}; under this name a sink begins anew\n")
        return
    if arguments.action == "discard":
        sys.stdout.write(f"{sink.name}: {_letters(state.discard(sink.name, identity))} deleted\n")
        return
    state.ask(sink.name, arguments.action, identity)
    what = {
        "retry": f"{_letters(1 if identity else letters)} and all events that wait will be sent "
        + ("now" if served else "when fer-stream deliver serves this sink; none does now"),
        "skip": "this event becomes a dead letter if the sink waits at it now"
        if identity
        else "the events of the batch become dead letters if the sink waits at it now",
    }
    sys.stdout.write(f"{sink.name}: {what[arguments.action]}\n")


def _letters(count: int) -> str:
    return f"{count} dead letter{'' if count == 1 else 's'}"


def _show(sinks: list[SinkState], dead: dict[str, int], how: str, *, running: bool) -> None:
    if how == "jsonl":
        rows: list[dict[str, Any]] = [sink._asdict() | {"dead_letters": dead.get(sink.name, 0)} for sink in sinks]
        sys.stdout.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return
    lines = [["sink", "state", "since", "delivered", "filtered", "dead letters", "cursor", "error"]]
    for sink in sinks:
        counts = [str(sink.delivered), str(sink.filtered), str(dead.get(sink.name, 0))]
        cursor = sink.cursor if len(sink.cursor) <= 20 else f"{sink.cursor[:17]}..."
        lines.append([sink.name, sink.state, _moment(sink.changed), *counts, cursor, sink.error])
    told = table(lines) if sinks else ["no sink has begun yet"]
    if not running:
        told.append("no fer-stream deliver runs now; this is how far the sinks were when it ended")
    sys.stdout.write("\n".join(told) + "\n")


def _show_dead(letters: list[DeadLetter], how: str) -> None:
    if how == "jsonl":
        sys.stdout.write("".join(json.dumps(letter._asdict(), ensure_ascii=False) + "\n" for letter in letters))
        return
    lines = [["id", "since", "reason"], *([one.id, _moment(one.since), one.reason] for one in letters)]
    sys.stdout.write("\n".join(table(lines) if letters else ["no dead letters"]) + "\n")


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"
