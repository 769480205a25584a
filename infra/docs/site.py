"""Hooks of the documentation site (mkdocs.yml): pages of the repository's root, and links that leave the site.

mkdocs loads this file alone, in its own environment: it must not import anything else of the project.
"""

from __future__ import annotations

import posixpath
import re
from functools import partial
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
ROOT_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "helm/README.md": "helm.md",
}
"""Pages beside docs/, and their names in the site."""
SOURCES = {name: source for source, name in ROOT_PAGES.items()}

FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the pages of the root."""
    for source, name in ROOT_PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point each link at its page in the site. Links to other files of the repository become text with their path."""
    name = page.file.src_uri
    folder = posixpath.dirname(SOURCES.get(name, f"docs/{name}"))
    return LINK.sub(partial(_in_site, folder, posixpath.dirname(name)), _indented(markdown))


def _indented(markdown: str) -> str:
    """Indent the parts of list items by four spaces, as Python's Markdown wants it, where a page has three."""
    parts = FENCED.split(markdown)  # Every second part is a block of code that is not indented.
    if any(re.search(r"^ {3}\S", text, re.MULTILINE) for text in parts[::2]):
        parts[::2] = [re.sub(r"^ {3}", "    ", text, flags=re.MULTILINE) for text in parts[::2]]
    return "".join(parts)


def _in_site(folder: str, page_folder: str, link: re.Match[str]) -> str:
    """Return a link of a page. `folder` is that of the page in the repository, `page_folder` that in the site."""
    said, target, anchor = link[1], link[2], link[3] or ""
    if "://" in target:
        return link[0]
    path = posixpath.normpath(posixpath.join(folder, target))
    if path in ROOT_PAGES:
        path = f"docs/{ROOT_PAGES[path]}"
    if path.startswith("docs/") and (path.endswith(".md") or "/images/" in path):
        return f"[{said}]({posixpath.relpath(path.removeprefix('docs/'), page_folder or '.')}{anchor})"
    return f"`{path}`" if said.strip("`") in path else f"{said} (`{path}`)"
