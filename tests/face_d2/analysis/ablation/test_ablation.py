"""Suites: what is run, what is left alone, what comes out."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import status_of
from helpers.tables import unpadded

from face_d2.analysis.ablation import run as ablation_run
from face_d2.analysis.ablation import suite as ablation
from face_d2.analysis.ablation.report import collect, markdown_table, plot_suite
from face_d2.analysis.ablation.suite import SuiteRunner, read_suite
from face_d2.cli.ablate import main
from face_d2.config import get_cfg, get_config_file
from face_d2.synthetic.dataset import generate

# Stands for the child process: does nothing but leave what a training leaves, in no time.
STAND_IN = """
import json, os, pathlib, sys
words = sys.argv[1:]
after = lambda word: words[words.index(word) + 1]
result, seed = pathlib.Path(after("--result")), int(after("SEED"))
folder = pathlib.Path(after("OUTPUT_DIR"))
settings = json.loads((folder / "settings.json").read_text())
if result.stem == "seg_det-seed1" and not (folder / "pardoned").exists():
    sys.exit("out of luck")
(folder / "metrics.json").write_text(json.dumps({"iteration": 3}))
(folder / "gpus.txt").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
figures = {f"AP_{s}": 10.0 * n + seed for n, s in enumerate(("easy", "medium", "hard"))}
result.parent.mkdir(parents=True, exist_ok=True)
result.write_text(json.dumps({**figures, "row": result.stem.split("-")[0], "seed": seed,
    "dataset": "d", "protocol": {"ground truth": "official"}, "parameters": 2_500_000,
    "gflops": 6.5, "flops_size": [480, 640], "ms_per_image": 50.0, "iterations": 4,
    "training_seconds": 90.0, "device": "CPU", **settings}))
with (folder.parent / "order.txt").open("a") as file:
    file.write(result.stem + "\\n")
