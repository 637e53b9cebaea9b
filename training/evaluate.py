"""How good is an ONNX file? Figures and pictures of what it says about PublicTest.

    python -m training.evaluate models/emotion.onnx data/fer2013.csv --output runs/emotion/evaluation

Writes into the folder:

- ``figures.json``: everything below, as numbers
- ``report.md``: the same as tables, for a model card
- ``confusion.png``, ``confusion_valence.png``, ``calibration.png``

Any file under the contract of `fer_stream.classifiers.onnx` will do, if its labels are FER2013's. Intervals are the
bootstrap's, 95%, over the faces. The calibration error after fitting is cross-fitted: each half of the faces is
measured under the temperature of the other, or it would flatter. Faces of which Training has an exact copy are counted
and left out of a second accuracy.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_stream import models
from fer_stream.config import Settings
from fer_stream.errors import FerStreamError, ModelError
from training import data, metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from training.data import Faces

VALENCES = ("positive", "neutral", "negative")


def predict(path: Path, faces: Faces, batch: int = 64) -> tuple[NDArray[np.float64], float]:
    """Return a model's probabilities ``[N, 7]`` of the faces, and the temperature that is in its graph.

    Raises:
        ModelError: the file breaks the contract, or its labels are not FER2013's.
    """
    model = models.load(path)
    if json.loads(model.metadata.get("labels", "null")) != list(data.LABELS):
        raise ModelError(f"{path} does not have FER2013's labels: {', '.join(data.LABELS)}")
    images = faces.images[:, None].astype(np.float32)
    rows = [model.run(("probabilities",), {"faces": images[i : i + batch]})[0] for i in range(0, len(images), batch)]
    return np.concatenate(rows).astype(np.float64), float(model.metadata.get("temperature", 1))


def figures(matrix: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Return accuracy, macro-F1 and each class's figures of a confusion matrix."""
    rates = metrics.per_class(matrix)
    each = {
        name: {"precision": rates.precision[i], "recall": rates.recall[i], "f1": rates.f1[i], "faces": matrix[i].sum()}
        for i, name in enumerate(names)
    }
    best = sorted(names, key=lambda name: -each[name]["f1"])
    return {
        "accuracy": metrics.accuracy(matrix),
        "macro_f1": metrics.macro_f1(matrix),
        "classes": each,
        "best_recognised": best,
        "confusion": matrix.tolist(),
    }


