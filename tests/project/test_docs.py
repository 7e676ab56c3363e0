"""The pages for readers: links that work, plain words, lengths."""

import re
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from tests.project.prose import FENCED, pages

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(page.relative_to(ROOT))
    for folder in ("", "docs/**/", "csrc/**/", "bindings/**/", "tests/**/")
    for page in ROOT.glob(f"{folder}*.md")
)
METADATA = "pyproject.toml setup.py mkdocs.yml CITATION.cff bindings/rust/Cargo.toml"
OTHERS = {"arxiv.org", "docs.ray.io", "pypi.org", "www.cprover.org", "127.0.0.1"}
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
OWN = {*re.findall(r'^Repository = "https://([^/"]+)', PROJECT, re.M)}
"""The project's host, from its release on."""

HOST = re.compile(r"(?:https?:)?//([\w-]+(?:\.[\w-]+)+)|((?:github|gitlab)\.com)")
LINK = re.compile(r"\]\(([^)\s:#]*)(?:#([^)\s]*))?\)")


def anchors(page):
    """GitHub's anchors of a page's headings."""
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
def test_addresses_are_of_other_sites(name):
    found = {a or b for a, b in HOST.findall((ROOT / name).read_text("utf-8"))}
    assert found <= OTHERS | (OWN if name == "pyproject.toml" else set())


TABLE = """
README 1000, CHANGELOG 600, CONTRIBUTING 600, DATA 700, SECURITY 900
docs/: index 300, install 300, concepts 850, tutorial 600, playground 180
docs/: planner 600, transports 600, verifier 600, theory 3500, format 3000
docs/: protocol 3010, glossary 450, faq 400
docs/: developing 1900, proofs 700, decisions 1100, releasing 550
docs/codec/: loop 600, samplers 380, vocabularies 250, choosing 600, priors 600
docs/codec/: measure-bits 350, torch 700, c-cpp-rust 400, test-lossless 600
docs/distill/: store-teacher-logits 1000, train 900, kld 620
docs/serving/: serve 850, operate 850, chat-clients 800, hugging-face 700
docs/serving/: llama-cpp 700, vllm 600, ray 700, custom-engine 500
docs/serving/: session-api 700, small-draft 400
docs/benchmarks/: index 450, size 1100, speed 820, links 1120, drafts 910
docs/benchmarks/: capacity 495, distillation 725, paper 1000, others 355
"""
"""Words of each page, as ``wc -w`` counts them."""

BUDGETS = {
    f"{folder}{name}.md": int(words)
    for folder, pages in re.findall(r"^(?:(.+/): )?(.+)$", TABLE, re.M)
    for name, words in re.findall(r"([\w-]+) (\d+)", pages)
}

MOST = {
    "what": 30,
    "by": 48,
    "whose": 2.5,
    "beside": 2,
    "besides": 2,  # codespell:ignore
    "anew": 0,  # codespell:ignore
}
"""Words that make English hard to read, per 10,000 words of prose."""

TERMS = "KV cache", "forward pass", "throughput", "bandwidth"

MODE = re.compile(
    r"\*alone|alone\*|\balone\b.*\b(rounds|hints)\b|\b(rounds|hints)\b.*alone"
)
"""The mode *alone*, not the adverb: in italics, or with another mode."""


def prose(name):
    """The paragraphs of a page without code, tables and the targets of links."""
    return [text for _, text in pages(ROOT / name)]


@pytest.mark.parametrize("name", sorted(BUDGETS))
def test_page_is_within_its_budget(name):
    words = len((ROOT / name).read_text("utf-8").split())
    assert words <= BUDGETS[name], f"{name} has {words} words"


def test_every_page_has_a_budget():
    docs = {name for name in BUDGETS if name.startswith("docs/")}
    assert sum(BUDGETS[name] for name in docs) <= 40_000
    found = {name for name in PAGES if re.match(r"docs/|[A-Z]+\.md$", name)}
    assert found == {*BUDGETS}


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 125


def test_prose_is_plain():
    text = " ".join(chain.from_iterable(map(prose, BUDGETS)))
    words = re.findall(r"[a-z]+", text.lower())
    counts = Counter(words)
    shares = {word: 1e4 * counts[word] / len(words) for word in MOST}
    assert {w: share for w, share in shares.items() if share > MOST[w]} == {}
    assert [term for term in TERMS if term not in text] == []


@pytest.mark.parametrize("name", sorted(BUDGETS))
def test_alone_is_the_name_of_the_mode(name):
    said = [text for text in prose(name) if re.search(r"\balone\b", text)]
    assert [text for text in said if not MODE.search(text)] == []


def test_glossary_is_sorted():
    page = (ROOT / "docs/glossary.md").read_text("utf-8")
    terms = re.findall(r"^\*\*(.+?)\.\*\*", page, re.M)
    letters = [re.sub(r"[^\w ]", "", term.lower()) for term in terms]
    assert letters == sorted(letters)
