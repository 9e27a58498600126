"""Share of deliberate mistakes in assignment, losses and evaluators that the tests detect (Linux).

Claim measured: of 300 mutants, drawn with a fixed seed from all changes that cosmic-ray's operators
make in the modules below, the tests named beside each module detect at least 85 %.

    pip install cosmic-ray
    python tools/qa/mutation.py --help

A mutant is one change of one module, in memory. A child process imports the mutant and runs the
tests until the first one fails; a child that takes longer than ``--timeout`` counts as detected.
A change of annotations or docstrings alone is not a mutant.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from face_d2 import compat
from face_d2.cli.common import CommandParser, print_result, run

compat.apply()  # nothing here may import a module that will be changed

# Imported once here, so that the children do not import it again.
import detectron2.engine  # noqa: E402, F401
import hypothesis  # noqa: E402, F401
import matplotlib.pyplot  # noqa: E402, F401
import pytest  # noqa: E402
import scipy.optimize  # noqa: E402, F401
from cosmic_ray import plugins  # noqa: E402
from cosmic_ray.ast import ast_nodes, get_ast  # noqa: E402
from cosmic_ray.mutating import mutate_code  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
GOAL = 0.85
_WIDER = (
    "tests/face_d2/evaluation/wider_face/test_protocol.py",
    "tests/face_d2/evaluation/wider_face/test_breakdown.py",
    "tests/face_d2/evaluation/test_plausibility.py",
)
_NMS = ("tests/face_d2/ops/test_suppression.py", "tests/face_d2/ops/test_box_merging.py")
_EVALUATORS = (
    "tests/face_d2/evaluation/test_evaluators.py",
    "tests/face_d2/evaluation/test_coco.py",
)
#: Module -> the tests that should detect its mutants.
TARGETS: dict[str, tuple[str, ...]] = {
    "df2s2_d2.anchors": ("tests/df2s2_d2/test_anchors.py", "tests/df2s2_d2/test_matching.py"),
    "df2s2_d2.matching": ("tests/df2s2_d2/test_matching.py", "tests/df2s2_d2/test_coverage.py"),
    "df2s2_d2.losses": ("tests/df2s2_d2/test_meta_arch.py",),
    "df2s2_d2.segmentation": ("tests/df2s2_d2/test_segmentation.py",),
    "lffd_d2.assignment": (
        "tests/lffd_d2/test_assignment.py",
        "tests/lffd_d2/test_coverage.py",
        "tests/lffd_d2/test_meta_arch.py",
    ),
    "lffd_d2.losses": ("tests/lffd_d2/test_losses.py",),
    "face_d2.modeling.losses": ("tests/df2s2_d2/test_meta_arch.py", "tests/lffd_d2/test_losses.py"),
    "face_d2.modeling.rectangles": (
        "tests/df2s2_d2/test_segmentation.py",
        "tests/lffd_d2/test_assignment.py",
    ),
    "face_d2.ops.nms": _NMS,
    "face_d2.evaluation.wider_face.protocol": _WIDER,
    "face_d2.evaluation.wider_face.matching": _WIDER,
    "face_d2.evaluation.wider_face.breakdown": _WIDER,
    "face_d2.evaluation.fddb.protocol": ("tests/face_d2/evaluation/fddb/test_protocol.py",),
    "face_d2.evaluation.fddb.overlap": ("tests/face_d2/evaluation/fddb/test_protocol.py",),
    "face_d2.evaluation.evaluators": _EVALUATORS,
    "face_d2.evaluation.coco": _EVALUATORS,
    "face_d2.evaluation.shards": _EVALUATORS,
}
# Slow tests, and tests in processes of their own, which import the unchanged module.
_SKIPPED = "not two_processes and not crowd_fits"
# Operators that need arguments, and comparisons by identity, which almost every test detects.
_LEFT_OUT = ("Variable", "_Is", "IsNot")


def path_of(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


def positions(modules: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """(module, operator, occurrence) of every change that cosmic-ray can make."""
    names = [n for n in plugins.operator_names() if not any(part in n for part in _LEFT_OUT)]
    for module in modules:
        nodes = list(ast_nodes(get_ast(path_of(module).read_text(encoding="utf-8"))))
        for name in names:
            operator = plugins.get_operator(name)()
            count = sum(len(list(operator.mutation_positions(node))) for node in nodes)
            yield from ((module, name, occurrence) for occurrence in range(count))


def essence(source: str) -> str:
    """The code without annotations and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if getattr(node, field, None) is not None:
                setattr(node, field, ast.Constant(0))
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [
                part
                for part in body
                if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ]
    return ast.dump(tree)


def mutant(module: str, operator: str, occurrence: int) -> str | None:
    """The changed source; None if the change does not affect the code that runs."""
    source = path_of(module).read_text(encoding="utf-8")
    changed = mutate_code(source, plugins.get_operator(operator)(), occurrence)
    try:
        same = essence(changed) == essence(source)
    except SyntaxError:
        return None
    return None if same else changed


