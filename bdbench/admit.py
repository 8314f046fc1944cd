"""Before anything is trained: whether the data that a plan has stored will do for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from bdbench.api import told
from bdbench.errors import BdbenchError
from bdbench.plan import Node, Plan
from bdbench.store import Artifact, Store


def admit(store: Store, todo: Plan, strict: bool) -> Iterator[tuple[Node, str]]:
    """Yield what could not be used of the data, which is all stored, as a node and a line of text.

    Raises BdbenchError where too few clean pairs are left for the defenses, where a retrieval has
    no caption that an attack could lead to, and with `strict` where anything could not be used.
    """
    faults: list[str] = []
    for node in todo.nodes.values():
        if node.stage != "data":
            continue
        artifact = store.open("data", node.key)
        about = json.loads(artifact.file("data.json").read_bytes())
        if "budget" in about["sizes"]:
            _look_at_budget(node, about["sizes"]["budget"], todo)
        if "retrieval" in about["sizes"]:
            _look_for_targets(artifact, about["classes"], todo)
        found = {
            kind: (fault["count"], fault["examples"])
            for kind, fault in about.get("left_out", {}).items()
        }
        if found and strict:
            faults += [f"the dataset `{node.label}` has samples that cannot be used:", *told(found)]
            continue
        for line in told(found):
            yield node, f"{node.label}: left out {line}"
    if faults:
        raise BdbenchError(
            "\n".join(faults),
            "mend them, or run without `--strict`: they are left out and counted on the card",
        )


def _look_at_budget(node: Node, have: int, todo: Plan) -> None:
    wanted = max((
        other.spec["budget"] for other in todo.nodes.values()
        if other.stage == "defend" and other.inputs["data"] == node.key
    ), default=0)
    if wanted > have:
        raise BdbenchError(
            f"the dataset `{node.label}` has `{have}` clean pairs for the defenses, and the recipe"
            f" asks for `{wanted}`", f"`bdbench run --set recipe.budget.pairs={have}`",
        )


def _look_for_targets(artifact: Artifact, classes: Sequence[str], todo: Plan) -> None:
    import pyarrow.parquet as pq

    from bdbench.sources import all_named

    index = pq.read_table(
        artifact.file("index.parquet"), columns=["caption"], filters=[("split", "=", "retrieval")]
    )
    named = {one for text in index["caption"].to_pylist() for one in all_named(text, classes)}
    for target in {node.spec["target"] for node in todo.nodes.values() if node.stage == "poison"}:
        if classes.index(target) not in named:
            raise BdbenchError(
                f"no caption of the split `retrieval` names the target `{target}`",
                "take other pairs for it: `--set 'dataset.retrieval.files=\"FILE\"'`",
            )
