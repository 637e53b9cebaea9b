"""``fer-stream agree``: computes the agreement of fer_stream with coders, or of coders with each other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.cli.options import begin
from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from argparse import Namespace


def agree(arguments: Namespace) -> None:
    """Print the agreement, and write it into a folder if one is given.

    Raises:
        AnnotationError: the files cannot be read or compared.
        ConfigError: the folder cannot be written.
    """
    from fer_stream.analysis import study  # noqa: PLC0415
    from fer_stream.analysis.agreement import report  # noqa: PLC0415  (slow to import)
    from fer_stream.analysis.agreement.calibration import calibrate  # noqa: PLC0415
    from fer_stream.analysis.agreement.compare import compare  # noqa: PLC0415
    from fer_stream.analysis.agreement.files import write  # noqa: PLC0415
    from fer_stream.analysis.agreement.films import Choices, gather  # noqa: PLC0415

    settings = begin(arguments, "agree")
    if arguments.force and not arguments.output:
        raise ConfigError("--force applies to the files in a folder: give --output, too")
    if arguments.calibrate and arguments.by == "valence":
        raise ConfigError("--calibrate needs labels, not their valence: leave out --by valence")
    mapping: dict[str, str] = {}
    for theirs, label in arguments.map:
        if mapping.setdefault(theirs, label) != label:
            raise ConfigError(f"--map replaces the label {theirs} by two others: leave out one of them")
    ours, coders = Path(arguments.ours), [Path(coder) for coder in arguments.coders]
    choices = Choices(
        mapping,
        settings.valence if arguments.by == "valence" else None,
        dict(arguments.track),
        arguments.tier,
    )
    material = gather(ours, coders, choices)
    calibrated = calibrate(material, arguments.calibrate) if arguments.calibrate else None
    agreement = compare(material, arguments.step, arguments.overlap)
    sys.stdout.write(report.terminal(agreement))
    if calibrated:
        sys.stdout.write(f"{calibrated.verdict()}\n")
        if calibrated.helps and not arguments.output:
            sys.stdout.write(f"\n{calibrated.settings()}")
    if arguments.output:
        page = write(Path(arguments.output), agreement, [ours, *coders], calibrated, force=arguments.force)
        sys.stderr.write(f"-> {page}\n")
        if page.parent.name == study.AGREEMENT and study.refresh(page.parent.parent):
            sys.stderr.write(f"-> {page.parent.parent / study.REPORT}\n")
