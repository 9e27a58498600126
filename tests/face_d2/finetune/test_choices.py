"""What is chosen for a set of pictures, on faces whose coverage one can tell by their sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from face_d2.finetune.choices import Choices, choose, configure
from face_d2.pretrained import PRETRAINED

PictureSet = Callable[..., str]
#: Every anchor, or receptive field, needs an IoU of 0.5: DF2S2 has no best anchor for any face.
STRICT = ("MODEL.DF2S2.LOW_QUALITY_MIN_IOU", "1")


@pytest.fixture
def picture_set(request: pytest.FixtureRequest) -> PictureSet:
    """A function that registers pictures with one square face each, without files."""

    def register(sides: Sequence[int], size: tuple[int, int] = (300, 400)) -> str:
        name = f"squares {request.node.name} {sides}"
        records = [
            {
                **{"file_name": f"none/{index}.jpg", "image_id": index},
                **{"height": size[0], "width": size[1]},
                "annotations": [
                    {"bbox": [8, 8, side, side], "bbox_mode": 1, "category_id": 0, "iscrowd": 0}
                ],
            }
            for index, side in enumerate(sides)
        ]
        DatasetCatalog.register(name, lambda: records)
        request.addfinalizer(lambda: DatasetCatalog.remove(name))
        MetadataCatalog.get(name).set(thing_classes=["face"], annotation_file="none.txt")
        request.addfinalizer(lambda: MetadataCatalog.remove(name))
        return name

    return register


def chosen(choices: Choices) -> dict[str, object]:
    return dict(zip(choices.pairs[::2], choices.pairs[1::2]))


def test_the_default_stays_where_no_other_covers_more(picture_set: PictureSet) -> None:
    """LFFD has receptive fields for faces of 10 to 320 pixels, DF2S2 anchors for all."""
    choices = choose(picture_set([12, 60, 200, 400], (600, 600)), None, ())
    assert choices.model == "df2s2-lite0"
    assert "the default" in choices.reasons[0]
    assert "df2s2-lite0 100.0 %, lffd-20l5s 75.0 %" in choices.reasons[0]
    assert "Images are searched at the size they have: 100.0 %" in choices.reasons[1]
    assert "INPUT.MIN_SIZE_TEST" not in chosen(choices)


def test_another_network_is_chosen_if_it_covers_more(picture_set: PictureSet) -> None:
    """With MIN_FACE of 50, DF2S2 may only learn the largest of four faces."""
    faces = picture_set([12, 20, 30, 100])
    choices = choose(faces, None, ("MODEL.DF2S2.MIN_FACE", "50"))
    assert choices.model == "lffd-20l5s"
    assert "it covers most" in choices.reasons[0]
    assert "df2s2-lite0 25.0 %, lffd-20l5s 100.0 %" in choices.reasons[0]


def test_a_network_that_an_override_does_not_fit_is_no_candidate(picture_set: PictureSet) -> None:
    faces = picture_set([12, 100])
    choices = choose(faces, None, ("MODEL.LFFD.VARIANT", "16L"))
    assert choices.model == "df2s2-lite0"
    assert "lffd" not in choices.reasons[0]
    with pytest.raises(ValueError, match=r"MODEL\.DF2S2\.CLS_NORM is 'all'; expected one of"):
        choose(faces, None, ("MODEL.DF2S2.CLS_NORM", "all"))


def test_a_network_that_is_asked_for_is_not_chosen(picture_set: PictureSet) -> None:
    choices = choose(picture_set([12, 100]), "lffd-20l5s", ())
    assert choices.model == "lffd-20l5s"
    assert "as asked for by --model" in choices.reasons[0]


@pytest.mark.parametrize("sides", [[400, 500], [300, 400], [400, 600], [350, 340]])
def test_images_are_made_as_small_as_the_largest_faces_need(
    sides: list[int], picture_set: PictureSet
) -> None:
    """The largest of the sizes at which every face is within LFFD's 320 pixels."""
    choices = choose(picture_set(sides, (1200, 1600)), "lffd-20l5s", ())
    fitting = [size for size in (1080, 720, 480) if max(sides) * size / 1200 <= 320]
    pairs = chosen(choices)
    assert pairs["INPUT.MIN_SIZE_TEST"] == fitting[0]
    assert pairs["INPUT.MAX_SIZE_TEST"] == 2 * fitting[0]
    before = 50 * sum(side <= 320 for side in sides)
    assert f"side of {fitting[0]} pixels, where 100.0 % of the faces" in choices.reasons[1]
    assert f"as they are, {before:.1f} % have" in choices.reasons[1]


