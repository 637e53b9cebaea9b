"""Find and load plug-ins by their entry points."""

from __future__ import annotations

import hashlib
import importlib.util
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream.errors import PluginError

if TYPE_CHECKING:
    from fer_stream.plugins.journals import Journal
    from fer_stream.plugins.transports import Transport
    from fer_stream.settings.tree import FleetSettings, JournalSettings, Settings


def transport(settings: Settings) -> Transport:
    """Return the transport that the settings name, with the keys that they name.

    Raises:
        PluginError: the transport is not installed.
    """
    made: Transport = load("transports", settings.transport)(settings.key, settings.keys)
    return made


SERVERS = {"nats": "nats", "tls": "nats"}
"""The journal plug-in for each scheme of ``journal.path``. Without a scheme it is a file's path: ``sqlite``."""


def journal(settings: JournalSettings, fleet: FleetSettings | None = None) -> Journal:
    """Return the journal that the settings name.

    Args:
        settings: where it is.
        fleet: if it names a cell, and the journal is on servers, it is the cell's journal: its plug-in is called with
            these settings, too. Then it can be read, examined and purged; aggregators write it in another way.

    Raises:
        PluginError: the plug-in, or what it needs, is not installed.
        ConfigError: the settings are invalid.
    """
    scheme = settings.path.partition("://")[0] if isinstance(settings.path, str) else ""
    factory = load("journals", SERVERS.get(scheme, "sqlite"))
    made: Journal = factory(settings, fleet) if scheme in SERVERS and fleet and fleet.cell else factory(settings)
    return made


CODE = frozenset({".py", ".so", ".pyd"})
"""Suffixes of the files that Python executes."""


KINDS = ("sources", "detectors", "classifiers", "transports", "batch_sinks", "sinks", "journals")


def available(kind: str) -> list[str]:
    """Return the names registered under a kind, sorted."""
    return sorted(entry.name for entry in entry_points(group=f"fer_stream.{kind}"))


def code(kind: str, name: str) -> str:
    """Return the SHA-256 of a plug-in's code: of all files of its package with a suffix in `CODE`.

    The text is empty if there is no such plug-in, or it has no file.
    """
    digest = hashlib.sha256()
    for entry in entry_points(group=f"fer_stream.{kind}", name=name):
        spec = importlib.util.find_spec(entry.module.partition(".")[0])
        folders = (spec.submodule_search_locations if spec else None) or ()
        files = [file for folder in folders for file in Path(folder).rglob("*") if file.suffix in CODE]
        for file in sorted(files) or ([Path(spec.origin)] if spec and spec.origin else []):
            digest.update(file.read_bytes())
        return digest.hexdigest()
    return ""


def load(kind: str, name: str) -> Any:
    """Return the factory registered as ``name`` under ``kind`` (one of `KINDS`).

    Raises:
        PluginError: nothing is registered under that name, or importing it fails.
    """
    for entry in entry_points(group=f"fer_stream.{kind}", name=name):
        try:
            return entry.load()
        except (ImportError, AttributeError) as error:
            raise PluginError(
                f"the {kind[:-1].replace('_', ' ')} plug-in {name!r} cannot be imported: {error}; install what it needs"
            ) from error
    names = available(kind)
    raise PluginError(
        f"there is no {kind[:-1].replace('_', ' ')} {name!r}; installed are: {', '.join(names) or 'none'}"
    )
