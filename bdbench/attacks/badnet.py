"""BadNets: a patch of noise on the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from bdbench.api import Attack, Target

if TYPE_CHECKING:
    from torch import Tensor

    from bdbench.data import Pairs, RowRng


class BadNet(Attack):
    """A square patch of uniform colour noise (Gu et al. 2017, arXiv 1708.06733).

    On image-text pairs: Carlini and Terzis 2022, arXiv 2106.09667. In the code of CleanCLIP and of
    Verma et al. both the noise and its place are redrawn for every image; that is
    `pattern="per_image"` with `place="random"`. Their noise is Gaussian around the image's mean
    and wraps around modulo 256, which makes it uniform; here it is drawn uniform.
    """

    size: int = Field(16, ge=1)
    """Side of the patch, in pixels."""
    pattern: Literal["fixed", "per_image"] = "per_image"
    """`fixed`: one noise pattern, drawn once; `per_image`: fresh noise for every image."""
    levels: int = Field(256, ge=2, le=256)
    """Values that a channel of the noise can take; 2: fully off or on, the strongest contrast."""
    block: int = Field(1, ge=1)
    """Side of the squares of one colour that make up the noise, in pixels; 1: every pixel anew."""
    place: Literal["random", "fixed"] = "random"
    """`random`: anywhere, for every image anew; `fixed`: at the lower right corner."""
    margin: int = Field(0, ge=0)
    """Pixels between a fixed place and the right and lower edges; of no effect on a random one."""

    def prepare(self, pairs: Pairs, target: Target, rng: np.random.Generator) -> dict[str, Tensor]:
        """`pattern`: float32 [3, size, size] in [0, 1], where it is fixed."""
        import torch

        from bdbench.data.paste import blocks

        self._last(pairs.resolution)
        if self.pattern == "per_image":
            return {}
        noise = torch.from_numpy(rng.random(self._squares(), dtype=np.float32))
        return {"pattern": blocks(noise, self.levels, self.block, self.size, self.size)}

    def trigger(self, images: Tensor, state: Mapping[str, Tensor], rng: RowRng) -> Tensor:
        """Paste the patch on `images`, float [b, 3, h, w] in [0, 1]; returns the same form."""
        import torch

        from bdbench.data.paste import blocks, paste

        last_top, last_left = (self._last(side) for side in images.shape[-2:])
        if self.pattern == "fixed":
            patches = state["pattern"]
        else:
            noise = rng.uniform(*self._squares())
            patches = blocks(noise, self.levels, self.block, self.size, self.size)
        if self.place == "random":
            top, left = rng.integers(last_top + 1), rng.integers(last_left + 1)
        else:
            top, left = (
                torch.full((len(images),), last, device=images.device)
                for last in (last_top, last_left)
            )
        return paste(images, patches.to(images), top, left)

    def _squares(self) -> tuple[int, int, int]:
        """Shape of the noise in blocks."""
        return 3, -(-self.size // self.block), -(-self.size // self.block)

    def _last(self, side: int) -> int:
        """The last row (or column) at which the patch may start."""
        from bdbench.data.paste import room

        return room(side, self.size, self.margin if self.place == "fixed" else 0)
