"""``import face_d2.register`` fixes Detectron2's incompatibilities and registers the data sets."""

from face_d2 import compat

compat.apply()

from face_d2.data.register import register_all  # noqa: E402  (Detectron2 only after compat)

register_all()
