"""LFFD as a Detectron2 model: configuration, training step, inference, bad input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.config import get_cfg as detectron2_get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from helpers.host_waits import host_waits
from helpers.same_detections import assert_same_detections
from torch import Tensor

from face_d2.config import get_cfg, get_config_file
from lffd_d2 import LFFD


def image(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def training_input(faces: list[list[float]], size: int = 64, **fields: Tensor) -> dict[str, Any]:
    instances = Instances((size, size))
    instances.gt_boxes = Boxes(torch.tensor(faces).reshape(-1, 4))
    instances.gt_classes = torch.zeros(len(faces), dtype=torch.int64)
    for name, value in fields.items():
        instances.set(name, value)
    return {"image": image(size, size), "instances": instances}


def losses(model: LFFD, inputs: list[dict[str, Any]]) -> tuple[dict[str, Tensor], EventStorage]:
    model.train()
    with EventStorage(start_iter=19) as storage:  # every 20th iteration is logged
        return model(inputs), storage


def test_a_training_step_fills_every_gradient(tiny_model: LFFD) -> None:
    faces = [[10.0, 10.0, 24.0, 26.0], [20.0, 30.0, 50.0, 62.0]]
    result, storage = losses(tiny_model, [training_input(faces), training_input([])])
    assert set(result) == {"loss_cls", "loss_box_reg"}
    sum(result.values()).backward()
    for name, parameter in tiny_model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest["lffd_cls/c4"] + latest["lffd_cls/c7"] == pytest.approx(result["loss_cls"].item())
    assert latest["lffd_box/c4"] + latest["lffd_box/c7"] == pytest.approx(
        result["loss_box_reg"].item()
    )
    assert latest["lffd_positives/c4"] > 0
    assert latest["lffd_positives/c7"] > 0


def test_branch_losses_are_logged_every_20th_iteration_as_means(tiny_model: LFFD) -> None:
    tiny_model.train()
    inputs = [training_input([[10.0, 10.0, 24.0, 26.0]]), training_input([])]
    total, logged = [], {}
    with EventStorage() as storage:
        for iteration in range(40):
            inputs[0]["image"] = image(64, 64, seed=iteration)
            total.append(tiny_model(inputs[:1] if iteration < 20 else inputs)["loss_cls"].item())
            storage.step()
            for name, (value, when) in storage.latest().items():
                logged[name, when] = value
    assert {when for _, when in logged} == {19, 39}
    for when in (19, 39):
        mean = sum(total[when - 19 : when + 1]) / 20
        assert logged["lffd_cls/c4", when] + logged["lffd_cls/c7", when] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("iteration", "kind", "most"),
    [(0, "l2", 3), (19, "l2", 4), (0, "giou", 13), (0, "diou", 13), (0, "ciou", 13)],
)
def test_a_gpu_step_waits_for_the_host_as_seldom_whatever_the_branches(
    iteration: int, kind: str, most: int
) -> None:
    """One look-up of cells and two reads of counts; every 20th step, one read for the log.

    With look-ups branch by branch it was 34 waits and 19 copies forward, and 16 waits backward.
    Ten of those with an IoU loss are torchvision's own.
    """
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file("lffd/lffd_25L8S.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.LFFD.BOX_LOSS = kind
    model = build_model(cfg).train()
    faces = [[10.0, 10.0, 22.0, 22.0], [60.0, 5.0, 80.0, 33.0], [40.0, 40.0, 100.0, 110.0]]
    inputs = [training_input(faces, 160), training_input([], 160)]
    images = model.preprocess_image(inputs)
    targets = [item["instances"] for item in inputs]
    with EventStorage(start_iter=iteration), host_waits() as waits:
        sum(model.losses(images, targets).values()).backward()
    assert waits["tolist"] == (3 if iteration == 19 else 2)
    assert sum(waits.values()) <= most, dict(waits)


@pytest.mark.parametrize("faces", [[], [[0.0, 0.0, 1.0, 1.0]], [[1.0, 1.0, 60.0, 60.0]]])
def test_batches_without_a_positive_train(tiny_model: LFFD, faces: list[list[float]]) -> None:
    result, _ = losses(tiny_model, [training_input(faces)])
    sum(result.values()).backward()
    assert torch.isfinite(result["loss_cls"])
    assert result["loss_cls"] > 0
    assert result["loss_box_reg"] == 0
    assert all(torch.isfinite(p.grad).all() for p in tiny_model.parameters())


def test_ignored_faces_are_left_out(tiny_model: LFFD) -> None:
    faces = [[10.0, 10.0, 24.0, 26.0]]
    _, seen = losses(tiny_model, [training_input(faces)])
    _, ignored = losses(tiny_model, [training_input(faces, gt_ignore=torch.tensor([True]))])
    assert seen.latest()["lffd_positives/c4"][0] > 0
    assert ignored.latest()["lffd_positives/c4"][0] == 0


def test_training_input_without_instances_is_named(tiny_model: LFFD) -> None:
    with pytest.raises(ValueError, match=r"training input 0.*'instances'"):
        losses(tiny_model, [{"image": image(64, 64)}])


def test_training_images_too_small_are_named(tiny_model: LFFD) -> None:
    with pytest.raises(ValueError, match=r"at least 15 pixels.*14 x 14"):
        losses(tiny_model, [training_input([], size=14)])


def fix_boxes(model: LFFD) -> None:
    """Makes every RF say a box of 16 x 16 (c4) or 32 x 32 (c7) round its center."""
    with torch.no_grad():
        for branch in model.head.values():
            branch.box.weight.zero_()
            branch.box.bias.copy_(torch.tensor([0.8, 0.8, -0.8, -0.8]))  # x 10 or 20 pixels


def fix_detections(model: LFFD) -> None:
    """Makes every RF of c4 find such a box, and c7 nothing."""
    fix_boxes(model)
    with torch.no_grad():
        for branch in model.head.values():
            branch.score.weight.zero_()
        model.head["c4"].score.bias.copy_(torch.tensor([3.0, 0.0]))
        model.head["c7"].score.bias.copy_(torch.tensor([-9.0, 0.0]))


def test_boxes_are_decoded_at_the_centers(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.LFFD.MIN_SIDE_TEST = 0
    tiny_cfg.MODEL.LFFD.NMS_THRESH_TEST = 1.0
    model = build_model(tiny_cfg).eval()
    fix_detections(model)
    found = model([{"image": image(64, 80)}])[0]["instances"]
    x = 3 + 4 * torch.arange(19.0)  # floor((floor((80 - 3) / 2) + 1 - 3) / 2) + 1 = 19
    y = 3 + 4 * torch.arange(15.0)
    centers = torch.cartesian_prod(x, y)
    expected = torch.cat([centers - 8, centers + 8], dim=1)
    expected[:, 0::2].clamp_(0, 80)
    expected[:, 1::2].clamp_(0, 64)
    got = sorted(tuple(b) for b in found.pred_boxes.tensor.round(decimals=3).tolist())
    assert got == sorted(tuple(b) for b in expected.tolist())
    torch.testing.assert_close(found.scores, torch.full((len(x) * len(y),), 3.0).sigmoid())
    assert not found.pred_classes.any()


def test_detections_are_reported_in_the_size_asked_for(tiny_model: LFFD) -> None:
    fix_detections(tiny_model)
    small = tiny_model([{"image": image(128, 160)}])[0]["instances"]
    large = tiny_model([{"image": image(128, 160), "height": 256, "width": 480}])[0]["instances"]
    assert large.image_size == (256, 480)
    scale = torch.tensor([3.0, 2.0, 3.0, 2.0])
    torch.testing.assert_close(large.pred_boxes.tensor, small.pred_boxes.tensor * scale)


def test_small_images_are_enlarged_and_boxes_brought_back(tiny_model: LFFD) -> None:
    fix_detections(tiny_model)
    sizes = []
    tiny_model.backbone.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[2:]))
    found = tiny_model([{"image": image(64, 100)}])[0]["instances"]
    assert sizes == [(128, 200)]
    assert found.image_size == (64, 100)
    sides = found.pred_boxes.tensor[:, 2:] - found.pred_boxes.tensor[:, :2]
    assert sides.max().item() == pytest.approx(8)  # 16 pixels of the enlarged image
    tiny_model([{"image": image(128, 200)}])
    assert sizes[1] == (128, 200)


def test_an_image_without_room_for_a_face_gives_an_empty_result(tiny_model: LFFD) -> None:
    for height, width in ((7, 5000), (300, 1), (1, 1)):
        found = tiny_model([{"image": image(height, width)}])[0]["instances"]
        assert len(found) == 0
        assert found.image_size == (height, width)
        assert found.pred_boxes.tensor.shape == (0, 4)


def test_an_image_smaller_than_the_deepest_stride(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.LFFD.VARIANT = "20L5S"  # stride 64
    for key in ("LAYERS", "WIDTHS", "TAPS", "FACE_RANGES"):
        tiny_cfg.MODEL.LFFD[key] = type(tiny_cfg.MODEL.LFFD[key])()
    tiny_cfg.MODEL.LFFD.SCORE_THRESH_TEST = 0.0
    model = build_model(tiny_cfg).eval()
    assert len(model([{"image": image(40, 50)}])[0]["instances"]) > 0  # enlarged
    model.test_min_side = 0
    assert len(model([{"image": image(40, 50)}])[0]["instances"]) == 0


def test_an_image_without_pixels_is_an_error(tiny_model: LFFD) -> None:
    for shape in ((3, 0, 0), (3, 0, 40), (3, 40, 0)):
        with pytest.raises(ValueError, match="at least one is needed"):
            tiny_model([{"image": torch.zeros(shape)}])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_are_an_error(tiny_model: LFFD, value: float) -> None:
    bad = image(128, 128).float()
    bad[1, 60, 60] = value
    with pytest.raises(ValueError, match=r"not finite.*pixels"):
        tiny_model([{"image": bad}])


def test_a_batch_of_unequal_sizes_equals_one_by_one(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.LFFD.SCORE_THRESH_TEST = 0.4
    torch.manual_seed(0)
    model = build_model(tiny_cfg).eval()
    inputs = [
        {"image": image(h, w, seed)}
        for seed, (h, w) in enumerate([(130, 150), (200, 140), (130, 150), (60, 90)])
    ]
    together = model(inputs)
    for item, result in zip(inputs, together):
        (alone,) = model([item])
        assert len(alone["instances"]) > 0
        assert_same_detections(
            *((r["instances"].pred_boxes.tensor, r["instances"].scores) for r in (alone, result))
        )


def test_an_empty_batch_gives_nothing(tiny_model: LFFD) -> None:
    assert tiny_model([]) == []


def test_skipped_branches_cost_nothing_and_find_nothing(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.LFFD.SCORE_THRESH_TEST = 0.0
    tiny_cfg.MODEL.LFFD.NMS_THRESH_TEST = 1.0
    torch.manual_seed(0)
    everything = build_model(tiny_cfg).eval()
    tiny_cfg.MODEL.LFFD.SKIP_BRANCHES = ["c7"]
    shallow = build_model(tiny_cfg).eval()
    shallow.load_state_dict(everything.state_dict())
    run = []
    for name, module in shallow.named_modules():
        module.register_forward_hook(lambda *_, name=name: run.append(name))

    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        maps, all_maps = shallow.forward_maps(x), everything.forward_maps(x)
    assert [b.tap for b in shallow.active_branches] == ["c4"]
    assert len(maps) == 2
    assert len(all_maps) == 4
    for part, whole in zip(maps, all_maps):
        torch.testing.assert_close(part, whole)
    assert "backbone.conv4" in run
    assert not {"backbone.conv5", "head.c7"} & set(run)

    fix_boxes(shallow)
    found = shallow([{"image": image(128, 128)}])[0]["instances"]
    assert len(found) == 31 * 31
    # Training still teaches every branch.
    _, storage = losses(shallow, [training_input([[20.0, 20.0, 50.0, 50.0]])])
    assert storage.latest()["lffd_positives/c7"][0] > 0


def test_maps_are_probabilities_and_offsets(tiny_model: LFFD) -> None:
    x = torch.randn(2, 3, 70, 90)
    with torch.no_grad():
        maps = tiny_model.forward_maps(x)
        logits, offsets = tiny_model.head(tiny_model.backbone(x))["c7"]
    assert [tuple(m.shape) for m in maps] == [
        (2, 1, 16, 21),
        (2, 4, 16, 21),
        (2, 1, 7, 10),
        (2, 4, 7, 10),
    ]
    torch.testing.assert_close(maps[2], logits.softmax(1)[:, :1])
    torch.testing.assert_close(maps[3], offsets)


def test_candidates_and_detections_are_limited(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.LFFD.SCORE_THRESH_TEST = 0.0
    tiny_cfg.MODEL.LFFD.NMS_THRESH_TEST = 1.0
    tiny_cfg.MODEL.LFFD.TOPK_CANDIDATES_TEST = 50
    torch.manual_seed(0)
    model = build_model(tiny_cfg).eval()
    fix_boxes(model)
    every = model([{"image": image(128, 128)}])[0]["instances"]
    assert len(every) == 50
    model.max_detections_per_image = 7
    few = model([{"image": image(128, 128)}])[0]["instances"]
    torch.testing.assert_close(few.scores, every.scores[:7])


@pytest.mark.parametrize("prior", [0.5, 0.01])
def test_fresh_branches_start_at_the_prior(tiny_cfg: CfgNode, prior: float) -> None:
    tiny_cfg.MODEL.LFFD.INIT = "fixup"
    tiny_cfg.MODEL.LFFD.PRIOR_PROB = prior
    maps = build_model(tiny_cfg).forward_maps(torch.randn(1, 3, 64, 64))
    for scores in maps[::2]:
        torch.testing.assert_close(scores, torch.full_like(scores, prior))


def test_the_default_prior_is_the_released_start(tiny_cfg: CfgNode) -> None:
    for branch in build_model(tiny_cfg).head.values():
        assert not branch.score.bias.any()


def test_branches_a_checkpoint_holds_keep_its_scores(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    saved = build_model(tiny_cfg)
    with torch.no_grad():
        saved.head["c4"].score.bias.copy_(torch.tensor([0.3, -0.2]))
    state = {k: v for k, v in saved.state_dict().items() if not k.startswith("head.c7")}
    torch.save({"model": state, "__author__": "test"}, tmp_path / "part.pth")
    tiny_cfg.MODEL.LFFD.PRIOR_PROB = 0.01
    model = build_model(tiny_cfg)
    DetectionCheckpointer(model).load(str(tmp_path / "part.pth"))
    assert model.head["c4"].score.bias.tolist() == pytest.approx([0.3, -0.2])
    assert model.head["c7"].score.bias.tolist() == pytest.approx([0, math.log(99)])


@pytest.mark.parametrize("kind", ["l2", "giou", "diou", "ciou"])
def test_every_box_loss_trains_from_zero_outputs(tiny_cfg: CfgNode, kind: str) -> None:
    tiny_cfg.MODEL.LFFD.INIT = "fixup"
    tiny_cfg.MODEL.LFFD.BOX_LOSS = kind
    result, _ = losses(
        build_model(tiny_cfg), [training_input([[20.0, 30.0, 50.0, 62.0]]), training_input([])]
    )
    assert result["loss_box_reg"] > 0


def test_layers_above_the_taps_require_no_gradient(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.LFFD.TAPS, tiny_cfg.MODEL.LFFD.FACE_RANGES = ["c4"], [[10, 20]]
    parts = build_model(tiny_cfg).backbone.named_children()
    required = {name: part.weight.requires_grad for name, part in parts}
    assert required == {f"conv{number}": number <= 4 for number in range(1, 8)}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("VARIANT", "8L1S", "unknown LFFD variant '8L1S'"),
        ("VARIANT", "20L5S", 'LAYERS is set, but MODEL.LFFD.VARIANT is "20L5S"'),
        ("TAPS", ["c9"], "TAPS must name"),
        ("NMS_TYPE", "soft", "NMS_TYPE"),
        ("SCALE_MEASURE", "height", "SCALE_MEASURE"),
        ("REG_NORM", "anchor", "REG_NORM"),
        ("LOSS_SCALE", "sum", "LOSS_SCALE"),
        ("BOX_LOSS", "iou", "BOX_LOSS is .iou.; expected one of"),
        ("PRIOR_PROB", 0.0, "PRIOR_PROB must lie between 0 and 1"),
        ("PRIOR_PROB", 1.0, "PRIOR_PROB must lie between 0 and 1"),
        ("PRIOR_PROB", float("nan"), "PRIOR_PROB must lie between 0 and 1"),
        ("SKIP_BRANCHES", ["c8"], "SKIP_BRANCHES must name some of the taps"),
        ("SKIP_BRANCHES", ["c4", "c7"], "leave at least one"),
        ("TOPK_CANDIDATES_TEST", -1, "TOPK_CANDIDATES_TEST is -1; expected at least 1"),
        ("SCORE_THRESH_TEST", 1.0, r"LFFD.SCORE_THRESH_TEST is 1.0; expected a score"),
        ("NMS_THRESH_TEST", 40.0, "LFFD.NMS_THRESH_TEST is 40.0; expected an overlap"),
        ("MIN_FACE", -1.0, "MIN_FACE is -1.0; expected pixels"),
    ],
)
def test_a_wrong_key_is_named_when_the_model_is_built(
    tiny_cfg: CfgNode, key: str, value: Any, message: str
) -> None:
    tiny_cfg.MODEL.LFFD[key] = value
    with pytest.raises(ValueError, match=message):
        build_model(tiny_cfg)


def test_a_config_without_the_keys_names_the_call_that_adds_them() -> None:
    cfg = detectron2_get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "LFFD"
    with pytest.raises(ValueError, match=r"no MODEL\.LFFD\. Call lffd_d2\.config\.add_lffd_config"):
        build_model(cfg)


def test_another_backbone_is_refused(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    with pytest.raises(ValueError, match=r'"build_lffd_backbone", got .build_resnet_backbone'):
        build_model(tiny_cfg)
