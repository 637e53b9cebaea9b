"""`batched_nms`, as torchvision has it."""

import torch


def batched_nms(boxes, scores, idxs, iou_threshold):
    """Return the indices that survive suppression within each group, highest score first."""
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.int64)
    x1, y1, x2, y2 = (boxes + (idxs.to(boxes) * (boxes.max() + 1))[:, None]).unbind(1)
    areas = (x2 - x1) * (y2 - y1)
    order = scores.argsort(descending=True, stable=True)
    keep = []
    while len(order):
        best, order = order[0], order[1:]
        keep.append(best)
        width = (x2[order].clamp(max=x2[best]) - x1[order].clamp(min=x1[best])).clamp(min=0)
        height = (y2[order].clamp(max=y2[best]) - y1[order].clamp(min=y1[best])).clamp(min=0)
        shared = width * height
        order = order[shared / (areas[best] + areas[order] - shared) <= iou_threshold]
    return torch.stack(keep)
