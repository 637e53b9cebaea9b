r"""Train the net: data and a recipe in, a checkpoint and a loss for every sample out.

    python -m training.train training/recipes/quick.toml data/fer2013.csv --run runs/quick      # proves the chain
    python -m training.train training/recipes/emotion.toml data/fer2013.csv --plus data/fer2013new.csv \
        --run runs/emotion
    tensorboard --logdir runs                                                                   # watch it

Stop it whenever you like: the same command goes on after the last whole epoch, and ends with the same weights as if
it had not been stopped. In the run's folder it leaves

- ``checkpoint.pt``: weights, their moving average (which is what is exported), optimizer, recipe
- ``losses.npy``: float32 ``[epochs measured, samples]``, the loss of every training sample, as it is and not
  augmented, once every `LOSSES_EVERY` epochs and at the end (`training.doubtful` reads it)
- TensorBoard's files: loss, learning rate, accuracy on the split that is watched

PublicTest is watched but decides nothing: no epoch is chosen by it, the last one is kept.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fer_stream import machine
from fer_stream.errors import ConfigError, FerStreamError
from training import data, published, recipe
from training.augment import augment, mixup
from training.duplicates import near_copies
from training.model import Residual, logits_of
from training.objective import Samples, Soft, batch_loss, log_prior
from training.pretrained import Pretrained, weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from training.data import Faces
    from training.model import Net
    from training.recipe import Architecture, Optimizer, Recipe

LOSSES_EVERY = 10
"""Epochs; measuring them costs a fifth of an epoch."""

BFLOAT16 = any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
"""Whether this processor multiplies bfloat16; where it does not, torch imitates it at a twelfth of float32's speed."""

SHOWN = 512
"""Faces on which the normalisations of weights from elsewhere are set."""


