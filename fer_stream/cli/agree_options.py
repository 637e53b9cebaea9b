"""The arguments of ``fer-stream agree``."""

from __future__ import annotations

from typing import Any

from fer_stream.cli import values

Argument = tuple[tuple[str, ...], dict[str, Any]]


def agree_arguments() -> tuple[Argument, ...]:
    """Return argparse's arguments."""
    return (
        (
            ("ours",),
            {
                "metavar": "OURS",
                "help": "a folder of fer-stream analyze, a folder of several, an events.jsonl, or a coder's file",
            },
        ),
        (
            ("coders",),
            {
                "metavar": "CODER",
                "nargs": "+",
                "help": "a coder's file, or a folder with a file for each film: ELAN (.eaf), BORIS, BIDS events, or a "
                "table with start, end and label",
            },
        ),
        (
            ("-o", "--output"),
            {
                "metavar": "FOLDER",
                "help": "also write agreement.html, agreement.csv, table.md and table.tex into this folder",
            },
        ),
        (
            ("--map",),
            {
                "metavar": "THEIRS=OURS",
                "type": values.mapping,
                "action": "append",
                "default": [],
                "help": "replace a coder's label by ours, such as joy=happy; joy= makes it no label; may be repeated",
            },
        ),
        (
            ("--by",),
            {
                "choices": ["label", "valence"],
                "default": "label",
                "help": "compare labels, or their valence as the settings say (default: label)",
            },
        ),
        (
            ("--track",),
            {
                "metavar": "[FILM=]TRACK",
                "type": values.track,
                "action": "append",
                "default": [],
                "help": "the coded track, if a film has several: a number, or longest; may be repeated",
            },
        ),
        (("--tier",), {"metavar": "NAME", "help": "the tier or subject to read in the coders' files, or longest"}),
        (
            ("--step",),
            {
                "metavar": "SECONDS",
                "type": values.seconds,
                "default": 0.04,
                "help": "seconds between the times at which labels are compared (default: 0.04)",
            },
        ),
        (
            ("--overlap",),
            {
                "metavar": "SHARE",
                "type": values.share,
                "default": 0.5,
                "help": "least intersection over union at which two spans count as the same event (default: 0.5)",
            },
        ),
        (
            ("--calibrate",),
            {
                "metavar": "CAMERA",
                "type": values.camera,
                "help": "also fit a correction of the model's probabilities for this camera (or * for any) to the "
                "coder, and test it on held-out films; if it helps, calibration.toml has the settings",
            },
        ),
        (
            ("--force",),
            {"action": "store_true", "help": "overwrite files in the folder that agree did not write"},
        ),
    )
