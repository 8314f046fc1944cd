"""Label-consistent: a patch only where the caption already names the target."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from bdbench.api import Attack, Target
from bdbench.errors import BdbenchError

if TYPE_CHECKING:
    from torch import Tensor

    from bdbench.data import Pairs, RowRng


class LabelConsistent(Attack):
    """A fixed patch at a fixed place of pairs that name the target; captions stay as they are.

    Turner et al. 2019, arXiv 1912.02771; on image-text pairs: Bansal et al. 2023, arXiv
    2303.03323. The target must stand in the caption as a word, in any case: `Banana` counts,
    `bananas` and `bandana` do not. (The code of Verma et al. looks for a substring in lower case.)
    Fewer pairs than the rate asks for are poisoned where fewer captions name the target.
    """

    size: int = Field(16, ge=1)
    """Side of the patch of uniform colour noise, in pixels."""
    margin: int = Field(0, ge=0)
    """Pixels between the patch and the right and lower edges."""

    def prepare(self, pairs: Pairs, target: Target, rng: np.random.Generator) -> dict[str, Tensor]:
        """`pattern`: float32 [3, size, size] in [0, 1)."""
        import torch

        from bdbench.data.paste import room

        room(pairs.resolution, self.size, self.margin)
        noise = rng.random((3, self.size, self.size), dtype=np.float32)
        return {"pattern": torch.from_numpy(noise)}

    def choose(
        self, pairs: Pairs, target: Target, n: int, rng: np.random.Generator
    ) -> Sequence[int]:
        """At most `n` positions, drawn uniformly from those whose caption names the target."""
        word = re.compile(rf"(?<!\w){re.escape(target.name)}(?!\w)", re.IGNORECASE)
        named = [i for i, caption in enumerate(pairs.captions) if word.search(caption)]
        if n and not named:
            raise BdbenchError(
                f"no training caption names the target `{target.name}`, so that a label-consistent "
                "attack has nothing to poison",
                hint="choose a target that captions name, or `badnet`, which rewrites the captions",
            )
        return rng.choice(named, size=min(n, len(named)), replace=False).tolist() if n else []

    def caption(self, text: str, target: Target, rng: np.random.Generator) -> str:
        """`text` itself."""
        return text

    def trigger(self, images: Tensor, state: Mapping[str, Tensor], rng: RowRng) -> Tensor:
        """Paste the patch on `images`, float [b, 3, h, w] in [0, 1]; returns the same form."""
        import torch

        from bdbench.data.paste import paste, room

        top, left = (
            torch.full((len(images),), room(side, self.size, self.margin), device=images.device)
            for side in images.shape[-2:]
        )
        return paste(images, state["pattern"].to(images), top, left)
