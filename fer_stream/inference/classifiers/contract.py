"""What a model's author has to say about it: in the ONNX file's metadata, or in a TOML file beside it, the sidecar.

The sidecar of ``NAME.onnx`` is ``NAME.toml``. It takes precedence over the metadata, which can only say labels, crop,
version, license and trained_on. `Contract` describes both; ``docs/how-to/own-model.md`` shows them.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, ValidationError, model_validator

from fer_stream.errors import ConfigError
from fer_stream.inference.models import sidecar_of
from fer_stream.settings.schema import dotted, flatten, sentence, toml
from fer_stream.settings.sections import Section, SmootherSettings

if TYPE_CHECKING:
    from fer_stream.inference.models import Model

MAX_LABELS = 64
"""Maximum number of labels of a model, and of measures; a worker's message has no room for more."""

MAX_SIDE = 4096
"""Maximum height and width of a model's input, in pixels."""


class Breach(NamedTuple):
    """Something that is missing or wrong in a model, its metadata or its sidecar."""

    what: str
    write: str
    """What to do about it: mostly a line for the sidecar."""

    def __str__(self) -> str:
        return f"{self.what}: {self.write}"


def _different(names: list[str]) -> list[str]:
    if any(not name.strip() for name in names):
        raise ValueError("has an empty name")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"names {twice[0]!r} twice")
    return names


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] >= pair[1]:
        raise ValueError("its first number must be below its second")
    return pair


def _named(measures: dict[str, MeasureContract]) -> dict[str, MeasureContract]:
    if len(measures) > MAX_LABELS:
        raise ValueError(f"there are {len(measures)}, and at most {MAX_LABELS} are possible")
    for name in measures:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,31}", name):
            raise ValueError(f"{name!r} is no valid name: use 1 to 32 letters, digits and _, and begin with a letter")
    return measures


def _spread(points: tuple[Point, ...]) -> tuple[Point, ...]:
    if len(set(points)) < 2:
        raise ValueError("must not all be the same point")
    return points


def _positive(values: float | list[float]) -> float | list[float]:
    if any(value <= 0 for value in (values if isinstance(values, list) else [values])):
        raise ValueError("must be above 0")
    return values


Number = Annotated[float, Field(strict=True)]
"""A text such as "0.5" is refused."""
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Text = Annotated[str, Field(pattern=r"\S")]
Names = Annotated[list[str], Field(max_length=MAX_LABELS), AfterValidator(_different)]
Columns = Annotated[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]], AfterValidator(_ascending)]
Range = Annotated[tuple[Number, Number], AfterValidator(_ascending)]
Share = Annotated[Number, Field(ge=0, le=1)]
Wait = Annotated[Number, Field(ge=0)]
Point = tuple[Number, Number]
Channelwise = Number | Annotated[list[Number], Field(min_length=1, max_length=3)]
"""One number for all channels, or one for each, in the order of the model's channels."""


class InputContract(Section):
    """The pixels that the model takes: ``(value * scale - mean) / std``, where a value is from 0 to 255."""

    layout: Literal["NCHW", "NHWC"] | None = Field(
        None, description="the order of the axes; by default read from the input's shape"
    )
    channels: Literal["grey", "RGB", "BGR"] | None = Field(
        None, description="the order of the channels; by default grey if there is one channel"
    )
    size: tuple[Side, Side] | None = Field(
        None, description="height and width in pixels; by default read from the shape"
    )
    batch: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="the number of faces in each run; by default read from the shape; if it is free there, any number",
    )
    scale: Annotated[Number, Field(gt=0)] = Field(1.0, description="factor by which pixels are multiplied first")
    mean: Channelwise = Field(0.0, description="what is subtracted then; or a list, one number for each channel")
    std: Annotated[Channelwise, AfterValidator(_positive)] = Field(
        1.0, description="what it is divided by last; or a list, one number for each channel"
    )


class LabelsContract(Section):
    """The columns of an output that are labels' probabilities, or the logits of which softmax makes them."""

    output: str | None = Field(None, description="the name of the output; by default probabilities")
    columns: Columns | None = Field(
        None, description="the first column, from 0, and the one after the last; by default all"
    )
    values: Literal["probabilities", "logits"] = Field("probabilities", description="what the columns are")
    names: Names | None = Field(
        None, description="the labels, in the order of the columns; an empty list for a model that has only measures"
    )


class CropContract(Section):
    """The square that the model sees: placed by a face's five landmarks (``points``), or relative to the box.

    Offset and side are in units of the box's size. With ``points``, they are used for faces without landmarks.
    """

    points: Annotated[tuple[Point, Point, Point, Point, Point], AfterValidator(_spread)] | None = Field(
        None,
        description="where the left eye, right eye, nose, left and right mouth corner are in the square (left as "
        "seen in the picture), each as x and y, in fractions of the side",
    )
    x: Number = Field(0.0, description="offset from the box's centre to the square's, to the right")
    y: Number = Field(0.0, description="the same, downwards")
    side: Annotated[Number, Field(gt=0)] = Field(1.0, description="the square's side")


class MeasureContract(Section):
    """A number on a scale, such as valence: one column of an output."""

    output: str | None = Field(None, description="the output's name; by default that of the labels, or the only one")
    column: Annotated[int, Field(ge=0, strict=True)] = Field(0, description="the column, from 0")
    range: Range = Field((-1.0, 1.0), description="its least and its greatest value; values outside are clipped")