def with_intervals(labels: NDArray[np.int64], predicted: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Return `figures`, with confidence intervals of the two that sum all up."""
    found = figures(metrics.confusion(labels, predicted, len(names)), names)
    interval = partial(metrics.interval, labels=labels, predicted=predicted, classes=len(names))
    return found | {
        "accuracy_interval": interval(metrics.accuracy),
        "macro_f1_interval": interval(metrics.macro_f1),
    }


def to_valence(values: NDArray[np.float64], mapping: Mapping[str, str]) -> NDArray[np.float64]:
    """Return the columns ``[N, 7]`` added up by group: ``[N, 3]`` in the order of `VALENCES`."""
    group = np.array([[mapping.get(label) == valence for valence in VALENCES] for label in data.LABELS], np.float64)
    result: NDArray[np.float64] = values @ group
    return result


def calibration(probabilities: NDArray[np.float64], labels: NDArray[np.int64], temperature: float) -> dict[str, float]:
    """Return the calibration error before and after the temperature, and that of the other half's temperature."""
    raw = metrics.heat(probabilities, 1 / temperature)
    half = np.random.default_rng(0).permutation(len(labels)) < len(labels) / 2
    crossed = np.empty_like(raw)
    for part in (half, ~half):
        crossed[part] = metrics.heat(raw[part], metrics.fit_temperature(raw[~part], labels[~part]))
    return {
        "temperature": temperature,
        "error_before": metrics.expected_calibration_error(raw, labels),
        "error_after": metrics.expected_calibration_error(crossed, labels),
    }


def copies(faces: Faces, of: Faces) -> NDArray[np.bool_]:
    """Return which of the faces are pixel for pixel among others, bool ``[N]``."""
    known = {image.tobytes() for image in of.images}
    return np.array([image.tobytes() in known for image in faces.images])


def evaluate(path: Path, faces: Faces, split: str = data.PUBLIC) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Return every figure of a model on a split, and its probabilities.

    Raises:
        ModelError: the model breaks the contract.
        SourceError: there are no such faces.
    """
    shown = faces.split(split)
    probabilities, temperature = predict(path, shown)
    predicted = probabilities.argmax(axis=1)
    mapping = Settings.model_construct().valence
    truth = to_valence(np.eye(len(data.LABELS))[shown.labels], mapping).argmax(axis=1)
    valence = to_valence(probabilities, mapping).argmax(axis=1)
    fresh = ~copies(shown, faces[faces.usage != split])
    return {
        "model": path.name,
        "split": split,
        "faces": len(shown),
        "emotions": with_intervals(shown.labels, predicted, data.LABELS),
        "valence": with_intervals(truth, valence, VALENCES),
        "calibration": calibration(probabilities, shown.labels, temperature),
        "copies_of_training": int((~fresh).sum()),
        "accuracy_without_copies": float((predicted == shown.labels)[fresh].mean()),
    }, probabilities


def report(found: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = ["| | accuracy | macro-F1 |", "|---|---|---|"]
    for name in ("emotions", "valence"):
        part = found[name]
        cells = [
            f"{100 * part[key]:.1f}% ({100 * part[f'{key}_interval'][0]:.1f} to {100 * part[f'{key}_interval'][1]:.1f})"
            for key in ("accuracy", "macro_f1")
        ]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    for name in ("emotions", "valence"):
        lines += ["", f"| {name}, best recognised first | precision | recall | F1 | faces |", "|---|---|---|---|---|"]
        for label in found[name]["best_recognised"]:
            row = found[name]["classes"][label]
            rates = " | ".join(f"{100 * row[key]:.1f}%" for key in ("precision", "recall", "f1"))
            lines.append(f"| {label} | {rates} | {row['faces']} |")
    fitted = found["calibration"]
    lines += [
        "",
        f"Expected calibration error (15 bins): {fitted['error_before']:.3f} before, {fitted['error_after']:.3f} after "
        f"the temperature ({fitted['temperature']:.3f}), cross-fitted.",
        f"{found['copies_of_training']} of the {found['faces']:,} faces have an exact copy in Training; without them "
        f"the accuracy is {100 * found['accuracy_without_copies']:.1f}%.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Evaluate, and write figures, report and pictures."""
    from training import pictures  # noqa: PLC0415 - matplotlib is slow to import, and only this command draws

    parser = argparse.ArgumentParser(description="Evaluate an ONNX file on PublicTest.")
    parser.add_argument("model", type=Path, help="ONNX file")
    data.add_arguments(parser, plus=False)
    parser.add_argument("--split", default=data.PUBLIC, help="the split to evaluate on")
    parser.add_argument("--output", type=Path, default=Path("runs/evaluation"), help="folder to write to")
    arguments = parser.parse_args()
    try:
        faces = data.load(arguments.data)
        found, probabilities = evaluate(arguments.model, faces, arguments.split)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error

    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    (output / "figures.json").write_text(json.dumps(found, indent=1, default=lambda value: value.item()) + "\n")
    text = report(found)
    (output / "report.md").write_text(text)
    pictures.confusion(output / "confusion.png", data.LABELS, np.array(found["emotions"]["confusion"]))
    pictures.confusion(output / "confusion_valence.png", VALENCES, np.array(found["valence"]["confusion"]))
    labels = faces.split(arguments.split).labels
    raw = metrics.heat(probabilities, 1 / found["calibration"]["temperature"])
    lines = {"before": metrics.calibration(raw, labels), "after": metrics.calibration(probabilities, labels)}
    pictures.calibration(output / "calibration.png", lines)
    print(text)
    print(f"more in {output}")


if __name__ == "__main__":
    main()
