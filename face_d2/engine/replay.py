"""Saves the batch of a failed training step, so that the step can be repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from face_d2.data.mapper import ground_truth_instances
from face_d2.utils.files import replaced_file

__all__ = ["load_batch", "save_batch"]


def save_batch(
    path: str | Path, batch: list[dict[str, Any]], model: nn.Module, iteration: int
) -> None:
    """Writes a training batch and the weights before the step, as tensors and plain values."""
    items = [
        {
            "file_name": item["file_name"],
            "image": item["image"],
            "size": tuple(item["instances"].image_size),
            "boxes": item["instances"].gt_boxes.tensor,
            "ignore": item["instances"].gt_ignore,
        }
        for item in batch
    ]
    with replaced_file(path) as temporary:
        torch.save({"iteration": iteration, "batch": items, "model": model.state_dict()}, temporary)


def load_batch(path: str | Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Reads a file of :func:`save_batch`.

    Returns:
        The batch, which a model in training mode accepts inside an ``EventStorage``, and the
        weights for ``model.load_state_dict``.
    """
    saved = torch.load(path, map_location="cpu", weights_only=True)
    batch = []
    for item in saved["batch"]:
        instances = ground_truth_instances(item["boxes"], item["ignore"], item["size"])
        batch.append(
            {"file_name": item["file_name"], "image": item["image"], "instances": instances}
        )
    return batch, saved["model"]
