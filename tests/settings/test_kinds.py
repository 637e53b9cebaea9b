"""The checks of the kinds of values."""

import pytest
from pydantic import ValidationError

from fer_stream.errors import ConfigError
from fer_stream.settings import kinds, tree
from fer_stream.settings.tree import Settings


def test_host_and_port() -> None:
    assert kinds.host_port("127.0.0.1:9100") == ("127.0.0.1", 9100)
    assert kinds.host_port("[::1]:0") == ("::1", 0)
    for wrong in ("9100", ":9100", "a:b", "a:-1", "a:65536", "a:", ""):
        with pytest.raises(ValueError, match="HOST:PORT"):
            kinds.host_port(wrong)


@pytest.mark.parametrize("wrong", [0, -180, 200, float("nan")])
def test_rotations_are_angles_other_than_upright(wrong: float) -> None:
    assert Settings(detector={"rotations": [-90, 22.5, 180]}).detector.rotations == [-90.0, 22.5, 180.0]
    with pytest.raises(ConfigError, match=r"detector\.rotations"):
        tree.load({"detector.rotations": [30, wrong]})


@pytest.mark.parametrize(
    ("text", "several"),
    [
        ("tcp://192.0.2.1:5550", ["tcp://192.0.2.1:5550"]),
        ("tcp://a:1,tcp://b:2", ["tcp://a:1", "tcp://b:2"]),
        (f"tcp://a:1#{'k' * 40},ipc:///run/b", [f"tcp://a:1#{'k' * 40}", "ipc:///run/b"]),
        ("ipc:///run/a,b", ["ipc:///run/a,b"]),
    ],
)
def test_an_address_may_list_several(text: str, several: list[str]) -> None:
    settings = Settings(address=text)
    assert list(settings.addresses) == several
    assert settings.networked == text.startswith("tcp")
    if len(several) == 1:
        assert settings.own_address == text
    else:
        with pytest.raises(ConfigError, match=r"listens at one address, not at .*: choose one with --bind"):
            _ = settings.own_address


@pytest.mark.parametrize("text", ["nowhere", "tcp://a:1,", "tcp://a:1,b", ",tcp://a:1", "tcp://a:1,tcp://a:1"])
def test_a_list_of_addresses_must_be_one(text: str) -> None:
    with pytest.raises(ValidationError, match=r"must be ipc|names tcp"):
        Settings(address=text)


def test_a_list_that_is_too_long_is_told_how_long_it_may_be() -> None:
    with pytest.raises(ConfigError, match=r"must be a list of at most 11, each a number above -180, at most 180"):
        tree.load({"detector.rotations": list(range(1, 13))})
