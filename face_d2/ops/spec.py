"""What must be known about a network to use it without its code; travels inside ONNX files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from face_d2.ops.resize import SizeRule

__all__ = ["DetectorSpec", "ForeignFileError", "Level", "Suppression"]

#: Version of the format below.
_FORMAT = 1
_KEY = "face_d2"


class ForeignFileError(ValueError):
    """The file was not written by this project."""


@dataclass(frozen=True)
class Level:
    """One detecting map.

    Attributes:
        name: the branch's tap or the pyramid level.
        stride: input pixels between neighbouring cells.
        sizes: least and greatest size in input pixels that it is made for: LFFD's face range,
            DF2S2's shortest and longest anchor side.
    """

    name: str
    stride: int
    sizes: tuple[float, float]


@dataclass(frozen=True)
class Suppression:
    """From candidates to detections.

    Attributes:
        score_threshold: candidates score more than this.
        topk: most candidates that enter suppression ...
        topk_per_level: ... of each level, or of all together.
        nms_type: "iou", or "iom" (intersection over the lower-scored box, LFFD's released tool).
        nms_threshold: overlaps greater than this are suppressed.
        max_detections: most detections of an image.
    """

    score_threshold: float
    topk: int
    topk_per_level: bool
    nms_type: str
    nms_threshold: float
    max_detections: int


@dataclass(frozen=True)
class DetectorSpec:
    """A network's contract.

    Attributes:
        detector: the meta-architecture.
        config: the config file's name.
        input_format: channel order of the input, "BGR" or "RGB".
        size_rule: the size at which images are searched.
        least_side: images with a shorter side below this have no faces that could be found.
        levels: the detecting maps, shallow to deep.
        suppression: inference settings.
        classes: what is detected.
        outputs: of an exported graph: "candidates", "maps" or "detections".
    """

    detector: str
    config: str
    input_format: str
    size_rule: SizeRule
    least_side: float
    levels: tuple[Level, ...]
    suppression: Suppression
    classes: tuple[str, ...] = field(default=("face",))
    outputs: str = "candidates"

    def to_metadata(self) -> dict[str, str]:
        """The card as the metadata of an ONNX file; its readers are machines and people."""
        return {
            _KEY: json.dumps({"format": _FORMAT, **asdict(self)}),
            "detector": self.detector,
            "config": self.config,
            "classes": ",".join(self.classes),
            "input": f"uint8 (N, H, W, 3), {self.input_format}",
            "outputs": self.outputs,
            "face_ranges": ", ".join(
                f"{level.name}: {level.sizes[0]:g}-{level.sizes[1]:g} px" for level in self.levels
            ),
            "score_threshold": f"{self.suppression.score_threshold:g}",
            "nms": f"{self.suppression.nms_type} {self.suppression.nms_threshold:g}",
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str) -> DetectorSpec:
        """Reads a card back.

        Args:
            metadata: of the ONNX file.
            source: the file, for messages.

        Raises:
            ForeignFileError: the file was not written by ``tools/export_onnx.py``.
            ValueError: it was written by another version.
        """
        if _KEY not in metadata:
            raise ForeignFileError(
                f"{source}: was not made by tools/export_onnx.py: its metadata lack {_KEY!r}, so "
                "how to prepare images and read its outputs is not known"
            )
        try:
            return cls._from_json(metadata[_KEY])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{source}: was made by another version; export it again ({error!r})"
            ) from error

    @classmethod
    def _from_json(cls, text: str) -> DetectorSpec:
        values: dict[str, Any] = json.loads(text)
        if (version := values.pop("format")) != _FORMAT:
            raise ValueError(f"format {version}, not {_FORMAT}")
        values["size_rule"] = SizeRule(**values["size_rule"])
        values["suppression"] = Suppression(**values["suppression"])
        values["levels"] = tuple(
            Level(level["name"], level["stride"], tuple(level["sizes"]))
            for level in values["levels"]
        )
        values["classes"] = tuple(values["classes"])
        return cls(**values)
