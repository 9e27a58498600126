"""The documentation's pages: all are in the navigation, and their links lead somewhere."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from detectron2.config import CfgNode
from detectron2.config import get_cfg as detectron2_get_cfg

from face_d2.config import get_cfg

LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^()\s#]+)(?:#[^()\s]*)?\)")
#: Pages of the site that are no file of docs/.
MADE = {"index.md", "reference/config_keys.md"}


@pytest.fixture(scope="module")
def site(repo: Path) -> ModuleType:
    pytest.importorskip("mkdocs", reason="the extra [docs] is not installed (make docs)")
    spec = importlib.util.spec_from_file_location("docs_site", repo / "tools" / "docs_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_of(entry: Any) -> Iterator[str]:
    """The pages of a part of the navigation, in order."""
    if isinstance(entry, str):
        yield entry
    else:
        for child in entry if isinstance(entry, list) else entry.values():
            yield from pages_of(child)


def navigation(repo: Path) -> list[str]:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!ENV", lambda loader, node: None)
    config = yaml.load((repo / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    return list(pages_of(config["nav"]))


def markdown_files(repo: Path) -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=repo, capture_output=True, text=True, check=True
    )
    return [repo / line for line in done.stdout.splitlines() if (repo / line).is_file()]


def test_every_page_is_in_the_navigation_once(repo: Path) -> None:
    docs = repo / "docs"
    written = {p.relative_to(docs).as_posix() for p in docs.rglob("*.md")}
    listed = [page for page in navigation(repo) if not page.startswith("about/")]
    assert len(listed) == len(set(listed))
    assert set(listed) == written | MADE


def test_every_page_from_outside_docs_is_in_the_navigation(repo: Path, site: ModuleType) -> None:
    assert set(site.EXTRA_PAGES) <= set(navigation(repo))
    assert [name for name in site.EXTRA_PAGES.values() if not (repo / name).is_file()] == []


def test_every_link_leads_to_a_file(repo: Path) -> None:
    found, broken = 0, []
    for file in markdown_files(repo):
        text = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.M | re.S)
        for target in LINK.findall(text):
            found += 1
            path = os.path.normpath(file.parent / target)
            if not os.path.exists(path) and Path(path).name != "config_keys.md":
                broken.append((str(file.relative_to(repo)), target))
    assert found > 60
    assert broken == []


def test_every_page_of_the_documentation_can_be_reached_from_the_readme(repo: Path) -> None:
    seen: set[Path] = set()
    waiting = [repo / "README.md"]
    while waiting:
        file = waiting.pop()
        if file in seen or file.suffix != ".md" or not file.is_file():
            continue
        seen.add(file)
        text = file.read_text(encoding="utf-8")
        waiting += [Path(os.path.normpath(file.parent / target)) for target in LINK.findall(text)]
    docs = {p for p in (repo / "docs").rglob("*.md") if "reference" not in p.parts}
    assert {p.name for p in docs - seen} == set()


@pytest.mark.parametrize(
    ("uri", "markdown", "expected"),
    [
        ("index.md", "[Train](docs/train.md#configs)", "[Train](train.md#configs)"),
        ("index.md", "![Faces](docs/images/found.jpg)", "![Faces](images/found.jpg)"),
        ("train.md", "[data](../datasets/README.md)", "[data](about/datasets.md)"),
        ("about/examples.md", "[FFP](../docs/use_ffp.md)", "[FFP](../use_ffp.md)"),
        ("train.md", "[the trainer](../face_d2/train_net.py)", "`the trainer`"),
        ("train.md", "[`setup.py`](../setup.py)", "`setup.py`"),
        ("train.md", "[paper](https://arxiv.org/abs/1904.10633)", None),
        ("train.md", "[above](#configs)", None),
        ("train.md", "```\n[x](y.md)\n```\n", None),
    ],
)
def test_a_link_of_the_repository_becomes_one_of_the_site(
    site: ModuleType, uri: str, markdown: str, expected: str | None
) -> None:
    pages = {*site.EXTRA_PAGES, "train.md", "use_ffp.md", "images/found.jpg"}
    assert site.relink(markdown, uri, pages) == (markdown if expected is None else expected)


def test_a_source_file_is_linked_where_the_repository_has_an_address(site: ModuleType) -> None:
    linked = site.relink(
        "[setup](../setup.py)", "train.md", set(), source_url="https://host/me/it/"
    )
    assert linked == "[setup](https://host/me/it/blob/main/setup.py)"


def test_a_link_to_nothing_is_a_warning_which_the_strict_build_refuses(
    site: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="mkdocs.hooks.docs_site"):
        site.relink("[gone](../tools/gone.py)", "train.md", set())
    assert caplog.messages == ["docs/train.md links to ../tools/gone.py, which does not exist"]


def test_the_page_of_config_keys_has_every_key_of_this_project(site: ModuleType) -> None:
    def keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
        for name, value in node.items():
            if isinstance(value, CfgNode):
                yield from keys(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"

    listed, node = set(), ""
    for line in site.config_keys().splitlines():
        if line.startswith("### "):
            node = line[4:]
        elif line.startswith("| `"):
            listed.add(f"{node}.{line.split('`')[1]}")
    ours = set(keys(get_cfg())) - set(keys(detectron2_get_cfg()))
    assert len(ours) > 60
    assert ours - listed == set()
    assert listed - set(keys(get_cfg())) == set()


def test_docstring_markup_becomes_markdown(site: ModuleType) -> None:
    text = (
        "Takes :func:`~a.b`.\n\nExample::\n\n    x = 1\n\nArgs:\n"
        "    width, height: in\n        pixels.\n    name: of it.\n"
    )
    assert site.as_markdown(text) == (
        "Takes `a.b`.\n\nExample:\n\n```python\nx = 1\n```\n\nArgs:\n"
        "    width: in\n        pixels.\n    height: in\n        pixels.\n    name: of it."
    )
