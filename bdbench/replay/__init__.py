"""Run parts of a submission again, from the artifacts in the store, and compare with its cards."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from bdbench.errors import BdbenchError
from bdbench.execute import execute, read_card
from bdbench.replay.again import Runner, again, choose, same_method
from bdbench.replay.badge import badge
from bdbench.replay.compare import (
    Replay,
    apart,
    bytes_check,
    largest,
    picks_check,
    rows,
    same_bytes,
    unlike,
)
from bdbench.replay.held_out import HeldOut, held_out
from bdbench.schema import LARGEST_DIFFERENCE
from bdbench.store import Store
from bdbench.verify import Case, Check, Outcome
from bdbench.verify.case import runs_of, several, where

_MODELS = ("data", "poison", "pretrain")


def draw(seed: int | None) -> int:
    """The seed of what is chosen: the given one, or one that nobody could foresee."""
    return secrets.randbelow(2**31) if seed is None else seed


def replay(
    case: Case, n: int, seed: int, store: Store, plugins: Sequence[Path] = (),
    run: Runner = execute,
) -> Replay:
    """Score the stored predictions of n cells again, then evaluate their models again.

    BdbenchError unless the models and predictions of all drawn cells are here.
    """
    chosen = choose(
        case, case.cards, n, seed, store, plugins, (*_MODELS, "defend", "evaluate")
    )
    with again(case, chosen, store, ("card",), plugins, run) as (place, keys):
        scored = [read_card(place, key) for key in keys]
    wrong = [
        f"{where(card.cell)}, {text}" for card, new in zip(chosen, scored, strict=True)
        for text in unlike(card, new)
    ]
    with again(case, chosen, store, ("evaluate", "card"), plugins, run) as (place, keys):
        evaluated = [read_card(place, key) for key in keys]
        turned, of = rows(store, place, chosen)
    far = max(max(largest(*pair), largest(*other)) for pair, other in zip(
        zip(chosen, scored, strict=True), zip(chosen, evaluated, strict=True), strict=True
    ))
    moved = max(largest(*pair) for pair in zip(scored, evaluated, strict=True))
    near = moved <= LARGEST_DIFFERENCE["replayed"]
    outcome: Outcome = "yes" if not turned else "warning" if near else "no"
    return Replay("replayed", seed, tuple(chosen), (
        _check(
            "score", "the stored predictions give the submitted figures", wrong,
            several(len(chosen), "cell"),
        ),
        Check(
            "evaluate", "the stored models give the stored predictions", outcome,
            f"{turned} of {of} rows differ; largest difference of a rate {moved:.4f}",
        ),
    ), not turned, far)


def reproduce(
    case: Case, n: int, seed: int, store: Store, plugins: Sequence[Path] = (),
    run: Runner = execute,
) -> Replay:
    """Run the defense of n cells again, from the stored undefended models, and evaluate it.

    Where the models come out bit for bit all figures must, too; elsewhere none may differ by more
    than `LARGEST_DIFFERENCE`. `plugins` are executed. BdbenchError when they are not the files that
    the cards were made with.
    """
    same_method(case, plugins)
    defended = [card for card in case.cards if runs_of(card)]
    if not defended:
        raise BdbenchError(
            f"no cell of `{case.submission.name}` runs a defense",
            "`--replay 1` evaluates its models again",
        )
    chosen = choose(case, defended, n, seed, store, plugins, _MODELS)
    with again(
        case, chosen, store, ("defend", "evaluate", "card"), plugins, run
    ) as (place, keys):
        pairs = [(card, read_card(place, key)) for card, key in zip(chosen, keys, strict=True)]
        alike = [
            same for card, key in zip(chosen, keys, strict=True)
            for same in same_bytes(card, place, key)
        ]
    far = max(largest(*pair) for pair in pairs)
    bound = 0.0 if alike and all(alike) else LARGEST_DIFFERENCE["reproduced"]
    wrong = [text for pair in pairs for text in apart(*pair, bound)]
    return Replay("reproduced", seed, tuple(chosen), (
        bytes_check(alike),
        _check(
            "reproduce", "the defense makes models with the submitted figures", wrong,
            f"{several(len(chosen), 'cell')}; largest difference of a rate {far:.4f}, and {bound:g}"
            " allowed",
        ),
        picks_check(pairs),
    ), all(alike) and far == 0, far)


def _check(name: str, claim: str, wrong: Sequence[str], right: str) -> Check:
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return Check(name, claim, "no" if wrong else "yes", f"{wrong[0]}{more}" if wrong else right)


__all__ = [
    "HeldOut", "Replay", "Runner", "badge", "draw", "held_out", "replay", "reproduce",
]
