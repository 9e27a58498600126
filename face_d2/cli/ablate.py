"""``face-d2-ablate``: trains suites of configs with several seeds."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from face_d2.cli.common import CommandParser, run

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains the missing runs of a suite and writes table and plot; returns the exit status."""
    parser = CommandParser(
        "face-d2-ablate",
        "Trains every row of a suite with several seeds and makes one table and plot. Finished "
        "runs (ROW-seedN.json) are not run again; stopped runs continue.",
        examples=(
            "face-d2-ablate",
            "face-d2-ablate fusion --seeds 3 --num-gpus 1 --jobs 4",
            "face-d2-ablate lambda2 --seeds 3 SOLVER.MAX_ITER 600",
        ),
        overrides=True,
        epilog="Each run is python -m face_d2.analysis.ablation.run in a process of its own; its "
        "output is OUTPUT/runs/ROW-seedN/console.txt.",
    )
    parser.add_argument(
        "suite",
        nargs="?",
        help="name of a shipped suite (headline, segmentation, fusion, ...) or a YAML file; "
        "without it, the suites are listed",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="run with seeds 0 to N - 1 (%(default)s)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("output/ablation"),
        metavar="DIR",
        help="folder of the trainings, SUITE.md, SUITE.jsonl and SUITE.png/.svg (%(default)s)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="PATH",
        help="folder of the finished runs' JSON files (OUTPUT/results), shared by suites; with "
        "--collect-only also a SUITE.jsonl",
    )
    parser.add_argument("--num-gpus", type=int, default=0, metavar="N", help="GPUs per run (0)")
    parser.add_argument(
        "--num-processes", type=int, default=1, metavar="N", help="processes per run on the CPU (1)"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="number of parallel runs (1)"
    )
    parser.add_argument(
        "--collect-only",
        action="store_true",
        help="train nothing; write table and plot of the finished runs",
    )
    options = parser.parse_args(arguments)
    if options.results and options.results.suffix == ".jsonl" and not options.collect_only:
        parser.error(f"--results {options.results}: a .jsonl file needs --collect-only")
    return run(lambda: _ablate(options))


def _ablate(options: argparse.Namespace) -> int:
    import face_d2.needs_detectron2  # isort: skip  (says how to install what is missing)

    from face_d2.analysis.ablation.report import collect, markdown_table, plot_suite, write_results
    from face_d2.analysis.ablation.suite import SuiteRunner, read_suite, shipped_suites
    from face_d2.utils.files import write_text

    if options.suite is None:
        for name in shipped_suites():
            suite = read_suite(name)
            print(f"{name:14}{len(suite.rows)} rows: {suite.title}")
        return 0
    results_folder = options.results or options.output / "results"
    failures: list[str] = []
    suite = read_suite(options.suite)
    if not options.collect_only:
        runner = SuiteRunner(
            suite,
            range(options.seeds),
            options.output,
            results_folder,
            opts=options.opts,
            num_gpus=options.num_gpus,
            num_processes=options.num_processes,
            jobs=options.jobs,
        )
        # A plain kill would leave the child processes running; an exit ends them.
        default = signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM."))
        try:
            failures = runner.run()
        finally:
            signal.signal(signal.SIGTERM, default)
    results = collect(suite, results_folder)
    table = markdown_table(suite, results)
    print(table)
    write_text(table, options.output / f"{suite.name}.md")
    if results:
        write_results(results, options.output / f"{suite.name}.jsonl")
        plot_suite(suite, results, options.output / suite.name)
    if failures:
        print(f"error: {len(failures)} runs failed; their output is above", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