"""


@pytest.fixture
def suite(tmp_path: Path) -> str:
    """A suite of two rows."""
    path = tmp_path / "pair.yaml"
    configs = [get_config_file(f"ablation/{row}.yaml") for row in ("seg_det", "seg_none")]
    path.write_text(f'# Two towers.\nrows:\n  "own": {configs[0]}\n  "three": {configs[1]}\n')
    return str(path)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "child.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(ablation, "_CHILD", [sys.executable, "-W", "ignore", str(script)])
    monkeypatch.setattr(ablation, "_POLL_SECONDS", 0.02)


def order(output: Path) -> list[str]:
    return (output / "runs" / "order.txt").read_text().split()


def test_trains_what_is_missing_and_goes_on_after_a_failure(
    suite: str, stand_in: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = [suite, "--seeds", "2", "--output", str(output), "SOLVER.MAX_ITER", "4"]
    assert main(words) == 1
    # Seed by seed; the failure costs the others nothing and is shown with its last words.
    assert order(output) == ["seg_det-seed0", "seg_none-seed0", "seg_none-seed1"]
    captured = capsys.readouterr()
    assert "error: 1 runs failed" in captured.err
    assert "seg_det seed 1 failed (exit 1)" in captured.out + captured.err
    assert "out of luck" in captured.out + captured.err
    assert "| own | 1 | 0.0 | 10.0 | 20.0 | 2.50 | 6.50 | 50.0 | 1.5 |" in unpadded(captured.out)
    assert "| three | 2 | 0.5 ± 0.7 | 10.5 ± 0.7 | 20.5 ± 0.7 |" in unpadded(captured.out)

    (output / "runs" / "seg_det-seed1" / "pardoned").touch()
    main(words)
    assert order(output)[3:] == ["seg_det-seed1"]  # nothing else was run again
    table = (output / "pair.md").read_text()
    assert "| own | 2 | 0.5 ± 0.7 |" in unpadded(table)
    assert table.startswith("# Two towers.")
    assert (output / "pair.png").stat().st_size > 5000
    assert (output / "pair.svg").is_file()

    # The JSON files alone make the same table on another machine.
    elsewhere = tmp_path / "elsewhere"
    results = ["--results", str(output / "results")]
    main([suite, "--collect-only", "--output", str(elsewhere), *results])
    assert (elsewhere / "pair.md").read_text() == table
    # And so does the file of one line a run that is made of them.
    again = tmp_path / "again"
    results = ["--results", str(elsewhere / "pair.jsonl")]
    main([suite, "--collect-only", "--output", str(again), *results])
    assert (again / "pair.md").read_text() == table
    assert len((again / "pair.jsonl").read_text().splitlines()) == 4
    assert len(order(output)) == 4


def test_a_file_of_results_is_only_read(
    suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pair.jsonl"
    for words, status, message in (
        ([], 2, "needs --collect-only"),
        (["--collect-only"], 1, "line 2"),
    ):
        file.write_text(
            '{"row": "a", "seed": 0, "dataset": "b", "settings": {}, "AP_hard": 1}\n{\n'
        )
        given = [suite, "--results", str(file), "--output", str(tmp_path), *words]
        assert status_of(main, given) == status
        assert message in capsys.readouterr().err


def test_runs_side_by_side(suite: str, stand_in: None, tmp_path: Path) -> None:
    results = tmp_path / "results"
    runner = SuiteRunner(read_suite(suite), [0, 2], tmp_path, results, jobs=3)
    assert runner.run(progress=False) == []
    assert sorted(order(tmp_path)) == [f"seg_{r}-seed{s}" for r in ("det", "none") for s in (0, 2)]
    assert runner.pending() == []


def test_a_stopped_suite_ends_its_children(
    suite: str, stand_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    start = SuiteRunner._start
    monkeypatch.setattr(
        SuiteRunner, "_start", lambda *words: started.append(start(*words)) or started[-1]
    )

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation.time, "sleep", stop)
    runner = SuiteRunner(read_suite(suite), [0], tmp_path, tmp_path / "results", jobs=2)
    with pytest.raises(KeyboardInterrupt):
        runner.run(progress=False)
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_other_settings_do_not_come_into_one_table(
    suite: str, stand_in: None, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    SuiteRunner(read_suite(suite), [0], tmp_path, results).run(progress=False)
    opts = ("SOLVER.BASE_LR", "0.5")
    with pytest.raises(ValueError, match=r"SOLVER\.BASE_LR 0\.05, now it is 0\.5"):
        SuiteRunner(read_suite(suite), [0], tmp_path, results, opts=opts).run(progress=False)
    # What differs between machines is no other setting.
    opts = ("DATALOADER.NUM_WORKERS", "7", "CUDNN_BENCHMARK", "True")
    assert SuiteRunner(read_suite(suite), [0], tmp_path, results, opts=opts).pending() == []
    # Nor may a training that was stopped go on with other settings.
    (results / "seg_det-seed0.json").unlink()
    stopped = tmp_path / "runs" / "seg_det-seed0" / "settings.json"
    stopped.write_text(json.dumps({"settings": {"SOLVER.MAX_ITER": 17}}))
    with pytest.raises(ValueError, match=r"settings\.json.*SOLVER\.MAX_ITER 17"):
        SuiteRunner(read_suite(suite), [0], tmp_path, results).pending()


def result(row: str, seed: int, **changes: Any) -> dict[str, Any]:
    figures = {f"AP_{setting}": 50.0 for setting in ("easy", "medium", "hard")}
    known = {"dataset": "d", "protocol": {}, "iterations": 4, "settings": {}}
    return {"row": row, "seed": seed, **figures, **known, **changes}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([result("seg_det", 0), result("seg_none", 0, dataset="e")], "dataset d.*dataset|has e"),
        ([result("seg_det", 0), result("seg_det", 1, iterations=5)], "iterations 4.*has 5"),
        ([{"row": "seg_det", "seed": 0}], "AP_hard, dataset, settings missing"),
        ([{"row": "seg_det", "seed": 0, "text": "{"}], "not the result of a run"),
    ],
)
def test_bad_results_are_named(
    suite: str, tmp_path: Path, files: list[dict[str, Any]], message: str
) -> None:
    for content in files:
        file = tmp_path / f"{content['row']}-seed{content['seed']}.json"
        file.write_text(content.get("text") or json.dumps(content))
    with pytest.raises(ValueError, match=message):
        collect(read_suite(suite), tmp_path)


def test_settings_without_faces_and_trainings_too_short_to_time_are_dashes(
    suite: str, tmp_path: Path
) -> None:
    cost = {"parameters": 1, "gflops": 1.0, "flops_size": [1, 1], "ms_per_image": 1.0}
    for seed in (0, 1):
        bare = result("seg_det", seed, AP_easy=None, training_seconds=None, device="CPU", **cost)
        (tmp_path / f"seg_det-seed{seed}.json").write_text(json.dumps(bare))
    read = read_suite(suite)
    found = collect(read, tmp_path)
    row = "| own | 2 | - | 50.0 ± 0.0 | 50.0 ± 0.0 | 0.00 | 1.00 | 1.0 | - |"
    assert row in unpadded(markdown_table(read, found))
    assert all(file.is_file() for file in plot_suite(read, found, tmp_path / "plot"))


def test_empty_suite_has_a_table_of_dashes(suite: str, tmp_path: Path) -> None:
    text = markdown_table(read_suite(suite), collect(read_suite(suite), tmp_path))
    assert "| own | 0 | - |" in unpadded(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: [a, b]", "expected 'rows:'"),
        ("other: 1", "expected 'rows:'"),
        ('rows: {"a": nowhere.yaml}', "which does not exist"),
        ('rows: {"a": A, "b": ./A}', "both have a config named"),
    ],
)
def test_bad_suites_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "A").write_text("")
    (tmp_path / "bad.yaml").write_text(text)
    words = [str(tmp_path / "bad.yaml"), "--collect-only", "--output", str(tmp_path / "out")]
    assert main(words) == 1
    assert message in capsys.readouterr().err


def test_unknown_suite_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["nosuch"], "no suite 'nosuch'; there are: anchors, baseline, batch_norm, cls_norm, "),
        (["lambda2", "NO.SUCH_KEY", "1"], "NO.SUCH_KEY"),
    ):
        assert main([*words, "--output", str(tmp_path)]) == 1
        assert message in capsys.readouterr().err


def test_without_a_suite_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(ablation.shipped_suites())
    assert any("8 rows: How maps are fused" in line for line in lines)


def test_one_process_a_folder(tmp_path: Path) -> None:
    with (
        ablation_run._alone_in(tmp_path / "run"),
        pytest.raises(SystemExit, match="another process trains in"),
        ablation_run._alone_in(tmp_path / "run"),
    ):
        pass
    with ablation_run._alone_in(tmp_path / "run"):  # free again
        pass


def untimed(table: str) -> str:
    """A table without what a clock gave."""
    return "\n".join(line.rsplit("|", 3)[0] for line in table.splitlines())


def test_a_stopped_training_resumes_to_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real child processes: one training whole, one from the checkpoint that a killed one left."""
    generate(tmp_path, train_images=4, val_images=2, progress=False)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    (tmp_path / "one.yaml").write_text(
        f'rows: {{"DF2S2": {get_config_file("quick/df2s2_real.yaml")}}}'
    )
    tiny = [
        *("SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.IMS_PER_BATCH", "2"),
        *("INPUT.FACE_CROP.SIZE", "64", "INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0"),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", "16", "MODEL.RESNETS.WIDTH_PER_GROUP", "4"),
        *("MODEL.FFP.OUT_CHANNELS", "8", "MODEL.DF2S2.SCORE_THRESH_TEST", "0.005"),
    ]
    suite = str(tmp_path / "one.yaml")
    run = "runs/df2s2_real-seed0"
    main([suite, "--output", str(tmp_path / "whole"), *tiny])
    left = tmp_path / "stopped" / run
    left.mkdir(parents=True)
    for name in ("model_0000001.pth", "settings.json"):
        shutil.copy(tmp_path / "whole" / run / name, left)
    (left / "last_checkpoint").write_text("model_0000001.pth")
    main([suite, "--output", str(tmp_path / "stopped"), *tiny])
    assert "Starting training from iteration 2" in (left / "log.txt").read_text()
    tables = [(tmp_path / name / "one.md").read_text() for name in ("whole", "stopped")]
    assert untimed(tables[0]) == untimed(tables[1])
    values = [
        json.loads((tmp_path / name / "results" / "df2s2_real-seed0.json").read_text())
        for name in ("whole", "stopped")
    ]
    for key in ("AP_easy", "AP_medium", "AP_hard", "parameters", "gflops", "settings"):
        assert values[0][key] == values[1][key]
    assert values[0]["ms_per_image"] > 0
    assert values[0]["gflops"] > 0.1


