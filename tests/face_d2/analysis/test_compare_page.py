"""The page in a real browser: no error, filters that filter, readable on a phone."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import status_of
from helpers.small_graphs import constant_graph
from helpers.tiny_sets import write_wider_set

from face_d2.analysis.compare.page import format_results, make_page
from face_d2.cli.compare import main

pytest.importorskip("plotly", reason="plotly is not installed: it carries the page's charts")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three detectors compared on twelve small pictures."""
    root = tmp_path_factory.mktemp("compare")
    text = write_wider_set(root / "set", "val", 12)
    detectors = []
    for name, score in (("Alpha", 0.9), ("Beta </script>", 0.8), ("Gamma", 0.3)):
        rows = np.zeros((1, 5, 30 if name != "Gamma" else 60))
        rows[0, :, 3] = [320, 320, 200, 200, score]
        file = constant_graph(root / f"{name[0]}.onnx", {"o": rows}, (640, 640))
        detectors += ["--detector", f"{name.replace('/', '')}=yolov8face:{file}"]
    recorded = root / "recorded" / "0--Squares"
    recorded.mkdir(parents=True)
    images = root / "set" / "WIDER_val" / "images"
    for index, box in enumerate(_boxes(text)):
        row = f"1\n{box} 0.95\n" if box else "0\n"
        (recorded / f"{index}.txt").write_text(f"{index}\n{row}")
    main(
        [*detectors, "--detector", f"Perfect=predictions:{recorded.parent}",
         "--data", f"wider:{text}:{images}", "--output", str(root / "out"), "--bootstrap", "50",
         "--timing-images", "1", "--pictures", "5", "--false-positives", "0.5"]
    )  # fmt: skip
    return root / "out"


def _boxes(text: Path) -> list[str]:
    lines = text.read_text().splitlines()
    return [
        " ".join(lines[index + 2].split()[:4]) if lines[index + 1] == "1" else ""
        for index in range(0, len(lines), 3)
    ]


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return found


def in_browser(browser: str, page: Path, script: str, width: int = 1200) -> dict:
    """What a script gives that runs when the page is drawn, and the console's errors.

    The script is the body of a function that returns a value for JSON.
    """
    probe = page.with_name(f"probe{abs(hash((script, width)))}.html")
    catch = (
        "<script>window.failures = [];"
        "addEventListener('error', (event) => failures.push(event.message))"
    )
    report = (
        "<script>addEventListener('load', () => { const value = (() => {" + script + "})();"
        "const out = document.createElement('pre'); out.id = 'probe';"
        "out.textContent = 'PROBE' + btoa(unescape(encodeURIComponent(JSON.stringify("
        "{value, failures})))) + 'PROBE'; document.body.append(out); })</script>"
    )
    html = page.read_text(encoding="utf-8")
    html = html.replace("<title>", catch + "</script><title>", 1)
    probe.write_text(html.replace("</body>", report + "</body>"), encoding="utf-8")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--virtual-time-budget=10000", f"--window-size={width},900", "--dump-dom",
         probe.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    found = re.search(r"PROBE([A-Za-z0-9+/=]+)PROBE</pre>", done.stdout)
    assert found, done.stderr[-2000:]
    answer = json.loads(base64.b64decode(found[1]))
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not answer["failures"], answer["failures"]
    assert not console, console
    return answer["value"]


ROWS = "[...document.querySelectorAll('#results tbody tr')].map((r) => r.cells[0].textContent)"
SET = (
    "const set = (id, value) => { const e = document.getElementById(id); e.value = value;"
    "e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); };"
)


