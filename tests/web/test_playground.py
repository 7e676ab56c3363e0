"""The playground of the documentation, on the site that `make docs` built."""

import json
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

import sqs_codec as sqs
from sqs_codec import theory
from sqs_codec._codec.keep import count_kept, limits_of
from tests.drafts import LOGIT_UNIT, load_drafts, load_languages
from tests.kit import KEEPS
from tests.reference.entropy import Memory, Meter, code_distribution
from tests.reference.prior import parse

DOCS = Path(__file__).parents[2] / "docs"
VALUES = {"top_k": (1, 8, 64, 256), "threshold": (0.1, 0.01, 1e-4)}
ROWS = 200
MEASURE = """async (given) => {
    const { Row, measure } = await import(new URL("playground.js", location));
    const { load } = await import(new URL("sqs.mjs", location));
    const bytes = async (name) =>
        new Uint8Array(await (await fetch(new URL(name, location))).arrayBuffer());
    const sqs = await load(await bytes("sqs.wasm")), priors = {};
    for (const model of ["smollm2", "gemma3"])
        priors[model] = new sqs.Prior(await bytes(`${model}.sqsprior`));
    return given.map(([row, setting]) => {
        const found = measure(sqs, new Row(row), setting, priors[row.model]);
        return { ...found, packet: [...found.packet], q: null, sent: null };
    });
}"""


