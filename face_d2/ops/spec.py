"""Everything needed to use a network without its code; stored in the metadata of ONNX files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from face_d2.ops.resize import SizeRule

__all__ = ["DetectorSpec", "ForeignFileError", "Level", "Suppression"]

#: Version of the metadata format.
_FORMAT = 1
_KEY = "face_d2"
#: The name of ``min_image_side`` in the metadata.
_MIN_SIDE = "least_side"


class ForeignFileError(ValueError):
    """The file was not written by this project."""


@dataclass(frozen=True)
class Level:
    """One detection level.

    Attributes:
        name: the tap of the branch, or the pyramid level.
        stride: input pixels between neighboring cells.
        sizes: minimum and maximum face size in input pixels: LFFD's face range, or the shortest and
            longest anchor side of DF2S2.
    """

    name: str
    stride: int
    sizes: tuple[float, float]


@dataclass(frozen=True)
class Suppression:
    """Settings that select detections from candidates.

    Attributes:
        score_threshold: candidates need a score above this.
        topk: maximum number of candidates before NMS.
        topk_per_level: whether ``topk`` applies to each level or to all levels together.
        nms_type: "iou", or "iom" (intersection over the area of the lower-scored box, as in LFFD's
            released tool).
        nms_threshold: boxes with a larger overlap are suppressed.
        max_detections: maximum number of detections per image.
    """

    score_threshold: float
    topk: int
    topk_per_level: bool
    nms_type: str
    nms_threshold: float
    max_detections: int


@dataclass(frozen=True)
class DetectorSpec:
    """Input, levels and inference settings of a network.

    Attributes:
        detector: the meta-architecture.
        config: the name of the config file.
        input_format: channel order of the input, "BGR" or "RGB".
        size_rule: the size to which images are resized.
        min_image_side: images with a shorter side below this are not searched and have no
            detections.
        levels: the detection levels, shallow to deep.
        suppression: inference settings.
        classes: the names of the classes.
        outputs: outputs of an exported graph: "candidates", "maps" or "detections"; "opencv" for
            the boxes and scores of a file for OpenCV's dnn.
    """

    detector: str
    config: str
    input_format: str
    size_rule: SizeRule
    min_image_side: float
    levels: tuple[Level, ...]
    suppression: Suppression
    classes: tuple[str, ...] = field(default=("face",))
    outputs: str = "candidates"

    def to_metadata(self) -> dict[str, str]:
        """The spec as metadata of an ONNX file, readable for programs and people."""
        values = asdict(self)
        values[_MIN_SIDE] = values.pop("min_image_side")
        return {
            _KEY: json.dumps({"format": _FORMAT, **values}),
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
        """Reads the spec from the metadata of the ONNX file ``source``.

        Raises:
            ForeignFileError: the file was not written by ``tools/export_onnx.py``.
            ValueError: the file was written by another version.
        """
        if _KEY not in metadata:
            raise ForeignFileError(
                f"{source}: not a file of face-d2-export: its metadata have no {_KEY!r} entry, "
                "which says how to prepare images and how to read the outputs"
            )
        try:
            return cls._from_json(metadata[_KEY])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{source}: written by another version; export it again ({error!r})"
            ) from error

    @classmethod
    def _from_json(cls, text: str) -> DetectorSpec:
        values: dict[str, Any] = json.loads(text)
        if (version := values.pop("format")) != _FORMAT:
            raise ValueError(f"format {version}; expected {_FORMAT}")
        values["min_image_side"] = values.pop(_MIN_SIDE)
        values["size_rule"] = SizeRule(**values["size_rule"])
        values["suppression"] = Suppression(**values["suppression"])
        values["levels"] = tuple(
            Level(level["name"], level["stride"], tuple(level["sizes"]))
            for level in values["levels"]
        )
        values["classes"] = tuple(values["classes"])
        return cls(**values)
