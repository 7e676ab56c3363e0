"""What the pages for readers promise: links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    str(page.relative_to(ROOT))
    for folder in ("", "docs/**/", "csrc/**/", "bindings/**/", "tests/**/")
    for page in ROOT.glob(f"{folder}*.md")
)
FENCED = re.compile(r"^```.*?^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s:#]*)(?:#([^)\s]*))?\)")


def anchors(page: Path) -> set[str]:
    """What GitHub names the headings of a page."""
    headings = re.findall(r"^#+ +(.+)$", FENCED.sub("", page.read_text("utf-8")), re.M)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {word.replace(" ", "-") for word in words}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_headings(name: str) -> None:
    page = ROOT / name
    for target, anchor in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        place = page.parent / target if target else page
        assert place.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(place), f"{name}: {target}#{anchor}"
