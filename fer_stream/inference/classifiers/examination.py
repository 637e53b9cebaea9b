"""Compares a model with what its metadata and its sidecar say, and tries it on noise. Finds all breaches at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fer_stream.errors import ModelError
from fer_stream.inference.classifiers import contract
from fer_stream.inference.classifiers.contract import MAX_SIDE, Breach, Contract
from fer_stream.inference.classifiers.plan import FREE, TYPES, Column, Pixels, Plan, run_outputs
from fer_stream.types import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from fer_stream.inference.classifiers.contract import InputContract
    from fer_stream.inference.models import Model

TRIAL = 2
"""Number of faces with which a model is tried whose batch size is free."""

NUMBERS = {f"tensor({kind})" for kind in ("float", "float16", "double", "uint8", "int8", "int32", "int64")}
"""The types that an output may have, by onnxruntime's name."""

SAME: dict[type[np.generic], float] = {np.float16: 1e-2}
"""How far an output may differ between a face alone and the face in company, as a part of its largest value."""


def examine(model: Model) -> tuple[Plan | None, list[Breach]]:
    """Compare a model with what its metadata and its sidecar say, and try it on noise.

    Returns:
        How to run it, or ``None`` if it cannot be run; and all breaches of its contract.

    Raises:
        ModelError: the metadata is not UTF-8 text.
    """
    said, breaches, faulty = contract.read(model)
    for key, text in (("version", "mine 1"), ("license", "MIT"), ("trained_on", "AffectNet")):
        if getattr(said, key) is None and key not in faulty:
            breaches.append(Breach(f"neither its metadata nor a sidecar has `{key}`", f'write {key} = "{text}"'))
    if said.crop is None and "crop" not in faulty:
        breaches.append(
            Breach(
                "neither its metadata nor a sidecar has `crop`", "write [crop] with x, y and side, such as side = 1.1"
            )
        )
    pixels, output = _pixels(model, said.input), _output(model, said)
    if not faulty & {"input", "labels"}:  # a breach that follows from another one is of no help
        breaches += [each for each in (pixels, output) if isinstance(each, Breach)]
    if isinstance(pixels, Pixels) and isinstance(output, str):
        return _tried(model, said, pixels, output, breaches, invalid_names="labels" in faulty)
    if said.labels.names is None and "labels" not in faulty:
        breaches.append(_no_names(None))
    return None, breaches


def _no_names(columns: int | None) -> Breach:
    wanted = f", {columns} names" if columns else ""
    advice = f"write [labels] with names = [...]{wanted}; [] if it has only measures"
    return Breach("neither its metadata nor a sidecar has `labels`", advice)


_CHANNELS = {"grey": 1, "RGB": 3, "BGR": 3}


def layouts(shape: Sequence[Any]) -> list[str]:
    """Return the layouts that an input of this shape may have: the channels' axis has 1 or 3 values, or is free."""
    return [name for name in ("NCHW", "NHWC") if shape[name.index("C")] in (1, 3)] or [
        name for name in ("NCHW", "NHWC") if not isinstance(shape[name.index("C")], int)
    ]


