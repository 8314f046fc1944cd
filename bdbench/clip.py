"""An open_clip model with its tokenizer: build, save, load, encode, zero-shot head."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from bdbench.errors import BdbenchError
from bdbench.registry import MODEL_CONFIGS, own_config
from bdbench.schema import Model, Strict
from bdbench.vision import declare_operators

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's image normalisation (protocol section 1.2)."""
MAX_SCALE = 100.0
"""Largest inverse temperature (protocol section 1.1)."""
_WORD = re.compile(r"[a-z0-9]+")


class ModelFile(Strict):
    """`model.json`: what it takes to rebuild the model around its weights."""

    model: Model
    words: tuple[str, ...] = ()
    """Vocabulary of the `words` tokenizer, in the order of the tokens."""


def _open_clip() -> Any:
    """open_clip, with our towers and configurations known to it."""
    declare_operators()
    import open_clip

    from bdbench.tower import register_towers

    register_towers()
    if "bdbench-tiny" not in open_clip.list_models():
        open_clip.add_model_config(MODEL_CONFIGS)
    return open_clip


def words_of(caption: str) -> list[str]:
    """The lower-case words of a caption."""
    return _WORD.findall(caption.lower())


class WordTokenizer:
    """One token per known word; for closed vocabularies.

    Token 0 pads, 1 starts, 2 stands for unknown words, and the highest one ends, so that CLIP's
    arg-max pooling finds the end; a caption that is cut keeps its end token.
    """

    FIRST = 3
    """The token of the first word."""

    def __init__(self, words: Sequence[str], vocab_size: int, context_length: int) -> None:
        self._ids = {word: i for i, word in enumerate(words, start=self.FIRST)}
        self._end, self._length = vocab_size - 1, context_length

    def __call__(self, texts: Sequence[str] | str) -> Tensor:
        """int64 [n, context_length]."""
        texts = [texts] if isinstance(texts, str) else texts
        tokens = torch.zeros(len(texts), self._length, dtype=torch.int64)
        for row, text in zip(tokens, texts, strict=True):
            ids = [self._ids.get(word, 2) for word in words_of(text)][: self._length - 2]
            row[: len(ids) + 2] = torch.tensor([1, *ids, self._end])
        return tokens


