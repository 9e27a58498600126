"""Reader of FDDB's folds: images and the ellipses around their faces. NumPy only.

``FDDB-fold-NN-ellipseList.txt`` gives, for every image, a line with its path (no extension), a line
with the number of faces N, and N lines "major_radius minor_radius angle center_x center_y 1", the
angle of the major axis in radians (Jain and Learned-Miller, "FDDB: A Benchmark for Face Detection
in Unconstrained Settings", UM-CS-2010-009).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_d2.utils.text_lines import numbered_lines, parse_count, quoted

__all__ = ["FDDBImage", "read_fold", "read_folds"]

NUM_FOLDS = 10
_COLUMNS = 5
_TOO_LARGE = 1e9


@dataclass(frozen=True, eq=False)
class FDDBImage:
    """One image with its faces.

    Attributes:
        name: path without extension, e.g. ``2002/08/11/big/img_591``.
        ellipses: (N, 5) float64: major radius, minor radius, angle of the major axis in radians,
            center x, center y; pixels.
    """

    name: str
    ellipses: NDArray[np.float64]

    def boxes(self) -> NDArray[np.float64]:
        """(N, 4) upright boxes around the ellipses, XYXY in pixels, not clipped to the image."""
        major, minor, angle, x, y = self.ellipses.T
        half_width = np.hypot(major * np.cos(angle), minor * np.sin(angle))
        half_height = np.hypot(major * np.sin(angle), minor * np.cos(angle))
        return np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=1)


def read_folds(folder: str | Path) -> list[list[FDDBImage]]:
    """Reads all ten folds.

    Args:
        folder: ``FDDB-folds``, with ``FDDB-fold-01-ellipseList.txt`` to ``-10-``.

    Returns:
        Ten lists of images, in the files' order.

    Raises:
        FileNotFoundError: the folder or one of the ten files is missing.
        ValueError: a line is malformed, or an image is in two folds.
    """
    folder = Path(folder)
    files = [folder / f"FDDB-fold-{n:02d}-ellipseList.txt" for n in range(1, NUM_FOLDS + 1)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: {', '.join(missing)} missing; expected the ten ellipse lists of FDDB-folds."
        )
    folds = [read_fold(file) for file in files]
    counts = Counter(image.name for fold in folds for image in fold)
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise ValueError(f"{folder}: {name} is listed {count} times; expected once.")
    return folds


def read_fold(path: str | Path) -> list[FDDBImage]:
    """Reads one ellipse list.

    Raises:
        ValueError: a line is malformed, or the file lists no image; the message has the line.
    """
    lines = ((number, line) for number, line in numbered_lines(path) if line)
    images = [FDDBImage(name, _read_ellipses(path, name, lines)) for _, name in lines]
    if not images:
        raise ValueError(f"{path}: lists no image; expected an FDDB ellipse list.")
    return images


def _read_ellipses(
    path: str | Path, name: str, lines: Iterator[tuple[int, str]]
) -> NDArray[np.float64]:
    number, text = next(lines, (0, ""))
    count = parse_count(text)
    if count is None:
        raise _malformed(path, number, text, f"expected the number of faces of {name}")
    ellipses: list[list[float]] = []
    for _ in range(count):
        number, text = next(lines, (0, ""))
        try:
            row = [float(field) for field in text.split()[:_COLUMNS]]
        except ValueError:
            row = []
        if len(row) != _COLUMNS:
            raise _malformed(path, number, text, "expected 'major minor angle x y 1'")
        if not all(abs(field) < _TOO_LARGE for field in row) or min(row[:2]) <= 0:  # also NaN
            expected = f"expected finite numbers below {_TOO_LARGE:.0e} and positive radii"
            raise _malformed(path, number, text, expected)
        ellipses.append(row)
    return np.array(ellipses, dtype=np.float64).reshape(-1, _COLUMNS)


def _malformed(path: str | Path, number: int, text: str, what: str) -> ValueError:
    where = f"{path}, line {number}: {quoted(text)}" if number else f"{path}: the file ends early"
    return ValueError(f"{where}: {what}.")
