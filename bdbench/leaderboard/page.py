"""`index.html`: one page that opens from a file, loads nothing, and shows every card.

Vendored into it, as published on npm (versions and checksums in `templates/vendor/README.md`):

- TanStack Table core 8.21.3 (MIT, 57 kB): sorting, filtering and paging without any markup of its
  own, so that the table can be a plain `<table>` with buttons in its heads and text in its cells.
  Tabulator (440 kB) brings its own grid of `<div>`s, simple-datatables is LGPL, and Grid.js was
  last released in 2024. 8.21 is the last with a single-file build.
- Observable Plot 0.6.17 with D3 7.9.2 (ISC, 210 + 280 kB): SVG, so that figures follow the theme,
  scale and print. Chart.js (200 kB) and uPlot (50 kB) draw on a canvas, which does none of that.

Strings of others reach the page as one block of JSON and are set with `textContent`. The policy in
the head lets only the scripts of this page run and lets nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from bdbench.leaderboard.page_data import data
from bdbench.leaderboard.standing import Standing

VENDORED = ("d3.min.js", "plot.umd.min.js", "table-core.min.js")
LICENCES = {
    "table-core": "TanStack Table core 8.21.3", "plot": "Observable Plot 0.6.17", "d3": "D3 7.9.2",
}
SCRIPTS = ("dom.js", "table.js", "plots.js", "heat.js", "statistic.js", "card.js", "main.js")
_MAP = re.compile(r"\n?//# sourceMappingURL=.*\s*$")


def page(standings: Iterable[Standing]) -> str:
    """The page, the same bytes for the same figures."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    folder = files("bdbench") / "templates"
    vendored = [
        _MAP.sub("", (folder / "vendor" / name).read_text(encoding="utf-8")) for name in VENDORED
    ]
    own = "".join((folder / "page" / name).read_text(encoding="utf-8") for name in SCRIPTS)
    scripts = [*vendored, f'"use strict";\n(() => {{\n{own}}})();\n']
    environment = Environment(
        loader=PackageLoader("bdbench", "templates"), autoescape=True, undefined=StrictUndefined,
        keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        policy=_policy(scripts),
        style=Markup((folder / "page" / "style.css").read_text(encoding="utf-8")),
        data=Markup(block(data(standings))),
        scripts=[Markup(script) for script in scripts],
        licences=[
            (name, (folder / "vendor" / f"{stem}.LICENSE").read_text(encoding="utf-8").strip())
            for stem, name in LICENCES.items()
        ],
    )


def block(value: Any) -> str:
    """JSON that no string in it can end: `<` is escaped, and so is what ends lines in scripts."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return (
        text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )


def _policy(scripts: Iterable[str]) -> str:
    hashes = (
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    )
    allowed = " ".join(f"'sha256-{found}'" for found in hashes)
    # Styles: Plot sets them on what it draws.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
