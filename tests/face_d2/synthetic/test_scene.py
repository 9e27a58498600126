"""What is drawn and what is said about it: heads, boxes, attributes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from face_d2.synthetic.canvas import Canvas, box_points
from face_d2.synthetic.head import HeadPicture, draw_head
from face_d2.synthetic.look import Look, sample_look
from face_d2.synthetic.lookalikes import LOOKALIKES
from face_d2.synthetic.scene import EVENTS, Picture, Stage, annotate, draw_scene
from face_d2.synthetic.solids import Light, Pose

LIGHT = Light((0.0, -0.4, 0.9), 0.8, 0.5, (1.0, 1.0, 1.0))
FRONT = Pose(0.0, 0.0, 0.0)


def plain_look(seed: int = 0) -> Look:
    """A neutral face without anything on it."""
    look = sample_look(np.random.default_rng(seed))
    return replace(
        look, glasses="none", masked=False, headwear="none", hair_style="short", mouth_open=0.0
    )


def head(pose: Pose, unit: float = 60.0, look: Look | None = None) -> HeadPicture:
    return draw_head(look or plain_look(), pose, LIGHT, unit, np.random.default_rng(1))


def mask_box(picture: HeadPicture) -> np.ndarray:
    rows, columns = np.nonzero(picture.face > 0.5)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return box + np.tile(picture.origin, 2)


@pytest.mark.parametrize("unit", [5.0, 20.0, 60.0, 180.0])
@pytest.mark.parametrize("yaw", [-1.5, 0.0, 0.7])
def test_box_is_tight_around_the_face(unit: float, yaw: float) -> None:
    picture = head(Pose(yaw, 0.1, 0.3), unit, replace(plain_look(), hair_style="bald"))
    np.testing.assert_allclose(picture.box, mask_box(picture), atol=1.6)


def test_box_follows_the_turned_head() -> None:
    x0, y0, x1, y1 = head(FRONT).box
    assert x0 == pytest.approx(-x1, abs=2)
    assert 1.15 < (y1 - y0) / (x1 - x0) < 1.45
    assert y0 > -40  # below the hairline, not at the crown
    turned = head(Pose(0.9, 0.0, 0.0)).box
    assert turned[0] + turned[2] > 15
    mirrored = head(Pose(-0.9, 0.0, 0.0)).box
    np.testing.assert_allclose(mirrored[0] + mirrored[2], -(turned[0] + turned[2]), atol=3)
    lying = head(Pose(0.0, 0.0, np.pi / 2)).box
    np.testing.assert_allclose(lying[2] - lying[0], y1 - y0, atol=3)


def test_headwear_and_hair_do_not_move_the_box() -> None:
    bare = head(FRONT, look=replace(plain_look(), hair_style="bald")).box
    for change in ({"headwear": "helmet"}, {"headwear": "brim"}, {"hair_style": "fringe"}):
        np.testing.assert_allclose(head(FRONT, look=replace(plain_look(), **change)).box, bare)


def test_a_head_from_behind_has_no_face() -> None:
    picture = head(Pose(np.pi, 0.0, 0.0))
    assert picture.box == (0.0, 0.0, 0.0, 0.0)
    assert not picture.face.any()


def test_light_from_the_side_makes_contrast() -> None:
    look, rng = plain_look(), np.random.default_rng
    side = replace(LIGHT, direction=(0.95, 0.0, 0.3), ambient=0.05)
    assert draw_head(look, FRONT, side, 60, rng(1)).contrast > 2 * head(FRONT).contrast
    dark = replace(LIGHT, key=0.05, ambient=0.05)
    assert draw_head(look, FRONT, dark, 60, rng(1)).luminance < 0.5 * head(FRONT).luminance


def stage_with_face(size: float = 80.0) -> Stage:
    """One face in the middle of a gray picture."""
    canvas = Canvas(320, 320)
    canvas.image[:] = 128
    stage = Stage(canvas, LIGHT, False, np.random.default_rng(0))
    stage.person(160, 120, size, look=plain_look(), pose=FRONT)
    return stage


def only_face(stage: Stage) -> dict[str, int]:
    _, attributes = annotate(stage)
    names = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
    assert len(attributes) == 1
    return dict(zip(names, attributes[0].tolist()))


def test_an_unhidden_sharp_face_has_no_attribute() -> None:
    assert set(only_face(stage_with_face()).values()) == {0}


@pytest.mark.parametrize(
    ("covered", "occlusion", "invalid"), [(0.15, 1, 0), (0.5, 2, 0), (0.8, 2, 1)]
)
def test_occlusion_is_the_hidden_share(covered: float, occlusion: int, invalid: int) -> None:
    stage = stage_with_face()
    x0, y0, x1, y1 = stage.faces[0].box
    edge = x0 + covered * (x1 - x0)
    stage.canvas.polygon(box_points(x0 - 5, y0 - 5, edge, y1 + 5), (0, 0, 0))
    found = only_face(stage)
    assert (found["occlusion"], found["invalid"]) == (occlusion, invalid)


def test_a_face_wholly_hidden_is_not_annotated() -> None:
    stage = stage_with_face()
    stage.canvas.polygon(box_points(0, 0, 320, 320), (0, 0, 0))
    boxes, attributes = annotate(stage)
    assert boxes.shape == (0, 4)
    assert attributes.shape == (0, 6)


def test_a_face_cut_by_the_edge_is_clipped_and_occluded() -> None:
    canvas = Canvas(320, 320)
    stage = Stage(canvas, LIGHT, False, np.random.default_rng(0))
    stage.person(0, 120, 80, look=plain_look(), pose=FRONT)
    boxes, _ = annotate(stage)
    assert boxes[0, 0] == 0
    assert boxes[0, 2] == pytest.approx(stage.faces[0].box[2], abs=1)
    assert only_face(stage)["occlusion"] == 2


@pytest.mark.parametrize(("sigma", "blur"), [(0.4, 0), (2.0, 1), (50.0, 2)])
def test_blur_is_measured_against_the_face(sigma: float, blur: int) -> None:
    stage = stage_with_face(80)
    stage.defocus(sigma)
    assert only_face(stage)["blur"] == blur


def test_faces_drawn_after_a_defocus_stay_sharp() -> None:
    stage = stage_with_face(50)
    stage.defocus(4.0)
    stage.person(260, 120, 50, look=plain_look(), pose=FRONT)
    _, attributes = annotate(stage)
    assert attributes[:, 0].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("change", "attribute", "value"),
    [
        ({"mouth_open": 0.9}, "expression", 1),
        ({"glasses": "sun"}, "occlusion", 1),
        ({"masked": True}, "occlusion", 2),
        ({"glasses": "clear"}, "occlusion", 0),
    ],
)
def test_looks_reach_the_attributes(change: dict, attribute: str, value: int) -> None:
    stage = Stage(Canvas(320, 320), LIGHT, False, np.random.default_rng(0))
    stage.person(160, 120, 80, look=replace(plain_look(), **change), pose=FRONT)
    assert only_face(stage)[attribute] == value


@pytest.mark.parametrize(
    ("pose", "atypical"),
    [
        (Pose(0.9, 0, 0), 0),
        (Pose(-1.2, 0, 0), 1),
        (Pose(0, 0.4, 0), 0),
        (Pose(0, -0.55, 0), 1),
        (Pose(0, 0, 0.6), 1),
    ],
)
def test_pose_attribute(pose: Pose, atypical: int) -> None:
    stage = Stage(Canvas(320, 320), LIGHT, False, np.random.default_rng(0))
    stage.person(160, 120, 80, look=plain_look(), pose=pose)
    assert only_face(stage)["pose"] == atypical


@pytest.mark.parametrize("painter", LOOKALIKES, ids=lambda painter: painter.__name__)
@pytest.mark.parametrize("size", [9.0, 140.0])
def test_every_lookalike_draws_at_any_size_and_place(painter, size: float) -> None:
    canvas = Canvas(200, 200)
    canvas.image[:] = (90, 160, 40)
    before = canvas.image.copy()
    painter(canvas, 100, 100, size, np.random.default_rng(0))
    assert (canvas.image != before).any()
    assert not canvas.owner.any()
    for x, y in ((-40, 100), (100, 260), (-900, -900)):
        painter(canvas, x, y, size, np.random.default_rng(0))


def scenes(count: int = 24) -> list[Picture]:
    return [draw_scene(np.random.default_rng([8, index])) for index in range(count)]


def test_scenes_are_varied_and_repeatable() -> None:
    drawn = scenes()
    again = draw_scene(np.random.default_rng([8, 0]))
    np.testing.assert_array_equal(again.image, drawn[0].image)
    np.testing.assert_array_equal(again.boxes, drawn[0].boxes)
    assert {picture.event for picture in drawn} <= set(EVENTS)
    assert len({picture.event for picture in drawn}) >= 4
    assert len({picture.image.shape for picture in drawn}) >= 6
    assert len({picture.jpeg_quality for picture in drawn}) >= 10


def test_a_still_life_has_no_face() -> None:
    picture = draw_scene(np.random.default_rng(0), still_life=True)
    assert picture.event == EVENTS[-1]
    assert picture.boxes.shape == (0, 4)
