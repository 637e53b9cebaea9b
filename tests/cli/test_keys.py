"""The command about keys: wrong use is told, and so is that there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from processes import Cli


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("aggregator", "--bind", "tcp://0.0.0.0:5550", "--keys", "none"), "holds no key: make one for each process"),
        (("worker", "--connect", "tcp://192.0.2.1:5550", "--keys", "x"), "unrecognized arguments"),
        (("capture", "demo", "--connect", "tcp://192.0.2.1:5550", "--key", "no.key"), "no.key cannot be read"),
        (("keys", "new", "--keys", "keys"), "which key? fer-stream keys new NAME"),
        (("keys", "new", "door", "--keys", "keys"), "what may door do? --role capture, worker or client"),
        (("keys", "new", "door", "--role", "boss", "--keys", "keys"), "there is no role 'boss'"),
        (("keys", "allow", "door", "--role", "capture", "--keys", "keys"), "which key is it? --public"),
        (("keys", "revoke", "door", "--keys", "keys"), "there is no key door: there are none"),
    ],
)
def test_wrong_use_of_keys_is_told(arguments: tuple[str, ...], sentence: str, cli: Cli) -> None:
    process = cli.run(*arguments)
    assert process.popen.returncode == 2
    assert sentence in process.err
    assert "Traceback" not in process.err


def test_that_there_is_no_key_is_said_once(cli: Cli) -> None:
    nobody = cli.run("keys", "list", "--keys", "keys")
    assert (nobody.popen.returncode, nobody.out) == (0, "")
    assert nobody.err == "no key is let in: keys lists none; `fer-stream keys new` makes one\n"
    cli.run("keys", "new", "door", "--role", "capture", "--keys", "keys")
    listed = cli.run("keys", "list", "--keys", "keys")
    assert (listed.popen.returncode, listed.err) == (0, "")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["local", "door"]
    for name in ("door", "local"):
        cli.run("keys", "revoke", name, "--keys", "keys")
    assert "no key is let in" in cli.run("keys", "list", "--keys", "keys").err
