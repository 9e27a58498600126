"""The objective against plain loops, its scale, and its gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from processes.lffd_losses import loss_of_half_a_batch
from references.lffd_loss_reference import box_loss, branch_objective
from torch import Tensor

from lffd_d2.assignment import BranchLabels
from lffd_d2.losses import LFFDLoss

DEFAULTS = {
    "neg_pos_ratio": 5,
    "neg_fraction_no_pos": 0.1,
    "loss_scale": "batch",
    "box_loss": "l2",
    "box_norm": "positives",
    "box_weight": 1.0,
}
IOU_LOSSES = ("giou", "diou", "ciou")


def random_branch(
    seed: int, shape: tuple[int, int, int] = (3, 9, 11), positives: float = 0.1
) -> tuple[Tensor, Tensor, BranchLabels]:
    """Logits, offsets and labels of one branch; some RFs are neither positive nor negative."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(shape, generator=generator)
    cells = (draw < positives).nonzero()
    labels = BranchLabels(
        positive=draw < 0.8 * positives,
        negative=draw > positives + 0.05,
        box_cells=cells,
        box_targets=torch.randn(len(cells), 4, generator=generator),
    )
    images, height, width = shape
    logits = 3 * torch.randn(images, 2, height, width, generator=generator)
    offsets = torch.randn(images, 4, height, width, generator=generator)
    return logits.requires_grad_(), offsets.requires_grad_(), labels


def reference(
    logits: Tensor, offsets: Tensor, labels: BranchLabels, options: dict
) -> tuple[float, float]:
    boxes = [(*c, t) for c, t in zip(labels.box_cells.tolist(), labels.box_targets.tolist())]
    score, box = branch_objective(
        logits.tolist(),
        offsets.tolist(),
        labels.positive.tolist(),
        labels.negative.tolist(),
        boxes,
        ratio=options["neg_pos_ratio"],
        no_pos=options["neg_fraction_no_pos"],
        box_kind=options["box_loss"],
        box_norm=options["box_norm"],
        box_weight=options["box_weight"],
    )
    scale = 1 / len(logits) if options["loss_scale"] == "batch" else 1
    return score * scale, box * scale


@pytest.mark.parametrize("loss_scale", ["batch", "mean"])
@pytest.mark.parametrize("box_norm", ["positives", "map"])
@pytest.mark.parametrize("ratio", [5, 1.5, 1000])
def test_losses_equal_plain_loops(loss_scale: str, box_norm: str, ratio: float) -> None:
    options = {
        **DEFAULTS,
        "loss_scale": loss_scale,
        "box_norm": box_norm,
        "neg_pos_ratio": ratio,
        "box_weight": 0.7,
    }
    branches = [random_branch(0), random_branch(1, (3, 4, 5)), random_branch(2, positives=0.0)]
    logits, offsets, labels = map(list, zip(*branches))
    score, box = LFFDLoss(**options)(logits, offsets, labels)
    expected = [reference(*branch, options) for branch in branches]
    torch.testing.assert_close(score, torch.tensor([e[0] for e in expected]))
    torch.testing.assert_close(box, torch.tensor([e[1] for e in expected]))


def with_real_boxes(branch: tuple[Tensor, Tensor, BranchLabels]) -> tuple:
    """The branch with targets and predictions whose right sides lie right of their left sides."""
    logits, offsets, labels = branch
    signs = torch.tensor([1.0, 1.0, -1.0, -1.0])
    labels = replace(labels, box_targets=(labels.box_targets.abs() + 0.2) * signs)
    offsets = (offsets.detach().abs() + 0.2) * signs[:, None, None]
    return logits, offsets.requires_grad_(), labels


@pytest.mark.parametrize("kind", IOU_LOSSES)
@pytest.mark.parametrize("box_norm", ["positives", "map"])
@pytest.mark.parametrize("loss_scale", ["batch", "mean"])
def test_iou_losses_equal_plain_loops(kind: str, box_norm: str, loss_scale: str) -> None:
    options = {
        **DEFAULTS,
        "box_loss": kind,
        "box_norm": box_norm,
        "loss_scale": loss_scale,
        "box_weight": 0.7,
    }
    branches = [random_branch(0), random_branch(1, (3, 4, 5)), random_branch(2, positives=0.0)]
    branches = [with_real_boxes(branch) for branch in branches]
    logits, offsets, labels = map(list, zip(*branches))
    _, box = LFFDLoss(**options)(logits, offsets, labels)
    expected = [reference(*branch, options)[1] for branch in branches]
    torch.testing.assert_close(box, torch.tensor(expected))


