r"""Export a checkpoint as the ONNX file that fer_stream loads: calibrate, check against torch, quantize, add metadata.

    python -m training.export runs/quick data/fer2013.csv                                 # runs/quick/emotion.onnx
    python -m training.export runs/emotion data/fer2013.csv --output models/emotion.onnx    # the one that is shipped
    python -m training.export runs/emotion data/fer2013.csv --plus data/fer2013new.csv \
        --head ferplus --output models/emotion-ferplus.onnx                                 # FER+'s eight labels

`fer_stream.inference.classifiers.onnx` defines the file's contract. Normalisation, softmax and the temperature are in
the graph; the temperature is fitted on PublicTest. The crop is the one that ``python -m training.crop`` measured.
``--float32`` skips quantization (`training.quantize`), for accelerators that are slower with 8-bit numbers.
``--rebalance`` removes a share of the class imbalance, so that rare labels are recognised more often.
"""

from __future__ import annotations

import argparse
import json
import warnings
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch

from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.inference import models
from fer_stream.inference.classifiers.onnx import Crop
from training import data, manifest, metrics
from training.loop import load_net
from training.model import HEADS, Recognizer, logits_of
from training.objective import log_prior
from training.quantize import quantize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.data import Faces
    from training.model import Net

TOLERANCE = 1e-5
"""Largest absolute difference allowed between torch's probabilities and those of the file before quantization."""

OPSET = 17


def fit(net: Net, head: str, faces: Faces) -> float:
    """Return the temperature that calibrates one of a net's heads on the faces given.

    Raises:
        SourceError: the head is FER+'s, and the faces have no votes.
    """
    faces, labels = data.truth(faces, HEADS[head])
    logits = logits_of(net, torch.from_numpy(faces.images)[:, None])[list(HEADS).index(head)].double()
    return metrics.fit_temperature(torch.softmax(logits, dim=1).numpy(), labels)


def rebalance(net: Net, head: str, faces: Faces, share: float) -> Net:
    """Return a copy of a net with a share of the class imbalance removed from a head's logits.

    This is the logit adjustment of a trained net (Menon et al. 2020, arXiv:2007.07314): ``share * log p(class)`` is
    subtracted from the head's bias. Rare labels are recognised more often, and frequent ones less often. The share adds
    to the one that ``loss.prior`` or ``loss.votes_prior`` of the recipe has removed in training.

    Args:
        net: the net.
        head: one of `HEADS`.
        faces: the faces whose labels give the class frequencies; a class without faces counts as one face.
        share: 0 changes nothing; 1 assumes that all labels are equally likely.

    Raises:
        SourceError: the head is FER+'s, and the faces have no votes.
    """
    _, labels = data.truth(faces, HEADS[head])
    counts = np.bincount(labels, minlength=len(HEADS[head])).clip(min=1)
    copy = deepcopy(net)
    with torch.no_grad():
        (copy.emotion, copy.plus)[list(HEADS).index(head)].bias.sub_(log_prior(torch.from_numpy(counts).float(), share))
    return copy


def export(net: Net, head: str, temperature: float, path: Path) -> float:
    """Write a net as ONNX; return the largest absolute difference between its probabilities and torch's.

    Raises:
        RuntimeError: the difference exceeds `TOLERANCE`.
    """
    recognizer = Recognizer(net, head, temperature).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # dynamo=False is deprecated, but makes smaller graphs
        torch.onnx.export(
            recognizer,
            (torch.zeros(2, 1, data.SIDE, data.SIDE),),
            str(path),
            input_names=["faces"],
            output_names=["probabilities"],
            dynamic_axes={"faces": {0: "N"}, "probabilities": {0: "N"}},
            opset_version=OPSET,
            dynamo=False,
        )
    noise = np.random.default_rng(0).uniform(0, 255, (16, 1, data.SIDE, data.SIDE)).astype(np.float32)
    with torch.no_grad():
        expected = recognizer(torch.from_numpy(noise)).numpy()
    difference = float(np.abs(run(path, noise) - expected).max())
    if difference > TOLERANCE:
        raise RuntimeError(f"{path} differs from torch by {difference:.1e}, more than {TOLERANCE:.0e}")
    return difference