def _pixels(model: Model, said: InputContract) -> Pixels | Breach:
    """Return the model's input, or why it is not known."""
    inputs = {value.name: value for value in model.session.get_inputs()}
    names = ", ".join(f"`{name}`" for name in inputs) or "none"
    if len(inputs) != 1:
        return Breach(f"it has {len(inputs)} inputs ({names})", "export it with one input, the faces")
    ((name, value),) = inputs.items()
    if value.type not in TYPES:
        return Breach(f"its input `{name}` is {value.type}", "export it with an input of float32, float16 or uint8")
    shape = value.shape
    if len(shape) != 4:
        return Breach(
            f"its input `{name}` has {len(shape)} axes ({_shape(shape)})",
            "export it with four: faces, channels, height and width",
        )
    possible = layouts(shape)
    if not possible:
        return Breach(
            f"its input `{name}` is {_shape(shape)}", "export it with 1 or 3 channels, as [N, C, H, W] or [N, H, W, C]"
        )
    if said.layout is None and len(possible) > 1:
        return Breach(
            f"the layout of its input `{name}`, {_shape(shape)}, is not clear", 'write [input] layout = "NCHW"'
        )
    layout = said.layout or possible[0]
    if layout not in possible:
        return Breach(
            f"its input `{name}` is {_shape(shape)}, which is not {layout}", f'write layout = "{possible[0]}"'
        )
    channels = shape[layout.index("C")]
    colour = said.channels or ("grey" if channels == 1 else None)
    if colour is None:
        return Breach(
            f"the order of the channels of its input `{name}`, {_shape(shape)}, is not said",
            'write [input] channels = "RGB" or "BGR"',
        )
    if isinstance(channels, int) and _CHANNELS[colour] != channels:
        right = '"grey"' if channels == 1 else '"RGB" or "BGR"'
        return Breach(f"its input `{name}` has {channels} channels, which is not {colour}", f"write channels = {right}")
    return _sized(name, value, layout, colour, said)


def _sized(name: str, value: Any, layout: str, colour: str, said: InputContract) -> Pixels | Breach:
    """Return the input whose layout and channels are known, or why its size, its batch or its scale is not known."""
    shape = value.shape
    sides, faults = [], []
    for axis, at in (("H", 0), ("W", 1)):
        side, wanted = shape[layout.index(axis)], said.size[at] if said.size else None
        found = side if isinstance(side, int) else wanted
        if found is None or wanted not in (None, found) or not 1 <= found <= MAX_SIDE:
            faults.append(axis)
        sides.append(found or 0)
    if faults and said.size is None:
        return Breach(
            f"the size of its input `{name}`, {_shape(shape)}, is not fixed", "write [input] size = [224, 224]"
        )
    if faults:
        return Breach(f"its input `{name}` is {_shape(shape)}, not of size {list(said.size or ())}", "leave size out")
    batch = shape[0] if isinstance(shape[0], int) else said.batch or FREE
    if said.batch not in (None, batch) or batch > 1024:
        return Breach(f"its input `{name}` takes {batch} faces at once, not {said.batch}", "leave batch out")
    if lengths := {np.size(said.mean), np.size(said.std)} - {1, _CHANNELS[colour]}:
        return Breach(
            f"mean or std has {min(lengths)} numbers for {_CHANNELS[colour]} channels",
            "write one number for all channels, or one for each",
        )
    mean, std = np.atleast_1d(said.mean), np.atleast_1d(said.std)
    factor, offset = (each.astype(np.float32) for each in np.broadcast_arrays(said.scale / std, -mean / std))
    return Pixels(name, TYPES[value.type], layout, colour, sides[0], sides[1], batch, factor, offset)


def _output(model: Model, said: Contract) -> str | Breach:
    """Return the output of the labels, or of measures where there are no labels; or why it is not known."""
    names = [value.name for value in model.session.get_outputs()]
    if not names:
        return Breach("it has no outputs", "export it with one output, the labels' probabilities or logits")
    listed = ", ".join(f"`{name}`" for name in names)
    wanted = said.labels.output or ("probabilities" if "probabilities" in names else None)
    if said.labels.names == []:
        named = [each.output for each in said.measures.values()]
        if not named:
            return Breach("it has neither labels nor measures", "write [labels] names = [...], or [measures.NAME]")
        if None in named and wanted is None and len(names) > 1:
            return Breach(f"which of its outputs ({listed}) have the measures is not said", "write each one's output")
        return wanted if wanted is not None and wanted in names else names[0]
    if wanted is None:
        return Breach(
            f"which of its outputs ({listed}) has the labels is not said",
            f'write [labels] output = "{names[0]}", and values = "probabilities" or "logits"',
        )
    return (
        wanted if wanted in names else Breach(f"it has no output `{wanted}`", f"write [labels] output, one of {listed}")
    )