@pytest.fixture
def page(browser, address):
    """Open the playground; nothing may come from elsewhere, or complain."""
    with browser.new_context() as context:
        page = context.new_page()
        seen = []
        page.on("console", lambda said: seen.append(said.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda asked: seen.append(asked.url))
        page.goto(f"{address}playground/")
        expect(page.locator("#said")).not_to_be_empty()
        yield page
        assert [one for one in seen if not one.startswith(address)] == []


def shipped():
    """Give real rows of both models, as rows.json has them."""
    found = []
    for model, rows in (("smollm2", load_drafts()), ("gemma3", load_languages())):
        for at in np.linspace(0, len(rows) - 1, ROWS // 2).astype(int).tolist():
            ids = rows.ids[at]
            other = np.setdiff1d(np.arange(ids.size + 1), ids)[0]
            logits = np.rint(rows.logits[at] / LOGIT_UNIT).astype(int)
            rest = float(rows.row(at)[other])
            row = {"ids": ids.tolist(), "logits": logits.tolist(), "rest": rest}
            found.append({"model": model, **row})
    return found


def dense(row):
    """Make the logits of a row of rows.json."""
    size = {"smollm2": 49_152, "gemma3": 262_144}[row["model"]]
    logits = np.full(size, row["rest"], np.float32)
    logits[row["ids"]] = np.array(row["logits"], np.float32) * LOGIT_UNIT
    return logits


def settings(rng):
    """Draw settings of the controls."""
    rule = str(rng.choice([*KEEPS]))
    return {
        "keep": [rule, rng.choice(VALUES[rule]).item()],
        "temperature": rng.choice([0.1, 0.3, 0.7, 1.0, 1.2]).item(),
        "resolution": rng.choice([10, 50, 100, 300, 1000]).item(),
        "withPrior": bool(rng.integers(2)),
    }


def priced(codec, q, known):
    """The bits of a packet by label, from the reference's meter."""
    meter = Meter()
    given = q.token_ids.tolist(), q.counts.tolist()
    code_distribution(
        meter, codec.vocab_size, codec.resolution, Memory(), *given, prior=known
    )
    return {label: cost / 2**32 for label, cost in meter.costs.items()}


def test_figures_match_python_on_200_rows(page):
    rng = np.random.default_rng(25)
    given = [(row, settings(rng)) for row in shipped()]
    priors = {model: sqs.Prior.builtin(model) for model in ("smollm2", "gemma3")}
    answers = page.evaluate(MEASURE, given)
    parsed = parse(priors["smollm2"].to_bytes())
    for i, ((row, setting), found) in enumerate(zip(given, answers, strict=True)):
        logits, prior = dense(row), priors[row["model"]]
        size, resolution = logits.size, setting["resolution"]
        known, other = (prior, None) if setting["withPrior"] else (None, prior)
        rule, value = setting["keep"]
        keep = KEEPS[rule](value)
        codec = sqs.Codec(size, resolution, prior=known)
        q = codec.quantize(logits, keep, temperature=setting["temperature"])
        assert bytes(found["packet"]) == codec.encode(q), setting

        probs = np.exp(logits.astype(np.float64) / setting["temperature"])
        probs /= probs.sum()
        kept = int(count_kept(*limits_of(keep), np.sort(probs)[::-1], np.int64(size)))
        assert found["kept"] == kept, setting
        lost = np.maximum(0.0, q.probs - probs[q.token_ids]).sum()
        assert found["tv"] == pytest.approx(lost, abs=1e-9)
        steered = rule != "top_k"
        assert [*found["others"].values()] == [
            8 * len(codec.encode(q)),
            8 * len(sqs.Codec(size, resolution, prior=other).encode(q)),
            8 * len(sqs.Codec(size, resolution, "enumerative").encode(q)),
            8 * len(sqs.Codec(size, resolution, "bitpack").encode(q)),
            theory.paper_bits(size, kept, resolution, conformal=steered),
            kept * (32 if size <= 1 << 16 else 48),  # fp16, and an id of 16 or 32 bits
        ]
        if i % 10 == 0 and row["model"] == "smollm2":  # the reference takes its time
            bits = priced(codec, q, parsed if setting["withPrior"] else None)
            parts = found["parts"]
            for name in ("arrangement", "class"):
                assert parts[name] == pytest.approx(bits.get(name, 0), abs=0.01), (
                    setting
                )
            padding = parts.pop("padding")
            assert 0 < padding < 16
            assert sum(parts.values()) == pytest.approx(sum(bits.values()), abs=0.01)
            assert sum(parts.values()) + padding == 8 * len(found["packet"])


def test_a_keyboard_is_enough(page):
    rows = json.loads((DOCS / "playground" / "rows.json").read_text("utf-8"))
    chosen = next(i for i, row in enumerate(rows) if row["what"] == "ar")
    page.get_by_label("Distribution").select_option(str(chosen))
    page.get_by_label("Keep rule").select_option("threshold")
    for label, key in (("Temperature", "ArrowRight"), ("Resolution", "End")):
        page.get_by_label(label).press(key)
    page.get_by_label("Prior").press("Space")
    codec = sqs.Codec(262_144, 1000)
    logits = dense(rows[chosen])
    q = codec.quantize(logits, sqs.Threshold(0.01), temperature=0.8)
    packet = codec.encode(q)
    expect(page.locator("#packet")).to_have_text(packet.hex(" "))
    assert "sqs.Threshold(0.01), temperature=0.8" in page.inner_text("#python")
    page.get_by_label("Prior").press("Space")
    page.get_by_role("slider", name="β").press("ArrowLeft")
    codec = sqs.Codec(262_144, 1000, prior=sqs.Prior.builtin("gemma3"))
    q = codec.quantize(logits, sqs.Threshold(0.02), temperature=0.8)
    packet = codec.encode(q)
    expect(page.locator("#packet")).to_have_text(packet.hex(" "))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1440])
def test_the_page_fits_the_screen(page, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.get_by_label("Distribution").select_option("16")
    page.get_by_label("Temperature").press("End")
    expect(page.locator("#said")).to_contain_text("of 262144")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    edges = page.locator("#try *").evaluate_all(
        "(all) => all.map((one) => one.getBoundingClientRect().right)"
    )
    code = page.locator("#python").evaluate("(one) => one.scrollWidth")
    assert max(edges) <= max(width, code)


def test_the_start_page_has_a_short_playground(browser, address):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        expect(page.locator("#said")).to_contain_text("Packet: 12 bytes")
        expect(page.locator("#tokens")).to_be_visible()
        expect(page.locator("#parts, #python").filter(visible=True)).to_have_count(0)
        policy = page.locator("meta[http-equiv=Content-Security-Policy]")
        expect(policy).to_have_count(1)
