"""The base class of both detectors.

A subclass computes the losses of a padded batch (:meth:`OneStageDetector.losses`) and its
detections (:meth:`OneStageDetector.detect`). The base class normalizes, pads and groups images and
maps boxes back to the pixels of the original image. Prediction, export and the coverage report use
only the methods of :class:`OneStageDetector`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.evaluation import inference_context
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
from detectron2.utils.visualizer import Visualizer
from torch import Tensor, nn

from face_d2.modeling.coverage_rule import CoverageRule
from face_d2.ops.resize import SizeRule
from face_d2.ops.spec import DetectorSpec

__all__ = ["Candidates", "OneStageDetector", "check_test_settings"]

#: Boxes (N, R, 4) XYXY in pixels of the network's input, scores (N, R) and levels (R,).
Candidates = tuple[Tensor, Tensor, Tensor]


def check_test_settings(
    node: str, *, score_thresh: float, nms_thresh: float, topk: int, max_detections: int
) -> None:
    """Checks the settings that choose the detections of an image.

    Args:
        node: the config node of the first three, for error messages, for example "MODEL.DF2S2".

    Raises:
        ValueError: a setting is out of its range.
    """
    for key, value, possible, expected in (
        (f"{node}.SCORE_THRESH_TEST", score_thresh, 0 <= score_thresh < 1, "a score in [0, 1)"),
        (f"{node}.NMS_THRESH_TEST", nms_thresh, 0 <= nms_thresh <= 1, "an overlap in [0, 1]"),
        (f"{node}.TOPK_CANDIDATES_TEST", topk, topk >= 1, "at least 1"),
        ("TEST.DETECTIONS_PER_IMAGE", max_detections, max_detections >= 1, "at least 1"),
    ):
        if not possible:
            raise ValueError(f"{key} is {value}; expected {expected}.")


class OneStageDetector(nn.Module):
    """Detectron2's contract for a meta-architecture, for detectors with a single stage.

    Args:
        pixel_mean: mean of every channel, in the order of ``input_format``.
        pixel_std: standard deviation of every channel.
        input_format: channel order of ``image``, for example "BGR" (``INPUT.FORMAT``).
        vis_period: number of training iterations between two pictures of what is learned
            (``VIS_PERIOD``, shown by TensorBoard); 0 for none.
    """

    #: Inputs are padded (right and bottom) to sides that are multiples of this; 0 pads nothing.
    size_divisibility: int = 0
    #: Whether boxes are clipped at the image border before NMS, or after it.
    clips_before_nms: bool = False

    def __init__(
        self,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str,
        vis_period: int = 0,
    ) -> None:
        super().__init__()
        if len(pixel_mean) != len(pixel_std):
            raise ValueError(
                f"MODEL.PIXEL_MEAN has {len(pixel_mean)} channels and MODEL.PIXEL_STD "
                f"{len(pixel_std)}; give both one value per channel of INPUT.FORMAT."
            )
        if min(pixel_std) <= 0:
            raise ValueError(f"MODEL.PIXEL_STD is {list(pixel_std)}; expected values above 0.")
        self.input_format, self.vis_period = input_format, vis_period
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def losses(self, images: ImageList, targets: list[Instances]) -> dict[str, Tensor]:
        """Losses of a padded, normalized batch; ``targets`` hold XYXY boxes in its pixels."""
        raise NotImplementedError

    def detect(self, images: ImageList) -> list[Instances]:
        """Detections of a padded, normalized batch, XYXY in its pixels, best score first.

        In addition to Detectron2's fields, there is ``pred_levels``, the index of the level.
        """
        raise NotImplementedError

    @property
    def map_names(self) -> tuple[str, ...]:
        """Names of the maps that :meth:`forward_maps` returns, in order."""
        raise NotImplementedError

    def forward_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """The raw maps of normalized images (N, 3, H, W), without training branches and
        decoding."""
        raise NotImplementedError

    def decode(self, maps: Sequence[Tensor]) -> Candidates:
        """Turns the maps of :meth:`forward_maps` into the candidates of all locations.

        It can be traced, and the trace holds for any image size and batch size.
        """
        raise NotImplementedError

    def spec(self, size_rule: SizeRule, config: str) -> DetectorSpec:
        """Everything that a program needs to use the network without this class.

        Args:
            size_rule: the test size in the config; ``min_side`` is replaced by the detector's
                value.
            config: the name of the config.
        """
        raise NotImplementedError

    def coverage_rule(self, training: bool) -> CoverageRule:
        """The rule that decides which faces the detector can learn, or, if not ``training``, which
        it can detect."""
        raise NotImplementedError

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses while training, detections otherwise.

        Args:
            batched_inputs: Detectron2's input dicts. ``image``: (3, H, W) tensor, values 0-255 in
                ``input_format``; ``instances`` (training): ``gt_boxes``, ``gt_classes`` and
                optionally ``gt_ignore``; ``height``, ``width`` (optional): image size for the
                results.

        Returns:
            In training a dict of scalar losses, otherwise one ``{"instances": Instances}`` per
            input with ``pred_boxes`` (XYXY, pixels of ``height`` x ``width``), ``scores`` and
            ``pred_classes``.

        Raises:
            ValueError: in training, if an input has no ``instances``.
        """
        if not self.training:
            return self._detect_in_groups(batched_inputs)
        for index, item in enumerate(batched_inputs):
            if "instances" not in item:
                raise ValueError(
                    f"training input {index} ({item.get('file_name', 'no file name')}) has no "
                    "'instances'; the training mapper must supply them."
                )
        targets = self._move([item["instances"] for item in batched_inputs])
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self._picture_training(batched_inputs[0])
        return self.losses(self.preprocess_image(batched_inputs), targets)

    def _move(self, targets: Sequence[Instances]) -> list[Instances]:
        """The boxes and the ignored faces of targets, on the model's device.

        They are copied together, because the host waits for the GPU at every copy.
        """
        counts = [len(target) for target in targets]
        boxes = torch.cat([target.gt_boxes.tensor for target in targets]).to(self.device)
        ignore = torch.cat([self.ignored(target) for target in targets]).to(self.device)
        return [
            Instances(target.image_size, gt_boxes=Boxes(faces), gt_ignore=ignored)
            for target, faces, ignored in zip(targets, boxes.split(counts), ignore.split(counts))
        ]

    def _picture_training(self, item: dict[str, Any]) -> None:
        """Stores a training crop at double size, with its faces and with as many detections."""
        with inference_context(self), torch.no_grad():
            (found,) = self.detect(self.preprocess_image([item]))
        faces = item["instances"].gt_boxes.tensor.cpu().numpy()
        best = found.pred_boxes.tensor[: len(faces)].float().cpu().numpy()
        crop = convert_image_to_rgb(item["image"].permute(1, 2, 0), self.input_format)
        drawn = [
            Visualizer(crop, scale=2).overlay_instances(boxes=boxes).get_image()
            for boxes in (faces, best)
        ]
        picture = np.concatenate(drawn, axis=1).transpose(2, 0, 1)
        get_event_storage().put_image("Left: labeled faces. Right: best detections", picture)

    def preprocess_image(self, batched_inputs: Sequence[dict[str, Any]]) -> ImageList:
        """Normalizes, then pads with zeros to a common size, a multiple of
        ``size_divisibility``."""
        # A copy from a GPU must be complete before it is read.
        on_gpu = self.device.type == "cuda"
        images = [item["image"].to(self.device, non_blocking=on_gpu) for item in batched_inputs]
        height, width = images[0].shape[-2:]
        if any(image.shape != images[0].shape for image in images):
            images = [(image - self.pixel_mean) / self.pixel_std for image in images]
            return ImageList.from_tensors(images, self.size_divisibility)
        # Equal sizes, such as training crops: a GPU would wait for the launches of single images.
        batch = (torch.stack(images) - self.pixel_mean) / self.pixel_std
        rows, columns = self.padded_size(height, width)
        batch = F.pad(batch, (0, columns - width, 0, rows - height))
        return ImageList(batch, [(height, width)] * len(images))

    def _detect_in_groups(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        # Only images that pad to the same size share a forward pass. If all were padded to the
        # largest image of the batch, the detections of an image would depend on the other images.
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, item in enumerate(batched_inputs):
            groups[self.padded_size(*item["image"].shape[-2:])].append(index)
        results: list[dict[str, Instances]] = [{} for _ in batched_inputs]
        for indices in groups.values():
            inputs = [batched_inputs[i] for i in indices]
            detected = self.detect(self.preprocess_image(inputs))
            for index, item, found in zip(indices, inputs, detected):
                height = item.get("height", found.image_size[0])
                width = item.get("width", found.image_size[1])
                results[index] = {"instances": detector_postprocess(found, height, width)}
        return results

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after padding to multiples of ``size_divisibility``."""
        divisor = max(self.size_divisibility, 1)
        return (-(-height // divisor) * divisor, -(-width // divisor) * divisor)

    @staticmethod
    def ignored(target: Instances) -> Tensor:
        """(M,) bool: the ignored faces of a training target; none without ``gt_ignore``."""
        if target.has("gt_ignore"):
            return target.gt_ignore
        return torch.zeros(len(target), dtype=torch.bool, device=target.gt_boxes.device)

    @staticmethod
    def detections(
        image_size: tuple[int, int], boxes: Tensor, scores: Tensor, levels: Tensor
    ) -> Instances:
        """The result of :meth:`detect` for an image, from boxes (D, 4), scores (D,) and the level
        indices (D,) int64."""
        return Instances(
            image_size,
            pred_boxes=Boxes(boxes),
            scores=scores,
            pred_classes=torch.zeros_like(levels),
            pred_levels=levels,
        )
