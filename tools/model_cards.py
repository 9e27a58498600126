#!/usr/bin/env python
"""Writes the model cards of the shipped detectors from a comparison.

    DETECTRON2_DATASETS=FOLD face-d2-compare --data widerface_val --output output/fold \\
        --detector df2s2-lite0 --detector lffd-20l5s
    python tools/model_cards.py output/fold/results.json

The numbers of a card come from this file and from shipped_speed.json, hiding_fold.json and
int8_NAME.json in benchmarks/results, its sentences from this module. Each card is written to
face_d2/weights and to docs/models. The numbers that the cards use are recorded in
benchmarks/results/shipped_detectors.json; without an argument, the cards are written from this
record.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from face_d2.cli.common import CommandParser, run
from face_d2.pretrained import find_pretrained

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / "shipped_detectors.json"
#: The recorded entries of a detector's results.
KEPT = (
    *("AP_easy", "AP_medium", "AP_hard", "interval_95", "parameters", "at_threshold"),
    *("errors", "slices"),
)
SLICES = ("height, px", "blur", "occlusion", "pose")


@dataclass(frozen=True)
class Words:
    """The text of a card.

    Attributes:
        summary: a description of the detector.
        recipe: how its weights were trained.
        weak: the images on which it fails.
        photographs: its results on ten photographs of other projects, checked by eye.
        license: the licenses of the code and weights that it is based on.
    """

    summary: str
    recipe: str
    weak: str
    photographs: str
    license: str


CARDS = {
    "df2s2-lite0": Words(
        summary=(
            "DF2S2 (arXiv 1811.08557) with an EfficientNet-Lite0 backbone and a head of two "
            "convolutions with 64 channels. This is the default detector, because it is the more "
            "accurate of the two."
        ),
        recipe=(
            "`configs/df2s2/df2s2_lite0_FFP_recommended_gpu.yaml` with fixed batch normalization "
            "(`MODEL.TIMM.NORM FrozenBN`): 3,000 iterations of 32 crops of 640 pixels (37 epochs) "
            "in bfloat16 on one H100, in 11 minutes beside the other detector's training. It "
            "started from weights that `df2s2_lite0_FFP_recommended.yaml` "
            "had reached on one core of a CPU in 3,600 iterations of 4 crops of 384 pixels, from "
            "ImageNet weights of the backbone. The weights are a moving average with decay 0.998. "
            "The settings were chosen before the training, and nothing was chosen on the 638 "
            "photographs."
        ),
        weak=(
            "Faces below 10 pixels are below the smallest anchor; profiles, heads that lie on "
            "their side and heavily covered faces are found least."
        ),
        photographs=(
            "Missed faces higher than 20 pixels: in `fastface_multi_face` the woman whose head "
            "lies on its side; in `lffd_debug_test2` the woman with sunglasses behind the man in "
            "pink, the profile of the girl with a ponytail and the man cut off at the right "
            "border; in `lffd_debug_test3` the man in profile with a cap and the woman in profile "
            "behind the man with stripes; in `lffd_debug_test6` the man in a black beanie, three "
            "faces half covered by a flag, a lens or the border, the woman with red hair at the "
            "lower border. No false box."
        ),
        license="The code and the ImageNet weights of the backbone are Apache-2.0.",
    ),
    "lffd-20l5s": Words(
        summary="LFFD 20L5S (arXiv 1904.10633), the smaller of the two detectors.",
        recipe=(
            "`configs/lffd/lffd_20L5S_recommended_gpu.yaml`: 3,700 iterations of 32 crops of 640 "
            "pixels (46 epochs) in bfloat16 on one H100, in 11 minutes beside the other "
            "detector's training. It started from weights that `lffd_20L5S_recommended.yaml` had "
            "reached on one core of a CPU in 4,800 iterations of 4 crops of 384 and 480 pixels, "
            "from the released head detector's weights. The weights are a moving average with "
            "decay 0.998. The settings were chosen before the training, and nothing was chosen on "
            "the 638 photographs."
        ),
        weak=(
            "Its last branch is for faces up to 560 pixels, but it finds only half of those above "
            "300 pixels; search large portraits at half size, too. Small boxes on parts of a face "
            "or on round objects are its usual false detections."
        ),
        photographs=(
            "Missed faces higher than 20 pixels: in `lffd_debug_test2` the woman with sunglasses "
            "behind the man in pink, the woman at the upper right border and the man cut off at "
            "the right border; in `lffd_debug_test3` the woman in a white blouse; in "
            "`lffd_debug_test6` the man in a black beanie, three faces half covered by a flag, a "
            "lens or the border, the woman with a yellow band and the woman with red hair. Three "
            "false boxes: a shoe and the back of a head in `lffd_debug_test3`, a cap in "
            "`lffd_debug_test6`; one face has two boxes."
        ),
        license="The code is Apache-2.0, and the head detector's weights are MIT.",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = CommandParser(
        "tools/model_cards.py",
        "Writes the model cards of the shipped detectors from a comparison.",
        examples=(
            "python tools/model_cards.py",
            "python tools/model_cards.py output/fold/results.json",
        ),
        epilog="Without a file, the cards are written from the recorded comparison.",
    )
    parser.add_argument(
        "results", type=Path, nargs="?", metavar="FILE", help="results.json of face-d2-compare"
    )
    options = parser.parse_args(argv)
    return run(lambda: write_cards(options.results), KeyError)


def write_cards(results: Path | None) -> None:
    """Records a comparison, if one is given, and writes the cards of all shipped detectors.

    Raises:
        KeyError: the comparison lacks a shipped detector.
    """
    if results:
        ((_, data),) = json.loads(results.read_text())["data"].items()
        kept = {name: {key: data["detectors"][name][key] for key in KEPT} for name in CARDS}
        RECORD.write_text(json.dumps(kept, indent=1) + "\n")
    for name in CARDS:
        text = card(name)
        for path in (find_pretrained(name).card, ROOT / "docs" / "models" / f"{name}.md"):
            path.write_text(text, encoding="utf-8")
            print(path)


def card(name: str) -> str:
    """The Markdown text of a card."""
    words, own = CARDS[name], json.loads(RECORD.read_text())[name]
    settings = ("easy", "medium", "hard")
    precision = " | ".join(f"{own['AP_' + setting]:.1f}" for setting in settings)
    intervals = " | ".join("{:.1f} - {:.1f}".format(*own["interval_95"][s]) for s in settings)
    at, errors = own["at_threshold"], own["errors"]
    shipped = find_pretrained(name)
    sizes = [f"{path.stat().st_size / 1e6:.1f} MB" for path in (shipped.onnx, shipped.weights)]
    photographs = 'the 638 validation photographs of the "WIDER val, 80/20 fold"'
    command = (
        "DETECTRON2_DATASETS=FOLD face-d2-compare --data widerface_val "
        f"--detector {name} --output output/{name}"
    )
    items = {
        "Data": "2,588 photographs of WIDER FACE's validation set, the training part of the fold. "
        "None of the 638 photographs is among them.",
        "Recipe": words.recipe,
        "Speed": _speed(),
        "Size": f"{sizes[0]} ONNX, {sizes[1]} safetensors.",
        "Int8": _int8(name),
        "License": f"{words.license} WIDER FACE's photographs are given for research use. If you "
        "ship a product with these weights, you have to judge what that means for it.",
    }
    blocks = [
        f"# {name}",
        _wrapped(
            f"{words.summary} It has {own['parameters'] / 1e6:.1f} million parameters. "
            "docs/compare.md sets it beside other detectors."
        ),
        "| | easy | medium | hard |\n|---|---|---|---|\n"
        f"| AP | {precision} |\n| 95 % interval | {intervals} |",
        _wrapped(
            f"Measured once, by the official protocol, on {photographs} "
            "(`datasets/split_widerface.py`), images as they are, one pass, ONNX Runtime in "
            "float32:"
        ),
        f"```\n{command}\n```",
        "\n".join(_wrapped(f"- **{title}**: {text}", "  ") for title, text in items.items()),
        "## Hiding faces",
        _wrapped(_hiding(name)),
        "## Where it fails",
        _wrapped(words.weak),
        _wrapped(
            f"At a score of 0.5 it finds {at['found']:,} of the {at['faces']:,} faces of Hard "
            f"({100 * at['recall']:.0f} %) with {at['false_positives_per_image']:.2f} false "
            f"detections an image; {100 * at['precision']:.0f} % of its detections are right. "
            "Missed faces by the first reason that holds: "
            f"{_counts(errors['missed'])}. False detections: {_counts(errors['false'])}."
        ),
        _wrapped(
            "On the ten photographs of the test data that other projects publish (fast-face, "
            "LFFD, Qengineering), at a score of 0.5, looked at one by one. "
            f"{words.photographs}"
        ),
        _wrapped(
            "Recall counts the detections of any score (above 0.02), in percent. Classes share "
            "the false detections, so a class of few faces has a lower AP at equal recall."
        ),
        *(_slice_table(key, own["slices"][key]) for key in SLICES),
    ]
    return "\n\n".join(blocks) + "\n"


def _hiding(name: str) -> str:
    """The recommended threshold, and the faces that it leaves visible."""
    threshold = find_pretrained(name).hiding_threshold
    recorded = json.loads((RECORD.parent / "hiding_fold.json").read_text())
    points = recorded["detectors"][name]["thresholds"]
    faces = next(p["faces"] for p in points if p["threshold"] == threshold)[">= 20 px"]
    low, high = (100 * end for end in faces["interval_95"])
    return (
        f"Recommended score threshold for hiding faces: **{threshold:g}**, which `face-d2-predict "
        f"--blur` uses. It leaves {100 * faces['share']:.1f} % of the faces of 20 pixels and more "
        f"visible on the 638 photographs (95 % interval {low:.1f} - {high:.1f}; docs/hiding.md has "
        "the definition, other thresholds and the command). Check every copy before you publish it."
    )


def _speed() -> str:
    measured = json.loads((RECORD.parent / "shipped_speed.json").read_text())
    rows = measured["detectors"].items()
    size = f"{measured['width']} x {measured['height']}"
    return (
        f"milliseconds an image of {size}, ONNX Runtime in float32, one thread of an "
        f"{measured['processor']}, interleaved: "
        + ", ".join(f"{name} {row['milliseconds']:.0f}" for name, row in rows)
        + " (`benchmarks/shipped_speed.py`)."
    )


def _int8(name: str) -> str:
    """What the exporter's int8 file loses, in the runtime that loses more."""
    file = RECORD.parent / f"int8_{name.lower().replace('-', '_')}.json"
    measured = json.loads(file.read_text())
    losses = {
        against: max(
            runtime["fp32"][against]["AP_hard"] - runtime["int8_7"][against]["AP_hard"]
            for runtimes in measured["processors"].values()
            for runtime in runtimes.values()
        )
        for against in ("float_boxes", "ground_truth")
    }
    return (
        f"`face-d2-export --int8` writes a file that loses {losses['float_boxes']:.1f} points of "
        f"AP hard against the boxes of the float file, and {losses['ground_truth']:.1f} against "
        f"the ground truth, on {measured['images']} photographs (the 223/114 subset), in the worse "
        "of ONNX Runtime and OpenVINO, with and without VNNI (docs/benchmark.md)."
    )


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, 110, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _counts(reasons: Mapping[str, int]) -> str:
    ordered = sorted(reasons.items(), key=lambda reason: -reason[1])
    return ", ".join(f"{count} {reason}" for reason, count in ordered if count)


def _slice_table(title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    lines = [f"| {title} | faces | recall | AP |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {row['faces']} | {row['recall']:.0f} | {row['AP']:.1f} |"
        for name, row in rows.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
