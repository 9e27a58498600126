"""``import face_d2.register`` makes Detectron2 usable and registers the data sets, once."""

from face_d2 import compat

compat.apply()

from face_d2.data.register import register_all  # noqa: E402  (Detectron2 only after compat)

register_all()
