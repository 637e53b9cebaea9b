"""Every number of a training run, in one TOML file.

python -m training.recipe training/recipes/emotion.toml       # check a recipe, and print all its settings

This module needs only the standard library: a campaign (`training.campaign`) runs on machines with few packages.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from fer_stream.errors import ConfigError
from fer_stream.operations.process import main_guard
from fer_stream.settings.schema import allowed, dotted, flatten, toml, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fer_stream.settings.schema import KeyPath, Schema

Body = Literal["residual", "wide", "plain", "separable", "pretrained"]


SIDES = (16, 512)
"""Smallest and largest side of the faces that the net is trained on, in pixels."""


def _set(default: Any, description: str = "", **rules: float) -> Any:
    """Return a field with its default, its description and JSON Schema's rules for numbers."""
    metadata = {"rules": rules, "description": description}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def _share(default: float, description: str) -> Any:
    return _set(default, description, minimum=0, maximum=1)


def _amount(default: float, description: str) -> Any:
    return _set(default, description, minimum=0)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The net's shape."""

    body: Body = _set(  # noqa: RUF009 - it returns a field
        "residual",
        "residual: the shipped kind; wide: a wide residual net; plain: convolutions and poolings, as VGG; separable: "
        "inverted bottlenecks, as EfficientNet; pretrained: dlib's net (training.pretrained)",
    )
    widths: list[int] = _set(  # noqa: RUF009
        [32, 48, 96, 160, 256], "channels of the stem and of each stage", minimum=8
    )
    depth: int = _set(
        2, "blocks per stage of a wide or separable net, convolutions per stage of a plain one", minimum=1
    )
    side: int = _set(
        48, "input side of the trained net, in pixels; `sizes` sets the sides during training",
        minimum=SIDES[0], maximum=SIDES[1],
    )  # fmt: skip
    dropout: float = _share(0.3, "dropout rate before the heads")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far a face is changed; each number is the largest change, unless its description says otherwise."""

    rotation: float = _amount(15.0, "degrees")
    scale: float = _amount(0.15, "logarithm of the size")
    stretch: float = _amount(0.06, "logarithm of width over height, halved")
    shift: float = _share(0.08, "share of the frame's side")
    contrast: float = _amount(0.3, "logarithm of the contrast")
    brightness: float = _amount(25.0, "grey levels")
    coarse: float = _share(0.2, "share of the faces that are shrunk and enlarged again")
    noise: float = _amount(15.0, "standard deviation in grey levels; most faces get less")
    erase: float = _share(0.4, "share of the faces in which a rectangle is covered")
    mixup: float = _share(0.1, "share of the batches in which faces are blended in pairs")
    mixup_alpha: float = _set(
        0.3, "parameter of the Beta distribution: how evenly they are blended", exclusiveMinimum=0, maximum=2
    )
    cutmix: float = _share(0.0, "share of the batches in which a rectangle of each face is replaced by another face's")
    mixup_until: float = _share(0.85, "share of the training after which mixup and cutmix end")


@dataclass(frozen=True, kw_only=True)
class Nudge:
    """How far a face's second look differs from its first (`loss.steady`); each number is the largest change.

    The defaults are a little more than what a detector's boxes and a camera change from frame to frame.
    """

    rotation: float = _amount(3.0, "degrees")
    scale: float = _amount(0.05, "logarithm of the size")
    shift: float = _share(0.03, "share of the frame's side")
    contrast: float = _amount(0.1, "logarithm of the contrast")
    brightness: float = _amount(8.0, "grey levels")
    noise: float = _amount(4.0, "standard deviation in grey levels; most faces get less")
    blur: float = _share(0.2, "share of the faces that are shrunk and enlarged again")
    jpeg: float = _share(0.3, "share of the faces that are coded as JPEG, with a quality of 30 to 95")


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The loss, with measures against rare classes, wrong labels and unsteady predictions."""

    smoothing: float = _share(0.08, "share of a label that is spread over all classes")
    soft: float = _share(0.5, "weight of the teachers in each target, if there are soft targets")
    prior: float = _share(0.25, "how much of the class imbalance is removed from the logits (1: all)")
    votes_prior: float = _share(0.0, "the same for FER+'s head; its class frequencies are the mean of the targets")
    labels: float = _amount(1.0, "weight of FER2013's head; 0: the net learns only FER+'s votes")
    votes: float = _amount(0.8, "weight of FER+'s head, if there are votes; 0: only FER2013's labels")
    steady: float = _amount(
        0.0, "weight of the divergence between two looks at a face (`nudge`); above 0, a step costs twice as much"
    )


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Stochastic gradient descent with Nesterov momentum, a warm-up and a cosine schedule."""

    learning_rate: float = _set(0.1, exclusiveMinimum=0)
    momentum: float = _share(0.9, "Nesterov's")
    weight_decay: float = _amount(5e-4, "of weights, not of biases and normalisation")
    warmup: int = _set(600, "steps", minimum=0)
    clip: float = _set(5.0, "largest norm of the gradient", exclusiveMinimum=0)
    average: float = _share(0.998, "decay of the moving average of the weights; the average is exported")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole training run."""

    epochs: int = _set(60, "how often each face is shown", minimum=1)
    batch: int = _set(128, "faces per step", minimum=2)
    seed: int = _set(0, "seed of all random draws", minimum=0, maximum=2**31 - 1)
    holdout: float = _set(
        0.0,
        "share of the training faces held out for tuning; 0 for the shipped model",
        minimum=0,
        exclusiveMaximum=1,
    )
    limit: int | None = _set(None, "number of training faces to use, from the first on", minimum=1)
    bfloat16: bool = _set(
        False, "twice as fast on hardware that supports it (a GPU; AMX, AVX512-BF16); others train in float32"
    )
    sizes: dict[int, float] = _set(  # noqa: RUF009
        {32: 0.0, 40: 0.5, 48: 0.75},
        "side of the faces in pixels, and the share of the training from which it is used",
        minimum=0,
        maximum=1,
    )
    net: Architecture = Architecture()
    augmentation: Augmentation = Augmentation()
    nudge: Nudge = Nudge()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()

    def size(self, progress: float) -> int:
        """Return the side of the faces in pixels; ``progress`` is the share of the training done."""
        return max((start, side) for side, start in self.sizes.items() if start <= progress)[1]