class TestInABrowser:
    def test_it_draws_without_an_error_in_the_console(self, browser, folder):
        value = in_browser(
            browser,
            folder / "index.html",
            "return {ready: document.body.dataset.ready, "
            "charts: document.querySelectorAll('.js-plotly-plot .main-svg').length, "
            "pictures: document.querySelectorAll('#pictures figure').length, rows: " + ROWS + "}",
        )
        assert value["ready"] == "yes"
        assert value["charts"] >= 7
        assert value["pictures"] == 5
        assert sorted(value["rows"]) == ["Alpha", "Beta <script>", "Gamma", "Perfect"]

    def test_it_asks_for_nothing_from_a_network(self, browser, folder):
        script = (
            "return performance.getEntriesByType('resource').map((e) => e.name)"
            ".filter((name) => !name.startsWith('data:'))"
        )
        assert in_browser(browser, folder / "index.html", script) == []

    def test_tables_sort_by_their_headings(self, browser, folder):
        value = in_browser(
            browser,
            folder / "index.html",
            "const click = () => document.querySelectorAll('#results th')[0].click();"
            f"click(); const up = {ROWS}; click(); const down = {ROWS}; return [up, down]",
        )
        assert value[0] == ["Alpha", "Beta <script>", "Gamma", "Perfect"]
        assert value[1] == value[0][::-1]

    def test_the_filters_do_what_they_say(self, browser, folder):
        value = in_browser(
            browser,
            folder / "index.html",
            SET + f"set('filter', 'alp'); const named = {ROWS}; set('filter', '');"
            f"set('least', '99'); const good = {ROWS}; set('least', '');"
            f"set('megabytes', '1'); const small = {ROWS}; set('megabytes', '');"
            "set('difference-filter', 'gamma'); const pairs = [...document.querySelectorAll("
            "'#differences tbody tr')].map((r) => r.textContent);"
            "set('published-filter', 'FaceBoxes'); const printed = [...document.querySelectorAll("
            "'#published tbody tr')].map((r) => r.cells[0].textContent);"
            "return {named, good, small, pairs, printed}",
        )
        assert value["named"] == ["Alpha"]
        assert value["good"] == ["Perfect"]
        assert sorted(value["small"]) == ["Alpha", "Beta <script>", "Gamma"]  # Perfect has no file
        assert len(value["pairs"]) == 3
        assert all("Gamma" in pair for pair in value["pairs"])
        assert value["printed"] == ["FaceBoxes 3.2x", "FaceBoxes"]

    def test_a_detector_switched_off_leaves_tables_charts_and_pictures(self, browser, folder):
        value = in_browser(
            browser,
            folder / "index.html",
            "const count = () => document.querySelectorAll('#pictures rect').length;"
            "const before = count();"
            "document.querySelector('#detectors input[value=Alpha]').click();"
            f"return {{rows: {ROWS}, traces: document.getElementById('precision').data.length,"
            "before, after: count()}",
        )
        assert "Alpha" not in value["rows"]
        assert value["traces"] == 3
        assert value["after"] == value["before"] - 5  # one box in each of five pictures

    def test_the_score_slider_hides_weak_boxes(self, browser, folder):
        value = in_browser(
            browser,
            folder / "index.html",
            SET + "document.getElementById('truth').click();"
            "const count = () => document.querySelectorAll('#pictures rect').length;"
            "set('score', '0.85'); const strong = count(); set('score', '0.1');"
            "return [strong, count()]",
        )
        strong, all_boxes = value
        assert all_boxes - strong == 2 * 5  # Beta's and Gamma's in each of five pictures

    def test_it_is_readable_at_phone_width(self, browser, folder):
        value = in_browser(
            browser,
            folder / "index.html",
            "return [innerWidth, document.documentElement.scrollWidth]",
            width=390,
        )
        assert value[1] <= value[0] <= 500  # some browsers have no window below 500


def test_it_is_below_8_mb_without_pictures(folder):
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert len(re.sub("data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", page)) < 8e6


