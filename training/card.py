"""Measure the published models again, and write the figures into the model card and the documents.

    python -m training.card data/fer2013.csv --plus data/fer2013new.csv

A part of a document that a command generates is between two comments, which the rendered page does not show::

    <!-- made by training.evaluate emotion-ferplus.onnx -->
    ...
    <!-- end -->

All such parts of all documents are made from the same model files, and either all or none of them are replaced. The
surrounding text is written by hand: the command lists its lines with figures for review.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.errors import ConfigError, FerStreamError
from training import data, evaluate, manifest, smoothing, steadiness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.data import Faces

ROOT = manifest.MODELS.parent

DOCUMENTS = (manifest.MODELS / "emotion.md", ROOT / "docs/explanation/smoother.md")
"""The documents that have figures of models."""

_PART = re.compile(r"(<!-- made by (?P<command>[a-z.]+) (?P<model>\S+) -->\n)(?P<text>.*?)(<!-- end -->)", re.DOTALL)
_FIGURE = re.compile(r"\d\.\d%|\b0\.\d\d+\b|\bF1\b")


def make(command: str, model: Path, faces: Faces) -> str:
    """Return the output of a command for a model, as Markdown.

    Raises:
        ConfigError: the command is unknown.
        ModelError: the model breaks the contract.
        SourceError: the data lacks a split, or the votes that the model's labels need.
    """
    if command == "training.evaluate":
        return evaluate.report(evaluate.evaluate(model, faces)[0])
    if command == "training.smoothing":
        names, _, reporting = smoothing.pools(model, faces)
        return smoothing.table(names, reporting)
    if command == "training.steadiness":
        return steadiness.report(model, faces)
    known = "training.evaluate, training.smoothing or training.steadiness"
    raise ConfigError(f"{command} generates no part of a document; use {known}")


def write(documents: Sequence[Path], models: Path, faces: Faces) -> list[str]:
    """Replace every generated part; return the other lines that contain figures.

    Args:
        documents: files with such parts.
        models: folder of the model files.
        faces: all the data.

    Raises:
        ConfigError: a document cannot be read, or has no such part; then nothing is replaced.
        FerStreamError: as in `make`.
    """
    made: dict[tuple[str, str], str] = {}
    drafts: dict[Path, str] = {}
    for path in documents:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        if not _PART.search(text):
            raise ConfigError(f'{path} has no generated part: "<!-- made by COMMAND MODEL -->"')

        def replaced(part: re.Match[str]) -> str:
            key = part["command"], part["model"]
            if key not in made:
                made[key] = make(key[0], models / key[1], faces)
            return f"{part[1]}\n{made[key].strip()}\n\n{part[5]}"

        drafts[path] = _PART.sub(replaced, text)
    for path, text in drafts.items():
        path.write_text(text, encoding="utf-8")
    return [
        f"{path}: {line.strip()}"
        for path, text in drafts.items()
        for line in _PART.sub("", text).splitlines()
        if _FIGURE.search(line)
    ]


def main() -> None:
    """Measure and replace all figures."""
    parser = argparse.ArgumentParser(description="Measure the models and rewrite the documents' figures.")
    data.add_arguments(parser)
    parser.add_argument("--models", type=Path, default=manifest.MODELS, help="folder of the model files")
    parser.add_argument("--documents", type=Path, nargs="+", default=DOCUMENTS, help="files to rewrite")
    arguments = parser.parse_args()
    try:
        around = write(arguments.documents, arguments.models, data.load(arguments.data, arguments.plus))
    except FerStreamError as error:
        raise SystemExit(str(error)) from error
    print("rewritten. Check these lines, whose figures are written by hand:")
    print("\n".join(around))


if __name__ == "__main__":
    main()
