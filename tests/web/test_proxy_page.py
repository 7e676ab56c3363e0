"""The page of ``sqs proxy``, over texts that are played."""

import asyncio
from contextlib import closing
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from sqs_codec import Sampling
from sqs_codec.system._endpoint.errors import ApiError
from sqs_codec.system.edge._metrics import EdgeMetrics
from sqs_codec.system.proxy import make_app
from sqs_codec.system.proxy._completer import Chunk
from tests.system.proxy.test_server import Endpoint, Played

TEXT = "The sea is salty as rivers carry salt \N{WATER WAVE} from <rocks> into it."
PLAN = "hints of 3 positions, 3 branches: 80 ms measured per token, alone 120 ms"
SECONDS = {None: 0.08, "alone": 0.12, "rounds": 0.15, "hints": 0.1}
"""Seconds per token."""


class Pages(Played):
    """Replaces a `Completer`. Every third token is the cloud's own."""

    def __init__(self):
        super().__init__()
        self.asked, self.seconds = [], 0.01

    async def write(self, request):
        self.asked.append(request)
        return await super().write(request)

    async def _play(self, answer):
        answer.prompt_tokens = 9
        figures = EdgeMetrics(bytes_up=700, bytes_down=150, mode="hints", reason=PLAN)
        if len(self.asked[-1].messages) == 1:
            figures.alone_tokens, figures.alone_seconds = 10.0, 1.2
        if self.asked[-1].mode:
            figures.reason = "hints of 3 positions: as asked"
        for i, word in enumerate(TEXT.split(" ")):
            drafted = i % 3 < 2 and self.asked[-1].mode in (None, "hints")
            figures = replace(
                figures,
                tokens=i + 1,
                drafted=i + 1,
                accepted=figures.accepted + drafted,
                bytes_up=figures.bytes_up + 20,
                seconds=0.1 + i * SECONDS[self.asked[-1].mode],
            )
            text, origin = " " * (i > 0) + word, "draft" if drafted else "cloud"
            answer.put(Chunk(text, origin, figures))
            await asyncio.sleep(self.seconds)
            if len(self.asked[-1].messages) > 2:
                answer.put(ApiError("the cloud is away", status=503))
                return
        answer.put(Chunk("", "cloud", figures, "stop", last=True))


@pytest.fixture
def played(request):
    """The played completer, and the address of the page."""
    completer = Pages()
    key = getattr(request, "param", None)
    app = make_app(completer, sampling=Sampling(0.6, 20), api_key=key)
    with closing(Endpoint(app, clients=1)) as endpoint:
        yield completer, f"http://127.0.0.1:{endpoint.port}/"


def opened(browser, url, **options):
    page = browser.new_page(**options)
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url))
    page.goto(url)
    return page, said


def say(page, message):
    page.get_by_label("Your message").fill(message)
    page.keyboard.press("Enter")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desktop", "phone"])
def test_a_chat(browser, played, scheme, size):
    completer, url = played
    viewport = {"width": size[0], "height": size[1]}
    page, said = opened(browser, url, color_scheme=scheme, viewport=viewport)
    page.keyboard.type("Why is the sea <b>salty</b>?")  # it has the focus
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    answer = page.locator(".said.assistant")
    expect(answer).to_have_text(TEXT)
    assert answer.locator(".draft").count() == 9
    assert answer.locator(".cloud").count() == 4
    expect(page.locator("#rate")).to_have_text("12.5")
    expect(page.locator("#alone")).to_have_text("8.3")
    expect(page.locator("#accepted")).to_have_text("69 % of 13")
    expect(page.locator("#up")).to_have_text("160 bits")
    expect(page.locator("#plan")).to_have_text(PLAN)
    expect(page.get_by_role("status")).to_contain_text("13 tokens, 12.5 per second")
    assert page.locator("#line").get_attribute("points")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert {text.startswith(url) for text in said} == {True}  # and nothing elsewhere
    temperature = page.get_by_label("Temperature")
    expect(temperature).to_have_attribute("placeholder", "0.6")
    expect(page.locator("#cuts")).to_have_text("top_k 20")
    for label in ("Your message", "Temperature", "Max tokens", "Seed"):
        assert page.get_by_label(label).count() == 1

    say(page, "And the lake?")
    expect(page.get_by_role("alert")).to_have_text("the cloud is away")
    expect(page.locator("#alone")).to_have_text("not measured")
    roles = [one["role"] for one in completer.asked[-1].messages]
    assert roles == ["user", "assistant", "user"]
    page.get_by_role("button", name="New chat").click()
    assert page.locator(".said").count() == 0
    completer.seconds = 1.0
    say(page, "Slowly")
    expect(page.locator(".said.assistant")).to_contain_text("The")
    page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_have_text("Stopped.")
    assert completer.answers[-1].gone.result(5) is None
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_three_modes_over_a_slow_link(browser, played, scheme, width):
    completer, url = played
    viewport = {"width": width, "height": 800}
    page, _ = opened(browser, url, color_scheme=scheme, viewport=viewport)
    page.get_by_role("switch", name="Compare the three modes").check()
    say(page, "Why is the sea salty?")
    result = page.locator(".race")
    expect(result).to_contain_text("hints were 1.20 times as fast, and rounds")
    expect(result).to_contain_text("rounds 0.80 times. Hints and alone gave the same")
    expect(result).to_contain_text("Simulated: the link (100 kbit/s up, 100 ms round")
    assert page.locator(".said.assistant").all_inner_texts() == [TEXT] * 3
    widths = page.locator(".race i").evaluate_all("all => all.map(i => i.style.width)")
    assert [round(float(each.strip("%"))) for each in widths] == [83, 67, 100]
    assert [asked.mode for asked in completer.asked] == ["alone", "rounds", "hints"]
    assert {asked.link for asked in completer.asked} == {(100_000, 0.1)}
    seeds = [asked.seed for asked in completer.asked]
    assert (seeds[0], seeds[1]) == (seeds[2], None)
    assert seeds[0] is not None
    expect(page.locator("#plan")).to_have_text("hints of 3 positions: as asked")
    assert page.locator("#ticks .tick-draft").count() == 9  # only of hints
    bottom = result.evaluate("result => result.getBoundingClientRect().bottom")
    top = page.locator("#ask").evaluate("form => form.getBoundingClientRect().top")
    assert bottom <= top + 1  # in sight
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # The chat goes on from one of the three, and without the switch as ever.
    page.get_by_role("switch").uncheck()
    say(page, "And the lake?")
    expect(page.get_by_role("alert")).to_have_text("the cloud is away")
    assert len(completer.asked[-1].messages) == 3
    assert (completer.asked[-1].mode, completer.asked[-1].link) == (None, None)
    page.close()


@pytest.mark.parametrize("played", ["a-key-of-the-tests"], indirect=True)
def test_the_page_asks_for_the_api_key(browser, played):
    page, _ = opened(browser, played[1])
    page.get_by_label("API key").fill("a-key-of-the-tests")
    say(page, "Why?")
    expect(page.locator(".said.assistant")).to_have_text(TEXT)
    page.get_by_label("API key").fill("another")
    page.get_by_label("Your message").fill("Why?")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("bearer token")
    page.close()
