"""Draws public docstrings and pages of the documentation for a reading, with a fixed seed.

A reader who knows Detectron2 reads each text once. A sentence that must be read twice is a defect.
"""

from __future__ import annotations

import ast
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from face_d2.cli.common import CommandParser

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("df2s2_d2", "face_d2", "lffd_d2")
_DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(root: Path) -> Iterator[tuple[str, str]]:
    """Names and docstrings of all public modules, classes, functions and methods."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            yield from _docstrings_in(tree, path.relative_to(root).as_posix())


def _docstrings_in(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, _DEFINITIONS) and (text := ast.get_docstring(node)):
        yield name, text
    if isinstance(node, (ast.Module, ast.ClassDef)):
        for child in node.body:
            if isinstance(child, _DEFINITIONS) and not child.name.startswith("_"):
                yield from _docstrings_in(child, f"{name}:{child.name}")


def pages(root: Path) -> list[Path]:
    """The pages of the documentation."""
    folders = (root, root / "docs", root / "datasets", root / "examples")
    return [path for folder in folders for path in sorted(folder.glob("*.md"))]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = CommandParser(
        "tools/qa/draw_prose.py",
        "Draws public docstrings and pages of the documentation for a reading.",
        examples=("python tools/qa/draw_prose.py --seed 0 --docstrings 30 --pages 10",),
    )
    numbers = (("--seed", 0), ("--docstrings", 30), ("--pages", 10))
    for flag, default in numbers:
        parser.add_argument(flag, type=int, default=default, metavar="N", help="(%(default)s)")
    options = parser.parse_args(argv)
    drawn = random.Random(options.seed)
    for name, text in drawn.sample(sorted(docstrings(ROOT)), options.docstrings):
        print(f"== {name}\n{text}\n")
    for path in drawn.sample(sorted(pages(ROOT)), options.pages):
        print(f"== {path.relative_to(ROOT).as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
