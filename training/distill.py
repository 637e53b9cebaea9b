r"""Soft targets: the teachers' predictions and FER+'s votes for each training face, instead of its label alone.

    python -m training.distill data/fer2013.csv --plus data/fer2013new.csv --teacher runs/emotion --output runs/soft.npz
    python -m training.train training/recipes/student.toml data/fer2013.csv --plus data/fer2013new.csv \
        --soft runs/soft.npz --run runs/student
    python -m training.distill data/fer2013.csv --plus data/fer2013new.csv --campaign runs/teachers
    python -m training.distill data/fer2013.csv --plus data/fer2013new.csv --teacher models/emotion*.onnx

A label is one person's opinion; a probability for each label carries more information (Hinton et al. 2015,
arXiv:1503.02531). Teachers are runs of `training.train`, of any shape, or exported files, each with one head: they
predict every face and its mirror image once, and the two predictions are averaged. Or they are the nets of a campaign
(`training.campaign`), which predicted several views of every face; a student then sees the same views, each with the
teachers' predictions for it (Beyer et al. 2021, arXiv:2106.05237). The predictions are stored, so a student's training
costs no more than any other. For FER2013's labels, teachers and votes are combined by multinomial logistic regression
on the training labels. For FER+'s labels, the teachers count as `VOTERS` additional voters.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from fer_stream.errors import ConfigError, FerStreamError
from training import data, results
from training.augment import show
from training.loop import load_checkpoint, load_net, recipe_of
from training.model import logits_of
from training.objective import Soft

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from training.augment import Pose
    from training.data import Faces
    from training.model import Net
    from training.objective import Views
    from training.recipe import Loss
    from training.results import Results

VOTERS = 3
"""The weight of all teachers together, in votes of FER+."""

LEAST = 1e-4
"""Lower limit of a probability before its logarithm is taken."""

DECAY = 1e-4
"""Weight of the squared norm in the regression."""


@dataclass(frozen=True, slots=True, eq=False)
class Opinions:
    """One net's predictions: ``emotion`` float32 ``[K, N, 7]``, ``plus`` float32 ``[K, N, 8]``; K views of N faces.

    ``None`` stands for a head that was not trained.
    """

    emotion: Tensor | None
    plus: Tensor | None

    def halves(self) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Return both heads' probabilities, float16 ``[K, N, C]``; C is 0 for a head that was not trained."""
        none = next(head[..., :0] for head in (self.emotion, self.plus) if head is not None)
        emotion, plus = (none if head is None else head for head in (self.emotion, self.plus))
        return emotion.half().numpy(), plus.half().numpy()


@torch.no_grad()
def opinions(
    net: Net, how: Loss, faces: Tensor, poses: Pose | None = None, late: Callable[[], bool] | None = None
) -> Opinions:
    """Return a net's probabilities of faces.

    Args:
        net: the net; it runs on the device of its weights.
        how: the loss it was trained with, which says which heads were trained.
        faces: uint8 ``[N, 1, 48, 48]``.
        poses: ``[K, N]``; each is predicted once. Without poses, the net predicts the face and its mirror image, and
            the two predictions are averaged (K is 1).
        late: called between batches; once it returns true, TimeoutError is raised.

    Raises:
        TimeoutError: ``late`` returned true.
    """
    device = next(net.parameters()).device
    found: list[tuple[Tensor, Tensor]] = []
    for rows in torch.split(torch.arange(len(faces)), 512):
        if late is not None and late():
            raise TimeoutError
        part = faces[rows].to(device).float()
        if poses is None:
            heads = [logits_of(net, look) for look in (part, part.flip(3))]
            both = [torch.stack(head).softmax(dim=2).mean(dim=0, keepdim=True) for head in zip(*heads, strict=True)]
        else:
            looks = [poses[torch.tensor(k), rows].to(device) for k in range(len(poses.matrix))]
            heads = [logits_of(net, show(part, look, net.side).clamp(0, 255)) for look in looks]
            both = [torch.stack(head).softmax(dim=2) for head in zip(*heads, strict=True)]
        found.append((both[0], both[1]))
    emotion, plus = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    return Opinions(emotion if how.labels else None, plus if how.votes else None)


def mean_of(predictions: Sequence[Opinions]) -> tuple[Tensor | None, Tensor | None]:
    """Return the mean predictions of several nets, for each head; ``None`` if none of them has that head."""
    emotion = [opinion.emotion for opinion in predictions if opinion.emotion is not None]
    plus = [opinion.plus for opinion in predictions if opinion.plus is not None]
    return torch.stack(emotion).mean(dim=0) if emotion else None, torch.stack(plus).mean(dim=0) if plus else None


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


def join(emotion: Tensor | None, plus: Tensor | None, votes: NDArray[np.uint8] | None) -> Tensor:
    """Return the regression's features, ``[N, F]``: the teachers' log-probabilities and the vote shares."""
    parts = [head.clamp(min=LEAST).log() for head in (emotion, plus) if head is not None]
    if votes is not None:
        share = torch.from_numpy(votes).float()
        share = share / share.sum(dim=1, keepdim=True).clamp(min=1)
        parts += [share, share.sqrt()]
    return torch.cat(parts, dim=1)


