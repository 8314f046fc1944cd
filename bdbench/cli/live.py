"""The cells of a run as a table that changes: what is done, what is at work, what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from bdbench.cards.text import clean
from bdbench.plan import STAGES, Node, Plan
from bdbench.schema import Cell

Place = tuple[str, str, str]
"""Attack, objective and defense: a place in the table, for all seeds."""


class CellTable:
    """A row per attack and objective, a column per defense; each place counts its seeds."""

    def __init__(self, todo: Plan) -> None:
        self._cells: dict[str, set[Cell]] = {}
        """The cells that rest on each node."""
        for cell, card in todo.cards.items():
            for key in _below(todo, card):
                self._cells.setdefault(key, set()).add(cell)
        self._cards = {card: cell for cell, card in todo.cards.items()}
        self._of = Counter(map(_place, todo.cards))
        self._rows = list(dict.fromkeys(place[:2] for place in self._of))
        self._columns = list(dict.fromkeys(place[2] for place in self._of))
        self._done: Counter[Place] = Counter()
        self._failed: Counter[Place] = Counter()
        self._at_work: dict[str, Node] = {}

    def started(self, node: Node) -> None:
        """A node is at work."""
        self._at_work[node.key] = node

    def ended(self, node: Node, kind: str) -> None:
        """A node is `done`, `reused`, `failed` or `dropped`."""
        self._at_work.pop(node.key, None)
        if kind in ("done", "reused"):
            if node.key in self._cards:
                self._done[_place(self._cards[node.key])] += 1
        elif node.key in self._cards:
            self._failed[_place(self._cards[node.key])] += 1

    def table(self, height: int) -> Table:
        """The table, of at most so many rows: those at work first, then those that wait."""
        now: dict[Place, str] = {}
        for node in sorted(self._at_work.values(), key=lambda node: STAGES.index(node.stage)):
            now |= {_place(cell): node.stage for cell in self._cells.get(node.key, ())}
        shown = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("attack", "objective", *map(clean, self._columns)):
            shown.add_column(Text(name), no_wrap=True, overflow="fold")
        rows = self._first(height, {place[:2] for place in now})
        for attack, objective in rows:
            shown.add_row(
                Text(clean(attack)), Text(clean(objective)),
                *(self._state((attack, objective, name), now) for name in self._columns),
            )
        if len(rows) < len(self._rows):
            shown.add_row(Text(f"and {len(self._rows) - len(rows)} more", "dim"))
        return shown

    def _first(self, height: int, active: set[tuple[str, str]]) -> list[tuple[str, str]]:
        def rank(row: tuple[str, str]) -> int:
            ended = all(
                self._done[(*row, name)] + self._failed[(*row, name)] == self._of[(*row, name)]
                for name in self._columns
            )
            return 0 if row in active else 2 if ended else 1

        chosen = set(sorted(self._rows, key=rank)[: max(1, height)])
        return [row for row in self._rows if row in chosen]

    def _state(self, place: Place, now: dict[Place, str]) -> Text:
        of, done, failed = self._of[place], self._done[place], self._failed[place]
        if not of:
            return Text("")
        text = Text(f"{done}/{of}", "green" if done == of else "" if done else "dim")
        if failed:
            text.append(f" {failed} failed", "red")
        elif place in now and done < of:
            text.append(f" {now[place]}", "yellow")
        return text


def _place(cell: Cell) -> Place:
    return cell.attack, cell.objective, cell.defense


def _below(todo: Plan, key: str) -> Iterator[str]:
    """A node and all that it rests on."""
    seen, left = {key}, [key]
    while left:
        yield (one := left.pop())
        for other in todo.nodes[one].inputs.values():
            if other not in seen:
                seen.add(other)
                left.append(other)
