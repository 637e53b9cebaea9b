"""The training loss, with measures against class imbalance and wrong labels.

- FER2013's labels are wrong for many faces: they are smoothed.
- A second head learns FER+'s ten votes for a face as a distribution.
- The teachers' predictions for a view of a face can be blended into both targets (`training.distill`).
- `disgust` has a sixteenth of the faces of `happy`: the logits are adjusted for the class frequencies.
- Predictions should not change when a face moves a little in its frame: the divergence between two looks at a face can
  be a part of the loss (`training.nudge`).
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from fer_stream.errors import ConfigError
from training import data
from training.augment import Pose, views
from training.recipe import Augmentation

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from training.data import Faces
    from training.model import Net
    from training.recipe import Loss

CLEAR_VOTES = 5
"""A face with fewer votes for an expression does not train the FER+ head."""


@dataclass(frozen=True, slots=True)
class Views:
    """The views in which teachers saw faces: ``count`` of each face, in poses drawn from ``seed`` (`augment.views`)."""

    count: int
    seed: int
    augmentation: Augmentation

    def poses(self, rows: Tensor) -> Pose:
        """Return the poses ``[count, N]`` of the faces in ``rows``, int64 ``[N]``."""
        return views(rows, self.count, self.augmentation, self.seed)

    def to_json(self) -> str:
        """Return the views as JSON."""
        return json.dumps({"count": self.count, "seed": self.seed, "augmentation": asdict(self.augmentation)})

    @classmethod
    def from_json(cls, text: str) -> Views:
        """Return the views that `to_json` wrote.

        Raises:
            ValueError: the text is not views.
        """
        try:
            values = json.loads(text)
            return cls(int(values["count"]), int(values["seed"]), Augmentation(**values["augmentation"]))
        except (TypeError, KeyError) as error:
            raise ValueError("these are not views") from error


@dataclass(frozen=True, slots=True, eq=False)
class Soft:
    """Soft targets; row i of every array is the same face.

    ``rows`` int64 ``[N]`` is the row in the source. ``emotion`` float16 ``[K, N, 7]`` and ``plus`` float16
    ``[K, N, 8]`` are distributions over FER2013's labels and FER+'s, for each of K views of each face. Without
    ``views`` K is 1, and the face was shown unchanged.
    """

    rows: NDArray[np.int64]
    emotion: NDArray[np.float16]
    plus: NDArray[np.float16]
    views: Views | None = None

    def save(self, path: Path) -> None:
        """Write the targets to an .npz file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        views = "" if self.views is None else self.views.to_json()
        np.savez(path, rows=self.rows, emotion=self.emotion, plus=self.plus, views=views)

    @classmethod
    def load(cls, path: Path) -> Soft:
        """Return the targets that `save` wrote.

        Raises:
            ConfigError: the file is missing, or has no soft targets.
        """
        try:
            with path.open("rb") as file, np.load(file) as stored:
                views = str(stored["views"])
                return cls(stored["rows"], stored["emotion"], stored["plus"], Views.from_json(views) if views else None)
        except FileNotFoundError as error:
            raise ConfigError(f"there are no soft targets {path}; python -m training.distill makes some") from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{path} is not a file of python -m training.distill") from error

    def of(self, faces: Faces) -> Soft:
        """Return the targets of some faces, in their order.

        Raises:
            ConfigError: a face has no targets.
        """
        order = np.argsort(self.rows)
        at = np.searchsorted(self.rows[order], faces.rows).clip(max=max(len(order) - 1, 0))
        if not len(order) or (self.rows[order][at] != faces.rows).any():
            raise ConfigError("the soft targets were made on other data; make them again")
        return Soft(faces.rows, self.emotion[:, order[at]], self.plus[:, order[at]], self.views)


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """The training samples: ``faces`` uint8 ``[N, 1, 48, 48]`` and ``labels`` int64 ``[N]``.

    ``targets`` float32 ``[K, N, 7]`` are the labels, smoothed and blended with the teachers' predictions for each of K
    views. ``votes`` float32 ``[K, N, 8]`` are the shares of FER+'s votes, and ``voted`` float32 ``[N]`` is 1 for a face
    with enough votes. ``poses`` ``[K, N]`` are those of the views; without them, each face is shown in a new pose each
    time. ``digest`` identifies these samples, including votes and soft targets.
    """

    faces: Tensor
    labels: Tensor
    targets: Tensor
    votes: Tensor
    voted: Tensor
    poses: Pose | None = None
    digest: str = ""

    @classmethod
    def of(cls, faces: Faces, how: Loss, soft: Soft | None = None) -> Samples:
        """Return the faces as tensors; without votes, ``voted`` is 0.

        Args:
            faces: the faces.
            how: the loss, with the label smoothing and the teachers' share.
            soft: the teachers' targets for these faces, if any.
        """
        labels = torch.from_numpy(faces.labels)
        targets = functional.one_hot(labels, len(data.LABELS)) * (1 - how.smoothing) + how.smoothing / len(data.LABELS)
        counts = torch.zeros(len(faces), len(data.PLUS_LABELS))
        if faces.votes is not None:
            counts = torch.from_numpy(faces.votes[:, : len(data.PLUS_LABELS)]).float()
        total = counts.sum(dim=1, keepdim=True)
        votes, voted = counts / total.clamp(min=1), (total[:, 0] >= CLEAR_VOTES).float()
        targets, votes, poses = targets[None], votes[None], None
        if soft is not None:
            share = torch.where(voted[:, None] > 0, how.soft, 1.0)
            targets = (1 - how.soft) * targets + how.soft * torch.from_numpy(soft.emotion).float()
            votes, voted = (1 - share) * votes + share * torch.from_numpy(soft.plus).float(), torch.ones_like(voted)
            poses = None if soft.views is None else soft.views.poses(torch.from_numpy(soft.rows))
        digest = hashlib.sha256(faces.digest().encode())
        for part in () if soft is None else (soft.emotion, soft.plus):
            digest.update(part.tobytes())
        if soft is not None and soft.views is not None:
            digest.update(soft.views.to_json().encode())
        images = torch.from_numpy(faces.images)[:, None]
        return cls(images, labels, targets, votes, voted, poses, digest.hexdigest())

    def to(self, device: torch.device) -> Samples:
        """Return the samples on a device."""
        parts = (self.faces, self.labels, self.targets, self.votes, self.voted)
        faces, labels, targets, votes, voted = (part.to(device) for part in parts)
        return Samples(faces, labels, targets, votes, voted, self.poses and self.poses.to(device), self.digest)


