"""What a training begins with: a device, the faces it may learn from, and the weights of its net."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fer_stream.errors import ConfigError
from training import data
from training.bodies import build
from training.duplicates import near_copies
from training.loop import load_checkpoint
from training.model import Residual
from training.pretrained import Pretrained, weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from training.data import Faces
    from training.model import Net
    from training.recipe import Recipe

SHOWN = 512
"""Faces on which the normalisations of weights from elsewhere are set."""


def device_named(name: str) -> torch.device:
    """Return a device by its name.

    Raises:
        ConfigError: this machine, or this build of torch, has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("this machine has no GPU that torch can use, or torch is built for the CPU; use --device cpu")
    return torch.device(name)


def first_net(how: Recipe, faces: Tensor, start: Sequence[Path] = ()) -> Net | None:
    """Return the net that a training begins as, on the CPU; ``None`` where it begins with random weights.

    Args:
        how: the recipe.
        faces: training faces, uint8 ``[N, 1, 48, 48]``.
        start: the folder of a run, whose averaged weights are taken; or published files (`training.published`). Without
            it, a pretrained body begins as what it was, and any other with random weights.

    Raises:
        ConfigError: there are no weights, or they are of another shape; or the body's are not there.
    """
    drawn = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))[:SHOWN]
    torch.manual_seed(how.seed)
    net, seen = build(how.net), faces[drawn]
    match start:
        case []:
            if not isinstance(net, Pretrained):
                return None
            net.adopt(weights(), seen)
        case [run] if run.is_dir():
            try:
                net.load_state_dict(load_checkpoint(run / "checkpoint.pt")["average"])
            except RuntimeError as error:
                raise ConfigError(f"the net of {run} has another shape than the recipe's") from error
        case files if isinstance(net, Residual):
            from training import published  # noqa: PLC0415 - it needs onnx

            published.adopt(net, files, seen)
        case _:
            raise ConfigError(f"{start[0]} is not a run's folder, with which alone such a body can begin")
    return net


def prepare(faces: Faces, how: Recipe) -> tuple[Faces, Faces]:
    """Return the faces to learn from and those to watch: what the recipe holds out, else PublicTest.

    What is watched or reported on has no near-copy among what is learnt from.

    Raises:
        ConfigError: the recipe's limit and holdout leave too few faces to learn from, or none to watch.
        SourceError: the data lacks a split.
    """
    learnt, public = faces.split(data.TRAINING)[: how.limit], faces[faces.usage == data.PUBLIC]
    learnt = learnt[~near_copies(learnt, public)]
    watched = public
    if how.holdout:
        learnt, watched = learnt.held_out(how.holdout, how.seed)
        learnt = learnt[~near_copies(learnt, watched)]
        if not len(watched):
            raise ConfigError(f"holdout = {how.holdout:g} keeps no face of {len(learnt)} out; choose more")
    if len(learnt) < 2:
        raise ConfigError(f"limit and holdout leave {len(learnt)} faces to learn from; two are the least")
    return learnt, watched if how.holdout else faces.split(data.PUBLIC)