class Trainer:
    """All that changes while training; `save` and `restore` make it outlive its process."""

    def __init__(self, how: Recipe, samples: Samples) -> None:
        torch.manual_seed(how.seed)
        self.how, self.samples = how, samples
        self.net = _net(how.net)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on a CPU
        self.average = _net(how.net)
        self.average.load_state_dict(self.net.state_dict())
        self.optimizer = _optimizer(self.net, how.optimizer)
        self.prior = log_prior(samples.labels, how.loss.prior)
        self.epoch = 0
        self.losses = torch.empty(0, len(samples.labels))

    @property
    def steps(self) -> int:
        """Steps in an epoch; the faces left over are others each time."""
        return max(len(self.samples.labels) // self.how.batch, 1)

    def run_epoch(self, show: tqdm[Any]) -> float:
        """Train for one epoch and return its mean loss."""
        seed = self.how.seed + 7919 * (self.epoch + 1)  # each epoch's draws are its own: resuming repeats them
        torch.manual_seed(seed)
        random = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.samples.labels), generator=random)
        self.net.train()
        total = 0.0
        for step in range(self.steps):
            rows = order[step * self.how.batch : (step + 1) * self.how.batch]
            done = self.epoch * self.steps + step
            self._set_learning_rate(done)
            loss = self._step(self._batch(rows, done / (self.how.epochs * self.steps), random))
            _move_average(self.average, self.net, min(self.how.optimizer.average, (1 + done) / (10 + done)))
            total += loss
            show.update()
            show.set_postfix(epoch=self.epoch + 1, loss=f"{loss:.3f}", refresh=False)
        self.epoch += 1
        return total / self.steps

    def measure_losses(self) -> None:
        """Keep the loss of every sample under the averaged weights, without augmentation or smoothing."""
        logits = logits_of(self.average, self.samples.faces)
        row = functional.cross_entropy(logits, self.samples.labels, reduction="none")
        self.losses = torch.cat([self.losses, row[None]])

    def save(self, path: Path) -> None:
        """Write everything to a file, in one step."""
        draft = path.with_suffix(".draft")
        state = {"epoch": self.epoch, "recipe": self.how.model_dump_json(), "losses": self.losses}
        torch.save(state | {name: part.state_dict() for name, part in self._parts().items()}, draft)
        draft.replace(path)

    def restore(self, path: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            ConfigError: the file was written under another recipe, or on other data.
        """
        state = load_checkpoint(path)
        if json.loads(state["recipe"]) != json.loads(self.how.model_dump_json()):
            raise ConfigError(f"{path} was made by another recipe; choose another --run, or remove it")
        if state["losses"].shape[1] != len(self.samples.labels):
            raise ConfigError(f"{path} was made on other data; choose another --run, or remove it")
        self.epoch, self.losses = state["epoch"], state["losses"]
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def begin(self, start: Sequence[Path] = ()) -> None:
        """Begin with the weights of another net; without one, with random ones or those of a pretrained body.

        Args:
            start: the folder of a run, whose averaged weights are taken; or published files (`training.published`).

        Raises:
            ConfigError: there are no weights, or they are of another shape; or the body's are not there.
        """
        drawn = torch.randperm(len(self.samples.faces), generator=torch.Generator().manual_seed(0))[:SHOWN]
        seen = self.samples.faces[drawn]
        match start:
            case []:
                if isinstance(self.net, Pretrained):
                    self.net.adopt(weights(), seen)
            case [run] if run.is_dir():
                try:
                    self.net.load_state_dict(load_checkpoint(run / "checkpoint.pt")["average"])
                except RuntimeError as error:
                    raise ConfigError(f"the net of {run} has another shape than the recipe's") from error
            case files if isinstance(self.net, Residual):
                published.adopt(self.net, files, seen)
            case _:
                raise ConfigError(f"{start[0]} is not a run's folder, with which alone a pretrained body can begin")
        self.average.load_state_dict(self.net.state_dict())

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"net": self.net, "average": self.average, "optimizer": self.optimizer}

    def _batch(self, rows: Tensor, progress: float, random: torch.Generator) -> tuple[Tensor, ...]:
        how, samples = self.how.augmentation, self.samples
        faces = augment(samples.faces[rows].float(), self.how.size(progress), how, random)
        targets = (samples.targets[rows], samples.votes[rows], samples.voted[rows])
        blend = float(torch.rand((), generator=random)) < how.mixup
        if blend and progress < how.mixup_until:
            return mixup(faces, targets, how.mixup_alpha, random)
        return faces, *targets

    def _step(self, batch: tuple[Tensor, ...]) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.how.bfloat16 and BFLOAT16):
            loss = batch_loss(self.net, batch, self.prior, self.how.loss)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), self.how.optimizer.clip)
        self.optimizer.step()
        return loss.item()

    def _set_learning_rate(self, done: int) -> None:
        warm = min(1.0, (done + 1) / max(self.how.optimizer.warmup, 1))
        cosine = 0.5 + 0.5 * math.cos(math.pi * done / (self.how.epochs * self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = self.how.optimizer.learning_rate * warm * cosine


def _net(shape: Architecture) -> Net:
    return Pretrained(shape) if shape.body == "pretrained" else Residual(shape)


def _optimizer(net: Net, how: Optimizer) -> torch.optim.Optimizer:
    weights = [value for value in net.parameters() if value.ndim > 1]
    others = [value for value in net.parameters() if value.ndim <= 1]
    groups = [{"params": weights, "weight_decay": how.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=how.learning_rate, momentum=how.momentum, nesterov=how.momentum > 0)


@torch.no_grad()
def _move_average(average: Net, net: Net, decay: float) -> None:
    for kept, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return what `Trainer.save` wrote.

    Raises:
        ConfigError: the file is missing or is something else.
    """
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no checkpoint {path}; python -m training.train makes one") from error
    except Exception as error:  # torch raises whatever its unpickler meets
        raise ConfigError(f"{path} is not a checkpoint of training.train") from error
    if not {"net", "average", "optimizer", "recipe", "epoch", "losses"} <= state.keys():
        raise ConfigError(f"{path} is not a checkpoint of training.train")
    return state


def load_net(run: Path) -> Net:
    """Return the net of a run, with its averaged weights.

    Raises:
        ConfigError: the run has no checkpoint, or it is something else.
    """
    state = load_checkpoint(run / "checkpoint.pt")
    net = _net(recipe.Recipe.model_validate_json(state["recipe"]).net)
    net.load_state_dict(state["average"])
    return net.eval()


def prepare(faces: Faces, how: Recipe) -> tuple[Faces, Faces]:
    """Return the faces to learn from and those to watch: what the recipe holds out, else PublicTest.

    What is watched or reported on has no near-copy among what is learnt from.
    """
    learnt, public = faces.split(data.TRAINING)[: how.limit], faces[faces.usage == data.PUBLIC]
    learnt = learnt[~near_copies(learnt, public)]
    if how.holdout:
        learnt, watched = learnt.held_out(how.holdout, how.seed)
        return learnt[~near_copies(learnt, watched)], watched
    return learnt, faces.split(data.PUBLIC)


def train(
    how: Recipe,
    faces: Faces,
    run: Path,
    soft: Soft | None = None,
    start: Sequence[Path] = (),
    epochs: int | None = None,
) -> Trainer:
    """Train, or go on training, in a run's folder until the recipe's last epoch.

    Args:
        how: the recipe.
        faces: all the data.
        run: the folder; what it holds already is continued.
        soft: what teachers say of the faces.
        start: another run, or published files, whose net this one begins as; it must have the same shape.
        epochs: stop after so many epochs in all, to go on another time.

    Raises:
        ConfigError: the folder holds a run of another recipe or on other data, ``start`` is of another shape, or a
            face has no soft targets.
        SourceError: the data lacks a split.
    """
    learnt, watched = prepare(faces, how)
    trainer = Trainer(how, Samples.of(learnt, how.loss, soft and soft.of(learnt)))
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "checkpoint.pt"
    if checkpoint.exists():
        trainer.restore(checkpoint)
    else:
        trainer.begin(start)
    last = min(epochs or how.epochs, how.epochs)
    watched_faces = torch.from_numpy(watched.images)[:, None]
    total, done = how.epochs * trainer.steps, trainer.epoch * trainer.steps
    with SummaryWriter(run) as board, tqdm(total=total, initial=done, unit="step", disable=None) as show:
        while trainer.epoch < last:
            loss = trainer.run_epoch(show)
            if trainer.epoch % LOSSES_EVERY == 0 or trainer.epoch == how.epochs:
                trainer.measure_losses()
                np.save(run / "losses.npy", trainer.losses.numpy())
            right = _accuracy(logits_of(trainer.average, watched_faces).numpy(), watched.labels)
            trainer.save(checkpoint)
            for name, value in (
                ("loss", loss), ("accuracy", right), ("learning rate", trainer.optimizer.param_groups[0]["lr"]),
            ):  # fmt: skip
                board.add_scalar(name, value, trainer.epoch)
            show.write(f"epoch {trainer.epoch}: loss {loss:.3f}, accuracy {right:.1%} on {watched.usage[0]}")
    return trainer


def _accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def main() -> None:
    """Train by a recipe."""
    parser = argparse.ArgumentParser(description="Train the net, or go on where the run's folder stops.")
    parser.add_argument("recipe", type=Path, help="TOML file, see training/recipes")
    data.add_arguments(parser)
    parser.add_argument("--run", type=Path, required=True, help="folder for the checkpoint and TensorBoard's files")
    parser.add_argument("--soft", type=Path, help="what teachers say of the faces, from training.distill")
    parser.add_argument(
        "--start",
        type=Path,
        nargs="+",
        default=(),
        help="net to begin as, of the same shape: a run's folder, or its published files (one for each head)",
    )
    parser.add_argument("--threads", type=int, default=machine.threads(), help="CPU threads (default: all)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        faces, how = data.load(arguments.data, arguments.plus), recipe.load(arguments.recipe)
        train(how, faces, arguments.run, arguments.soft and Soft.load(arguments.soft), arguments.start)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
