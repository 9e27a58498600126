"""The parser of all commands, KEY VALUE overrides, and the reporting of errors.

Exit statuses: 0 for success, 1 for work that failed, 2 for a wrong command line, 130 for Ctrl-C.
An error is one line on stderr that starts with ``error:``. Every ``main(argv)`` returns the status.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from face_d2.utils.files import write_text

__all__ = [
    "CONFIG_HELP",
    "CommandParser",
    "add_resampling",
    "at_least_one",
    "count",
    "number",
    "print_result",
    "run",
    "share",
    "split_overrides",
]

#: How a config key starts; tests compare this with the keys of a config.
SECTIONS = ("DATALOADER", "DATASETS", "GLOBAL", "INPUT", "MODEL", "SOLVER", "TEST")
SINGLE_KEYS = (
    *("CUDNN_BENCHMARK", "FLOAT32_PRECISION", "OUTPUT_DIR", "SEED", "VERSION", "VIS_PERIOD"),
)
#: Help of ``--config-file``.
CONFIG_HELP = "config file, or the name of a shipped one such as lffd/lffd_25L8S.yaml"
_Number = TypeVar("_Number", int, float)
_KEY = re.compile(rf"(?:{'|'.join(SECTIONS)})\.\S+|{'|'.join(SINGLE_KEYS)}")


class CommandParser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are one line and whose help shows examples.

    Args:
        prog: the console script.
        description: what the command does.
        examples: complete command lines.
        epilog: text of the help after the examples.
        overrides: whether the command takes ``KEY VALUE`` pairs that override the config. They
            become ``opts``, a list; they may be anywhere after the command.
    """

    def __init__(
        self,
        prog: str,
        description: str,
        *,
        examples: Sequence[str] = (),
        epilog: str = "",
        overrides: bool = False,
    ) -> None:
        shown = "\n".join(["examples:", *(f"  {line}" for line in examples)]) if examples else ""
        super().__init__(
            prog=prog,
            description=textwrap.fill(description, 90),
            epilog="\n\n".join(filter(None, (shown, textwrap.fill(epilog, 90)))) or None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.overrides = overrides

    def parse_args(  # type: ignore[override]
        self, args: Any = None, namespace: Any = None
    ) -> argparse.Namespace:
        """The options; ``opts`` has the overrides where the command takes any."""
        if not self.overrides:
            return super().parse_args(args, namespace)
        if not any(action.dest == "opts" for action in self._actions):
            self.add_argument(
                "opts",
                nargs="*",
                metavar="KEY VALUE",
                help="config overrides, for example MODEL.DEVICE cpu",
            )
        words, pairs = split_overrides(sys.argv[1:] if args is None else args)
        if len(pairs) % 2:
            self.error(f"{pairs[-1]} has no value; overrides are KEY VALUE pairs")
        options = self.parse_intermixed_args(words, namespace)
        options.opts = [*pairs, *options.opts]
        return options

    def error(self, message: str) -> Any:
        """Ends the command with status 2."""
        self.exit(2, f"error: {message} ({self.prog} --help explains the options)\n")


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates the config overrides from the other words of a command line.

    A key starts with a section of the config (``MODEL.``, ``TEST.``, ...) and is not an existing
    file. Its value is the next word, unless this is a flag.

    Returns:
        The other words, and KEY, VALUE, ...; a last key without a value ends the second list.
    """
    rest, pairs, queue = [], [], list(words)
    while queue:
        word = queue.pop(0)
        if not _KEY.fullmatch(word) or os.path.exists(word):
            rest.append(word)
            continue
        pairs.append(word)
        if not queue or queue[0].startswith("--"):
            return [*rest, *queue], pairs
        pairs.append(queue.pop(0))
    return rest, pairs


def run(work: Callable[[], int | None], *failures: type[Exception]) -> int:
    """Runs the work of a command and reports errors.

    Warnings become lines that start with ``warning:``; deprecation warnings are left out.

    Args:
        work: returns the exit status; None is 0.
        failures: exceptions that are reported in one line, in addition to ``ImportError``,
            ``OSError`` and ``ValueError``.

    Returns:
        The exit status.
    """
    reported: tuple[type[Exception], ...] = (ImportError, OSError, ValueError, *failures)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        for deprecation in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
            warnings.simplefilter("ignore", deprecation)
        warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
        try:
            return work() or 0
        except KeyboardInterrupt:
            _say("stopped by Ctrl-C")
            return 130
        except reported as error:
            _say(f"error: {error}")
            return 1


def _say(text: str) -> None:
    """Prints to stderr; bytes that are not UTF-8 (in file names) are escaped."""
    print(text.encode(errors="backslashreplace").decode(), file=sys.stderr)


def print_result(result: Any, file: str | Path | None) -> None:
    """Prints ``RESULT`` and the result as one line of JSON; a ``file`` gets it indented."""
    if file:
        write_text(json.dumps(result, indent=2) + "\n", file)
    print("RESULT " + json.dumps(result))


def add_resampling(parser: argparse.ArgumentParser) -> None:
    """Adds ``--bootstrap`` and ``--seed``, which set the intervals of an evaluation."""
    parser.add_argument(
        "--bootstrap",
        type=count,
        default=1000,
        metavar="N",
        help="number of resamples for intervals, 0: none (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the resampling (%(default)s)")


def number(
    text: str, allowed: Callable[[float], bool], expected: str, kind: type[_Number]
) -> _Number:
    """Parses a number for argparse, which reports texts that are none or not ``allowed``."""
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not allowed(value):
        raise argparse.ArgumentTypeError(f"{text}: expected {expected}")
    return value


def share(text: str) -> float:
    """Parses a number between 0 and 1, both excluded; argparse reports other texts."""
    return number(text, lambda value: 0 < value < 1, "a number between 0 and 1", float)


def count(text: str) -> int:
    """Parses an integer of 0 or more; argparse reports other texts."""
    return number(text, lambda value: value >= 0, "a whole number, 0 or more", int)


def at_least_one(text: str) -> int:
    """Parses an integer of 1 or more; argparse reports other texts."""
    return number(text, lambda value: value >= 1, "a whole number, 1 or more", int)