def test_jobs_share_the_gpus(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7,8")
    runner = SuiteRunner(read_suite(suite), [0], tmp_path, tmp_path, num_gpus=2, jobs=2)
    assert [runner._gpus(slot) for slot in (0, 1)] == [["3", "5"], ["7", "8"]]
    with pytest.raises(ValueError, match="3 jobs of 2 GPUs each need 6; 4 are available"):
        SuiteRunner(read_suite(suite), [0], tmp_path, tmp_path, num_gpus=2, jobs=3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert SuiteRunner(read_suite(suite), [0], tmp_path, tmp_path, num_gpus=1, jobs=2)
    with pytest.raises(ValueError, match="3 jobs of 1 GPUs each need 3; 2 are available"):
        SuiteRunner(read_suite(suite), [0], tmp_path, tmp_path, num_gpus=1, jobs=3)


@pytest.mark.parametrize(("gpus", "expected"), [(1, {"3", "5"}), (0, {"3,5"})])
def test_runs_side_by_side_have_gpus_of_their_own(
    gpus: int,
    expected: set[str],
    suite: str,
    stand_in: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    runner = SuiteRunner(
        read_suite(suite), [0], tmp_path, tmp_path / "results", num_gpus=gpus, jobs=2
    )
    assert runner.run(progress=False) == []
    seen = {(run.folder / "gpus.txt").read_text() for run in runner.runs}
    assert seen == expected


@pytest.mark.parametrize(("seeds", "jobs"), [([], 1), ([0], 0)])
def test_a_suite_needs_a_seed_and_a_job(
    seeds: list[int], jobs: int, suite: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="at least one job and one seed are needed"):
        SuiteRunner(read_suite(suite), seeds, tmp_path, tmp_path, jobs=jobs)


def test_only_the_first_process_of_a_run_locks_its_folder_and_records(
    suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = SuiteRunner(read_suite(suite), [0], tmp_path, tmp_path, num_processes=2)
    args = ablation_run._parse(runner._arguments(runner.runs[0]))
    trained, recorded = [], []
    monkeypatch.setattr(ablation_run.train_net, "train_or_evaluate", trained.append)
    monkeypatch.setattr(ablation_run, "_record", lambda args, cfg: recorded.append(args))
    with ablation_run._alone_in(runner.runs[0].folder):  # as the first process does
        monkeypatch.setattr(ablation_run.comm, "is_main_process", lambda: False)
        ablation_run._run(args)
    assert (trained, recorded) == ([args], [])
    monkeypatch.setattr(ablation_run.comm, "is_main_process", lambda: True)
    ablation_run._run(args)
    assert (trained, recorded) == ([args, args], [args])


def test_a_result_names_the_gpu_it_was_made_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cuda:1"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    assert ablation_run._device(cfg) == "1 x H100"
