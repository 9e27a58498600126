"""Labels of faces in the forms that labeling tools and data sets use.

Eight forms are read: WIDER FACE text, COCO json, YOLO, Pascal VOC, LabelMe, CVAT for images, Label
Studio and RetinaFace's label.txt. Neither torch nor Detectron2 is needed. (globox 2.9 reads five of
them, but has no ignored boxes, stops at a box of negative size, and does not look for images.)

::

    from face_d2.data.labels import read_labels

    labels = read_labels("faces/")                                # recognized by looking
    labels = read_labels("coco:faces/labels.json:faces/pictures")
    print(labels.summary())
"""

from face_d2.data.labels.model import LabeledImage, Labels
from face_d2.data.labels.notation import FORMATS, is_notation, read_labels

__all__ = ["FORMATS", "LabeledImage", "Labels", "is_notation", "read_labels"]