def _tried(
    model: Model, said: Contract, pixels: Pixels, output: str, breaches: list[Breach], *, invalid_names: bool
) -> tuple[Plan | None, list[Breach]]:
    """Run a model on noise, and compare its outputs with what is said about them.

    ``invalid_names``: the labels' names were given, but are invalid.
    """
    outputs = [value.name for value in model.session.get_outputs()]
    names = list(said.labels.names or ())
    measures = {
        Measure(name, *each.range): Column(each.output or output, each.column) for name, each in said.measures.items()
    }
    for measure, place in measures.items():
        if place.output not in outputs:
            what = f"the measure {measure.name} is in the output `{place.output}`, which does not exist"
            breaches.append(Breach(what, f"name one of {outputs}"))
    wanted = sorted({output, *(place.output for place in measures.values())} & set(outputs))
    found = _no_numbers(model, wanted) or _trial(model, pixels, wanted)
    if isinstance(found, Breach):
        return None, [*breaches, found, *([] if said.labels.names is not None or invalid_names else [_no_names(None)])]
    width = found[output].shape[1]
    first, after = (0, 0) if said.labels.names == [] else said.labels.columns or (0, width)
    if after > width:
        breaches.append(Breach(f"its output `{output}` has {width} columns, not {after}", "correct [labels] columns"))
        return None, breaches
    if said.labels.names is None and not invalid_names:
        breaches.append(_no_names(after - first))
    elif names and len(names) != after - first:
        advice = "give as many names as columns, or say with [labels] columns = [FIRST, AFTER] which columns they are"
        breaches.append(Breach(f"there are {len(names)} labels for {after - first} columns of `{output}`", advice))
    if after:
        breaches += _rows(found[output][:, first:after], output, said.labels.values)
    if mixed := mixing(model, pixels, wanted):
        breaches.append(mixed)
    for measure, place in measures.items():
        if place.output in found:
            breaches += _measured(measure.name, place, found[place.output], (output, first, after))
    if breaches or said.crop is None:
        return None, breaches
    plan = Plan(
        model=model,
        pixels=pixels,
        labels=tuple(names),
        output=output,
        columns=(first, after),
        logits=bool(names) and said.labels.values == "logits",
        measures=measures,
        crop=said.crop,
        smoother=said.smoother.own(),
        version=said.version or "",
    )
    return plan, []


def _no_numbers(model: Model, outputs: Sequence[str]) -> Breach | None:
    """Return the first of these outputs that has no numbers, such as texts or a sequence."""
    for value in model.session.get_outputs():
        if value.name in outputs and value.type not in NUMBERS:
            return Breach(f"its output `{value.name}` is {value.type}", "export it with outputs of float32")
    return None


def noise(pixels: Pixels, faces: int) -> NDArray[np.float32]:
    """Return a number of faces of random pixels, as `Plan.run` takes them."""
    shape = (faces, pixels.height, pixels.width) + ((3,) if pixels.colour != "grey" else ())
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


def trial(model: Model, said: Contract) -> dict[str, NDArray[np.float32]]:
    """Return the outputs of numbers for noise, ``[N, columns]``; none if the input is unknown, or the model fails.

    The order of the channels need not be known.
    """
    pixels = _presumed(model, said)
    outputs = [value.name for value in model.session.get_outputs() if value.type in NUMBERS]
    results = _trial(model, pixels, outputs) if pixels and outputs else {}
    return {} if isinstance(results, Breach) else results


def mixes(model: Model, said: Contract, outputs: Sequence[str]) -> bool:
    """Return whether a model of a free batch answers for a face otherwise in company than alone."""
    pixels = _presumed(model, said)
    return pixels is not None and pixels.batch == FREE and mixing(model, pixels, outputs) is not None


