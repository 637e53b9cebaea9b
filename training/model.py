"""The nets: one body, and a head for each set of labels.

    python -m training.model            # the shipped net: parameters of each part, and multiply-adds

The shipped body is `Residual`, small and trained from random weights; `training.bodies` has others, for teachers. Its
block is two 3x3 convolutions (He et al. 2015, arXiv:1512.03385) and a gate on each channel (squeeze-and-excitation, Hu
et al. 2017, arXiv:1709.01507). Each stage halves the side; all stages except the last have a second block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data import LABELS, PLUS_EMOTIONS, SIDE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from training.data import Faces
    from training.recipe import Architecture


class Block(nn.Module):
    """Two convolutions and a channel gate, added to the input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.squeeze, self.excite = nn.Linear(outputs, outputs // 8), nn.Linear(outputs // 8, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(
                    stride, ceil_mode=True, count_include_pad=False
                ),  # the same size as the strided convolution's output
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, outputs, H / stride, W / stride]``."""
        h = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(h.mean(dim=(2, 3))))))
        return functional.relu(h * gate[:, :, None, None] + self.shortcut(x))


class Net(nn.Module, ABC):
    """Computes logits for FER2013's labels and for FER+'s: a body computes features, and each label set has a head.

    A body implements `describe`, which returns ``width`` features of each face. ``side`` is the input side of the
    trained net, in pixels.
    """

    def __init__(self, width: int, shape: Architecture) -> None:
        super().__init__()
        self.side = shape.side
        self.dropout = nn.Dropout(shape.dropout)
        self.emotion, self.plus = nn.Linear(width, len(LABELS)), nn.Linear(width, len(PLUS_EMOTIONS))

    @abstractmethod
    def describe(self, faces: Tensor) -> Tensor:
        """Return the features ``[N, width]`` of raw grey faces ``[N, 1, H, W]``."""

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of both heads for raw grey faces.

        Args:
            faces: grey 0..255, float32 ``[N, 1, H, W]``; H and W are at least 16.

        Returns:
            Logits of `LABELS` ``[N, 7]`` and of `PLUS_EMOTIONS` ``[N, 8]``.
        """
        seen = self.dropout(self.describe(faces))
        return self.emotion(seen), self.plus(seen)


class Residual(Net):
    """The shipped net."""

    def __init__(self, shape: Architecture) -> None:
        stem, *stages = shape.widths
        super().__init__(stages[-1], shape)
        self.stem = nn.Sequential(nn.Conv2d(1, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        blocks, width = [], stem
        for i, outputs in enumerate(stages):
            blocks.append(Block(width, outputs, 2))
            if i < len(stages) - 1:
                blocks.append(Block(outputs, outputs, 1))
            width = outputs
        self.blocks = nn.Sequential(*blocks)

    def describe(self, faces: Tensor) -> Tensor:
        """Return the mean of each of the last stage's channels."""
        return cast("Tensor", self.blocks(self.stem((faces - 128) / 64)).mean(dim=(2, 3)))


HEADS = {"fer2013": LABELS, "ferplus": PLUS_EMOTIONS}
"""The label set of each of `Net`'s outputs, in their order."""


class Recognizer(nn.Module):
    """The exported net: computes the calibrated probabilities of one head's labels."""

    def __init__(self, net: Net, head: str, temperature: float) -> None:
        super().__init__()
        self.net, self.output, self.temperature = net, list(HEADS).index(head), temperature

    def forward(self, faces: Tensor) -> Tensor:
        """Return probabilities ``[N, C]`` of grey faces ``[N, 1, H, W]``."""
        return torch.softmax(self.net(faces)[self.output] / self.temperature, dim=1)


@torch.no_grad()
def logits_of(net: Net, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of both heads, ``[N, 7]`` and ``[N, 8]``, on the CPU.

    Args:
        net: the net; it runs on the device of its weights.
        faces: uint8 or float32 ``[N, 1, H, W]``, grey 0..255; resized to the net's side.
    """
    net.eval()
    device = next(net.parameters()).device
    batch = 512 if device.type == "cuda" else 64  # larger ones cost memory on a CPU and save no time
    found: list[tuple[Tensor, Tensor]] = []
    for part in torch.split(faces, batch):
        seen = part.to(device).float()
        if seen.shape[-1] != net.side:
            seen = functional.interpolate(seen, size=(net.side, net.side), mode="bilinear")
        emotion, plus = net(seen.contiguous(memory_format=torch.channels_last))
        found.append((emotion.float().cpu(), plus.float().cpu()))
    emotion, plus = (torch.cat(parts) for parts in zip(*found, strict=True))
    return emotion, plus


def accuracy(net: Net, faces: Faces) -> float:
    """Return the accuracy of a net on FER2013's labels."""
    logits, _ = logits_of(net, torch.from_numpy(faces.images)[:, None])
    return float((logits.argmax(dim=1).numpy() == faces.labels).mean())


@torch.no_grad()
def set_norms(net: Net, affine: Mapping[nn.BatchNorm2d, Tensor], faces: Tensor) -> None:
    """Set normalisations so that each multiplies each channel by a given factor and adds a given offset.

    Their means and variances are set to those of their inputs. A net whose normalisations were folded into its
    convolutions can then be trained again.

    Args:
        net: the net; its other weights are already set.
        affine: the factors and the offsets of each normalisation, float32 ``[2, C]``.
        faces: some raw grey faces ``[N, 1, H, W]``, on which the inputs are measured.
    """

    def see(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        factor, offset = affine[norm]
        mean, variance = inputs[0].mean(dim=(0, 2, 3)), inputs[0].var(dim=(0, 2, 3), unbiased=False)
        now = {"running_mean": mean, "running_var": variance, "num_batches_tracked": torch.tensor(1)}
        now |= {"weight": factor * (variance + norm.eps).sqrt(), "bias": offset + factor * mean}
        norm.load_state_dict(now)

    handles = [norm.register_forward_pre_hook(see) for norm in affine]
    net.eval().describe(faces.float())
    for handle in handles:
        handle.remove()


def multiply_adds(net: nn.Module, side: int = SIDE) -> int:
    """Return the multiply-adds of a net's convolutions and dense layers for one face; ``side`` in pixels."""
    total = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        total += cast("Tensor", module.weight).numel() * output[0, 0].numel()

    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        net.eval()(torch.zeros(1, 1, side, side))
    for handle in handles:
        handle.remove()
    return total


def show(net: nn.Module, side: int = SIDE) -> None:
    """Print the parameters of a net's parts, and its multiply-adds for one face; ``side`` in pixels."""
    for name, layer in net.named_children():
        print(f"{name:10}{sum(weights.numel() for weights in layer.parameters()):12,} parameters")
    print(f"{'all':10}{sum(weights.numel() for weights in net.parameters()):12,} parameters")
    print(f"{multiply_adds(net, side) / 1e6:.1f} million multiply-adds for a face of {side} pixels")


def main() -> None:
    """Print the size and cost of the default recipe's net."""
    from training.recipe import Architecture  # noqa: PLC0415 - only this command needs one

    show(Residual(Architecture()))


if __name__ == "__main__":
    main()
