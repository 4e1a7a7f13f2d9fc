"""A hook of mkdocs: Markdown files of the top level become pages of the site."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
NAMES = [path.name for path in sorted(ROOT.glob("*.md")) if path.name != "README.md"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name in NAMES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that work in the repository into links of the site."""
    for name in NAMES:
        markdown = markdown.replace(f"](../{name}", f"]({name}")
    if page.file.src_uri in NAMES:
        markdown = markdown.replace("](docs/", "](")
        markdown = re.sub(r"\[(\d+)\]", r"\\[\1\\]", markdown)  # marks of notes, not links
    return markdown
