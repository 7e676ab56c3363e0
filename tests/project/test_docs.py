"""What the pages for readers promise: links that lead somewhere, and to whom."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(page.relative_to(ROOT))
    for folder in ("", "docs/**/", "csrc/**/", "bindings/**/", "tests/**/")
    for page in ROOT.glob(f"{folder}*.md")
)
FENCED = re.compile(r"^```.*?^```", re.M | re.S)
METADATA = "pyproject.toml setup.py mkdocs.yml CITATION.cff bindings/rust/Cargo.toml"
OTHERS = {"arxiv.org", "docs.ray.io", "pypi.org", "www.cprover.org", "127.0.0.1"}
"""Hosts that are named; the project has none yet."""

HOST = re.compile(r"(?:https?:)?//([\w-]+(?:\.[\w-]+)+)|((?:github|gitlab)\.com)")
LINK = re.compile(r"\]\(([^)\s:#]*)(?:#([^)\s]*))?\)")


def anchors(page):
    """What GitHub names the headings of a page."""
    headings = re.findall(r"^#+ +(.+)$", FENCED.sub("", page.read_text("utf-8")), re.M)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {word.replace(" ", "-") for word in words}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_headings(name):
    page = ROOT / name
    for target, anchor in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        place = page.parent / target if target else page
        assert place.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(place), f"{name}: {target}#{anchor}"


@pytest.mark.parametrize("name", PAGES + METADATA.split())
def test_addresses_are_those_of_others(name):
    found = {a or b for a, b in HOST.findall((ROOT / name).read_text("utf-8"))}
    assert found <= OTHERS, found - OTHERS
