"""A process learns the id of the one before it at its address, and that this one has ended."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fer_stream.errors import TransportError
from fer_stream.fleet.identity import identity

if TYPE_CHECKING:
    from pathlib import Path

HERE = "tcp://10.0.0.1:5560"


def test_each_process_has_an_id_of_its_own_and_knows_its_former_one(tmp_path: Path) -> None:
    with identity(tmp_path, "site", HERE) as first:
        assert first.former == ""
    with identity(tmp_path, "site", HERE) as second:
        assert second.former == first.me
        assert second.me != first.me
        with identity(tmp_path, "site", "tcp://10.0.0.1:5570") as other, identity(tmp_path, "yard", HERE) as elsewhere:
            assert (other.former, elsewhere.former) == ("", "")


def test_of_two_processes_with_one_address_the_second_is_refused(tmp_path: Path) -> None:
    with (
        identity(tmp_path, "site", HERE),
        pytest.raises(TransportError, match=f"another aggregator of cell site runs with the address {HERE}"),
        identity(tmp_path, "site", HERE),
    ):
        pass


def test_a_killed_process_leaves_its_id(tmp_path: Path) -> None:
    text = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom fer_stream.fleet.identity import identity\n"
        f"with identity(Path(sys.argv[1]), 'site', '{HERE}') as it:\n"
        "    print(it.me, flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", text, str(tmp_path)], capture_output=True, text=True, check=False)
    with identity(tmp_path, "site", HERE) as it:
        assert it.former == killed.stdout.strip() != ""


def test_without_a_folder_there_is_no_former_id(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for _ in range(2):
        with identity(tmp_path / "file" / "cells", "site", HERE) as it:
            assert it.me
            assert it.former == ""
