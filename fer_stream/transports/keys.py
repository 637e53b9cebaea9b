"""Access control over a network: a key for each process, and the aggregator's list of allowed keys.

Links over a network are encrypted and authenticated by CURVE (Curve25519, http://curvezmq.org). The aggregator's folder
holds its own key pair (``server.key``) and ``allowed.json``: name, role and public half of each allowed key. A process
on another machine needs one file, ``NAME.key``: its own key pair and the aggregator's public half. A key opens only the
links of its role. A revoked key opens no new connections; established ones stay open. A capture's key may send frames
for the camera of its own name, or for the cameras that were named when it was made (``*``: for any).

In a cell (``fleet.cell``) the list is in the bucket ``keys`` of its servers. Each aggregator follows it, and has a copy
in its folder (``cell.json``), which counts while the servers are away (`CellList`). It adds its own key `LOCAL` to the
list, so that aggregators, and what runs beside them, may ask each other. A key file does not name the aggregator's
public half then, as there are several: that follows each aggregator's address.

Key files have mode 0600. A file that others may read is refused.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fer_stream.errors import ConfigError
from fer_stream.plugins import BROADCASTS, LINKS
from fer_stream.settings.deployment import beyond
from fer_stream.settings.kinds import CAMERA_NAME
from fer_stream.system import files, folders

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fer_stream.settings.tree import Settings

ROLES: dict[str, tuple[str, ...]] = {
    "capture": ("frames",),
    "worker": ("work",),
    "node": ("control", "frames", "work"),
    "client": ("control", "events", "observations"),
    "live": ("control", *BROADCASTS),
    "annotator": ("control",),
    "all": (*LINKS, *BROADCASTS),
}
"""The links that a key of each role opens."""

READING = ("node", "client", "live", "all")
"""Roles that may read the status and stored events."""

ANNOTATING = ("live", "all")
"""Roles that may annotate under any name: the page knows its users. An annotator's key may under its own name."""

ANY = "*"
"""Stands for all cameras."""

LOCAL = "local"
"""Name of the key for processes on the aggregator's own machine."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_PUBLIC = re.compile(r"[!-~]{40}")


@dataclass(frozen=True, slots=True)
class Key:
    """One process's key pair, and the public half of its aggregator's key (Z85, 40 characters each)."""

    name: str
    role: str
    public: str
    secret: str = field(repr=False)
    server: str
    """Empty for a key of a cell."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One allowed key."""

    name: str
    role: str
    public: str
    cameras: Sequence[str] = ()
    """Cameras that a capture's key may send frames for, `ANY` for all; empty: the camera of the key's own name."""

    def objection(self, camera: str) -> str:
        """Return why this key may not send frames for a camera, or an empty text."""
        if self.role != "capture" or camera in (self.cameras or [self.name]) or ANY in self.cameras:
            return ""
        return (
            f"the key {self.name} is not for camera {camera}, but for {', '.join(self.cameras or [self.name])}: "
            f"make one with `fer-stream keys new {camera} --role capture`, or choose another --camera"
        )


def default_folder() -> Path:
    """Return the default folder of an aggregator's keys."""
    return folders.config() / "keys"


def load(path: Path) -> Key:
    """Return the key in a ``NAME.key`` file.

    Raises:
        ConfigError: the file cannot be read, other users may read it, or it holds no key.
    """
    value = _read(path, "make one with fer-stream keys new")
    try:
        key = Key(**value)
    except TypeError:
        key = None
    if (
        key is None
        or not isinstance(key.role, str)
        or key.role not in ROLES
        or not all(_PUBLIC.fullmatch(str(half)) for half in (key.public, key.secret, key.server or key.public))
    ):
        raise ConfigError(f"{path} is not a key of fer-stream: make one with fer-stream keys new")
    return key


def server(folder: Path) -> tuple[str, str] | None:
    """Return the aggregator's own key pair, public and secret, or ``None`` if it has none yet.

    Raises:
        ConfigError: the file cannot be read, or holds no key pair.
    """
    path = folder / "server.key"
    if not path.exists():
        return None
    value = _read(path, "remove it, and make all keys again")
    pair = str(value.get("public")), str(value.get("secret"))
    if not all(map(_PUBLIC.fullmatch, pair)):
        raise ConfigError(f"{path} is not the key of an aggregator: remove it, and make all keys again")
    return pair


