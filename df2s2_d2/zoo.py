"""DF2S2's models for :mod:`face_d2.model_zoo`; no weights with a ResNet-50 are published."""

from __future__ import annotations

from face_d2.model_zoo import Accuracy, Model, TrainedHere

__all__ = ["MODELS"]

#: Models that the commands of this project train in minutes.
MODELS = (
    Model(
        "quick/df2s2_synth.yaml",
        "generated faces",
        TrainedHere("make demo BUDGET=long", "output/demo/df2s2/model_final.pth"),
        Accuracy(69.0, 73.3, 65.9, "150 generated images, original size", measured_here=True),
    ),
    Model(
        "quick/df2s2_real.yaml",
        "faces",
        TrainedHere(
            "python tools/train_net.py --config-file configs/quick/df2s2_real.yaml --num-gpus 0 "
            "SOLVER.MAX_ITER 3000",
            "output/quick/df2s2_real/model_final.pth",
        ),
        Accuracy(18.3, 20.8, 12.8, "WIDER val, 223/114 subset, original size", measured_here=True),
    ),
)
