from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from helpers.same_detections import assert_same_detections
from references import df2s2_reference

from df2s2_d2.losses import CLS_NORMS, iou_box_loss, level_weights
from df2s2_d2.segmentation import box_mask

Build = Callable[..., torch.nn.Module]


def faces(
    rows: list[list[float]], ignore: list[bool] | None = None, size: tuple[int, int] = (64, 96)
) -> Instances:
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.zeros(len(rows), dtype=torch.int64)
    instances.gt_ignore = torch.tensor(ignore or [False] * len(rows), dtype=torch.bool)
    return instances


def batch(*instances: Instances) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {"image": torch.rand(3, *i.image_size, generator=generator) * 255, "instances": i}
        for i in instances
    ]


def losses_of(model: torch.nn.Module, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    model.train()
    with EventStorage():
        return model(inputs)


TWO_IMAGES = (
    faces([[10, 10, 30, 40], [40, 5, 90, 60], [2, 50, 9, 60]]),
    faces([[20, 20, 36, 44], [60, 10, 75, 30]], [False, True]),
)


@pytest.mark.parametrize("cls_norm", ["global_pos", "level_pos", "level_all"])
@pytest.mark.parametrize("seg_assign", ["anchor", "area"])
@pytest.mark.parametrize("focal", [(0.25, 2.0, 0.0), (0.1, 1.5, 0.6)])
def test_loss_equals_plain_loops(
    tiny_model: Build, cls_norm: str, seg_assign: str, focal: tuple[float, float, float]
) -> None:
    alpha, gamma, margin = focal
    model = tiny_model(
        *("MODEL.DF2S2.CLS_NORM", cls_norm, "MODEL.DF2S2.SEG_ASSIGN", seg_assign),
        *("MODEL.DF2S2.BOX_WEIGHT", 0.7, "MODEL.DF2S2.SEG_WEIGHT", 0.3),
        *("MODEL.DF2S2.FOCAL_LOSS_ALPHA", alpha, "MODEL.DF2S2.FOCAL_LOSS_GAMMA", gamma),
        *("MODEL.DF2S2.FOCAL_LOSS_MARGIN", margin),
    )
    inputs = batch(TWO_IMAGES[0], faces([[20, 20, 36, 44], [60, 10, 75, 30]]))
    generator = torch.Generator().manual_seed(2)
    sizes = [(-(-64 // s), -(-96 // s)) for s in model.strides]
    logits = [torch.randn(2, 6, *s, generator=generator) for s in sizes]
    deltas = [torch.randn(2, 24, *s, generator=generator) * 0.3 for s in sizes]
    masks = [torch.randn(2, 1, *s, generator=generator) for s in sizes]
    model.head.forward = lambda features, segment: (logits, deltas, masks)
    found = losses_of(model, inputs)

    grid = model._grid(sizes)
    boxes = [i["instances"].gt_boxes.tensor for i in inputs]
    matches = [model.matcher(grid, b, torch.zeros(len(b), dtype=torch.bool)) for b in boxes]
    labels = np.stack([m.labels.numpy() for m in matches])
    assert {-1, 0, 1} == set(labels.ravel().tolist())
    side = [b[:, 2:].sub(b[:, :2]).prod(1).sqrt().numpy() for b in boxes]
    targets = []
    for level, (stride, size) in enumerate(zip(model.strides, sizes)):
        maps = []
        for n, b in enumerate(boxes):
            if seg_assign == "anchor":
                shown = matches[n].on_level[:, level].numpy()
            else:
                relative = side[n] ** 2 / (4 * stride) ** 2
                shown = (relative >= 0.5) & (relative <= 2 * 1.58**2)
            maps.append(box_mask(b[torch.as_tensor(shown)], stride, size).numpy())
        targets.append(np.stack(maps))
    expected = df2s2_reference.losses(
        [m.double().numpy() for m in logits],
        [m.double().numpy() for m in deltas],
        [m.double().numpy() for m in masks],
        grid.boxes.double().numpy(),
        grid.levels.numpy(),
        labels,
        np.stack([m.faces.numpy() for m in matches]),
        [b.double().numpy() for b in boxes],
        targets,
        cls_norm=cls_norm,
        alpha=alpha,
        gamma=gamma,
        margin=margin,
        beta=0.11,
        box_weight=0.7,
        seg_weight=0.3,
    )
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_iou_losses_equal_their_formulas(
    tiny_model: Build, kind: str, weights: tuple[float, ...]
) -> None:
    """On the decoded boxes of the positives, divided as the smooth L1 loss is."""
    model = tiny_model(
        *("MODEL.DF2S2.BOX_LOSS", kind, "MODEL.DF2S2.BOX_WEIGHT", 0.7),
        *("MODEL.DF2S2.CLS_NORM", "level_pos", "MODEL.DF2S2.BBOX_REG_WEIGHTS", weights),
    )
    inputs = batch(*TWO_IMAGES)
    generator = torch.Generator().manual_seed(2)
    sizes = [(-(-64 // s), -(-96 // s)) for s in model.strides]
    logits = [torch.randn(2, 6, *s, generator=generator) for s in sizes]
    deltas = [torch.randn(2, 24, *s, generator=generator) * 0.5 for s in sizes]
    masks = [torch.zeros(2, 1, *s) for s in sizes]
    model.head.forward = lambda features, segment: (logits, deltas, masks)
    found = losses_of(model, inputs)["loss_box_reg"]

    grid = model._grid(sizes)
    by_level, positives = [0.0] * len(sizes), [0] * len(sizes)
    for n, item in enumerate(inputs):
        boxes, ignore = item["instances"].gt_boxes.tensor, item["instances"].gt_ignore
        match = model.matcher(grid, boxes, ignore)
        flat = torch.cat([d[n].view(6, 4, -1).permute(2, 0, 1).reshape(-1, 4) for d in deltas])
        for r in (match.labels == 1).nonzero()[:, 0].tolist():
            x0, y0, x1, y1 = grid.boxes[r].tolist()
            dx, dy, dw, dh = (d / w for d, w in zip(flat[r].tolist(), weights))
            x, y = (x0 + x1) / 2 + dx * (x1 - x0), (y0 + y1) / 2 + dy * (y1 - y0)
            w, h = (x1 - x0) * math.exp(dw) / 2, (y1 - y0) * math.exp(dh) / 2
            face = boxes[match.faces[r]].tolist()
            level = int(grid.levels[r])
            by_level[level] += df2s2_reference.iou_loss(kind, [x - w, y - h, x + w, y + h], face)
            positives[level] += 1
    expected = 0.7 * sum(s / max(p, 1) for s, p in zip(by_level, positives))
    assert sum(positives) > 20
    assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_iou_losses_stay_finite_on_wild_predictions_and_pull_them_back(kind: str) -> None:
    from detectron2.modeling.box_regression import Box2BoxTransform

    wild = [0.0, 3.0, -3.0, 90.0, -90.0, 1e4, -1e4, 1e20, -1e20]
    deltas = torch.tensor(list(itertools.product(wild, wild)))[:, [0, 0, 1, 1]].requires_grad_()
    count = len(deltas)
    anchors = torch.tensor([[3000.0, 2000, 3812, 3218]]).expand(count, 4)
    boxes = torch.tensor([[3100.0, 2100, 3100.001, 3300]]).expand(count, 4)  # hardly any width
    transform = Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0))
    for faces_ in (boxes, anchors):
        loss = iou_box_loss(kind, deltas, anchors, faces_, torch.ones(count), transform)
        (gradient,) = torch.autograd.grad(loss, deltas)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
    # On a face as large as its anchor, what is too wide by far gets narrower.
    wide = (deltas[:, 0] == 0) & (deltas[:, 2] >= 90)
    assert wide.sum() == 3
    assert (gradient[wide, 2] > 0).all()


def test_iou_loss_without_positives_is_a_zero_that_keeps_the_graph(tiny_model: Build) -> None:
    model = tiny_model("MODEL.DF2S2.BOX_LOSS", "diou")
    losses = losses_of(model, batch(faces([])))
    losses["loss_box_reg"].backward()
    assert losses["loss_box_reg"].item() == 0
    assert model.head.bbox_pred.weight.grad is not None


CROWD = faces([[x, y, x + 7, y + 9] for x in range(0, 90, 5) for y in range(0, 56, 5)])


@pytest.mark.parametrize(
    "instances",
    [
        (faces([]), faces([])),
        (faces([]), TWO_IMAGES[0]),
        (faces([[10, 10, 30, 40]], [True]), faces([[5, 5, 20, 20]], [True])),
        (CROWD, faces([[0, 0, 96, 64]])),
    ],
    ids=["empty", "half-empty", "all-ignored", "crowd"],
)
@pytest.mark.parametrize("norm", CLS_NORMS)
def test_unusual_images_train(
    tiny_model: Build, instances: tuple[Instances, Instances], norm: str
) -> None:
    model = tiny_model("MODEL.DF2S2.CLS_NORM", norm)
    losses = losses_of(model, batch(*instances))
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(g is not None and torch.isfinite(g).all() for g in gradients.values())
    has_face = any((~i.gt_ignore).any() for i in instances)
    assert (float(losses["loss_box_reg"]) > 0) == has_face
    assert float(losses["loss_cls"]) > 0


def test_missing_gt_ignore_means_no_ignored_face(tiny_model: Build) -> None:
    model = tiny_model()
    with_field = losses_of(model, batch(TWO_IMAGES[0]))
    plain = batch(Instances((64, 96)))
    plain[0]["instances"].gt_boxes = TWO_IMAGES[0].gt_boxes
    plain[0]["instances"].gt_classes = TWO_IMAGES[0].gt_classes
    without = losses_of(model, plain)
    assert {n: float(v) for n, v in with_field.items()} == pytest.approx(
        {n: float(v) for n, v in without.items()}
    )


@pytest.mark.parametrize("seg_assign", ["anchor", "area"])
def test_faces_below_min_face_are_ignored_by_their_longer_side(
    tiny_model: Build, seg_assign: str
) -> None:
    """Boxes and masks as if these faces were marked; the anchors around them count no more."""
    rows = [[10, 10, 17, 21], [40, 5, 90, 60], [60.0, 40, 68, 51.9], [2, 40, 10, 53]]
    key = ("MODEL.DF2S2.SEG_ASSIGN", seg_assign)
    marked = batch(faces(rows, [True, False, True, True]), faces([]))
    expected = losses_of(tiny_model(*key), marked)
    plain = batch(faces(rows, [False, False, False, True]), faces([]))
    found = losses_of(tiny_model(*key, "MODEL.DF2S2.MIN_FACE", 12.0), plain)
    taught = losses_of(tiny_model(*key), plain)
    exact = losses_of(tiny_model(*key, "MODEL.DF2S2.MIN_FACE", 11.0), plain)
    assert found["loss_cls"].item() < expected["loss_cls"].item()
    for name, value in expected.items():
        if name != "loss_cls":
            assert found[name].item() == value.item(), name
        assert found[name].item() != taught[name].item(), name
        assert exact[name].item() == taught[name].item(), name  # a side of MIN_FACE is large enough


def test_a_few_steps_reduce_the_loss(tiny_model: Build) -> None:
    model = tiny_model("MODEL.DF2S2.CONV_DIM", 32, "MODEL.FFP.OUT_CHANNELS", 32)
    inputs = batch(*TWO_IMAGES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    history = []
    for _ in range(30):
        losses = losses_of(model, inputs)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: float(loss) for name, loss in losses.items()})
    for name in history[0]:
        assert history[-1][name] < history[0][name], name


def calmed(model: torch.nn.Module) -> torch.nn.Module:
    """Random predictors shrunk, so that scores do not tie at 1 and boxes stay near the image."""
    with torch.no_grad():
        model.head.cls_score.weight.mul_(0.01)
        model.head.bbox_pred.weight.mul_(0.01)
    return model


def detections(model: torch.nn.Module, inputs: list[dict[str, Any]]) -> list[Instances]:
    model.eval()
    with torch.no_grad():
        return [result["instances"] for result in model(inputs)]


@pytest.mark.parametrize("share", ["all", "det", "none"])
def test_segmentation_costs_nothing_at_inference(tiny_model: Build, share: str) -> None:
    trained = tiny_model("MODEL.DF2S2.SHARE_TOWER", share, "MODEL.DF2S2.SCORE_THRESH_TEST", 0.0)
    without = tiny_model(
        *("MODEL.DF2S2.SHARE_TOWER", share, "MODEL.DF2S2.SCORE_THRESH_TEST", 0.0),
        *("MODEL.DF2S2.SEG_ENABLED", False),
    )
    missing, unexpected = without.load_state_dict(trained.state_dict(), strict=False)
    assert not missing
    assert unexpected
    assert all(name.startswith("head.seg_") for name in unexpected)
    images = torch.randn(1, 3, 64, 96)
    trained.eval()
    without.eval()
    ran = set()
    for name, module in trained.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.add(name))
    with torch.no_grad():
        pairs = list(zip(trained.forward_maps(images), without.forward_maps(images)))
    assert len(pairs) == 12
    assert all(torch.equal(a, b) for a, b in pairs)
    assert ran
    assert not any("seg" in name for name in ran)
    a, b = (detections(m, batch(TWO_IMAGES[0])) for m in (trained, without))
    assert len(a[0]) > 0
    assert torch.equal(a[0].pred_boxes.tensor, b[0].pred_boxes.tensor)
    assert torch.equal(a[0].scores, b[0].scores)


def test_parameters_shared_and_not(tiny_model: Build) -> None:
    counts = {
        share: sum(
            p.numel() for p in tiny_model("MODEL.DF2S2.SHARE_TOWER", share).head.parameters()
        )
        for share in ("all", "det", "none")
    }
    tower = 4 * (8 * 8 * 9 + 8)
    assert counts["det"] - counts["all"] == tower
    assert counts["none"] - counts["det"] == tower
    predictors = (8 * 9 + 1) * (6 + 24 + 1)
    assert counts["all"] == tower + predictors


@pytest.mark.parametrize("fusion", ["mul_add", "fpn"])
@pytest.mark.parametrize("levels", [(), (2, 3), (3,), (5, 6), (7,)])
def test_what_requires_a_gradient_gets_one(
    tiny_model: Build, levels: tuple[int, ...], fusion: str
) -> None:
    """DistributedDataParallel waits for the others for ever."""
    prefix = "p" if fusion == "fpn" else "ffp"
    overrides: list[object] = ["MODEL.FFP.FUSION", fusion]
    if levels:
        overrides += ["MODEL.DF2S2.IN_FEATURES", [f"{prefix}{level}" for level in levels]]
        overrides += ["MODEL.ANCHOR_GENERATOR.SIZES", [[4 * 2**level] for level in levels]]
    model = tiny_model(*overrides)
    names = {name for name, _ in model.named_parameters()}
    assert names == {name for name, _ in tiny_model(*overrides[:2]).named_parameters()}
    sum(losses_of(model, batch(*TWO_IMAGES)).values()).backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {name for name, p in model.named_parameters() if p.requires_grad}
    assert (learned == names) == (levels == ())


@pytest.mark.parametrize("fusion", ["mul_add", "fpn"])
def test_a_stage_below_the_frozen_ones_is_not_fused(tiny_model: Build, fusion: str) -> None:
    overrides = ("MODEL.FFP.FUSION", fusion, "MODEL.FFP.IN_FEATURES", ["res2", "res3"])
    sizes = ("MODEL.ANCHOR_GENERATOR.SIZES", [[16]])
    model = tiny_model(*overrides, *sizes, "MODEL.BACKBONE.FREEZE_AT", 3)
    assert not any(p.requires_grad for p in model.backbone.bottom_up.parameters())
    sum(losses_of(model, batch(*TWO_IMAGES)).values()).backward()


def test_prior(tiny_model: Build) -> None:
    model = tiny_model("MODEL.DF2S2.PRIOR_PROB", 0.05)
    assert torch.allclose(model.head.cls_score.bias.sigmoid(), torch.tensor(0.05))


@pytest.mark.parametrize("prior", [0.5, 0.02])
def test_prior_of_the_masks(tiny_model: Build, prior: float) -> None:
    model = tiny_model("MODEL.DF2S2.SEG_PRIOR_PROB", prior)
    assert torch.allclose(model.head.seg_score.bias.sigmoid(), torch.tensor(prior))
    assert torch.allclose(model.head.cls_score.bias.sigmoid(), torch.tensor(0.01))
    assert model.head.bbox_pred.bias.abs().sum() == 0


@pytest.mark.parametrize("segmentation", [True, False])
def test_normal_predictors_start_at_the_priors(tiny_model: Build, segmentation: bool) -> None:
    wide = ("MODEL.DF2S2.CONV_DIM", 64, "MODEL.DF2S2.SEG_ENABLED", segmentation)
    xavier = tiny_model(*wide).head
    normal = tiny_model(*wide, "MODEL.DF2S2.PREDICTOR_INIT", "normal").head
    names = ["cls_score", "bbox_pred"] + ["seg_score"] * segmentation
    for name in names:
        assert getattr(normal, name).weight.std().item() == pytest.approx(0.01, rel=0.15)
        assert getattr(xavier, name).weight.std().item() > 0.025
        assert torch.equal(getattr(normal, name).bias, getattr(xavier, name).bias)
    towers = [n for n, _ in normal.named_parameters() if "subnet" in n]
    assert towers
    assert all(torch.equal(normal.state_dict()[n], xavier.state_dict()[n]) for n in towers)


def test_detections_are_sorted_inside_the_image_and_capped(tiny_model: Build) -> None:
    model = calmed(
        tiny_model("MODEL.DF2S2.SCORE_THRESH_TEST", 0.0, "TEST.DETECTIONS_PER_IMAGE", 40)
    )
    inputs = batch(faces([], size=(70, 90)))
    inputs[0].update(height=140, width=180)
    (found,) = detections(model, inputs)
    assert found.image_size == (140, 180)
    assert len(found) == 40
    assert (found.scores.diff() <= 0).all()
    boxes = found.pred_boxes.tensor
    assert (boxes >= 0).all()
    assert (boxes[:, [0, 2]] <= 180).all()
    assert (boxes[:, [1, 3]] <= 140).all()


def test_a_batch_gives_what_its_images_give_alone(tiny_model: Build) -> None:
    model = calmed(tiny_model("MODEL.DF2S2.SCORE_THRESH_TEST", 0.0))
    inputs = batch(faces([], size=(70, 90)), faces([], size=(50, 64)), faces([], size=(70, 90)))
    together = detections(model, inputs)
    for one, item in zip(together, inputs):
        (alone,) = detections(model, [item])
        assert len(one) > 50
        assert (one.scores.diff() <= 0).all()
        assert_same_detections(
            (alone.pred_boxes.tensor, alone.scores), (one.pred_boxes.tensor, one.scores)
        )


@pytest.mark.parametrize("fusion", ["mul_add", "fpn"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (40, 50)])
def test_small_images_are_searched(tiny_model: Build, size: tuple[int, int], fusion: str) -> None:
    """Also where the deepest map has one cell and every channel is a group of its own."""
    model = tiny_model(
        *("MODEL.DF2S2.NORM", "GN", "MODEL.DF2S2.CONV_DIM", 32),
        *("MODEL.FFP.NORM", "GN", "MODEL.FFP.OUT_CHANNELS", 32, "MODEL.FFP.FUSION", fusion),
        *("MODEL.DF2S2.SCORE_THRESH_TEST", 0.0),
    )
    (found,) = detections(model, batch(faces([], size=size)))
    assert found.image_size == size
    assert found.pred_boxes.tensor.isfinite().all()


def test_nan_pixels_give_no_detection(tiny_model: Build) -> None:
    model = tiny_model()
    inputs = batch(faces([]))
    inputs[0]["image"][:] = float("nan")
    assert len(detections(model, inputs)[0]) == 0


def test_training_without_instances_is_explained(tiny_model: Build) -> None:
    model = tiny_model().train()
    with pytest.raises(ValueError, match="instances"):
        model([{"image": torch.zeros(3, 64, 64), "file_name": "a.jpg"}])


def test_masks_can_be_looked_at(tiny_model: Build) -> None:
    model = tiny_model().eval()
    masks = model.segment(torch.randn(2, 3, 64, 96))
    assert [tuple(m.shape) for m in masks[:2]] == [(2, 1, 16, 24), (2, 1, 8, 12)]
    assert all(((m >= 0) & (m <= 1)).all() for m in masks)
    with pytest.raises(ValueError, match="SEG_ENABLED"):
        tiny_model("MODEL.DF2S2.SEG_ENABLED", False).segment(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MODEL.DF2S2.CLS_NORM", "mean"), "CLS_NORM"),
        (("MODEL.DF2S2.SEG_ASSIGN", "iou"), "SEG_ASSIGN"),
        (("MODEL.DF2S2.BOX_LOSS", "iou"), r"BOX_LOSS is 'iou'.*smooth_l1.*ciou"),
        (("MODEL.DF2S2.LOW_QUALITY_TOPK", 0), r"LOW_QUALITY_TOPK is 0"),
        (("MODEL.DF2S2.SEG_REDUCTION", "none"), "SEG_REDUCTION"),
        (("MODEL.DF2S2.SHARE_TOWER", "some"), "SHARE_TOWER"),
        (("MODEL.FFP.OUT_CHANNELS", 0), "MODEL.FFP.OUT_CHANNELS"),
        (
            ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[1.0], *[[1.0, 1.5]] * 5]),
            "same number",
        ),
        (("MODEL.PIXEL_STD", [1.0]), "PIXEL_STD"),
        (("MODEL.DF2S2.IN_FEATURES", ["res4"]), r"MODEL\.DF2S2\.IN_FEATURES.*res4.*ffp2"),
        (("MODEL.FFP.IN_FEATURES", []), r"MODEL\.FFP\.IN_FEATURES.*no stage.*res2"),
        (
            ("MODEL.FFP.FUSION", "fpn", "MODEL.FFP.IN_FEATURES", []),
            r"MODEL\.FFP\.IN_FEATURES.*no stage.*res2",
        ),
        (
            ("MODEL.FFP.FUSION", "fpn", "MODEL.FFP.OUT_CHANNELS", 0),
            r"MODEL\.FFP\.OUT_CHANNELS is 0.*at least 1",
        ),
        (("MODEL.DF2S2.PRIOR_PROB", 0.0), r"MODEL\.DF2S2\.PRIOR_PROB is 0\.0.*between 0 and 1"),
        (("MODEL.DF2S2.PRIOR_PROB", 1.0), r"MODEL\.DF2S2\.PRIOR_PROB is 1\.0.*between 0 and 1"),
        (("MODEL.DF2S2.SEG_PRIOR_PROB", 1.0), r"MODEL\.DF2S2\.SEG_PRIOR_PROB is 1\.0"),
        (("MODEL.DF2S2.PREDICTOR_INIT", "he"), r"PREDICTOR_INIT is 'he'.*xavier.*normal"),
        (("MODEL.DF2S2.MIN_FACE", -1.0), r"MODEL\.DF2S2\.MIN_FACE is -1\.0.*at least 0"),
        (("MODEL.DF2S2.NORM", "XX"), r"MODEL\.DF2S2\.NORM is 'XX'.*GN"),
        (("MODEL.FFP.NORM", "XX"), r"MODEL\.FFP\.NORM is 'XX'.*GN"),
        (("MODEL.FFP.FUSION", "fpn", "MODEL.FFP.NORM", "XX"), r"MODEL\.FFP\.NORM is 'XX'.*GN"),
        (("MODEL.FFP.NORM", "GN", "MODEL.FFP.OUT_CHANNELS", 48), r"MODEL\.FFP\.NORM.*48.*of 32"),
        (
            ("MODEL.DF2S2.TOPK_CANDIDATES_TEST", -1),
            r"MODEL\.DF2S2\.TOPK_CANDIDATES_TEST is -1.*at least 1",
        ),
        (("MODEL.DF2S2.SCORE_THRESH_TEST", 1.5), r"MODEL\.DF2S2\.SCORE_THRESH_TEST is 1\.5"),
        (("MODEL.DF2S2.NMS_THRESH_TEST", 40.0), r"MODEL\.DF2S2\.NMS_THRESH_TEST is 40\.0"),
        (("TEST.DETECTIONS_PER_IMAGE", -1), r"TEST\.DETECTIONS_PER_IMAGE is -1.*at least 1"),
        (("MODEL.PIXEL_STD", [1.0, 0.0, 1.0]), r"MODEL\.PIXEL_STD is .*above 0"),
        (("MODEL.DF2S2.BBOX_REG_WEIGHTS", (1.0, 1.0, 1.0)), r"BBOX_REG_WEIGHTS.*four numbers"),
        (("MODEL.DF2S2.CONV_DIM", 0), r"CONV_DIM is 0"),
        (("MODEL.FFP.OUT_CHANNELS", -3), r"MODEL\.FFP\.OUT_CHANNELS is -3"),
        (("MODEL.ANCHOR_GENERATOR.SIZES", [[0]]), r"ANCHOR_GENERATOR gives.*\[0\.0, 0\.0\]"),
        (("MODEL.ANCHOR_GENERATOR.SIZES", [[]]), r"0 anchors.*MODEL\.ANCHOR_GENERATOR\.SIZES"),
        (("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"), "rotated anchors"),
    ],
)
def test_impossible_settings_are_named(
    tiny_model: Build, overrides: tuple[object, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model(*overrides)


def test_checkpoint_round_trip(tiny_model: Build, tmp_path: Any) -> None:
    from detectron2.checkpoint import DetectionCheckpointer

    model = tiny_model("MODEL.DF2S2.SCORE_THRESH_TEST", 0.0)
    DetectionCheckpointer(model, str(tmp_path)).save("model")
    other = tiny_model("MODEL.DF2S2.SCORE_THRESH_TEST", 0.0)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    DetectionCheckpointer(other).load(str(tmp_path / "model.pth"))
    a, b = (detections(m, batch(TWO_IMAGES[0]))[0] for m in (model, other))
    assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
    assert torch.equal(a.scores, b.scores)


@pytest.mark.parametrize("batches", [((4, 4.0), (0, 3.7), (24, 5.73)), ((0, 1.0), (24, 3.3))])
def test_running_normalizer_by_hand(batches: tuple[tuple[int, float], ...]) -> None:
    """Positives and means: 4, then 0.9 * 4 + 0.1 * 1, then 0.9 * 3.7 + 0.1 * 24; or from 1 on."""
    levels = torch.zeros(30, dtype=torch.long)
    running = torch.zeros(())
    for positives, mean in batches:
        labels = torch.zeros(1, 30)
        labels[:, :positives] = 1
        weights = level_weights(labels, levels, 1, "running_pos", running)
        assert [float(w) for w in weights] == pytest.approx([1 / mean] * 2)
        assert float(running) == pytest.approx(mean)


def test_running_normalizer_is_part_of_a_checkpoint(tiny_model: Build) -> None:
    model = tiny_model("MODEL.DF2S2.CLS_NORM", "running_pos")
    assert float(model.state_dict()["running_positives"]) == 0
    assert "running_positives" not in tiny_model().state_dict()
