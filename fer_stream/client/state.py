"""Asks aggregators for their status. Those of a cell answer for themselves alone; the answers are put together here."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from fer_stream.client.scouts import NoAnswerError
from fer_stream.errors import FerStreamError, WireError
from fer_stream.events.cursor import to_cursor, to_numbers
from fer_stream.fleet.partitions import partition
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind
from fer_stream.system.waiting import wait_readable

if TYPE_CHECKING:
    from fer_stream.plugins import Peer, Transport

    State = dict[str, Any]


def ask_status(peer: Peer, address: str, timeout: float) -> State:
    """Return the status of one aggregator, over an open control link.

    Raises:
        NoAnswerError: no answer comes within ``timeout`` seconds. Its cause is not looked up.
        TransportError: the aggregator refuses this process.
    """
    ticket = random.getrandbits(48)
    deadline = time.monotonic() + timeout
    peer.send(messages.json_message(Kind.STATUS, ticket=ticket))
    while (remaining := deadline - time.monotonic()) > 0:
        state = _answer(peer, ticket, remaining)
        if state is not None:
            return state
    raise NoAnswerError(f"no aggregator answers at {address}")


def _answer(peer: Peer, ticket: int, timeout: float) -> State | None:
    parts = peer.receive(timeout)
    if parts is None:
        return None
    message = messages.unpack(parts)
    return message.body() if message.kind is Kind.STATUS and message.ticket == ticket else None


def places(state: State) -> dict[str, str]:
    """Return the address of each of the cell's aggregators, by its id; nothing on one machine.

    Raises:
        WireError: the status does not say so.
    """
    try:
        aggregators = (state.get("fleet") or {"aggregators": {}})["aggregators"]
        found = {name: (about["address"], about["key"]) for name, about in aggregators.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise WireError(f"a status with an invalid fleet: {type(error).__name__} {error}") from error
    if not all(isinstance(text, str) for place in found.values() for text in place):
        raise WireError("a status with an invalid fleet: an address or key that is no text")
    return {name: f"{address}#{key}" if key else address for name, (address, key) in found.items()}


class StateReader:
    """Open control links to an aggregator and, in a cell, to all others. Asking again uses the same links."""

    def __init__(self, transport: Transport, address: str) -> None:
        """Connect.

        Raises:
            ConfigError: the address is invalid.
        """
        self._transport, self._address = transport, address
        self._peer = transport.connect(address, "control")
        self._others: dict[str, Peer] = {}

    @property
    def others(self) -> list[str]:
        """The addresses of the cell's other aggregators, as of the latest answer."""
        return list(self._others)

    def ask(self, timeout: float) -> State:
        """Return the status of the aggregator, or of its whole cell: see `fer_stream.client.status`.

        Raises:
            NoAnswerError: the aggregator does not answer within ``timeout`` seconds. The others of its cell, which are
                asked afterwards, have as long again; one that does not answer is no error.
            TransportError: the aggregator refuses this process.
            WireError: an answer is not that of an aggregator of this version.
        """
        state = ask_status(self._peer, self._address, timeout)
        where = places(state)
        if not where:
            return state
        try:
            me = state["fleet"]["me"]
            where.pop(me, None)
            states, errors = self._ask_others(where, timeout)
            return merged(me, {me: state, **states}, errors)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise WireError(
                f"the cell's aggregators are of several versions: {type(error).__name__} {error}"
            ) from error

    def _ask_others(self, where: dict[str, str], timeout: float) -> tuple[dict[str, State], dict[str, str]]:
        """Return the status of each that answers, and the reason for each that does not, by id."""
        waiting, states, errors = {}, {}, {}
        for address in self._others.keys() - where.values():
            self._others.pop(address).close()
        for name, address in where.items():
            try:
                if address not in self._others:
                    self._others[address] = self._transport.connect(address, "control")
            except FerStreamError as error:
                errors[name] = str(error)
                continue
            waiting[name] = self._others[address], random.getrandbits(48)
            waiting[name][0].send(messages.json_message(Kind.STATUS, ticket=waiting[name][1]))
        deadline = time.monotonic() + timeout
        while waiting and (remaining := deadline - time.monotonic()) > 0:
            for name, (peer, ticket) in list(waiting.items()):
                try:
                    state = _answer(peer, ticket, 0)
                except FerStreamError as error:
                    errors[name], _ = str(error), waiting.pop(name)
                    self._others.pop(where[name]).close()  # a link that was refused never gets an answer
                    continue
                if state is not None:
                    states[name], _ = state, waiting.pop(name)
            descriptors = [descriptor for peer, _ in waiting.values() for descriptor in peer.descriptors()]
            wait_readable(descriptors, min(remaining, 0.5) if waiting else 0)
        return states, errors | dict.fromkeys(waiting, f"no answer within {timeout:.3g} s")

    def diagnose(self) -> str:
        """Return why the aggregator does not answer; see `fer_stream.plugins.Peer.diagnose`."""
        return self._peer.diagnose()

    def close(self) -> None:
        """Close all links."""
        for peer in (self._peer, *self._others.values()):
            peer.close()


def merged(me: str, states: dict[str, State], errors: dict[str, str]) -> State:
    """Return the status of a cell.

    Args:
        me: the id of the aggregator that was asked first; what speaks of a process is that one's.
        states: the status of each aggregator that answered, by its id.
        errors: why an aggregator did not answer, by its id.
    """
    fleet = states[me]["fleet"]
    owners = {number: name for name, about in fleet["aggregators"].items() for number in about["owns"]}

    def nearness(found: State) -> tuple[bool, float]:
        """While a camera moves, two may list it: its partition's owner counts, or else who heard of it last."""
        return found["aggregator"] == owners.get(found["partition"]), -found["heard_s"]

    cameras: dict[str, State] = {}
    for name, state in states.items():
        for camera, about in state["cameras"].items():
            new = about | {"aggregator": name, "partition": partition(camera, fleet["partitions"])}
            cameras[camera] = max(cameras.get(camera, new), new, key=nearness)
    events: Counter[str] = Counter()
    for state in states.values():
        events.update(state["events"])
    aggregators = {
        name: about | {"error": errors.get(name, ""), "uptime_s": states[name]["uptime_s"] if name in states else None}
        for name, about in fleet["aggregators"].items()
    }
    return states[me] | {
        # Who reads it from the memory of some must read it from none if others have another.
        "memory": states[me]["memory"] if len({state["memory"] for state in states.values()}) == 1 else "",
        "cursor": _latest([state["cursor"] for state in states.values()]),
        "events_held": sum(state["events_held"] for state in states.values()),
        "labels": list(dict.fromkeys(label for state in states.values() for label in state["labels"])),
        "cameras": dict(sorted(cameras.items())),
        "workers": _distinct({name: state["workers"] for name, state in states.items()}),
        "sinks": _distinct({name: state["sinks"] for name, state in states.items()}),
        "events": dict(sorted(events.items())),
        "fleet": fleet | {"aggregators": aggregators},
    }


def _distinct(found: dict[str, dict[str, State]]) -> dict[str, State]:
    """Put what each aggregator has together, by name. A name that several use is followed by the aggregator's id."""
    names = Counter(name for each in found.values() for name in each)
    return {
        name if names[name] == 1 else f"{name} at {where}": about | {"aggregator": where}
        for where, each in found.items()
        for name, about in each.items()
    }


def _latest(cursors: list[str]) -> str:
    """Return the latest cursor in each partition: an aggregator may know less of what others write."""
    return to_cursor(*map(max, zip(*map(to_numbers, cursors), strict=True)))
