"""The published JSON schema of a card is the one that the code enforces."""

from __future__ import annotations

import json
from importlib.resources import files

from bdbench.schema import Card

COMMAND = (
    "python -c 'import json; from bdbench.schema import Card; "
    "print(json.dumps(Card.model_json_schema(), indent=1, sort_keys=True))'"
    " > bdbench/schema/card.schema.json"
)


def test_card_schema_is_current():
    published = json.loads((files("bdbench.schema") / "card.schema.json").read_text("utf-8"))
    assert published == Card.model_json_schema(), f"the card changed; regenerate with\n{COMMAND}"


def test_a_card_survives_its_file(card):
    assert Card.model_validate_json(card.model_dump_json()) == card
