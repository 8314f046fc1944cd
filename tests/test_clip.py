"""The model with its tokenizer: head, tokens, encoders, files, and the order of the words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bdbench.clip import Clip
from bdbench.errors import BdbenchError
from bdbench.schema import Model
from bdbench.stages.evaluate import top_classes
from bdbench.words import WordTokenizer

TINY = Model(name="bdbench-tiny", tokenizer="words")
MINI = Model(name="bdbench-mini", tokenizer="words")
CAPTIONS = ["a red kite", "a blue drum and a kite", "the zebra by the sea", "one banana", "a kite"]
LONG = "kite " * 40
PAD, START, UNKNOWN, END = 0, 1, 2, 255


def build(seed: int = 0, captions: list[str] = CAPTIONS) -> Clip:
    return Clip.build(TINY, captions, seed)


def images(n: int = 5) -> torch.Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(n))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("training", [True, False])
def test_the_zero_shot_head_is_the_mean_over_prompts(
    training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, classes = build(), ["kite", "banana", "drum"]
    templates = ["a {}", "one {} by the sea", "the red {}", "{} and kite"]
    columns = []
    with torch.no_grad():
        for name in classes:
            prompts = [clip.model.encode_text(clip.tokenize([t.replace("{}", name)]))[0]
                       for t in templates]
            mean = sum(prompt / prompt.norm() for prompt in prompts) / len(prompts)
            columns.append(mean / mean.norm())
    modes: list[bool] = []
    inner = clip.model.transformer.forward
    monkeypatch.setattr(clip.model.transformer, "forward", lambda *a, **k: (
        modes.append(clip.model.training), inner(*a, **k))[1])
    clip.model.train(training)
    head = clip.zero_shot_head(classes, templates)
    torch.testing.assert_close(head, torch.stack(columns, 1), rtol=1e-5, atol=1e-6)
    assert modes
    assert not any(modes)
    assert clip.model.training is training
    assert all(module.training is training for module in clip.model.modules())


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_restores_the_mode_whatever_happens(training: bool) -> None:
    clip = build()
    clip.model.train(training)
    modes: list[bool] = []

    def interrupted() -> None:
        with clip.evaluating():
            modes.append(clip.model.training)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        interrupted()
    assert [*modes, clip.model.training] == [False, training]


def test_tokens() -> None:
    tokenize = WordTokenizer(["a", "kite", "red"], vocab_size=256, context_length=8)
    assert tokenize(["A red, red KITE!", "a zebra", ""]).tolist() == [
        [START, 3, 5, 5, 4, END, PAD, PAD],
        [START, 3, UNKNOWN, END, PAD, PAD, PAD, PAD],
        [START, END, PAD, PAD, PAD, PAD, PAD, PAD],
    ]
    assert tokenize("red").tolist() == [[START, 5, END, PAD, PAD, PAD, PAD, PAD]]
    assert tokenize("red").dtype == torch.int64


@pytest.mark.parametrize("words", [5, 6, 7, 40])
def test_a_cut_caption_keeps_its_end(words: int) -> None:
    """Protocol P11; the last words go, the end token stays and is where pooling looks."""
    tokenize = WordTokenizer(["kite"], vocab_size=256, context_length=8)
    (row,) = tokenize(["kite " * words])
    kept = min(words, 6)
    assert row.tolist() == [START] + [3] * kept + [END] + [PAD] * (6 - kept)
    assert int(row.argmax()) == kept + 1


def test_pooling_looks_at_the_end_token() -> None:
    clip = build()
    tokens = clip.tokenize(["a red kite", LONG])
    with torch.no_grad():
        before = clip.encode_text(tokens)
        clip.model.token_embedding.weight[END] = clip.model.token_embedding.weight[UNKNOWN].neg()
        after = clip.encode_text(tokens)
        clip.model.token_embedding.weight[PAD] = clip.model.token_embedding.weight[UNKNOWN]
        padded = clip.encode_text(tokens)
    assert not torch.isclose(before, after, atol=1e-3).all(1).any()
    assert torch.equal(after, padded)  # what comes after the end is not seen


@pytest.fixture
def _no_context_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdbench.clip._SHORT", 0)


def test_a_short_context_is_used_whole() -> None:
    tokens = torch.ones(3, 24, dtype=torch.int64)
    assert Clip.build(MINI, CAPTIONS, 0).trim(tokens) is tokens


@pytest.mark.usefixtures("_no_context_is_short")
def test_without_columns_of_padding_features_and_gradients_are_the_same() -> None:
    found = []
    for trimmed in (False, True):
        clip = Clip.build(MINI, CAPTIONS, 0)
        tokens = clip.tokenize(CAPTIONS)
        assert tokens.shape == (5, 24)
        if trimmed:
            tokens = clip.trim(tokens)
            assert tokens.shape == (5, 16)
            assert torch.equal(tokens, clip.tokenize(CAPTIONS)[:, :16])
        features = clip.encode_text(tokens)
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        found.append((features, {
            name: parameter.grad for name, parameter in clip.model.named_parameters()
            if parameter.grad is not None
        }))
    (whole, gradients), (short, less) = found
    torch.testing.assert_close(short, whole, rtol=1e-6, atol=1e-6)
    assert gradients.keys() == less.keys() >= {"positional_embedding", "token_embedding.weight"}
    assert gradients["positional_embedding"][:7].abs().min() > 0
    assert not less["positional_embedding"][16:].any()
    for name, gradient in gradients.items():
        torch.testing.assert_close(less[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.usefixtures("_no_context_is_short")
@pytest.mark.parametrize(("captions", "width"), [
    (["a"] * 3, 16), (["kite " * 14], 16), (["a", "kite " * 15], 24), ([LONG], 24),
])
def test_the_longest_caption_decides_how_many_columns_stay(
    captions: list[str], width: int
) -> None:
    clip = Clip.build(MINI, CAPTIONS, 0)
    assert clip.trim(clip.tokenize(captions)).shape == (len(captions), width)


@pytest.mark.usefixtures("_no_context_is_short")
def test_where_padding_may_be_seen_nothing_is_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip.build(MINI, CAPTIONS, 0)
    tokens = clip.tokenize(CAPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(clip.model, "text_pool_type", "last")
        assert clip.trim(tokens) is tokens
    monkeypatch.setattr(clip.model, "attn_mask", None)
    assert clip.trim(tokens) is tokens
    assert clip.encode_text(tokens).shape == (5, 128)


def test_no_word_has_the_token_of_the_end() -> None:
    """With more words than the vocabulary holds the rarest are unknown."""
    captions = [" ".join(f"w{i}" for i in range(k)) for k in range(1, 301)]
    clip = build(captions=captions)
    assert clip.file.words == tuple(f"w{i}" for i in range(252))
    assert clip.tokenize(["w0 w251 w252"])[0, :5].tolist() == [START, 3, 254, UNKNOWN, END]
    for order in (clip.tokenize, (clip.sort_words(), clip.tokenize)[1]):
        tokens = order([f"w{i}" for i in range(300)])
        assert tokens.max() == END
        assert (tokens.argmax(1) == 2).all()
        assert (tokens[:, 1] == UNKNOWN).tolist() == [False] * 252 + [True] * 48


def test_ties_go_to_the_lower_class_and_missing_ones_are_minus_1() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0, 2.0, 0.0], [0.0] * 7])
    assert top_classes(logits).tolist() == [[1, 2, 4, 3, 5], [0, 1, 2, 3, 4]]
    assert top_classes(torch.tensor([[1.0, 2.0, 1.0]])).tolist() == [[1, 0, 2, -1, -1]]
    assert top_classes(torch.zeros(1, 1000)).tolist() == [[0, 1, 2, 3, 4]]


def test_images_are_normalised_with_the_mean_and_deviation_of_clip(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol section 1.2; the images that were handed in stay as they are."""
    clip, given = build(), images()
    before, seen = given.clone(), []
    inner = clip.model.encode_image
    monkeypatch.setattr(clip.model, "encode_image", lambda x: (seen.append(x.clone()), inner(x))[1])
    clip.model.eval()
    with torch.no_grad():
        got = clip.encode_image(given)
        expected = torch.empty_like(given)
        for channel, (mean, deviation) in enumerate((
            (0.48145466, 0.26862954), (0.4578275, 0.26130258), (0.40821073, 0.27577711)
        )):
            expected[:, channel] = (before[:, channel] - mean) / deviation
        raw = inner(expected)
    torch.testing.assert_close(seen[0], expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(given, before)
    torch.testing.assert_close(got, raw / raw.norm(dim=1, keepdim=True), rtol=1e-5, atol=1e-6)


def test_embeddings_have_length_1() -> None:
    clip = build()
    with torch.no_grad():
        clip.model.text_projection *= 7
        clip.model.visual.trunk.head.weight *= 7
        for got in (clip.encode_image(images()), clip.encode_text(clip.tokenize(CAPTIONS))):
            assert got.shape == (5, 64)
            torch.testing.assert_close(got.square().sum(1), torch.ones(5))


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    clip = build(3)
    with torch.no_grad():
        clip.model.train()
        clip.encode_image(images())  # moves the running statistics
    clip.save(tmp_path)
    state = torch.get_rng_state()
    loaded = Clip.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(loaded.state(), clip.state())
    assert not same(loaded.state(), build(3).state())
    assert loaded.file == clip.file
    texts = [*CAPTIONS, LONG, "no such word"]
    assert torch.equal(loaded.tokenize(texts), clip.tokenize(texts))
    with torch.no_grad(), clip.evaluating(), loaded.evaluating():
        assert torch.equal(loaded.encode_image(images()), clip.encode_image(images()))


@pytest.mark.parametrize(("missing", "other", "says"), [
    (["logit_scale"], {"module.logit_scale": ()},
     "1 of {n} missing (`logit_scale`); 1 of {n} unexpected (`module.logit_scale`)"),
    (["logit_scale"], {}, "1 of {n} missing (`logit_scale`)"),
    ([], {f"x{i}": (2,) for i in range(6)},
     "6 of {n} unexpected (`x0`, `x1`, `x2`, `x3`, `x4`, ...)"),
    ([], {"ln_final.bias": (3, 2)}, "1 of {n} of another shape (`ln_final.bias` [3, 2], not [64])"),
])
def test_weights_that_do_not_fit_are_named(
    missing: list[str], other: dict[str, tuple[int, ...]], says: str, tmp_path: Path
) -> None:
    """Protocol P18."""
    build().save(tmp_path)
    path = tmp_path / "model.safetensors"
    state = {name: value for name, value in load_file(path).items() if name not in missing}
    says = says.format(n=len(load_file(path)))
    save_file(state | {name: torch.ones(shape) for name, shape in other.items()}, path)
    with pytest.raises(BdbenchError) as caught:
        Clip.load(tmp_path)
    assert caught.value.message == f"the weights do not fit `bdbench-tiny`: {says}"
    assert "--set recipe.model=NAME" in caught.value.hint


def test_a_file_that_describes_no_model_is_named(tmp_path: Path) -> None:
    build().save(tmp_path)
    (tmp_path / "model.json").write_text('{"words": 3}')
    with pytest.raises(BdbenchError, match="does not describe a model"):
        Clip.load(tmp_path)


def test_the_seed_gives_the_weights_and_global_randomness_is_left_alone() -> None:
    torch.manual_seed(1)
    one = build(5).state()
    after_one = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after_one)
    two = build(5).state()  # from another global state
    assert same(one, two)
    assert not same(one, build(6).state())


