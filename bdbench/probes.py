"""Classifiers on image features: what a model knows of the classes without its text encoder."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bdbench.api import PROBES, Probe

NEIGHBOURS = 50
"""At most; no more than there are images of a class on average."""
C = 30.0
"""Inverse strength of the linear probe's penalty, on features of norm one.

The 0.316 that the authors of CLIP state is for features of a norm of about ten."""
_ITERATIONS = 1000
_LARGEST = 2**25

Classify = Callable[[Tensor], Tensor]
"""L2-normalised features, float [b, d], to classes, int64 [b]; -1 for no answer."""


def fit(features: Tensor, labels: Tensor, classes: int) -> dict[Probe, Classify]:
    """A linear probe and nearest neighbours, on `features`, float [n, d], of norm one.

    `labels`: int64 [n]. Both answer -1 where the features are not finite.
    """
    if not torch.isfinite(features).all():
        return dict.fromkeys(PROBES, _none)
    return {"linear": _linear(features, labels), "knn": _nearest(features, labels, classes)}


def _none(features: Tensor) -> Tensor:
    return torch.full((len(features),), -1, device=features.device)


def _linear(features: Tensor, labels: Tensor) -> Classify:
    """Logistic regression with an L2 penalty, by L-BFGS in float64."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if (labels == labels[0]).all():
        only = int(labels[0])
        return lambda given: torch.full((len(given),), only, device=given.device)
    probe = LogisticRegression(C=C, max_iter=_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(features.double().cpu().numpy(), labels.cpu().numpy())
    weight, bias = torch.from_numpy(probe.coef_), torch.from_numpy(probe.intercept_)
    names = torch.from_numpy(probe.classes_.astype(np.int64))

    def classify(given: Tensor) -> Tensor:
        scores = given.double().cpu() @ weight.T + bias
        # Of two classes scikit-learn has the second's score alone.
        chosen = (scores[:, 0] > 0).long() if len(names) == 2 else scores.argmax(1)
        return names[chosen].to(given.device)

    return classify


def _nearest(features: Tensor, labels: Tensor, classes: int) -> Classify:
    """The class of most of the nearest by cosine; of equally many, the lowest."""
    count = max(1, min(NEIGHBOURS, len(labels) // classes))

    def classify(given: Tensor) -> Tensor:
        found = []
        for part in given.split(max(1, _LARGEST // len(features))):  # type: ignore[no-untyped-call]
            near = labels[(part @ features.T).topk(count, dim=1).indices]
            votes = torch.zeros(len(part), classes, device=given.device)
            votes.scatter_add_(1, near, torch.ones_like(near, dtype=votes.dtype))
            order = torch.sort(votes, dim=1, descending=True, stable=True).indices
            found.append(order[:, 0])
        return torch.cat(found)

    return classify