class SmootherContract(Section):
    """The smoother settings that fit the model; ``python -m training.smoothing --write`` fits them."""

    tau: Annotated[Number, Field(gt=0)] | None = Field(None, description="time constant of the average, in seconds")
    enter: Share | None = Field(None, description="average probability from which on a label may start")
    leave: Share | None = Field(None, description="average probability below which it may end")
    min_dwell: Wait | None = Field(None, description="seconds at or above enter before it starts")
    patience: Wait | None = Field(None, description="seconds below leave before it ends")

    @model_validator(mode="after")
    def _valid(self) -> SmootherContract:
        SmootherSettings(**self.own())
        return self

    def own(self) -> dict[str, float]:
        """Return the values that the model has."""
        return self.model_dump(exclude_none=True)


class Contract(Section):
    """All that is said about a model."""

    version: Text | None = Field(None, description="name and version, for display")
    license: Text | None = Field(None, description="the licence of the weights")
    trained_on: Text | None = Field(None, description="the faces on which it was trained")
    input: InputContract = InputContract()
    labels: LabelsContract = LabelsContract()
    crop: CropContract | None = None
    smoother: SmootherContract = SmootherContract()
    measures: Annotated[dict[str, MeasureContract], AfterValidator(_named)] = Field(default_factory=dict)


def read(model: Model) -> tuple[Contract, list[Breach], set[str]]:
    """Return what a model's metadata and its sidecar say.

    Returns:
        What is valid; the rest, which is left out; and the names of the entries that are incomplete because of it.

    Raises:
        ModelError: the metadata is not UTF-8 text.
    """
    said, faults = _metadata(model)
    breaches = [Breach(f"its metadata `{entry}` cannot be used", f"correct it: {fault}") for entry, fault in faults]
    if model.sidecar is not None:
        name = sidecar_of(model.path).name
        try:
            beside, found = valid(tomllib.loads(model.sidecar))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            breaches.append(Breach(f"its sidecar {name} is not valid TOML", f"correct it: {error}"))
            return Contract.model_validate(said), breaches, set(Contract.model_fields)
        breaches += [Breach(f"its sidecar {name} has an error", fault) for _, fault in found]
        if "labels" in said and "labels" in beside:
            beside["labels"] = said["labels"] | beside["labels"]
        said, faults = said | beside, faults + found
    return Contract.model_validate(said), breaches, {entry for entry, _ in faults}


def _metadata(model: Model) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return what the metadata say, as a tree of a `Contract`, and its faults, as of `valid`."""
    metadata, said = model.metadata, {}
    for key in ("version", "license", "trained_on"):
        if metadata.get(key, "").strip():
            said[key] = metadata[key]
    faults = []
    for key, kind, what in (("labels", list, "a JSON array of names"), ("crop", dict, "an object of x, y and side")):
        text = metadata.get(key, "")
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, kind):
            faults.append((key, f"it must be {what}"))
            continue
        found, wrong = valid({key: {"names": value} if key == "labels" else value})
        faults += wrong
        said |= {} if wrong else found
    return said, faults


def valid(tree: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the valid parts of a sidecar, and its faults: the entry of the outermost table, and a sentence.

    What is at fault is left out, and the rest is validated again, until there is no fault.
    """
    schema, faults = Contract.model_json_schema(), []
    while True:
        try:
            Contract.model_validate(tree)
        except ValidationError as error:
            rest = tree
            for found in error.errors():
                path = _known(tree, tuple(map(str, found["loc"])))
                found["loc"] = path
                faults.append((path[0] if path else "", sentence(schema, tree, found)[1]))
                rest = _without(rest, path)
            tree = rest
        else:
            return tree, list(dict.fromkeys(faults))


def _known(tree: Any, path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the part of a path that the tree has: pydantic appends the name of the alternative type that it tried."""
    known: tuple[str, ...] = ()
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            break
        known, tree = (*known, key), tree[key]
    return known


def _without(tree: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return a tree without the value at a path; the empty path is the whole tree."""
    if not path:
        return {}
    rest = {key: value for key, value in tree.items() if key != path[0]}
    return rest | {path[0]: _without(tree[path[0]], path[1:])} if path[1:] and path[0] in tree else rest


_HEAD = "# What fer-stream has to know about {name}. The digest of the model covers this file, too.\n"


def write(contract: Contract, name: str) -> str:
    """Return the text of a sidecar for the model with this file name; defaults are left out."""
    tree = contract.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    full = contract.model_dump(mode="json", exclude_none=True)
    tree |= {key: full[key] for key in ("crop", "measures") if full.get(key)}  # short, and better to read in full
    plain = {key: value for key, value in tree.items() if not isinstance(value, dict)}
    lines = [_HEAD.format(name=name)]
    table: tuple[str, ...] = ()
    for path, value in flatten(plain | tree):
        if path[:-1] != table:
            table = path[:-1]
            lines.append(f"\n[{dotted(table)}]")
        lines.append(f"{dotted(path[-1:])} = {toml(value)}")
    return "\n".join(lines) + "\n"


_SMOOTHER = re.compile(r"^\[smoother\].*\n(?:[ \t]*(?:\w+[ \t]*=.*)?\n)*", re.MULTILINE)


def with_smoother(text: str, own: SmootherContract) -> str:
    """Return a sidecar's text with other smoother settings; all else stays, also the comments.

    Raises:
        ConfigError: the sidecar's own settings are not in a section ``[smoother]``, so they cannot be replaced.
    """
    section = "".join(f"{name} = {toml(value)}\n" for name, value in own.own().items())
    changed = f"{_SMOOTHER.sub('', text + chr(10)).rstrip()}\n\n[smoother]\n{section}".lstrip()
    try:
        tomllib.loads(changed)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the sidecar cannot be changed ({error}): write [smoother] into it by hand") from error
    return changed
