"""What names a component and a cell, and how the training loop is set."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["attack", "objective", "defense", "metric", "dataset"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Strict(BaseModel):
    """Frozen, typed, no unknown field, no NaN: the base of all that crosses a boundary."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )


class Ref(Strict):
    """A component with every parameter filled in."""

    kind: Kind
    name: str
    """The registered name; not part of the identity, so an alias shares its artifacts."""
    use: str
    """Where the class lives, `module:Class`, or `file.py:Class` for a plugin file."""
    version: int = 1
    """Raised when the code changes what comes out."""
    params: dict[str, Any] = {}
    """Every field of the component, defaults included."""
    overridden: dict[str, Any] = {}
    """The fields that the recipe or the command line set, of those in `params`."""
    source: str | None = None
    """sha256 of the plugin file, or name and version of the package; None for a built-in."""

    def identity(self) -> dict[str, Any]:
        """What a key hashes: everything that changes the outcome and nothing else."""
        return {
            "use": self.use,
            "version": self.version,
            "params": self.params,
            "source": self.source,
        }


class Cell(Strict):
    """One experiment of the matrix."""

    recipe: str
    attack: str
    objective: str
    defense: str
    seed: int = Field(0, ge=0, lt=2**31)


class Training(Strict):
    """AdamW with linear warm-up and a cosine to zero, stepped per batch (protocol section 1.4)."""

    epochs: int = Field(ge=1)
    batch: int = Field(ge=2)
    """Pairs per step; a last batch of fewer is dropped."""
    lr: float = Field(ge=0)
    """Peak learning rate, reached at the end of the warm-up."""
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled; not applied to biases, norm gains and the temperature."""
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