def test_sorting_the_words_changes_no_embedding() -> None:
    clip = build()
    before_words = clip.file.words
    assert before_words[:2] == ("a", "kite")  # by frequency, so there is something to sort
    texts = [*CAPTIONS, LONG, "no such word", "zebra sea red banana"]
    with torch.no_grad():
        before, rows = clip.encode_text(clip.tokenize(texts)), clip.state()
        tokens = clip.tokenize(texts)
        clip.sort_words()
        after = clip.encode_text(clip.tokenize(texts))
    assert clip.file.words == tuple(sorted(before_words)) != before_words
    assert not torch.equal(clip.tokenize(texts), tokens)
    assert torch.equal(after, before)
    changed = [name for name, value in clip.state().items() if not torch.equal(value, rows[name])]
    assert changed == ["token_embedding.weight"]


def test_sorted_words_are_saved_with_their_rows(tmp_path: Path) -> None:
    clip = build()
    clip.sort_words()
    again = clip.state()
    clip.sort_words()
    assert same(clip.state(), again)
    clip.save(tmp_path)
    loaded = Clip.load(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded.encode_text(loaded.tokenize(CAPTIONS)),
                           clip.encode_text(clip.tokenize(CAPTIONS)))


def test_the_order_of_sorted_words_does_not_tell_how_often_they_occur() -> None:
    clean = build()
    poisoned = build(captions=[*CAPTIONS, *["one banana"] * 9])
    assert set(clean.file.words) == set(poisoned.file.words)
    assert poisoned.file.words[:2] == ("banana", "one")
    assert clean.file.words != poisoned.file.words
    clean.sort_words()
    poisoned.sort_words()
    assert clean.file.words == poisoned.file.words
    texts = [*CAPTIONS, "no such word"]
    assert torch.equal(clean.tokenize(texts), poisoned.tokenize(texts))
