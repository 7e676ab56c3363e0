"""What the pages for readers promise: links that lead somewhere, words, lengths."""

import re
from collections import Counter
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


BUDGETS = {
    "README.md": 1000,
    "CHANGELOG.md": 600,
    "CONTRIBUTING.md": 600,
    "DATA.md": 700,
    "SECURITY.md": 900,
    "docs/index.md": 300,
    "docs/install.md": 300,
    "docs/concepts.md": 850,
    "docs/tutorial.md": 600,
    "docs/playground.md": 180,
    "docs/codec/loop.md": 600,
    "docs/codec/samplers.md": 380,
    "docs/codec/vocabularies.md": 250,
    "docs/codec/choosing.md": 600,
    "docs/codec/priors.md": 600,
    "docs/codec/measure-bits.md": 350,
    "docs/codec/torch.md": 700,
    "docs/codec/c-cpp-rust.md": 400,
    "docs/codec/test-lossless.md": 600,
    "docs/distill/store-teacher-logits.md": 1000,
    "docs/distill/train.md": 900,
    "docs/distill/kld.md": 600,
    "docs/serving/serve.md": 850,
    "docs/serving/operate.md": 850,
    "docs/serving/chat-clients.md": 800,
    "docs/serving/hugging-face.md": 700,
    "docs/serving/llama-cpp.md": 700,
    "docs/serving/vllm.md": 600,
    "docs/serving/ray.md": 700,
    "docs/serving/custom-engine.md": 500,
    "docs/serving/session-api.md": 700,
    "docs/serving/small-draft.md": 400,
    "docs/planner.md": 600,
    "docs/transports.md": 600,
    "docs/verifier.md": 600,
    "docs/theory.md": 3500,
    "docs/format.md": 3000,
    "docs/protocol.md": 3000,
    "docs/glossary.md": 450,
    "docs/faq.md": 400,
    "docs/benchmarks/index.md": 450,
    "docs/benchmarks/size.md": 1100,
    "docs/benchmarks/speed.md": 800,
    "docs/benchmarks/links.md": 1100,
    "docs/benchmarks/drafts.md": 900,
    "docs/benchmarks/capacity.md": 450,
    "docs/benchmarks/distillation.md": 700,
    "docs/benchmarks/paper.md": 1000,
    "docs/benchmarks/others.md": 350,
    "docs/developing.md": 1900,
    "docs/proofs.md": 700,
    "docs/decisions.md": 1100,
    "docs/releasing.md": 550,
}
"""Words of each page, as ``wc -w`` counts them."""

DONE = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/index.md",
    "docs/install.md",
    "docs/concepts.md",
    "docs/tutorial.md",
    "docs/playground.md",
    "docs/glossary.md",
    "docs/faq.md",
    "docs/developing.md",
    "docs/decisions.md",
    "docs/releasing.md",
]
"""Pages within their budgets. When all are, this becomes ``sorted(BUDGETS)``."""

MOST = {"what": 30, "by": 48, "whose": 2.5, "beside": 2, "besides": 2, "anew": 0}
"""Words that make English hard to read, per 10,000 words of prose."""

TERMS = "KV cache", "forward pass", "throughput", "bandwidth"

MODE = re.compile(
    r"\*alone|alone\*|\balone\b.*\b(rounds|hints)\b|\b(rounds|hints)\b.*alone"
)
"""How the mode *alone* is told from the adverb: in italics, or with another mode."""


def prose(name):
    """A page without its code and the targets of its links."""
    text = FENCED.sub("", (ROOT / name).read_text("utf-8"))
    text = re.sub(r"^ {4}\S.*$|`[^`]*`|<[^>]*>", "", text, flags=re.M)
    return re.sub(r"\]\([^)]*\)", "]", text)


@pytest.mark.parametrize("name", DONE)
def test_page_is_within_its_budget(name):
    words = len((ROOT / name).read_text("utf-8").split())
    assert words <= BUDGETS[name], f"{name} has {words} words"


def test_budgets_are_those_of_all_pages():
    docs = {name for name in BUDGETS if name.startswith("docs/")}
    assert sum(BUDGETS[name] for name in docs) <= 40_000
    found = {name for name in PAGES if re.match(r"docs/|[A-Z]+\.md$", name)}
    assert [name for name in DONE if name not in found] == []
    if len(DONE) == len(BUDGETS):
        assert found == {*BUDGETS}


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 125


def test_prose_is_plain():
    text = " ".join(map(prose, DONE))
    words = re.findall(r"[a-z]+", text.lower())
    counts = Counter(words)
    shares = {word: 1e4 * counts[word] / len(words) for word in MOST}
    assert {w: share for w, share in shares.items() if share > MOST[w]} == {}
    assert [term for term in TERMS if term not in text] == []


@pytest.mark.parametrize("name", DONE)
def test_alone_is_the_name_of_the_mode(name):
    lines = re.split(r"\n(?=[|#-])|\n\n", prose(name))
    said = [one for one in lines if re.search(r"\balone\b", one)]
    assert [one for one in said if not MODE.search(one.replace("\n", " "))] == []


def test_glossary_is_sorted():
    page = (ROOT / "docs/glossary.md").read_text("utf-8")
    terms = re.findall(r"^\*\*(.+?)\.\*\*", page, re.M)
    letters = [re.sub(r"[^\w ]", "", term.lower()) for term in terms]
    assert letters == sorted(letters)
