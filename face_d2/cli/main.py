"""``face-d2``: lists the commands and runs them; ``face-d2 predict`` is ``face-d2-predict``."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

__all__ = ["COMMANDS", "main"]

#: Name -> module with ``main(argv)``, description.
COMMANDS = {
    "predict": ("face_d2.cli.predict", "find faces in images, folders, videos and cameras"),
    "train": ("face_d2.cli.train", "train on your own pictures (--data), or by a config file"),
    "evaluate": ("face_d2.cli.evaluate", "score detections on WIDER FACE, FDDB; coverage; hiding"),
    "compare": ("face_d2.cli.compare", "compare detectors on the same images, on one page"),
    "export": ("face_d2.cli.export", "write a detector as an ONNX file, float or int8"),
    "model-zoo": ("face_d2.cli.model_zoo", "list and fetch weights by the name of their config"),
    "check-dataset": ("face_d2.cli.check_dataset", "find damaged images and wrong boxes"),
    "benchmark": ("face_d2.cli.benchmark", "measure a detector's cost in every runtime"),
    "ablate": ("face_d2.cli.ablate", "train a suite of configs over seeds and tabulate it"),
    "convert-lffd": ("face_d2.cli.convert_lffd", "convert released LFFD weights to a checkpoint"),
    "receptive-fields": ("face_d2.cli.receptive_fields", "print and draw an LFFD's branches"),
}


def usage() -> str:
    """The help text, with a line per command."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    lines = [
        "usage: face-d2 COMMAND [ARGUMENT ...]",
        "",
        "Face detection for Detectron2.",
        "",
        "commands:",
        *rows,
        "",
        "face-d2 COMMAND --help explains a command. Each is also a script: face-d2-predict, ...",
        "face-d2 --version prints the version.",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    name, *rest = words
    if name == "--version":
        from face_d2 import __version__

        print(__version__)
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "face-d2 --help lists the commands"
        print(f"error: no command {name!r}; {hint}", file=sys.stderr)
        return 2
    try:
        command = import_module(COMMANDS[name][0])
    except ImportError as error:  # a package is missing, or does not import
        print(f"error: {error}", file=sys.stderr)
        return 1
    return command.main(rest) or 0


if __name__ == "__main__":
    sys.exit(main())
