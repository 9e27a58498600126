"""The built network: parameter counts, measured receptive fields, features."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from lffd_d2 import LFFDNet, add_lffd_config
from lffd_d2.head import LFFDHead
from lffd_d2.variants import SLIM_VARIANTS, VARIANTS, get_variant

PARAMETERS = {
    "25L8S": 2_290_608,
    "20L5S": 1_520_606,
    "17L4S": 1_027_544,
    "20L4S": 1_818_648,
    "16L3S": 948_498,
    "16L3S-small": 486_866,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_count_is_that_of_the_released_network(name: str) -> None:
    variant = get_variant(name)
    modules = LFFDNet(variant), LFFDHead(variant.branches, variant.branch_channels)
    assert sum(p.numel() for m in modules for p in m.parameters()) == PARAMETERS[name]


SLIM_PARAMETERS = {
    "25L8S-small": 1_228_784,
    "25L8S-half": 575_984,
    "17L4S-small": 574_456,
    "17L4S-half": 258_808,
}


@pytest.mark.parametrize("name", SLIM_VARIANTS)
def test_parameter_count_of_slim_variants(name: str) -> None:
    """Counted layer by layer: a 3x3 per width, then five 1x1 a branch, each with its bias."""
    variant = get_variant(name)
    modules = LFFDNet(variant), LFFDHead(variant.branches, variant.branch_channels)
    found = sum(p.numel() for m in modules for p in m.parameters())
    pairs = zip((3, *variant.widths), variant.widths)
    expected = sum(9 * inputs * width + width for inputs, width in pairs)
    hidden = variant.branch_channels
    for branch in variant.branches:
        expected += (branch.channels + 1) * hidden  # shared
        expected += 2 * (hidden + 1) * hidden + (hidden + 1) * (2 + 4)
    assert found == expected == SLIM_PARAMETERS[name]


def open_all_relus(net: LFFDNet) -> None:
    """Positive weights: no ReLU cuts a path, so every pixel that can count does."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1 / parameter[0].numel() if parameter.dim() > 1 else 0)


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("name", [*VARIANTS, *SLIM_VARIANTS])
def test_receptive_fields_measured_by_gradient(name: str, axis: str) -> None:
    variant = get_variant(name)
    net = LFFDNet(variant)
    open_all_relus(net)
    # Long enough that the middle unit of the deepest map sees neither end; the other axis is short,
    # since only one is measured.
    deepest = variant.branches[-1].rf
    length = 2 * deepest.size + 2 * deepest.stride
    shape = (1, 3, variant.min_input(), length)
    image = torch.ones(shape if axis == "x" else (shape[0], shape[1], length, shape[2]))
    image.requires_grad_()
    features = net(image)
    for branch in variant.branches:
        feature = features[branch.tap]
        dim = 3 if axis == "x" else 2
        unit = feature.shape[dim] // 2
        (gradient,) = torch.autograd.grad(feature.select(dim, unit).sum(), image, retain_graph=True)
        seen = gradient.abs().sum(dim=(0, 1, 5 - dim)).nonzero().squeeze(1)
        first, last = seen[0].item(), seen[-1].item()
        assert last - first + 1 == branch.rf.size
        assert (first + last) / 2 == branch.rf.start + unit * branch.rf.stride


@pytest.mark.parametrize("name", VARIANTS)
def test_map_sizes_are_those_of_the_network(name: str) -> None:
    variant = get_variant(name)
    net = LFFDNet(variant)
    for height, width in ((127, 130), (201, 128)):
        with torch.no_grad():
            features = net(torch.zeros(1, 3, height, width))
        assert [tuple(f.shape[2:]) for f in features.values()] == list(
            variant.map_sizes(height, width)
        )


def test_features_are_the_rectified_residual_sums() -> None:
    net = LFFDNet(get_variant("20L5S"))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    x = torch.randn(1, 3, 130, 140)
    with torch.no_grad():
        features = net(x.clone())
        t = net.conv2(net.conv1(x).relu())
        for a, b in ((3, 4), (5, 6), (7, 8)):
            t = getattr(net, f"conv{b}")(getattr(net, f"conv{a}")(t.relu()).relu()) + t
        torch.testing.assert_close(features["c8"], t.relu())
        t = net.conv9(t.relu())
        t = net.conv11(net.conv10(t.relu()).relu()) + t
        torch.testing.assert_close(features["c11"], t.relu())


def test_gradients_do_not_depend_on_working_in_place() -> None:
    torch.manual_seed(0)
    net = LFFDNet(get_variant("16L3S-small")).double()
    x = torch.randn(1, 3, 127, 127, dtype=torch.float64, requires_grad=True)
    sum(f.sum() for f in net(x).values()).backward()
    direction = torch.randn_like(x)
    step = 1e-6
    with torch.no_grad():
        ends = [
            sum(f.sum() for f in net(x + s * step * direction).values()).item() for s in (1, -1)
        ]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert (x.grad * direction).sum().item() == pytest.approx(slope, rel=1e-4)


def test_layers_above_the_deepest_wanted_tap_are_not_run() -> None:
    net = LFFDNet(get_variant("20L5S"))
    run = []
    for name, conv in net.named_children():
        conv.register_forward_hook(lambda *_, name=name: run.append(name))
    with torch.no_grad():
        features = net(torch.zeros(1, 3, 31, 31), taps=["c11"])  # too small for c20
    assert list(features) == ["c11"]
    assert run == [f"conv{n}" for n in range(1, 12)]


def test_an_image_too_small_is_an_error_that_says_so() -> None:
    net = LFFDNet(get_variant("20L5S"))
    with pytest.raises(ValueError, match=r"20L5S needs images of at least 127 pixels.*126 x 300"):
        net(torch.zeros(1, 3, 126, 300))


def test_registry_and_output_shape() -> None:
    cfg = get_cfg()
    add_lffd_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_lffd_backbone"
    cfg.MODEL.LFFD.VARIANT = "20L4S"
    backbone = build_backbone(cfg)
    assert backbone.output_shape() == {
        "c11": ShapeSpec(channels=64, stride=8),
        "c14": ShapeSpec(channels=128, stride=16),
        "c17": ShapeSpec(channels=128, stride=32),
        "c20": ShapeSpec(channels=128, stride=64),
    }


def test_fixup_starts_residual_units_as_the_identity() -> None:
    torch.manual_seed(0)
    net = LFFDNet(get_variant("25L8S"), init="fixup")
    x = torch.randn(1, 3, 130, 130)
    with torch.no_grad():
        features = net(x)
        torch.testing.assert_close(features["c8"], net.conv2(net.conv1(x).relu()).relu())
    scales = [feature.std().item() for feature in features.values()]
    assert max(scales) < 4 * min(scales)  # nothing fades or explodes on the way up
    head = LFFDHead(net.variant.branches, 128, init="fixup")
    assert all(not (b.score.weight.any() or b.box.weight.any()) for b in head.values())


def test_an_unknown_start_is_named() -> None:
    with pytest.raises(ValueError, match=r"MODEL.LFFD.INIT"):
        LFFDNet(get_variant("20L5S"), init="zeros")


def test_start_is_xavier_uniform() -> None:
    conv = LFFDNet(get_variant("25L8S")).conv20
    bound = (6 / (128 * 9 * 2)) ** 0.5
    assert conv.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not conv.bias.any()