def difference(module: str, changed: str) -> str:
    """``line: before -> after``."""
    before = path_of(module).read_text(encoding="utf-8").splitlines()
    rows = list(difflib.unified_diff(before, changed.splitlines(), n=0, lineterm=""))[2:]
    line = rows[0].split()[1].lstrip("-").split(",")[0]
    old = " ".join(row[1:].strip() for row in rows if row.startswith("-"))
    new = " ".join(row[1:].strip() for row in rows if row.startswith("+"))
    return f"{line}: {old} -> {new}"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a given source."""

    def __init__(self, module: str, source: str) -> None:
        self.module, self.source = module, source

    def find_spec(self, name: str, path: object, target: object = None) -> Any:
        if name != self.module:
            return None
        return importlib.util.spec_from_file_location(name, path_of(name), loader=self)

    def exec_module(self, module: Any) -> None:
        exec(compile(self.source, module.__file__, "exec"), module.__dict__)


def run_tests(module: str, source: str, timeout: float) -> str:
    """ "survived", "caught" or "timeout"."""
    child = os.fork()
    if child == 0:
        os.setsid()  # so that a timeout also ends the processes of the tests
        out = os.open(os.devnull, os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        # Before tests/, whose folders have the names of the packages.
        sys.path.insert(0, str(ROOT))
        sys.meta_path.insert(0, _Finder(module, source))
        words = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "-k", _SKIPPED]
        code = 1
        try:
            code = pytest.main([*words, *(str(ROOT / test) for test in TARGETS[module])])
        finally:
            os._exit(int(code))
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if status == 0 else "caught"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def draw(count: int, seed: int, modules: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(module, description of the change, changed source) of ``count`` mutants."""
    every = list(positions(modules))
    random.Random(seed).shuffle(every)
    drawn = 0
    for module, operator, occurrence in every:
        changed = mutant(module, operator, occurrence)
        if changed is not None:
            what = f"{operator.removeprefix('core/')}, line {difference(module, changed)}"
            yield module, what, changed
            drawn += 1
            if drawn == count:
                return


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = CommandParser(
        "tools/qa/mutation.py",
        "Counts the deliberate mistakes in assignment, losses and evaluators that the tests "
        "detect (Linux; pip install cosmic-ray).",
        examples=(
            "python tools/qa/mutation.py --state mutants.jsonl",
            "python tools/qa/mutation.py --modules lffd_d2.assignment --mutants 30",
        ),
        epilog="With --state, the same command continues a run that was stopped, and runs the "
        "surviving mutants again.",
    )
    parser.add_argument(
        "--mutants", type=int, default=300, metavar="N", help="how many are drawn (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--modules", nargs="+", choices=TARGETS, default=list(TARGETS), help="default: all"
    )
    parser.add_argument(
        "--timeout", type=float, default=300.0, metavar="S", help="seconds per mutant (%(default)s)"
    )
    parser.add_argument(
        "--state", type=Path, metavar="PATH", help="outcomes so far, one JSON object per line"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the result here")
    args = parser.parse_args(argv)
    return run(lambda: measure(args))


def measure(args: argparse.Namespace) -> int:
    """Runs the tests on every mutant; returns the exit status.

    Raises:
        ValueError: the tests of a module fail without any change.
    """
    known = {}
    if args.state and args.state.exists():
        rows = [json.loads(line) for line in args.state.read_text().splitlines()]
        known = {row["key"]: row["outcome"] for row in rows if row["outcome"] != "survived"}
    original = {module: path_of(module).read_text(encoding="utf-8") for module in args.modules}
    for module, source in original.items():
        if run_tests(module, source, args.timeout) != "survived":
            raise ValueError(f"the tests of {module} fail, or take too long, without any change")
    outcomes: Counter[str] = Counter()
    survivors = []
    mutants = draw(args.mutants, args.seed, args.modules)
    for number, (module, what, changed) in enumerate(mutants, start=1):
        key = hashlib.sha256(f"{module}\n{changed}".encode()).hexdigest()[:16]
        outcome = known.get(key) or run_tests(module, changed, args.timeout)
        outcomes[outcome] += 1
        if outcome == "survived":
            survivors.append(f"{module}: {what}")
        if args.state and key not in known:
            with args.state.open("a", encoding="utf-8") as file:
                print(json.dumps({"key": key, "outcome": outcome, "mutant": what}), file=file)
        print(f"{number:4} {outcome:8} {module}: {what}", flush=True)
    total = max(outcomes.total(), 1)
    result = {
        "mutants": total,
        "seed": args.seed,
        **{name: outcomes[name] for name in ("caught", "timeout", "survived")},
        "share_caught": 1 - outcomes["survived"] / total,
        "met": 1 - outcomes["survived"] / total >= GOAL,
        "survivors": survivors,
    }
    print_result(result, args.json)
    return int(not result["met"])


if __name__ == "__main__":
    sys.exit(main())
