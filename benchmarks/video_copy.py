"""How fast a blurred copy of a video is made by PyAV, as a share of the speed by OpenCV.

Both read a generated clip of 1280 x 720, hide one square in every frame and write a copy.
Nothing is searched. Rounds alternate between the two.

python benchmarks/video_copy.py --json output/video_copy.json
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from face_d2.cli.common import print_result
from face_d2.predictor.av_video import AvReader, AvSink
from face_d2.predictor.sources import find_inputs
from face_d2.predictor.video import OpenCvReader, OpenCvSink, Reader, Sink

BOX = np.array([500, 200, 600, 330], np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        write_clip(clip, options.frames)
        (source,) = find_inputs([str(clip)]).sources
        seconds: dict[str, list[float]] = {"opencv": [], "pyav": []}
        for _ in range(options.rounds):
            with OpenCvReader(source) as reader:
                sink = OpenCvSink(Path(folder, "opencv.mp4"), reader.fps)
                seconds["opencv"].append(copied(reader, sink))
            with AvReader(source) as reader:
                seconds["pyav"].append(copied(reader, AvSink(Path(folder, "pyav.mp4"), reader)))
        ratios = [a / b for a, b in zip(seconds["opencv"], seconds["pyav"])]
        sizes = {name: Path(folder, f"{name}.mp4").stat().st_size for name in seconds}
    result = {
        "speed_of_pyav_by_opencv": statistics.median(ratios),
        "ratios": ratios,
        "milliseconds_a_frame": {
            name: 1000 * statistics.median(times) / options.frames
            for name, times in seconds.items()
        },
        "bytes": sizes,
    }
    print_result(result, options.json)


def write_clip(path: Path, frames: int) -> None:
    """Smooth colors that drift, with some noise as cameras have."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (9, 16, 3), dtype=np.uint8)
    scene = cv2.resize(coarse, (1600, 720), interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (1280, 720))
    for number in range(frames):
        part = scene[:, number : number + 1280].astype(np.int16)
        noise = generator.normal(0, 2, part.shape).astype(np.int16)
        writer.write((part + noise).clip(0, 255).astype(np.uint8))
    writer.release()


def copied(reader: Reader, sink: Sink) -> float:
    """Seconds for a copy."""
    begun = time.perf_counter()
    with sink:
        for frame in reader:
            sink.write(frame.without([BOX], "blur"))
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