def test_the_zoom_of_crops_follows_the_size_of_the_images(picture_set: PictureSet) -> None:
    """720 / 1200 of [0.4, 2.0]; at 1080 pixels, the face is still too large for 512-anchors."""
    faces = picture_set([1000], (1200, 1600))
    pairs = chosen(choose(faces, "df2s2-lite0", STRICT))
    assert pairs["INPUT.MIN_SIZE_TEST"] == 720
    assert pairs["INPUT.FACE_CROP.ZOOM"] == [0.24, 1.2]
    own = choose(faces, "df2s2-lite0", (*STRICT, "INPUT.FACE_CROP.ZOOM", "[0.5, 1.0]"))
    assert "INPUT.FACE_CROP.ZOOM" not in chosen(own)


def test_crops_are_the_smallest_that_keep_the_faces(picture_set: PictureSet) -> None:
    """A crop is the whole picture: a face of 15 pixels has 4.8 in 384 and 6.4, enough, in 512."""
    whole = ("INPUT.FACE_CROP.ZOOM", "[]", "INPUT.FACE_CROP.MIN_SCALE", "1.0")
    choices = choose(picture_set([15, 300], (1200, 1200)), "df2s2-lite0", whole)
    assert chosen(choices)["INPUT.FACE_CROP.SIZE"] == 512
    assert "384 pixels 50.0 %, 512 pixels 100.0 %" in choices.reasons[-1]
    choices = choose(picture_set([60, 300], (1200, 1200)), "df2s2-lite0", whole)
    assert chosen(choices)["INPUT.FACE_CROP.SIZE"] == 384


def test_what_the_user_sets_is_not_chosen(picture_set: PictureSet) -> None:
    faces = picture_set([400, 500], (1200, 1600))
    size, crop = ("INPUT.MIN_SIZE_TEST", "600"), ("INPUT.SCALE_SAMPLING.SIZE", "256")
    assert set(chosen(choose(faces, "lffd-20l5s", size))) == {"INPUT.SCALE_SAMPLING.SIZE"}
    sizes = {"INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"}
    assert set(chosen(choose(faces, "lffd-20l5s", crop))) == sizes
    assert choose(faces, "lffd-20l5s", (*size, *crop)).pairs == ()


@pytest.mark.parametrize("mapper", ["", "crop"])
def test_a_mapper_that_does_not_exist_is_refused(mapper: str, picture_set: PictureSet) -> None:
    with pytest.raises(ValueError, match=rf"INPUT\.MAPPER is '{mapper}'; expected .*'face_crop'"):
        choose(picture_set([12, 100]), "df2s2-lite0", ("INPUT.MAPPER", mapper))


def test_without_a_length_a_training_takes_ten_epochs(picture_set: PictureSet) -> None:
    """40 pictures in batches of 5 are 8 iterations an epoch; warm-up takes a tenth of all."""
    faces = picture_set([20] * 40)
    choices = Choices("df2s2-lite0", ("INPUT.FACE_CROP.SIZE", 384), ())
    words = ("SOLVER.IMS_PER_BATCH", "5")
    cfg = configure(choices, words, train=faces, val=faces, output="none")
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS) == (80, 8)
    assert cfg.INPUT.FACE_CROP.SIZE == 384
    words = (*words, "SOLVER.WARMUP_ITERS", "3", "INPUT.FACE_CROP.SIZE", "96")
    cfg = configure(choices, words, train=faces, val=faces, output="none")
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS) == (80, 3)
    assert cfg.INPUT.FACE_CROP.SIZE == 96  # the user's, not what was chosen


@pytest.mark.parametrize("model", PRETRAINED)
def test_every_fine_tuning_limits_gradients(model: str, picture_set: PictureSet) -> None:
    """By a norm of 1 where the config limits none; a limit of the config stays."""
    faces = picture_set([20])
    cfg = configure(Choices(model, (), ()), (), train=faces, val=faces, output="none")
    clip = dict(cfg.SOLVER.CLIP_GRADIENTS)
    norm = {"df2s2-lite0": 1.0, "lffd-20l5s": 5.0}[model]
    assert clip.items() >= {"ENABLED": True, "CLIP_TYPE": "norm", "CLIP_VALUE": norm}.items()
