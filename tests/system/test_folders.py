"""The user's folders, with and without a home folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fer_stream.system import folders


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No ``HOME``, and a user id without an entry in passwd."""
    for name in [name for name in os.environ if name == "HOME" or name.startswith("XDG_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "getuid", lambda: 1_000_660_000)


def test_they_lie_in_the_home_folder_or_where_xdg_says(monkeypatch: pytest.MonkeyPatch, nobody: None) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert folders.state() == Path("/home/somebody/.local/state/fer_stream")
    assert folders.config() == Path("/home/somebody/.config/fer_stream")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    assert (folders.state(), folders.config()) == (Path("/state/fer_stream"), Path("/config/fer_stream"))


@pytest.mark.parametrize("home", [None, "/", "", "relative"])
def test_without_a_home_folder_it_is_the_root(home: str | None, monkeypatch: pytest.MonkeyPatch, nobody: None) -> None:
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert folders.state() == Path("/.local/state/fer_stream")
    assert folders.config() == Path("/.config/fer_stream")


def test_a_tilde_is_expanded_as_in_a_shell(monkeypatch: pytest.MonkeyPatch, nobody: None) -> None:
    assert folders.expand(Path("~/events.db")) == Path("/events.db")
    assert folders.expand(Path("~root/events.db")) == Path("~root").expanduser() / "events.db"
    assert folders.expand(Path("~nobody-is-called-this/a")) == Path("~nobody-is-called-this/a")
    assert folders.expand(Path("a/~/b")) == Path("a/~/b")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert folders.expand(Path("~/events.db")) == Path("/home/somebody/events.db")