def one_box(kind: str, predicted: Tensor, wanted: list[float], dtype: torch.dtype) -> Tensor:
    """The loss of a single RF's box."""
    nothing = torch.zeros(1, 1, 1, dtype=torch.bool)
    labels = BranchLabels(
        nothing, nothing, torch.zeros(1, 3, dtype=torch.int64), torch.tensor([wanted])
    )
    logits = torch.zeros(1, 2, 1, 1, dtype=dtype)
    loss = LFFDLoss(box_loss=kind, loss_scale="mean")
    return loss([logits], [predicted.to(dtype).view(1, 4, 1, 1)], [labels])[1].sum()


@pytest.mark.parametrize("kind", IOU_LOSSES)
@pytest.mark.parametrize("divisor", [7.5, 80.0])
def test_an_iou_loss_is_that_of_the_decoded_boxes(kind: str, divisor: float) -> None:
    """Corner = center - offset x divisor, in pixels."""
    wanted, predicted = [0.5, 0.9, -0.7, -0.6], [0.8, 0.4, -0.5, -0.9]
    boxes = [
        [c - o * divisor for c, o in zip((31.0, 47.0) * 2, side)] for side in (predicted, wanted)
    ]
    got = one_box(kind, torch.tensor(predicted), wanted, torch.float32)
    assert got.item() == pytest.approx(box_loss(kind, *boxes), rel=1e-5)


@pytest.mark.parametrize("kind", IOU_LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "predicted",
    [
        [0.0, 0.0, 0.0, 0.0],
        [1.0, 1.0, 1.0, 1.0],
        [-1.0, -0.5, 1.0, 0.5],
        [-1.0, 0.5, 1.0, -0.5],
        [1e4, 1e4, -1e4, -1e4],
        [-1e4, -1e4, 1e4, 1e4],
        [0.6, 0.6, -0.6, -0.6],
    ],
)
def test_iou_losses_and_gradients_are_finite(
    kind: str, dtype: torch.dtype, predicted: list[float]
) -> None:
    offsets = torch.tensor(predicted, requires_grad=True)
    loss = one_box(kind, offsets, [0.6, 0.6, -0.6, -0.6], dtype)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(offsets.grad).all()


