"""Export MTCNN's three nets from facenet-pytorch's own weights to ONNX.

    python -m training.mtcnn            # writes models/mtcnn-{pnet,rnet,onet}.onnx and models/SHA256SUMS

The layers are those of Zhang et al. 2016 (https://arxiv.org/abs/1604.02878) in facenet-pytorch's port. They are
repeated here because importing that package needs torchvision, but reading its weights does not. Inputs and outputs of
the graphs (float32; N is dynamic, and so are P-Net's H and W):

| file        | input `pixels`    | outputs                                                                       |
|-------------|-------------------|-------------------------------------------------------------------------------|
| mtcnn-pnet  | ``[N, 3, H, W]``  | `scores` ``[N, H', W']``, `offsets` ``[N, 4, H', W']``                        |
| mtcnn-rnet  | ``[N, 3, 24, 24]``| `scores` ``[N]``, `offsets` ``[N, 4]``                                        |
| mtcnn-onet  | ``[N, 3, 48, 48]``| `scores` ``[N]``, `offsets` ``[N, 4]``, `landmarks` ``[N, 10]`` (5 x, 5 y)    |

Pixels are BGR, as OpenCV gives them, and normalised by ``(p - 127.5) / 128``. The weights were trained on RGB, so the
first layer's input channels are reversed at export, instead of each frame's channels at run time.

onnxruntime has no vector code for PReLU, which took a third to a half of each net's time. `lean` replaces it by other
operations. It moves the first PReLU behind the first pooling, where a quarter of the pixels remain.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from fer_stream.inference import models
from training import manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

TOLERANCE = 2e-6
"""Largest absolute difference allowed between a graph's outputs and torch's."""

OPSET = 17

LANES = 16
"""Channels that onnxruntime computes at once with AVX-512. It keeps its own memory layout for a layer whose number of
channels is a multiple of this."""


class PNet(nn.Module):
    """Proposes: a fully convolutional scan of 12x12 windows at a stride of 2."""

    outputs = ("scores", "offsets")
    axes: ClassVar = {
        "pixels": {0: "N", 2: "H", 3: "W"},
        "scores": {0: "N", 1: "rows", 2: "columns"},
        "offsets": {0: "N", 2: "rows", 3: "columns"},
    }
    size = 12

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4 = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return scores and box offsets of every window."""
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.prelu2(self.conv2(x))
        x = self.conv4(self.prelu3(self.conv3(x)))
        return x[:, 0].sigmoid(), x[:, 1:]

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load facenet-pytorch's weights, which have one layer for two scores and another for the offsets.

        The softmax of two scores is the sigmoid of their difference, so a single layer can compute everything.
        """
        heads = {}
        for part in ("weight", "bias"):
            two, offsets = state[f"conv4_1.{part}"], state[f"conv4_2.{part}"]
            heads[f"conv4.{part}"] = torch.cat((two[1:] - two[:1], offsets))
        rest = {key: value for key, value in state.items() if not key.startswith("conv4")}
        return super().load_state_dict(rest | heads, strict, assign)


class RNet(nn.Module):
    """Refines: 24x24 crops of the proposals."""

    outputs = ("scores", "offsets")
    axes: ClassVar = {"pixels": {0: "N"}, "scores": {0: "N"}, "offsets": {0: "N"}}
    size = 24

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return scores and box offsets of every crop."""
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x))
        x = self.prelu4(self.dense4(_column_major(x)))
        return self.dense5_1(x).softmax(dim=1)[:, 1], self.dense5_2(x)


class ONet(nn.Module):
    """Makes the final boxes and landmarks: 48x48 crops of the refined boxes."""

    outputs = ("scores", "offsets", "landmarks")
    axes: ClassVar = {"pixels": {0: "N"}, "scores": {0: "N"}, "offsets": {0: "N"}, "landmarks": {0: "N"}}
    size = 48

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return scores, box offsets and landmarks of every crop."""
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(_column_major(x)))
        return self.dense6_1(x).softmax(dim=1)[:, 1], self.dense6_2(x), self.dense6_3(x)


def _column_major(x: Tensor) -> Tensor:
    # The weights come from Caffe under MATLAB, which stores arrays in column-major order.
    return x.permute(0, 3, 2, 1).flatten(1)


Net = PNet | RNet | ONet
NETS: dict[str, type[Net]] = {"pnet": PNet, "rnet": RNet, "onet": ONet}


class Slopes(nn.Module):
    """Computes `nn.PReLU` with ``slopes`` (float32 ``[C]``), in operations for which onnxruntime has vector code.

    Multiplications and additions of channels keep onnxruntime's own layout for convolutions; a maximum does not.
    """

    slopes: Tensor
    rest: Tensor

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.register_buffer("slopes", slopes[:, None, None].clone())
        self.register_buffer("rest", 1 - self.slopes)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (float32 ``[N, C, H, W]``) where it is positive and ``slope * x`` elsewhere."""
        return self.slopes * x + self.rest * x.relu()


