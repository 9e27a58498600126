"""A data set of a dozen small pictures and a config that trains on it in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from face_d2.data.register import register_wider_face
from face_d2.synthetic.dataset import generate


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a generated WIDER FACE set, registered as small_train and small_val."""
    root = generate(tmp_path_factory.mktemp("small"), train_images=8, val_images=4, progress=False)
    for split in ("train", "val"):
        register_wider_face(
            f"small_{split}",
            root / f"WIDER_{split}" / "images",
            root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt",
        )
    return root


@pytest.fixture
def words(small_set: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """A function giving train_net's words for a tiny run, with KEY VALUE pairs added."""
    from face_d2.config import get_config_file

    def build(*overrides: object, flags: tuple[str, ...] = (), config: str = "df2s2") -> list[str]:
        pairs = [
            *("DATASETS.TRAIN", ("small_train",), "DATASETS.TEST", ("small_val",)),
            *("SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 4, "SOLVER.STEPS", (3,)),
            *("SOLVER.CHECKPOINT_PERIOD", 2, "DATALOADER.NUM_WORKERS", 0, "SEED", 1),
            *("OUTPUT_DIR", tmp_path / "run"),
        ]
        if config == "df2s2":
            pairs += ["INPUT.FACE_CROP.SIZE", 96, "MODEL.DF2S2.CONV_DIM", 64]
        else:
            pairs += ["INPUT.SCALE_SAMPLING.SIZE", 128]
        file = get_config_file(f"quick/{config}_synth.yaml")
        values = [str(word) for word in (*pairs, *overrides)]
        return ["--config-file", file, "--num-gpus", "0", *flags, *values]

    return build
