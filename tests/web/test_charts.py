"""The charts of the documentation, on the site that `make docs` built."""

from base64 import b64encode
from pathlib import Path

import pytest
from playwright.sync_api import expect

DOCS = Path(__file__).parents[2] / "docs"
WITH_CHARTS = (
    page for page in DOCS.rglob("*.md") if ".svg)" in page.read_text("utf-8")
)
PAGES = sorted(f"{page.relative_to(DOCS).with_suffix('')}/" for page in WITH_CHARTS)
PAGES = [name.removesuffix("index/") for name in PAGES]
GRAYS = """async (png) => {
    const image = new Image();
    image.src = `data:image/png;base64,${png}`;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
    canvas.drawImage(image, 0, 0);
    const { data } = canvas.getImageData(0, 0, image.width, image.height);
    const greens = data.filter((_, i) => i % 4 === 1).sort();
    return [0, 0.5, 1].map((part) => greens[Math.round(part * (greens.length - 1))]);
}"""
"""The darkest, the median and the lightest pixel, by their green value."""


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_shows_a_chart_in_both_schemes(browser, address, name):
    """With the site's own toggle, for any system setting."""
    phone = {"width": 360, "height": 800}
    with browser.new_context(viewport=phone) as context:
        blank, page = context.new_page(), context.new_page()
        page.goto(f"{address}{name}")
        chart = page.locator("article p > img").first
        assert len(chart.get_attribute("alt") or "") > 20
        grays = {}
        for scheme in ("default", "slate"):
            expect(page.locator("body")).to_have_attribute(
                "data-md-color-scheme", scheme
            )
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            grays[scheme] = blank.evaluate(
                GRAYS, b64encode(chart.screenshot()).decode()
            )
            page.locator("[data-md-component=palette] label:visible").click()
        (ink, ground, _), (_, dark_ground, light_ink) = grays.values()
        assert (ground, dark_ground) == (255, pytest.approx(33, abs=20))
        assert min(ground - ink, light_ink - dark_ground) > 150
