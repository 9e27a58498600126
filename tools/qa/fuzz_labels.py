"""Damaged label files of every form: each is read, or refused by an error that names it.

Claim measured: of 2,000 damaged files of each of the eight forms, none ends in another error.

    python tools/qa/fuzz_labels.py [--files 2000] [--json PATH]

The files and what counts as a refusal are those of tests/face_d2/test_parser_fuzz.py; the damage is
drawn here from a seeded generator, without a fuzzing library.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

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


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000, help="of each form")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the result here")
    args = parser.parse_args(argv)
    spec = importlib.util.spec_from_file_location("parsers", SUITE)
    suite = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(suite)
    result: dict[str, Any] = {"files": args.files, "seed": args.seed}
    for form, (text, _) in suite.LABELS.items():
        random = np.random.default_rng(args.seed)
        counts: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(args.files):
                data = damage(text, suite._NASTY, random)
                read = suite.read_or_refuse(f"labels {form}", data, Path(folder))
                counts["read" if read else "refused"] += 1
        result[form] = dict(counts)
        print(f"{form:12} {dict(counts)}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
