"""One folder of pictures with its labels in the eight forms that are read, written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image

Boxes = Mapping[str, list[tuple[int, int, int, int]]]
SIZE = (72, 96)  # height, width
HEIGHT, WIDTH = SIZE


def write_pictures(root: Path, count: int = 60) -> Boxes:
    """Writes ``root/images/{street,hall}/N.jpg``; gives the XYWH boxes of each, 0 to 3."""
    random = np.random.default_rng(0)
    boxes: dict[str, list[tuple[int, int, int, int]]] = {}
    for number in range(count):
        name = f"{'street' if number % 3 else 'hall'}/{number:03}.jpg"
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        faces = []
        for _ in range(number % 4):
            w, h = (int(side) for side in random.integers(5, 31, 2))
            x, y = int(random.integers(0, WIDTH - w)), int(random.integers(0, HEIGHT - h))
            pixels[y : y + h, x : x + w] += 40
            faces.append((x, y, w, h))
        Image.fromarray(pixels).save(path)
        boxes[name] = faces
    return boxes


def write_wider(root: Path, boxes: Boxes) -> str:
    lines = []
    for name, faces in boxes.items():
        rows = [f"{x} {y} {w} {h} 0 0 0 0 0 0" for x, y, w, h in faces]
        lines += [name, str(len(faces)), *(rows or ["0 0 0 0 0 0 0 0 0 0"])]
    (root / "list_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    return f"wider:{root / 'list_bbx_gt.txt'}:{root / 'images'}"


def write_coco(root: Path, boxes: Boxes) -> str:
    pictures, annotations = [], []
    for number, (name, faces) in enumerate(boxes.items(), start=100):
        pictures.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        for box in faces:
            key = len(annotations) + 1
            annotations.append({"id": key, "image_id": number, "category_id": 5, "bbox": box})
    content = {
        "images": pictures,
        "annotations": annotations,
        "categories": [{"id": 5, "name": "face"}],
    }
    (root / "coco.json").write_text(json.dumps(content))
    return f"coco:{root / 'coco.json'}:{root / 'images'}"


def write_yolo(root: Path, boxes: Boxes) -> str:
    for name, faces in boxes.items():
        file = (root / "labels" / name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            f"0 {(x + w / 2) / WIDTH:.6f} {(y + h / 2) / HEIGHT:.6f} "
            f"{w / WIDTH:.6f} {h / HEIGHT:.6f}\n"
            for x, y, w, h in faces
        ]
        if rows:  # an image without faces has no file
            file.write_text("".join(rows))
    return f"yolo:{root / 'labels'}"


def write_voc(root: Path, boxes: Boxes) -> str:
    for name, faces in boxes.items():
        file = (root / "Annotations" / name).with_suffix(".xml")
        file.parent.mkdir(parents=True, exist_ok=True)
        objects = "".join(
            f"<object><name>face</name><difficult>0</difficult><bndbox><xmin>{x}</xmin>"
            f"<ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
            for x, y, w, h in faces
        )
        file.write_text(
            f"<annotation><folder>x</folder><filename>{Path(name).name}</filename><size>"
            f"<width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
            f"{objects}</annotation>"
        )
    return f"voc:{root / 'Annotations'}:{root / 'images'}"


def write_labelme(root: Path, boxes: Boxes) -> str:
    for name, faces in boxes.items():
        file = (root / "labelme" / name).with_suffix(".json")
        file.parent.mkdir(parents=True, exist_ok=True)
        shapes = [
            {"label": "face", "points": [[x + w, y], [x, y + h]], "shape_type": "rectangle"}
            for x, y, w, h in faces
        ]
        path = f"..\\..\\images\\{name}".replace("/", "\\")
        content = {"version": "5.5.0", "shapes": shapes, "imagePath": path, "imageData": None}
        file.write_text(json.dumps({**content, "imageHeight": HEIGHT, "imageWidth": WIDTH}))
    return f"labelme:{root / 'labelme'}"


def write_cvat(root: Path, boxes: Boxes) -> str:
    images = []
    for number, (name, faces) in enumerate(boxes.items()):
        inner = "".join(
            f'<box label="face" source="manual" occluded="0" xtl="{x}.00" ytl="{y}.00" '
            f'xbr="{x + w}.00" ybr="{y + h}.00" z_order="0"></box>'
            for x, y, w, h in faces
        )
        size = f'width="{WIDTH}" height="{HEIGHT}"'
        images.append(f'<image id="{number}" name={quoteattr(name)} {size}>{inner}</image>')
    meta = "<meta><task><labels><label><name>face</name></label></labels></task></meta>"
    (root / "cvat.xml").write_text(
        f"<annotations><version>1.1</version>{meta}{''.join(images)}</annotations>"
    )
    return f"cvat:{root / 'cvat.xml'}:{root / 'images'}"


def write_label_studio(root: Path, boxes: Boxes) -> str:
    tasks = []
    for number, (name, faces) in enumerate(boxes.items(), start=1):
        result = [
            {
                "original_width": WIDTH,
                "original_height": HEIGHT,
                "type": "rectanglelabels",
                "value": {
                    "x": 100 * x / WIDTH,
                    "y": 100 * y / HEIGHT,
                    "width": 100 * w / WIDTH,
                    "height": 100 * h / HEIGHT,
                    "rotation": 0,
                    "rectanglelabels": ["face"],
                },
            }
            for x, y, w, h in faces
        ]
        address = f"/data/local-files/?d=somewhere/images/{name}"
        if number % 2:
            address = f"/data/upload/1/0123abcd-{Path(name).name}"
        annotation = {"id": number, "was_cancelled": False, "result": result}
        tasks.append({"id": number, "data": {"image": address}, "annotations": [annotation]})
    (root / "studio.json").write_text(json.dumps(tasks))
    return f"labelstudio:{root / 'studio.json'}:{root / 'images'}"


def write_retinaface(root: Path, boxes: Boxes) -> str:
    lines = []
    for name, faces in boxes.items():
        marks = " ".join(["-1.0"] * 15)
        lines += [f"# {name}", *(f"{x} {y} {w} {h} {marks} 0.4" for x, y, w, h in faces)]
    (root / "label.txt").write_text("\n".join(lines) + "\n")
    return f"retinaface:{root / 'label.txt'}:{root / 'images'}"


#: Form -> its writer, which gives the notation of what it wrote.
WRITERS: dict[str, Callable[[Path, Boxes], str]] = {
    "wider": write_wider,
    "coco": write_coco,
    "yolo": write_yolo,
    "voc": write_voc,
    "labelme": write_labelme,
    "cvat": write_cvat,
    "labelstudio": write_label_studio,
    "retinaface": write_retinaface,
}
