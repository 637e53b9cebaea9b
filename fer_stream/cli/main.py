"""``fer-stream``: reads the command line and runs a command.

The other modules of `fer_stream.cli` implement the commands. They are imported when a command runs, so ``--help`` is
quick.
"""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING, Any

from fer_stream.cli.commands import COMMANDS
from fer_stream.cli.options import add_option
from fer_stream.operations import environment
from fer_stream.operations.process import INTERRUPTED, main_guard, raise_limits
from fer_stream.system import signals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.cli.commands import Command


class _Parser(argparse.ArgumentParser):
    """Accepts positional arguments before, between and after options, which argparse alone does not."""

    _mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._mixing:  # parse_known_intermixed_args calls this method itself
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="fer-stream",
        description="Any camera in, trustworthy apparent-emotion events out.",
        epilog="Settings come from options, then FER_STREAM_*, then the --config file, then defaults.",
        allow_abbrev=False,
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"example: {command.example}",
            allow_abbrev=False,
        )
        for names, how in command.own:
            sub.add_argument(*names, **how)
        for flag in command.options:
            add_option(sub, flag)
        sub.set_defaults(command=command)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 success, 1 failure, 2 wrong use, 130 interrupted."""
    try:
        arguments = parser().parse_args(argv)
    except SystemExit as end:  # argparse has printed an error or its help
        return int(end.code or 0)
    environment.prepare()
    command: Command = arguments.command

    def run() -> int | None:
        signals.reset()
        raise_limits()
        module, _, name = command.function.partition(":")
        code: int | None = getattr(importlib.import_module(f"fer_stream.cli.{module}"), name)(arguments)
        return code

    endless = command.endless and not any(getattr(arguments, name) for name in command.ending)
    return main_guard(run, 0 if endless else INTERRUPTED)