def log_priors(samples: Samples, how: Loss) -> tuple[Tensor, Tensor]:
    """Return the offsets of both heads' logits in training, ``[7]`` and ``[8]``.

    They remove the class frequencies from what the net must learn. FER2013's are those of the labels, FER+'s are the
    means of the targets.
    """
    counts = torch.bincount(samples.labels, minlength=len(data.LABELS)).clamp(min=1).float()
    shares = (samples.votes.mean(dim=0) * samples.voted[:, None]).sum(dim=0).clamp(min=1)
    return log_prior(counts, how.prior), log_prior(shares, how.votes_prior)


def log_prior(counts: Tensor, share: float) -> Tensor:
    """Return ``share * log p(class)`` for the counts of the classes.

    It is the offset of logit adjustment (Menon et al. 2020, arXiv:2007.07314).
    """
    return share * (counts / counts.sum()).log()


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of each row, ``[N]``, for targets that are distributions ``[N, C]``."""
    return -(targets * functional.log_softmax(logits.float(), dim=1)).sum(dim=1)


def divergence(logits: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence between two looks at each face, ``[N]``, in nats: 0 to ``log 2``.

    AugMix (Hendrycks et al. 2020, arXiv:1912.02781) uses it in the same way.

    Args:
        logits: ``[2 N, C]``: those of the first looks, then those of the second looks.
    """
    looks = functional.log_softmax(logits.float(), dim=1).view(2, -1, logits.shape[1])
    mean = looks.logsumexp(dim=0) - math.log(2)
    each: Tensor = (looks.exp() * (looks - mean)).sum(dim=2)
    return each.mean(dim=0)


def batch_loss(net: Net, batch: tuple[Tensor, ...], priors: tuple[Tensor, Tensor], how: Loss) -> Tensor:
    """Return the loss of the trained heads on a batch ``(faces, label distributions, vote shares, voted)``.

    If ``how.steady`` is above 0, ``faces`` has two looks at each face: all first ones, then all second ones.
    """
    faces, *target = batch
    looks = len(faces) // len(target[0])
    targets, votes, voted = (part.repeat(looks, *[1] * (part.ndim - 1)) for part in target)
    emotion, plus = net(faces.contiguous(memory_format=torch.channels_last))
    loss = torch.zeros((), device=faces.device)
    if how.labels:
        loss = loss + how.labels * soft_cross_entropy(emotion + priors[0], targets).mean()
        if how.steady:
            loss = loss + how.steady * how.labels * divergence(emotion).mean()
    if how.votes:
        loss = loss + how.votes * (soft_cross_entropy(plus + priors[1], votes) * voted).mean()
        if how.steady:
            loss = loss + how.steady * how.votes * (divergence(plus) * target[2]).mean()
    return loss
