"""LFFD, a light face detector whose receptive fields take the place of anchors, for Detectron2.

Paper: "LFFD: A Light and Fast Face Detector for Edge Devices", https://arxiv.org/abs/1904.10633.
Importing this package registers the data sets, the backbone ``build_lffd_backbone``, the
meta-architecture ``LFFD`` and the training mapper ``scale_sampling``.
"""

import face_d2.register  # isort: skip  (mends Detectron2 before its first import)
from lffd_d2.backbone import LFFDNet, build_lffd_backbone
from lffd_d2.config import add_lffd_config
from lffd_d2.coverage import ReceptiveFieldCoverage
from lffd_d2.meta_arch import LFFD
from lffd_d2.scale_sampling import ScaleSamplingMapper
from lffd_d2.zoo import MODELS

__all__ = [
    "LFFD",
    "MODELS",
    "LFFDNet",
    "ReceptiveFieldCoverage",
    "ScaleSamplingMapper",
    "add_config",
    "add_lffd_config",
    "build_lffd_backbone",
]

#: The name under which :mod:`face_d2.plugins` expects it of every detector.
add_config = add_lffd_config
