"""CenterFace (Xu et al., arXiv 1911.03599): a heat map of face centers at a quarter of the size.

Settings are those of the authors' code: the image is stretched to multiples of 32, and NMS uses IoU
0.3. The authors state no score threshold for their evaluation; this adapter uses 0.05.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from face_d2.detectors.base import About
from face_d2.detectors.onnx_detector import Candidates, OnnxDetector, Settings, cell_centers
from face_d2.detectors.onnx_graph import Signature

__all__ = ["CenterFace"]

_STRIDE = 4


class CenterFace(OnnxDetector):
    """The authors' ``centerface.onnx``, which accepts any input size although it states one."""

    adapter = "centerface"
    about = About(
        title="CenterFace",
        source="https://github.com/Star-Clouds/CenterFace",
        license="MIT",
        protocol_source="CenterFace, prj-python/centerface.py and README",
    )
    defaults = Settings(size=None, score=0.05, nms=0.3)
    channel_order = "RGB"
    stretched = True
    clipped = True
    free_size = True

    @classmethod
    def recognizes(cls, signature: Signature) -> bool:
        """Recognizes a heat map, sides, shifts of the center and landmarks."""
        return signature.channels in ((1, 2, 2), (1, 2, 2, 10)) and all(
            len(output.shape) == 4 for output in signature.outputs
        )

    def decode(self, outputs: Sequence[NDArray[np.float32]], canvas: tuple[int, int]) -> Candidates:
        """Decodes boxes; sides are stored as logarithms, and sides and shifts in the order y, x."""
        heat, sides, shift = (output[0] for output in outputs[:3])
        half = np.exp(sides.reshape(2, -1).T[:, ::-1]) * _STRIDE / 2
        center = cell_centers(canvas, _STRIDE, 0.5) + shift.reshape(2, -1).T[:, ::-1] * _STRIDE
        return np.concatenate([center - half, center + half], axis=1), heat.ravel()