class AfterPool(nn.Module):
    """The part of a PReLU that is moved from before a maximum pooling to after it.

    A slope that is not negative keeps the order of values, so it can be applied after the pooling. With a negative
    slope PReLU is `max(x, slope * x)`, and the maximum of a window is the larger of the maxima of ``x`` and of
    ``slope * x``: the convolution computes both, and both are pooled. The first ``falling`` channels are those with
    negative slopes. After all channels follow the ``slope * x`` of these, then padding up to a multiple of `LANES`.
    """

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.falling, self.channels = int((slopes < 0).sum()), len(slopes)
        self.rising = Slopes(slopes[self.falling :])

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, C, H, W]`` of at least ``[N, C + falling, H, W]``."""
        parts = [self.falling, self.channels - self.falling, self.falling, x.shape[1] - self.channels - self.falling]
        falling, rising, sloped, _ = torch.split(x, parts, dim=1)
        return torch.cat((falling.maximum(sloped), self.rising(rising)), dim=1)


class Sloped(nn.Module):
    """A 1x1 convolution that follows `Slopes`, with the slopes folded into its weights."""

    def __init__(self, slopes: Slopes, conv: nn.Conv2d) -> None:
        super().__init__()
        self.below, self.above = (nn.Conv2d(conv.in_channels, conv.out_channels, 1) for _ in range(2))
        self.below.weight.copy_(conv.weight * slopes.slopes)
        self.above.weight.copy_(conv.weight * slopes.rest)
        cast("Tensor", self.below.bias).copy_(cast("Tensor", conv.bias))
        self.above.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of the output of `Slopes` for ``x`` (float32 ``[N, C, H, W]``)."""
        convolved: Tensor = self.below(x) + self.above(x.relu())
        return convolved


def lean(net: Net) -> Net:
    """Return an equivalent net that onnxruntime computes faster."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        order = net.prelu1.weight.sign().argsort(stable=True)  # negative ones first
        first = net.prelu1.weight[order]
        falling = first < 0
        weight, bias = net.conv1.weight[order], cast("Tensor", net.conv1.bias)[order]
        weight = torch.cat((weight, (first[:, None, None, None] * weight)[falling]))
        bias = torch.cat((bias, (first * bias)[falling]))
        spare = -len(bias) % LANES
        net.conv1 = nn.Conv2d(3, len(bias) + spare, 3)
        net.conv1.weight.copy_(nn.functional.pad(weight, (0, 0, 0, 0, 0, 0, 0, spare)))
        cast("Tensor", net.conv1.bias).copy_(nn.functional.pad(bias, (0, spare)))
        net.prelu1 = cast("nn.PReLU", nn.Identity())
        net.pool1 = cast("nn.MaxPool2d", nn.Sequential(net.pool1, AfterPool(first)))
        net.conv2.weight.copy_(net.conv2.weight[:, order])
        net.prelu2 = cast("nn.PReLU", Slopes(net.prelu2.weight))
        slopes = Slopes(net.prelu3.weight)
        if isinstance(net, PNet):
            net.prelu3, net.conv4 = cast("nn.PReLU", nn.Identity()), cast("nn.Conv2d", Sloped(slopes, net.conv4))
        else:
            net.prelu3 = cast("nn.PReLU", slopes)
    return net.eval()


def load(name: str) -> Net:
    """Return one of `NETS` with facenet-pytorch's weights, for BGR instead of RGB.

    Raises:
        SystemExit: facenet-pytorch is not installed.
    """
    package = importlib.util.find_spec("facenet_pytorch")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("facenet-pytorch is not installed: pip install 'fer-stream[train]'")
    weights = Path(package.submodule_search_locations[0]) / "data" / f"{name}.pt"
    net = NETS[name]()
    net.load_state_dict(torch.load(weights, weights_only=True))
    with torch.no_grad():
        net.conv1.weight.copy_(net.conv1.weight.flip(1))
    return net.eval()


def export(name: str, folder: Path) -> float:
    """Write ``folder/mtcnn-<name>.onnx``; return the largest absolute difference between its outputs and torch's.

    Raises:
        RuntimeError: the difference exceeds `TOLERANCE`.
    """
    net, path = load(name), folder / f"mtcnn-{name}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # dynamo=False is deprecated, but the new exporter fixes P-Net's H and W
        torch.onnx.export(
            lean(net),
            (torch.zeros(2, 3, net.size, net.size),),
            str(path),
            input_names=["pixels"],
            output_names=list(net.outputs),
            dynamic_axes={value: net.axes[value] for value in ("pixels", *net.outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(path)
    version = importlib.metadata.version("facenet-pytorch")
    onnx.helper.set_model_props(
        model,
        {
            "version": f"mtcnn-{name} of facenet-pytorch {version}",
            "license": "MIT",
            "source": "https://github.com/timesler/facenet-pytorch",
        },
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)

    difference = max(_difference(net, path, seed) for seed in range(8))
    if difference > TOLERANCE:
        raise RuntimeError(f"{path} differs from torch by {difference:.1e}, more than {TOLERANCE:.0e}")
    return difference


def _difference(net: Net, path: Path, seed: int) -> float:
    height, width = (60 + 7 * seed, 70 + 11 * seed) if isinstance(net, PNet) else (net.size, net.size)
    noise = np.random.default_rng(seed).integers(0, 256, (8, 3, height, width))
    pixels = ((noise - 127.5) / 128).astype(np.float32)
    with torch.no_grad():  # in float64: otherwise torch's own rounding errors would count as the graph's
        expected = copy.deepcopy(net).double()(torch.from_numpy(pixels).double())
    got = models.load(path).run(net.outputs, {"pixels": pixels})
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(got, expected, strict=True))


def main() -> None:
    """Export all three nets and update the manifest."""
    parser = argparse.ArgumentParser(description="Export MTCNN's nets from facenet-pytorch's weights to ONNX.")
    parser.add_argument("--models", type=Path, default=manifest.MODELS, help="folder to write to")
    folder = parser.parse_args().models
    folder.mkdir(parents=True, exist_ok=True)
    for name in NETS:
        print(f"mtcnn-{name}.onnx: largest difference to torch {export(name, folder):.1e}")
    manifest.write(folder)


if __name__ == "__main__":
    main()
