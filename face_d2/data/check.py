"""Checks the images and boxes of a data set in one pass.

Every image is decoded once, by the reader of training. Neither torch nor Detectron2 is needed.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from face_d2.data.image_file import UnreadableImageError, image_size, is_turned, read_image
from face_d2.data.wider_face import WiderFaceImage

__all__ = ["BOX_PROBLEMS", "IMAGE_PROBLEMS", "CheckedImage", "DatasetCheck", "check_dataset"]

#: Problems of an image, which make its faces unusable, with their description in the report.
IMAGE_PROBLEMS = {
    "missing": "the file does not exist or may not be read",
    "unreadable": "not an image, damaged or truncated",
    "size": "the decoded size differs from the header",
    "duplicate": "the same pixels as an earlier image",
}
#: Problems of a box; only the first one is reported.
BOX_PROBLEMS = {
    "degenerate": "a side of 0 or less",
    "outside": "completely outside the image",
    "repeated": "the same as an earlier box of the image",
    "over_border": "partly outside the image",
}


@dataclass(frozen=True)
class BoxProblem:
    """A box with a problem.

    Attributes:
        row: number of the face in its image, from 1.
        problem: a key of ``BOX_PROBLEMS``.
        box: x, y, w, h as annotated.
        clipped: the part of an "over_border" box inside the image; None for other problems, whose
            boxes are dropped from a cleaned list.
    """

    row: int
    problem: str
    box: tuple[float, ...]
    clipped: tuple[float, ...] | None = None


@dataclass(frozen=True)
class CheckedImage:
    """The result for one image.

    Attributes:
        name: ``event/file.jpg``.
        faces: number of annotated faces.
        problem: a key of ``IMAGE_PROBLEMS``, or None.
        detail: details of the problem: the error, the sizes or the other image.
        turned: whether the image has an EXIF orientation; tools that ignore it show other pixels
            under the boxes.
        boxes: its boxes with problems; empty if the size of the image is unknown.
    """

    name: str
    faces: int
    problem: str | None = None
    detail: str = ""
    turned: bool = False
    boxes: tuple[BoxProblem, ...] = ()


@dataclass(frozen=True)
class DatasetCheck:
    """The result of :func:`check_dataset`.

    Attributes:
        images: one entry per image, in the order of the annotations.
        seconds: duration of the check.
    """

    images: list[CheckedImage] = field(repr=False)
    seconds: float

    @property
    def image_counts(self) -> dict[str, int]:
        """Number of images by problem."""
        found = Counter(image.problem for image in self.images)
        return {problem: found[problem] for problem in IMAGE_PROBLEMS}

    @property
    def box_counts(self) -> dict[str, int]:
        """Number of boxes by problem."""
        found = Counter(box.problem for image in self.images for box in image.boxes)
        return {problem: found[problem] for problem in BOX_PROBLEMS}

    @property
    def clean(self) -> bool:
        """Whether there is no problem; an EXIF orientation is none."""
        return not any(self.image_counts.values()) and not any(self.box_counts.values())

    def as_json(self) -> dict[str, Any]:
        """All problems as JSON data; images without a problem are only counted."""
        listed = [i for i in self.images if i.problem or i.boxes or i.turned]
        return {
            "images": len(self.images),
            "faces": sum(image.faces for image in self.images),
            "seconds": self.seconds,
            "images_per_second": len(self.images) / self.seconds,
            "image_problems": self.image_counts,
            "box_problems": self.box_counts,
            "turned_by_exif": sum(image.turned for image in self.images),
            "findings": [asdict(image) for image in listed],
        }


def check_dataset(
    image_root: str | Path,
    images: Sequence[WiderFaceImage],
    *,
    workers: int = 0,
    progress: bool = True,
) -> DatasetCheck:
    """Decodes every image and checks every box.

    Args:
        image_root: folder of the event folders.
        images: the output of :func:`face_d2.data.wider_face.read_annotations`.
        workers: number of decoding threads; 0 for one per CPU.
        progress: show a progress bar.
    """
    work = partial(_check_image, Path(image_root))
    checked: list[CheckedImage] = []
    first_with: dict[bytes, str] = {}
    begun = time.perf_counter()
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        results = pool.map(work, images)
        for image, digest in tqdm(results, total=len(images), unit=" images", disable=not progress):
            same = first_with.setdefault(digest, image.name) if digest else image.name
            if same != image.name and image.problem is None:
                image = CheckedImage(image.name, image.faces, "duplicate", f"of {same}")
            checked.append(image)
    return DatasetCheck(checked, time.perf_counter() - begun)


def _check_image(root: Path, annotated: WiderFaceImage) -> tuple[CheckedImage, bytes]:
    """The result for one image, and a digest of its pixels (empty if it cannot be decoded)."""
    result = partial(CheckedImage, annotated.name, len(annotated.boxes))
    path = root / annotated.name
    try:
        stated = image_size(path)
        pixels = read_image(path)
    except UnreadableImageError as error:
        return result("unreadable", str(error)), b""
    except OSError as error:
        return result("missing", str(error)), b""
    size = pixels.shape[:2]
    if size != stated:
        detail = "header {} x {}, decoded {} x {} (height x width)".format(*stated, *size)
        return result("size", detail), b""
    digest = hashlib.blake2b(pixels, digest_size=16, salt=b"%dx%d" % size).digest()
    boxes = tuple(_box_problems(annotated.boxes, size))
    return result(turned=is_turned(path), boxes=boxes), digest


def _box_problems(boxes: NDArray[np.float64], size: tuple[int, int]) -> list[BoxProblem]:
    """Problems of (N, 4) XYWH boxes in an image of (height, width)."""
    height, width = size
    limits = (width, height, width, height)
    found, seen = [], set()
    for row, (x, y, w, h) in enumerate(boxes.tolist(), start=1):
        box = (x, y, w, h)
        corners = (x, y, x + w, y + h)
        inside = [min(max(value, 0.0), limit) for value, limit in zip(corners, limits)]
        clipped = (inside[0], inside[1], inside[2] - inside[0], inside[3] - inside[1])
        if w <= 0 or h <= 0:
            found.append(BoxProblem(row, "degenerate", box))
        elif min(clipped[2:]) <= 0:
            found.append(BoxProblem(row, "outside", box))
        elif box in seen:
            found.append(BoxProblem(row, "repeated", box))
        elif inside != list(corners):
            found.append(BoxProblem(row, "over_border", box, clipped))
        seen.add(box)
    return found
