"""Writes the sidecar of a model: deduces what the file shows, and asks for the rest.

What a file does not show is asked for, even where there is a usual value: a wrong order of channels or a wrong scale
gives wrong labels without an error.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_stream.errors import ConfigError, ModelError
from fer_stream.inference import models
from fer_stream.inference.classifiers import contract, examination
from fer_stream.inference.classifiers.contract import Contract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fer_stream.inference.models import Model

Tree = dict[str, Any]

IMAGENET: Tree = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

PIXELS: dict[str, Tree] = {
    "bytes": {"scale": 1.0},
    "unit": {"scale": 1 / 255},
    "signed": {"scale": 1 / 127.5, "mean": 1.0},
    "imagenet": IMAGENET,
}
"""Usual scales of pixels: 0 to 255, 0 to 1, -1 to 1, and ImageNet's mean and standard deviation, here in RGB order."""


_ARCFACE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))

ARCFACE: Tree = {
    "points": [[round(x / 112, 4), round(y / 112, 4)] for x, y in _ARCFACE],
    "x": 0.01,
    "y": -0.085,
    "side": 1.226,
}
"""The template of 112x112 pixels to which faces are aligned for ArcFace, as in InsightFace's ``utils/face_align.py``,
and where it lies around MTCNN's box (``python -m training.crop --arcface``)."""


class Question(NamedTuple):
    """A question: the name of its answer, its text, and a suggested answer, or an empty text."""

    name: str
    text: str
    suggestion: str = ""
    needed: bool = True


def _numbers(text: str) -> list[float] | float:
    numbers = [float(part) for part in text.split(",")]
    return numbers if len(numbers) > 1 else numbers[0]


def _pixels(text: str) -> Tree:
    if text not in PIXELS:
        raise ValueError(f"must be {', '.join(PIXELS)}; other scales are given by --scale, --mean and --std")
    return PIXELS[text]


def _size(text: str) -> list[int]:
    height, width = text.lower().split("x")
    return [int(height), int(width)]


def _columns(text: str) -> list[int]:
    first, after = text.split(":")
    return [int(first), int(after)]


def _names(text: str) -> list[str]:
    return [] if text == "none" else [part.strip() for part in text.split(",")]


def _crop(text: str) -> Tree:
    if text == "arcface":
        return ARCFACE
    if text == "fer2013":
        measured: Tree = json.loads((models.folder() / "crop.json").read_text(encoding="utf-8"))
        return measured
    x, y, side = (0.0, 0.0, 1.0) if text == "box" else map(float, text.split(","))
    return {"x": x, "y": y, "side": side}


def _measures(text: str) -> Tree:
    """Return the measures in ``NAME=COLUMN[,LEAST,GREATEST[,OUTPUT]]``, several of which ``;`` separates."""
    found: Tree = {}
    for one in filter(None, map(str.strip, text.split(";"))):
        name, _, rest = one.partition("=")
        column, *further = (part.strip() for part in rest.split(",", 3))
        found[name.strip()] = {"column": int(column)}
        if further:
            found[name.strip()]["range"] = [float(further[0]), float(further[1])]
        if further[2:]:
            found[name.strip()]["output"] = further[2]
    return found


