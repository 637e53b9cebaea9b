"""Evaluate an ONNX file on PublicTest: figures and pictures.

    python -m training.evaluate models/emotion.onnx data/fer2013.csv --output runs/emotion/evaluation
    python -m training.evaluate models/emotion-ferplus.onnx data/fer2013.csv --plus data/fer2013new.csv

Writes into the folder:

- ``figures.json``: everything below, as numbers
- ``report.md``: the same as tables, for a model card
- ``confusion.png``, ``confusion_valence.png``, ``calibration.png``, ``risk_coverage.png``

The file must follow the contract of `fer_stream.inference.classifiers.onnx` for 48x48 faces, with FER2013's labels or
FER+'s (then the true label is the majority of its votes). Intervals are 95% bootstrap intervals over the faces. The
calibration error after fitting is cross-fitted: each half of the faces is measured under the temperature fitted on the
other half; otherwise the error would be biased low. Faces with a near-copy in Training are counted, and a second
accuracy excludes them. A third accuracy assumes that the model memorised Training's labels of these near-copies.
`training.corrupt` defines the corruptions.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_stream.errors import FerStreamError, ModelError
from fer_stream.inference import models
from fer_stream.settings.tree import Settings
from training import data, metrics
from training.corrupt import CORRUPTIONS, MISPLACED, apply
from training.duplicates import copied

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fer_stream.inference.models import Model
    from training.corrupt import Change
    from training.data import Faces

VALENCES = ("positive", "neutral", "negative")

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the faces, those with the highest confidence first, whose accuracy is reported."""


def open_model(path: Path) -> tuple[Model, tuple[str, ...]]:
    """Return a model and its labels.

    Raises:
        ModelError: the file breaks the contract, or has neither FER2013's labels nor FER+'s.
    """
    model = models.load(path)
    try:
        labels = tuple(map(str, json.loads(model.metadata.get("labels", "[]"))))
    except (ValueError, TypeError, RecursionError):
        labels = ()
    if labels not in (data.LABELS, data.PLUS_EMOTIONS):
        raise ModelError(f"{path} has neither FER2013's labels nor FER+'s: {', '.join(labels) or 'it has none'}")
    return model, labels


def predict(model: Model, images: NDArray[np.uint8], batch: int = 64) -> NDArray[np.float64]:
    """Return a model's probabilities, float64 ``[N, C]``, of faces, uint8 ``[N, 48, 48]``."""
    inputs = images[:, None].astype(np.float32)
    rows = [model.run(("probabilities",), {"faces": inputs[i : i + batch]})[0] for i in range(0, len(inputs), batch)]
    return np.concatenate(rows).astype(np.float64)


