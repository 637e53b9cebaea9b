"""The results of a campaign: a few .npz files of limited size, each readable on its own.

A borrowed GPU machine may return only a few files of a few megabytes, so the results are packed into at most `FILES`
files of at most `LIMIT` bytes. An array larger than `PIECE` is split into pieces, which may be in several files. The
order is by importance: every net's log and accuracy, then soft targets, then weights, each in the campaign's order.
`write` leaves out arrays that do not fit, and returns their names.
"""

from __future__ import annotations

import json
import math
import uuid
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fer_stream.errors import ConfigError
from training import recipe
from training.bodies import build
from training.objective import Views

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from training.model import Net
    from training.recipe import Recipe

LIMIT = 15 * 2**20
"""Maximum bytes of a file."""

FILES = 8
"""Maximum number of files."""

PIECE = 2**20
"""Maximum bytes of a piece of an array."""

_ROOM = 2**16
"""Bytes reserved in each file for its directory."""


@dataclass(frozen=True, eq=False)
class NetResult:
    """The result of one net: steps done, steps in total, log, the model to publish it as, and how (`training.publish`).

    ``start`` has the SHA-256 digests of the published files that the net began with.

    ``weights`` are the averaged weights in the order of the net's state, flattened to ``[P]``, float16 (float32 if a
    value exceeds float16's range). ``soft`` are its probabilities for each view of each training face, float16
    ``[K, N, 7]`` and ``[K, N, 8]``. ``public`` are those for the unchanged faces of PublicTest, ``[M, 7]`` and
    ``[M, 8]``, for evaluation only. ``None``: there was no time or no room. A head that was not trained, because there
    are no votes or because of the recipe, has no columns.
    """

    name: str
    recipe: Recipe
    steps: int
    total: int
    log: list[dict[str, Any]]
    public: tuple[NDArray[np.float16], NDArray[np.float16]] | None = None
    soft: tuple[NDArray[np.float16], NDArray[np.float16]] | None = None
    weights: NDArray[np.float16 | np.float32] | None = None
    publish: str | None = None
    keep: float = 0.0
    rebalance: float = 0.0
    start: tuple[str, ...] = ()

    def learnt(self, head: str) -> bool:
        """Return whether a head, ``fer2013`` or ``ferplus``, was trained; without ``public``, the recipe decides."""
        number = ("fer2013", "ferplus").index(head)
        weight = (self.recipe.loss.labels, self.recipe.loss.votes)[number]
        return weight > 0 and (self.public is None or self.public[number].shape[-1] > 0)

    def net(self) -> Net:
        """Return the net with its averaged weights.

        Raises:
            ConfigError: the weights were left out.
        """
        if self.weights is None:
            raise ConfigError(f"the weights of {self.name} are not in the results: there was no room for them")
        net, at = build(self.recipe.net), 0
        state = net.state_dict()
        for name, part in state.items():
            if part.dtype.is_floating_point:
                values = self.weights[at : at + part.numel()].astype(np.float32)
                state[name] = torch.from_numpy(values).view(part.shape)
                at += part.numel()
        net.load_state_dict(state)
        return net.eval()


def weights_of(state: dict[str, Tensor]) -> NDArray[np.float16 | np.float32]:
    """Return the weights in a net's ``state_dict``, in the form of `NetResult`."""
    parts = [part.flatten().float().cpu() for part in state.values() if part.dtype.is_floating_point]
    weights = torch.cat(parts)
    halves = weights.half()
    return (weights if halves.isinf().any() else halves).numpy()  # a variance may exceed float16's range


@dataclass(frozen=True, eq=False)
class Results:
    """All results of a campaign: ``rows`` int64 ``[N]`` of the training faces, their ``views``, and ``nets``."""

    rows: NDArray[np.int64]
    views: Views
    nets: list[NetResult] = field(default_factory=list)


def write(folder: Path, found: Results) -> list[str]:
    """Write the results into a folder, replacing those there; return the names of arrays that did not fit."""
    bins: list[dict[str, NDArray[Any]]] = [{}]
    sizes, left_out = [0], []
    for name, array in _by_importance(found):
        pieces = _pieces(name, np.ascontiguousarray(array))
        if sum(part.nbytes for part in pieces.values()) > LIMIT * FILES - sum(sizes) - (FILES + 1) * (PIECE + _ROOM):
            left_out.append(name)
            continue
        for key, part in pieces.items():
            if sizes[-1] + part.nbytes + _ROOM + 256 * len(bins[-1]) > LIMIT:
                bins.append({})
                sizes.append(0)
            bins[-1][key] = part
            sizes[-1] += part.nbytes
    about = json.loads(bins[0]["about#0"].tobytes())
    for name in left_out:
        about["arrays"].pop(name, None)
    bins[0]["about#0"] = _text(about)
    written = _text({"call": uuid.uuid4().hex})
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(FILES):
        path = folder / f"results-{number + 1}.npz"
        if number >= len(bins):
            path.unlink(missing_ok=True)
            continue
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            np.savez(file, allow_pickle=False, **bins[number], **{"call#0": written})
        draft.replace(path)
    return left_out


