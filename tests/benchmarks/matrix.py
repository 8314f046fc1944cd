"""A store as if every cell of a plan had run, with one card's figures on all of their cards."""

from __future__ import annotations

import json

import pytest

from bdbench.plan import Plan
from bdbench.schema import Card
from bdbench.store import Store


def fill(todo: Plan, store: Store, card: Card) -> None:
    """Publish every node of a plan; what the executor and the cards' readers look at is there."""
    cells = {key: cell for cell, key in todo.cards.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bdbench.store.os.fsync", lambda descriptor: None)
        for key, node in todo.nodes.items():
            work = store.workdir(key)
            if node.stage == "data":
                about = {"sizes": {}, "classes": list(card.recipe.target)}
                (work / "data.json").write_text(json.dumps(about))
            elif node.stage == "card":
                made = card.model_copy(update={"cell": cells[key]})
                (work / "card.json").write_text(made.model_dump_json())
                (work / "card.md").write_text("a card")
            else:
                (work / "made.bin").write_bytes(key.encode())
            store.publish(node.stage, key, label=node.label, spec=node.spec, inputs=node.inputs,
                          seconds=1.0, samples=1)
