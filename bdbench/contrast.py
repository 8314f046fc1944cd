"""The contrastive term that the objectives are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def contrast(anchors: Tensor, candidates: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE in one direction (van den Oord et al. 2018, arXiv 1807.03748, equation 4).

    The mean cross-entropy of the rows of `scale * anchors @ candidates.T` with the diagonal as
    target. `anchors`, `candidates`: float [n, d], L2-normalised, row i of one belonging to row i of
    the other; `scale`: scalar, the inverse temperature. Returns a scalar, at least 0.
    """
    import torch
    from torch.nn.functional import cross_entropy

    logits = scale * anchors @ candidates.T
    return cross_entropy(logits, torch.arange(len(anchors), device=anchors.device))
