"""``import face_d2.needs_detectron2`` before ``torch`` and ``detectron2``, in every module that
imports one of them.

If a package is missing, the error says how to install it. Otherwise, the installed Detectron2 works
afterwards, see :mod:`face_d2.compat`.
"""

from face_d2 import compat

compat.apply()
