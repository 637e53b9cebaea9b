"""The command ``keys``, which manages the keys that processes on other machines need."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from fer_stream.cli.options import begin
from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    from fer_stream.transports.keys import Ring


def keys(arguments: Namespace) -> None:
    """Make, allow, list or revoke keys, of an aggregator's folder or of a cell.

    Raises:
        ConfigError: wrong use, or a file cannot be read or written.
        JournalError: the cell's servers cannot be used.
    """
    from fer_stream.service.cell import CellRing  # noqa: PLC0415
    from fer_stream.transports import keys as store  # noqa: PLC0415

    settings = begin(arguments, "keys")
    folder = settings.keys or store.default_folder()
    cell = settings.fleet.cell
    with CellRing(settings) if cell else nullcontext(store.FolderRing(folder)) as ring:
        _carry_out(arguments, folder, ring, f"the cell {cell}" if cell else str(folder))


def _carry_out(arguments: Namespace, folder: Path, ring: Ring, where: str) -> None:
    from fer_stream.transports import keys as store  # noqa: PLC0415

    name, role = arguments.name, arguments.role
    if arguments.action == "list":
        listed = ring.entries()
        if not listed:
            sys.stderr.write(f"no key is allowed: {where} lists none; `fer-stream keys new` makes one\n")
        for entry in listed:
            cameras = " ".join(entry.cameras or [entry.name]) if entry.role == "capture" else ""
            sys.stdout.write(f"{entry.name:24} {entry.role:9} {entry.public}  {cameras}".rstrip() + "\n")
        return
    if name is None:
        raise ConfigError(f"which key? fer-stream keys {arguments.action} NAME")
    if arguments.action == "revoke":
        store.revoke(folder, name, ring)
        sys.stderr.write(
            f"{name} is no longer allowed: its requests are refused from now on; its open links for frames and events "
            "last until the aggregator ends\n"
        )
        return
    if role is None:
        raise ConfigError(f"what may {name} do? --role {', '.join(store.ROLES)}")
    if arguments.action == "allow":
        if arguments.public is None:
            raise ConfigError(f"which key is it? give the public half of {name}'s key with --public")
        store.allow(folder, name, role, arguments.public, arguments.camera, ring)
        return
    path = store.new(folder, name, role, arguments.camera, ring)
    sys.stdout.write(f"{path}\n")
    sys.stderr.write(f"move the file to the machine of {name}, and give it there with --key\n")