def entries(folder: Path, name: str = "allowed.json") -> list[Entry]:
    """Return the allowed keys in a folder's list, in the order in which they were allowed.

    Raises:
        ConfigError: the file cannot be read, or holds no list of keys.
    """
    path = folder / name
    if not path.exists():
        return []
    value = _read(path, "restore it, or remove it and allow every key again")
    try:
        return [_entry(item) for item in value["keys"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not a list of keys: restore it, or remove it") from error


class Ring(Protocol):
    """Where the allowed keys are listed."""

    def own(self) -> str:
        """Return the public half of the aggregator's key, which is made if it is missing; an empty text in a cell.

        Raises:
            ConfigError: it cannot be read or written.
        """
        ...

    def entries(self) -> list[Entry]:
        """Return the allowed keys.

        Raises:
            FerStreamError: they cannot be read.
        """
        ...

    def put(self, entry: Entry) -> None:
        """Allow a key.

        Raises:
            FerStreamError: it cannot be stored.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a key.

        Raises:
            FerStreamError: this cannot be stored.
        """
        ...


class FolderRing:
    """The list of one aggregator, in its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def own(self) -> str:
        """See `Ring.own`."""
        return _own(self._folder)

    def entries(self) -> list[Entry]:
        """See `Ring.entries`."""
        return entries(self._folder)

    def put(self, entry: Entry) -> None:
        """See `Ring.put`."""
        _list(self._folder, [*entries(self._folder), entry])

    def remove(self, name: str) -> None:
        """See `Ring.remove`."""
        _list(self._folder, [entry for entry in entries(self._folder) if entry.name != name])


def new(folder: Path, name: str, role: str, cameras: Sequence[str] = (), ring: Ring | None = None) -> Path:
    """Make a key, allow it, and return the file for the process that will use it.

    Args:
        folder: the aggregator's folder of keys, where the file is made.
        name: the key's name.
        role: one of `ROLES`.
        cameras: cameras that a capture's key may send frames for; by default the camera of its own name.
        ring: the list of allowed keys; by default the folder's.

    Raises:
        ConfigError: the name, role or cameras are invalid, or a key of this name exists.
    """
    import zmq  # noqa: PLC0415 - needed only to make keys

    _check(name, role, cameras)
    ring = ring or FolderRing(folder)
    path, own = folder / f"{name}.key", ring.own()
    if path.exists() or any(entry.name == name for entry in ring.entries()):
        raise ConfigError(f"there is a key {name} already: revoke it first, or choose another name")
    public, secret = (half.decode() for half in zmq.curve_keypair())
    _write(path, asdict(Key(name, role, public, secret, own)))
    allow(folder, name, role, public, cameras, ring)
    return path


def allow(
    folder: Path, name: str, role: str, public: str, cameras: Sequence[str] = (), ring: Ring | None = None
) -> None:
    """Allow a key that was made elsewhere. The arguments are those of `new`.

    Raises:
        ConfigError: the name, role, cameras or key are invalid, or a key of this name is allowed already.
    """
    _check(name, role, cameras)
    if not _PUBLIC.fullmatch(public):
        raise ConfigError(f"{public!r} is not the public half of a key: it has 40 characters")
    ring = ring or FolderRing(folder)
    ring.own()
    known = ring.entries()
    if any(name == entry.name for entry in known):
        raise ConfigError(f"there is a key {name} already: revoke it first, or choose another name")
    if twin := next((entry.name for entry in known if entry.public == public), None):
        raise ConfigError(f"this key is allowed as {twin} already: revoke {twin} first, or name cameras with --camera")
    ring.put(Entry(name, role, public, tuple(cameras)))


def revoke(folder: Path, name: str, ring: Ring | None = None) -> None:
    """Remove a key from the allowed ones, and delete its file if it is in the folder.

    Raises:
        ConfigError: there is no such key.
    """
    ring = ring or FolderRing(folder)
    known = ring.entries()
    if all(entry.name != name for entry in known):
        names = ", ".join(entry.name for entry in known) or "none"
        raise ConfigError(f"there is no key {name}: there are {names}")
    ring.remove(name)
    (folder / f"{name}.key").unlink(missing_ok=True)


def encode(entry: Entry) -> str:
    """Return an allowed key as the text that a cell lists under its name."""
    return json.dumps({key: value for key, value in asdict(entry).items() if key != "name"})


def decode(name: str, text: str) -> Entry | None:
    """Return the allowed key that a cell lists under a name; ``None`` if it is not what `encode` writes."""
    try:
        entry = _entry({"name": name} | json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return entry if _PUBLIC.fullmatch(entry.public) else None


def _entry(item: dict[str, Any]) -> Entry:
    return Entry(str(item["name"]), str(item["role"]), str(item["public"]), tuple(map(str, item.get("cameras", ()))))


class AllowList:
    """The aggregator's list of allowed keys, read again whenever the file has changed."""

    file = "allowed.json"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp: tuple[int, int] | None = None
        self._entries: dict[str, Entry] = {}

    def may(self, public: str, link: str) -> bool:
        """Return whether a key opens a link. If the list cannot be read, no key opens any."""
        entry = self._now().get(public)
        return entry is not None and link in ROLES.get(entry.role, ())

    def may_read(self, public: str) -> bool:
        """Return whether a key may read the status and stored events on the link ``control``."""
        entry = self._now().get(public)
        return entry is not None and entry.role in READING

    def annotator(self, public: str) -> str | None:
        """Return the only name under which a key may annotate; empty: under any; ``None``: it may not."""
        entry = self._now().get(public)
        if entry is None or entry.role not in (*ANNOTATING, "annotator"):
            return None
        return entry.name if entry.role == "annotator" else ""

    def objection(self, public: str, camera: str) -> str:
        """Return why a key may not send frames for a camera, or an empty text."""
        entry = self._now().get(public)
        return entry.objection(camera) if entry else "this key is not allowed any more: ask the aggregator's operator"

    def _now(self) -> dict[str, Entry]:
        try:
            state = (self._folder / self.file).stat()
            if (stamp := (state.st_mtime_ns, state.st_size)) != self._stamp:
                self._entries = {entry.public: entry for entry in entries(self._folder, self.file)}
                self._stamp = stamp
        except (OSError, ConfigError):
            self._entries, self._stamp = {}, None
        return self._entries


class CellList(AllowList):
    """The list of a cell's allowed keys, of which the copy in the aggregator's folder counts."""

    file = "cell.json"

    @classmethod
    def of(cls, settings: Settings) -> CellList | None:
        """Return the list for an aggregator with these settings; ``None`` if it needs none, on one machine.

        Raises:
            ConfigError: the folder of keys cannot be read or written.
        """
        if settings.keys is None and not beyond(settings.own_address):
            return None
        return cls(settings.keys or default_folder(), settings.fleet.advertise or settings.own_address)

    def __init__(self, folder: Path, address: str) -> None:
        """Use a folder; make the aggregator's keys if they are missing.

        Args:
            folder: the aggregator's folder of keys.
            address: where others reach the aggregator.

        Raises:
            ConfigError: the folder cannot be read or written.
        """
        super().__init__(folder)
        _own(folder)
        self._beside = AllowList(folder)
        self._name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"aggregator-{address.partition('://')[2]}")

    def announcement(self) -> dict[str, str]:
        """Return what this aggregator adds to the cell's list: its own key `LOCAL`, by a name for it.

        Raises:
            ConfigError: the folder cannot be read.
        """
        own = next((entry for entry in entries(self._folder) if entry.name == LOCAL), None)
        return {self._name: encode(own)} if own else {}

    def take(self, listed: Mapping[str, str]) -> None:
        """Keep the cell's list, as the texts by name that `encode` makes. Any thread may call this.

        Raises:
            ConfigError: the copy cannot be written.
        """
        known = [entry for name, text in sorted(listed.items()) if (entry := decode(name, text))]
        try:
            kept = entries(self._folder, self.file) if (self._folder / self.file).exists() else None
        except ConfigError:  # it is damaged
            kept = None
        if kept != known:
            _list(self._folder, known, self.file)

    def _now(self) -> dict[str, Entry]:
        # The folder's own key counts also before the cell's servers have been reached.
        own = {public: entry for public, entry in self._beside._now().items() if entry.name == LOCAL}
        return own | super()._now()


def _own(folder: Path) -> str:
    """Return the aggregator's public half. If it has no key pair, make one, and the key `LOCAL`."""
    import zmq  # noqa: PLC0415 - as above

    pair = server(folder)
    if pair is not None:
        return pair[0]
    (public, secret), (own, own_secret) = ([half.decode() for half in zmq.curve_keypair()] for _ in range(2))
    _write(folder / f"{LOCAL}.key", asdict(Key(LOCAL, "all", own, own_secret, public)))
    _list(folder, [*entries(folder), Entry(LOCAL, "all", own)])
    _write(folder / "server.key", {"public": public, "secret": secret})
    return public


def _check(name: str, role: str, cameras: Sequence[str]) -> None:
    if not _NAME.fullmatch(name) or name in ("server", LOCAL):
        raise ConfigError(f"{name!r} cannot name a key: use letters, digits, and . _ - between them")
    if role not in ROLES:
        raise ConfigError(f"there is no role {role!r}: choose one of {', '.join(ROLES)}")
    if cameras and role != "capture":
        raise ConfigError(f"a key of role {role} takes no cameras: leave out --camera")
    if wrong := [camera for camera in cameras if camera != ANY and not re.fullmatch(CAMERA_NAME, camera)]:
        raise ConfigError(f"{wrong[0]!r} cannot be a camera's name")


def _list(folder: Path, known: list[Entry], name: str = "allowed.json") -> None:
    _write(folder / name, {"keys": [asdict(entry) for entry in known]})


def _read(path: Path, advice: str) -> dict[str, Any]:
    try:
        if files.readable_by_others(path.stat()):
            raise ConfigError(f"others may read {path}: chmod 600 it")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; {advice}") from error
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} is not what fer-stream keys writes: {advice}")
    return value


def _write(path: Path, value: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # with mode 0600
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=1)
        Path(draft).replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; choose another folder with --keys") from error
