"""The training mappers by the name a config gives them."""

from __future__ import annotations

from detectron2.config import CfgNode

from face_d2.data.mapper import FaceDatasetMapper
from face_d2.data.scale_sampling import ScaleSamplingMapper

__all__ = ["build_train_mapper"]

_MAPPERS: dict[str, type[FaceDatasetMapper] | type[ScaleSamplingMapper]] = {
    "face_crop": FaceDatasetMapper,
    "scale_sampling": ScaleSamplingMapper,
}


def build_train_mapper(cfg: CfgNode) -> FaceDatasetMapper | ScaleSamplingMapper:
    """The mapper that ``INPUT.MAPPER`` names.

    Raises:
        ValueError: when there is none of that name.
    """
    if cfg.INPUT.MAPPER not in _MAPPERS:
        raise ValueError(
            f"INPUT.MAPPER is {cfg.INPUT.MAPPER!r}; expected one of {sorted(_MAPPERS)}."
        )
    return _MAPPERS[cfg.INPUT.MAPPER](cfg, True)
