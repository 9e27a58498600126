"""The baseline is RetinaNet: Detectron2's own, with the same weights, gives the same outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage


def detectron2_retinanet(cfg: Any) -> torch.nn.Module:
    """Detectron2's RetinaNet on its own FPN, with the levels and anchors of ``cfg``."""
    cfg = cfg.clone()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES = cfg.MODEL.FFP.IN_FEATURES
    cfg.MODEL.FPN.OUT_CHANNELS = cfg.MODEL.FFP.OUT_CHANNELS
    cfg.MODEL.RETINANET.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6", "p7"]
    cfg.MODEL.RETINANET.NUM_CLASSES = 1
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = cfg.MODEL.DF2S2.SCORE_THRESH_TEST
    cfg.MODEL.RETINANET.TOPK_CANDIDATES_TEST = cfg.MODEL.DF2S2.TOPK_CANDIDATES_TEST
    return build_model(cfg).eval()


def test_weights_fit_detectron2s_retinanet(tiny_cfg: Callable[..., Any]) -> None:
    cfg = tiny_cfg(base="quick/retinanet_synth.yaml")
    # RetinaNet's tower is as wide as the FPN; a low threshold so that there is much to compare.
    cfg.MODEL.FFP.OUT_CHANNELS = cfg.MODEL.DF2S2.CONV_DIM = 16
    cfg.MODEL.DF2S2.NORM = ""
    cfg.MODEL.DF2S2.SCORE_THRESH_TEST = 1e-4
    torch.manual_seed(0)
    ours = build_model(cfg).eval()
    with torch.no_grad():  # saturated scores would tie, and ties have no order
        ours.head.cls_score.weight.mul_(0.01)
        ours.head.bbox_pred.weight.mul_(0.01)
    theirs = detectron2_retinanet(cfg)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    inputs = [{"image": torch.rand(3, 100, 140) * 255, "height": 200, "width": 280}]
    with torch.no_grad():
        a, b = (model(inputs)[0]["instances"] for model in (ours, theirs))
    assert len(a) == len(b) > 100
    # Equal scores have no order of their own, so the rows are sorted whole.
    rows = [sorted(torch.cat([i.scores[:, None], i.pred_boxes.tensor], 1).tolist()) for i in (a, b)]
    assert torch.allclose(torch.tensor(rows[0]), torch.tensor(rows[1]), atol=1e-3)


def test_detectron2s_retinanet_trains_on_our_backbone(tiny_cfg: Callable[..., Any]) -> None:
    cfg = tiny_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.RETINANET.NUM_CLASSES = 1
    cfg.MODEL.RETINANET.IN_FEATURES = ["ffp2", "ffp3", "ffp4", "ffp5", "ffp6", "ffp7"]
    model = build_model(cfg).train()
    instances = Instances((64, 64))
    instances.gt_boxes = Boxes(torch.tensor([[10.0, 10, 30, 36]]))
    instances.gt_classes = torch.tensor([0])
    psi = model.backbone.f_blocks[0].psi.weight
    before = psi.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    with EventStorage():
        for _ in range(2):
            losses = model([{"image": torch.full((3, 64, 64), 100.0), "instances": instances}])
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert not torch.equal(psi, before)
    with torch.no_grad():
        assert "instances" in model.eval()([{"image": torch.zeros(3, 70, 50)}])[0]


@pytest.mark.parametrize(
    "name",
    [
        "df2s2/df2s2_R50_FFP.yaml",
        "df2s2/df2s2_R50_FFP_notes.yaml",
        "df2s2/df2s2_R50_FFP_scratch.yaml",
        "baseline/retinanet_R50_FPN.yaml",
        "quick/df2s2_synth.yaml",
        "quick/df2s2_real.yaml",
        "quick/retinanet_synth.yaml",
        "quick/retinanet_real.yaml",
    ],
)
def test_every_config_builds(name: str) -> None:
    from face_d2.config import get_cfg, get_config_file

    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(name))
    cfg.MODEL.DEVICE = "cpu"
    if cfg.MODEL.RESNETS.NORM == "SyncBN":
        cfg.MODEL.RESNETS.NORM = "BN"  # SyncBN is for GPUs
    model = build_model(cfg)
    assert [len(shapes) for shapes in model.anchor_generator.cell_anchors] == [6] * 6
    assert model.strides == [4, 8, 16, 32, 64, 128]
    assert all(dataset in MetadataCatalog.list() for dataset in cfg.DATASETS.TRAIN)


def test_schedule_is_the_papers() -> None:
    """120 epochs of 12,880 images in batches of 32, x 0.1 after 80 and 100."""
    from face_d2.config import get_cfg, get_config_file

    cfg = get_cfg()
    cfg.merge_from_file(get_config_file("df2s2/df2s2_R50_FFP.yaml"))
    epoch = 12880 / cfg.SOLVER.IMS_PER_BATCH
    assert 120 * epoch == cfg.SOLVER.MAX_ITER
    assert (80 * epoch, 100 * epoch) == cfg.SOLVER.STEPS
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM) == (4e-3, 0.9)
    assert (cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.GAMMA) == (1e-4, 0.1)
