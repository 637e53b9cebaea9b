"""Subscribers on links with low bandwidth, latency and loss: every event arrives once and in order."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from house import event
from processes import gapless
from slow_link import SlowLink, ThrottledProxy, slow_link

from fer_stream.client import read_journal
from fer_stream.journal.sqlite import Writer
from fer_stream.types import CameraData, Event, EventType, Nanoseconds

if TYPE_CHECKING:
    from processes import Cli, Process

Link = SlowLink | ThrottledProxy


class Far:
    """An aggregator at the far end of a link, and subscribers at the near end."""

    def __init__(self, cli: Cli, link: Link, events: list[Event]) -> None:
        self._cli, self._link = cli, link
        self.journal = cli.folder / "events.db"
        writer = Writer(self.journal)
        writer.append(events)
        writer.close()
        made = cli.run("keys", "new", "desk", "--role", "client", "--keys", "keys")
        assert made.out, made.err
        self.aggregator = self.start()

    def start(self) -> Process:
        self._cli.under = self._link.far
        options = ("--keys", "keys", "--journal", self.journal, "--purpose", "research")
        aggregator = self._cli.start("aggregator", "--bind", self._link.bind, *options)
        aggregator.until_said("ready at")
        return aggregator

    def subscribe(self, *options: object) -> Process:
        self._cli.under = self._link.near
        where = ("--connect", self._link.address, "--key", "keys/desk.key", "--format", "jsonl")
        return self._cli.start("subscribe", *where, "--from", 0, *options)

    @property
    def stored(self) -> list[str]:
        return [text for _, text in read_journal(self.journal)]

    @property
    def size(self) -> int:
        return sum(len(text) for text in self.stored)


def many(count: int) -> list[Event]:
    return [event(number) for number in range(1, count + 1)]


def long_event(size: int) -> Event:
    data = CameraData("x" * size, 640, 480)
    return Event(EventType.CAMERA_RESET, "door", 1, 1_000_000, 0, Nanoseconds(0), data)


def test_a_backlog_at_half_a_megabit(cli: Cli) -> None:
    with slow_link(rate=500_000) as link:
        far = Far(cli, link, many(3000))
        subscriber = far.subscribe("--until-now")
        assert subscriber.end() == 0, subscriber.err
        assert subscriber.out.splitlines() == far.stored
        assert gapless(subscriber.events)
        assert link.passed["near"] < 1.5 * far.size, "hardly any event is sent twice"


@pytest.mark.timeout(300)
def test_a_slow_and_lossy_link_with_an_event_longer_than_a_request(cli: Cli) -> None:
    """At 64 kbit/s the long event takes seconds, and every lost packet two more."""
    with slow_link(rate=64_000, latency=0.6, loss=0.02) as link:
        far = Far(cli, link, [*many(40), long_event(30_000)])
        subscriber = far.subscribe("--until-now", "--timeout", 60)
        assert subscriber.end() == 0, subscriber.err
        assert subscriber.out.splitlines() == far.stored
        if link.real:
            assert link.passed["near"] < 3 * far.size


def test_several_at_once_share_the_link(cli: Cli) -> None:
    with slow_link(rate=400_000) as link:
        far = Far(cli, link, many(300))
        subscribers = [far.subscribe("--until-now", "--camera", "door") for _ in range(3)]
        for subscriber in subscribers:
            assert subscriber.end() == 0, subscriber.err
            assert subscriber.out.splitlines() == far.stored


def test_a_suspended_subscriber_gets_all_events(cli: Cli) -> None:
    """The process is stopped repeatedly, and sends no requests meanwhile."""
    with slow_link(rate=2_000_000) as link:
        far = Far(cli, link, many(1500))
        subscriber = far.subscribe("--until-now")
        for _ in range(5):
            subscriber.signal(signal.SIGSTOP)
            time.sleep(0.7)
            subscriber.signal(signal.SIGCONT)
            time.sleep(0.2)
        assert subscriber.end() == 0, subscriber.err
        assert subscriber.out.splitlines() == far.stored


def connections(process: Process) -> int:
    """Return the TCP connections in a process's network namespace (proc_pid_net(5): state 1 is established)."""
    tables = [Path(f"/proc/{process.pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    return sum(line.split()[3] == "01" for table in tables for line in table)


def test_events_continue_after_a_cut_link_is_restored(cli: Cli) -> None:
    """While the link is cut the connections die. Afterwards the events continue, and none is repeated."""
    with slow_link(rate=500_000) as link:
        if not link.real:
            pytest.skip("no network namespaces here")
        far = Far(cli, link, many(2000))
        subscriber = far.subscribe()
        subscriber.until(lambda: subscriber.out.count("\n") > 200, "some events")
        link.cut()
        assert connections(subscriber) == 2
        dead = time.monotonic()
        while connections(subscriber) and time.monotonic() < dead + 30:
            time.sleep(0.1)
        assert not connections(subscriber), "it noticed the dead connections before the kernel, which takes a minute"
        before = subscriber.out.count("\n")
        link.mend()
        subscriber.until(lambda: subscriber.out.count("\n") > before, "the next ones")
        subscriber.until(lambda: subscriber.out.count("\n") >= 2000, "all events")
        assert [int(json.loads(line)["cursor"]) for line in subscriber.out.splitlines()] == list(range(1, 2001))


def test_events_continue_after_the_aggregator_restarts(cli: Cli) -> None:
    with slow_link(rate=300_000, latency=0.1) as link:
        far = Far(cli, link, many(600))
        subscriber = far.subscribe()
        subscriber.until(lambda: subscriber.out.count("\n") > 50, "some events")
        far.aggregator.signal(signal.SIGKILL)
        far.aggregator.end()
        far.start()
        subscriber.until(lambda: subscriber.out.count("\n") >= 600, "all events")
        assert [int(json.loads(line)["cursor"]) for line in subscriber.out.splitlines()] == list(range(1, 601))