def test_results_json_has_the_aps_of_every_detector(folder):
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert list(results["detectors"]) == ["Alpha", "Beta <script>", "Gamma", "Perfect"]
    assert results["detectors"]["Perfect"]["AP_hard"] == pytest.approx(100)
    assert {"AP_easy", "AP_medium", "AP_hard"} <= results["detectors"]["Alpha"].keys()
    assert results["detectors"]["Alpha"]["protocol"]["NMS"] == "IoU 0.5"
    assert results["detectors"]["Alpha"]["cost"]["threads_1"]["milliseconds"] > 0
    assert results["detectors"]["Alpha"]["cost"]["peak_memory_mib"] > 0
    point = results["detectors"]["Perfect"]["for_false_positives"]
    assert point["false_positives_per_image"] == 0.5  # as asked for


def test_the_text_has_figures_differences_protocols_and_published_rows(folder):
    text = (folder / "results.txt").read_text(encoding="utf-8")
    assert "Perfect" in text
    assert "Alpha was run with" in text
    assert "S3FD" in text.split("Published, not measured here")[1]


def test_the_markdown_has_a_row_for_each_detector_best_first(folder):
    text = (folder / "results.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {7}
    assert [rows[0][i].strip() for i in (0, 3)] == ["detector", "hard"]
    detectors = [row[0].strip() for row in rows[2:]]
    assert sorted(detectors) == ["Alpha", "Beta <script>", "Gamma", "Perfect"]
    assert detectors[0] == "Perfect"
    hard = [float(row[3].split("[")[0]) for row in rows[2:]]
    assert hard == sorted(hard, reverse=True)


def test_nothing_in_the_data_ends_the_script(folder):
    page = (folder / "index.html").read_text(encoding="utf-8")
    data = page.split('id="results-json">')[1].split("</script>")[0]
    assert "Beta <script>" in json.loads(data)["detectors"]


def test_linked_images_are_relative_to_the_page(folder, tmp_path):
    root = folder.parent
    text = root / "set" / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    images = root / "set" / "WIDER_val" / "images"
    main(
        ["--detector", f"predictions:{root / 'recorded'}", "--data", f"wider:{text}:{images}",
         "--output", str(tmp_path / "out"), "--no-timing", "--link-images", "--bootstrap", "0"]
    )  # fmt: skip
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="results-json">')[1].split("</script>")[0])
    (one,) = data["data"].values()
    for picture in one["pictures"]:
        assert (tmp_path / "out" / picture["src"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detector", "yunet:missing.onnx"], "missing.onnx: no such file"),
        (["--detector", "haarr"], "haarr: no such file"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, folder, tmp_path, capsys):
    root = folder.parent
    text = root / "set" / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    data = f"wider:{text}:{root / 'set' / 'WIDER_val' / 'images'}"
    assert main([*arguments, "--data", data, "--output", str(tmp_path / "x")]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--false-positives=0", "0: expected a number above 0"),
        ("--false-positives=few", "few: expected a number above 0"),
        ("--recall=most", "most: expected a number between 0 and 1"),
        ("--processes=0", "0: expected a whole number, 1 or more"),
        ("--threads=two", "two: expected a whole number, 1 or more"),
    ],
)
def test_a_wrong_value_of_an_option_says_what_is_expected(option, message, capsys):
    assert status_of(main, ["--detector", "haar", "--data", "fddb", option]) == 2
    flag = option.partition("=")[0]
    assert f"error: argument {flag}: {message}" in capsys.readouterr().err


def test_two_detectors_of_one_name_are_refused(folder, tmp_path, capsys):
    recorded = f"predictions:{folder.parent / 'recorded'}"
    root = folder.parent / "set"
    text = root / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    data = f"wider:{text}:{root / 'WIDER_val' / 'images'}"
    words = ["--detector", recorded, "--detector", recorded, "--data", data]
    assert main([*words, "--output", str(tmp_path / "x")]) == 1
    assert "two detectors are called 'recorded'" in capsys.readouterr().err


def test_a_page_of_nothing_is_no_error():
    assert make_page({}).startswith("<!doctype html>")
    assert format_results({"data": {}, "detectors": {}, "published": []})
