"""torchvision, importable beside a CPU build of torch."""

from __future__ import annotations

import torch


def declare_operators() -> None:
    """To be called before the first import of torchvision, or of what imports it.

    Package indexes carry no CPU build of torchvision, and the CUDA build refuses to import beside a
    CPU torch because two operators that nobody here calls are missing: this declares them.
    """
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)
