"""What `bdbench leaderboard build` writes, and whether what is there is still that."""

from __future__ import annotations

from pathlib import Path

from bdbench.errors import CheckFailed
from bdbench.leaderboard.folder import no_collection
from bdbench.leaderboard.page import page
from bdbench.leaderboard.standing import standings
from bdbench.leaderboard.text import markdown, overview
from bdbench.registry import share_dir


def generated(root: Path | None = None) -> dict[Path, str]:
    """Every file that is made from a folder `leaderboards`, by its path."""
    folder = root or share_dir("leaderboards")
    with no_collection():
        found = standings(root=folder)
        return {
            folder / "README.md": overview(found),
            **{folder / one.board.name / "README.md": markdown(one) for one in found},
            folder / "index.html": page(found),
        }


def build(root: Path | None = None) -> list[Path]:
    """Write the files; returns those that changed."""
    changed = drifted(files := generated(root))
    for path in changed:
        path.write_text(files[path], encoding="utf-8", newline="\n")
    return changed


def check(root: Path | None = None) -> None:
    """Write nothing; CheckFailed names the files that are not what the submissions make."""
    if drifted(files := generated(root)):
        folder = root or share_dir("leaderboards")
        names = ", ".join(
            f"`{path.relative_to(folder.parent).as_posix()}`" for path in drifted(files)
        )
        raise CheckFailed(
            f"not what the submissions make: {names}", "bdbench leaderboard build"
        )


def drifted(files: dict[Path, str]) -> list[Path]:
    """The paths whose file is missing or differs."""
    return [
        path for path, text in files.items()
        if not path.is_file() or path.read_bytes() != text.encode()
    ]