def _presumed(model: Model, said: Contract) -> Pixels | None:
    """Return a model's input, for which the order of the channels need not be known."""
    orders = (said.input, said.input.model_copy(update={"channels": "BGR"}))
    found = (_pixels(model, order) for order in orders)
    return next((each for each in found if isinstance(each, Pixels)), None)


def _trial(model: Model, pixels: Pixels, outputs: Sequence[str]) -> dict[str, NDArray[np.float32]] | Breach:
    """Return a model's outputs for noise, or why it gives none."""

    def attempt(faces: int) -> dict[str, NDArray[np.float32]]:
        return run_outputs(model, pixels, outputs, noise(pixels, faces))

    try:
        return attempt(pixels.batch or TRIAL)
    except ModelError as error:
        reason = str(error)
    try:
        attempt(1)
    except ModelError:
        return Breach("it fails on a picture of noise", f"correct the model, or [input] ({reason})")
    if pixels.batch:
        return Breach(f"it takes only one face at once, not {pixels.batch}", "write [input] batch = 1")
    return Breach("it takes only one face at once, though its first axis is free", "write [input] batch = 1")


def mixing(model: Model, pixels: Pixels, outputs: Sequence[str]) -> Breach | None:
    """Return a breach if a face's answer depends on the other faces of its run.

    A dynamically quantized model is such a one. Its answers would depend on other frames, too, where a worker takes
    several at a time.
    """
    if pixels.batch == 1:
        return None
    faces = noise(pixels, 2)
    faces[1] /= 8  # quantized together, the dark face has coarser steps than alone
    advice = "export it with one face in each run" if pixels.batch else "write [input] batch = 1"
    try:
        company = run_outputs(model, pixels, outputs, faces)
        alone = [run_outputs(model, pixels, outputs, faces[at : at + 1]) for at in (0, 1)]
    except ModelError as error:
        return Breach("it takes two faces at once, but fails on one", f"correct the model ({error})")
    for name in outputs:
        single = np.concatenate([each[name] for each in alone])
        allowed = SAME.get(pixels.dtype, 1e-4) * float(np.abs(single[np.isfinite(single)]).max(initial=0))
        if not np.allclose(company[name], single, rtol=0, atol=allowed, equal_nan=True):
            what = f"its output `{name}` for a face depends on the other faces of the same run"
            return Breach(what, advice)
    return None


def _rows(rows: NDArray[np.float32], output: str, values: str) -> Iterator[Breach]:
    """Yield what is wrong with the labels' columns."""
    if not np.isfinite(rows).all():
        yield Breach(f"its output `{output}` has values that are not finite", "correct the model, or [input]")
    elif values == "probabilities" and not sums_to_one(rows):
        yield Breach(
            f"the rows of its output `{output}` must be probabilities that sum to 1, and are not",
            'write [labels] values = "logits" if softmax makes probabilities of them',
        )


def sums_to_one(rows: NDArray[np.float32]) -> bool:
    """Return whether each row consists of probabilities."""
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-3))


def _measured(name: str, place: Column, rows: NDArray[np.float32], labels: tuple[str, int, int]) -> Iterator[Breach]:
    """Yield what is wrong with a measure's column; ``labels`` are the output and the columns of the labels."""
    output, first, after = labels
    if place.number >= rows.shape[1]:
        yield Breach(
            f"the measure {name} is column {place.number} of `{place.output}`, which has {rows.shape[1]}",
            "correct its column; the first one is 0",
        )
    elif place.output == output and first <= place.number < after:
        yield Breach(
            f"the measure {name} is column {place.number} of `{output}`, which is a label's",
            f"say which columns are labels: [labels] columns = [{first}, {place.number}]",
        )
    elif not np.isfinite(rows[:, place.number]).all():
        yield Breach(f"the measure {name} is not finite", "correct the model, or [input]")


def _shape(shape: Sequence[Any]) -> str:
    return "[" + ", ".join(str(axis if axis is not None else "?") for axis in shape) + "]"
