"""A recipe: everything but the method under study, under one name."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from bdbench.schema.refs import Strict, Training


class Augment(Strict):
    """The augmented views of the self-supervised term."""

    crop: float = Field(0.6, gt=0, le=1)
    """Smallest area kept by the random crop, as a share of the image."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    rotate: float = Field(15.0, ge=0, le=180)
    """Largest rotation either way, in degrees."""
    colour: float = Field(0.3, ge=0, le=1)
    """Largest relative change of brightness, contrast and saturation."""
    policy: Literal["autoaugment"] | None = None
    """`autoaugment`: the ImageNet policy, at the recipe's resolution, instead of the four above."""
    text: float = Field(0.1, ge=0, le=1)
    """Share of a caption's words that an EDA operation touches, at least one; 0 turns it off."""
    synonyms: bool | None = None
    """Set: EDA as published, on lower-case letters alone; `true`: with synonyms from WordNet.

    Where WordNet's data is not installed, planning turns `true` into `false`."""


class Model(Strict):
    """The architecture, by open_clip's name for it."""

    name: str
    """A configuration that open_clip knows, or one of `bdbench/model_configs`."""
    tokenizer: Literal["open_clip", "words"] = "open_clip"
    """`words`: one token per word of the training captions, for closed vocabularies."""
    init: str | None = None
    """Weights to start the pre-training from: a tag of open_clip, or the sha256 of a file."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """`recipe.model=RN50` is short for its name, with open_clip's tokenizer."""
        return {"name": value} if isinstance(value, str) else value


class ModelFile(Strict):
    """`model.json`: what it takes to rebuild the model around its weights."""

    model: Model
    words: tuple[str, ...] = ()
    """Vocabulary of the `words` tokenizer, in the order of the tokens."""
    resolution: int | None = None
    """Side of the images, in pixels; None for the configuration's own."""
    mean: tuple[float, float, float] | None = None
    """Of the channels, subtracted from the images; None for CLIP's."""
    std: tuple[float, float, float] | None = None
    """Of the channels, by which the images are divided; None for CLIP's."""

    def text(self) -> str:
        """The content of the file; what is None is left out."""
        return self.model_dump_json(exclude_none=True)


class CleanBudget(Strict):
    """What a defense is given."""

    pairs: int = Field(ge=2)
    """Clean image-caption pairs, disjoint from the pre-training pairs."""


class Gate(Strict):
    """When an undefended attack counts as having worked."""

    lift: float = Field(0.5, ge=0, le=1)
    """Smallest ASR minus base rate."""
    clean_top1: float = Field(0.0, ge=0, le=1)
    """Smallest zero-shot accuracy."""


class Selection(Strict):
    """The rules that pick one point of a trajectory."""

    oracle: tuple[float, ...] = (0.01, 0.05, 0.10)
    """ASR bounds of the oracle rule; 5 % is the paper's."""
    tolerance: float = Field(0.05, ge=0, le=1)
    """Loss of clean validation accuracy that the blind rule accepts."""


class Threads(Strict):
    """CPU threads per process; they move results, so they are part of the keys."""

    pretrain: int = Field(ge=1, le=1024)
    defend: int = Field(1, ge=1, le=1024)
    """Also of evaluation; sweep points run side by side."""


class Hardware(Strict):
    """What the model runs on; like the threads, it moves results in their last digits."""

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """`tf32`: of matrix products on a GPU; `bf16`: of the forward pass, and tf32 of the loss."""
    compile: bool = False
    """Whether training goes through `torch.compile`."""
    processes: int = Field(1, ge=1, le=1024)
    """Of the pre-training, with a share of every batch each, on a GPU of its own if on GPUs."""
    batch_norm: Literal["global", "local"] = "global"
    """Statistics over the whole batch, or over the share of a process, as Verma et al. have it."""


class Defaults(Strict):
    """What a recipe sets on a component, by the component's registered name."""

    params: dict[str, Any] = {}
    sweep: dict[str, tuple[float, ...]] = {}
    """For each swept field its values, from the gentlest to the most aggressive."""


class Recipe(Strict):
    """A fixed setting, so that cells differ in the method alone."""

    summary: str
    needs: str | None = None
    """What must be there before it can be run, where it comes from, and what it costs."""
    dataset: str
    """A registered dataset."""
    resolution: int = Field(ge=8)
    """Side of the square images, in pixels."""
    target: str
    """The class every triggered image should be called."""
    model: Model
    checkpoint: str | None = None
    """sha256 of a file with a model trained elsewhere, taken in place of pre-training one."""
    pretrain: Training
    pretrain_for: dict[str, dict[str, Any]] | None = None
    """What is different in the pre-training with an objective, by its registered name. What is set
    of `pretrain` on the command line holds for every objective."""
    augment: Augment = Augment()
    budget: CleanBudget
    gate: Gate = Gate()
    selection: Selection = Selection()
    threads: Threads
    hardware: Hardware | None = None
    """None: one process on the CPU, in fp32."""
    eval_batch: int = Field(512, ge=1)
    """Images per forward pass of the evaluation."""
    attacks: dict[str, Defaults] = {}
    objectives: dict[str, Defaults] = {}
    defenses: dict[str, Defaults] = {}
    datasets: dict[str, Defaults] = {}

    @model_validator(mode="after")
    def _trainings(self) -> Recipe:
        for objective in self.pretrain_for or {}:
            self.training(objective)
        return self

    def training(self, objective: str) -> Training:
        """The pre-training with an objective."""
        changed = (self.pretrain_for or {}).get(objective, {})
        return Training.model_validate(self.pretrain.model_dump() | changed)
