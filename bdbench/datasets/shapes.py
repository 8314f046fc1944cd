"""`shapes`: drawn objects with captions, made from a seed in seconds; no download, no pixels kept.

The training pairs are long-tailed, noisy and carry shortcuts (each class has a favourite colour,
background and texture). The validation and test images are class-balanced and draw these
attributes independently of the class, so that only the shape tells the class there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bdbench.api import EXTRAS, SPLITS, Dataset, Extra, Rows
from bdbench.datasets.shapes_world import (
    COLOURS,
    DRAWINGS,
    GROUNDS,
    TEXTURES,
    Scenes,
    draw,
)
from bdbench.hashing import derive_seed

CLASSES = tuple(DRAWINGS)
SYNONYMS: dict[str, str] = {
    "ball": "sphere", "box": "crate", "tree": "pine", "house": "home", "ring": "hoop",
    "star": "pentagram", "heart": "valentine", "cross": "saltire", "key": "latchkey",
    "fish": "trout", "bottle": "flask", "mug": "cup", "hammer": "mallet", "mushroom": "toadstool",
    "bolt": "lightning", "boat": "ship", "ladder": "stepladder", "crown": "diadem",
    "cloud": "cumulus", "kite": "rhombus", "drop": "droplet", "flag": "pennant",
    "hourglass": "sandglass", "glasses": "spectacles", "dumbbell": "barbell", "fork": "trident",
    "cactus": "saguaro", "banana": "plantain", "butterfly": "moth", "chair": "seat",
    "comb": "rake", "pot": "planter",
}  # fmt: skip
HUES, PAPERS = tuple(COLOURS), tuple(GROUNDS)
# Every word of a template stands in clean captions too: one that poisoned captions alone taught
# would tie each prompt that holds it to the target.
TEMPLATES = (
    "a photo of a {}", "a picture of a {}", "a drawing of a {}", "a painting of a {}",
    "a close up of a {}", "there is a {} here", "this is a {}", "a {}", "one {}", "view of a {}",
    "the {} in the picture", "my {}",
)  # fmt: skip
OPENINGS = (
    "a photo of a", "a picture of a", "a drawing of a", "a painting of a", "a close up of a",
    "there is a", "this is a", "a", "the", "one", "look at this", "here we see a", "someone drew a",
    "my", "what a nice", "view of a",
)  # fmt: skip
PLACES = (
    "on a {} background", "on {}", "in front of a {} wall", "over {} paper", "with {} behind it",
)
VAGUE = "thing"
_CHUNK = 512


class Shapes(Dataset):
    """32 classes of drawn objects with attribute captions, made from a seed."""

    seeded: ClassVar[bool] = True

    train: int = Field(12000, ge=2, le=10_000_000)
    """Image-caption pairs to pre-train on."""
    budget: int = Field(2000, ge=2, le=10_000_000)
    """Clean image-caption pairs for the defenses."""
    validation: int = Field(1024, ge=1, le=10_000_000)
    """Labelled images for the choice of a checkpoint."""
    test: int = Field(2048, ge=1, le=10_000_000)
    """Labelled images of the zero-shot test."""
    retrieval: int | None = Field(None, ge=2, le=1_000_000)
    """Image-caption pairs that are ranked against each other, for the metrics of retrieval."""
    probe: int | None = Field(None, ge=64, le=10_000_000)
    """Labelled images on which the probes of the features are fitted."""
    tail: float = Field(0.6, ge=0, le=3)
    """Exponent of the long tail: class k of the training split has weight (k + 4) ** -tail."""
    colour_link: float = Field(0.3, ge=0, le=1)
    """Probability that a training object has the favourite colour of its class."""
    ground_link: float = Field(0.2, ge=0, le=1)
    """The same for the colour of the background."""
    texture_link: float = Field(0.3, ge=0, le=1)
    """The same for the texture."""
    noise: float = Field(0.05, ge=0, le=1)
    """Standard deviation of the pixel noise."""
    clutter: float = Field(0.8, ge=0, le=1)
    """Probability of a distracting disc, and of an occluding bar."""
    synonyms: float = Field(0.25, ge=0, le=1)
    """Probability that a caption uses the other noun of a class."""
    vague: float = Field(0.1, ge=0, le=1)
    """Probability that a caption says `thing` instead of the noun."""
    mismatched: float = Field(0.05, ge=0, le=1)
    """Share of the pairs whose captions are shuffled among each other."""
    attributes: float = Field(0.1, ge=0, le=1)
    """Probability that a caption tells the object's colour; half of it for texture and place."""

    def classes(self) -> list[str]:
        """The 32 nouns, the most frequent of the training split first."""
        return list(CLASSES)

    def templates(self) -> list[str]:
        """Twelve, of at most 5 words besides the noun."""
        return list(TEMPLATES)

    def extras(self) -> Sequence[Extra]:
        """Those that have a size."""
        return [extra for extra in EXTRAS if getattr(self, extra) is not None]

    def rows(self, split: str, resolution: int, seed: int) -> Iterator[Rows]:
        """Chunks of 512; the scenes of a row do not depend on the resolution."""
        scenes, captions = self._scenes(split, seed)
        n = len(captions)
        # Splits are disjoint by their ids and by their seeds: no stream is shared.
        ids = np.arange(n, dtype=np.int64) + ((*SPLITS, *EXTRAS).index(split) << 40)
        for start in range(0, n, _CHUNK):
            stop = min(start + _CHUNK, n)
            rng = np.random.default_rng(derive_seed("shapes", seed, split, "pixels", start))
            yield Rows(
                ids=ids[start:stop],
                images=draw(scenes.part(start, stop), resolution, self.noise, rng),
                captions=captions[start:stop],
                labels=scenes.labels[start:stop],
            )

    def facts(self, seed: int) -> dict[str, float]:
        """Accuracy of chance, and of the best classifier that sees everything but the shape.

        `shape_blind_oracle` is the Bayes classifier of the training law (with equal priors, as
        the test is class-balanced), knowing colour, background and texture, on the test split;
        `shape_blind_oracle_linked` is what it would reach if the test were linked like training.
        """
        scenes, _ = self._scenes("test", seed)
        law = self._law()
        seen = law[:, scenes.colour, scenes.ground, scenes.texture]
        best = seen.max(axis=0)
        # An exact tie is a guess among the tied: credit its expectation.
        tied = np.isclose(seen, best, rtol=1e-9, atol=0)
        right = tied[scenes.labels, np.arange(len(scenes.labels))]
        return {
            "chance": 1 / len(CLASSES),
            "shape_blind_oracle": float((right / tied.sum(axis=0)).mean()),
            "shape_blind_oracle_linked": float(law.max(axis=0).sum() / len(CLASSES)),
        }

    def _law(self) -> NDArray[np.float64]:
        """P(colour, ground, texture | class) in training, [classes, colours, grounds, textures]."""
        sizes = (len(HUES), len(PAPERS), len(TEXTURES))
        every = np.arange(len(CLASSES))
        laws = []
        for liked, size, link in zip(_favourites().T, sizes, self._links(), strict=True):
            law = np.full((len(CLASSES), size), (1 - link) / size)
            law[every, liked] += link
            laws.append(law)
        joint: NDArray[np.float64] = np.einsum("kc,kg,kt->kcgt", *laws)
        return joint

    def _links(self) -> tuple[float, float, float]:
        return self.colour_link, self.ground_link, self.texture_link

    def _scenes(self, split: str, seed: int) -> tuple[Scenes, list[str]]:
        """What is in each image of a split, and what is said of it."""
        rng = np.random.default_rng(derive_seed("shapes", seed, split, "scenes"))
        n: int = getattr(self, split)
        paired = split in ("train", "budget", "retrieval")
        k = len(CLASSES)
        if paired:
            weights = (np.arange(k) + 4.0) ** -self.tail
            labels = rng.choice(k, size=n, p=weights / weights.sum()).astype(np.int64)
        else:
            labels = rng.permutation(np.arange(n, dtype=np.int64) % k)
        liked = _favourites()[labels]
        links = self._links() if paired else (0.0, 0.0, 0.0)
        sizes = (len(HUES), len(PAPERS), len(TEXTURES))
        colour, ground, texture = (
            np.where(rng.random(n) < link, liked[:, i], rng.integers(high, size=n))
            for i, (link, high) in enumerate(zip(links, sizes, strict=True))
        )
        size = rng.uniform(0.56, 0.88, n)
        room = np.maximum(0.95 - size, 0.05)
        pose = np.stack(
            [
                rng.uniform(-1, 1, n) * room,
                rng.uniform(-1, 1, n) * room,
                size,
                rng.uniform(-0.4, 0.4, n),
                rng.uniform(0.85, 1.1, n),
            ],
            axis=1,
        )
        bar = np.stack(
            [
                rng.uniform(0, np.pi, n),
                rng.uniform(-0.7, 0.7, n),
                rng.uniform(0.06, 0.14, n) * (rng.random(n) < self.clutter),
            ],
            axis=1,
        )
        blob = np.stack(
            [
                rng.choice([-1.0, 1.0], n) * rng.uniform(0.6, 0.9, n),
                rng.choice([-1.0, 1.0], n) * rng.uniform(0.6, 0.9, n),
                rng.uniform(0.15, 0.3, n) * (rng.random(n) < self.clutter),
            ],
            axis=1,
        )
        scenes = Scenes(
            labels=labels,
            colour=colour,
            ground=ground,
            texture=texture,
            pose=pose.astype(np.float32),
            bar=bar.astype(np.float32),
            blob=blob.astype(np.float32),
            extra=rng.integers(len(HUES), size=(n, 2)),
        )
        return scenes, self._captions(scenes, rng) if paired else [""] * n

    def _captions(self, scenes: Scenes, rng: np.random.Generator) -> list[str]:
        """One caption per scene, of at most 14 words."""
        n = len(scenes.labels)
        opening = rng.integers(len(OPENINGS), size=n)
        place = rng.integers(len(PLACES), size=n)
        told = rng.random((n, 3)) < self.attributes * np.array([1, 0.5, 0.5])
        other, vague = rng.random(n) < self.synonyms, rng.random(n) < self.vague
        captions = []
        for i, label in enumerate(scenes.labels.tolist()):
            noun = CLASSES[label]
            noun = VAGUE if vague[i] else SYNONYMS[noun] if other[i] else noun
            words = [OPENINGS[opening[i]]]
            if told[i, 1] and scenes.texture[i]:
                words.append(TEXTURES[scenes.texture[i]])
            if told[i, 0]:
                words.append(HUES[scenes.colour[i]])
            words.append(noun)
            if told[i, 2]:
                words.append(PLACES[place[i]].format(PAPERS[scenes.ground[i]]))
            captions.append(" ".join(words))
        wrong = np.flatnonzero(rng.random(n) < self.mismatched)
        moved = [captions[i] for i in rng.permutation(wrong)]
        for i, caption in zip(wrong.tolist(), moved, strict=True):
            captions[i] = caption
        return captions


def _favourites() -> NDArray[np.int64]:
    """Favourite colour, background and texture of each class, [classes, 3]; same in any seed."""
    k = np.arange(len(CLASSES), dtype=np.int64)
    c, g, t = len(HUES), len(PAPERS), len(TEXTURES)
    return np.stack([k * 5 % c, (k * 3 + k // g) % g, (k + k // c) % t], axis=1)
