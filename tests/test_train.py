"""The training loop: its schedule, optimiser, batches and one step, against the formulas."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bdbench.augment import image_views
from bdbench.clip import Clip
from bdbench.data import Pairs
from bdbench.errors import CellFailed
from bdbench.hashing import derive_seed
from bdbench.objectives.mmcl import Mmcl
from bdbench.objectives.mmcl_ssl import MmclSsl
from bdbench.schema import Augment, Model, Training
from bdbench.train import _optimizer, fit, learning_rate

CAPTIONS = [f"a {colour} {thing} near the {place}" for colour in ("red", "blue", "green")
            for thing, place in (("kite", "sea"), ("banana", "hill"), ("drum", "road"))] + ["a cat"]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Watched(Pairs):
    """Pairs that write down which of them are asked for."""

    def __init__(self, n: int) -> None:
        drawn = torch.Generator().manual_seed(n)
        pixels = torch.randint(0, 256, (n, 3, 32, 32), generator=drawn, dtype=torch.uint8)
        super().__init__(torch.arange(n), pixels, CAPTIONS[:n])
        self.asked: list[list[int]] = []

    def images(self, index: torch.Tensor) -> torch.Tensor:
        self.asked.append(index.tolist())
        return super().images(index)


class WithHeads(Mmcl):
    """An objective with a layer of its own, which the loss depends on."""

    def heads(self, width: int) -> nn.Module:
        return nn.Linear(4, 1)

    def loss(self, features: Any, heads: Any, scale: Any) -> dict[str, Any]:
        head = heads(features.images[0, :, :4]).sum()
        return super().loss(features, None, scale) | {"head": head}


class Some(Mmcl):
    """An objective that trains on chosen pairs alone."""

    def begin_epoch(self, epoch: int, clip: Clip, pairs: Pairs) -> list[int]:
        return [1, 3, 5, 7 + epoch]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Several threads on models this small only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(seed: int = 0) -> Clip:
    return Clip.build(Model(name="bdbench-tiny", tokenizer="words"), CAPTIONS, seed)


def training(**given: Any) -> Training:
    return Training(**{"epochs": 1, "batch": 4, "lr": 1e-3, **given})


def test_texts_have_no_columns_that_only_pad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdbench.clip._SHORT", 0)
    clip = Clip.build(Model(name="bdbench-mini", tokenizer="words"), CAPTIONS, 0)
    shapes: list[torch.Size] = []
    inner = clip.encode_text
    monkeypatch.setattr(clip, "encode_text", lambda tokens: (
        shapes.append(tokens.shape), inner(tokens))[1])
    texts = ["a kite"] * 7 + ["kite " * 30]
    pairs = Pairs(torch.arange(8), torch.zeros(8, 3, 48, 48, dtype=torch.uint8), texts)
    fit(clip, Mmcl(), pairs, training(), Augment(), seed=1, state=tmp_path / "state")
    assert sorted(shapes) == [(4, 16), (4, 24)]


RATES = [
    # steps, warm-up, step, share of the full rate
    (110, 10, 0, 0.1),
    (110, 10, 4, 0.5),
    (110, 10, 9, 1.0),
    (110, 10, 10, 1.0),
    (110, 10, 35, (2 + math.sqrt(2)) / 4),
    (110, 10, 60, 0.5),
    (110, 10, 85, (2 - math.sqrt(2)) / 4),
    (110, 10, 109, math.sin(math.pi / 200) ** 2),
    (110, 10, 110, 0.0),
    (8, 0, 0, 1.0),
    (8, 0, 4, 0.5),
    (8, 0, 8, 0.0),
    (5, 1, 0, 1.0),
    (4, 10_000, 0, 0.25),
    (4, 10_000, 3, 1.0),
    (4, 4, 3, 1.0),
]


@pytest.mark.parametrize(("steps", "warmup", "step", "share"), RATES)
def test_learning_rate(steps: int, warmup: int, step: int, share: float) -> None:
    rate = learning_rate(step, steps, training(lr=0.02, warmup_steps=warmup))
    assert rate == pytest.approx(0.02 * share, rel=1e-12, abs=1e-15)


def test_the_rate_rises_during_the_warm_up_alone() -> None:
    rates = [learning_rate(step, 50, training(warmup_steps=7)) for step in range(50)]
    assert rates[:7] == sorted(set(rates[:7]))
    assert rates[6:] == sorted(rates[6:], reverse=True)
    assert max(rates) == 1e-3


def test_each_parameter_is_in_one_group_and_only_weights_decay() -> None:
    clip, head = build(), nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    clip.model.visual.trunk.head.bias.requires_grad_(False)
    given = training(lr=3e-3, weight_decay=0.25, beta1=0.8, beta2=0.95, eps=1e-5)
    optimizer = _optimizer([clip.model, head], given)
    assert not optimizer.state
    names = {p: name for module in (clip.model, head) for name, p in module.named_parameters()}
    placed = [(names.pop(p), group) for group in optimizer.param_groups for p in group["params"]]
    assert list(names.values()) == ["visual.trunk.head.bias"]
    for _, group in placed:
        got = (group["lr"], group["betas"], group["eps"])
        assert got == (3e-3, (0.8, 0.95), 1e-5)
        assert not group["amsgrad"]
    decays = {name: group["weight_decay"] for name, group in placed}
    assert set(decays.values()) == {0.25, 0.0}
    # Names are another way to tell than the number of dimensions, which the loop goes by.
    spared = {name for name in decays if name.endswith("bias") or name == "logit_scale" or any(
        part.startswith(("ln_", "bn")) for part in name.split(".")
    )}
    spared |= {"1.weight", "visual.trunk.stem.1.weight"}
    spared |= {f"visual.trunk.stages.{i}.shortcut.1.weight" for i in (1, 2)}
    assert {name for name, decay in decays.items() if decay == 0} == spared
    assert decays["token_embedding.weight"] == decays["visual.trunk.head.weight"] == 0.25


@pytest.mark.parametrize(("start", "end"), [
    (math.log(100) + 0.5, math.log(100)), (-0.5, 0.0), (2.0, 2.0),
])
def test_the_temperature_is_clamped_after_each_step(
    start: float, end: float, tmp_path: Path
) -> None:
    clip = build()
    with torch.no_grad():
        clip.model.logit_scale.fill_(start)
    (entry,) = fit(clip, Mmcl(), Watched(4), training(), Augment(), seed=0, state=tmp_path / "s")
    scale = clip.model.logit_scale.item()
    assert scale == pytest.approx(end, rel=1e-7, abs=0.0011 if start == end else 0)
    assert entry["scale"] == pytest.approx(math.exp(scale), rel=1e-6)


def spy(clip: Clip) -> list[tuple[str, torch.Tensor, bool]]:
    """What the encoders are given from here on, and whether in training mode."""
    seen: list[tuple[str, torch.Tensor, bool]] = []

    def watch(name: str) -> None:
        inner = getattr(clip, name)

        def encode(given: torch.Tensor) -> torch.Tensor:
            seen.append((name, given.clone(), clip.model.training))
            return inner(given)

        setattr(clip, name, encode)

    watch("encode_image")
    watch("encode_text")
    return seen


def test_a_step_sees_the_clean_views_then_the_augmented_ones(tmp_path: Path) -> None:
    clip, pairs, augment = build(), Watched(6), Augment(text=0.5)
    clip.model.eval()
    seen = spy(clip)
    fit(clip, MmclSsl(), pairs, training(batch=6), augment, seed=5, state=tmp_path / "s")
    assert [(name, mode) for name, _, mode in seen] == [
        ("encode_image", True), ("encode_text", True)]
    (_, images, _), (_, tokens, _) = seen
    (order,) = pairs.asked
    assert sorted(order) == list(range(6)) != order
    clean = pairs.pixels[order].float() / 255
    assert torch.equal(images[:6], clean)
    views = torch.Generator().manual_seed(derive_seed(5, "views", 0))
    assert torch.equal(images[6:], image_views(clean, augment, views))
    assert all(not torch.equal(a, b) for a, b in zip(images[:6], images[6:], strict=True))
    captions = [pairs.captions[i] for i in order]
    assert torch.equal(tokens[:6], clip.tokenize(captions))
    words = [set(row.tolist()) for row in tokens]
    assert all(b <= a for a, b in zip(words[:6], words[6:], strict=True))  # of the same caption
    assert not torch.equal(tokens[:6], tokens[6:])


def test_one_view_is_the_clean_one(tmp_path: Path) -> None:
    clip, pairs = build(), Watched(4)
    seen = spy(clip)
    fit(clip, Mmcl(), pairs, training(), Augment(), seed=5, state=tmp_path / "s")
    (_, images, _), (_, tokens, _) = seen
    assert torch.equal(images, pairs.pixels[pairs.asked[0]].float() / 255)
    assert torch.equal(tokens, clip.tokenize([pairs.captions[i] for i in pairs.asked[0]]))


def naive_loss(clip: Clip, images: torch.Tensor, tokens: torch.Tensor, n: int) -> torch.Tensor:
    """MMCL + SSL of protocol section 1.1, written with log-sum-exp and the diagonal."""
    net = clip.model
    normal = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    i, t = (x / x.norm(dim=1, keepdim=True)
            for x in (net.encode_image(normal), net.encode_text(tokens)))

    def ce(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        logits = net.logit_scale.exp() * a @ b.T
        return (logits.logsumexp(1) - logits.diagonal()).mean()

    clip_term = (ce(i[:n], t[:n]) + ce(t[:n], i[:n])) / 2
    return clip_term + (ce(i[:n], i[n:]) + ce(t[:n], t[n:])) / 2


@pytest.mark.parametrize("shares", [[1.0], [1.0, 1.0, 0.5]])
def test_steps_are_those_of_adamw(shares: list[float], tmp_path: Path) -> None:
    """Loshchilov and Hutter 2019, algorithm 2: the decay is the rate times the weight."""
    lr, decay, beta1, beta2, eps = 0.01, 0.5, 0.8, 0.9, 1e-3
    given = training(epochs=len(shares), batch=6, lr=lr, warmup_steps=1, weight_decay=decay,
                     beta1=beta1, beta2=beta2, eps=eps)
    clip, other = build(), build()
    seen = spy(clip)
    log = fit(clip, MmclSsl(), Watched(6), given, Augment(), seed=5, state=tmp_path / "s")

    other.model.train()
    parameters = dict(other.model.named_parameters())
    first = {name: torch.zeros_like(p) for name, p in parameters.items()}
    second = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for k, share in enumerate(shares, start=1):
        (_, images, _), (_, tokens, _) = seen[2 * k - 2 : 2 * k]
        loss = naive_loss(other, images, tokens, 6)
        assert log[k - 1]["clip"] + log[k - 1]["ssl"] == pytest.approx(loss.item(), rel=1e-4)
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        with torch.no_grad():
            for (name, p), g in zip(parameters.items(), gradients, strict=True):
                first[name] = beta1 * first[name] + (1 - beta1) * g
                second[name] = beta2 * second[name] + (1 - beta2) * g * g
                m, v = first[name] / (1 - beta1**k), second[name] / (1 - beta2**k)
                shrink = decay if p.ndim > 1 else 0.0
                p.copy_(p - lr * share * (m / (v.sqrt() + eps) + shrink * p))
    assert not torch.equal(build().state()["token_embedding.weight"][0],
                           other.state()["token_embedding.weight"][0])
    for name, value in other.state().items():  # the running statistics included
        torch.testing.assert_close(clip.state()[name], value, rtol=1e-3, atol=2e-5, msg=name)


def test_a_batch_of_fewer_pairs_is_dropped(tmp_path: Path) -> None:
    pairs = Watched(10)
    fit(build(), Mmcl(), pairs, training(epochs=2), Augment(), seed=1, state=tmp_path / "s")
    assert [len(batch) for batch in pairs.asked] == [4, 4, 4, 4]
    for epoch in (pairs.asked[:2], pairs.asked[2:]):
        assert len(set(epoch[0] + epoch[1])) == 8


def test_each_epoch_has_its_order_and_the_seed_gives_it(tmp_path: Path) -> None:
    def orders(seed: int, name: str) -> list[list[int]]:
        pairs = Watched(8)
        fit(build(), Mmcl(), pairs, training(epochs=3), Augment(), seed=seed,
            state=tmp_path / name)
        return [pairs.asked[i] + pairs.asked[i + 1] for i in (0, 2, 4)]

    found = orders(1, "a")
    assert all(sorted(order) == list(range(8)) for order in found)
    assert found[0] != found[1] != found[2] != found[0]
    assert orders(1, "b") == found
    assert orders(2, "c") != found


def test_an_objective_may_choose_the_pairs_of_an_epoch(tmp_path: Path) -> None:
    pairs = Watched(9)
    fit(build(), Some(), pairs, training(epochs=2), Augment(), seed=1, state=tmp_path / "s")
    assert [sorted(batch) for batch in pairs.asked] == [[1, 3, 5, 7], [1, 3, 5, 8]]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_fails_the_cell(
    bad: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one term of one batch, which trains nothing; the epoch before it stays."""
    inner, calls = MmclSsl.loss, iter(range(9))

    def loss(self: MmclSsl, *given: Any) -> dict[str, Any]:
        terms = inner(self, *given)
        return terms | {"ssl": terms["ssl"].detach() * bad} if next(calls) == 2 else terms

    monkeypatch.setattr(MmclSsl, "loss", loss)
    ended: list[int] = []
    with pytest.raises(CellFailed, match=r"not finite in epoch 2 .*`0\.0123`") as caught:
        fit(build(), MmclSsl(), Watched(8), training(epochs=3, lr=0.0123), Augment(), seed=1,
            state=tmp_path / "s", after_epoch=ended.append)
    assert caught.value.hint == "lower the learning rate"
    assert ended == [1]


