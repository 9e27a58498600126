"""DF2S2 for Detectron2: detection with feature fusion and segmentation supervision.

Importing this package registers the data sets, the backbones ``build_resnet_ffp_backbone`` and
``build_timm_ffp_backbone``, and the meta-architecture ``DF2S2``.
"""

import face_d2.register  # isort: skip  (mends Detectron2 before its first import)
from df2s2_d2.config import add_df2s2_config
from df2s2_d2.coverage import AnchorCoverage
from df2s2_d2.ffp import FFP, FBlock, build_resnet_ffp_backbone
from df2s2_d2.head import DF2S2Head
from df2s2_d2.meta_arch import DF2S2
from df2s2_d2.timm_backbone import TimmBackbone, build_timm_ffp_backbone
from df2s2_d2.zoo import MODELS

__all__ = [
    "DF2S2",
    "FFP",
    "MODELS",
    "AnchorCoverage",
    "DF2S2Head",
    "FBlock",
    "TimmBackbone",
    "add_config",
    "add_df2s2_config",
    "build_resnet_ffp_backbone",
    "build_timm_ffp_backbone",
]

#: The name under which :mod:`face_d2.plugins` expects it of every detector.
add_config = add_df2s2_config
