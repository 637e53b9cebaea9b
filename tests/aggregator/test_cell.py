"""Which cells an aggregator can be a member of: each reason why it cannot has its own sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from nats_servers import NatsServer
from processes import free_port

from fer_stream.settings.deployment import wildcard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Cli

SITE = {"FER_STREAM_FLEET__CELL": "site"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    one = NatsServer(tmp_path).start()
    yield one
    one.kill()


def test_a_cell_needs_a_journal_that_can_be_shared(cli: Cli, short_folder: Path) -> None:
    alone = cli.run("aggregator", "--bind", f"ipc://{short_folder}", "--journal", "events.db", **SITE)
    assert alone.popen.returncode == 2
    assert alone.errors == [
        "fer-stream: error: cell site needs a journal that its aggregators share, and events.db is none: "
        "give NATS servers (--journal nats://HOST:PORT)"
    ]
    assert not (cli.folder / "events.db").exists()


def test_others_must_be_able_to_connect(cli: Cli, server: NatsServer) -> None:
    keys = cli.run("keys", "new", "door", "--role", "capture", "--keys", cli.folder / "keys")
    assert keys.popen.returncode == 0, keys.err
    options = ("--keys", cli.folder / "keys", "--purpose", "other", "--journal", server.address)
    everywhere = cli.run("aggregator", "--bind", f"tcp://0.0.0.0:{free_port()}", *options, **SITE)
    assert everywhere.popen.returncode == 2
    assert "set fleet.advertise to the address at which they can" in everywhere.errors[0]


def test_all_aggregators_of_a_cell_have_the_same_partitions(cli: Cli, server: NatsServer, short_folder: Path) -> None:
    first = cli.start("aggregator", "--bind", f"ipc://{short_folder}/a", "--journal", server.address, **SITE)
    first.until_said("ready at")
    other = SITE | {"FER_STREAM_FLEET__PARTITIONS": "8"}
    second = cli.run("aggregator", "--bind", f"ipc://{short_folder}/b", "--journal", server.address, **other)
    assert second.popen.returncode == 1
    assert "another cell (cell site, partitions: 16)" in second.errors[0]
    assert "correct fleet.cell and fleet.partitions" in second.errors[0]
    assert first.stop() == 0


def test_run_is_for_one_machine(cli: Cli) -> None:
    run = cli.run("run", "demo", **SITE)
    assert run.popen.returncode == 2
    assert "run is for one machine, and the settings name cell site" in run.errors[0]


@pytest.mark.parametrize(
    ("address", "everywhere"),
    [
        ("tcp://0.0.0.0:5560", True),
        ("tcp://*:5560", True),
        ("tcp://[::]:5560", True),
        ("tcp://10.0.0.1:5560", False),
        ("tcp://cell-0.example:5560", False),
        ("ipc:///run/fer", False),
    ],
)
def test_an_address_that_stands_for_all(address: str, everywhere: bool) -> None:
    assert wildcard(address) is everywhere
