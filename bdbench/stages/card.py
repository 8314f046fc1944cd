"""card: score the predictions and write the card as JSON, Markdown and figure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from bdbench.api import Metric
from bdbench.cards.build import build_card
from bdbench.cards.figure import draw
from bdbench.cards.text import markdown
from bdbench.schema import Ref
from bdbench.stages import Context, Inputs


def run(spec: Mapping[str, Any], inputs: Inputs, work: Path, context: Context) -> int:
    """Write `card.json`, `card.md` and `card.png`."""
    stored = [
        json.loads(inputs[role].file("data.json").read_bytes())
        for role in ("data", "tests") if role in inputs
    ]
    poison = json.loads(inputs["poison"].file("poison.json").read_bytes())
    metrics = {
        ref["name"]: cast(Metric, context.registry.build("metric", Ref(**ref).identity()))
        for ref in spec["metrics"]
    }
    facts = {
        **{split: float(size) for data in stored for split, size in data["sizes"].items()},
        "classes": float(len(stored[0]["classes"])), **stored[0]["facts"],
    }
    left_out = Counter[str]()
    for data in stored:
        left_out.update({kind: one["count"] for kind, one in data.get("left_out", {}).items()})
    card = build_card(spec, inputs, metrics, facts, poison, dict(left_out))
    (work / "card.json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (work / "card.md").write_text(markdown(card), encoding="utf-8")
    draw(card, work / "card.png")
    return 0
