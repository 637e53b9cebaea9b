"""The command `fer-stream keys`: it reports wrong use, and a list without keys."""

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
        (("keys", "new", "door", "--keys", "keys"), "what may door do? --role capture, worker,"),
        (("keys", "new", "door", "--role", "boss", "--keys", "keys"), "there is no role 'boss'"),
        (("keys", "allow", "door", "--role", "capture", "--keys", "keys"), "which key is it? give the public half"),
        (("keys", "revoke", "door", "--keys", "keys"), "there is no key door: there are none"),
    ],
)
def test_wrong_use_of_keys_is_reported(arguments: tuple[str, ...], sentence: str, cli: Cli) -> None:
    process = cli.run(*arguments)
    assert process.popen.returncode == 2
    assert sentence in process.err
    assert "Traceback" not in process.err


def test_a_list_without_keys_is_reported_on_standard_error(cli: Cli) -> None:
    empty = cli.run("keys", "list", "--keys", "keys")
    assert (empty.popen.returncode, empty.out) == (0, "")
    assert empty.err == "no key is allowed: keys lists none; `fer-stream keys new` makes one\n"
    cli.run("keys", "new", "door", "--role", "capture", "--keys", "keys")
    listed = cli.run("keys", "list", "--keys", "keys")
    assert (listed.popen.returncode, listed.err) == (0, "")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["local", "door"]
    for name in ("door", "local"):
        cli.run("keys", "revoke", name, "--keys", "keys")
    assert "no key is allowed" in cli.run("keys", "list", "--keys", "keys").err