def figures(matrix: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Return accuracy, macro-F1 and the figures of each class, from a confusion matrix."""
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
    """Return `figures`, with confidence intervals of accuracy and macro-F1."""
    found = figures(metrics.confusion(labels, predicted, len(names)), names)
    interval = partial(metrics.interval, labels=labels, predicted=predicted, classes=len(names))
    return found | {
        "accuracy_interval": interval(metrics.accuracy),
        "macro_f1_interval": interval(metrics.macro_f1),
    }


def to_valence(values: NDArray[np.float64], labels: Sequence[str], mapping: Mapping[str, str]) -> NDArray[np.float64]:
    """Return columns ``[N, C]``, one for each label, summed by group: ``[N, 3]`` in the order of `VALENCES`."""
    group = np.array([[mapping.get(label) == valence for valence in VALENCES] for label in labels], np.float64)
    result: NDArray[np.float64] = values @ group
    return result


def calibration(probabilities: NDArray[np.float64], labels: NDArray[np.int64], temperature: float) -> dict[str, float]:
    """Return the temperature, and the calibration error without it and with a cross-fitted one (see the module)."""
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


def cost(model: Model, images: NDArray[np.uint8], batch: int) -> float:
    """Return the milliseconds of CPU time per face in a batch of this size: the median of 50 runs."""
    faces = images[:batch, None].astype(np.float32)
    took = []
    for _ in range(50):
        begin = time.process_time()
        model.run(("probabilities",), {"faces": faces})
        took.append(time.process_time() - begin)
    return float(np.median(took)) * 1e3 / len(faces)


def by_heart(
    right: NDArray[np.bool_], labels: NDArray[np.int64], learnt: NDArray[np.int64], of: NDArray[np.int64]
) -> float:
    """Return the accuracy if the model repeats the training label of each face that has a near-copy in Training.

    Args:
        right: which faces are recognised, bool ``[N]``.
        labels: labels of the faces, int64 ``[N]``.
        learnt: labels of the training faces, int64 ``[M]``; -1 for a face without a label.
        of: index of the training face that each face is a near-copy of, int64 ``[N]``; -1: of none.
    """
    repeated = np.append(learnt, -1)[of]  # index -1 selects the -1 appended here
    return float(np.where(repeated >= 0, repeated == labels, right).mean())


def evaluate(path: Path, faces: Faces, split: str = data.PUBLIC) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Return every figure of a model on a split, and its probabilities, float64 ``[N, C]``.

    Raises:
        ModelError: the model breaks the contract.
        SourceError: the data lacks the split, or the votes that the model's labels need.
    """
    model, names = open_model(path)
    shown, labels = data.truth(faces.split(split), names)
    probabilities = predict(model, shown.images)
    predicted = probabilities.argmax(axis=1)
    mapping = Settings.model_construct().valence
    truth = to_valence(np.eye(len(names))[labels], names, mapping).argmax(axis=1)
    valence = to_valence(probabilities, names, mapping).argmax(axis=1)
    right = predicted == labels
    learnt = faces[faces.usage == data.TRAINING]
    of = copied(shown, learnt)
    copies = np.flatnonzero(of >= 0)
    coverage, risk = metrics.risk_coverage(probabilities, labels)

    def right_if(change: Change) -> float:
        return float((predict(model, apply(change, shown.images)).argmax(axis=1) == labels).mean())

    return {
        "model": path.name,
        "split": split,
        "faces": len(shown),
        "milliseconds": {"alone": cost(model, shown.images, 1), "of 16": cost(model, shown.images, 16)},
        "emotions": with_intervals(labels, predicted, names),
        "valence": with_intervals(truth, valence, VALENCES),
        "calibration": calibration(probabilities, labels, float(model.metadata.get("temperature", 1))),
        "right_by_coverage": {share: 1 - float(risk[np.searchsorted(coverage, share)]) for share in COVERAGES},
        "near_copies_in_training": len(copies),
        "accuracy_without_near_copies": float(np.delete(right, copies).mean()),
        "accuracy_with_near_copies_by_heart": by_heart(right, labels, data.labels_of(learnt, names), of),
        "corrupted": {name: right_if(change) for name, change in CORRUPTIONS.items()},
        "misplaced": {name: right_if(change) for name, change in MISPLACED.items()},
    }, probabilities


def report(found: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    took = found["milliseconds"]
    lines = [f"A face takes {took['alone']:.2f} ms alone, and {took['of 16']:.2f} ms as one of 16, of one core.", ""]
    lines += ["| | accuracy | macro-F1 |", "|---|---|---|"]
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
        f"{found['near_copies_in_training']} of the {found['faces']:,} faces have a near-copy in Training (not learnt "
        f"from); without them the accuracy is {100 * found['accuracy_without_near_copies']:.1f}%, with Training's "
        f"labels of these known by heart it would be {100 * found['accuracy_with_near_copies_by_heart']:.1f}%.",
        "",
        f"| the surest | {' | '.join(f'{share:.0%}' for share in found['right_by_coverage'])} |",
        "|---" * (len(COVERAGES) + 1) + "|",
        f"| are right at | {' | '.join(f'{right:.1%}' for right in found['right_by_coverage'].values())} |",
        "",
        "| faces | accuracy | of the clean one |",
        "|---|---|---|",
    ]
    clean = found["emotions"]["accuracy"] or 1.0  # an accuracy of 0 would divide by zero
    kept = found["corrupted"] | {"mean of these": np.mean(list(found["corrupted"].values()))} | found["misplaced"]
    lines += [f"| {name} | {100 * value:.1f}% | {100 * value / clean:.0f}% |" for name, value in kept.items()]
    names = list(found["emotions"]["classes"])
    lines += ["", "Rows are labels, columns what was recognised:", ""]
    lines += [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, row in zip(names, found["emotions"]["confusion"], strict=True):
        lines.append(f"| {name} | {' | '.join(f'{100 * count / max(sum(row), 1):.0f}%' for count in row)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Evaluate, and write figures, report and pictures."""
    from training import pictures  # noqa: PLC0415 - matplotlib is slow to import, and only this command draws

    parser = argparse.ArgumentParser(description="Evaluate an ONNX file on PublicTest.")
    parser.add_argument("model", type=Path, help="ONNX file")
    data.add_arguments(parser)
    parser.add_argument("--split", default=data.PUBLIC, help="the split to evaluate on")
    parser.add_argument("--output", type=Path, default=Path("runs/evaluation"), help="folder to write to")
    arguments = parser.parse_args()
    try:
        faces = data.load(arguments.data, arguments.plus)
        found, probabilities = evaluate(arguments.model, faces, arguments.split)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error

    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    (output / "figures.json").write_text(json.dumps(found, indent=1, default=lambda value: value.item()) + "\n")
    text = report(found)
    (output / "report.md").write_text(text)
    names = tuple(found["emotions"]["classes"])
    pictures.confusion(output / "confusion.png", names, np.array(found["emotions"]["confusion"]))
    pictures.confusion(output / "confusion_valence.png", VALENCES, np.array(found["valence"]["confusion"]))
    _, labels = data.truth(faces.split(arguments.split), names)
    raw = metrics.heat(probabilities, 1 / found["calibration"]["temperature"])
    lines = {"before": metrics.calibration(raw, labels), "after": metrics.calibration(probabilities, labels)}
    pictures.calibration(output / "calibration.png", lines)
    pictures.risk_coverage(output / "risk_coverage.png", *metrics.risk_coverage(probabilities, labels))
    print(text)
    print(f"more in {output}")


if __name__ == "__main__":
    main()
