"""FDDB's ellipse lists."""

from __future__ import annotations

import numpy as np
import pytest

from face_d2.data.fddb import FDDBImage, read_fold, read_folds

TEXT = """2002/08/11/big/img_591
1
123.583300 85.549500 1.265839 269.693400 161.781200  1
2002/08/26/big/img_265
2
67.363819 44.511485 -1.476417 105.249970 87.209036  1
41.936870 27.064477 1.471906 184.070915 129.345601  1
"""


def test_reads_a_fold(tmp_path):
    path = tmp_path / "fold.txt"
    path.write_text(TEXT)
    images = read_fold(path)
    assert [image.name for image in images] == ["2002/08/11/big/img_591", "2002/08/26/big/img_265"]
    np.testing.assert_allclose(
        images[0].ellipses, [[123.5833, 85.5495, 1.265839, 269.6934, 161.7812]]
    )
    assert images[1].ellipses.shape == (2, 5)


def test_official_folds_have_their_known_sizes(test_data):
    folds = read_folds(test_data / "fddb" / "FDDB-folds")
    assert [len(fold) for fold in folds] == [290, 285, 274, 302, 298, 302, 279, 276, 259, 280]
    assert [sum(len(image.ellipses) for image in fold) for fold in folds] == [
        *(515, 519, 517, 517, 514, 518, 518, 518, 514, 521)
    ]


@pytest.mark.parametrize(
    ("angle", "expected"),
    [(0.0, [10, 30, 50, 70]), (np.pi / 2, [20, 20, 40, 80])],
)
def test_box_of_an_axis_aligned_ellipse(angle, expected):
    radii = (20, 20) if angle == 0.0 else (30, 10)
    image = FDDBImage("a", np.array([[*radii, angle, 30.0, 50.0]]))
    np.testing.assert_allclose(image.boxes(), [expected], atol=1e-9)


def test_box_encloses_a_tilted_ellipse_tightly():
    ellipse = np.array([[30.0, 12.0, 0.7, 5.0, -3.0]])
    turn = np.linspace(0, 2 * np.pi, 100_001)
    along, across = 30 * np.cos(turn), 12 * np.sin(turn)
    x = 5 + along * np.cos(0.7) - across * np.sin(0.7)
    y = -3 + along * np.sin(0.7) + across * np.cos(0.7)
    np.testing.assert_allclose(
        FDDBImage("a", ellipse).boxes(), [[x.min(), y.min(), x.max(), y.max()]], atol=1e-6
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("img\n", "ends early: expected the number of faces of img"),
        ("img\ntwo\n", "line 2: 'two': expected the number of faces"),
        ("img\n1\n1 2 3\n", "line 3: .*expected 'major minor angle x y 1'"),
        ("img\n1\n1 2 x 4 5 1\n", "line 3: .*expected 'major minor"),
        (f"img\n1\n{'x ' * 2000}\n", r"line 3: '[x ]{1,200}'\.\.\.: expected 'major minor"),
        ("img\n1\n0 2 3 4 5 1\n", "line 3: .*positive radii"),
        ("img\n1\n1 2 nan 4 5 1\n", "line 3: .*finite"),
        ("img\n1\n40 30 1.5 3e9 100 0.9\n", "line 3: .*below 1e\\+09"),
        ("img\n2\n1 2 3 4 5 1\n", "ends early"),
        ("\n", "lists no image"),
    ],
)
def test_malformed_lists_name_the_line(tmp_path, text, message):
    path = tmp_path / "fold.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_fold(path)


def test_missing_folds_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"FDDB-fold-01-ellipseList.txt.*missing"):
        read_folds(tmp_path)


def test_an_image_in_two_folds_is_an_error(tmp_path):
    for fold in range(1, 11):
        name = fold if fold < 10 else 1
        text = f"{name}\n1\n1 2 3 4 5 1\n"
        (tmp_path / f"FDDB-fold-{fold:02d}-ellipseList.txt").write_text(text)
    with pytest.raises(ValueError, match="1 is listed 2 times"):
        read_folds(tmp_path)
