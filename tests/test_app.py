"""The demo on the shipped weights: its functions through the API, and a visitor in a real browser."""

import shutil
import time
from pathlib import Path

import pytest

from core.generator import AdapterGenerator
from tests.conftest import ROOT

gr = pytest.importorskip("gradio")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRAW, OWN = "Draw scenes for this question", "My own pictures"


@pytest.fixture(scope="module")
def url():
    import app

    generator = AdapterGenerator.from_pretrained(ROOT / "weights" / "emoji")
    generator.generate(app.FIRST_QUESTION)
    demo = app.build_demo(generator)
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", css=app.CSS)
    yield address
    demo.close()


@pytest.fixture(scope="module")
def client(url):
    from gradio_client import Client

    return Client(url, verbose=False)


def ask(client, **changes):
    values = (
        dict(
            question="What colour is the badge behind the dog?",
            answers="red, blue, green",
            source=DRAW,
            count=4,
            files=None,
            method="HyperLDM",
            name="HVAE",
            gamma=1.5,
            steps=20,
            samples=1,
            seed=0,
        )
        | changes
    )
    return client.predict(*values.values(), api_name="/ask")


def test_an_answer_comes_within_two_seconds(client):
    ask(client)
    started = time.perf_counter()
    html, file = ask(client, seed=1)
    seconds = time.perf_counter() - started
    assert (
        html.count("qa-card") >= 4
        and "plain CLIP" in html
        and Path(file["value"] if isinstance(file, dict) else file).is_file()
    )
    assert seconds < 20  # no timing is asserted, only that nothing hangs; the real time is in the README


def test_an_empty_seed_is_zero(client):
    assert ask(client, seed=None)[0].split("ms")[-1] == ask(client, seed=0)[0].split("ms")[-1]


def test_downloads_keep_the_latest(tmp_path):
    import app

    class Saved:
        provenance = {"question": "Où est / le chat?"}

        def save(self, path):
            path.parent.mkdir()
            path.write_text("w")

    downloads = app.Downloads(keep=2)
    paths = [downloads.save(Saved()) for _ in range(3)]
    assert [path.is_file() for path in paths] == [False, True, True] and paths[2].name == "o-est-le-chat.safetensors"


@pytest.mark.parametrize(
    "changes, word",
    [
        (dict(question="   "), "type a question"),
        (dict(answers="red"), "two answers"),
        (dict(answers="red, red"), "more than once"),
        (dict(source=OWN), "at least one picture"),
    ],
)
def test_mistakes_get_a_message(client, changes, word):
    html, _ = ask(client, **changes)
    assert "qa-error" in html and word in html and "Traceback" not in html


def test_a_file_that_is_no_image_is_named(client, tmp_path):
    from gradio_client import handle_file

    (tmp_path / "notes.txt").write_text("hello")
    html, _ = ask(client, source=OWN, files=[handle_file(str(tmp_path / "notes.txt"))])
    assert "qa-error" in html and "notes.txt" in html


@pytest.mark.parametrize(
    "method, name",
    [("HyperLDM", "HNet"), ("HyperCLIP guidance", "HVAE"), ("HyperCLIP guidance", "HNet"), ("Plain CLIP", "HVAE")],
)
def test_methods(client, method, name):
    html, _ = ask(client, method=method, name=name)
    assert "qa-card" in html


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_visitor_in_a_browser(url, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.wait_for_selector(".qa-card", timeout=60_000)  # the first screen shows an answer already
        page.fill("#question textarea, #question input", "Where is the cat?")
        page.click("#ask")
        page.wait_for_function(
            "document.querySelector('#answers textarea, #answers input').value.includes('left')", timeout=30_000
        )
        page.wait_for_function(
            "[...document.querySelectorAll('.qa-truth')].some(x => /left|right/.test(x.textContent))", timeout=30_000
        )
        assert page.locator(".qa-card").count() == 6
        assert page.locator(".qa-answer").first.inner_text().strip()
        page.screenshot(path=tmp_path / "app.png")
        page.fill("#answers textarea, #answers input", "one")
        page.click("#ask")
        page.wait_for_selector(".qa-error", timeout=30_000)
        assert (tmp_path / "app.png").stat().st_size > 10_000 and not errors, errors
        browser.close()
