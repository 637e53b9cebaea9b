"""Where the files of this user lie by default, and what ``~`` stands for.

A process in a container may run as any user number, with no entry in passwd and no ``HOME``. Docker and CRI-O give such
a user the home folder ``/``, and so do we: nothing here fails without a home folder. If writing there is not allowed,
the writer's error names the path.
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

    The temporary folder may be writable for everybody, or for nobody. Not every command needs a runtime folder, so this
    does not fail: it returns a path that no other user can have made. An error follows only if the folder is used.
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
