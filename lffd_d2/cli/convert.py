"""``tools/convert_lffd_weights.py``: converts a released LFFD weight file to a checkpoint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lffd_d2.convert import convert_file
from lffd_d2.mxnet_params import RELEASES, git_blob_id
from lffd_d2.variants import VARIANTS

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Converts a file; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Convert released LFFD weights (MXNet .params) into a Detectron2 checkpoint.",
        epilog="Released files: " + "; ".join(str(r) for r in RELEASES.values()),
    )
    parser.add_argument("file", help="the .params file")
    parser.add_argument(
        "--variant",
        choices=sorted(VARIANTS),
        help="name of the network; released files are recognized",
    )
    parser.add_argument("--output", required=True, help="the checkpoint to write, x.pth")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="take the parameters that fit and initialize the others randomly, e.g. the "
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
