"""The evaluators inside Detectron2: what they leave behind, one and two processes, bad output."""

from __future__ import annotations

import json
import zipfile

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from processes import evaluation as tiny

from face_d2.data.register import load_fddb, register_wider_face
from face_d2.data.wider_face import ATTRIBUTES
from face_d2.evaluation import shards, widerface_ap
from face_d2.evaluation.evaluators import (
    FaceCOCOEvaluator,
    FDDBEvaluator,
    WiderFaceEvaluator,
    build_evaluator,
    dataset_ground_truth,
)
from face_d2.evaluation.protocol import describe_test_settings, format_protocol
from face_d2.evaluation.shards import DetectionShards

NAME = "tiny_faces"


@pytest.fixture
def records(tmp_path):
    tiny.write_tiny(tmp_path)
    tiny.register_tiny(tmp_path, NAME)
    yield DatasetCatalog.get(NAME)
    tiny.unregister(NAME)


def _files(folder):
    return {
        str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*.txt"))
    }


def test_figures_are_those_of_the_files_left_behind(records, tmp_path):
    evaluator = WiderFaceEvaluator(NAME, tmp_path / "out", protocol={"NMS": "0.4"})
    for record in records:
        evaluator.process([record], [{"instances": tiny.found_in(record)}])
    figures = evaluator.evaluate()["widerface"]
    left = tmp_path / "out" / NAME
    again = widerface_ap(left / "predictions", tmp_path / "tiny_bbx_gt.txt")
    for key, value in again.items():
        assert figures[key] == pytest.approx(100 * value, nan_ok=True)
    assert 0 < figures["AP_hard"] < 100
    assert figures["recall_hard"] <= 100
    saved = json.loads((left / "widerface.json").read_text())
    assert saved["dataset"] == NAME
    assert saved["protocol"]["NMS"] == "0.4"
    assert saved["AP_hard"] == pytest.approx(figures["AP_hard"])
    assert evaluator.result.protocol == again.protocol | {
        "ground truth": f"{NAME}, lists approximated by face height > 50/30/10 px"
    }


@pytest.mark.parametrize("file", ["a.bmp", "a.webp", "a.png.jpg", "a.1.png"])
def test_the_files_left_behind_can_be_scored_whatever_the_suffix(tmp_path, file):
    folder = tmp_path / "images" / "e"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / file), np.zeros((300, 300, 3), np.uint8))
    text = tmp_path / "faces.txt"
    text.write_text(f"e/{file}\n1\n10 10 60 60 0 0 0 0 0 0\n")
    register_wider_face(NAME, tmp_path / "images", text)
    try:
        evaluator = WiderFaceEvaluator(NAME, tmp_path / "out", bootstrap=0)
        found = Instances((300, 300))
        found.pred_boxes = Boxes(torch.tensor([[10.0, 10, 70, 70], [200, 200, 240, 240]]))
        found.scores = torch.tensor([0.9, 0.1])
        evaluator.process(DatasetCatalog.get(NAME), [{"instances": found}])
        assert evaluator.evaluate()["widerface"]["AP_easy"] == pytest.approx(100)
    finally:
        tiny.unregister(NAME)
    again = widerface_ap(tmp_path / "out" / NAME / "predictions", text)
    assert again["AP_easy"] == pytest.approx(1)


def test_a_second_round_forgets_the_first(records, tmp_path):
    evaluator = WiderFaceEvaluator(NAME, tmp_path / "out", bootstrap=0)
    found = [{"instances": tiny.found_in(record)} for record in records]
    evaluator.process(records, found)
    first = evaluator.evaluate()
    evaluator.reset()
    evaluator.process(records[:-1], found[:-1])
    with pytest.warns(UserWarning, match="1 of 7 images have no prediction"):
        second = evaluator.evaluate()
    assert second != first
    assert len(_files(tmp_path / "out" / NAME / "predictions")) == len(records) - 1


