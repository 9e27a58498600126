"""What MkDocs does for this project's site beyond its own rules; ``mkdocs.yml`` names this file.

A link in a page is relative to the page's file in the repository, so that it works on GitHub. Some
pages of the site are files outside ``docs/`` (``EXTRA_PAGES``). :func:`relink` rewrites every link
for the site: to the target's page if it has one, else to its source below ``repo_url``, else,
without a ``repo_url``, to the link's text as code. A link to a missing file is a warning, which
makes ``mkdocs build --strict`` fail.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File

logger = logging.getLogger("mkdocs.hooks.docs_site")

ROOT = Path(__file__).resolve().parents[1]
#: Files of the repository outside docs/ that are pages, by their place on the site.
EXTRA_PAGES = {
    "index.md": "README.md",
    "about/changelog.md": "CHANGELOG.md",
    "about/contributing.md": "CONTRIBUTING.md",
    "about/datasets.md": "datasets/README.md",
    "about/examples.md": "examples/README.md",
    "about/photos.md": "examples/photos/README.md",
    "about/security.md": "SECURITY.md",
}
#: The files that declare config keys.
CONFIG_FILES = ("face_d2/config.py", "df2s2_d2/config.py", "lffd_d2/config.py")
_FENCES = re.compile(r"(^(?:```|~~~).*?^(?:```|~~~)[ \t]*$)", re.M | re.S)
#: The text, the target and the anchor of a Markdown link or image.
_LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^()\s#]*)(#[^()\s]*)?\)")
_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod|obj):`~?\.*([\w.]+)`")
_LITERAL = re.compile(r"^(?P<head>.*\S)?::\n\n(?P<code>(?:(?: {4}.*)?\n)*(?: {4}.*)?)", re.M)
#: An entry of Args, Attributes or Raises that is about several names.
_SHARED = re.compile(r"^    (?P<names>\w+(?:, \w+)+): ?(?P<text>.*(?:\n {8}.*)*)", re.M)


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages of ``EXTRA_PAGES`` and the page of config keys."""
    for page, source in EXTRA_PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, "reference/config_keys.md", content=config_keys()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Makes the links of a page hold on the site."""
    pages = {f.src_uri for f in files}
    return relink(markdown, page.file.src_uri, pages, source_url=config.repo_url or "")


def relink(markdown: str, uri: str, pages: set[str], *, source_url: str = "") -> str:
    """``markdown`` with links that hold on the site.

    Args:
        markdown: a page, with links relative to its file in the repository.
        uri: the page's place on the site.
        pages: the places of all files of the site.
        source_url: where the source can be read; without it links to source files become text.
    """
    source = EXTRA_PAGES.get(uri, f"docs/{uri}")
    site_of = {EXTRA_PAGES.get(place, f"docs/{place}"): place for place in {*pages, *EXTRA_PAGES}}

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match.group(1), match.group(2), match.group(3) or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return match.group()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in site_of:
            place = posixpath.relpath(site_of[path], posixpath.dirname(uri) or ".")
            return f"{text}({place}{anchor})"
        if not (ROOT / path).exists():
            logger.warning("%s links to %s, which does not exist", source, target)
            return match.group()
        if source_url and not text.startswith("!"):
            return f"{text}({source_url.rstrip('/')}/blob/main/{path}{anchor})"
        label = text.lstrip("!")[1:-1]
        return label if "`" in label else f"`{label}`"

    parts = _FENCES.split(markdown)
    # Odd parts are code blocks.
    return "".join(part if i % 2 else _LINK.sub(link, part) for i, part in enumerate(parts))


def config_keys() -> str:
    """The page of all config keys: per node a table of key, default and comment.

    The comments are those at the declarations of ``CONFIG_FILES``: the lines above a key up to an
    empty line or another key, and what follows it on its line.
    """
    lines = [
        "# Config keys",
        "",
        "The keys that this project adds to Detectron2's config, with their defaults and the",
        "comments at their declarations.",
    ]
    for file in CONFIG_FILES:
        tables: dict[str, list[str]] = {}
        for key, default, comment in _declared_keys((ROOT / file).read_text(encoding="utf-8")):
            node, _, name = key.rpartition(".")
            if default == "CN()":
                tables.setdefault(key, []).extend([comment, ""] if comment else [])
                continue
            table = tables.setdefault(node, [])
            if not any(line.startswith("| key") for line in table):
                table += ["| key | default | |", "|---|---|---|"]
            cells = f"`{name}`", f"`{default}`", comment.replace("|", "\\|")
            table.append(f"| {' | '.join(cells)} |")
        lines += ["", f"## `{file}`"]
        for node, table in tables.items():
            lines += ["", f"### {node}", "", *table]
    return "\n".join(lines) + "\n"


def _declared_keys(source: str) -> list[tuple[str, str, str]]:
    """Key, default and comment of every ``cfg.KEY = default``, in order."""
    found, above = [], []
    for line in map(str.strip, source.splitlines()):
        if line.startswith("# "):
            above.append(line[2:])
            continue
        if declared := re.match(r"cfg\.([A-Z][\w.]*) = (.+?)(?:  # (.*))?$", line):
            key, default, behind = declared.groups()
            found.append((key, default, " ".join(filter(None, [*above, behind]))))
        above = []
    return found


class SphinxMarkup(griffe.Extension):
    """Turns the docstrings' Sphinx markup into Markdown: roles, and literal blocks after ``::``.

    An entry such as ``width, height: in pixels`` becomes one entry per name.
    """

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """A docstring's Sphinx markup as Markdown."""

    def block(match: re.Match[str]) -> str:
        code = "\n".join(line[4:] for line in match.group("code").rstrip().splitlines())
        head = f"{match.group('head')}:\n\n" if match.group("head") else ""
        return f"{head}```python\n{code}\n```\n\n"

    def entries(match: re.Match[str]) -> str:
        names = match.group("names").split(", ")
        return "\n".join(f"    {name}: {match.group('text')}" for name in names)

    text = _SHARED.sub(entries, _LITERAL.sub(block, docstring))
    return _ROLE.sub(lambda match: f"`{match.group(1)}`", text).rstrip()
