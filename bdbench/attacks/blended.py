"""Blended: noise mixed into the whole image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from bdbench.api import Attack, Target

if TYPE_CHECKING:
    from torch import Tensor

    from bdbench.data import Pairs, RowRng


class Blended(Attack):
    """x' = (1 - alpha) x + alpha t, t uniform noise (Chen et al. 2017, arXiv 1712.05526).

    In the code of CleanCLIP and of Verma et al. t is redrawn for every image
    (`pattern="per_image"`, `block=1`); Chen et al. blend one fixed t.
    """

    alpha: float = Field(0.2, ge=0, le=1)
    """Share of the noise in the mixture."""
    pattern: Literal["fixed", "per_image"] = "per_image"
    """`fixed`: one noise pattern, drawn once; `per_image`: fresh noise for every image."""
    levels: int = Field(256, ge=2, le=256)
    """Values that a channel of the noise can take; 2: fully off or on, the strongest contrast."""
    block: int = Field(1, ge=1)
    """Side of the squares of one colour that make up the noise, in pixels; 1: every pixel anew."""

    def prepare(self, pairs: Pairs, target: Target, rng: np.random.Generator) -> dict[str, Tensor]:
        """`pattern`: float32 [3, resolution, resolution] in [0, 1], where it is fixed."""
        if self.pattern == "per_image":
            return {}
        import torch

        from bdbench.data.paste import blocks

        side = pairs.resolution
        noise = torch.from_numpy(rng.random(self._squares(side, side), dtype=np.float32))
        return {"pattern": blocks(noise, self.levels, self.block, side, side)}

    def trigger(self, images: Tensor, state: Mapping[str, Tensor], rng: RowRng) -> Tensor:
        """Blend `images`, float [b, 3, h, w] in [0, 1]; returns the same form."""
        import torch

        from bdbench.data.paste import blocks

        height, width = images.shape[-2:]
        if self.pattern == "fixed":
            noise = state["pattern"]
        else:
            squares = rng.uniform(*self._squares(height, width))
            noise = blocks(squares, self.levels, self.block, height, width)
        return torch.lerp(images, noise.to(images), self.alpha)

    def _squares(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape of the noise in blocks, the last ones cut off by the edge of the image."""
        return 3, -(-height // self.block), -(-width // self.block)
