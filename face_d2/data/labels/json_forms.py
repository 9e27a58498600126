"""Readers of LabelMe's json files (one per image) and Label Studio's exports."""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from face_d2.data.labels.files import read_json
from face_d2.data.labels.model import (
    Findings,
    RawFace,
    RawImage,
    RawLabels,
    around,
    finite,
    stated_size,
)
from face_d2.data.labels.text_forms import roots_beside
from face_d2.data.labels.xml_forms import read_one_file_each, turned_box, turned_ellipse

__all__ = ["is_label_studio", "read_label_studio", "read_labelme"]

_OUTLINES = ("polygon", "rectangle", "rotation", "quadrilateral")
#: Keys of the values of Label Studio's results that describe a region or the whole image.
_DESCRIPTIONS = {"choices", "text", "rating", "number", "taxonomy", "datetime", "pairwise"}
#: Keys of the shape of a region.
_SHAPE = ("x", "y", "width", "height", "rotation", "points", "radiusX", "radiusY")
#: Label Studio adds eight digits to the name of an upload.
_UPLOAD = re.compile(r"^[0-9a-f]{8}-(.+)$")


def read_labelme(path: Path, images: Path | None, findings: Findings) -> RawLabels:
    """Reads a folder of LabelMe's json files (or one of them).

    Rectangles are read as boxes; polygons and circles are replaced by the boxes around them. Images
    without a json file are left out.

    Raises:
        OSError, ValueError: a file cannot be read, or is not LabelMe json.
    """
    read = partial(_labelme_image, findings=findings)
    return read_one_file_each(path, images, ".json", "LabelMe", read)


def _labelme_image(root: Path, file: Path, findings: Findings) -> RawImage:
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise ValueError(f"{file}: has no 'shapes'; expected LabelMe json.")
    written = str(content.get("imagePath") or "").replace("\\", "/")
    lead = file.parent.relative_to(root)
    stem = (lead / file.stem).as_posix()
    names = []
    if written:
        base = written.rpartition("/")[2]
        names = [str(file.parent.absolute() / written), (lead / base).as_posix(), base]
    size = stated_size(content.get("imageHeight"), content.get("imageWidth"), f"{file}: size")
    faces = [face for s in content["shapes"] if (face := _labelme_face(s, file, findings))]
    return RawImage(written or stem, (*names, f"{stem}.*", f"{file.stem}.*"), faces, size)


def _labelme_face(shape: Any, file: Path, findings: Findings) -> RawFace | None:
    if not isinstance(shape, dict) or not isinstance(shape.get("points"), list):
        raise ValueError(f"{file}: a shape has no 'points', a list of [x, y].")
    kind = str(shape.get("shape_type") or "polygon")
    points = _points(shape["points"], f"{file}: points", str(file))
    label, difficult = str(shape.get("label") or ""), bool(shape.get("difficult"))  # X-AnyLabeling
    if kind == "rectangle" and len(points) == 2:
        return RawFace(around(points), label, difficult)
    if kind == "mask" and len(points) == 2:
        findings.add("around", f"{file.name}: mask")
        x, y, w, h = around(points)
        return RawFace((x, y, w + 1, h + 1), label, difficult)  # the points are its outer pixels
    if kind == "circle" and len(points) == 2:
        (cx, cy), (x, y) = points
        radius = math.hypot(x - cx, y - cy)
        findings.add("around", f"{file.name}: circle")
        return RawFace((cx - radius, cy - radius, 2 * radius, 2 * radius), label, difficult)
    if kind in _OUTLINES and len(points) >= 3:
        box = around(points)
        if kind != "rectangle" or len({x for x, _ in points}) != 2:  # not upright
            findings.add("around", f"{file.name}: {kind}")
        return RawFace(box, label, difficult)
    findings.add("no_box", f"{file.name}: {kind} with {len(points)} points")
    return None


def _points(listed: list[Any], where_numbers: str, where: str) -> list[list[float]]:
    points = [finite(p if isinstance(p, list) else [p], where_numbers) for p in listed]
    if any(len(point) != 2 for point in points):
        raise ValueError(f"{where}: a point is not [x, y].")
    return points


