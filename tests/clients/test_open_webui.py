"""Open WebUI, in Chromium."""

import os
import shutil

from playwright.sync_api import sync_playwright

from tests.clients.conftest import KEY, ROOT, running

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
SETTINGS = {
    "OPENAI_API_KEY": KEY,
    "ENABLE_OLLAMA_API": "false",
    "WEBUI_AUTH": "false",
    "WEBUI_SECRET_KEY": KEY,
    "DEFAULT_MODEL_PARAMS": '{"max_tokens": 24}',
    # Neither a model for documents, nor news:
    "RAG_EMBEDDING_ENGINE": "openai",
    "OFFLINE_MODE": "true",
}


def test_a_chat(proxy, tmp_path):
    """With all the tools that it offers by default."""
    serve = ROOT / ".venv-webui" / "bin" / "open-webui", "serve", "--host", "127.0.0.1"
    environ = {"OPENAI_API_BASE_URL": proxy, "DATA_DIR": str(tmp_path), **SETTINGS}
    assert CHROMIUM, "there is no chromium here: install it, or set CHROMIUM to one"
    with (
        running(tmp_path / "log", *serve, "--port", "PORT", **environ) as address,
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        ) as browser,
    ):
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(300_000)
        news = page.get_by_role("button", name="Okay, Let's Go!")
        page.add_locator_handler(news, lambda button: button.click())
        page.goto(f"http://{address}/")
        page.locator("#chat-input").click()
        page.keyboard.type("Why is the sea salty?")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Good Response").wait_for()  # it has ended
        said = page.locator(".chat-assistant").inner_text()
        assert len(said.split()) > 5
        assert "can't be used" not in said
