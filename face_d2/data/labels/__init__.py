"""Readers of face labels in the formats of labeling tools and data sets.

The eight formats are WIDER FACE text, COCO json, YOLO, Pascal VOC, LabelMe, CVAT for images, Label
Studio and RetinaFace's label.txt. Neither torch nor Detectron2 is needed. (globox 2.9 reads five of
them, but it has no ignored boxes, fails on boxes of negative size, and does not search for images.)

::

    from face_d2.data.labels import read_labels

    labels = read_labels("faces/")                                # the format is detected
    labels = read_labels("coco:faces/labels.json:faces/pictures")
    print(labels.summary())
"""

from face_d2.data.labels.model import LabeledImage, Labels
from face_d2.data.labels.notation import FORMATS, is_notation, read_labels

__all__ = ["FORMATS", "LabeledImage", "Labels", "is_notation", "read_labels"]
