"""Every number of a training run, in one TOML file.

python -m training.recipe training/recipes/emotion.toml       # check a recipe and show it whole
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from fer_stream import settings_text
from fer_stream.config import Fraction, Section
from fer_stream.errors import ConfigError
from fer_stream.process import main_guard

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


def _ordered(sizes: dict[int, float]) -> dict[int, float]:
    if not sizes or min(sizes.values()) != 0:
        raise ValueError("one size must begin at 0, the start of the training")
    return sizes


class Architecture(Section):
    """The net's shape."""

    body: Literal["residual", "pretrained"] = Field(
        "residual", description="which body: from nothing, or dlib's (training.pretrained), for a teacher"
    )
    widths: Annotated[list[Annotated[int, Field(ge=8)]], Field(min_length=2, max_length=5)] = Field(
        [32, 48, 96, 160, 256], description="channels of the residual body's stem and of each of its stages"
    )
    dropout: Fraction = Field(0.3, description="before the heads")


class Augmentation(Section):
    """How far a face is changed; each number is the most, or as it says."""

    rotation: NotNegative = Field(15.0, description="degrees")
    scale: NotNegative = Field(0.15, description="logarithm of the size")
    stretch: NotNegative = Field(0.06, description="logarithm of width over height, halved")
    shift: Fraction = Field(0.08, description="of the frame's side")
    contrast: NotNegative = Field(0.3, description="logarithm of the contrast")
    brightness: NotNegative = Field(25.0, description="grey levels")
    coarse: Fraction = Field(0.2, description="share of the faces that are shrunk and enlarged again")
    noise: NotNegative = Field(15.0, description="grey levels, standard deviation; most faces get less")
    erase: Fraction = Field(0.4, description="share of the faces with a rectangle blotted out")
    mixup: Fraction = Field(0.1, description="share of the batches in which faces are blended in pairs")
    mixup_alpha: Annotated[float, Field(gt=0, le=2)] = Field(
        0.3, description="Beta distribution's parameter: how evenly they are blended"
    )
    mixup_until: Fraction = Field(0.85, description="share of the training after which nothing is blended")


class Loss(Section):
    """What is minimised, and what keeps rare classes and wrong labels from spoiling it."""

    smoothing: Fraction = Field(0.08, description="share of a label that is spread over all classes")
    soft: Fraction = Field(0.5, description="share of each target that is the teachers', where --soft gives any")
    prior: Fraction = Field(0.25, description="how much of the class imbalance is taken out of the logits (1: all)")
    votes: NotNegative = Field(0.8, description="weight of the FER+ head, where there are votes")


class Optimizer(Section):
    """Stochastic gradient descent with Nesterov momentum, a warm-up and a cosine."""

    learning_rate: Positive = 0.1
    momentum: Fraction = 0.9
    weight_decay: NotNegative = Field(5e-4, description="of weights, not of biases and normalisation")
    warmup: Annotated[int, Field(ge=0)] = Field(600, description="steps")
    clip: Positive = Field(5.0, description="largest norm of a gradient")
    average: Fraction = Field(0.998, description="decay of the moving average of the weights, which is what is kept")


class Recipe(Section):
    """A whole training run."""

    epochs: Annotated[int, Field(ge=1)] = 60
    batch: Annotated[int, Field(ge=2)] = 128
    seed: int = 0
    holdout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the training faces kept out to tune on; 0 for the model that is shipped"
    )
    limit: Annotated[int, Field(ge=1)] | None = Field(None, description="train on the first so many faces only")
    bfloat16: bool = Field(
        False, description="twice as fast on a CPU that has it (AMX, AVX512-BF16); others train in float32"
    )
    sizes: Annotated[dict[int, Fraction], AfterValidator(_ordered)] = Field(
        default_factory=lambda: {32: 0.0, 40: 0.5, 48: 0.75},
        description="side in pixels by the share of the training from which faces are shown at it",
    )
    net: Architecture = Architecture()
    augmentation: Augmentation = Augmentation()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()

    def size(self, progress: float) -> int:
        """Return the side in pixels at which faces are shown, ``progress`` being the share of the training done."""
        return max((start, side) for side, start in self.sizes.items() if start <= progress)[1]


def load(path: Path) -> Recipe:
    """Return the recipe in a TOML file; what it leaves out is as in `Recipe`.

    Raises:
        ConfigError: there is no such file, it is not TOML, or it sets something wrong; one sentence a problem.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the recipe {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"the recipe {path} is not TOML: {error}") from error
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        schema = Recipe.model_json_schema()
        details = error.errors(include_url=False)
        sentences = (settings_text.sentence(schema, values, detail)[1] for detail in details)
        raise ConfigError("\n".join(f"the recipe {path}: {text}" for text in dict.fromkeys(sentences))) from error


def main() -> None:
    """Print a recipe with its defaults filled in."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m training.recipe FILE")
    try:
        how = load(Path(sys.argv[1]))
    except ConfigError as error:
        raise SystemExit(str(error)) from error
    for path, value in settings_text.flatten(how.model_dump(mode="json")):
        print(f"{settings_text.dotted(path)} = {settings_text.toml(value)}")


if __name__ == "__main__":
    sys.exit(main_guard(main))  # its reader may leave, as `| head` does
