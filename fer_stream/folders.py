"""Where the files of this user lie by default, and what ``~`` stands for.

A process in a container may run as any user number, with no entry in passwd and no ``HOME``. Docker and CRI-O give such
a user the home folder ``/``, and so do we: nothing here fails for want of a home folder. Whoever writes there and may
not says so, and names the path.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

if TYPE_CHECKING:
    from collections.abc import Callable

_NAME = "fer_stream"


def state() -> Path:
    """Return the folder for what must survive a restart: ``~/.local/state/fer_stream`` or ``XDG_STATE_HOME``'s."""
    return _of_user(platformdirs.user_state_dir, ".local/state")


def config() -> Path:
    """Return the folder for what people write for us: ``~/.config/fer_stream`` or ``XDG_CONFIG_HOME``'s."""
    return _of_user(platformdirs.user_config_dir, ".config")


def runtime() -> Path:
    """Return the folder for sockets and locks, which need not exist.

    Others may write the temporary folder, or nobody may. Not every command needs the folder, so this is no failure, but
    a place that nobody else can have made. Who uses it is told if it cannot be used.
    """
    with warnings.catch_warnings():  # platformdirs warns where a session has no runtime folder; /tmp does, then
        warnings.simplefilter("ignore")
        try:
            return Path(platformdirs.user_runtime_dir(_NAME, appauthor=False))
        except OSError:
            return Path(f"/run/user/{os.geteuid()}", _NAME)


def _of_user(find: Callable[..., str], below_home: str) -> Path:
    try:
        return Path(find(_NAME, appauthor=False))
    except RuntimeError:  # no home folder
        return Path("/", below_home, _NAME)


def expand(path: Path) -> Path:
    """Return a path with ``~`` or ``~NAME`` at its beginning replaced; a name that nobody has stays, as in a shell."""
    expanded = Path(os.path.expanduser(path))  # noqa: PTH111  (the one of pathlib raises where there is no home folder)
    return Path("/", *expanded.parts[1:]) if expanded.parts[:1] == ("~",) else expanded