def describe(path: Path, head: str, temperature: float, crop: Crop, version: str, trained_on: str = "unknown") -> None:
    """Write the metadata of `fer_stream.inference.classifiers.onnx` into an ONNX file, and check the file."""
    model = onnx.load(path)
    onnx.helper.set_model_props(
        model,
        {
            "labels": json.dumps(HEADS[head]),
            "crop": crop.to_json(),
            "version": version,
            "license": "MIT",
            "trained_on": trained_on,
            "input_size": str(data.SIDE),
            "temperature": str(temperature),
        },
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def run(path: Path, faces: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an exported file's probabilities, float32 ``[N, C]``, of faces, float32 ``[N, 1, H, W]``."""
    return models.load(path).run(("probabilities",), {"faces": faces})[0]


def write(
    net: Net,
    head: str,
    faces: Faces,
    path: Path,
    crop: Crop,
    version: str,
    trained_on: str,
    *,
    share: float = 0.0,
    float32: bool = False,
) -> tuple[float, float]:
    """Rebalance a net (optional), calibrate it on PublicTest, write it as ONNX, quantize it and add its metadata.

    Args:
        net: the net.
        head: one of `HEADS`.
        faces: all the data; the Training split is used to fit the scales of the quantized numbers and, if ``share`` is
            above 0, for the class frequencies.
        path: the file to write.
        crop: how a face is cropped for the model.
        version: the version in the file's metadata.
        trained_on: the description of the data in the file's metadata.
        share: share of the class imbalance to remove, 0 to 1 (`rebalance`).
        float32: whether to skip quantization.

    Returns:
        The temperature, and the largest absolute difference between the file's probabilities, before quantization, and
        torch's.

    Raises:
        RuntimeError: the difference exceeds `TOLERANCE`.
        SourceError: the data lacks a split, or the votes that the head needs.
    """
    if share:
        net = rebalance(net, head, faces.split(data.TRAINING), share)
    temperature = fit(net, head, faces.split(data.PUBLIC))
    difference = export(net, head, temperature, path)
    if not float32:
        quantize(path, faces.split(data.TRAINING).images)
    describe(path, head, temperature, crop, version, trained_on)
    return temperature, difference


def read_crop(path: Path) -> Crop:
    """Return the crop that `training.crop` measured.

    Raises:
        ConfigError: the file cannot be read, or is not a crop.
    """
    try:
        return Crop.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; python -m training.crop writes it") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not a crop: {error}; python -m training.crop writes it") from error


def main() -> None:
    """Calibrate, export, check, quantize, and add metadata."""
    parser = argparse.ArgumentParser(description="Export a run's net to ONNX.")
    parser.add_argument("run", type=Path, help="the run's folder")
    data.add_arguments(parser)
    parser.add_argument("--head", choices=HEADS, default="fer2013", help="the head to export; it determines the labels")
    parser.add_argument("--output", type=Path, help="file to write (default: emotion.onnx in the run's folder)")
    parser.add_argument("--crop", type=Path, default=manifest.MODELS / "crop.json", help="file of training.crop")
    parser.add_argument(
        "--trained-on",
        default="FER2013 (Training split), FER+ votes",
        help="description of the data in the file's metadata (default: %(default)s)",
    )
    parser.add_argument(
        "--rebalance",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="remove this share of the class imbalance, 0 to 1, so that rare labels are recognised more often",
    )
    parser.add_argument("--float32", action="store_true", help="do not quantize")
    parser.add_argument("--version", help="version in the file's metadata (default: run and date)")
    arguments = parser.parse_args()
    if not 0 <= arguments.rebalance <= 1:
        parser.error(f"--rebalance {arguments.rebalance} is not between 0 and 1")
    output: Path = arguments.output or arguments.run / "emotion.onnx"
    version = arguments.version or f"{arguments.run.name} {datetime.now(UTC):%Y-%m-%d}"
    try:
        net, crop = load_net(arguments.run), read_crop(arguments.crop)
        faces = data.load(arguments.data, arguments.plus)
        temperature, difference = write(
            net,
            arguments.head,
            faces,
            output,
            crop,
            version,
            arguments.trained_on,
            share=arguments.rebalance,
            float32=arguments.float32,
        )
    except FerStreamError as error:
        raise SystemExit(str(error)) from error
    if output.parent.resolve() == manifest.MODELS:
        manifest.write()
    size = output.stat().st_size / 2**20
    numbers = "float32" if arguments.float32 else "int8"
    print(f"{output}: {version}, {numbers}, {size:.1f} MiB, temperature {temperature:.3f}, difference {difference:.1e}")


if __name__ == "__main__":
    main()
