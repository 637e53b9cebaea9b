"""The arguments of the command ``annotations``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_stream.cli import values

if TYPE_CHECKING:
    from fer_stream.cli.agree_options import Argument


def annotation_arguments() -> tuple[Argument, ...]:
    """Return argparse's arguments: names, and how each is parsed."""
    return (
        (("action",), {"choices": ["add", "list"], "help": "add one, or print those in the journal"}),
        (("--camera",), {"metavar": "NAME", "help": "its camera; list: only this camera's"}),
        (("--track",), {"metavar": "NUMBER", "type": int, "help": "add: the number of the face"}),
        (
            ("--from",),
            {"dest": "since", "metavar": "TIME", "type": values.moment, "help": "its start; list: the period's"},
        ),
        (("--to",), {"metavar": "TIME", "type": values.moment, "help": "its end, exclusive; list: the period's"}),
        (("--label",), {"help": "add: the right label, or wrong: the shown one is not right"}),
        (("--previous",), {"metavar": "LABEL", "help": "add: the label that was shown"}),
        (("--annotator",), {"metavar": "NAME", "help": "add: who says so; a key of an annotator is for its own name"}),
        (("--note",), {"metavar": "TEXT", "help": "add: anything else, at most 500 characters"}),
        (
            ("--format",),
            {
                "choices": ["pretty", "csv", "jsonl"],
                "default": "pretty",
                "help": "list: a table for people; csv, which `fer-stream agree` reads; or jsonl (default: pretty)",
            },
        ),
    )