def is_label_studio(content: Any) -> bool:
    """Whether a json is an export of Label Studio, JSON or JSON-MIN."""
    if not isinstance(content, list) or not content:
        return False
    return all(isinstance(t, dict) and ("data" in t or _min_labels(t) is not None) for t in content)


def read_label_studio(path: Path, images: Path | None, findings: Findings) -> RawLabels:
    """Reads rectangles, polygons and ellipses from an export of Label Studio (JSON or JSON-MIN).

    If an image has several annotations, the one marked as ground truth is taken, or else the
    newest. Canceled annotations and predictions are not read, and images without another annotation
    are left out, because nobody has labeled them.

    Raises:
        OSError, ValueError: the file cannot be read, or is not such an export.
    """
    tasks = read_json(path)
    if not is_label_studio(tasks):
        raise ValueError(f"{path}: expected an export of Label Studio, a list of tasks.")
    listed: list[RawImage] = []
    for number, task in enumerate(tasks, start=1):
        where = f"{path}, task {task.get('id', number)}"
        name = _task_image(task, where)
        results = _results(task, where, findings)
        if results is None:
            findings.add("no_annotation", name)
            continue
        sizes = [s for r in results if (s := _result_size(r, where))]
        faces = [face for r in _regions(results) for face in _result_faces(r, where, findings)]
        try:
            candidates = _task_names(name)
        except ValueError as error:  # from urlsplit
            raise ValueError(f"{where}: {name[:80]!r} is not a URL ({error}).") from None
        listed.append(RawImage(name, candidates, faces, sizes[0] if sizes else None, True))
    if not listed:
        raise ValueError(
            f"{path}: none of the {len(tasks)} tasks has an annotation that was not canceled; "
            "label them, or export the annotations with the tasks."
        )
    return RawLabels(listed, roots_beside(path), [])


def _task_image(task: dict[str, Any], where: str) -> str:
    data = task.get("data", task)
    if not isinstance(data, dict):
        data = {}
    for key in ("image", "img", "picture", "photo", "url"):
        if isinstance(data.get(key), str):
            return data[key]
    texts = [value for value in data.values() if isinstance(value, str) and "." in value]
    if len(texts) != 1:
        raise ValueError(f"{where}: expected the image's address as data.image.")
    return texts[0]


def _task_names(address: str) -> tuple[str, ...]:
    """File names that the picture of an address may have."""
    name = address
    if "://" in address or address.startswith("/"):
        parts = urlsplit(address)
        name = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]
    below = name.replace("\\", "/").lstrip("/")
    base = below.rpartition("/")[2]
    # The last parts of the path, because it starts with folders of the server; then the file name.
    names = [below, name, f"/{below}", f"**/{base}"]
    if upload := _UPLOAD.match(base):
        names += [upload[1], f"**/{upload[1]}"]
    return tuple(dict.fromkeys(names))


def _min_labels(task: dict[str, Any]) -> list[Any] | None:
    """The regions of a task in JSON-MIN: lists of objects with x, y, width and height."""
    if "annotation_id" not in task and "annotator" not in task and "lead_time" not in task:
        return None
    lists = [value for value in task.values() if isinstance(value, list)]
    return [r for listed in lists if all(isinstance(r, dict) for r in listed) for r in listed]


def _results(task: dict[str, Any], where: str, findings: Findings) -> list[dict[str, Any]] | None:
    """The results of the annotation that is taken; None if the image has no annotation."""
    if "data" not in task:
        return [{**v, "value": v} for v in _min_labels(task) or []]
    if task.get("predictions"):
        findings.add("predictions", where)
    made = task.get("annotations", task.get("completions", []))
    if not isinstance(made, list) or not all(isinstance(m, dict) for m in made):
        raise ValueError(f"{where}: 'annotations' must be a list of objects.")
    made = [one for one in made if not one.get("was_cancelled")]
    if not made:
        return None
    if len(made) > 1:
        findings.add("annotators", where)
    chosen = max(made, key=lambda m: (bool(m.get("ground_truth")), str(m.get("updated_at") or "")))
    results = chosen.get("result", [])
    if not isinstance(results, list) or not all(isinstance(r, dict) for r in results):
        raise ValueError(f"{where}: 'result' must be a list of objects.")
    return results