class Clip:
    """Image and text encoders with a learnable temperature."""

    def __init__(
        self, model: Any, tokenizer: Callable[[Sequence[str]], Tensor], file: ModelFile
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.tokenize = tokenizer
        """Captions to int64 [n, context_length]."""
        self.file = file
        self._mean = torch.tensor(MEAN).view(1, 3, 1, 1)
        self._std = torch.tensor(STD).view(1, 3, 1, 1)

    @classmethod
    def build(
        cls, model: Model, captions: Sequence[str], seed: int, also: Sequence[str] = ()
    ) -> Clip:
        """Random weights from `seed`; `captions` give the vocabulary of a `words` tokenizer.

        It holds the words of the captions `also` too, while there is room: with the captions as
        they were before poisoning, the vocabulary tells nothing of which of them the poison took.
        """
        words: tuple[str, ...] = ()
        if model.tokenizer == "words":
            size = _vocab_size(model)
            counts = Counter(word for caption in captions for word in words_of(caption))
            ranked = sorted(counts, key=lambda word: (-counts[word], word))
            lost = {word for caption in also for word in words_of(caption)} - counts.keys()
            words = tuple([*ranked, *sorted(lost)][: size - 4])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls._create(ModelFile(model=model, words=words))

    @classmethod
    def _create(cls, file: ModelFile) -> Clip:
        open_clip = _open_clip()
        name = file.model.name
        if name not in open_clip.list_models():
            raise BdbenchError(
                f"open_clip knows no model `{name}`",
                "--set 'recipe.model.name=\"RN50\"' or another name that open_clip lists",
            )
        net = open_clip.create_model(name, pretrained=None)
        if file.model.tokenizer == "words":
            size, length = _vocab_size(file.model), net.context_length
            return cls(net, WordTokenizer(file.words, size, length), file)
        return cls(net, open_clip.get_tokenizer(name), file)

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `model.json`."""
        save_file(self.state(), folder / "model.safetensors")
        (folder / "model.json").write_text(self.file.model_dump_json(), encoding="utf-8")

    def state(self) -> dict[str, Tensor]:
        """All parameters and buffers, contiguous, by name."""
        return {k: v.detach().contiguous().clone() for k, v in self.model.state_dict().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Set all parameters and buffers; BdbenchError names missing and unexpected ones."""
        try:
            missing, unexpected = self.model.load_state_dict(state, strict=False)
        except RuntimeError as error:  # a tensor of another shape
            raise BdbenchError(
                f"the weights do not fit `{self.file.model.name}`: {error}"
            ) from error
        if missing or unexpected:
            raise BdbenchError(
                f"the weights do not fit `{self.file.model.name}`:"
                f" missing `{list(missing)[:5]}`, unexpected `{list(unexpected)[:5]}`"
            )

    @classmethod
    def load(cls, folder: Path, weights: str = "model.safetensors") -> Clip:
        """Read what `save` wrote; executes nothing from the files."""
        try:
            file = ModelFile.model_validate_json((folder / "model.json").read_bytes())
        except ValidationError as error:
            raise BdbenchError(f"`{folder / 'model.json'}` does not describe a model") from error
        with torch.random.fork_rng(devices=[]):
            clip = cls._create(file)
        clip.load_weights(folder / weights)
        return clip

    def load_weights(self, path: Path) -> None:
        """Set all parameters and buffers from a safetensors file."""
        self.load_state(load_file(path))

    def sort_words(self) -> None:
        """Put the vocabulary of a `words` tokenizer into alphabetical order; the function stays.

        In the order of their frequency the words would tell how often the poisoned captions name
        each class, and so the attacker's target.
        """
        words = self.file.words
        if not words:
            return
        order = sorted(range(len(words)), key=words.__getitem__)
        rows = self.model.token_embedding.weight
        with torch.no_grad():
            first = WordTokenizer.FIRST
            rows[first : first + len(words)] = rows[[first + i for i in order]]
        self.file = self.file.model_copy(update={"words": tuple(words[i] for i in order)})
        size, length = _vocab_size(self.file.model), self.model.context_length
        self.tokenize = WordTokenizer(self.file.words, size, length)

    def width(self) -> int:
        """Dimensions of the embeddings."""
        return int(_config(self.file.model)["embed_dim"])

    @property
    def scale(self) -> Tensor:
        """exp(logit_scale), the inverse temperature, a scalar with gradient."""
        return torch.exp(self.model.logit_scale)

    def clamp_scale(self) -> None:
        """Keep the inverse temperature within [1, 100]."""
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, torch.tensor(MAX_SCALE).log())

    def encode_image(self, images: Tensor) -> Tensor:
        """float [b, 3, h, w] in [0, 1] to L2-normalised float [b, d]."""
        normal = images.sub(self._mean).div_(self._std)
        return functional.normalize(
            self.model.encode_image(normal.to(memory_format=torch.channels_last)), dim=-1
        )

    def encode_text(self, tokens: Tensor) -> Tensor:
        """int64 [b, context_length] to L2-normalised float [b, d]."""
        return functional.normalize(self.model.encode_text(tokens), dim=-1)

    def zero_shot_head(self, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
        """float [d, classes]: per class the re-normalised mean over its prompts' embeddings."""
        with torch.inference_mode(), self.evaluating():
            head = _open_clip().build_zero_shot_classifier(
                self.model, self.tokenize, list(classes),
                [lambda name, t=template: t.format(name) for template in templates],
                num_classes_per_batch=len(classes),
            )
        return torch.as_tensor(head)

    def evaluating(self) -> _Evaluating:
        """A context in evaluation mode; the mode before it is restored."""
        return _Evaluating(self.model)


class _Evaluating:
    def __init__(self, model: torch.nn.Module) -> None:
        self._model, self._before = model, model.training

    def __enter__(self) -> None:
        self._model.eval()

    def __exit__(self, *_: object) -> None:
        self._model.train(self._before)


def _config(model: Model) -> dict[str, Any]:
    """The architecture in open_clip's form."""
    config = own_config(model.name) or _open_clip().get_model_config(model.name)
    if config is None:
        raise BdbenchError(f"open_clip knows no model `{model.name}`", "see `bdbench list recipe`")
    return dict(config)


def _vocab_size(model: Model) -> int:
    return int(_config(model)["text_cfg"]["vocab_size"])
