"""Published figures of detectors, for comparison with measured ones.

Times are for the network only, with a batch size of 1. Accuracy is the AP on WIDER FACE's
validation set with one pass at the original resolution, as the LFFD paper measured all detectors.
Sources: LFFD paper (https://arxiv.org/abs/1904.10633), Tables 3, 6, 7 and 9, and the LFFD code's
README.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["PUBLISHED", "PublishedDetector"]

#: Sizes as (height, width), in the order of the tables.
_TITAN_SIZES = ((480, 640), (720, 1280), (1080, 1920), (2160, 3840))
_TX2_SIZES = ((120, 160), (240, 320), (480, 640))
TITAN_XP, TX2, PI3 = "TITAN Xp", "Jetson TX2", "Raspberry Pi 3B+ (ncnn)"


@dataclass(frozen=True)
class PublishedDetector:
    """The published figures of one detector.

    Attributes:
        name: the detector.
        parameters: number of parameters in millions; None if not published.
        gflops: 10^9 multiply-adds at 640 x 480.
        megabytes: size of the model file.
        ap: easy, medium and hard in percent.
        milliseconds: device -> (height, width) -> milliseconds.
    """

    name: str
    parameters: float | None = None
    gflops: float | None = None
    megabytes: float | None = None
    ap: tuple[float, float, float] | None = None
    milliseconds: Mapping[str, Mapping[tuple[int, int], float]] = field(default_factory=dict)


def _titan(*values: float) -> dict[str, dict[tuple[int, int], float]]:
    return {TITAN_XP: dict(zip(_TITAN_SIZES, values))}


def _edge(tx2: tuple[float, ...], pi3: tuple[float, ...]) -> dict[str, dict]:
    return {TX2: dict(zip(_TX2_SIZES, tx2)), PI3: dict(zip(_TX2_SIZES, pi3))}


PUBLISHED = (
    PublishedDetector(
        "DSFD", 141.38, 140.19, 458, (94.9, 93.6, 85.0), _titan(78.08, 187.78, 392.82, 1562.50)
    ),
    PublishedDetector(
        "PyramidBox", 57.18, 236.58, 218, (93.7, 92.7, 86.7), _titan(50.51, 143.34, 331.93, 1344.07)
    ),
    PublishedDetector(
        "S3FD", 22.46, 96.60, 86, (92.3, 90.7, 82.2), _titan(21.75, 55.73, 119.53, 471.31)
    ),
    PublishedDetector(
        "SSH", 19.75, 99.98, 79, (92.1, 90.7, 70.2), _titan(22.44, 55.29, 118.43, 463.10)
    ),
    PublishedDetector("FaceBoxes", ap=(84.0, 76.6, 39.5)),
    PublishedDetector(
        "FaceBoxes 3.2x",
        1.01,
        2.84,
        4,
        (79.8, 80.2, 71.5),
        _titan(6.80, 12.96, 25.37, 111.98)
        | _edge((11.20, 19.62, 72.74), (167.20, 686.19, 3232.26)),
    ),
    PublishedDetector(
        "LFFD",
        2.15,
        9.25,
        9,
        (91.0, 88.1, 78.0),
        _titan(7.60, 16.37, 31.27, 87.79) | _edge((7.30, 19.64, 64.70), (118.45, 409.19, 4114.15)),
    ),
    PublishedDetector("VGG16 backbone", milliseconds=_titan(19.61, 55.05, 112.48, 472.87)),
    PublishedDetector("ResNet-50 backbone", milliseconds=_titan(12.33, 31.37, 59.84, 245.41)),
)
