"""The keys that an aggregator of a cell lets in: it follows the cell's list, and adds its own key to it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from fer_stream.fleet.commons import KEYS, commons
from fer_stream.transports.keys import CellList

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fer_stream.settings.tree import Settings


@contextmanager
def following(settings: Settings) -> Iterator[CellList | None]:
    """Yield the list of allowed keys for `fer_stream.plugins.Transport.bind`, and follow the cell's while it lasts.

    ``None``: only this machine reaches the aggregator, and nobody needs a key. While the cell's servers are away, the
    last known list is in force, also after a restart.

    Raises:
        ConfigError: the settings name no cell, or the folder of keys cannot be read or written.
    """
    allowed = CellList.of(settings)
    if allowed is None:
        yield None
        return
    followed = commons(settings).follow(settings.fleet, KEYS, allowed.announcement(), allowed.take)
    try:
        yield allowed
    finally:
        followed.close()
