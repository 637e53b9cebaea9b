"""``fer-stream model``: check a user's own model, write its sidecar, measure its cost."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.cli.options import begin, model_answers
from fer_stream.cli.reading import table
from fer_stream.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from argparse import Namespace

    from fer_stream.inference.classifiers.adoption import Question
    from fer_stream.inference.classifiers.onnx import OnnxClassifier
    from fer_stream.inference.classifiers.plan import Plan

PORTRAIT = "eileen_collins.jpg"
"""An included portrait, of a woman who smiles."""


def model(arguments: Namespace) -> int:
    """Run one action; return 1 if a check finds a breach."""
    settings = begin(arguments, "model")
    answers = model_answers(arguments)
    if arguments.action != "adopt" and (answers or arguments.output or arguments.force):
        raise ConfigError(f"{arguments.action} takes only FILE and --provider: the other options are for adopt")
    path, provider = Path(arguments.file), settings.classifier.provider
    if arguments.action == "check":
        return _check(path, provider)
    if arguments.action == "adopt":
        _adopt(path, answers, arguments)
    else:
        _bench(path, provider)
    return 0


def _check(path: Path, provider: str) -> int:
    from fer_stream.inference import models  # noqa: PLC0415  (onnxruntime is slow to import)
    from fer_stream.inference.classifiers.examination import examine  # noqa: PLC0415
    from fer_stream.inference.classifiers.onnx import OnnxClassifier  # noqa: PLC0415

    opened = models.find(path)
    plan, breaches = examine(opened)
    if plan is None:
        count = "one thing is" if len(breaches) == 1 else f"{len(breaches)} things are"
        sys.stdout.write(f"{path} cannot be used yet; {count} missing or wrong:\n")
        sys.stdout.writelines(f"- {breach.what}\n  {breach.write}\n" for breach in breaches)
        if opened.sidecar is None:
            sys.stdout.write(f"fer-stream model adopt {path} writes {models.sidecar_of(path).name}\n")
        return 1
    sys.stdout.write("\n".join(table([*_about(plan), ["portrait", _answer(OnnxClassifier(path, provider))]])) + "\n")
    return 0


def _about(plan: Plan) -> list[list[str]]:
    """Return rows that say how fer-stream understands a model."""
    pixels, crop, said = plan.pixels, plan.crop, plan.model
    points = "five landmarks; without them " if crop.points else ""
    axes = {"N": str(pixels.batch or "N"), "H": str(pixels.height), "W": str(pixels.width)}
    shape = ", ".join(axes.get(axis, "1" if pixels.colour == "grey" else "3") for axis in pixels.layout)
    factor, offset = (
        " ".join(f"{value:.6g}" for value in dict.fromkeys(values.tolist()))
        for values in (pixels.factor, pixels.offset)
    )
    first, after = plan.columns
    sidecar = "" if said.sidecar is None else f", with {said.path.with_suffix('.toml').name}"
    rows = [
        ["file", f"{said.path}{sidecar}"],
        ["digest", f"sha256:{said.digest}"],
        ["version", plan.version],
        ["input", f"{pixels.name} [{shape}], {pixels.colour}, pixels * {factor} + {offset}"],
        ["crop", f"{points}x {crop.x:g}, y {crop.y:g}, side {crop.side:g}"],
        ["labels", ", ".join(plan.labels) or "none: there are no intervals and no shares, only measures"],
    ]
    if plan.labels:
        rows.append(["", f"{'softmax of ' if plan.logits else ''}columns {first} to {after - 1} of {plan.output}"])
    for measure, place in plan.measures.items():
        scale = f"{measure.least:g} to {measure.greatest:g}"
        rows.append(["measure", f"{measure.name}, {scale}: column {place.number} of {place.output}"])
    if plan.smoother:
        rows.append(["smoother", ", ".join(f"{name} {value:g}" for name, value in plan.smoother.items())])
    return rows


def _answer(classifier: OnnxClassifier) -> str:
    """Return a classifier's result for the included portrait, which shows whether pixels or labels are wrong."""
    import cv2  # noqa: PLC0415  (OpenCV is slow to import)
    import numpy as np  # noqa: PLC0415

    from fer_stream.inference.detectors.mtcnn import MTCNN  # noqa: PLC0415

    content = (files("fer_stream") / "assets" / PORTRAIT).read_bytes()
    image = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    face = max(MTCNN().detect(image), key=lambda found: found.box.x2 - found.box.x1)
    rows, measures = classifier.assess(image, [face])
    best = sorted(zip(rows[0].tolist(), classifier.labels, strict=True), reverse=True)[:3]
    told = [f"{label} {100 * share:.0f}%" for share, label in best]
    told += [f"{named.name} {value:.2f}" for named, value in zip(classifier.measures, measures[0], strict=True)]
    return f"{', '.join(told)} (of a woman who smiles)"


def _adopt(path: Path, answers: dict[str, str], arguments: Namespace) -> None:
    from fer_stream.inference import models  # noqa: PLC0415  (onnxruntime is slow to import)
    from fer_stream.inference.classifiers import adoption  # noqa: PLC0415

    target = Path(arguments.output) if arguments.output else models.sidecar_of(path)
    if target.exists() and not arguments.force:
        raise ConfigError(f"{target} exists: give another file with -o, or --force to overwrite it")
    opened = models.load(path)
    text = adoption.adopt(opened, answers, _ask if sys.stdin.isatty() and sys.stdout.isatty() else None)
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{target} cannot be written: {error.strerror}") from error
    sys.stdout.write(text)
    beside = "" if target == models.sidecar_of(path) else f" as {models.sidecar_of(path).name}"
    advice = f": put it beside {path}{beside}" if target.resolve() != models.sidecar_of(path).resolve() else ""
    sys.stderr.write(f"written to {target}{advice}\n")


def _ask(question: Question) -> str:
    """Ask at the terminal.

    Raises:
        ConfigError: the input has ended.
    """
    suggestion = f" [{question.suggestion}]" if question.suggestion else ""
    try:
        return input(f"{question.text[0].upper()}{question.text[1:]}{suggestion}: ")
    except EOFError as error:
        raise ConfigError(f"no answer to: {question.text}") from error


def _bench(path: Path, provider: str) -> None:
    from fer_stream.inference.classifiers.cost import CROWD, measure  # noqa: PLC0415  (onnxruntime is slow to import)
    from fer_stream.inference.classifiers.onnx import DEFAULT, OnnxClassifier  # noqa: PLC0415

    mine, ours = measure([OnnxClassifier(path, provider), OnnxClassifier(None, provider)])
    rows = [["ms for each face", "one alone", f"one of {CROWD}"]]
    rows += [[name, f"{cost.alone:.2f}", f"{cost.crowd:.2f}"] for name, cost in ((path.name, mine), (DEFAULT, ours))]
    rows.append(["ratio", *(f"{a / b:.2f}" for a, b in zip(mine, ours, strict=True))])
    sys.stdout.write("\n".join(table(rows)) + "\n")
