"""The command ``keys``, which manages the keys that processes on other machines need."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fer_stream.cli.options import begin
from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from argparse import Namespace


def keys(arguments: Namespace) -> None:
    """Make, allow, list or revoke keys.

    Raises:
        ConfigError: wrong use, or a file cannot be read or written.
    """
    from fer_stream.transports import keys as store  # noqa: PLC0415

    folder = begin(arguments, "keys").keys or store.default_folder()
    name, role = arguments.name, arguments.role
    if arguments.action == "list":
        listed = store.entries(folder)
        if not listed:
            sys.stderr.write(f"no key is allowed: {folder} lists none; `fer-stream keys new` makes one\n")
        for entry in listed:
            cameras = " ".join(entry.cameras or [entry.name]) if entry.role == "capture" else ""
            sys.stdout.write(f"{entry.name:24} {entry.role:8} {entry.public}  {cameras}".rstrip() + "\n")
        return
    if name is None:
        raise ConfigError(f"which key? fer-stream keys {arguments.action} NAME")
    if arguments.action == "revoke":
        store.revoke(folder, name)
        sys.stderr.write(f"{name} is no longer allowed; its present connections last until the aggregator ends\n")
        return
    if role is None:
        raise ConfigError(f"what may {name} do? --role capture, worker or client")
    if arguments.action == "allow":
        if arguments.public is None:
            raise ConfigError(f"which key is it? give the public half of {name}'s key with --public")
        store.allow(folder, name, role, arguments.public, arguments.camera)
        return
    path = store.new(folder, name, role, arguments.camera)
    sys.stdout.write(f"{path}\n")
    sys.stderr.write(f"move the file to the machine of {name}, and give it there with --key\n")
