"""Fixtures: the table of the fault tests' results, and a service."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import processes
import pytest
from faults import table
from faults.service import SLOWLY, STEADY, Service
from processes import Cli

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.table import Tell
    from scale import Scale


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--faults-table", type=Path, metavar="FILE", help="write the rows into the table of this page")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: takes too long for `make test-long`")
    # Full numbers need longer time limits.
    processes.PATIENCE = max(processes.PATIENCE, 1200 * config.getoption("soak"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("soak"):
        items[:] = [item for item in items if not item.get_closest_marker("soak")]


@pytest.fixture
def tell(request: pytest.FixtureRequest, scale: Scale) -> Tell:
    """``tell(fault, happened, figure, *limits)`` adds a row; in a soak a figure beyond its limit fails the test."""

    def add(fault: str, happened: str, figure: str, *limits: tuple[float, float]) -> None:
        held = all(value <= limit for value, limit in limits)
        where = request.node.nodeid.partition("[")[0].removeprefix("tests/faults/")
        command = f"{where} --soak {scale.share:g}" if scale.share else where
        request.node.user_properties.append((table.PROPERTY, tuple(table.Row(fault, happened, figure, held, command))))
        assert held or not scale.share, f"{fault}: {figure}"

    return add


@pytest.fixture
def service(cli: Cli, short_folder: Path) -> Callable[..., Service]:
    """``service(source, *options)`` starts ``fer-stream run`` with one camera, ``film``."""
    return lambda source, *more, **how: Service(cli, short_folder, source, *more, **how)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, clip: Path) -> str:
    """The output of a run of the clip under ``wait`` without a fault."""
    cli = Cli(tmp_path_factory.mktemp("undisturbed"), tiny_model)
    with tempfile.TemporaryDirectory(prefix="f-", dir="/tmp") as folder:
        service = Service(cli, Path(folder), clip, *SLOWLY, **STEADY)
        service.end(stop=False)
    return service.run.out
