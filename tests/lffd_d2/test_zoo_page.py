from __future__ import annotations

from pathlib import Path

from lffd_d2.mxnet_params import RELEASES


def test_the_page_names_every_release_as_the_converter_knows_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "model_zoo.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if ".params` |" in line]
    assert len(rows) == len(RELEASES)
    for blob, release in RELEASES.items():
        (row,) = (line for line in rows if blob in line)
        assert row.split("|")[1].strip() == release.variant
        assert f"`{Path(release.path).name}`" in row
        assert release.repository in page
        assert f"`{release.commit}`" in page
        assert release.licence == "MIT"