def test_two_processes_equal_one(records, tmp_path):
    one = tiny.evaluate_share(records, NAME, tmp_path / "one")
    torch.multiprocessing.spawn(tiny.evaluate_in_two_processes, nprocs=2, args=(tmp_path, NAME))
    first, second = (torch.load(tmp_path / f"results_{rank}.pt") for rank in (0, 1))
    assert str(first) == str(one)  # NaN, of no large face, equals NaN in print only
    assert second == {}
    assert set(one) == {"widerface", "bbox"}
    files = [_files(tmp_path / run / NAME) for run in ("one", "two")]
    assert files[0] == files[1]
    reports = [(tmp_path / run / NAME / "widerface.json").read_text() for run in ("one", "two")]
    assert reports[0] == reports[1]


def test_nothing_but_results_stays_on_disk(records, tmp_path):
    tiny.evaluate_share(records, NAME, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {NAME}
    assert {path.name for path in (tmp_path / "out" / NAME).iterdir()} == {
        "predictions",
        "widerface.json",
    }


def test_unlabeled_set_leaves_the_archive_for_submission(tmp_path):
    tiny.write_tiny(tmp_path)
    names = [f"0--Event/{number}.jpg" for number in range(tiny.NUM_IMAGES)]
    (tmp_path / "filelist.txt").write_text("\n".join(names))
    register_wider_face(NAME, tmp_path / "images", tmp_path / "filelist.txt", annotated=False)
    records = DatasetCatalog.get(NAME)
    evaluators = build_evaluator(get_cfg(), NAME, tmp_path / "out")
    evaluators.reset()
    evaluators.process(records, [{"instances": tiny.found_in(record)} for record in records])
    results = evaluators.evaluate()
    tiny.unregister(NAME)
    assert results == {}
    with zipfile.ZipFile(tmp_path / "out" / NAME / "submission.zip") as archive:
        assert sorted(archive.namelist()) == sorted(name[:-3] + "txt" for name in names)
        assert archive.read("0--Event/0.txt").decode().startswith("0\n2\n")


def test_nan_scores_name_the_image(records, tmp_path):
    found = tiny.found_in(records[1])
    found.scores[1] = float("nan")
    evaluator = WiderFaceEvaluator(NAME, tmp_path / "out")
    with pytest.raises(ValueError, match="'0--Event/1', row 2: a number that is not finite"):
        evaluator.process([records[1]], [{"instances": found}])


def test_official_lists_are_used_for_the_images_at_hand(test_data, tmp_path):
    widerface = test_data / "widerface"
    register_wider_face(
        NAME,
        widerface / "WIDER_val" / "images",
        widerface / "wider_face_split" / "wider_face_val_bbx_gt.txt",
        eval_ground_truth=widerface / "eval_tools" / "ground_truth",
    )
    truth = dataset_ground_truth(NAME)
    tiny.unregister(NAME)
    assert truth.images == f"{NAME} (114 of 3226 images)"
    assert "official" in truth.source
    assert [int(mask.sum()) for mask in truth.kept.values()] == [325, 565, 1379]


def test_absent_official_lists_fall_back_with_a_warning(records, tmp_path, caplog):
    tiny.unregister(NAME)
    tiny.register_tiny(tmp_path, NAME, eval_ground_truth=tmp_path / "nowhere")
    with caplog.at_level("WARNING"):
        truth = dataset_ground_truth(NAME)
    assert "no official .mat files" in caplog.text
    assert "approximated" in truth.source


def test_invalid_faces_of_dataset_dicts_do_not_count(records):
    record = dict(records[5])
    record["annotations"] = [
        dict(face, iscrowd=int(number == 0), blur=2, pose=1)
        for number, face in enumerate(record["annotations"])
    ]
    DatasetCatalog.remove(NAME)
    DatasetCatalog.register(NAME, lambda: [record])
    truth = dataset_ground_truth(NAME)
    assert not truth.kept["hard"][0]
    assert truth.kept["hard"][1:].all()
    values = dict(zip(ATTRIBUTES, truth.attributes.T.tolist()))
    assert set(values["blur"]) == {2}
    assert set(values["pose"]) == {1}
    assert values["invalid"] == [1] + [0] * (len(record["annotations"]) - 1)


def test_gathering_in_one_process_keeps_order_and_drops_repeats(tmp_path):
    shards = DetectionShards(tmp_path)
    rows = np.arange(10, dtype=np.float32).reshape(2, 5)
    for name, content in (("a", rows), ("b", rows[:0]), ("a", rows), ("c", rows[:1])):
        shards.add(name, content)
    gathered = list(shards.gather())
    assert [name for name, _ in gathered] == ["a", "b", "c"]
    np.testing.assert_array_equal(gathered[0][1], rows)
    assert gathered[1][1].shape == (0, 5)
    shards.reset()
    assert list(shards.gather()) == []
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_gathering_goes_by_blocks_of_bounded_size(tmp_path, monkeypatch):
    """A block ends with the image that passes a multiple of the limit; nobody waits for others."""
    monkeypatch.setattr(shards, "_BLOCK_ROWS", 4)
    monkeypatch.setattr(shards.comm, "all_gather", lambda rounds: [rounds, rounds + 2])
    blocks = []
    monkeypatch.setattr(shards.comm, "gather", lambda block: blocks.append(block) or [block])
    held = shards.DetectionShards(tmp_path / "not" / "there" / "yet")
    for name, count in zip("abcdefgh", (3, 0, 2, 1, 1, 5, 0, 1)):  # sums 3 3 5 6 7 12 12 13
        held.add(name, np.full((count, 5), ord(name), dtype=np.float32))
    gathered = dict(held.gather())
    assert [names for names, _, _ in blocks] == [list("ab"), list("cde"), list("fgh"), [], []]
    assert {name: len(rows) for name, rows in gathered.items()} == dict(
        zip("abcdefgh", (3, 0, 2, 1, 1, 5, 0, 1))
    )
    assert all((rows == ord(name)).all() for name, rows in gathered.items())


@pytest.fixture
def fddb_records(tmp_path):
    """Ten folds of one black image with one face each."""
    root, folds = tmp_path / "originalPics", tmp_path / "FDDB-folds"
    folds.mkdir()
    for fold in range(1, 11):
        (root / str(fold)).mkdir(parents=True)
        cv2.imwrite(str(root / str(fold) / "1.jpg"), np.zeros((90, 80, 3), dtype=np.uint8))
        (folds / f"FDDB-fold-{fold:02d}-ellipseList.txt").write_text(
            f"{fold}/1\n1\n20 15 1.5 40 40  1\n"
        )
    DatasetCatalog.register(NAME, lambda: load_fddb(root, folds))
    MetadataCatalog.get(NAME).set(
        evaluator_type="fddb", image_root=str(root), folds_folder=str(folds)
    )
    yield DatasetCatalog.get(NAME)
    tiny.unregister(NAME)


def test_fddb_figures_and_files(fddb_records, tmp_path):
    evaluator = FDDBEvaluator(NAME, tmp_path / "out", protocol={"NMS": "0.4"})
    for number, record in enumerate(reversed(fddb_records)):
        found = Instances((90, 80))
        found.pred_boxes = Boxes(torch.tensor([[25.0, 20, 55, 60], [0, 0, 9, 9]])[: number % 3])
        found.scores = torch.tensor([0.9, 0.2])[: number % 3]
        evaluator.process([record], [{"instances": found}])
    figures = evaluator.evaluate()["fddb"]
    assert figures["disc@1000"] == pytest.approx(60.0)  # in 6 of the 10 images
    assert 40 < figures["cont@1000"] < 60
    left = tmp_path / "out" / NAME
    assert {path.name for path in left.iterdir()} == {
        *("detections.txt", "DiscROC.txt", "ContROC.txt", "fddb.json")
    }
    assert (
        (left / "detections.txt").read_text().startswith("1/1\n0\n2/1\n2\n25 20 30 40 0.89999997")
    )
    saved = json.loads((left / "fddb.json").read_text())
    assert saved["disc@1000"] == figures["disc@1000"]
    assert saved["protocol"]["canvas"] == "each image's own size"
    assert saved["protocol"]["NMS"] == "0.4"


def test_the_first_process_alone_scores_and_writes(fddb_records, tmp_path, monkeypatch):
    evaluator = FDDBEvaluator(NAME, tmp_path / "out")
    found = Instances((90, 80))
    found.pred_boxes, found.scores = Boxes(torch.tensor([[25.0, 20, 55, 60]])), torch.ones(1)
    evaluator.process([fddb_records[0]], [{"instances": found}])
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    assert evaluator.evaluate() == {}
    assert not list((tmp_path / "out" / NAME).glob("*.txt"))


def test_build_evaluator_picks_by_type(records, tmp_path):
    cfg = get_cfg()
    kinds = [type(e).__name__ for e in build_evaluator(cfg, NAME, tmp_path / "o")._evaluators]
    assert kinds == ["WiderFaceEvaluator", "FaceCOCOEvaluator"]
    MetadataCatalog.get("some_fddb").set(evaluator_type="fddb")
    kinds = [
        type(e).__name__ for e in build_evaluator(cfg, "some_fddb", tmp_path / "o")._evaluators
    ]
    assert kinds == ["FDDBEvaluator"]
    MetadataCatalog.get("some_other").set(evaluator_type="lvis")
    with pytest.raises(
        ValueError, match=r"'some_other' has evaluator_type 'lvis'.*register_coco_faces"
    ):
        build_evaluator(cfg, "some_other", tmp_path / "o")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({}, r"a\.jpg has no 'annotations'"),
        ({"annotations": [{"category_id": 0}, {"category_id": 3}]}, r"categories \[0, 3\]"),
    ],
)
def test_records_that_are_not_of_faces_are_errors_before_inference(tmp_path, part, message):
    record = {"file_name": "a.jpg", "height": 9, "width": 9, "image_id": "a/b", **part}
    DatasetCatalog.register(NAME, lambda: [record])
    try:
        with pytest.raises(ValueError, match=rf"'{NAME}'.*{message}"):
            WiderFaceEvaluator(NAME, tmp_path)
        with pytest.raises(ValueError, match=rf"'{NAME}'.*{message}"):
            FaceCOCOEvaluator(NAME, tmp_path)
    finally:
        tiny.unregister(NAME)