@pytest.mark.parametrize("kind", IOU_LOSSES)
@pytest.mark.parametrize("start", [[0.0] * 4, [-0.4, -0.3, 0.5, 0.2], [2.0, 2.0, 1.5, 1.0]])
def test_iou_losses_lead_to_the_box_from_boxes_without_an_area(
    kind: str, start: list[float]
) -> None:
    wanted = [0.5, 0.9, -0.7, -0.6]
    offsets = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.SGD([offsets], lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        one_box(kind, offsets, wanted, torch.float32).backward()
        optimizer.step()
    torch.testing.assert_close(offsets.detach(), torch.tensor(wanted), atol=0.1, rtol=0)


def test_batch_scale_with_map_norm_has_the_released_gradients() -> None:
    """(softmax - onehot) / selected / batch, and (pred - target) mask / (4 h w) / batch."""
    logits, offsets, labels = random_branch(3)
    loss = LFFDLoss(**{**DEFAULTS, "box_norm": "map"})
    score, box = loss([logits], [offsets], [labels])
    (score.sum() + box.sum()).backward()
    images, _, height, width = offsets.shape

    expected = torch.zeros_like(offsets)
    for (n, r, c), target in zip(labels.box_cells.tolist(), labels.box_targets):
        expected[n, :, r, c] = (offsets.detach()[n, :, r, c] - target) / (
            4 * height * width * images
        )
    torch.testing.assert_close(offsets.grad, expected)

    probability = logits.detach().softmax(1)
    wanted = torch.stack([labels.positive, ~labels.positive], dim=1).float()
    moved = logits.grad.abs().sum(1) > 0
    count = int(labels.positive.sum() * 6)
    assert moved.sum() == count
    expected = (probability - wanted) * moved[:, None] / count / images
    torch.testing.assert_close(logits.grad, expected)


def test_only_the_hardest_negatives_get_a_gradient() -> None:
    logits, offsets, labels = random_branch(4)
    LFFDLoss(**DEFAULTS)([logits], [offsets], [labels])[0].sum().backward()
    moved = logits.grad.abs().sum(1) > 0
    background = logits.detach().softmax(1)[:, 1]
    assert moved[labels.positive].all()
    assert not moved[~labels.positive & ~labels.negative].any()
    kept, left = labels.negative & moved, labels.negative & ~moved
    assert kept.sum() == 5 * labels.positive.sum()
    assert background[kept].max() <= background[left].min()


def test_without_positives_the_hardest_tenth_counts_and_boxes_cost_nothing() -> None:
    logits, offsets, labels = random_branch(5, positives=0.0)
    score, box = LFFDLoss(**DEFAULTS)([logits], [offsets], [labels])
    (score.sum() + box.sum()).backward()
    assert (logits.grad.abs().sum(1) > 0).sum() == int(0.1 * labels.negative.sum())
    assert box.item() == 0
    assert not offsets.grad.any()


@pytest.mark.parametrize("value", [0.0, 60.0, -60.0, 1e4, -1e4])
def test_gradients_are_finite(value: float) -> None:
    logits, offsets, labels = random_branch(6)
    with torch.no_grad():
        logits[:, 0] += value
    score, box = LFFDLoss(**DEFAULTS)([logits], [offsets], [labels])
    (score.sum() + box.sum()).backward()
    for tensor in (score, box, logits.grad, offsets.grad):
        assert torch.isfinite(tensor).all()


def test_everything_ignored_still_gives_a_gradient() -> None:
    logits, offsets, _ = random_branch(7)
    nothing = torch.zeros(3, 9, 11, dtype=torch.bool)
    labels = BranchLabels(nothing, nothing, torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 4))
    score, box = LFFDLoss(**DEFAULTS)([logits], [offsets], [labels])
    (score.sum() + box.sum()).backward()
    assert score.item() == box.item() == 0
    assert not logits.grad.any()


def test_two_processes_average_to_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    logits, offsets, labels = random_branch(8, (4, 9, 11))
    in_second = labels.box_cells[:, 0] >= 2
    labels.positive[:2] = False  # the first process has no positive at all
    labels = BranchLabels(
        labels.positive, labels.negative, labels.box_cells[in_second], labels.box_targets[in_second]
    )
    # As many negatives as there are: mining is per process, all else must not be.
    options = {**DEFAULTS, "neg_pos_ratio": 1e6}
    loss = LFFDLoss(**options)
    score, box = loss([logits], [offsets], [labels])
    (score.sum() + box.sum()).backward()
    inputs = (logits.detach(), offsets.detach(), vars(labels), options, str(tmp_path))
    mp.spawn(loss_of_half_a_batch, inputs, nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    # DistributedDataParallel averages gradients over processes.
    assert (parts[0][0] + parts[1][0]) / 2 == pytest.approx(score.item())
    assert (parts[0][1] + parts[1][1]) / 2 == pytest.approx(box.item())
    torch.testing.assert_close(torch.cat([p[2] for p in parts]) / 2, logits.grad)
    torch.testing.assert_close(torch.cat([p[3] for p in parts]) / 2, offsets.grad)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"neg_pos_ratio": 0}, "NEG_POS_RATIO"),
        ({"neg_fraction_no_pos": 1.5}, "NEG_FRACTION_NO_POS"),
        ({"neg_fraction_no_pos": -0.5}, "NEG_FRACTION_NO_POS"),
        ({"loss_scale": "sum"}, "LOSS_SCALE"),
        ({"box_loss": "smooth_l1"}, "BOX_LOSS"),
        ({"box_norm": "area"}, "BOX_NORM"),
    ],
)
def test_options_out_of_range_are_named(change: dict, key: str) -> None:
    with pytest.raises(ValueError, match=key):
        LFFDLoss(**{**DEFAULTS, **change})
