"""``import face_d2.register`` fixes Detectron2's incompatibilities and registers the data sets."""

import face_d2.needs_detectron2  # isort: skip  (patches Detectron2 before its first import)
from face_d2.config import explain_missing_keys
from face_d2.data.register import register_all

register_all()
explain_missing_keys()
