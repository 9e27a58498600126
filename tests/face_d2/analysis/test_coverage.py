"""The coverage report: sizes as tested, training crops, table, files, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from helpers.commands import status_of

from face_d2.analysis.coverage import coverage_report, format_coverage, measure_coverage
from face_d2.cli.evaluate import coverage_main, main
from face_d2.config import get_cfg, get_config_file
from face_d2.data.mapper import FaceDatasetMapper, face_arrays
from face_d2.modeling.coverage_rule import build_coverage_rule
from lffd_d2.scale_sampling import ScaleSamplingMapper


def record(size: tuple[int, int], *faces: tuple[float, ...], ignored: int = 0) -> dict[str, Any]:
    """A dataset dict; faces are XYWH, the last ``ignored`` of them do not count."""
    annotations = [
        {
            "bbox": list(face),
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": 0,
            "iscrowd": int(number >= len(faces) - ignored),
        }
        for number, face in enumerate(faces)
    ]
    height, width = size
    return {
        "file_name": "nowhere/picture.jpg",  # never opened
        "image_id": "0--E/picture",
        "height": height,
        "width": width,
        "annotations": annotations,
    }


# What DF2S2 says of squares on the center (34, 34) of a cell of stride 4, by hand: IoU 1 with the
# anchor of 16 pixels; 8 x 8 / 256 = 0.25; 6 x 6 / 256 = 0.14.
FACES = [(26, 26, 16, 16), (30, 30, 8, 8), (31, 31, 6, 6)]


@pytest.fixture
def data_set() -> Iterator[Callable[..., str]]:
    """A function that registers records, as a data set of this test alone."""
    names = []

    def register(*records: dict[str, Any], **metadata: object) -> str:
        names.append(f"coverage_test_{len(names)}")
        DatasetCatalog.register(names[-1], lambda: list(records))
        MetadataCatalog.get(names[-1]).set(**metadata)
        return names[-1]

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def config(*overrides: object, name: str = "df2s2") -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(f"quick/{name}_synth.yaml"))
    cfg.merge_from_list(list(overrides))
    return cfg


def measure(dataset: str, *overrides: object, name: str = "df2s2", **options: Any) -> Any:
    return measure_coverage(config(*overrides, name=name), dataset, progress=False, **options)


def test_shares_by_hand(data_set: Callable[..., str]) -> None:
    images = [record((64, 80), face) for face in FACES]
    images += [record((64, 80)), record((64, 80), FACES[0], FACES[2], ignored=1)]
    found = measure(data_set(*images))
    assert (found.images, found.ignored) == (5, 1)
    whole = found.totals()["all"]
    assert whole.faces == 4
    assert whole.shares == {"IoU >= 0.5": 0.5, "low quality, IoU >= 0.2": 0.25, "no anchor": 0.25}
    assert whole.covered == 0.75
    assert whole.levels["ffp2"] == 0.75
    assert whole.levels["ffp7"] == 0
    rows = found.by_height()
    assert {label: row.faces for label, row in rows.items()} == {"0-15": 2, "15-20": 2}
    assert rows["15-20"].covered == 1
    assert found.totals()["all > 10"].faces == 2
    assert whole.positives == pytest.approx(found.positives.sum() / 4)


def test_lffd_by_hand(data_set: Callable[..., str]) -> None:
    """Faces of 14 to 32 pixels have centers 7, 15, ... of the first branch of the quick LFFD."""
    faces = [(10, 10, 20, 20), (10, 10, 12, 12), (200, 16, 20, 6)]
    found = measure(data_set(*(record((256, 256), face) for face in faces)), name="lffd")
    assert found.covered_by == ("receptive field",)
    assert found.outcomes.tolist() == [0, 1, 2]
    assert found.positives[0].tolist() == [4, 0, 0]  # 15, 23 either way


def test_sizes_are_those_of_the_test(data_set: Callable[..., str]) -> None:
    """A face half as large in an image half as large has the same anchors once it is resized."""
    half = tuple(value / 2 for value in FACES[0])
    small, large = data_set(record((32, 40), half)), data_set(record((64, 80), FACES[0]))
    expected = measure(large)
    resized = measure(small, "INPUT.MIN_SIZE_TEST", 64)
    assert resized.positives.tolist() == expected.positives.tolist()
    assert resized.heights.tolist() == [8]  # in pixels of the data set
    assert measure(small).outcomes.tolist() == [1]
    assert "shorter side 64" in resized.protocol["images"]


def test_lffd_enlarges_small_images(data_set: Callable[..., str]) -> None:
    # 64 x 64 becomes 128 x 128, 10 pixels become 20.
    assert measure(data_set(record((64, 64), (10, 10, 10, 10))), name="lffd").outcomes[0] == 0
    # No image of 6 pixels is searched at all.
    assert measure(data_set(record((6, 64), (1, 1, 4, 4))), name="lffd").outcomes[0] == 1


@pytest.mark.parametrize("name", ["df2s2", "lffd"])
def test_training_crops(data_set: Callable[..., str], name: str) -> None:
    generator = np.random.default_rng(0)
    images = [record((300, 400))]
    for _ in range(10):
        corner, side = generator.uniform(0, 250, (4, 2)), generator.uniform(8, 60, (4, 1))
        faces = np.concatenate([corner, side, side], axis=1)
        images.append(record((300, 400), *faces.tolist(), ignored=1))
    dataset = data_set(*images)
    options = {"training": True, "draws": 3, "seed": 5, "name": name}
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first = measure(dataset, **options)
    assert (np.random.get_state()[1] == before).all()
    assert first.images == 33
    assert 10 < len(first.heights) <= 90
    second = measure(dataset, **options)
    assert first.outcomes.tolist() == second.outcomes.tolist()
    other = measure(dataset, **{**options, "seed": 6})
    assert first.positives.tolist() != other.positives.tolist()
    assert "3 an image, seed 5" in first.protocol["images"]


@pytest.mark.parametrize(
    ("mapper_of", "name"), [(FaceDatasetMapper, "df2s2"), (ScaleSamplingMapper, "lffd")]
)
def test_crops_are_the_mappers_own(tmp_path: Path, mapper_of: type, name: str) -> None:
    """The same random numbers place the faces where the mapper puts them in a real crop."""
    cfg = config("INPUT.FACE_CROP.COLOR_DISTORTION", False, name=name)
    mapper = mapper_of(cfg, True)
    item = record((300, 400), (40, 60, 30, 30), (200, 100, 50, 60), (300, 200, 20, 20), ignored=1)
    item["file_name"] = str(tmp_path / "picture.png")
    cv2.imwrite(item["file_name"], np.zeros((300, 400, 3), dtype=np.uint8))
    boxes, ignore = face_arrays(item["annotations"])
    seen = 0
    for seed in range(8):
        np.random.seed(seed)
        real = mapper(item)["instances"]
        np.random.seed(seed)
        placed, index, size = mapper.place_faces(boxes, ignore, (300, 400))
        assert real.image_size == size
        assert np.allclose(real.gt_boxes.tensor.numpy(), placed, atol=1e-3)
        assert real.gt_ignore.tolist() == ignore[index].tolist()
        seen += len(placed)
    assert seen > 5


def test_nothing_to_measure_is_an_error(data_set: Callable[..., str]) -> None:
    for empty in (
        data_set(),
        data_set(record((64, 64))),
        data_set(record((64, 64), FACES[0], ignored=1)),
    ):
        with pytest.raises(ValueError, match="no face that counts"):
            measure(empty)
    with pytest.raises(ValueError, match="no labels"):
        measure(data_set(record((64, 64)), annotation_file=None))
    with pytest.raises(ValueError, match=r"'nowhere' is not registered.*widerface_val"):
        measure("nowhere")
    with pytest.raises(ValueError, match="draws is 0"):
        measure(data_set(record((64, 64), FACES[0])), training=True, draws=0)
    with pytest.raises(ValueError, match=r"INPUT\.MAPPER is 'mosaic'.*face_crop"):
        measure(data_set(record((64, 64), FACES[0])), "INPUT.MAPPER", "mosaic", training=True)


def test_unknown_meta_architecture_is_an_error() -> None:
    cfg = config("MODEL.META_ARCHITECTURE", "RetinaNet")
    with pytest.raises(ValueError, match=r"'RetinaNet'.*DF2S2 and LFFD do.*coverage_rule"):
        build_coverage_rule(cfg, training=False)


def test_table_and_report_agree(data_set: Callable[..., str]) -> None:
    found = measure(data_set(*(record((64, 80), face) for face in FACES)))
    report, lines = coverage_report(found), format_coverage(found).splitlines()
    total = next(line for line in lines if line.startswith("all ")).split()
    assert total[1:3] == ["3", "66.7"]
    assert report["totals"]["all"]["covered"] == pytest.approx(200 / 3)
    assert sum(report["totals"]["all"]["shares"].values()) == pytest.approx(100)
    assert report["by_height"]["0-15"]["faces"] == 2
    assert json.loads(json.dumps(report)) == report


def test_command_writes_table_json_and_plots(
    data_set: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = data_set(*(record((64, 80), face) for face in FACES))
    words = ["coverage", "--config-file", get_config_file("quick/df2s2_synth.yaml")]
    words += ["--dataset", name, "--json", f"{tmp_path}/o.json", "--plots", f"{tmp_path}/p"]
    main([*words, "MODEL.DF2S2.LOW_QUALITY_MIN_IOU", "0.1"])
    printed = capsys.readouterr().out
    assert "low quality, IoU >= 0.1" in printed
    report = json.loads((tmp_path / "o.json").read_text())
    assert report["totals"]["all"]["covered"] == 100
    assert {path.name for path in (tmp_path / "p").iterdir()} == {"coverage.png", "coverage.svg"}
    assert cv2.imread(f"{tmp_path}/p/coverage.png").std() > 1  # not a blank page


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--config-file", "nowhere.yaml"], 1, "no shipped config 'nowhere.yaml'"),
        (["--config-file", "QUICK", "NO.SUCH_KEY", "1"], 1, "NO.SUCH_KEY"),
        (["--config-file", "QUICK", "--dataset", "nowhere"], 1, "'nowhere' is not registered"),
        (["--config-file", "QUICK", "DATASETS.TEST", "()"], 1, "add --dataset NAME"),
        (["--dataset", "x"], 2, "--config-file"),
    ],
)
def test_command_refuses_bad_input_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], status: int, message: str
) -> None:
    quick = "quick/df2s2_synth.yaml"  # a shipped one's name
    given = [quick if word == "QUICK" else word for word in words]
    assert status_of(coverage_main, given) == status
    assert message in capsys.readouterr().err


def test_one_command_has_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("widerface", "fddb", "coverage"):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
        printed = capsys.readouterr().out
        assert f"usage: face-d2-evaluate {command}" in printed
        assert "%%" not in printed
    with pytest.raises(SystemExit):
        main(["guess"])
    assert "invalid choice: 'guess'" in capsys.readouterr().err