ANSWERS: dict[str, tuple[str, Callable[[str], Tree]]] = {
    "layout": ("NCHW or NHWC", lambda text: {"input": {"layout": text}}),
    "channels": ("grey, RGB or BGR", lambda text: {"input": {"channels": text}}),
    "size": ("HEIGHTxWIDTH", lambda text: {"input": {"size": _size(text)}}),
    "batch": ("a whole number", lambda text: {"input": {"batch": int(text)}}),
    "pixels": (", ".join(PIXELS), lambda text: {"input": _pixels(text)}),
    "scale": ("a number", lambda text: {"input": {"scale": float(text)}}),
    "mean": ("a number, or one for each channel with commas", lambda text: {"input": {"mean": _numbers(text)}}),
    "std": ("a number, or one for each channel with commas", lambda text: {"input": {"std": _numbers(text)}}),
    "labels": ("names with commas, or none", lambda text: {"labels": {"names": _names(text)}}),
    "labels-output": ("an output's name", lambda text: {"labels": {"output": text}}),
    "values": ("probabilities or logits", lambda text: {"labels": {"values": text}}),
    "columns": ("FIRST:AFTER", lambda text: {"labels": {"columns": _columns(text)}}),
    "measure": ("NAME=COLUMN[,LEAST,GREATEST[,OUTPUT]]", lambda text: {"measures": _measures(text)}),
    "crop": ("box, fer2013, arcface, or X,Y,SIDE", lambda text: {"crop": _crop(text)}),
    "version": ("text", lambda text: {"version": text}),
    "license": ("text", lambda text: {"license": text}),
    "trained-on": ("text", lambda text: {"trained_on": text}),
}
"""What can be answered, by name: the form of the answer, and what it adds to a contract."""


def adopt(model: Model, answers: Mapping[str, str], ask: Callable[[Question], str] | None) -> str:
    """Return the text of a sidecar with which a model satisfies its contract.

    Args:
        model: the model; if it has a sidecar already, that is ignored.
        answers: what is known already, by the names in `ANSWERS`.
        ask: answers a question; an empty text takes the suggestion. ``None``: nobody can be asked.

    Raises:
        ConfigError: an answer is invalid, or a question is left and nobody can be asked; the message names all of them.
        ModelError: the model cannot be used with these answers; the message names all breaches of its contract.
    """
    model = replace(model, sidecar=None)
    if not model.session.get_outputs():
        raise ModelError(f"{model.path} has no outputs: export it with one output, the labels' probabilities or logits")
    said, _, _ = contract.read(model)
    tree: Tree = said.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    given = set(answers)
    for name, text in answers.items():
        tree = _answered(tree, name, text)
    while left := [question for question in _questions(model, tree, given) if question.needed or ask]:
        if ask is None and (suggested := next((question for question in left if question.suggestion), None)):
            tree = _answered(tree, suggested.name, suggested.suggestion)
        elif ask is None:
            wanted = "; ".join(f"{question.text} (--{question.name} {ANSWERS[question.name][0]})" for question in left)
            raise ConfigError(f"{model.path} does not show everything that is needed: {wanted}")
        else:
            tree = _asked(tree, left[0], ask)
            given.add(left[0].name)
    pixels = tree.get("input", {})
    if pixels.get("channels") == "BGR" and not given & {"mean", "std"} and pixels.get("mean") == IMAGENET["mean"]:
        tree["input"] = pixels | {name: IMAGENET[name][::-1] for name in ("mean", "std")}
    text = contract.write(Contract.model_validate(_deduced(model, tree)), model.path.name)
    _, breaches = examination.examine(replace(model, sidecar=text))
    if breaches:
        raise ModelError(f"{model.path} cannot be used with these answers: {'; '.join(map(str, breaches))}")
    return text


def _asked(tree: Tree, question: Question, ask: Callable[[Question], str]) -> Tree:
    """Return a contract's tree with the answer to a question, which is asked until the answer is valid."""
    again = question
    while True:
        text = ask(again).strip() or question.suggestion
        if not text and not question.needed:
            return tree
        try:
            return _answered(tree, question.name, text)
        except ConfigError as error:
            again = question._replace(text=f"{error}\n{question.text}")


def _answered(tree: Tree, name: str, text: str) -> Tree:
    """Return a contract's tree with one more answer.

    Raises:
        ConfigError: the answer is invalid.
    """
    form, parse = ANSWERS[name]
    try:
        further = parse(text)
    except ValueError as error:
        reason = str(error) if str(error).startswith("must be") else f"must be {form}"
        raise ConfigError(f"--{name} {text!r} cannot be used: it {reason}") from error
    merged = dict(tree)
    for key, value in further.items():
        merged[key] = merged.get(key, {}) | value if isinstance(value, dict) and key != "crop" else value
    _, faults = contract.valid(merged)
    if faults:
        raise ConfigError(f"--{name} {text!r} cannot be used: {'; '.join(fault for _, fault in faults)}")
    return merged