def read(folder: Path) -> Results:
    """Return the results in a folder's files.

    Raises:
        ConfigError: there are no files, or a file is damaged, missing, or from another call of `write`.
    """
    parts: dict[str, NDArray[Any]] = {}
    paths = sorted(folder.glob("results-[1-8].npz"))
    if not paths:
        raise ConfigError(f"{folder} has no results of a campaign; python -m training.campaign writes them")
    for path in paths:
        try:
            with path.open("rb") as file, np.load(file) as stored:
                if stored["call#0"].tobytes() != parts.get("call#0", stored["call#0"]).tobytes():
                    raise ConfigError(f"{path} does not belong to the same results as the files before it; {_AGAIN}")
                parts |= {key: stored[key] for key in stored.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{path} is damaged, or not a campaign's result: {error}") from error
    try:
        about = json.loads(parts["about#0"].tobytes())
        views = Views.from_json(about["views"])
        rows = _whole(parts, "rows", about["arrays"]["rows"]).astype(np.int64)
        nets = [_net(parts, name, about["arrays"]) for name in about["nets"]]
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{folder} lacks a part of the results: {error}; are all its files there?") from error
    return Results(rows, views, nets)


def _net(parts: dict[str, NDArray[Any]], name: str, arrays: dict[str, Any]) -> NetResult:
    about = json.loads(parts[f"{name}/about#0"].tobytes())
    held = {
        kind: _whole(parts, f"{name}/{kind}", arrays[f"{name}/{kind}"])
        for kind in ("public emotion", "public plus", "soft emotion", "soft plus", "weights")
        if f"{name}/{kind}" in arrays
    }
    public, soft = (
        (held[f"{kind} emotion"], held[f"{kind} plus"])
        if f"{kind} emotion" in held and f"{kind} plus" in held
        else None
        for kind in ("public", "soft")
    )
    return NetResult(
        name,
        recipe.parse(about["recipe"], f"the recipe of {name}"),
        about["steps"],
        about["total"],
        about["log"],
        public,
        soft,
        held.get("weights"),
        about["publish"],
        about["keep"],
        about["rebalance"],
        tuple(about["start"]),
    )


def _by_importance(found: Results) -> Iterator[tuple[str, NDArray[Any]]]:
    large = dict(_large(found))
    yield (
        "about",
        _text(
            {
                "views": found.views.to_json(),
                "nets": [net.name for net in found.nets],
                "arrays": {name: list(array.shape) for name, array in large.items()},
            }
        ),
    )
    for net in found.nets:
        about = {"steps": net.steps, "total": net.total, "log": net.log}
        about |= {"publish": net.publish, "keep": net.keep, "rebalance": net.rebalance, "start": net.start}
        yield f"{net.name}/about", _text(about | {"recipe": recipe.values_of(net.recipe)})
    yield from large.items()


def _large(found: Results) -> Iterator[tuple[str, NDArray[Any]]]:
    yield "rows", found.rows.astype(np.int32)
    for kind in ("public", "soft"):
        for net in found.nets:
            if (heads := getattr(net, kind)) is not None:
                yield from ((f"{net.name}/{kind} {head}", part) for head, part in zip(_HEADS, heads, strict=True))
    for net in found.nets:
        if net.weights is not None:
            yield f"{net.name}/weights", net.weights


_HEADS = ("emotion", "plus")

_AGAIN = "run the campaign again, which writes all files again from its state folder"


def _text(values: dict[str, Any]) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


def _pieces(name: str, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    count = math.ceil(array.nbytes / PIECE) if name != "about" and not name.endswith("/about") else 1
    return {f"{name}#{i}": part for i, part in enumerate(np.array_split(array.reshape(-1), max(count, 1)))}


def _whole(parts: dict[str, NDArray[Any]], name: str, shape: Sequence[int]) -> NDArray[Any]:
    """Return an array, joined from its pieces.

    Raises:
        ValueError: a piece is missing.
    """
    found, number = [], 0
    while (key := f"{name}#{number}") in parts:
        found.append(parts[key])
        number += 1
    if not found or sum(part.size for part in found) != math.prod(shape):
        raise ValueError(f"{name} is not complete")
    return np.concatenate(found).reshape(shape)
