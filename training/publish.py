r"""Publish a campaign's results: soft targets from its teachers, or model files from its students.

    make publish FROM=runs/teachers         # runs/teachers/soft.npz, for the students' campaign
    make publish FROM=runs/students         # models/*.onnx, their digests, and all figures in the model card

    python -m training.publish runs/students data/fer2013.csv --plus data/fer2013new.csv
    python -m training.publish runs/steady ... --nets steady    # only this one; the others are not trained to their end

A net whose campaign says ``publish = "emotion"`` becomes ``emotion.onnx`` and, with its other head,
``emotion-ferplus.onnx``; ``publish = "tiny"`` becomes ``emotion-tiny.onnx``. They are calibrated and quantized
(`training.export`), and the model card's figures are measured again (`training.card`). A net that was trained from
published files may keep a share of their weights (``keep``), and with ``rebalance`` rare labels of FER+ are recognised
more often. The nets of a campaign without a net to publish are teachers: their predictions are combined into soft
targets (`training.distill`).
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch.optim.swa_utils import update_bn

from fer_stream.errors import ConfigError, FerStreamError
from training import card, data, distill, export, manifest, published, results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.data import Faces
    from training.model import Net, Residual
    from training.results import NetResult, Results

FILES = {
    "emotion": {"emotion.onnx": "fer2013", "emotion-ferplus.onnx": "ferplus"},
    "tiny": {"emotion-tiny.onnx": "ferplus"},
}
"""The model files of each value of ``publish``, and the head that each file contains."""

MEASURED, FEW = 4096, 256
"""Number of faces on which the normalisations of a blended net are measured; number that is processed at once."""

TRAINED_ON = "FER2013 (Training split), FER+ votes"


def teach(found: Results, faces: Faces, path: Path) -> float:
    """Write the soft targets of a campaign's teachers; return the accuracy of their mean prediction on PublicTest.

    Raises:
        ConfigError: the results were made on other data, or have no soft targets.
    """
    learnt = faces.split(data.TRAINING)
    learnt = learnt[np.isin(learnt.rows, found.rows)]
    distill.soften(distill.of_campaign(found, learnt), learnt, found.views).save(path)
    return distill.right(distill.of_public(found), faces.split(data.PUBLIC).labels)


def blend(net: Net, start: Net, share: float, faces: NDArray[np.uint8]) -> Net:
    """Return a net between one that was trained and the one it began with.

    The mean of both weights is often more accurate than either (WiSE-FT: Wortsman et al. 2022, arXiv:2109.01903).

    Args:
        net: the trained net.
        start: the net it began with, of the same shape.
        share: the share of the weights of ``start``, 0 to 1.
        faces: grey faces, uint8 ``[N, H, W]``, on which the normalisations' statistics are measured again.
    """
    mixed, begun = deepcopy(net), start.state_dict()
    state = net.state_dict()
    floats = [name for name, part in state.items() if part.is_floating_point()]
    mixed.load_state_dict(state | {name: torch.lerp(state[name], begun[name], share) for name in floats})
    update_bn(torch.split(torch.from_numpy(faces)[:, None].float(), FEW), mixed)
    return mixed.eval()


def _final(net: NetResult, faces: Faces, models: Path) -> Net:
    """Return the net to export: the trained one, or one that keeps a share of the published files' weights.

    Raises:
        ConfigError: the published files are not those that the net began with, or the net's weights were left out of
            the results.
    """
    made = net.net()
    if not net.keep:
        return made
    files = [models / name for name in FILES[net.publish or ""]]
    for path in files:
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() not in net.start:
            raise ConfigError(
                f"{path} is not the file that {net.name} began with: restore it, because {net.name} keeps a share of it"
            )
    images = faces.split(data.TRAINING).images
    start = cast("Residual", deepcopy(made))  # no other net can begin with files
    published.adopt(start, files, torch.from_numpy(images[:: max(1, len(images) // FEW)])[:, None])
    return blend(made, start, net.keep, images[:: max(1, len(images) // MEASURED)])


def write(nets: Sequence[NetResult], faces: Faces, models: Path, crop: Path) -> list[Path]:
    """Write the model files of nets with a ``publish`` setting; return their paths.

    Raises:
        ConfigError: a net is not trained to its end, has not learnt the labels of one of its files, its weights were
            left out of the results, or the published files whose weights it keeps are not those it began with.
        SourceError: the data has no votes.
    """
    for net in nets:
        if net.steps < net.total:
            raise ConfigError(f"{net.name} has done {net.steps} of {net.total} steps; resume its campaign")
        for name, head in FILES[net.publish or ""].items():
            if not net.learnt(head):
                raise ConfigError(f"{net.name} cannot become {name}: it has not learnt {head}'s labels")
    paths = []
    with tempfile.TemporaryDirectory(dir=models) as folder:  # replace all files or none
        for net in nets:
            made = _final(net, faces, models)
            for name, head in FILES[net.publish or ""].items():
                version = f"{net.name} {datetime.now(UTC):%Y-%m-%d}"
                draft = Path(folder) / name
                share = net.rebalance if head == "ferplus" else 0.0
                export.write(made, head, faces, draft, export.read_crop(crop), version, TRAINED_ON, share=share)
                paths.append(models / name)
        for path in paths:
            (Path(folder) / path.name).replace(path)
    manifest.write(models)
    return paths


def chosen(nets: Sequence[NetResult], names: Sequence[str]) -> list[NetResult]:
    """Return the nets with some names.

    Raises:
        ConfigError: there is no such net.
    """
    known = [net.name for net in nets]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"no net {unknown[0]} is to be published; there are {', '.join(known) or 'none'}")
    return [net for net in nets if net.name in names]


def main() -> None:
    """Publish the results of a campaign."""
    parser = argparse.ArgumentParser(description="Make soft targets, or models and their figures, from a campaign.")
    parser.add_argument("campaign", type=Path, help="the campaign's folder")
    data.add_arguments(parser)
    parser.add_argument("--models", type=Path, default=manifest.MODELS, help="folder of the model files")
    parser.add_argument(
        "--nets", nargs="+", metavar="NAME", help="only these nets (default: all with a publish setting)"
    )
    parser.add_argument("--documents", type=Path, nargs="+", default=card.DOCUMENTS, help="documents to update")
    arguments = parser.parse_args()
    try:
        found, faces = results.read(arguments.campaign), data.load(arguments.data, arguments.plus)
        nets = [net for net in found.nets if net.publish]
        if arguments.nets:
            nets = chosen(nets, arguments.nets)
        if not nets:
            soft = arguments.campaign / "soft.npz"
            print(f"{data.PUBLIC}, teachers together: {teach(found, faces, soft):.1%} right\n{soft}")
            return
        for path in write(nets, faces, arguments.models, manifest.MODELS / "crop.json"):
            print(path)
        around = card.write(arguments.documents, arguments.models, faces)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error
    print("figures rewritten. Check these lines, whose figures are written by hand:")
    print("\n".join(around))


if __name__ == "__main__":
    main()
