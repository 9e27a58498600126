"""Size of the packages' folders and their longest modules.

    python tools/qa/sizes.py

The limits are 15 % of all lines for a folder and 400 lines for a module, unless the module's
docstring gives a reason ("Long because ..."). tests/test_architecture.py checks both.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from face_d2.cli.common import CommandParser

PACKAGES = ("df2s2_d2", "face_d2", "lffd_d2")
MAX_LINES = 400
MAX_SHARE = 0.15
REASON = "Long because"


def modules(repo: Path) -> dict[Path, int]:
    """Lines of every module, by its path in the repository."""
    return {
        path.relative_to(repo): len(path.read_text(encoding="utf-8").splitlines())
        for package in PACKAGES
        for path in sorted((repo / package).rglob("*.py"))
    }


def folder_shares(sizes: dict[Path, int]) -> dict[str, float]:
    """Share of all lines in every folder, the largest first; folders inside a room count apart."""
    lines: Counter[str] = Counter()
    for path, count in sizes.items():
        lines[path.parent.as_posix()] += count
    return {folder: count / lines.total() for folder, count in lines.most_common()}


def too_long(repo: Path, sizes: dict[Path, int]) -> dict[Path, int]:
    """Modules above ``MAX_LINES`` whose docstring gives no reason."""
    return {
        path: count
        for path, count in sizes.items()
        if count > MAX_LINES
        and REASON not in (ast.get_docstring(ast.parse((repo / path).read_text())) or "")
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Prints both; returns 1 if a folder or a module is too large."""
    CommandParser(
        "tools/qa/sizes.py",
        "Prints the share of the lines in every folder of the packages, and the longest modules.",
        examples=("python tools/qa/sizes.py",),
    ).parse_args(argv)
    repo = Path(__file__).resolve().parents[2]
    sizes = modules(repo)
    print(f"{sum(sizes.values()):,} lines in {len(sizes)} modules; folders:")
    for folder, share in folder_shares(sizes).items():
        print(f"  {share:6.1%}  {folder}")
    print("longest modules:")
    for path, count in sorted(sizes.items(), key=lambda pair: -pair[1])[:10]:
        print(f"  {count:6}  {path.as_posix()}")
    shares = folder_shares(sizes)
    faults = [
        *(f"{path.as_posix()}: above {MAX_LINES} lines" for path in too_long(repo, sizes)),
        *(f"{folder}: above {MAX_SHARE:.0%}" for folder, x in shares.items() if x > MAX_SHARE),
    ]
    print("\n".join(faults) or "no folder and no module is too large")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
