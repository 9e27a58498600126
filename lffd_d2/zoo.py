"""LFFD's models for :mod:`face_d2.model_zoo`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from face_d2.model_zoo import Accuracy, Model, ReleasedFile, TrainedHere
from lffd_d2.mxnet_params import RELEASES

__all__ = ["MODELS"]

# Accuracy by variant, from the paper (25L8S) and the authors' repository (20L5S).
_SIZE = "WIDER val, images at their original size"
_PUBLISHED = {
    "25L8S": Accuracy(91.0, 88.1, 78.0, _SIZE, measured_here=False),
    "20L5S": Accuracy(87.5, 86.3, 75.4, _SIZE, measured_here=False),
}
_CHECKED = {
    "17L4S": "raw maps within 1e-3 of the original runtime, the same boxes on five photographs",
    "16L3S": "converted; names, shapes and count",
    "16L3S-small": "converted; names, shapes and count",
}


def _convert(variant: str, source: Path, output: Path) -> None:
    from lffd_d2.convert import convert_file

    convert_file(source, output, variant)


#: The released weights, and models that the commands of this project train in minutes.
MODELS = (
    *(
        Model(
            f"lffd/lffd_{release.variant}.yaml",
            release.target,
            ReleasedFile(
                f"https://raw.githubusercontent.com/{release.repository}/{release.commit}/"
                f"{release.path}",
                f"git-blob:{blob}",
                release.license,
                release.size,
                partial(_convert, release.variant),
            ),
            _PUBLISHED.get(release.variant),
            _CHECKED.get(release.variant, ""),
        )
        for blob, release in RELEASES.items()
    ),
    Model(
        "quick/lffd_synth.yaml",
        "generated faces",
        TrainedHere("make demo BUDGET=long", "output/demo/lffd/model_final.pth"),
        Accuracy(60.2, 66.3, 49.4, "150 generated images, original size", measured_here=True),
    ),
    Model(
        "quick/lffd_real.yaml",
        "faces",
        TrainedHere(
            "python tools/model_zoo.py lffd/lffd_17L4S.yaml --download && "
            "python tools/convert_lffd_weights.py "
            "output/cache/models/train_10_160_17L_4scales_v1_iter_800000.params "
            "--variant 20L5S --partial --output head_20L5S.pth && "
            "python tools/train_net.py --config-file configs/quick/lffd_real.yaml --num-gpus 0 "
            "MODEL.WEIGHTS head_20L5S.pth",
            "output/quick/lffd_real/model_final.pth",
        ),
        Accuracy(42.3, 48.5, 31.6, "WIDER val, 223/114 subset, original size", measured_here=True),
    ),
)
