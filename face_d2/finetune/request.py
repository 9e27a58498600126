"""What the command is asked for, and the state of its run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from face_d2.config import load_config
from face_d2.data.labels.notation import plain_name
from face_d2.finetune.choices import DEFAULT_MODEL
from face_d2.pretrained import find_pretrained

__all__ = [
    "STATE",
    "Request",
    "RequestError",
    "as_json",
    "check_request",
    "default_output",
    "earlier_state",
]

#: Keys that flags of the command set.
_FLAGS = {"DATASETS.TRAIN": "--data", "DATASETS.TEST": "--val", "OUTPUT_DIR": "--output"}
#: File of the state in the folder of the results.
STATE = "run.json"


class RequestError(ValueError):
    """The request cannot be fulfilled as it is; nothing was trained."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        data: notation of the labeled pictures, see :mod:`face_d2.data.catalog`.
        val: notation of those to validate on; None cuts off a part of ``data``.
        seconds: until everything is done; None trains ten epochs.
        model: a shipped detector; None chooses.
        recall: the recall for which a threshold is sought, in 0-1.
        overrides: KEY, VALUE, ...
    """

    data: str
    val: str | None = None
    seconds: float | None = None
    model: str | None = None
    recall: float = 0.9
    overrides: tuple[str, ...] = ()


def default_output(data: str) -> Path:
    """The folder for the results when none is given."""
    return Path("output") / plain_name(data)


def check_request(request: Request) -> None:
    """A ValueError for keys that flags set, two lengths, and names that do not exist."""
    for key, flag in _FLAGS.items():
        if key in request.overrides[::2]:
            raise RequestError(f"{key} is set by {flag}; use the flag instead of the key.")
    if request.seconds is not None and "SOLVER.MAX_ITER" in request.overrides[::2]:
        raise RequestError(
            "--time and SOLVER.MAX_ITER both set the length of the training; give one of them."
        )
    model = find_pretrained(request.model or DEFAULT_MODEL)
    load_config(model.config, request.overrides)  # tells a wrong key


def earlier_state(request: Request, output: Path, must_exist: bool) -> dict[str, Any]:
    """The state of a run of the same request in a folder; {} if there is none."""
    file = output / STATE
    if not file.is_file():
        if must_exist:
            raise RequestError(
                f"--resume: there is no run in {output}; leave out --resume to begin one."
            )
        if output.is_dir() and any(output.glob("*.pth")):
            raise RequestError(
                f"{output} has checkpoints of another training; give another --output."
            )
        return {}
    state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    asked = as_json(request)
    if state["request"] != asked:
        other = [key for key in asked if state["request"].get(key) != asked[key]]
        raise RequestError(
            f"{output} has a run with other values of {', '.join(map(_flag, other))}; give another "
            "--output, or delete the folder to begin again."
        )
    return state


def _flag(field: str) -> str:
    """The name by which the command line sets a field of the request."""
    return {"seconds": "--time", "overrides": "KEY VALUE pairs"}.get(field, f"--{field}")


def as_json(request: Request) -> dict[str, Any]:
    """The request as it is written in the state."""
    return json.loads(json.dumps(asdict(request)))
