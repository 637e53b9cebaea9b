"""The file of the cameras that were added at run time: it is replaced as a whole, and damage is set aside."""

from __future__ import annotations

import json
import logging
import os
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.service.registry import FileRegistry
from fer_stream.settings import tree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "events.db.cameras.json"


def test_what_is_put_is_read_by_another_process_in_order(path: Path) -> None:
    registry = FileRegistry(path)
    assert registry.read() is None
    registry.put("yard", {"source": "demo", "rate": 5.0})
    registry.put("door", {"source": "x"})
    registry.put("yard", {"source": "demo", "rate": 6.0})
    assert FileRegistry(path).read() == {"yard": {"source": "demo", "rate": 6.0}, "door": {"source": "x"}}
    assert list(FileRegistry(path).read() or {}) == ["yard", "door"]
    registry.remove("yard")
    registry.remove("nobody")
    registry.remove("door")
    assert FileRegistry(path).read() == {}, "and not None: cameras have been added once"


def test_only_the_owner_may_read_it_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        FileRegistry(path).put("door", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_process_that_was_killed_while_it_wrote_leaves_nothing_behind(path: Path) -> None:
    FileRegistry(path).put("door", {})
    (path.parent / f"{path.name}.new").write_text('{"version"')
    FileRegistry(path).put("yard", {})
    assert FileRegistry(path).read() == {"door": {}, "yard": {}}
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"version": 1}', '{"version": 1, "cameras": []}', '{"version": 1, "cameras": {"a": 1}}',
     '{"version": 0, "cameras": {}}', '{"version": "1", "cameras": {}}', "\x00" * 100, "[" * 100_000],
)  # fmt: skip
def test_a_damaged_file_is_set_aside_and_told(text: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    for number in (1, 2):
        path.write_text(text)
        with caplog.at_level(logging.ERROR):
            assert FileRegistry(path).read() == {}
        aside = path.with_name(f"{path.name}.corrupt-{number}")
        assert aside.read_text() == text
        assert f"is damaged and was set aside as {aside.name}: add its cameras again" in caplog.text
    FileRegistry(path).put("door", {})
    assert FileRegistry(path).read() == {"door": {}}


@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
def test_any_bytes_are_read_or_set_aside(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "cameras.json"
    path.write_bytes(content)
    assert FileRegistry(path).read() is not None


def test_a_file_of_a_newer_version_is_refused_and_kept(path: Path) -> None:
    path.parent.mkdir()
    text = json.dumps({"version": 2, "cameras": {"door": {"zoom": 3}}})
    path.write_text(text)
    registry = FileRegistry(path)
    for action in (registry.read, lambda: registry.put("yard", {}), lambda: registry.remove("door")):
        with pytest.raises(ConfigError, match=r"is of a newer version of fer-stream: install that one"):
            action()
    assert path.read_text() == text


def test_a_file_that_cannot_be_read_or_written(path: Path, tmp_path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"events.db.cameras.json cannot be read: Is a directory"):
        FileRegistry(path).read()
    (tmp_path / "file").touch()
    with pytest.raises(FerStreamError, match=r"cannot be written: .*; nothing was changed"):
        FileRegistry(tmp_path / "file" / "cameras.json").put("door", {})


def test_where_it_is() -> None:
    beside = FileRegistry.of(tree.load({"journal.path": "/var/lib/fer-stream/events.db"}))
    assert beside.where == "/var/lib/fer-stream/events.db.cameras.json"
    assert FileRegistry.of(tree.load({"registry": "/etc/fer-stream/cameras.json"})).where == (
        "/etc/fer-stream/cameras.json"
    )
