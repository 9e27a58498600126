"""The command that turns a released LFFD weight file into a Detectron2 checkpoint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
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
from lffd_d2.receptive_field import VARIANTS, get_variant

__all__ = ["convert_file", "main"]


def convert_file(
    source: str | Path, output: str | Path, variant: str | None = None, *, partial: bool = False
) -> Conversion:
    """Converts a weight file and writes the checkpoint.

    The checkpoint is what ``MODEL.WEIGHTS`` and ``DetectionCheckpointer`` take: ``model`` holds the
    parameters by name, ``__author__`` says where they come from.

    Args:
        source: an MXNet ``.params`` file.
        output: the ``.pth`` file to write.
        variant: which network the weights are for; None recognises a released file.
        partial: see :func:`lffd_d2.mxnet_params.convert_names`.

    Returns:
        What was converted.

    Raises:
        MXNetFileError: the file is damaged, not recognised, or of another network.
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


def main(argv: Sequence[str] | None = None) -> int:
    """``tools/convert_lffd_weights.py``; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Convert released LFFD weights (MXNet .params) into a Detectron2 checkpoint.",
        epilog="Released files: " + "; ".join(str(r) for r in RELEASES.values()),
    )
    parser.add_argument("file", help="the .params file")
    parser.add_argument(
        "--variant", choices=sorted(VARIANTS), help="which network; released files are recognised"
    )
    parser.add_argument("--output", required=True, help="the checkpoint to write, x.pth")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="take the parameters that fit and leave the others to their random start, e.g. the "
        "head detector's (17L4S) for the first four stages of 20L5S",
    )
    args = parser.parse_args(argv)
    try:
        conversion = convert_file(args.file, args.output, args.variant, partial=args.partial)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    release = RELEASES.get(git_blob_id(Path(args.file).read_bytes()))
    print(f"{args.file}: {release if release else 'not a released file'}")
    values = sum(array.size for array in conversion.weights.values())
    print(f"{args.output}: {len(conversion.weights)} parameters, {values:,} values")
    for title, names in (("missing", conversion.missing), ("unused", conversion.unused)):
        if names:
            print(f"{title}: {len(names)} ({', '.join(names)})")
    return 0