def _questions(model: Model, tree: Tree, given: set[str]) -> Iterator[Question]:
    """Yield what is still to be answered, in the order in which to ask."""
    said = Contract.model_validate(tree)
    inputs = model.session.get_inputs()
    if len(inputs) == 1 and len(inputs[0].shape) == 4:
        yield from _about_input(inputs[0].shape, said)
    if not given & {"pixels", "scale", "mean", "std"}:
        yield Question(
            "pixels", "the range of its pixels: bytes (0 to 255), unit (0 to 1), signed (-1 to 1), or imagenet"
        )
    outputs = [value.name for value in model.session.get_outputs()]
    if said.labels.names != [] and said.labels.output is None and len(outputs) > 1 and "probabilities" not in outputs:
        yield Question("labels-output", f"which output has the labels: {', '.join(outputs)}")
    found = examination.trial(model, said)
    rows = found.get(said.labels.output or ("probabilities" if "probabilities" in outputs else outputs[0]))
    if said.labels.names is None:
        many = f"; there are {rows.shape[1]} columns" if rows is not None else ""
        yield Question("labels", f"its labels, in the order of the columns, or none if it has only measures{many}")
    elif not (said.measures or "measure" in given) and (
        not said.labels.names or (rows is not None and rows.shape[1] > len(said.labels.names))
    ):
        text = "which further columns are measures, such as valence=8,-1,1; arousal=9,-1,1; empty if none"
        yield Question("measure", text, needed=not said.labels.names)
    if said.crop is None:
        yield Question("crop", "how a face is cropped: box, fer2013, arcface, or offsets and side as X,Y,SIDE")
    if said.version is None:
        yield Question("version", "its name and version", model.path.stem)
    if said.license is None:
        yield Question("license", "the licence of its weights")
    if said.trained_on is None:
        yield Question("trained-on", "the faces on which it was trained")


def _about_input(shape: list[Any], said: Contract) -> Iterator[Question]:
    possible = examination.layouts(shape)
    layout = said.input.layout or (possible[0] if len(possible) == 1 else None)
    if layout is None:
        yield Question("layout", f"the order of the axes of its input, {shape}: NCHW or NHWC")
        return
    if said.input.channels is None and shape[layout.index("C")] != 1:
        yield Question("channels", "the order of its channels: RGB or BGR")
    if said.input.size is None and not all(isinstance(shape[layout.index(axis)], int) for axis in "HW"):
        yield Question("size", "the size of a face in pixels, HEIGHTxWIDTH, such as 224x224")


def _deduced(model: Model, tree: Tree) -> Tree:
    """Return a contract's tree with what a run on noise shows: batch size, the labels' columns, logits or not."""
    said = Contract.model_validate(tree)
    labels, names = dict(tree.get("labels", {})), said.labels.names or []
    found = examination.trial(model, said)
    if not found and said.input.batch is None:
        alone = tree | {"input": tree.get("input", {}) | {"batch": 1}}
        if found := examination.trial(model, Contract.model_validate(alone)):
            tree = alone
    elif found and said.input.batch is None and examination.mixes(model, said, sorted(found)):
        tree = tree | {"input": tree.get("input", {}) | {"batch": 1}}
    outputs = [value.name for value in model.session.get_outputs()]
    if names and "output" not in labels and "probabilities" not in found and len(outputs) == 1:
        labels["output"] = outputs[0]
    rows = found.get(labels.get("output", "probabilities"))
    if rows is None or not names:
        return tree | {"labels": labels}
    if "columns" not in labels and 0 < len(names) < rows.shape[1]:
        labels["columns"] = [0, len(names)]
    if "values" not in labels:
        first, after = labels.get("columns", (0, rows.shape[1]))
        labels["values"] = "probabilities" if examination.sums_to_one(rows[:, first:after]) else "logits"
    return tree | {"labels": labels}
