"""Writes the results of a comparison into a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_stream.analysis.agreement import report
from fer_stream.analysis.output import OutputFolder
from fer_stream.errors import ConfigError
from fer_stream.interchange import own
from fer_stream.system.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fer_stream.analysis.agreement.calibration import Calibrated
    from fer_stream.analysis.agreement.compare import Agreement

PAGE = "agreement.html"


def write(
    folder: Path, agreement: Agreement, inputs: Iterable[Path], calibrated: Calibrated | None = None, *, force: bool
) -> Path:
    """Write ``agreement.html``, ``agreement.csv``, ``table.md``, ``table.tex`` and ``summary.json``; return the page.

    If there is a calibration that helps, ``calibration.toml`` has its settings. The files replace those of an earlier
    comparison only when all are complete.

    Args:
        folder: created if it is missing.
        agreement: the results.
        inputs: files and folders that are never changed.
        calibrated: the calibration, if one was fitted.
        force: replace foreign files of these names.

    Raises:
        ConfigError: the folder has an analysis, or foreign files of these names, or cannot be written.
    """
    if own.is_analysis(folder):
        raise ConfigError(f"{str(folder)!r} holds an analysis of a recording: choose another folder")
    inputs = list(inputs)
    title = ", ".join(film.name for film in agreement.material.films[:3])
    title += f" and {len(agreement.material.films) - 3} more" if len(agreement.material.films) > 3 else ""
    texts = {
        PAGE: report.page(agreement, title, [calibrated.section()] if calibrated else []),
        "agreement.csv": report.table(agreement),
        "table.md": report.markdown(agreement),
        "table.tex": report.latex(agreement),
    }
    if calibrated and calibrated.helps:
        texts["calibration.toml"] = calibrated.settings()
    output = OutputFolder(folder, inputs, force=force)
    try:
        part = output.begin(texts)
        for name, text in texts.items():
            (part / name).write_text(text, encoding="utf-8")
        output.finish(
            {
                "version": __version__,
                "raters": list(agreement.material.raters),
                "films": [film.name for film in agreement.material.films],
                "labels": list(agreement.material.labels),
                "step_s": agreement.step,
                "overlap": agreement.overlap,
                "remarks": list(agreement.material.remarks),
            }
        )
    except OSError as trouble:
        where = trouble.filename or folder
        raise ConfigError(f"{str(where)!r} cannot be written: {(trouble.strerror or 'error').lower()}") from trouble
    finally:
        output.close()
    return folder / PAGE
