"""Trained detectors that ship with the package, by name.

Each has three files in ``face_d2/weights``: ``NAME.onnx`` for prediction, ``NAME.safetensors`` (in
half precision) for training and evaluation, and ``NAME.md``, its model card. This module loads
neither torch nor Detectron2 and downloads nothing.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

__all__ = ["DEFAULT", "PRETRAINED", "Pretrained", "find_pretrained"]


@dataclass(frozen=True)
class Pretrained:
    """A trained detector.

    Attributes:
        name: name for :meth:`face_d2.FaceDetector.from_pretrained` and ``MODEL.WEIGHTS``.
        config: the shipped config of its network; its model card names the config of the training.
        average_precision: AP easy, medium and hard of the shipped ONNX file, in percent, on the 638
            validation photographs of the 80/20 fold of WIDER FACE's validation set. The model card
            gives the intervals and the command.
        hiding_threshold: where faces are hidden (``face-d2-predict --blur``), those that score more
            than this are. How it was chosen and what stays visible is in ``docs/hiding.md``.
    """

    name: str
    config: str
    average_precision: tuple[float, float, float]
    hiding_threshold: float

    @property
    def onnx(self) -> Path:
        """The exported network, with its preprocessing."""
        return self._file(".onnx")

    @property
    def weights(self) -> Path:
        """The averaged weights of the training, in half precision."""
        return self._file(".safetensors")

    @property
    def card(self) -> Path:
        """The model card, in Markdown."""
        return self._file(".md")

    def _file(self, suffix: str) -> Path:
        path = Path(str(files("face_d2.weights"))) / f"{self.name}{suffix}"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: this file of the detector {self.name!r} is missing from the "
                "installation; install the package again."
            )
        return path


#: By name.
PRETRAINED = {
    model.name: model
    for model in (
        Pretrained(
            "df2s2-lite0", "df2s2/df2s2_lite0_FFP_recommended.yaml", (86.0, 85.0, 78.8), 0.2
        ),
        Pretrained("lffd-20l5s", "lffd/lffd_20L5S_recommended.yaml", (78.4, 78.9, 71.7), 0.1),
    )
}

#: The default detector, the more accurate one.
DEFAULT = "df2s2-lite0"


def find_pretrained(name: str) -> Pretrained:
    """Returns the shipped detector with this name.

    Raises:
        ValueError: there is no such detector.
    """
    if name not in PRETRAINED:
        near = difflib.get_close_matches(name, PRETRAINED, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"no detector {name!r} ships with the package; expected one of "
            f"{list(PRETRAINED)}{hint}"
        )
    return PRETRAINED[name]
