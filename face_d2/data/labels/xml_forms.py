"""Readers of Pascal VOC's xml files (one per image) and of CVAT for images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from face_d2.data.labels.files import files_below, read_xml
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

__all__ = ["folders_of_images", "read_cvat", "read_one_file_each", "read_voc"]


def read_voc(path: Path, images: Path | None, findings: Findings) -> RawLabels:
    """Reads a folder of Pascal VOC's xml files (or one of them).

    A box extends from (xmin, ymin) to (xmax, ymax), as labelImg, CVAT and Roboflow write it. Faces
    marked ``difficult`` are ignored, as in VOC's protocol. Images without an xml file are left out.

    Raises:
        OSError, ValueError: a file cannot be read, or is not VOC xml.
    """
    return read_one_file_each(path, images, ".xml", "Pascal VOC", _voc_image)


def read_one_file_each(
    path: Path,
    images: Path | None,
    suffix: str,
    tool: str,
    read: Callable[[Path, Path], RawImage],
) -> RawLabels:
    """Reads a folder with one label file per image, or a single file.

    ``read`` gets the folder of the labels and a file; ``tool`` is the name of the format.
    """
    root = path if path.is_dir() else path.parent
    files = files_below(path, suffix) if path.is_dir() else [path]
    listed = [read(root, file) for file in files]
    if not listed:
        raise ValueError(
            f"{path}: contains no {suffix[1:]} file; expected {tool}'s, one per image."
        )
    roots = [images] if images else folders_of_images(root)
    return RawLabels(listed, roots, [], one_file_each=True)


def folders_of_images(labels: Path) -> list[Path]:
    """Folders that usually contain the images of a folder with one label file per image."""
    above = labels.parent
    names = ("JPEGImages", "images", "Images", "imgs")
    inside = [labels, *(labels / name for name in names), *(above / name for name in names)]
    parts = labels.absolute().parts
    swapped = [
        Path(*parts[:index], name, *parts[index + 1 :])
        for index in range(1, len(parts))
        if parts[index].lower() in ("annotations", "labels", "xml", "json")
        for name in names
    ]
    return [*inside, *swapped, above]


def _voc_image(root: Path, file: Path) -> RawImage:
    element = read_xml(file)
    if element.tag != "annotation":
        raise ValueError(f"{file}: the root is <{element.tag}>; expected VOC's <annotation>.")
    written = (element.findtext("filename") or "").strip()
    lead = file.parent.relative_to(root)
    stem = (lead / file.stem).as_posix()
    # Many tools write a wrong name or none; the name of the xml file is that of the image.
    names = [(lead / written).as_posix(), written] if written else []
    inner = [f"{lead.parent.as_posix()}/{file.stem}.*"] if lead.parts else []
    size = stated_size(
        element.findtext("size/height"), element.findtext("size/width"), f"{file}: size"
    )
    faces = []
    for number, found in enumerate(element.iter("object"), start=1):
        where = f"{file}, object {number}"
        corners = [found.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        if None in corners:
            raise ValueError(f"{where}: has no <bndbox> with xmin, ymin, xmax and ymax.")
        x1, y1, x2, y2 = finite(corners, where)
        (difficult,) = finite([found.findtext("difficult") or 0], where)
        label = (found.findtext("name") or "").strip()
        faces.append(RawFace((x1, y1, x2 - x1, y2 - y1), label, bool(difficult)))
    return RawImage(written or stem, (*names, f"{stem}.*", f"{file.stem}.*", *inner), faces, size)


def read_cvat(path: Path, images: Path | None, findings: Findings) -> RawLabels:
    """Reads "CVAT for images": boxes, and polygons and ellipses as the boxes around them.

    Raises:
        OSError, ValueError: the file cannot be read, or is not CVAT xml for images.
    """
    element = read_xml(path)
    if element.find("track") is not None:
        raise ValueError(f"{path}: this is CVAT for video; export it as 'CVAT for images 1.1'.")
    if element.tag != "annotations" or element.find("image") is None:
        raise ValueError(
            f"{path}: expected CVAT for images: <annotations> with an <image> per picture."
        )
    categories = [c.text.strip() for c in element.iterfind(".//labels/label/name") if c.text]
    listed = []
    for image in element.iterfind("image"):
        name = image.get("name") or ""
        if not name:
            raise ValueError(f"{path}: an <image> has no name; expected the path of its file.")
        where = f"{path}: {name}"
        faces = [face for shape in image if (face := _cvat_face(shape, where, findings))]
        size = stated_size(image.get("height"), image.get("width"), where)
        # The frames of a video have names without a suffix.
        listed.append(RawImage(name, (name, f"{name}.*"), faces, size))
    labels = {face.label for image in listed for face in image.faces if face.label}
    return RawLabels(listed, roots_beside(path), sorted({*categories, *labels}))


def _cvat_face(shape: Element, where: str, findings: Findings) -> RawFace | None:
    label = shape.get("label", "")
    if shape.tag == "box":
        corners = [shape.get(side) for side in ("xtl", "ytl", "xbr", "ybr")]
        x1, y1, x2, y2 = finite(corners, where)
        (angle,) = finite([shape.get("rotation") or 0], where)
        if angle % 360 == 0:
            return RawFace((x1, y1, x2 - x1, y2 - y1), label)
        box = turned_box(x1, y1, x2 - x1, y2 - y1, angle, ((x1 + x2) / 2, (y1 + y2) / 2))
    elif shape.tag == "polygon":
        pairs = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
        if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
            raise ValueError(
                f"{where}: a polygon has no points; expected three or more, 'x,y;x,y;x,y'."
            )
        box = around([finite(pair, where) for pair in pairs])
    elif shape.tag == "ellipse":
        cx, cy, rx, ry = finite([shape.get(side) for side in ("cx", "cy", "rx", "ry")], where)
        (angle,) = finite([shape.get("rotation") or 0], where)
        box = turned_ellipse(cx, cy, rx, ry, angle)
    elif shape.tag == "mask":
        sides = ("left", "top", "width", "height")
        x, y, w, h = finite([shape.get(side) for side in sides], where)
        box = (x, y, w, h)
    else:
        if shape.tag in ("points", "polyline", "cuboid", "skeleton"):
            findings.add("no_box", f"{where}: {shape.tag}")
        return None
    findings.add("around", f"{where}: {shape.tag}")
    return RawFace(box, label)


def turned_box(
    x: float, y: float, w: float, h: float, degrees: float, pivot: Sequence[float]
) -> tuple[float, float, float, float]:
    """The upright box around a box that is rotated clockwise about a point (y points down)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(x, y), (x + w, y), (x, y + h), (x + w, y + h)]
    offsets = [(cx - pivot[0], cy - pivot[1]) for cx, cy in corners]
    return around(
        [(pivot[0] + dx * cos - dy * sin, pivot[1] + dx * sin + dy * cos) for dx, dy in offsets]
    )


def turned_ellipse(
    cx: float, cy: float, rx: float, ry: float, degrees: float
) -> tuple[float, float, float, float]:
    """The upright box around an ellipse that is rotated clockwise about its center."""
    if degrees % 180 == 0:
        return cx - rx, cy - ry, 2 * rx, 2 * ry
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_w, half_h = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    return cx - half_w, cy - half_h, 2 * half_w, 2 * half_h
