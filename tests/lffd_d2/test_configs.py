"""The shipped LFFD configs say what they claim."""

from __future__ import annotations

from pathlib import Path

import pytest

from face_d2.config import get_cfg, get_config_file
from face_d2.data.mapper import build_train_mapper
from lffd_d2 import ScaleSamplingMapper
from lffd_d2.config import variant_from_config
from lffd_d2.variants import SLIM_VARIANTS, VARIANTS

SHIPPED = sorted(
    f"{path.parent.name}/{path.name}"
    for pattern in ("lffd/*.yaml", "quick/lffd_*.yaml")
    for path in Path(get_config_file("lffd/lffd_25L8S.yaml")).parent.parent.glob(pattern)
)


@pytest.mark.parametrize("name", SHIPPED)
def test_sampling_fits_the_network(name: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(name))
    branches = variant_from_config(cfg).branches
    mapper = build_train_mapper(cfg)
    assert isinstance(mapper, ScaleSamplingMapper)
    assert mapper.sampler.face_ranges == [b.face_range for b in branches]
    assert mapper.strides == [b.rf.stride for b in branches]


@pytest.mark.parametrize("variant", [*VARIANTS, *SLIM_VARIANTS])
def test_every_variant_has_a_config(variant: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(f"lffd/lffd_{variant}.yaml"))
    assert variant_from_config(cfg) == (VARIANTS | SLIM_VARIANTS)[variant]
    assert list(cfg.MODEL.PIXEL_MEAN) == list(cfg.MODEL.PIXEL_STD) == [127.5] * 3


def test_the_notes_are_taken_by_the_letter() -> None:
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file("lffd/lffd_25L8S_notes.yaml"))
    assert list(cfg.MODEL.PIXEL_MEAN) == [127.0] * 3
    assert cfg.MODEL.LFFD.REG_NORM == "rf"


@pytest.mark.parametrize("name", ["25L8S", "25L8S_notes"])
def test_the_default_schedule_is_the_notes(name: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(f"lffd/lffd_{name}.yaml"))
    solver = cfg.SOLVER
    assert (solver.BASE_LR, solver.MOMENTUM, solver.WEIGHT_DECAY) == (0.1, 0.9, 0.0)
    assert (solver.IMS_PER_BATCH, solver.MAX_ITER, solver.GAMMA) == (32, 1_500_000, 0.1)
    assert tuple(solver.STEPS) == (600_000, 1_000_000, 1_200_000, 1_400_000)


@pytest.mark.parametrize("name", ["25L8S_released", "20L5S"])
def test_the_released_codes_schedule(name: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(f"lffd/lffd_{name}.yaml"))
    solver = cfg.SOLVER
    assert (solver.BASE_LR, solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_BIAS) == (0.1, 1e-5, 0.0)
    assert solver.MAX_ITER == 2_000_000
    assert tuple(solver.STEPS) == (500_000, 1_000_000, 1_500_000)


def test_the_recommended_config_departs_from_the_released_run_where_it_says() -> None:
    """Its network and ranges stay, so that released weights load."""
    base, cfg = get_cfg(), get_cfg()
    base.merge_from_file(get_config_file("lffd/lffd_20L5S.yaml"))
    cfg.merge_from_file(get_config_file("lffd/lffd_20L5S_recommended.yaml"))
    changed = {k for k, v in cfg.MODEL.LFFD.items() if v != base.MODEL.LFFD[k]}
    assert changed == {
        *("INIT", "PRIOR_PROB", "LOSS_SCALE", "BOX_LOSS", "NEG_POS_RATIO", "SCORE_THRESH_TEST")
    }
    changed = {k for k, v in cfg.INPUT.SCALE_SAMPLING.items() if v != base.INPUT.SCALE_SAMPLING[k]}
    assert changed == {"SIZE", "MAX_ENLARGE"}
    assert cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupCosineLR"


def test_the_papers_settings_are_the_defaults() -> None:
    cfg = get_cfg()
    assert (cfg.MODEL.LFFD.PRIOR_PROB, cfg.MODEL.LFFD.BOX_LOSS) == (0.5, "l2")
    assert cfg.INPUT.SCALE_SAMPLING.MAX_ENLARGE == 0


@pytest.mark.parametrize("key", ["NEG_POS_RATIO", "MIN_FACE"])
@pytest.mark.parametrize("word", ["3", "0.3"])
def test_whole_numbers_and_fractions(tmp_path: Path, key: str, word: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"MODEL:\n  LFFD:\n    {key}: {word}\n")
    from_file, from_line = get_cfg(), get_cfg()
    from_file.merge_from_file(str(file))
    from_line.merge_from_list([f"MODEL.LFFD.{key}", word])
    for cfg in (from_file, from_line):
        assert cfg.MODEL.LFFD[key] == float(word)
        with pytest.raises(ValueError, match=f"MODEL.LFFD.{key}"):
            cfg.merge_from_list([f"MODEL.LFFD.{key}", "True"])
