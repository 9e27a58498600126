"""Damaged label files of every format are read, or refused with an error that names the file.

Claim measured: of 2,000 damaged files of each of the eight formats, none ends in another error.

    python tools/qa/fuzz_labels.py [--files 2000] [--json PATH]

tests/face_d2/test_parser_fuzz.py defines the files and what counts as a refusal. The damage comes
from a seeded generator, without a fuzzing library.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from face_d2.cli.common import CommandParser, print_result, run

SUITE = Path(__file__).resolve().parents[2] / "tests" / "face_d2" / "test_parser_fuzz.py"


def damage(text: str, nasty: Sequence[str], random: np.random.Generator) -> bytes:
    """The text with one to three parts replaced by something else."""
    data = text.encode()
    for _ in range(random.integers(1, 4)):
        start = int(random.integers(0, len(data) + 1))
        end = start + int(random.integers(0, 12) if random.random() < 0.8 else len(data) // 3)
        kind = random.integers(0, 4)
        if kind == 0:
            new = nasty[random.integers(len(nasty))].encode("utf-8", "surrogatepass")
        elif kind == 1:
            new = random.bytes(random.integers(0, 8))
        elif kind == 2:
            at = int(random.integers(0, len(data) + 1))
            new = data[at : at + end - start + 20]
        else:
            new = str(round(random.normal(0, 1000), 2)).encode()
        data = data[:start] + new + data[end:]
    return data


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = CommandParser(
        "tools/qa/fuzz_labels.py",
        "Gives damaged label files of eight formats to their readers. Each file must be read, or "
        "refused with an error that names it.",
        examples=("python tools/qa/fuzz_labels.py --files 200",),
    )
    parser.add_argument(
        "--files", type=int, default=2000, metavar="N", help="of each format (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="(%(default)s)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the result here")
    args = parser.parse_args(argv)
    return run(lambda: fuzz(args.files, args.seed, args.json))


def fuzz(files: int, seed: int, json_path: Path | None) -> None:
    """Damages and reads ``files`` files of each format; prints how many were read or refused."""
    spec = importlib.util.spec_from_file_location("parsers", SUITE)
    suite = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(suite)
    result: dict[str, Any] = {"files": files, "seed": seed}
    for label_format, (text, _) in suite.LABELS.items():
        random = np.random.default_rng(seed)
        counts: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(files):
                data = damage(text, suite._NASTY, random)
                read = suite.read_or_refuse(f"labels {label_format}", data, Path(folder))
                counts["read" if read else "refused"] += 1
        result[label_format] = dict(counts)
        print(f"{label_format:12} {dict(counts)}", flush=True)
    print_result(result, json_path)


if __name__ == "__main__":
    sys.exit(main())
