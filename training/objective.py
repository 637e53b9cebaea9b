"""What is minimised, and what keeps rare classes and wrong labels from spoiling it.

- FER2013's labels are wrong for a good part of the faces: they are smoothed.
- Where ten people voted (FER+), their votes are learnt too, as the distribution that they are, by a second head.
- `disgust` has a sixteenth of the faces that `happy` has: the logits are adjusted for how common a class is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from training import data

if TYPE_CHECKING:
    from torch import Tensor

    from training.data import Faces
    from training.model import Net
    from training.recipe import Loss

CLEAR_VOTES = 5
"""A face with fewer votes for an expression does not train the FER+ head."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """What is learnt from: ``faces`` uint8 ``[N, 1, 48, 48]``, ``labels`` int64 ``[N]``, ``votes`` float32 ``[N, 8]``.

    ``votes`` are shares that sum to 1, and ``voted`` float32 ``[N]`` is 1 where there are enough of them.
    """

    faces: Tensor
    labels: Tensor
    votes: Tensor
    voted: Tensor

    @classmethod
    def of(cls, faces: Faces) -> Samples:
        """Return the faces as tensors; without votes, none is voted on."""
        counts = torch.zeros(len(faces), len(data.PLUS_LABELS))
        if faces.votes is not None:
            counts = torch.from_numpy(faces.votes[:, : len(data.PLUS_LABELS)]).float()
        total = counts.sum(dim=1, keepdim=True)
        return cls(
            faces=torch.from_numpy(faces.images)[:, None],
            labels=torch.from_numpy(faces.labels),
            votes=counts / total.clamp(min=1),
            voted=(total[:, 0] >= CLEAR_VOTES).float(),
        )


def log_prior(labels: Tensor, share: float) -> Tensor:
    """Return what is added to the logits while training, so that the net need not learn how common a class is.

    Logit adjustment (Menon et al. 2020, arXiv:2007.07314): ``share * log p(class)``.
    """
    counts = torch.bincount(labels, minlength=len(data.LABELS)).clamp(min=1).float()
    return share * (counts / counts.sum()).log()


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of each row, ``[N]``, for targets that are distributions ``[N, C]``."""
    return -(targets * functional.log_softmax(logits.float(), dim=1)).sum(dim=1)


def batch_loss(net: Net, batch: tuple[Tensor, ...], prior: Tensor, how: Loss) -> Tensor:
    """Return the loss of both heads on ``(faces, label distributions, vote shares, voted)``."""
    faces, targets, votes, voted = batch
    emotion, plus = net(faces.contiguous(memory_format=torch.channels_last))
    return (
        soft_cross_entropy(emotion + prior, targets).mean()
        + how.votes * (soft_cross_entropy(plus, votes) * voted).mean()
    )
