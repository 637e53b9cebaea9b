"""Prepares a training: the device, the faces for training, and the net's initial weights."""

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
"""Number of faces on which the normalisations of pretrained or published weights are set."""


def device_named(name: str) -> torch.device:
    """Return a device by its name.

    Raises:
        ConfigError: this machine has no such device, or this build of torch does not support it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("this machine has no GPU that torch can use, or torch is built for the CPU; use --device cpu")
    return torch.device(name)


def first_net(how: Recipe, faces: Tensor, start: Sequence[Path] = ()) -> Net | None:
    """Return the initial net of a training, on the CPU; ``None``: it begins with random weights.

    Args:
        how: the recipe.
        faces: training faces, uint8 ``[N, 1, 48, 48]``.
        start: the folder of a run, whose averaged weights are used; or published files (`training.published`). Without
            it, a pretrained body begins with its pretrained weights, and any other with random weights.

    Raises:
        ConfigError: the weights are missing or have another shape, or the package of a pretrained body is missing.
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
            raise ConfigError(f"{start[0]} is not a run's folder; this kind of body can only begin with one")
    return net


def prepare(faces: Faces, how: Recipe) -> tuple[Faces, Faces]:
    """Return the faces for training and those for validation: the faces that the recipe holds out, or else PublicTest.

    Near-copies of PublicTest and of the validation faces are removed from the training faces.

    Raises:
        ConfigError: the recipe's limit and holdout leave too few faces for training, or none for validation.
        SourceError: the data lacks a split.
    """
    learnt, public = faces.split(data.TRAINING)[: how.limit], faces[faces.usage == data.PUBLIC]
    learnt = learnt[~near_copies(learnt, public)]
    watched = public
    if how.holdout:
        learnt, watched = learnt.held_out(how.holdout, how.seed)
        learnt = learnt[~near_copies(learnt, watched)]
        if not len(watched):
            raise ConfigError(f"holdout = {how.holdout:g} holds out none of {len(learnt)} faces; choose a larger share")
    if len(learnt) < 2:
        raise ConfigError(f"limit and holdout leave {len(learnt)} faces for training; at least two are needed")
    return learnt, watched if how.holdout else faces.split(data.PUBLIC)
