"""Drawings for the other modules: bars, sheets of faces, confusion matrices, calibration. Each is written as a PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_DOTS = 120


def bars(path: Path, names: Sequence[str], groups: Mapping[str, NDArray[np.int64]], unit: str) -> None:
    """Draw a group of bars for each name; ``groups`` has an array of lengths (one per name) for each colour."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(groups)
    for i, (group, values) in enumerate(groups.items()):
        bar = axes.bar(np.arange(len(names)) + (i - (len(groups) - 1) / 2) * width, values, width, label=group)
        axes.bar_label(bar, [f"{value:,}" for value in values], fontsize=7)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=_DOTS)


def sheet(
    path: Path, rows: Mapping[str, NDArray[np.uint8]], captions: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Draw faces in named rows (uint8 ``[n, H, W]`` each), with a caption under each face if given."""
    columns = max(len(faces) for faces in rows.values())
    figure = Figure(figsize=(columns * 0.8 + 0.9, len(rows) * (1.05 if captions else 0.83)))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    figure.subplots_adjust(
        left=0.9 / (columns * 0.8 + 0.9), right=0.995, top=0.995, bottom=0.02, wspace=0.04, hspace=0.04
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (name, faces) in zip(grid, rows.items(), strict=True):
        line[0].text(-0.12, 0.5, name, ha="right", va="center", transform=line[0].transAxes, fontsize=9)
        for i, face in enumerate(faces):
            line[i].imshow(face, cmap="gray", vmin=0, vmax=255)
            if captions:
                line[i].text(
                    0.5, -0.04, captions[name][i], ha="center", va="top", transform=line[i].transAxes, fontsize=6
                )
    figure.savefig(path, dpi=_DOTS)


def confusion(path: Path, names: Sequence[str], matrix: NDArray[np.int64]) -> None:
    """Draw a confusion matrix: colours and large numbers are shares of the row, small numbers are counts."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(1.6 + 0.8 * len(names), 1.1 + 0.75 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(share):
        colour = "white" if value > 0.5 else "black"
        axes.text(column, row - 0.08, f"{value:.0%}", ha="center", va="center", color=colour)
        axes.text(column, row + 0.24, f"{matrix[row, column]:,}", ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("recognised as")
    axes.set_ylabel("labelled")
    figure.savefig(path, dpi=_DOTS)


def calibration(
    path: Path, lines: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]
) -> None:
    """Draw accuracy against confidence, a line for each result of `training.metrics.calibration`."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--", label="perfectly calibrated")
    for name, (count, confidence, right) in lines.items():
        used = count > 0
        axes.plot(confidence[used], right[used], marker="o", label=name)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=_DOTS)


def risk_coverage(path: Path, coverage: NDArray[np.float64], risk: NDArray[np.float64]) -> None:
    """Draw the error rate among the most confident faces against the share of faces kept."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(coverage, risk)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(float(risk[len(risk) // 50 :].max()) * 1.1, 0.01))
    axes.set_xlabel("share of the faces that are kept, most confident first")
    axes.set_ylabel("error rate among these")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=_DOTS)
