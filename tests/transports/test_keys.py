"""Key files: made, allowed, listed, revoked, and refused if other users may read them."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from fer_stream.errors import ConfigError
from fer_stream.transports import keys

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_a_new_key_is_allowed_the_links_of_its_role(folder: Path) -> None:
    path = keys.new(folder, "door", "capture")
    key = keys.load(path)
    assert (key.name, key.role, key.server) == ("door", "capture", keys.server(folder)[0])  # type: ignore[index]
    allowed = keys.AllowList(folder)
    assert allowed.may(key.public, "frames")
    for link in ("work", "control", "events", "observations"):
        assert not allowed.may(key.public, link)
    assert not allowed.may("x" * 40, "frames")


def test_a_capture_s_key_is_for_its_own_camera_or_for_those_named(folder: Path) -> None:
    own = keys.load(keys.new(folder, "door", "capture"))
    several = keys.load(keys.new(folder, "shed", "capture", ["yard", "gate"]))
    local = keys.load(folder / "local.key")
    allowed = keys.AllowList(folder)

    def cameras(key: keys.Key) -> set[str]:
        return {camera for camera in ("door", "shed", "yard", "gate") if not allowed.objection(key.public, camera)}

    assert (cameras(own), cameras(several)) == ({"door"}, {"yard", "gate"})
    assert cameras(local) == {"door", "shed", "yard", "gate"}
    assert allowed.objection(several.public, "door").startswith(
        "the key shed is not for camera door, but for yard, gate: make one with `fer-stream keys new door"
    )
    keys.revoke(folder, "door")
    assert allowed.objection(own.public, "door").startswith("this key is not allowed any more")
    with pytest.raises(ConfigError, match="a key of role worker takes no cameras: leave out --camera"):
        keys.new(folder, "gpu", "worker", ["door"])
    with pytest.raises(ConfigError, match="'a/b' cannot be a camera's name"):
        keys.allow(folder, "other", "capture", "x" * 40, ["a/b"])
    path = folder / "allowed.json"
    path.write_text(path.read_text().replace('"gate"', "{"))
    assert allowed.objection(several.public, "yard"), "without a readable list no camera is allowed"


def test_one_key_has_one_name(folder: Path) -> None:
    """With two names, revoking one would leave the key allowed under the other."""
    key = keys.load(keys.new(folder, "door", "capture"))
    with pytest.raises(ConfigError, match="this key is allowed as door already: revoke door first"):
        keys.allow(folder, "hall", "capture", key.public)
    assert not keys.AllowList(folder).objection(key.public, "door")


def test_the_aggregators_own_machine_has_a_key_for_all_links(folder: Path) -> None:
    keys.new(folder, "door", "capture")
    own = keys.load(folder / "local.key")
    assert all(keys.AllowList(folder).may(own.public, link) for link in keys.ROLES["all"])


def test_key_files_that_other_users_may_read_are_refused(folder: Path) -> None:
    keys.new(folder, "door", "capture")
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name, use in (
        ("door.key", lambda: keys.load(folder / "door.key")),
        ("server.key", lambda: keys.server(folder)),
        ("allowed.json", lambda: keys.entries(folder)),
    ):
        (folder / name).chmod(0o640)
        with pytest.raises(ConfigError, match=f"others may read .*{name}: chmod 600 it"):
            use()
    assert not keys.AllowList(folder).may(json.loads((folder / "door.key").read_text())["public"], "frames")


def test_a_revoked_key_opens_nothing_any_more(folder: Path) -> None:
    key = keys.load(keys.new(folder, "door", "capture"))
    keys.new(folder, "yard", "capture")
    allowed = keys.AllowList(folder)
    assert allowed.may(key.public, "frames")
    keys.revoke(folder, "door")
    assert not allowed.may(key.public, "frames")
    assert not (folder / "door.key").exists()
    assert [entry.name for entry in keys.entries(folder)] == ["local", "yard"]
    with pytest.raises(ConfigError, match="there is no key door: there are local, yard"):
        keys.revoke(folder, "door")


def test_a_key_made_elsewhere_can_be_allowed(folder: Path, tmp_path: Path) -> None:
    other = keys.load(keys.new(tmp_path / "elsewhere", "gpu", "worker"))
    keys.allow(folder, "gpu-7", "worker", other.public)
    assert keys.AllowList(folder).may(other.public, "work")


@pytest.mark.parametrize(
    ("name", "role", "sentence"),
    [
        ("a/b", "worker", "cannot name a key"),
        ("", "worker", "cannot name a key"),
        ("server", "worker", "cannot name a key"),
        ("local", "worker", "cannot name a key"),
        ("door", "boss", "there is no role 'boss': choose one of capture, worker, node, client, live, annotator, all"),
        ("yard", "worker", "there is a key yard already"),
    ],
)
def test_an_invalid_name_or_role_is_refused(folder: Path, name: str, role: str, sentence: str) -> None:
    keys.new(folder, "yard", "capture")
    for make in (lambda: keys.new(folder, name, role), lambda: keys.allow(folder, name, role, "x" * 40)):
        with pytest.raises(ConfigError, match=sentence):
            make()
    with pytest.raises(ConfigError, match="is not the public half of a key"):
        keys.allow(folder, "other", "worker", "short")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "door"}', "\x00", '{"a":' * 100_000])
def test_an_invalid_key_file_is_refused(folder: Path, text: str) -> None:
    path = keys.new(folder, "door", "capture")
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"door.key is not"):
        keys.load(path)
    (folder / "server.key").write_text(text)
    with pytest.raises(ConfigError, match=r"server.key is not"):
        keys.server(folder)
    (folder / "allowed.json").write_text(text)
    with pytest.raises(ConfigError, match=r"allowed.json is not"):
        keys.entries(folder)


def test_a_role_of_another_type_is_refused(folder: Path) -> None:
    path = keys.new(folder, "door", "capture")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"role": []}))
    with pytest.raises(ConfigError, match=r"door.key is not a key"):
        keys.load(path)
    listed = json.loads((folder / "allowed.json").read_text())
    listed["keys"][1] |= {"role": [], "public": [1]}
    (folder / "allowed.json").write_text(json.dumps(listed))
    assert not keys.AllowList(folder).may("[1]", "frames")


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.key cannot be read: No such file or directory; make one with fer"):
        keys.load(tmp_path / "nowhere.key")
    assert keys.server(folder) is None
    assert keys.entries(folder) == []
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be written: .*; choose another folder with --keys"):
        keys.new(tmp_path / "file" / "keys", "door", "capture")


def test_who_may_annotate_and_under_which_name(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    files = {role: keys.load(keys.new(folder, f"a-{role}", role)) for role in keys.ROLES}
    allowed = keys.AllowList(folder)
    names = {role: allowed.annotator(key.public) for role, key in files.items()}
    assert {role: name for role, name in names.items() if name is not None} == {
        "live": "",
        "all": "",
        "annotator": "a-annotator",
    }
    assert {role for role, key in files.items() if allowed.may_read(key.public)} == {"node", "client", "live", "all"}
    keys.revoke(folder, "a-annotator")
    keys.revoke(folder, "a-client")
    assert not allowed.may_read(files["client"].public)
    assert allowed.annotator(files["annotator"].public) is None