def test_a_batch_larger_than_the_pairs_fails_the_cell(tmp_path: Path) -> None:
    with pytest.raises(CellFailed, match="batch of `9` is larger than the `8` training pairs"):
        fit(build(), Mmcl(), Watched(8), training(batch=9), Augment(), seed=1,
            state=tmp_path / "s")


@pytest.mark.parametrize("objective", [MmclSsl(), WithHeads()])
def test_global_randomness_is_neither_used_nor_moved(objective: Mmcl, tmp_path: Path) -> None:
    def run(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        clip, before = build(), (torch.get_rng_state(), np.random.get_state(), random.getstate())
        fit(clip, objective, Watched(8), training(), Augment(text=0.5), seed=1,
            state=tmp_path / str(seed))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert all(map(np.array_equal, np.random.get_state(), before[1]))
        assert random.getstate() == before[2]
        return clip.state()

    one, two = run(1), run(2)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_heads_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[nn.Module] = []
    inner = WithHeads.heads

    def heads(self: WithHeads, width: int) -> nn.Module:
        made.append(inner(self, width))
        made.append(inner(self, width))
        made[1].load_state_dict(made[0].state_dict())
        return made[0]

    monkeypatch.setattr(WithHeads, "heads", heads)
    fit(build(), WithHeads(), Watched(4), training(), Augment(), seed=1, state=tmp_path / "s")
    assert not any(map(torch.equal, made[0].parameters(), made[1].parameters()))


def test_heads_are_told_the_width_of_the_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(Mmcl, "heads", lambda self, width: told.append(width))
    fit(build(), Mmcl(), Watched(4), training(), Augment(), seed=1, state=tmp_path / "s")
    assert told == [64]


def test_the_log_has_the_mean_of_each_term_by_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, terms = MmclSsl.loss, []

    def loss(self: MmclSsl, *given: Any) -> dict[str, Any]:
        terms.append(inner(self, *given))
        return terms[-1]

    monkeypatch.setattr(MmclSsl, "loss", loss)
    log = fit(build(), MmclSsl(), Watched(10), training(epochs=2), Augment(), seed=1,
              state=tmp_path / "s")
    assert [set(entry) for entry in log] == [{"epoch", "clip", "ssl", "scale"}] * 2
    assert [entry["epoch"] for entry in log] == [1, 2]
    for entry, (a, b) in zip(log, (terms[:2], terms[2:]), strict=True):
        for name in ("clip", "ssl"):
            assert entry[name] == pytest.approx((a[name].item() + b[name].item()) / 2, rel=1e-6)


def test_a_second_fit_starts_from_the_weights_alone(tmp_path: Path) -> None:
    """Protocol P1: no moments of an earlier training, the attacker's say, reach a defense."""
    clip, other = build(), build(7)
    fit(clip, Mmcl(), Watched(8), training(), Augment(), seed=1, state=tmp_path / "a")
    other.load_state(clip.state())
    for i, each in enumerate((clip, other)):
        fit(each, Mmcl(), Watched(8), training(), Augment(), seed=2, state=tmp_path / f"b{i}")
    one, two = clip.state(), other.state()
    assert all(torch.equal(one[name], two[name]) for name in one)