def soften(predictions: Sequence[Opinions], faces: Faces, views: Views | None = None) -> Soft:
    """Return the soft targets of faces; the regression is fitted on their labels.

    Args:
        predictions: the predictions of one or more teachers for the faces.
        faces: the training faces.
        views: the views in which the teachers saw the faces; ``None``: unchanged.
    """
    emotion, plus = mean_of(predictions)
    looks = len(next(head for head in (emotion, plus) if head is not None))
    evidence = torch.stack([join(_view(emotion, k), _view(plus, k), faces.votes) for k in range(looks)])
    weights, offsets = regression(evidence.flatten(0, 1), torch.from_numpy(faces.labels).repeat(looks))
    softened = (evidence @ weights + offsets).softmax(dim=2)
    votes = torch.zeros(len(faces), len(data.PLUS_LABELS))
    if faces.votes is not None:
        votes = torch.from_numpy(faces.votes[:, : len(data.PLUS_LABELS)]).float()
    voters = torch.zeros(1) if plus is None else VOTERS * plus
    joined = (votes + voters) / (votes + voters).sum(dim=-1, keepdim=True).clamp(min=1)
    emotions, shares = (targets.expand(looks, -1, -1).half().numpy() for targets in (softened, joined))
    return Soft(faces.rows, emotions, shares, views)


def _view(head: Tensor | None, k: int) -> Tensor | None:
    return None if head is None else head[k]


def of_teachers(teachers: Sequence[Path], faces: Faces) -> list[Opinions]:
    """Return the predictions of some runs' nets and exported files, each averaged over the face and its mirror image.

    Raises:
        ConfigError: a run has no valid checkpoint.
        ModelError: a file breaks the contract of `training.evaluate.open_model`.
    """
    predictions = []
    for run in teachers:
        if run.is_file():
            predictions.append(_of_file(run, faces))
            continue
        checkpoint = run / "checkpoint.pt"
        how = recipe_of(load_checkpoint(checkpoint), checkpoint).loss
        predictions.append(opinions(load_net(run), how, torch.from_numpy(faces.images)[:, None]))
    return predictions


def _of_file(path: Path, faces: Faces) -> Opinions:
    """Return a file's predictions without its temperature: FER+'s is fitted to majorities, and targets are shares."""
    from training import evaluate, metrics  # noqa: PLC0415 - a campaign's machine may lack onnxruntime

    model, labels = evaluate.open_model(path)
    looks = [evaluate.predict(model, images) for images in (faces.images, faces.images[:, :, ::-1])]
    temperature = float(model.metadata.get("temperature", 1))
    mean = np.mean([metrics.heat(look, 1 / temperature) for look in looks], axis=0)
    predicted = torch.from_numpy(mean).float()[None]
    return Opinions(predicted, None) if labels == data.LABELS else Opinions(None, predicted)


def of_campaign(found: Results, faces: Faces) -> list[Opinions]:
    """Return the predictions of a campaign's nets for the views of faces.

    Raises:
        ConfigError: they were made on other data, or no net has predictions yet.
    """
    predictions = []
    for net in found.nets:
        if net.soft is not None:
            soft = Soft(found.rows, *net.soft).of(faces)
            predictions.append(_heads(soft.emotion, soft.plus))
    if not predictions:
        raise ConfigError("no net of this campaign has soft targets yet; resume the campaign")
    return predictions


def of_public(found: Results) -> list[Opinions]:
    """Return the predictions of a campaign's nets for PublicTest."""
    return [_heads(*net.public) for net in found.nets if net.public is not None]


def _heads(emotion: NDArray[np.float16], plus: NDArray[np.float16]) -> Opinions:
    """Return a net's predictions; a head without columns becomes ``None``, and an array without views gets one view."""
    heads = [torch.from_numpy(head if head.ndim == 3 else head[None]).float() for head in (emotion, plus)]
    return Opinions(*(head if head.shape[-1] else None for head in heads))


def right(predictions: Sequence[Opinions], labels: NDArray[np.int64]) -> float:
    """Return the accuracy of the nets' mean prediction on FER2013's labels; NaN if no net learnt these labels.

    Raises:
        ConfigError: the nets predicted other faces.
    """
    emotion, _ = mean_of(predictions)
    if emotion is not None and emotion.shape[1] != len(labels):
        raise ConfigError(f"the campaign's nets predicted the faces that its recipes hold out, not {data.PUBLIC}")
    return math.nan if emotion is None else float((emotion[0].argmax(dim=1).numpy() == labels).mean())


def main() -> None:
    """Compute or read the teachers' predictions, and write the soft targets."""
    parser = argparse.ArgumentParser(description="Make soft targets from teachers' predictions and FER+'s votes.")
    data.add_arguments(parser)
    teachers = parser.add_mutually_exclusive_group(required=True)
    teachers.add_argument("--teacher", type=Path, nargs="+", help="folders of runs, or exported files")
    teachers.add_argument("--campaign", type=Path, help="folder of a campaign, whose nets are the teachers")
    parser.add_argument("--output", type=Path, default=Path("runs/soft.npz"), help="file to write")
    arguments = parser.parse_args()
    try:
        faces = data.load(arguments.data, arguments.plus)
        learnt, public = faces.split(data.TRAINING), faces.split(data.PUBLIC)
        if arguments.campaign:
            found = results.read(arguments.campaign)
            learnt = learnt[np.isin(learnt.rows, found.rows)]
            soft = soften(of_campaign(found, learnt), learnt, found.views)
            predictions = of_public(found)
        else:
            soft = soften(of_teachers(arguments.teacher, learnt), learnt)
            predictions = of_teachers(arguments.teacher, public)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error
    soft.save(arguments.output)
    fitted = (soft.emotion.mean(axis=0, dtype=np.float32).argmax(axis=1) == learnt.labels).mean()
    print(f"training: {fitted:.1%} right")
    print(f"{data.PUBLIC}, teachers alone: {right(predictions, public.labels):.1%} right")
    print(arguments.output)


if __name__ == "__main__":
    main()
