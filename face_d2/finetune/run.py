"""The whole of ``face-d2-train --data``, from labels to the model card."""

from __future__ import annotations

import itertools
import shutil
import time
from pathlib import Path
from typing import Any

import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
import torch
from detectron2.config import CfgNode

from face_d2.analysis.compare.page import make_page
from face_d2.finetune.card import average_last, format_card, plot_loss
from face_d2.finetune.choices import EPOCHS, Choices, choose, configure
from face_d2.finetune.console import console
from face_d2.finetune.data import TrainingData, read_training_data
from face_d2.finetune.outcome import Kept, Validation, export, keep, page, write_int8_file
from face_d2.finetune.pace import Length, minutes, read_losses, train
from face_d2.finetune.request import (
    STATE,
    Request,
    RequestError,
    as_json,
    check_request,
    earlier_state,
)
from face_d2.predictor.torch_backend import build_detector
from face_d2.pretrained import PRETRAINED
from face_d2.utils.files import replaced_file, write_json, write_text

__all__ = ["fine_tune"]

#: Shares of the time for one evaluation and for int8, and what is left for the unforeseen.
_EVALUATION, _INT8, _SPARE = 0.2, 0.12, 0.04
#: There is no int8 file if the training would have less than this share of the time.
_LEAST_TRAINING = 0.2
#: Cost of the report in exports.
_REPORT_COST = 3
#: Cost of int8 in evaluations of a picture: a constant part and one for each picture.
_INT8_COST = (14, 6)
_INT8_PICTURES = (4, 32)
_LOSS_POINTS = 400


def fine_tune(request: Request, output: Path, *, must_exist: bool = False) -> dict[str, Any]:
    """Trains, evaluates, exports and reports; the same request continues a stopped run.

    Writes to ``output``: ``model.pth``, ``model.onnx``, ``model_int8.onnx``, ``model.md`` (the
    card), ``report/index.html``, ``loss.png``, ``loss.csv``, ``config.yaml``, ``log.txt`` and
    ``run.json`` (the request and its state).

    Args:
        request: what is asked for.
        output: the folder.
        must_exist: a run must have been started there (``--resume``).

    Returns:
        ``run.json``'s content.

    Raises:
        RequestError: labels or pictures are missing or malformed, an override is wrong, or
            ``output`` has a run of another request.
        ImportError: a package for the export or the page is not installed.
        ValueError: the time is too short.
    """
    started = time.monotonic()
    make_page({})  # a missing package is told before the work
    try:
        check_request(request)
        state = earlier_state(request, output, must_exist)
        if state.get("finished"):
            return {**state, "was_finished": True}
        data = read_training_data(request.data, request.val, output / "data")
        if state and state["digest"] != data.digest:
            raise RequestError(
                f"{output}: the pictures or labels have changed since this run began; give another "
                "--output, or delete the folder to begin again."
            )
        if state:
            choices = Choices(state["model"], tuple(state["pairs"]), tuple(state["reasons"]))
        else:
            choices = choose(data.train, request.model, request.overrides)
        cfg = configure(
            choices, request.overrides, train=data.train, val=data.val, output=str(output)
        )
    except (OSError, ValueError) as error:
        raise RequestError(str(error)) from error
    return _Run(request, output, data, choices, cfg, state, started).work()


