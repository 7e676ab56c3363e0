"""The charts that the programs of benchmarks/ draw."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")

from benchmarks.charts import STYLES, Chart, Panel, draw

DOCS = Path(__file__).parents[2] / "docs"
TEXT = "{http://www.w3.org/2000/svg}text"


def words(path: Path) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.parse(path).iter(TEXT)]


@pytest.mark.parametrize("places", [(0.125, 0.25), ("one", "another")])
def test_words_and_numbers_stay_as_they_are(
    tmp_path: Path, places: tuple[float | str, ...]
) -> None:
    """Only lengths are rounded, and what is black has the page's colour."""
    series = {f"{i}": [(at, 0.125, 0.120, 0.130) for at in places] for i in range(6)}
    assert len(series) == len(STYLES)
    draw(Chart("a < b", [Panel("of 0.0625", series)]), tmp_path / "it.svg")
    found = words(tmp_path / "it.svg")
    assert {"of 0.0625", *series} <= set(found)
    assert {"0.120", "0.130"} <= set(found)
    svg = (tmp_path / "it.svg").read_text("utf-8")
    assert "<title>a &lt; b</title>" in svg
    assert "prefers-color-scheme:dark" in svg
    assert "#000000" not in svg


def test_every_experiment_begins_with_a_chart_that_is_small() -> None:
    pages = sorted((DOCS / "experiments").glob("*.md"))
    assert len(pages) == 9
    for page in pages:
        chart = page.with_suffix(".svg")
        head = page.read_text("utf-8").partition("\n|")[0]
        assert f"]({chart.name})" in head
        assert words(chart)
        assert chart.stat().st_size < 40_000
