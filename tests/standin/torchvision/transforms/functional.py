"""`to_tensor`, as torchvision has it for float arrays."""

import torch


def to_tensor(picture):
    """Return ``[H, W, C]`` as a tensor ``[C, H, W]``."""
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()
