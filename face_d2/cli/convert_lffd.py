"""``face-d2-convert-lffd``: a released LFFD weight file as a Detectron2 checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from face_d2.cli.common import CommandParser, run

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Converts a file; returns the exit status."""
    parser = CommandParser(
        "face-d2-convert-lffd",
        "Converts released LFFD weights (MXNet .params) to a Detectron2 checkpoint.",
        examples=("face-d2-convert-lffd FILE.params --variant 17L4S --output lffd_17L4S.pth",),
        epilog="face-d2-model-zoo lists the released files, and downloads and converts them.",
    )
    parser.add_argument("file", help="the .params file")
    parser.add_argument(
        "--variant",
        metavar="NAME",
        help="the network, for example 17L4S; required for all files except the released ones",
    )
    parser.add_argument("--output", required=True, help="the checkpoint (.pth) to write")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="convert only the parameters that fit and initialize the others randomly, e.g. 17L4S "
        "weights of the head detector for the first four stages of 20L5S",
    )
    args = parser.parse_args(argv)

    def convert() -> None:
        # torch and Detectron2 are loaded for the work, not for the help.
        from lffd_d2.convert import convert_file
        from lffd_d2.mxnet_params import RELEASES, git_blob_id

        conversion = convert_file(args.file, args.output, args.variant, partial=args.partial)
        release = RELEASES.get(git_blob_id(Path(args.file).read_bytes()))
        print(f"{args.file}: {release if release else 'not a released file'}")
        values = sum(array.size for array in conversion.weights.values())
        print(f"{args.output}: {len(conversion.weights)} parameters, {values:,} values")
        for title, names in (("missing", conversion.missing), ("unused", conversion.unused)):
            if names:
                print(f"{title}: {len(names)} ({', '.join(names)})")

    return run(convert)


if __name__ == "__main__":
    sys.exit(main())
