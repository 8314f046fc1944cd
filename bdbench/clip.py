"""An open_clip model with its tokenizer: build, save, load, encode, zero-shot head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from bdbench.errors import BdbenchError
from bdbench.models import MEAN, MODEL_CONFIGS, STD, config, image_size
from bdbench.schema import Model, ModelFile
from bdbench.tensors import save_tensors
from bdbench.vision import declare_operators
from bdbench.words import WordTokenizer, words_of

MAX_SCALE = 100.0
"""Largest inverse temperature (protocol section 1.1)."""
_PROMPTS = 2048
"""Prompts that are embedded at a time for a zero-shot head."""
_COLUMNS = 16
"""Texts are padded to a multiple of this: few shapes, and what matrix kernels like."""
_SHORT = 32
"""Contexts up to this are used whole: there is little to win, and other sums round otherwise."""
_NAMED = 5
"""Tensors that an error names of each sort."""


def _open_clip() -> Any:
    """open_clip, with our towers and configurations known to it."""
    declare_operators()
    import open_clip

    from bdbench.tower import register_towers

    register_towers()
    if "bdbench-tiny" not in open_clip.list_models():
        open_clip.add_model_config(MODEL_CONFIGS)
    return open_clip


class Clip:
    """Image and text encoders with a learnable temperature."""

    def __init__(
        self, model: Any, tokenizer: Callable[[Sequence[str]], Tensor], file: ModelFile
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.tokenize = tokenizer
        """Captions to int64 [n, context_length]."""
        self.file = file
        self._mean = torch.tensor(file.mean or MEAN).view(1, 3, 1, 1)
        self._std = torch.tensor(file.std or STD).view(1, 3, 1, 1)

    def to(self, device: torch.device) -> Clip:
        """Move the model; images and tokens must be on the same device."""
        self.model.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._mean.device

    @classmethod
    def build(
        cls, model: Model, captions: Sequence[str], seed: int, also: Sequence[str] = (),
        resolution: int | None = None,
    ) -> Clip:
        """Random weights from `seed`; `captions` give the vocabulary of a `words` tokenizer.

        The model takes images of `resolution` pixels a side; None for the configuration's own.

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
            return cls._create(ModelFile(
                model=model.model_copy(update={"init": None}), words=words,
                resolution=None if resolution == image_size(model.name) else resolution,
            ))

    @classmethod
    def _create(cls, file: ModelFile) -> Clip:
        open_clip = _open_clip()
        name = file.model.name
        config(name)  # complains of an unknown name
        try:
            net = open_clip.create_model(
                name, pretrained=None, pretrained_text=False, force_image_size=file.resolution
            )
            if file.model.tokenizer == "words":
                size, length = _vocab_size(file.model), net.context_length
                return cls(net, WordTokenizer(file.words, size, length), file)
            return cls(net, open_clip.get_tokenizer(name), file)
        except Exception as error:  # of timm, transformers or the Hub, each in its own way
            raise BdbenchError(
                f"open_clip cannot build `{name}` here: {type(error).__name__}: {error}",
                "install what it asks for, or take a model that needs nothing else:"
                " `bdbench run --set recipe.model=RN50`",
            ) from error

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `model.json`."""
        save_tensors(self.state(), folder / "model.safetensors")
        (folder / "model.json").write_text(self.file.text(), encoding="utf-8")

    def state(self) -> dict[str, Tensor]:
        """All parameters and buffers, contiguous, by name."""
        return {k: v.detach().contiguous().clone() for k, v in self.model.state_dict().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Set all parameters and buffers.

        BdbenchError says how many are missing, unexpected or of another shape, and names some.
        """
        own = self.model.state_dict()
        odd = {
            "missing": [f"`{name}`" for name in own if name not in state],
            "unexpected": [f"`{name}`" for name in state if name not in own],
            "of another shape": [
                f"`{name}` {list(state[name].shape)}, not {list(value.shape)}"
                for name, value in own.items() if name in state and state[name].shape != value.shape
            ],
        }
        wrong = [
            f"{len(names)} of {len(own)} {what} ({', '.join(names[:_NAMED])}"
            f"{', ...' * (len(names) > _NAMED)})" for what, names in odd.items() if names
        ]
        if wrong:
            raise BdbenchError(
                f"the weights do not fit `{self.file.model.name}`: {'; '.join(wrong)}",
                "name the model that they are of: `bdbench run --set recipe.model=NAME`",
            )
        self.model.load_state_dict(state)

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
        return int(config(self.file.model.name)["embed_dim"])

    @property
    def scale(self) -> Tensor:
        """exp(logit_scale), the inverse temperature, a scalar with gradient."""
        return torch.exp(self.model.logit_scale)

    def clamp_scale(self) -> None:
        """Keep the inverse temperature within [1, 100]."""
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, torch.tensor(MAX_SCALE).log().item())

    def encode_image(self, images: Tensor) -> Tensor:
        """float [b, 3, h, w] in [0, 1] to L2-normalised float [b, d]."""
        normal = images.sub(self._mean).div_(self._std)
        features = self.model.encode_image(normal.to(memory_format=torch.channels_last))
        return functional.normalize(features.float(), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """int64 [b, n] to L2-normalised float [b, d]; n: context length, or what `trim` left."""
        width, mask = tokens.shape[1], self._mask
        if mask is None or width == len(mask):
            features = self.model.encode_text(tokens)
        else:
            features = functional_call(
                _Text(self.model),
                {"model.positional_embedding": self.model.positional_embedding[:width],
                 "model.attn_mask": mask[:width, :width]},
                (tokens,),
            )
        return functional.normalize(features.float(), dim=-1)

    @property
    def _mask(self) -> Tensor | None:
        """Of causal attention, [context_length, context_length]; None where it is not CLIP's."""
        return getattr(self.model, "attn_mask", None)

    def trim(self, tokens: Tensor) -> Tensor:
        """int64 [b, context_length], on the CPU, without most columns where all are padding.

        What is left is a multiple of `_COLUMNS` wide and has the same features: where attention is
        causal, nothing behind the end token reaches it. Short contexts, and other text encoders,
        get all columns.
        """
        short = tokens.shape[1] <= _SHORT
        if short or self._mask is None or self.model.text_pool_type != "argmax":
            return tokens
        longest = int(tokens.argmax(1).max()) + 1
        return tokens[:, : -(-longest // _COLUMNS) * _COLUMNS]

    def zero_shot_head(self, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
        """float [d, classes]: per class the re-normalised mean over its prompts' embeddings."""
        with torch.inference_mode(), self.evaluating():
            head = _open_clip().build_zero_shot_classifier(
                SimpleNamespace(encode_text=lambda texts, normalize: self.encode_text(texts)),
                lambda texts: self.trim(self.tokenize(texts)), list(classes),
                [lambda name, t=template: t.format(name) for template in templates],
                num_classes_per_batch=max(1, min(len(classes), _PROMPTS // len(templates))),
                device=self.device,
            )
        return torch.as_tensor(head)

    def evaluating(self) -> _Evaluating:
        """A context in evaluation mode; the mode before it is restored."""
        return _Evaluating(self.model)


class _Text(nn.Module):
    """The text encoder as a module's call, which is what `functional_call` takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.model.encode_text(tokens))  # type: ignore[operator]


class _Evaluating:
    def __init__(self, model: torch.nn.Module) -> None:
        self._model, self._before = model, model.training

    def __enter__(self) -> None:
        self._model.eval()

    def __exit__(self, *_: object) -> None:
        self._model.train(self._before)


def _vocab_size(model: Model) -> int:
    return int(config(model.name)["text_cfg"]["vocab_size"])
