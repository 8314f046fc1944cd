"""What others wrote, made harmless: on a terminal, in Markdown, in HTML."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

_PLAIN = re.compile(r"[\w.:/+=,@()\[\]\"' -]+", re.ASCII)
# What could open markup; an underscore inside a word and a colon before a space cannot.
_ACTIVE = re.compile(
    r"[\\`*\[\]{}<>&|~^$#@\"]|(?<!\w)_|_(?!\w)|:(?=\S)|(?<=www)\.", re.IGNORECASE
)


def clean(value: object) -> str:
    """Any value on one line, without control characters: safe to print on a terminal."""
    text = " ".join(str(value).split())
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


@cache
def markdown() -> Environment:
    """The Markdown templates, with an escape behind every expression.

    Every string is data: none can open a tag, a table cell, a link or a code span. The filter
    `code` puts a name into a code span where that is safe.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def escape(value: object) -> Markup:
        if isinstance(value, Markup):
            return value
        # Numeric entities hold in Markdown and in raw HTML alike; backslashes only in the former.
        return Markup(_ACTIVE.sub(lambda m: f"&#{ord(m[0])};", clean(value)))

    def code(value: object) -> Markup:
        text = clean(value)
        # A code span has no escapes, so only names that need none become one.
        return Markup(f"`{text}`") if _PLAIN.fullmatch(text) else escape(text)

    environment = Environment(
        loader=PackageLoader("bdbench", "templates"),
        autoescape=True,
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = code
    return environment
