"""``face-d2-receptive-fields``: an LFFD's branches as a table, its receptive fields as a plot."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from face_d2.cli.common import CONFIG_HELP, CommandParser, run

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the branch table and draws the picture; returns the exit status."""
    parser = CommandParser(
        "face-d2-receptive-fields",
        "Prints an LFFD's branches and draws its receptive fields, theoretical and effective "
        "(measured by gradients).",
        examples=(
            "face-d2-receptive-fields --config-file lffd/lffd_25L8S.yaml",
            "face-d2-receptive-fields --config-file lffd/lffd_25L8S.yaml --images photo.jpg "
            "MODEL.WEIGHTS model_final.pth",
        ),
        overrides=True,
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help=CONFIG_HELP)
    parser.add_argument(
        "--output",
        default="receptive_fields.png",
        metavar="FILE",
        help="PNG or SVG to write (default: %(default)s)",
    )
    parser.add_argument(
        "--images",
        nargs="*",
        default=[],
        metavar="FILE",
        help="photographs to measure on; default: noise",
    )
    args = parser.parse_args(argv)

    def draw() -> None:
        # torch and Detectron2 are loaded for the work, not for the help.
        from lffd_d2.plot import (
            build_lffd,
            draw_receptive_fields,
            measure_effective_fields,
            read_images,
        )
        from lffd_d2.receptive_field import branch_table

        model = build_lffd(args.config_file, args.opts)
        print(branch_table(model.backbone.variant))
        fields = measure_effective_fields(model, read_images(model, args.images))
        draw_receptive_fields(model.backbone.variant, fields, args.output)
        print(f"wrote {args.output}")

    return run(draw)


if __name__ == "__main__":
    sys.exit(main())
