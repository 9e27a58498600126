"""Data sets of a few small pictures, drawn in milliseconds: for code that must run, not learn."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH = 144, 192


def write_wider_set(root: Path, split: str, images: int) -> Path:
    """Writes a split in WIDER FACE's layout; returns its annotation text.

    Every image has one bright square of 24 to 40 pixels, the first none.
    """
    folder = root / f"WIDER_{split}" / "images" / "0--Squares"
    folder.mkdir(parents=True)
    lines = []
    for index, (pixels, box) in enumerate(_pictures(images)):
        cv2.imwrite(str(folder / f"{index}.jpg"), pixels)
        lines.append(f"0--Squares/{index}.jpg")
        if index == 0:
            cv2.imwrite(str(folder / "0.jpg"), np.zeros_like(pixels))
            lines += ["0", "0 0 0 0 0 0 0 0 0 0"]  # how WIDER FACE writes an image without a face
        else:
            lines += ["1", " ".join(map(str, (*box, 0, 0, 0, 0, 0, 0)))]
    text = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
    text.parent.mkdir(exist_ok=True)
    text.write_text("\n".join(lines) + "\n")
    return text


def write_coco_set(root: Path, images: int) -> tuple[Path, Path]:
    """Writes a COCO set of one class with masks; returns its JSON file and image folder.

    ``root/semantic`` holds maps of the semantic classes 0 (background) and 1 (square).
    """
    folder, semantic = root / "images", root / "semantic"
    folder.mkdir(parents=True)
    semantic.mkdir()
    records, annotations = [], []
    for index, (pixels, (x, y, w, h)) in enumerate(_pictures(images), start=1):
        cv2.imwrite(str(folder / f"{index}.jpg"), pixels)
        stuff = np.zeros((HEIGHT, WIDTH), np.uint8)
        stuff[y : y + h, x : x + w] = 1
        cv2.imwrite(str(semantic / f"{index}.png"), stuff)
        records.append({"id": index, "file_name": f"{index}.jpg", "height": HEIGHT, "width": WIDTH})
        annotations.append(
            {
                "id": index,
                "image_id": index,
                "category_id": 1,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": 0,
                "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
            }
        )
    categories = [{"id": 1, "name": "face"}]
    file = root / "annotations.json"
    file.write_text(
        json.dumps({"images": records, "annotations": annotations, "categories": categories})
    )
    return file, folder


def _pictures(count: int) -> list[tuple[np.ndarray, tuple[int, int, int, int]]]:
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(count):
        pixels = random.integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        side = int(random.integers(24, 41))
        x, y = int(random.integers(0, WIDTH - side)), int(random.integers(0, HEIGHT - side))
        pixels[y : y + side, x : x + side] += 120
        pictures.append((pixels, (x, y, side, side)))
    return pictures