class _Run:
    """The steps after the settings are known."""

    def __init__(
        self,
        request: Request,
        output: Path,
        data: TrainingData,
        choices: Choices,
        cfg: CfgNode,
        state: dict[str, Any],
        started: float,
    ) -> None:
        self.request, self.output, self.data, self.choices = request, output, data, choices
        self.cfg, self.started = cfg, started
        self.given = set(request.overrides[::2])
        self.report_seconds = 0.0
        self.deadline = None if request.seconds is None else started + request.seconds
        self.say = console(cfg)
        self.state = state or {
            "request": as_json(request),
            "digest": data.digest,
            "model": choices.model,
            "pairs": list(choices.pairs),
            "reasons": list(choices.reasons),
            "finished": False,
        }
        if state:
            self.say.info("%s: a run was stopped here; it goes on.", output)
        self._save()
        for line in (*data.description, *choices.reasons):
            self.say.info("%s", line)

    def work(self) -> dict[str, Any]:
        """Everything from the first evaluation to the card."""
        begun, start = time.monotonic(), self.output / "start.onnx"
        export(self.cfg, self.cfg.MODEL.WEIGHTS, start, self.choices.model)
        export_seconds = time.monotonic() - begun
        validation = Validation(self.data.val, self.output / "detections", self.request.recall)
        share = None if self.request.seconds is None else _EVALUATION * self.request.seconds
        validation.seconds = self.state.get("picture_seconds", 0.0)
        before = validation.first_pass(self.start_name, start, share)
        self.state["picture_seconds"] = validation.seconds
        self._save()
        used = len(validation.images.files)
        if used < validation.all_images:
            self.say.info(
                "Evaluations use %d of the %d validation pictures, so that one takes at most "
                "%d %% of the time.",
                used,
                validation.all_images,
                100 * _EVALUATION,
            )
        self.say.info("Before the training: AP %.2f on %d pictures.", before, used)
        int8_pictures, reserve = self._reserve(validation, export_seconds)
        iterations = self._train(reserve)
        trained = self.output / "trained.onnx"
        self.say.info("Export and evaluation ...")
        export(self.cfg, str(self.output / "model_final.pth"), trained, self.choices.model)
        after = validation.average_precision("fine-tuned", trained)
        kept = keep(before, after, used)
        self.say.info("%s", kept.sentence)
        shutil.copyfile(trained if kept.trained else start, self.output / "model.onnx")
        self._write_weights(kept.trained)
        int8 = self._int8(int8_pictures, validation.seconds)
        results = validation.compare(
            {self.start_name: start, "fine-tuned": trained}, self.output / "report"
        )
        facts = self._facts(kept, results, iterations, used, int8)
        self._report(results, facts)
        self._tidy()
        point = results["detectors"][facts["kept_name"]]["for_recall"]
        self.state |= {
            "finished": True,
            "iterations": iterations,
            "average_precision": {"before": before, "after": after},
            "kept": facts["kept_name"],
            "validation_pictures": used,
            "threshold": point["threshold"],
            "summary": [kept.sentence, *facts["threshold"]],
            "seconds": round(time.monotonic() - self.started, 1),
        }
        self._save()
        return self.state

    @property
    def start_name(self) -> str:
        """The weights that the training starts from, as a name."""
        return Path(self.cfg.MODEL.WEIGHTS).name

    def _reserve(self, validation: Validation, export_seconds: float) -> tuple[int, float]:
        """Pictures for int8, and seconds that everything after the training takes."""
        least, most = _INT8_PICTURES
        if self.request.seconds is None:
            return most, 0.0
        constant, each = _INT8_COST
        affordable = _INT8 * self.request.seconds / validation.seconds
        pictures = int(min(most, max(least, (affordable - constant) / each)))
        evaluation = len(validation.images.files) * validation.seconds
        int8 = (constant + each * pictures) * validation.seconds
        self.report_seconds = _REPORT_COST * export_seconds
        spare = _SPARE * self.request.seconds
        reserve = export_seconds + evaluation + self.report_seconds + spare
        passed = time.monotonic() - self.started
        if self.request.seconds - passed - reserve - int8 < _LEAST_TRAINING * self.request.seconds:
            return 0, reserve
        return pictures, reserve + int8

    def _train(self, reserve: float) -> int:
        length = Length(self.state.get("iterations", 0))
        if self.deadline is None or "SOLVER.MAX_ITER" in self.given:
            length.iterations = self.cfg.SOLVER.MAX_ITER
            self.say.info(
                "Training for %d iterations of %d crops (%.1f epochs; without --time or "
                "SOLVER.MAX_ITER it is %d).",
                length.iterations,
                self.cfg.SOLVER.IMS_PER_BATCH,
                self._epochs(length.iterations),
                EPOCHS,
            )
        else:
            length.deadline = self.deadline - reserve
            left = length.deadline - time.monotonic()
            if left < 0.05 * self.request.seconds:
                raise ValueError(
                    f"--time is too short: start, evaluation and export alone take about "
                    f"{minutes(self.request.seconds - left)}; give at least "
                    f"{minutes(1.5 * (self.request.seconds - left))}."
                )
            self.say.info(
                "Training for %s; %s are for the evaluation, the export and the report.",
                minutes(left),
                minutes(reserve),
            )
        try:
            learned = train(self.cfg, length, self.given, self.say)
        finally:  # a run that is stopped goes on with this plan
            self.state["iterations"] = length.iterations
            self._save()
        write_text(self.cfg.dump(), self.output / "config.yaml")
        return learned

    def _epochs(self, iterations: int) -> float:
        return iterations * self.cfg.SOLVER.IMS_PER_BATCH / self.data.train_images

    def _write_weights(self, trained: bool) -> None:
        """``model.pth``: the weights that are kept, for ``MODEL.WEIGHTS``."""
        weights = str(self.output / "model_final.pth") if trained else self.cfg.MODEL.WEIGHTS
        cfg = self.cfg.clone()
        cfg.MODEL.DEVICE = "cpu"
        model = build_detector(cfg, weights)
        with replaced_file(self.output / "model.pth") as temporary:
            torch.save({"model": model.state_dict()}, temporary)

    def _int8(self, pictures: int, seconds: float) -> str:
        """Writes the int8 file; a sentence about it."""
        path = self.output / "model_int8.onnx"
        path.unlink(missing_ok=True)
        if self.deadline is not None:  # as many as the time that is left allows
            constant, each = _INT8_COST
            left = self.deadline - time.monotonic() - self.report_seconds
            pictures = min(_INT8_PICTURES[1], int((left / seconds - constant) / each))
            pictures = pictures if pictures >= _INT8_PICTURES[0] else 0
        if not pictures:
            return (
                "There is no int8 file, because the time was too short; face-d2-export --int8 "
                "writes one from config.yaml and model.pth."
            )
        try:
            result = write_int8_file(self.output / "model.onnx", path, self.data.train, pictures)
        except (RuntimeError, ValueError) as error:
            return f"There is no int8 file: {error}."
        return (
            f"The int8 file loses {result.loss:.2f} points of AP against the boxes of the float "
            f"file on {result.images} training pictures."
        )

    def _facts(
        self, kept: Kept, results: dict[str, Any], iterations: int, used: int, int8: str
    ) -> dict[str, Any]:
        cfg = self.cfg
        kept_name = "fine-tuned" if kept.trained else self.start_name
        point = results["detectors"][kept_name]["for_recall"]
        config = PRETRAINED[self.choices.model].config
        files = {
            "model.onnx": "the detector for `face-d2-predict --onnx` and any ONNX runtime",
            "model.pth": "its weights for PyTorch (`MODEL.WEIGHTS`), with `config.yaml`",
            "report/index.html": "precision, recall, errors and pictures, before and after",
            "log.txt": "the log of the training",
        }
        if (self.output / "model_int8.onnx").is_file():
            files["model_int8.onnx"] = "the same in int8"
        return {
            "title": f"{self.start_name}, fine-tuned on {self.request.data}",
            "start": self.start_name,
            "kept": kept.sentence,
            "kept_name": kept_name,
            "images": used,
            "data": self.data.description,
            "choices": self.choices.reasons,
            "recipe": [
                f"{iterations} iterations of {cfg.SOLVER.IMS_PER_BATCH} crops "
                f"({self._epochs(iterations):.1f} epochs) on {cfg.MODEL.DEVICE}, "
                f"{minutes(time.monotonic() - self.started)} in all.",
                f"Learning rate {cfg.SOLVER.BASE_LR:g}, warm-up over {cfg.SOLVER.WARMUP_ITERS} "
                f"iterations, {cfg.SOLVER.LR_SCHEDULER_NAME}; a moving average of the weights: "
                f"{'yes' if cfg.SOLVER.EMA.ENABLED else 'no'}.",
                f"All other settings are those of `{config}`; `config.yaml` lists all.",
                *([f"Changed by hand: {' '.join(self.request.overrides)}."] if self.given else []),
            ],
            "threshold": [_threshold(point, self.request.recall), int8],
            "files": files,
            "notes": [
                "The code is Apache-2.0. The shipped weights were trained on WIDER FACE, whose "
                "photographs are given for research use. If you ship a product with these weights, "
                "you have to judge what that and the license of your own pictures mean for it."
            ],
        }

    def _report(self, results: dict[str, Any], facts: dict[str, Any]) -> None:
        losses = read_losses(self.output / "loss.csv")
        if losses:
            plot_loss(losses, self.output / "loss.png")
        mean = average_last([loss for _, loss, _ in losses])
        step = max(1, len(losses) // _LOSS_POINTS)
        lists = (facts[key] for key in ("threshold", "data", "choices", "recipe"))
        sentences = [facts["kept"], *itertools.chain(*lists)]
        training = {
            "title": facts["title"],
            "sentences": [text.replace("`", "") for text in sentences],
            "iteration": [iteration for iteration, _, _ in losses[::step]],
            "loss": mean[::step],
            "learning_rate": [rate for _, _, rate in losses[::step]],
        }
        page(results, training, self.output / "report")
        write_text(format_card(facts, results["detectors"]), self.output / "model.md")

    def _tidy(self) -> None:
        """Deletes what only a stopped run needs."""
        names = ("start.onnx", "trained.onnx", "last_checkpoint", "model_final.pth")
        for file in (*(self.output / name for name in names), *self.output.glob("model_0*.pth")):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.output / "detections", ignore_errors=True)

    def _save(self) -> None:
        write_json(self.state, self.output / STATE)


def _threshold(point: dict[str, Any], recall: float) -> str:
    wanted = 100 * recall
    if point["threshold"] is None:
        return f"No score threshold finds {wanted:g} % of the validation faces above 10 pixels."
    return (
        f"A score threshold of {point['threshold']:.3f} finds {wanted:g} % of the validation faces "
        f"above 10 pixels with a precision of {100 * point['precision']:.1f} %; it was chosen on "
        "these pictures."
    )
