"""A readable description of the test settings in a config that influence AP."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detectron2.config import CfgNode

__all__ = ["describe_test_settings", "format_protocol"]

#: The config nodes with the test thresholds of Detectron2's meta-architectures. A detector of this
#: project has them in the node with its own name.
_TEST_NODES = {"GeneralizedRCNN": "ROI_HEADS"}


def describe_test_settings(cfg: CfgNode) -> dict[str, str]:
    """The test settings of a config that influence the AP of a face detector.

    Args:
        cfg: a Detectron2 config, of any meta-architecture.

    Returns:
        setting -> description: image size, score threshold, NMS, detections kept, test-time
        augmentation.
    """
    architecture = cfg.MODEL.META_ARCHITECTURE
    node = cfg.MODEL.get(_TEST_NODES.get(architecture, architecture.upper()), {})
    nms = f"{node.get('NMS_TYPE', 'iou')} {node.get('NMS_THRESH_TEST', 'unknown')}"
    kept = f"{cfg.TEST.DETECTIONS_PER_IMAGE} per image"
    if "TOPK_CANDIDATES_TEST" in node:
        kept += f" (TOPK_CANDIDATES_TEST {node['TOPK_CANDIDATES_TEST']})"
    return {
        "detector": architecture,
        "image size": _image_size(cfg, node.get("MIN_SIDE_TEST", 0)),
        "score threshold": str(node.get("SCORE_THRESH_TEST", "unknown")),
        "NMS": nms,
        "detections kept": kept,
        "test-time augmentation": _augmentation(cfg),
    }


def format_protocol(protocol: dict[str, str]) -> str:
    """One indented line per setting, to print below a result."""
    width = max(map(len, protocol), default=0)
    return "\n".join(f"  {key:<{width}}  {value}" for key, value in protocol.items())


def _image_size(cfg: CfgNode, min_side: int) -> str:
    short, long = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    limit = f"longer side at most {long}" if long else "longer side not limited"
    rule = f"shorter side {short}, {limit}" if short else "original"
    return f"{rule}, enlarged to a shorter side of {min_side} if below" if min_side else rule


def _augmentation(cfg: CfgNode) -> str:
    if not cfg.TEST.AUG.ENABLED:
        return "none"
    settings = dict(cfg.TEST.AUG, ENABLED="")
    if settings.get("SCALES"):  # they replace Detectron2's sizes
        settings |= {"MIN_SIZES": "", "MAX_SIZE": ""}
    return ", ".join(
        f"{key} {value}" for key, value in settings.items() if value not in ("", [], ())
    )
