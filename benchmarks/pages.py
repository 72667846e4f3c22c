"""Tables for the documentation's pages, and the places there that they are written into."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

__all__ = ["PAGES", "ROOT", "markdown_table", "write_section"]

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "docs/performance.md", ROOT / "README.md")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table for a page."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_section(name: str, text: str, pages: Sequence[Path] | None = None) -> None:
    """Replace what lies between the section's marks in each page, of `PAGES` by default, that has them."""
    begin, end = f"<!-- benchmarks: {name} -->", "<!-- end of benchmarks -->"
    for page in PAGES if pages is None else pages:
        old = page.read_text()
        new = re.sub(
            f"({re.escape(begin)}\n).*?({re.escape(end)})",
            lambda m: m[1] + text + "\n" + m[2],
            old,
            flags=re.DOTALL,
        )
        if new != old:
            page.write_text(new)
