"""Coverage-guided fuzzing of the annotation and prediction parsers with atheris.

Claim measured: atheris makes 100,000 files out of thirteen small valid ones. Their parser reads
each of them, or refuses it with an error that names the file; none takes 10 seconds or 1 GB.

    pip install atheris
    python tools/qa/fuzz_parsers.py [--inputs 100000] [--json PATH]

tests/face_d2/test_parser_fuzz.py defines the files, the parsers and what counts as a refusal.
libFuzzer ends its process, so every parser runs in a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from face_d2.cli.common import CommandParser, print_result, run

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
    # Ten more, because libFuzzer may or may not count its runs of the empty and the valid file.
    limits = ["-timeout=10", "-rss_limit_mb=1024", "-max_len=2000", f"-artifact_prefix={folder}/"]
    words = [sys.argv[0], f"-runs={inputs + 10}", f"-seed={seed}", "-verbosity=0", *limits]
    atheris.Setup([*words, str(folder / "corpus")], one)
    atheris.Fuzz()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = CommandParser(
        "tools/qa/fuzz_parsers.py",
        "Fuzzes the parsers of annotations and predictions with atheris, guided by coverage.",
        examples=("python tools/qa/fuzz_parsers.py --inputs 10000",),
    )
    parser.add_argument(
        "--inputs",
        type=int,
        default=100_000,
        metavar="N",
        help="of all parsers together (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="(%(default)s)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the result here")
    parser.add_argument("--kind", choices=KINDS, help="one parser, in this process")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where its files go")
    args = parser.parse_args(argv)
    if args.kind:
        if not args.folder:
            parser.error("--kind needs --folder")
        fuzz(args.kind, args.inputs, args.seed, args.folder)
    return run(lambda: fuzz_all(args.inputs, args.seed, args.json))


def fuzz_all(inputs: int, seed: int, json_path: Path | None) -> int:
    """Fuzzes every parser in a process of its own; returns the exit status."""
    result: dict[str, object] = {"inputs": inputs, "seed": seed}
    failed = False
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            words = ["--kind", kind, "--folder", folder, "--seed", str(seed)]
            words += ["--inputs", str(inputs // len(KINDS))]
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
    print_result(result, json_path)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
