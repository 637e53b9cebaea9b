"""List the labels that are most likely wrong, with a picture sheet for review.

    python -m training.doubtful runs/emotion data/fer2013.csv --plus data/fer2013new.csv

Wrong labels are learnt last (Arpit et al. 2017, arXiv:1706.05394), so a sample whose loss stays high is doubtful.
Samples are ranked by the mean of the losses that `training.train` saved. The command writes into the run's folder:

- ``doubtful.csv``: row in the source, label, the net's prediction, mean loss, and FER+'s most voted expression if given
- ``doubtful.png``: the most doubtful faces of each label, each with the net's prediction

It changes no data.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fer_stream.errors import ConfigError, FerStreamError
from training import data
from training.loop import load_checkpoint, load_net, recipe_of
from training.model import logits_of
from training.setup import prepare

if TYPE_CHECKING:
    from numpy.typing import NDArray


def mean_losses(run: Path) -> NDArray[np.float64]:
    """Return each training sample's loss, averaged over the epochs at which it was saved, float64 ``[N]``.

    Raises:
        ConfigError: the run has no losses.
    """
    try:
        losses = np.load(run / "losses.npy")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{run} has no losses.npy; python -m training.train writes it") from error
    mean: NDArray[np.float64] = np.asarray(losses, np.float64).mean(axis=0)
    return mean


def majority(votes: NDArray[np.uint8]) -> NDArray[np.str_]:
    """Return FER+'s most voted expression for each row of votes, in FER2013's words."""
    most: NDArray[np.str_] = np.array(data.PLUS_EMOTIONS)[votes[:, : len(data.PLUS_EMOTIONS)].argmax(axis=1)]
    return most


def main() -> None:
    """Rank the samples, list the most doubtful, and draw some."""
    from training import pictures  # noqa: PLC0415 - matplotlib is slow to import

    parser = argparse.ArgumentParser(description="List the training labels that are most likely wrong.")
    parser.add_argument("run", type=Path, help="the run's folder")
    data.add_arguments(parser)
    parser.add_argument("--count", type=int, default=500, help="how many to list")
    arguments = parser.parse_args()
    run: Path = arguments.run
    try:
        losses = mean_losses(run)
        checkpoint = run / "checkpoint.pt"
        how = recipe_of(load_checkpoint(checkpoint), checkpoint)
        faces, _ = prepare(data.load(arguments.data, arguments.plus), how)
        if len(faces) != len(losses):
            raise ConfigError(f"{run} was trained on {len(losses)} faces, but {arguments.data} has {len(faces)} for it")
        net = load_net(run)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error

    order = np.argsort(-losses)
    each = 12
    shown = {label: order[faces.labels[order] == i][:each] for i, label in enumerate(data.LABELS)}
    listed = order[: arguments.count]
    needed = np.union1d(listed, np.concatenate(list(shown.values())))
    logits, _ = logits_of(net, torch.from_numpy(faces.images[needed])[:, None])
    predicted = dict(zip(needed.tolist(), np.array(data.LABELS)[logits.argmax(dim=1).numpy()].tolist(), strict=True))
    voted = None if faces.votes is None else majority(faces.votes)

    with (run / "doubtful.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "label", "recognised", "loss", "voted"])
        for i in listed.tolist():
            vote = "" if voted is None else voted[i]
            writer.writerow([faces.rows[i], data.LABELS[faces.labels[i]], predicted[i], f"{losses[i]:.3f}", vote])
    pictures.sheet(
        run / "doubtful.png",
        {label: faces.images[rows] for label, rows in shown.items()},
        {label: [predicted[i] for i in rows.tolist()] for label, rows in shown.items()},
    )
    if voted is not None:
        differs = voted != np.array(data.LABELS)[faces.labels]
        print(f"FER+'s most voted expression differs for {differs[listed].mean():.0%} of the {len(listed)} "
              f"most doubtful labels, and for {differs.mean():.0%} of all labels")  # fmt: skip
    print(f"{run / 'doubtful.csv'}, {run / 'doubtful.png'}")


if __name__ == "__main__":
    main()
