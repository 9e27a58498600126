"""Conversion of a released LFFD weight file to a Detectron2 checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from lffd_d2.mxnet_params import (
    RELEASES,
    Conversion,
    MXNetFileError,
    convert_names,
    git_blob_id,
    parse_ndarrays,
)
from lffd_d2.variants import get_variant

__all__ = ["convert_file"]


def convert_file(
    source: str | Path, output: str | Path, variant: str | None = None, *, partial: bool = False
) -> Conversion:
    """Converts a weight file and writes the checkpoint.

    ``MODEL.WEIGHTS`` and ``DetectionCheckpointer`` load the checkpoint: ``model`` contains the
    parameters by name, and ``__author__`` their source.

    Args:
        source: an MXNet ``.params`` file.
        output: the ``.pth`` file to write.
        variant: the network of the weights; None recognizes a released file.
        partial: see :func:`lffd_d2.mxnet_params.convert_names`.

    Returns:
        What was converted.

    Raises:
        MXNetFileError: the file is damaged, not recognized, or of another network.
        ValueError: the variant is unknown, or ``output`` does not end in ``.pth``.
    """
    if Path(output).suffix != ".pth":
        raise ValueError(f"{output}: a checkpoint's name must end in .pth")
    data = Path(source).read_bytes()
    release = RELEASES.get(git_blob_id(data))
    try:
        arrays = parse_ndarrays(data)
        if variant is None:
            if release is None:
                raise MXNetFileError(
                    f"not one of the released files (by its git blob id {git_blob_id(data)}); say "
                    "which network it is with --variant"
                )
            variant = release.variant
        conversion = convert_names(arrays, get_variant(variant), partial=partial)
    except MXNetFileError as error:
        hint = f"; by its git blob id it is {release}" if release else ""
        raise MXNetFileError(f"{source}: {error}{hint}") from None
    author = f"LFFD authors, {release}" if release else f"converted from {Path(source).name}"
    model = {name: torch.from_numpy(array) for name, array in conversion.weights.items()}
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model, "__author__": author}, output)
    return conversion
