"""Coverage-guided fuzzing of the annotation and prediction parsers with atheris.

Claim measured: of 100,000 files that atheris makes out of thirteen small valid ones, the parser of
each reads or refuses every one, by an error that names the file; none takes 10 seconds or 1 GB.

    pip install atheris
    python tools/qa/fuzz_parsers.py [--inputs 100000] [--json PATH]

Files, parsers and what counts as a refusal are those of tests/face_d2/test_parser_fuzz.py, whose
own damage is made by hypothesis. libFuzzer ends the process it runs in, so every parser has one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

SUITE = Path(__file__).resolve().parents[2] / "tests" / "face_d2" / "test_parser_fuzz.py"
KINDS = ("annotations", "file list", "fold", "predictions", "FDDB detections")
LABELS = ("wider", "coco", "yolo", "voc", "labelme", "cvat", "labelstudio", "retinaface")
KINDS += tuple(f"labels {form}" for form in LABELS)


def fuzz(kind: str, inputs: int, seed: int, folder: Path) -> None:
    """Gives a parser ``inputs`` files and leaves ``counts.json``; does not return."""
    import atheris

    spec = importlib.util.spec_from_file_location("parsers", SUITE)
    suite = importlib.util.module_from_spec(spec)
    with atheris.instrument_imports(include=["face_d2"]):
        spec.loader.exec_module(suite)
    counts: Counter[str] = Counter()

    def one(data: bytes) -> None:
        counts["read" if suite.read_or_refuse(kind, data, folder) else "refused"] += 1
        if counts.total() == inputs:
            (folder / "counts.json").write_text(json.dumps(counts))

    (folder / "corpus").mkdir()
    (folder / "corpus" / "valid").write_bytes(suite.PARSERS[kind][0].encode())
    # Ten more: its own first tries, of the empty and the valid file, may count or not.
    limits = ["-timeout=10", "-rss_limit_mb=1024", "-max_len=2000", f"-artifact_prefix={folder}/"]
    words = [sys.argv[0], f"-runs={inputs + 10}", f"-seed={seed}", "-verbosity=0", *limits]
    atheris.Setup([*words, str(folder / "corpus")], one)
    atheris.Fuzz()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="of all parsers together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--kind", choices=KINDS, help="one parser, in this process")
    parser.add_argument("--folder", type=Path, help="where its files go")
    args = parser.parse_args(argv)
    if args.kind:
        fuzz(args.kind, args.inputs, args.seed, args.folder)
    result: dict[str, object] = {"inputs": args.inputs, "seed": args.seed}
    failed = False
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            words = ["--kind", kind, "--folder", folder, "--seed", str(args.seed)]
            words += ["--inputs", str(args.inputs // len(KINDS))]
            done = subprocess.run(
                [sys.executable, __file__, *words], capture_output=True, text=True, errors="replace"
            )
            counts = Path(folder) / "counts.json"
            if done.returncode or not counts.exists():
                failed = True
                print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
            result[kind] = json.loads(counts.read_text()) if counts.exists() else None
        print(f"{kind:16} {result[kind]}", flush=True)
    result["met"] = not failed
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
