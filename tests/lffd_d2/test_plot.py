"""Effective receptive fields and their picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from helpers.tables import unpadded

from face_d2.cli.receptive_fields import main
from lffd_d2 import LFFD
from lffd_d2.plot import effective_size, measure_effective_fields


def test_fields_are_shares_of_influence_over_the_whole_theoretical_field(tiny_model: LFFD) -> None:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, 100, 120, generator=generator) for _ in range(3)]
    fields = measure_effective_fields(tiny_model, images)
    assert {tap: field.shape for tap, field in fields.items()} == {"c4": (23, 23), "c7": (63, 63)}
    for field in fields.values():
        assert field.sum() == pytest.approx(1)
        # The theoretical field is neither too small (its rim counts) nor displaced.
        rim = [field[0], field[-1], field[:, 0], field[:, -1]]
        assert all(side.any() for side in rim)
    assert effective_size(fields["c7"]) < 63


def test_images_of_one_color_have_no_influence_and_do_not_spoil_the_others(
    tiny_model: LFFD,
) -> None:
    """At the pixel mean, every ReLU of the fresh network is at 0 and has no gradient."""
    flat = torch.zeros(3, 100, 120)
    image = torch.randn(3, 100, 120, generator=torch.Generator().manual_seed(0))
    alone = measure_effective_fields(tiny_model, [image])
    both = measure_effective_fields(tiny_model, [flat, image])
    for tap, field in alone.items():
        np.testing.assert_allclose(both[tap], field)
    with pytest.raises(ValueError, match=r"no pixel of any image moves the score of c4; take"):
        measure_effective_fields(tiny_model, [flat])


def test_a_pixel_outside_the_field_does_not_move_the_score(tiny_model: LFFD) -> None:
    image = torch.randn(3, 100, 120, generator=torch.Generator().manual_seed(0))
    (before,) = [m[0, 0, 12, 14] for m in tiny_model.forward_maps(image[None])[:1]]
    outside = image.clone()
    y, x = 3 + 4 * 12, 3 + 4 * 14
    outside[:, : y - 11] = outside[:, y + 12 :] = 0
    outside[:, :, : x - 11] = outside[:, :, x + 12 :] = 0
    (after,) = [m[0, 0, 12, 14] for m in tiny_model.forward_maps(outside[None])[:1]]
    torch.testing.assert_close(after, before)


def test_the_effective_size_holds_95_percent() -> None:
    field = np.zeros((11, 11))
    field[5, 5] = 94
    field[4, 5] = 2
    field[0, 0] = 4
    assert effective_size(field) == 3
    assert effective_size(np.ones((11, 11))) == 11


def test_images_too_small_are_refused(tiny_model: LFFD) -> None:
    with pytest.raises(ValueError, match=r"70 x 100 pixels.*at least 79"):
        measure_effective_fields(tiny_model, [torch.zeros(3, 70, 100)])


@pytest.mark.parametrize("photo", [False, True])
def test_the_command_prints_the_table_and_draws(
    tiny_cfg: CfgNode, tmp_path: Path, capsys: pytest.CaptureFixture[str], photo: bool
) -> None:
    config, picture = tmp_path / "tiny.yaml", tmp_path / "fields.png"
    config.write_text(tiny_cfg.dump())
    arguments = ["--config-file", str(config), "--output", str(picture)]
    if photo:
        pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "x.png"), pixels)
        arguments += ["--images", str(tmp_path / "x.png")]
    main(arguments)
    assert "| 2 | c7 | 8 | 63 | 8 | 7 | 20-40 |" in unpadded(capsys.readouterr().out)
    drawn = cv2.imread(str(picture))
    assert min(drawn.shape[:2]) > 300
    assert drawn.std() > 20


def test_overrides_may_follow_the_images(
    tiny_cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr(
        "lffd_d2.plot.FaceCheckpointer.load",
        lambda self, path: loaded.append(path),
    )
    config, photo = tmp_path / "tiny.yaml", str(tmp_path / "x.png")
    config.write_text(tiny_cfg.dump())
    cv2.imwrite(photo, np.full((90, 90, 3), 7, np.uint8))
    words = ["--config-file", str(config), "--output", str(tmp_path / "fields.png")]
    main([*words, "--images", photo, photo, "MODEL.WEIGHTS", "head.pth"])
    assert loaded == ["head.pth"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-file", "df2s2/df2s2_R50_FFP.yaml"], "is of DF2S2; expected an LFFD config"),
        (["--config-file", "lffd/none.yaml"], "there is no such file, and no shipped config"),
        (["--config-file", "lffd/lffd_16L3S.yaml", "--images", "none.png"], "not an image"),
        (["--config-file", "lffd/lffd_16L3S.yaml", "MODEL.WIEGHTS", "x"], "MODEL.WIEGHTS"),
    ],
)
def test_bad_command_lines_are_answered_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert message in text
    assert text.count("\n") == 1