@pytest.mark.parametrize("image_id", [7, "picture", "../a"])
def test_image_ids_that_name_no_file_are_errors_before_inference(tmp_path, image_id):
    record = {"file_name": "a.jpg", "height": 9, "width": 9, "image_id": image_id}
    DatasetCatalog.register(NAME, lambda: [{**record, "annotations": []}])
    try:
        with pytest.raises(ValueError, match=rf"'{NAME}' has the image_id {image_id!r}; expected"):
            WiderFaceEvaluator(NAME, tmp_path)
    finally:
        tiny.unregister(NAME)


def test_protocol_of_a_config():
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    settings = describe_test_settings(cfg)
    assert settings["image size"] == "shorter side 800, longer side at most 1333"
    assert settings["score threshold"] == "0.05"
    assert settings["NMS"] == "iou 0.5"
    assert settings["detections kept"] == "100 per image (TOPK_CANDIDATES_TEST 1000)"
    assert settings["test-time augmentation"] == "none"
    cfg.INPUT.MAX_SIZE_TEST = 0
    assert describe_test_settings(cfg)["image size"].endswith("longer side not limited")
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.TEST.AUG.ENABLED = True
    settings = describe_test_settings(cfg)
    assert settings["image size"] == "original"
    assert "MIN_SIZES (400, 500" in settings["test-time augmentation"]
    cfg.MODEL.LFFD = CfgNode({"MIN_SIDE_TEST": 128, "NMS_TYPE": "iom", "NMS_THRESH_TEST": 0.3})
    cfg.MODEL.META_ARCHITECTURE = "LFFD"
    settings = describe_test_settings(cfg)
    assert settings["image size"] == "original, enlarged to a shorter side of 128 if below"
    assert settings["NMS"] == "iom 0.3"
    assert settings["score threshold"] == "unknown"
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    assert describe_test_settings(cfg)["score threshold"] == str(
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
    )
    assert "image size" in format_protocol(settings)