def load(path: Path) -> Recipe:
    """Return the recipe in a TOML file; missing settings have the defaults of `Recipe`.

    Raises:
        ConfigError: there is no such file, it is not TOML, or a setting is wrong; one sentence per problem.
    """
    return parse(read(path), f"the recipe {path}")


def read(path: Path) -> dict[str, Any]:
    """Return the content of a recipe's or a campaign's TOML file.

    Raises:
        ConfigError: there is no such file, or it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def parse(values: Mapping[str, Any], where: str) -> Recipe:
    """Return the recipe with some values, in the form of TOML or JSON.

    Args:
        values: the settings that differ from the defaults, by section.
        where: the source of the values, for the messages.

    Raises:
        ConfigError: a value is wrong; one sentence per problem.
    """
    problems: list[str] = []
    how: Recipe = _build(Recipe, values, (), problems)
    if not problems:
        problems = [*_contradictions(how)]
    if problems:
        raise ConfigError("\n".join(f"{where}: {text}" for text in problems))
    return how


def values_of(how: Recipe) -> dict[str, Any]:
    """Return all settings of a recipe, in the form that `parse` takes; they can be written as JSON."""
    values = dataclasses.asdict(how)
    return values | {"sizes": {str(side): start for side, start in how.sizes.items()}}


def _contradictions(how: Recipe) -> Iterator[str]:
    if not how.sizes or min(how.sizes.values()) != 0:
        yield "sizes: one side must begin at 0, the start of the training"
    if wrong := [side for side in how.sizes if not SIDES[0] <= side <= SIDES[1]]:
        yield f"sizes: {wrong[0]} is not allowed: a side must be from {SIDES[0]} to {SIDES[1]} pixels"
    if not 2 <= len(how.net.widths) <= 6:
        yield "net.widths: there must be 2 to 6 numbers, one for the stem and 1 to 5 for the stages"
    if not how.loss.labels and not how.loss.votes:
        yield "loss.labels and loss.votes are both 0, so there is nothing to learn"


def _build(kind: Any, values: Mapping[str, Any], path: KeyPath, problems: list[str]) -> Any:
    """Return a section of the recipe, and append problems of its values to ``problems``."""
    hints, known = get_type_hints(kind), {item.name: item for item in dataclasses.fields(kind)}
    given: dict[str, Any] = {}
    for name, value in values.items():
        here = (*path, name)
        if name not in known:
            problems.append(unknown(schema(), here))
        elif dataclasses.is_dataclass(hints[name]):
            if isinstance(value, dict):
                given[name] = _build(hints[name], value, here, problems)
            else:
                problems.append(f"{dotted(here)} must be a table")
        else:
            rules = _schema_of(hints[name], known[name].metadata["rules"])
            try:
                given[name] = _value(rules, value)
            except ValueError:
                problems.append(f"{dotted(here)} = {toml(value)} is not allowed: it must be {allowed(rules)}")
    return kind(**given)


def _value(rules: Schema, value: Any) -> Any:
    """Return a value converted to its field's type.

    Raises:
        ValueError: the rules do not allow it.
    """
    match rules:
        case {"enum": choices} if value in choices:
            return value
        case {"type": "boolean"} if isinstance(value, bool):
            return value
        case {"type": "array", "items": items} if isinstance(value, list):
            return [_value(items, part) for part in value]
        case {"type": "object", "additionalProperties": items} if isinstance(value, dict):
            return {int(key): _value(items, part) for key, part in value.items()}
        case {"type": "integer"} if isinstance(value, int) and not isinstance(value, bool) and _within(rules, value):
            return value
        case {"type": "number"} if isinstance(value, int | float) and not isinstance(value, bool):
            if _within(rules, value):
                return float(value)
    if value is None and rules.get("nullable"):
        return None
    raise ValueError


def _within(rules: Schema, value: float) -> bool:
    return (
        math.isfinite(value)
        and rules.get("minimum", value) <= value <= rules.get("maximum", value)
        and not value <= rules.get("exclusiveMinimum", float("-inf"))
        and not value >= rules.get("exclusiveMaximum", float("inf"))
    )


def schema(kind: Any = Recipe) -> Schema:
    """Return the JSON Schema of a recipe, which `fer_stream.settings.schema` uses for its messages."""
    hints, properties = get_type_hints(kind), {}
    for item in dataclasses.fields(kind):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            properties[item.name] = schema(hint)
        else:
            properties[item.name] = _schema_of(hint, item.metadata["rules"])
            properties[item.name]["description"] = item.metadata["description"]
    return {"type": "object", "properties": properties}


def _schema_of(hint: Any, rules: Mapping[str, float]) -> Schema:
    if hint is bool:
        return {"type": "boolean"}
    if hint in (int, float):
        return {"type": "integer" if hint is int else "number", **rules}
    if get_origin(hint) is list:
        return {"type": "array", "items": _schema_of(get_args(hint)[0], rules)}
    if get_origin(hint) is dict:
        return {"type": "object", "additionalProperties": _schema_of(get_args(hint)[1], rules)}
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    return _schema_of(get_args(hint)[0], rules) | {"nullable": True}  # X | None


def main() -> None:
    """Print all settings of a recipe, including defaults."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m training.recipe FILE")
    try:
        how = load(Path(sys.argv[1]))
    except ConfigError as error:
        raise SystemExit(str(error)) from error
    for path, value in flatten(values_of(how)):
        if value is not None:
            print(f"{dotted(path)} = {toml(value)}")


if __name__ == "__main__":
    sys.exit(main_guard(main))  # handles a pipe that its reader closes, as `| head` does
