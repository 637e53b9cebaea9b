r"""Train the net: data and a recipe in, a checkpoint and a loss for every sample out.

    python -m training.train training/recipes/quick.toml data/fer2013.csv --run runs/quick      # a quick trial
    python -m training.train training/recipes/emotion.toml data/fer2013.csv --plus data/fer2013new.csv \
        --run runs/emotion
    tensorboard --logdir runs                                                                   # watch it

You can stop it at any time: the same command resumes after the last whole epoch, and ends with the same weights as
without the stop. It writes into the run's folder

- ``checkpoint.pt``: weights, their moving average (which is exported), momentum, recipe
- ``losses.npy``: float32 ``[epochs measured, samples]``, the loss of every training sample without augmentation, every
  `LOSSES_EVERY` epochs and at the end (`training.doubtful` reads it)
- TensorBoard's files: loss, learning rate, accuracy on the validation faces

PublicTest is only monitored: no epoch is selected by it, the last one is kept. `training.loop` is the loop itself;
`training.campaign` runs it for several nets within a time limit.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fer_stream.errors import FerStreamError
from fer_stream.system import machine
from training import data, recipe
from training.loop import Trainer
from training.model import accuracy
from training.objective import Samples, Soft
from training.setup import device_named, first_net, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.data import Faces
    from training.recipe import Recipe

LOSSES_EVERY = 10
"""Epochs between measurements of the losses; one measurement costs a fifth of an epoch."""


def train(
    how: Recipe,
    faces: Faces,
    run: Path,
    soft: Soft | None = None,
    start: Sequence[Path] = (),
    epochs: int | None = None,
    device: torch.device | None = None,
) -> Trainer:
    """Train, or resume a training, in a run's folder until the recipe's last epoch.

    Args:
        how: the recipe.
        faces: all the data.
        run: the folder; a run in it is resumed.
        soft: the teachers' soft targets for the faces.
        start: another run's folder, or published files, with the initial net; it must have the same shape.
        epochs: stop after this number of epochs in total, to resume later.
        device: where to train (default: the CPU).

    Raises:
        ConfigError: the folder holds a run of another recipe or on other data, ``start`` is of another shape, or a
            face has no soft targets.
        SourceError: the data lacks a split.
    """
    learnt, watched = prepare(faces, how)
    samples = Samples.of(learnt, how.loss, soft and soft.of(learnt))
    trainer, losses = Trainer(how, samples, device), torch.empty(0, len(learnt))
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "checkpoint.pt"
    if checkpoint.exists():
        losses = trainer.restore(checkpoint)["losses"]
    elif (net := first_net(how, samples.faces, start)) is not None:
        trainer.begin(net)
    last = min(epochs or how.epochs, how.epochs)
    with SummaryWriter(run) as board, tqdm(
        total=trainer.total, initial=trainer.step, unit="step", disable=None
    ) as show:  # fmt: skip
        while trainer.epoch < last:
            for _ in range(trainer.steps - trainer.step % trainer.steps):
                trainer.advance()
                show.update()
            loss, rate = trainer.mean_loss(), trainer.rate
            if trainer.epoch % LOSSES_EVERY == 0 or trainer.epoch == how.epochs:
                losses = torch.cat([losses, trainer.sample_losses()[None]])
                np.save(run / "losses.npy", losses.numpy())
            right = accuracy(trainer.average, watched)
            trainer.save(checkpoint, losses=losses)
            for name, value in (("loss", loss), ("accuracy", right), ("learning rate", rate)):
                board.add_scalar(name, value, trainer.epoch)
            show.write(f"epoch {trainer.epoch}: loss {loss:.3f}, accuracy {right:.1%} on {watched.usage[0]}")
    return trainer


def main() -> None:
    """Train with a recipe."""
    parser = argparse.ArgumentParser(description="Train the net, or resume the training in the run's folder.")
    parser.add_argument("recipe", type=Path, help="TOML file, see training/recipes")
    data.add_arguments(parser)
    parser.add_argument("--run", type=Path, required=True, help="folder for the checkpoint and TensorBoard's files")
    parser.add_argument("--soft", type=Path, help="soft targets of the faces, from training.distill")
    parser.add_argument(
        "--start",
        type=Path,
        nargs="+",
        default=(),
        help="initial net of the same shape: a run's folder, or published files (one for each head)",
    )
    parser.add_argument("--threads", type=int, default=machine.threads(), help="CPU threads (default: all)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        faces, how = data.load(arguments.data, arguments.plus), recipe.load(arguments.recipe)
        soft, device = arguments.soft and Soft.load(arguments.soft), device_named(arguments.device)
        train(how, faces, arguments.run, soft, arguments.start, device=device)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
