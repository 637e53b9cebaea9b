r"""Soft targets: what teachers say of each training face, and what its voters say, in place of its label alone.

    python -m training.distill data/fer2013.csv --plus data/fer2013new.csv --teacher runs/emotion --output runs/soft.npz
    python -m training.train training/recipes/student.toml data/fer2013.csv --plus data/fer2013new.csv \
        --soft runs/soft.npz --run runs/student

A label is one person's opinion; the probability of each label, given all else that is known of the picture, teaches
more (Hinton et al. 2015, arXiv:1503.02531). Teachers are runs of `training.train`, of any shape; each looks at every
face and at its mirror image once, and what they say is averaged and kept, so that a student costs nothing more to
train than any net. For FER2013's labels, teachers and votes are joined by multinomial logistic regression on the
training labels. For FER+'s, teachers count as some more voters.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from tqdm import tqdm

from fer_stream.errors import FerStreamError
from training import data
from training.objective import Soft
from training.train import load_net

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from training.data import Faces
    from training.model import Net

VOTERS = 3
"""How many of FER+'s voters the teachers together are worth."""

LEAST = 1e-4
"""A probability below this counts as this much, or its logarithm would outweigh all."""

DECAY = 1e-4
"""Weight of the squared norm in the regression."""


@torch.no_grad()
def opinions(net: Net, images: NDArray[np.uint8], batch: int = 256) -> tuple[Tensor, Tensor]:
    """Return a net's probabilities ``[N, 7]`` and ``[N, 8]`` of faces ``[N, 48, 48]``, averaged with their mirrors'."""
    net.eval()
    faces = torch.from_numpy(images)[:, None]
    found: list[tuple[Tensor, ...]] = []
    for part in tqdm(torch.split(faces, batch), unit="batch", disable=None, leave=False):
        looks = [net(look.float()) for look in (part, part.flip(3))]
        found.append(tuple(torch.stack(heads).softmax(dim=2).mean(dim=0) for heads in zip(*looks, strict=True)))
    emotion, plus = (torch.cat(parts) for parts in zip(*found, strict=True))
    return emotion, plus


def regression(evidence: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights ``[F, 7]`` and offsets ``[7]`` of the multinomial logistic regression of labels on evidence."""
    weights = torch.zeros(evidence.shape[1], len(data.LABELS), requires_grad=True)
    offsets = torch.zeros(len(data.LABELS), requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, offsets], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(evidence @ weights + offsets, labels) + DECAY * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach(), offsets.detach()


def join(emotion: Tensor, plus: Tensor, votes: NDArray[np.uint8] | None) -> Tensor:
    """Return what speaks for a label, ``[N, F]``: the teachers' log-probabilities, and the shares of the votes."""
    parts = [emotion.clamp(min=LEAST).log(), plus.clamp(min=LEAST).log()]
    if votes is not None:
        share = torch.from_numpy(votes).float()
        share = share / share.sum(dim=1, keepdim=True).clamp(min=1)
        parts += [share, share.sqrt()]
    return torch.cat(parts, dim=1)


def soften(nets: Sequence[Net], faces: Faces) -> Soft:
    """Return the soft targets of faces, the regression being fitted on their labels.

    Args:
        nets: one or more teachers.
        faces: what is learnt from.
    """
    told = [opinions(net, faces.images) for net in nets]
    emotion, plus = (torch.stack(heads).mean(dim=0) for heads in zip(*told, strict=True))
    evidence = join(emotion, plus, faces.votes)
    weights, offsets = regression(evidence, torch.from_numpy(faces.labels))
    if faces.votes is not None:
        votes = torch.from_numpy(faces.votes[:, : len(data.PLUS_LABELS)]).float()
        plus = (votes + VOTERS * plus) / (votes.sum(dim=1, keepdim=True) + VOTERS)
    return Soft(faces.rows, (evidence @ weights + offsets).softmax(dim=1).numpy(), plus.numpy())


def main() -> None:
    """Ask the teachers, and keep what they say."""
    parser = argparse.ArgumentParser(description="Make soft targets of what teachers and voters say.")
    data.add_arguments(parser)
    parser.add_argument("--teacher", type=Path, nargs="+", required=True, help="folders of runs")
    parser.add_argument("--output", type=Path, default=Path("runs/soft.npz"), help="file to write")
    arguments = parser.parse_args()
    try:
        faces = data.load(arguments.data, arguments.plus)
        nets = [load_net(run) for run in arguments.teacher]
        learnt = faces.split(data.TRAINING)
        soft = soften(nets, learnt)
        public = faces.split(data.PUBLIC)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error
    soft.save(arguments.output)
    for split, right in (("training", soft.emotion.argmax(axis=1) == learnt.labels),
                         (f"{data.PUBLIC}, teachers alone", _ensemble(nets, public) == public.labels)):  # fmt: skip
        print(f"{split}: {right.mean():.1%} right")
    print(arguments.output)


def _ensemble(nets: Sequence[Net], faces: Faces) -> NDArray[np.int64]:
    said = torch.stack([opinions(net, faces.images)[0] for net in nets]).mean(dim=0)
    return said.argmax(dim=1).numpy()


if __name__ == "__main__":
    main()
