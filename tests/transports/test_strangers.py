"""Thousands of unauthorized peers at a real aggregator: no message is delivered, and no resource is leaked.

``pytest tests/transports/test_strangers.py --strangers 10000`` is the long version.
"""

from __future__ import annotations

import itertools
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import zmq
from processes import free_port, wait_for

from fer_stream.protocol import messages, shared
from fer_stream.protocol.messages import Kind
from fer_stream.transports import keys
from fer_stream.transports.zeromq import endpoint

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from processes import Cli

HELLO = messages.json_message(
    Kind.HELLO,
    {
        "camera": "stranger", "incarnation": "a", "pid": 1, "policy": "wait", "live": True, "frames": None,
        "rate": None, "reported": {}, "memory": shared.identity(),
    },
)  # fmt: skip
"""If it were delivered, the status would list a camera of this name."""

AT_ONCE = 50


def knock(context: zmq.Context[zmq.Socket[bytes]], where: str, some: list[keys.Key | None]) -> int:
    """Connect with each key (or none) and send; return how many connections the aggregator closed within 30 s."""
    poller, open_ones = zmq.Poller(), []
    for key in some:
        sock = context.socket(zmq.DEALER)
        sock.set(zmq.LINGER, 0)
        sock.set(zmq.RECONNECT_IVL, -1)
        if key is not None:
            sock.set(zmq.CURVE_PUBLICKEY, key.public.encode())
            sock.set(zmq.CURVE_SECRETKEY, key.secret.encode())
            sock.set(zmq.CURVE_SERVERKEY, key.server.encode())
        monitor = sock.get_monitor_socket(zmq.Event.DISCONNECTED | zmq.Event.HANDSHAKE_SUCCEEDED)
        sock.connect(where)
        with suppress(zmq.Again):  # the connection was refused already
            sock.send_multipart(HELLO, zmq.DONTWAIT)
        poller.register(monitor, zmq.POLLIN)
        open_ones.append((sock, monitor))
    turned_away, deadline = set(), time.monotonic() + 30
    while len(turned_away) < len(some) and time.monotonic() < deadline:
        turned_away |= {monitor for monitor, _ in poller.poll(100)}
    let_in = 0
    for sock, monitor in open_ones:
        while monitor.poll(0):
            event = zmq.utils.monitor.recv_monitor_message(monitor)["event"]
            let_in += event == zmq.Event.HANDSHAKE_SUCCEEDED
        sock.disable_monitor()
        monitor.close()
        sock.close()
    assert let_in == 0
    return len(turned_away)


def test_strangers_deliver_nothing_and_leak_nothing(cli: Cli, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    number = pytestconfig.getoption("strangers")
    folder, address = tmp_path / "keys", f"tcp://127.0.0.1:{free_port()}"
    made = {role: keys.load(keys.new(folder, f"a-{role}", role)) for role in ("client", "worker")}
    revoked = keys.load(keys.new(folder, "gone", "capture"))
    keys.revoke(folder, "gone")
    foreign = keys.load(keys.new(tmp_path / "other", "door", "capture"))
    aggregator = cli.start("aggregator", "--bind", address, "--keys", folder, "--journal", "events.db")
    aggregator.until_said("ready at")
    process, context = psutil.Process(aggregator.pid), zmq.Context()
    # No key, one of another aggregator, a revoked one, and two for other links.
    kinds = itertools.cycle([None, foreign, revoked, made["client"], made["worker"]])
    where = endpoint(address, "frames")

    turned_away = knock(context, where, list(itertools.islice(kinds, AT_ONCE)))
    memory, files = process.memory_info().rss, process.num_fds()
    while turned_away < number:
        turned_away += knock(context, where, list(itertools.islice(kinds, min(AT_ONCE, number - turned_away))))
    aggregator.until(lambda: process.num_fds() <= files, "the file descriptors of strangers")
    context.term()
    grown = process.memory_info().rss - memory
    status = cli.run("status", "--connect", address, "--key", folder / "a-client.key", "--format", "jsonl")
    (state,) = status.events
    assert (state["cameras"], state["workers"], state["cursor"]) == ({}, {}, "0")
    assert grown < 8 * 2**20
    print(f"\n{turned_away} connections, delivered 0; memory +{grown / 2**20:.1f} MB, descriptors +0")  # noqa: T201
    assert aggregator.stop() == 0


def test_every_command_reports_why_it_is_refused(cli: Cli, tmp_path: Path, clip: Path) -> None:
    """One sentence and exit status 1, instead of waiting forever."""
    folder, address = tmp_path / "keys", f"tcp://127.0.0.1:{free_port()}"
    files = {role: keys.new(folder, f"a-{role}", role) for role in ("client", "worker", "capture")}
    aggregator = cli.start("aggregator", "--bind", address, "--keys", folder, "--journal", "events.db")
    aggregator.until_said("ready at")
    commands = {
        "client": (("worker",), ("capture", clip)),
        "worker": (("subscribe",), ("subscribe", "--from", "0", "--until-now"), ("status",)),
    }
    processes = [
        (role, cli.start(*command, "--connect", address, "--key", files[role]))
        for role, some in commands.items()
        for command in some
    ]
    for role, process in processes:
        assert process.end() == 1
        (sentence,) = process.errors
        assert f"the aggregator at {address} refused the key a-{role} (role {role}): ask its operator" in sentence
        assert "Traceback" not in process.err
    assert aggregator.stop() == 0


def test_a_capture_cannot_send_for_a_camera_that_is_not_its_own(cli: Cli, tmp_path: Path, clip: Path) -> None:
    folder, address = tmp_path / "keys", f"tcp://127.0.0.1:{free_port()}"
    cli.run("keys", "new", "shed", "--role", "capture", "--camera", "yard", "--camera", "gate", "--keys", folder)
    listed = cli.run("keys", "list", "--keys", folder).out.splitlines()
    assert [line.split()[3:] for line in listed] == [[], ["yard", "gate"]]
    cli.start("aggregator", "--bind", address, "--keys", folder, "--journal", "events.db").until_said("ready at")
    capture = ("capture", clip, "--loop", "--connect", address, "--key", folder / "shed.key", "--camera")
    gate = cli.start(*capture, "gate")
    refused = cli.run(*capture, "door")
    assert refused.popen.returncode == 2
    assert refused.errors == [
        "fer-stream: error: the key shed is not for camera door, but for yard, gate: make one with "
        "`fer-stream keys new door --role capture`, or choose another --camera"
    ]
    wait_for(
        lambda: (
            list(
                cli.run("status", "--connect", address, "--key", folder / "local.key", "--format", "jsonl").events[0][
                    "cameras"
                ]
            )
            == ["gate"]
        ),
        "the one camera",
        log=lambda: gate.err,
    )
