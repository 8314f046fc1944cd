"""What every method is: a frozen class whose fields are its hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from bdbench.schema import Kind, Strict


class Component(Strict):
    """A method. Its fields are its hyper-parameters; its methods are what it does."""

    kind: ClassVar[Kind]


@dataclass(frozen=True)
class Tag:
    """What a plugin file says of a class, the counterpart of a registry TOML file."""

    name: str
    summary: str = ""
    version: int = 1
    paper: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    sweep: Mapping[str, Sequence[float]] = field(default_factory=dict)


C = TypeVar("C", bound=type[Component])


def register(name: str, **about: Any) -> Callable[[C], C]:
    """Tag a component class of a plugin file with its registered name.

    Tagging does nothing by itself: `--plugin FILE` collects. `about` takes the fields of `Tag`.
    """

    def tag(cls: C) -> C:
        cls.__bdbench__ = Tag(name, **about)  # type: ignore[attr-defined]
        return cls

    return tag
