"""``face-d2-model-zoo``: weights by the name of their config."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tabulate import tabulate

from face_d2 import model_zoo
from face_d2.cli.common import CommandParser, run
from face_d2.model_zoo import ReleasedFile, Shipped, TrainedHere

__all__ = ["main", "plain_tables", "released_table", "shipped_table", "trained_table"]


def shipped_table() -> str:
    """Detectors that ship with the package, as a Markdown table."""
    rows = [
        [f"`{name}`", f"`{model.config}`", str(model.accuracy), model.accuracy.protocol]
        for name, model in model_zoo.models().items()
        if isinstance(model.weights, Shipped) and model.accuracy
    ]
    return _table(("name", "config", "easy / medium / hard", "measured on"), rows)


def released_table() -> str:
    """Models with published weights, as a Markdown table."""
    rows = []
    for model in model_zoo.models().values():
        file, accuracy = model.weights, model.accuracy
        if isinstance(file, ReleasedFile):
            kind, _, digits = file.checksum.partition(":")
            published = str(accuracy) if accuracy and not accuracy.measured_here else "-"
            checked = str(accuracy) if accuracy and accuracy.measured_here else model.checked or "-"
            link = f"[`{file.name}`]({file.url})"
            row = [f"`{model.config}`", model.finds, link, f"{kind} `{digits}`", file.license]
            rows.append([*row, published, checked])
    heads = ("config", "detects", "file", "checksum", "license", "WIDER val, published")
    return _table((*heads, "checked here"), rows)


def trained_table() -> str:
    """Models that are trained by a command, as a Markdown table."""
    rows = []
    for model in model_zoo.models().values():
        weights, accuracy = model.weights, model.accuracy
        if isinstance(weights, TrainedHere):
            row = [f"`{model.config}`", model.finds, f"`{weights.file}`", f"`{weights.command}`"]
            rows.append([*row, str(accuracy or "-"), accuracy.protocol if accuracy else "-"])
    heads = ("config", "detects", "file", "trained by", "easy / medium / hard", "measured on")
    return _table(heads, rows)


def plain_tables() -> str:
    """All models, for a terminal."""
    shipped, published, trained, commands = [], [], [], []
    for name, model in model_zoo.models().items():
        accuracy = str(model.accuracy or "-")
        if isinstance(model.weights, Shipped):
            shipped.append([name, accuracy, model.config])
        elif isinstance(model.weights, ReleasedFile):
            published.append([model.config, model.finds, accuracy, model.weights.license])
        else:
            trained.append([model.config, model.finds, accuracy])
            steps = model.weights.command.split(" && ")
            commands += [f"{model.config}:", *(f"  {step}" for step in steps)]
    heads = ["config", "detects", "easy / medium / hard"]
    return "\n".join(
        [
            "Shipped with the package\n",
            tabulate(shipped, ["name", "easy / medium / hard", "config"], disable_numparse=True),
            "\nPublished: face-d2-model-zoo CONFIG --download\n",
            tabulate(published, [*heads, "license"], disable_numparse=True),
            "\nTrained by commands\n",
            tabulate(trained, heads, disable_numparse=True),
            "",
            *commands,
            "\n--markdown adds files, addresses, checksums, and the images that were measured.",
        ]
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(line) + " |" for line in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def _markdown() -> str:
    """The tables of docs/model_zoo.md."""
    return (
        f"Shipped with the package\n\n{shipped_table()}\n\nPublished\n\n{released_table()}\n\n"
        f"Trained by a command\n\n{trained_table()}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``face-d2-model-zoo``; returns the exit status."""
    parser = CommandParser(
        "face-d2-model-zoo",
        "Lists the available weights, or prints the path of a config's checkpoint.",
        examples=("face-d2-model-zoo", "face-d2-model-zoo lffd/lffd_25L8S.yaml --download"),
        epilog="The cache is models/ in $FACE_D2_CACHE (default output/cache).",
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="a config, for example lffd/lffd_25L8S.yaml; without it, all weights are listed",
    )
    parser.add_argument(
        "--download", action="store_true", help="download the weights if they are not in the cache"
    )
    parser.add_argument(
        "--markdown", action="store_true", help="list in Markdown, with addresses and checksums"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder of the checkpoints")
    options = parser.parse_args(argv)
    if options.name is None:
        if options.download or options.cache is not None:
            parser.error("--download and --cache need a NAME")
        return run(lambda: print(_markdown() if options.markdown else plain_tables()))
    if options.markdown:
        parser.error("--markdown lists all models; leave out NAME")
    where = {"download": options.download, "cache": options.cache}
    return run(lambda: print(model_zoo.get_checkpoint_file(options.name, **where)))


if __name__ == "__main__":
    sys.exit(main())
