"""Pixel overlap of detections with FDDB's ellipses, drawn as in the official tool.

An ellipse is drawn as OpenCV's polygon, with radii truncated to whole pixels, the center rounded,
and the angle in degrees. A rectangle extends from (x, y) to (x + w, y + h), both rounded and
inclusive. Pixels outside the canvas are left out.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["overlaps"]

_FAR = 10**9  # a limit for OpenCV's 32-bit integers, far outside any canvas


def overlaps(
    detections: NDArray[np.float64], ellipses: NDArray[np.float64], canvas: tuple[int, int]
) -> NDArray[np.float64]:
    """IoU of detections with faces, in pixels of the canvas.

    Args:
        detections: (D, 4) rectangles x, y, w, h or (D, 5) ellipses.
        ellipses: (F, 5) major radius, minor radius, angle in radians, center x, center y.
        canvas: (height, width).

    Returns:
        (D, F) in 0-1.
    """
    iou = np.zeros((len(detections), len(ellipses)))
    if not iou.size:
        return iou
    faces = [_draw_ellipse(ellipse, canvas) for ellipse in ellipses]
    if detections.shape[1] == 4:
        left, top, right, bottom = _pixel_borders(detections, canvas)
        area = (right - left) * (bottom - top)
        tables = [cv2.integral(face) for face in faces]  # summed-area tables
        intersections = [
            t[bottom, right] - t[top, right] - t[bottom, left] + t[top, left] for t in tables
        ]
    else:
        masks = [_draw_ellipse(ellipse, canvas) for ellipse in detections]
        area = np.array([cv2.countNonZero(mask) for mask in masks])
        intersections = [
            np.array([cv2.countNonZero(cv2.bitwise_and(mask, face)) for mask in masks])
            for face in faces
        ]
    for column, (face, intersection) in enumerate(zip(faces, intersections)):
        union = area + cv2.countNonZero(face) - intersection
        iou[:, column] = intersection / np.maximum(union, 1)
    return iou


def _draw_ellipse(ellipse: NDArray[np.float64], canvas: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W) mask of 0 and 1."""
    major, minor, angle, x, y = ellipse.tolist()
    mask = np.zeros(canvas, dtype=np.uint8)
    major, minor, x, y = (
        max(-_FAR, min(pixels, _FAR)) for pixels in (int(major), int(minor), round(x), round(y))
    )
    center, radii = (x, y), (major, minor)
    return cv2.ellipse(mask, center, radii, math.degrees(angle), 0, 360, 1, cv2.FILLED)


def _pixel_borders(boxes: NDArray[np.float64], canvas: tuple[int, int]) -> NDArray[np.int64]:
    """(4, D) left, top, right and bottom borders of the pixels on the canvas, end exclusive."""
    height, width = canvas
    near, far = np.rint(boxes[:, :2]), np.rint(boxes[:, :2] + boxes[:, 2:]) + 1
    return np.hstack([near, far]).clip(0, [width, height] * 2).T.astype(np.int64)
