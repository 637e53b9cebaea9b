"""The arguments of the command ``annotations``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_stream.cli import values

if TYPE_CHECKING:
    from fer_stream.cli.agree_options import Argument


def annotation_arguments() -> tuple[Argument, ...]:
    """Return argparse's arguments."""
    return (
        (("action",), {"choices": ["add", "list"], "help": "add an annotation, or list those in the journal"}),
        (("--camera",), {"metavar": "NAME", "help": "add: the camera; list: only this camera's annotations"}),
        (("--track",), {"metavar": "NUMBER", "type": int, "help": "add: the track's number"}),
        (
            ("--from",),
            {
                "dest": "since",
                "metavar": "TIME",
                "type": values.moment,
                "help": "add: the interval's start; list: the period's",
            },
        ),
        (
            ("--to",),
            {
                "metavar": "TIME",
                "type": values.moment,
                "help": "add: the interval's end, exclusive; list: the period's",
            },
        ),
        (
            ("--label",),
            {"help": "add: the right label, or the word wrong if only the shown label is known to be wrong"},
        ),
        (("--previous",), {"metavar": "LABEL", "help": "add: the label that was shown"}),
        (
            ("--annotator",),
            {"metavar": "NAME", "help": "add: the annotator's name; with a key of the role annotator, its own"},
        ),
        (("--note",), {"metavar": "TEXT", "help": "add: a remark, at most 500 characters"}),
        (
            ("--format",),
            {
                "choices": ["pretty", "csv", "jsonl"],
                "default": "pretty",
                "help": "list: a table for people; csv, which `fer-stream agree` reads; or jsonl (default: pretty)",
            },
        ),
    )
