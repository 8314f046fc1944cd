from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from bdbench.api import Features
from bdbench.contrast import contrast
from bdbench.objectives.mmcl import Mmcl
from bdbench.objectives.mmcl_ssl import MmclSsl
from bdbench.objectives.ssl import Ssl


def naive_contrast(a, b, scale):
    """Double loop over pairs, protocol section 1.1."""
    total = 0.0
    for i in range(len(a)):
        logits = [scale * sum(float(x) * float(y) for x, y in zip(a[i], b[j], strict=True))
                  for j in range(len(b))]
        total += math.log(sum(math.exp(z) for z in logits)) - logits[i]
    return total / len(a)


def naive_terms(images, texts, scale):
    clip = naive_contrast(images[0], texts[0], scale) + naive_contrast(texts[0], images[0], scale)
    ssl = naive_contrast(images[0], images[1], scale) + naive_contrast(texts[0], texts[1], scale)
    return {"clip": clip / 2, "ssl": ssl / 2}


def draw(n=7, d=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    return tuple(
        normalize(torch.randn(2, n, d, generator=g, dtype=torch.float64), dim=-1) for _ in "it"
    )


CASES = [
    (Mmcl(), {"clip": 1.0}, 1),
    (Ssl(), {"ssl": 1.0}, 2),
    (MmclSsl(), {"clip": 1.0, "ssl": 1.0}, 2),
    (MmclSsl(clip_weight=0.5, ssl_weight=8.0), {"clip": 0.5, "ssl": 8.0}, 2),
]


@pytest.mark.parametrize(("objective", "weights", "views"), CASES)
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_loss_agrees_with_the_formula(objective, weights, views, scale):
    images, texts = draw()
    assert objective.views == views
    features = Features(images[:views], texts[:views])
    got = objective.loss(features, None, torch.tensor(scale, dtype=torch.float64))
    naive = naive_terms(images.numpy(), texts.numpy(), scale)
    assert list(got) == list(weights)
    for name, weight in weights.items():
        assert got[name].shape == ()
        assert float(got[name]) == pytest.approx(weight * naive[name], rel=1e-10)


@pytest.mark.parametrize(("objective", "weights", "views"), CASES)
def test_gradient_agrees_with_finite_differences(objective, weights, views):
    images, texts = draw(n=3, d=3)
    scale = 5.0

    def value(values):
        images, texts = values[:-1].reshape(2, 2, 3, 3)
        naive = naive_terms(images, texts, values[-1])
        return sum(weight * naive[name] for name, weight in weights.items())

    at = np.concatenate([images.numpy().ravel(), texts.numpy().ravel(), [scale]])
    numeric = np.array([
        (value(at + step) - value(at - step)) / 2e-6 for step in 1e-6 * np.eye(len(at))
    ])
    leaf_images, leaf_texts = images.requires_grad_(), texts.requires_grad_()
    leaf_scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    terms = objective.loss(Features(leaf_images[:views], leaf_texts[:views]), None, leaf_scale)
    sum(terms.values()).backward()
    got = np.concatenate([
        leaf_images.grad.numpy().ravel(), leaf_texts.grad.numpy().ravel(),
        [float(leaf_scale.grad)],
    ])
    np.testing.assert_allclose(got, numeric, atol=1e-7)
    for leaf in (leaf_images, leaf_texts):
        assert leaf.grad[0].abs().sum() > 0
        assert (leaf.grad[1].abs().sum() > 0) == (views == 2)


def test_contrast_goes_one_way():
    a, b = draw()[0]
    scale = torch.tensor(10.0)
    assert float(contrast(a, b, scale)) != pytest.approx(float(contrast(b, a, scale)))


def test_contrast_of_equal_embeddings_is_the_logarithm_of_their_number():
    same = normalize(torch.ones(6, 4), dim=-1)
    assert float(contrast(same, same, torch.tensor(20.0))) == pytest.approx(math.log(6), rel=1e-6)


def test_contrast_of_orthogonal_embeddings_is_nearly_0():
    assert float(contrast(torch.eye(6), torch.eye(6), torch.tensor(100.0))) < 1e-6