def _regions(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results that are regions, one of each.

    Choices, texts and the like repeat the region that they describe, and so does the label of a
    region that was drawn by a tool without labels. A relation has no region.
    """
    regions = []
    labeled = [_shape(result) for result in results if _texts(result)]
    for result in results:
        value, shape = result.get("value"), _shape(result)
        described = isinstance(value, dict) and bool(_DESCRIPTIONS & value.keys())
        again = described or (any(shape) and shape in labeled)
        if _texts(result) or not (again or result.get("type") == "relation"):
            regions.append(result)
    return regions


def _shape(result: dict[str, Any]) -> list[Any]:
    value = result.get("value")
    return [value.get(key) for key in _SHAPE] if isinstance(value, dict) else []


def _texts(result: dict[str, Any]) -> list[str]:
    """The labels of a region; there are several if the labeling allows it."""
    value = result.get("value")
    if not isinstance(value, dict):
        return []
    lists = [v for key, v in value.items() if key.endswith("labels") and isinstance(v, list)]
    return [str(text) for texts in lists for text in texts]


def _result_size(result: dict[str, Any], where: str) -> tuple[int, int] | None:
    return stated_size(result.get("original_height"), result.get("original_width"), where)


def _result_faces(result: dict[str, Any], where: str, findings: Findings) -> list[RawFace]:
    """The box of a region, once for each of its labels."""
    value = result.get("value")
    if not isinstance(value, dict):
        raise ValueError(f"{where}: a result has no 'value', the object with its box.")
    texts = _texts(result)
    percent = [value.get(side) for side in ("x", "y", "width", "height")]
    if all(side is not None for side in percent):
        x, y, w, h = finite(percent, where)
        (angle,) = finite([value.get("rotation") or 0], where)
        if angle % 360:
            x, y, w, h = _turned_percent(result, (x, y, w, h), angle, where)
            findings.add("around", where)
    elif isinstance(value.get("points"), list) and len(value["points"]) >= 3:
        x, y, w, h = around(_points(value["points"], where, where))
        findings.add("around", where)
    elif value.get("radiusX") is not None:
        sides = [value.get(side) for side in ("x", "y", "radiusX", "radiusY")]
        cx, cy, rx, ry = finite(sides, where)
        (angle,) = finite([value.get("rotation") or 0], where)
        scale = _percent_scale(result, where) if angle % 180 else (1, 1, 1, 1)
        pixels = (p * s for p, s in zip((cx, cy, rx, ry), scale))
        box = turned_ellipse(*pixels, angle)
        x, y, w, h = (p / s for p, s in zip(box, scale))
        findings.add("around", where)
    else:
        if texts or result.get("type") is not None:
            findings.add("no_box", f"{where}: {result.get('type')}")
        return []
    return [RawFace((x / 100, y / 100, w / 100, h / 100), label) for label in texts or [""]]


def _turned_percent(
    result: dict[str, Any], box: tuple[float, float, float, float], angle: float, where: str
) -> tuple[float, float, float, float]:
    """The upright box around a rotated one, in percent; the rotation is about the first corner."""
    scale = _percent_scale(result, where)
    x, y, w, h = (p * s for p, s in zip(box, scale))
    bx, by, bw, bh = (p / s for p, s in zip(turned_box(x, y, w, h, angle, (x, y)), scale))
    return bx, by, bw, bh


def _percent_scale(result: dict[str, Any], where: str) -> tuple[float, float, float, float]:
    """Pixels per percent of x, y, width and height."""
    size = _result_size(result, where)
    if size is None:
        raise ValueError(f"{where}: a rotated shape has no original_width and original_height.")
    height, width = size
    return width / 100, height / 100, width / 100, height / 100
