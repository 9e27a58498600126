"""Reads files of weights without executing code that they may contain."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from face_d2.utils.known_mistake import known_mistake

__all__ = ["read_weight_file"]


def read_weight_file(path: str | Path) -> Any:
    """Reads a ``.safetensors`` file, or a PyTorch file of tensors and plain values.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file contains anything else or is damaged; the cause is the reader's error.
    """
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file can raise anything
        # torch's own message is left out, because it advises to load the file unsafely.
        if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ValueError(
                f"{path} is no checkpoint of tensors and plain values: it also holds {refused[1]}, "
                "which could run code. Save its weights alone, {'model': tensors by name}, with "
                "the program that wrote it."
            ) from error
        mistake = known_mistake(path)
        raise ValueError(
            f"{path} is no checkpoint of tensors and plain values, or is cut or damaged "
            f"({mistake or type(error).__name__})."
        ) from error
