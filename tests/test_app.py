"""The demo on the shipped weights: through its API, and as visitors in a real browser see it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from urllib.parse import urlencode

import pytest

from app import build_demo, main
from core.data.emoji.dataset import draw_scenes_for_question
from core.demo.views import about
from core.generator import AdapterGenerator
from core.release.manifest import list_anew
from eval import app_load
from eval.demo.pages import CHROMIUM_FLAGS, DESKTOP, PHONE
from tests.conftest import ROOT, launch
from tests.fuzz import texts

gr = pytest.importorskip("gradio")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser_test = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
QUESTION = "What colour is the badge behind the dog?"
TABS = ("Ask", "Guidance", "Refine", "What is this adapter for?", "Compare", "Results", "About")


@pytest.fixture(scope="module")
def demo():
    return build_demo(AdapterGenerator.from_pretrained(ROOT / "weights" / "emoji"))


@pytest.fixture(scope="module")
def url(demo):
    yield launch(demo)
    demo.close()


@pytest.fixture(scope="module")
def client(url):
    from gradio_client import Client

    return Client(url, verbose=False)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    draw_scenes_for_question(QUESTION, 1)[0][0].save(path)
    return path


def test_results_of_another_preset_are_not_shown_as_this_release_s(demo):
    from core.demo.layout.results import results_tab

    def shown(blocks):
        return {block.elem_id for block in blocks.blocks.values() if str(block.elem_id).startswith("results-")}

    assert shown(demo) == {"results-table1", "results-links", "results-figure5"}
    with gr.Blocks() as other:
        results_tab(ROOT / "eval" / "results", "metavqa")
    assert not shown(other)
    assert "--preset metavqa" in " ".join(str(getattr(block, "value", "")) for block in other.blocks.values())


def test_a_port_that_is_taken_is_named(monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own
    with socket.socket() as taken, pytest.raises(SystemExit):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        main(["--weights", str(ROOT / "weights" / "emoji"), "--port", str(taken.getsockname()[1])])
    said = capsys.readouterr().err
    assert "error: --host, --port: " in said and "empty port" in said


# Programs


def test_endpoints_are_named_typed_and_documented(client):
    told = client.view_api(return_format="dict")["named_endpoints"]
    assert set(told) == {f"/{name}" for name in (
        "suggest_answers", "generate", "classify", "try_on_scenes", "infer_question", "compare_questions"
    )}  # fmt: skip
    for name, endpoint in told.items():
        assert endpoint["description"], name
        for value in endpoint["parameters"] + endpoint["returns"]:
            assert value["python_type"]["type"] not in ("", "Any"), (name, value)


def test_the_snippet_of_the_about_tab_runs(url, picture):
    code = about.snippet(url, QUESTION)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=picture.parent, capture_output=True, text=True, timeout=60, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert "black" in done.stdout and ".safetensors" in done.stdout


def test_what_programs_get_is_what_the_generator_says(client, picture):
    from gradio_client import handle_file

    answers = ["red", "black", "white"]
    (record,) = client.predict(QUESTION, answers, [handle_file(str(picture))], seed=3, api_name="/classify")
    generator = AdapterGenerator.from_pretrained(ROOT / "weights" / "emoji")
    alone = generator.generate(QUESTION, seed=3).classify(picture, answers)
    assert record["answer"] == alone["answer"].iloc[0]
    assert record["probability"] == pytest.approx(alone["probability"].iloc[0], abs=1e-4)
    told = client.predict(QUESTION, answers, 16, 5, api_name="/try_on_scenes")
    kept = [i for i, truth in enumerate(told["truths"]) if truth in answers]
    for method, given in told["answers"].items():
        right = sum(given[i] == told["truths"][i] for i in kept)
        assert told["accuracy"][method] == pytest.approx(right / len(kept))
    file = client.predict(QUESTION, seed=3, api_name="/generate")
    assert len(client.predict(handle_file(file), 3, api_name="/infer_question")) == 3
    assert client.predict([QUESTION, "Where is the cat?"], api_name="/compare_questions")["adapters"][0][0] > 0.99


@pytest.mark.parametrize(
    "endpoint, arguments, word",
    [
        ("/suggest_answers", ["  "], "type a question"),
        ("/try_on_scenes", [QUESTION, ["a"]], "two answers"),
        ("/classify", [QUESTION, ["a", "b"], [], "hyperldm"], "at least one picture"),
        ("/generate", [QUESTION, "magic"], "allowed: hyperldm"),
        ("/generate", [QUESTION, "clip"], "no adapter weights"),
        ("/generate", [QUESTION, "hyperldm", 99.0], "gamma"),
        ("/generate", [QUESTION, "hyperldm", 1.0, -1], "seed"),
        ("/try_on_scenes", [QUESTION, ["a", "b"], 1000], "1 to 64"),
        ("/compare_questions", [["only one?"]], "2 to 12"),
    ],
)
def test_programs_get_clear_errors(client, endpoint, arguments, word):
    with pytest.raises(Exception, match=re.escape(word)):
        client.predict(*arguments, api_name=endpoint)


def test_whatever_strangers_send_gets_an_answer_or_a_message(url):
    outcomes = Counter(texts.check(case, url) for case in texts.cases(seed=2, count=40))
    assert outcomes["result"] > 4 and outcomes["refused"] > 4


def test_only_uploads_are_read(url):
    import httpx

    for path in (ROOT / "weights" / "emoji" / "mnet_maml.safetensors", "/etc/hosts"):
        for meta in ({}, {"meta": {"_type": "gradio.FileData"}}):
            posted = httpx.post(
                f"{url}gradio_api/call/infer_question", json={"data": [{"path": str(path), **meta}, 3]}
            ).json()
            answer = httpx.get(f"{url}gradio_api/call/infer_question/{posted['event_id']}", timeout=30).text
            assert "event: error" in answer and "question" not in answer


def test_visitors_of_the_load_test_ask_as_the_page_does(demo, url):
    settings = app_load.page_settings(AdapterGenerator.from_pretrained(ROOT / "weights" / "emoji"))
    components = demo.get_config_file()["components"]
    begins = {c["props"].get("label"): c["props"].get("value") for c in components if c["props"].get("label")}
    labels = {"methods": "Methods side by side", "gamma": "Guidance strength gamma", "steps": "Sampling steps"}
    for name, label in (labels | {"samples": "Samples to average"}).items():
        assert settings[name] == begins[label], name
    waits, failures = app_load.load(url, 2, 3, settings)
    assert not failures and len(waits) == 2 and min(waits) > 0


def test_summary_and_judgement_of_the_load_test():
    found = app_load.summary([float(i) for i in range(20, 0, -1)], ["visitor 3: late"])
    assert found == {"median": 10.5, "95%": 19, "longest": 20, "failed": 1}
    clip = {"method": "clip", "api": 0.5, "support_and_query": 0.5}
    ours = {"method": "hyperldm", "api": 0.7, "support_and_query": 0.715}
    assert app_load.agree([ours, clip])
    assert not app_load.agree([ours | {"support_and_query": 0.73}, clip])
    assert not app_load.agree([ours, clip | {"api": 0.7}])


@pytest.fixture
def launched(monkeypatch):
    """What `app.main` would launch, from which weights, and what it does then, in place of launching it."""
    found = {}

    class Demo:
        def queue(self, max_size):
            return self

        def launch(self, **arguments):
            found.update({key: arguments[key] for key in ("server_name", "server_port", "mcp_server")})

        def block_thread(self):
            found["then"].append("serve")

    class World:
        def warm(self):
            assert "server_name" in found  # the page is up
            found.setdefault("then", []).append("warm")

    def load(cls, weights, device):
        found.setdefault("weights", []).append(weights)

    monkeypatch.setattr("core.demo.studio.open_worlds", lambda generators: [World() for _ in generators])
    monkeypatch.setattr("core.demo.layout.page.build_demo", lambda studios, results: Demo())
    monkeypatch.setattr(AdapterGenerator, "from_pretrained", classmethod(load))
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: "there")
    monkeypatch.delenv("MCP", raising=False)
    return found


def test_flags_and_environment_say_what_is_served(launched, monkeypatch):
    import app

    app.main([])  # as a Space does: Gradio reads GRADIO_SERVER_NAME and GRADIO_SERVER_PORT where these are None
    served = {"weights": app.WEIGHTS, "server_name": None, "server_port": None, "mcp_server": False}
    assert launched == served | {"then": [*["warm"] * len(app.WEIGHTS), "serve"]}
    monkeypatch.setenv("MCP", "1")
    launched.clear()
    app.main(["--weights", "user/repo", "--weights", "a/folder", "--host", "0.0.0.0", "--port", "8000"])
    expected = {"weights": ["user/repo", "a/folder"], "server_name": "0.0.0.0", "server_port": 8000, "mcp_server": True}
    assert launched == expected | {"then": ["warm", "warm", "serve"]}
    monkeypatch.setenv("MCP", "0")
    app.main(["--mcp"])
    assert launched["mcp_server"]


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--wieghts", "x"], "unrecognized arguments: --wieghts"),
        (["--port", "99999"], "--port 99999; allowed: 1 to 65535"),
        (["--mcp"], "pip install 'gradio[mcp]'"),
        (["--weights", "no/such/release@@"], "--weights (or HF_WEIGHTS) no/such/release@@: "),
    ],
)
def test_bad_flags_are_named(arguments, word, monkeypatch, capsys):
    import app

    monkeypatch.setattr("core.demo.layout.page.build_demo", lambda *_: pytest.fail("served all the same"))
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("MCP", raising=False)
    with pytest.raises(SystemExit):
        app.main(arguments)
    assert word in capsys.readouterr().err


def test_a_release_whose_backbone_is_damaged_is_one_line(tmp_path, monkeypatch, capsys):
    """It is not read before the page is up."""
    import app

    monkeypatch.setattr(gr.Blocks, "launch", lambda demo, **_: None)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    shutil.copytree(ROOT / "weights" / "emoji", tmp_path / "release", ignore=shutil.ignore_patterns("*.safetensors"))
    for said in ("is incomplete: 'backbone/open_clip_model.safetensors' is missing", "backbone: no weights there"):
        with pytest.raises(SystemExit) as ended:
            app.main(["--weights", str(tmp_path / "release")])
        assert ended.value.code == 2 and said in capsys.readouterr().err
        list_anew(tmp_path / "release")


def test_help_starts_nothing(monkeypatch, capsys):
    import app

    monkeypatch.setattr("core.demo.layout.page.build_demo", lambda *_: pytest.fail("served all the same"))
    with pytest.raises(SystemExit) as ended:
        app.main(["--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(word in said for word in ("--weights", "--host", "--port", "HF_WEIGHTS", "GRADIO_SERVER_PORT", "memory"))


def test_a_release_of_another_dataset_is_served_without_drawing(tmp_path):
    release = tmp_path / "own release"
    shutil.copytree(ROOT / "weights" / "emoji", release, copy_function=os.symlink)
    generator = AdapterGenerator.from_pretrained(release)
    (release / "known_questions.safetensors").unlink()  # embeddings of other questions
    questions = [{"question": f"Which plankton is {i}?", "answers": ["krill", "copepod"]} for i in range(870)]
    own = {"dataset": "plankton", "preset": "tiny-plankton", "questions": questions}
    generator.config = generator.config | own
    config = json.dumps(build_demo(generator).get_config_file(), default=str)
    assert "trained on **plankton**, 870 questions" in config and "Which plankton is 0?" in config
    assert not re.search("emoji|badge behind|the dog|of scenes", config.replace("HuggingFace", ""), re.IGNORECASE)
    command = f"eval/table1.py --weights '{release}' --json '{release}/results/table1.json'"
    assert command in config.replace("&#39;", "'") and "--preset" not in config
    assert "try_on_scenes" not in config and "drawn scenes" not in config
    hidden = [c["props"] for c in json.loads(config)["components"] if c["props"].get("label") == "How many scenes"]
    assert hidden and not any(props["visible"] for props in hidden)


# People


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, url, capfd):
    """Opens pages; at the end none may have logged an error, nor the server a traceback."""
    errors: list[str] = []
    pages = []

    def opened(size=DESKTOP, query=""):
        page = chromium.new_page(viewport=size)
        page.set_default_timeout(40_000)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url + query)
        page.wait_for_selector("#result .qa-card")  # the first screen shows an answer already
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert not errors, errors
    assert "Traceback" not in "".join(capfd.readouterr())


def _open(page, tab: str) -> None:
    button = page.get_by_role("tab", name=tab, exact=True)
    if not button.first.is_visible():
        page.locator(".overflow-menu > button").first.click()
        button = page.locator(".overflow-dropdown button", has_text=tab)
    button.first.click()


def _fill(page, element: str, text: str) -> None:
    page.fill(f"#{element} textarea, #{element} input", text)


@browser_test
def test_a_visitor_asks(visit, tmp_path):
    page = visit()
    assert page.locator("#result .qa-tile").count() == 4 and "of 6 right" in page.inner_text("#result")
    _fill(page, "ask-question", "Where is the cat?")
    page.wait_for_function("document.querySelector('#ask-answers textarea').value.includes('left')")
    page.keyboard.press("Enter")  # the question has the focus
    page.wait_for_function("/left|right/.test(document.querySelector('#result .qa-truth').textContent)")
    assert "this visit" in page.inner_text("#result") and "of 12" in page.inner_text("#result")  # the score runs on
    page.wait_for_function("location.search.includes('question=Where+is+the+cat')")
    link = page.url
    page.get_by_role("button", name="New scenes").click()
    page.wait_for_function("document.querySelector('#result').textContent.includes('of 18')")
    page.wait_for_function("location.search.includes('seed=1')")

    # own pictures, one of them no picture
    for i, (image, _) in enumerate(draw_scenes_for_question("Where is the cat?", 2)):
        image.save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_text("no picture", encoding="utf-8")
    page.get_by_label("My own pictures").first.check()
    page.set_input_files("#ask-pictures input[type=file]", [tmp_path / "0.png", tmp_path / "1.png"])
    page.wait_for_selector("#ask-pictures img")
    page.click("#ask")
    page.wait_for_function("document.querySelectorAll('#result .qa-card').length == 2")
    assert page.locator("#result .qa-truth").count() == 0

    for answers, word in (("one", "two answers"), ("a, a", "more than once")):
        _fill(page, "ask-answers", answers)
        page.click("#ask")
        page.wait_for_selector(f"#result .qa-error:has-text('{word}')")
    _fill(page, "ask-question", "   ")
    page.click("#ask")
    page.wait_for_selector("#result .qa-error:has-text('type a question')")

    # the link brings the question back, and says what it cannot use
    again = visit(query=f"?{link.split('?')[1]}&gamma=lots")
    assert again.input_value("#ask-question textarea") == "Where is the cat?"
    again.wait_for_selector("text=is left out")


COLOURS, NUMBERS = {"black", "blue", "green", "red", "white", "yellow"}, {"one", "two", "three", "four"}
STRANGERS = {  # questions as people type them, with answers of which most must be suggested
    "what color is the sign behind the puppy": COLOURS,
    "Could you please tell me what colour the badge behind the dog is": COLOURS,
    "hey whats the background color with the pizza??": COLOURS,
    "I WONDER WHERE THE CAT IS": {"top left", "top right", "bottom left", "bottom right"},
    "um, so where would I find the banana?": {"top left", "top right", "bottom left", "bottom right"},
    "which shape do you see behind the guitar": {"circle", "square", "triangle", "star"},
    "How large would you say the apple is?": {"small", "medium", "large"},
    "i'd like to know how many fruit there are": NUMBERS,
    "tell me what kinda thing is beside the car": {"animal", "bird", "dish", "drink", "fruit", "tool"},
    "what animal can you spot in here": {"dog", "cat", "bee", "lion", "frog", "horse", "rabbit", "owl"},
}


@browser_test
def test_strangers_ask_in_their_own_words(visit):
    """Answers of the right kind are suggested, the page answers, and it does not call the question strange."""
    page = visit()
    suggested = """kind => document.querySelector('#ask-answers textarea').value.split(', ')
        .filter(answer => kind.includes(answer)).length >= 2"""
    for question, answers in STRANGERS.items():
        _fill(page, "ask-question", question)
        page.wait_for_function(suggested, arg=sorted(answers))
        page.keyboard.press("Enter")
        page.wait_for_function("asked => location.search.includes(asked)", arg=urlencode({"question": question}))
        page.wait_for_function("document.querySelectorAll('#result .qa-card').length > 0")
        assert page.locator("#result .qa-notice").count() == 0, question
    page.get_by_role("button", name="New scenes").wait_for()


@browser_test
def test_a_visitor_sees_guidance_refinement_inference_and_similarity(visit, tmp_path):
    page = visit()
    _open(page, "Guidance")
    page.click("#guide")
    page.wait_for_selector("#plane svg")
    assert page.locator("#curves circle").count() == 26 and page.locator("#plane .way").count() == 4
    _fill(page, "guidance-answers", "one")
    page.click("#guide")
    page.wait_for_selector("#curves .qa-error")

    _open(page, "Refine")
    page.locator("#examples-count input[type=number]").fill("5")
    page.click("#refine")
    page.wait_for_selector("#refined .qa-card")
    assert "5 examples" in page.inner_text("#refined")
    page.get_by_label("My own pictures").last.check()
    page.click("#refine")
    page.wait_for_selector("#curve .qa-error")

    _open(page, "What is this adapter for?")
    page.click("#identify")
    page.wait_for_selector("#identified .qa-error:has-text('choose an adapter file')")
    page.click("#identify-example")
    page.wait_for_selector("#identified .qa-ranked li")
    (tmp_path / "wrong.safetensors").write_text("hello", encoding="utf-8")
    page.get_by_label("Remove this file").or_(page.get_by_label("Clear")).first.click()
    page.set_input_files("#adapter-file input[type=file]", tmp_path / "wrong.safetensors")
    page.wait_for_selector("text=wrong")
    page.click("#identify")
    page.wait_for_selector("#identified .qa-error:has-text('wrong.safetensors')")

    _open(page, "Compare")
    page.click("#compare")
    page.wait_for_selector("#compared .qa-heat", timeout=90_000)
    _fill(page, "questions", "only one?")
    page.click("#compare")
    page.wait_for_selector("#compared .qa-error")


@browser_test
def test_a_phone_in_the_dark(visit):
    page = visit(PHONE, "?__theme=dark")
    assert page.evaluate("document.body.classList.contains('dark')")
    for tab in TABS:
        _open(page, tab)
        page.wait_for_timeout(150)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], tab


@browser_test
def test_the_about_tab_fits_a_phone_and_names_the_address_of_the_page(visit, url):
    page = visit(PHONE)
    _open(page, "About")
    page.wait_for_function("url => document.querySelector('#snippet').textContent.includes(url)", arg=url.rstrip("/"))
    shown = [box for box in (svg.bounding_box() for svg in page.locator(".qa-method").all()) if box]
    assert len(shown) == 1 and shown[0]["x"] >= 0 and shown[0]["x"] + shown[0]["width"] <= PHONE["width"]


@browser_test
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_tables_fit_beside_their_words(visit, size):
    """Probabilities of four methods in a card, and similarities of as many questions as are allowed, long ones."""
    wide = "name => [...document.querySelectorAll(`${name} .qa-scroll`)].map(box => box.scrollWidth - box.clientWidth)"
    page = visit(size)
    page.locator("#result summary").first.click()
    assert page.evaluate(wide, "#result .qa-card:first-child") == [0]
    _open(page, "Compare")
    _fill(page, "questions", "\n".join(f"What is behind the dog with the {i} very long words?" for i in range(12)))
    page.click("#compare")
    page.wait_for_selector("#compared .qa-heat", timeout=90_000)
    assert page.evaluate(wide, "#compared") == [0, 0]


@browser_test
def test_everything_has_a_name_and_a_readable_contrast(visit):
    """For people who hear the page or see it poorly: every control has a name; text stands out from its ground."""
    page = visit()
    for tab in TABS[:5]:
        _open(page, tab)
        page.wait_for_timeout(150)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('input, textarea, button, select')]
            .filter(e => e.offsetParent && e.type !== 'file' && e.type !== 'hidden')
            .filter(e => !(e.labels?.length || e.ariaLabel || e.title || e.textContent.trim() || e.closest('label')
              || e.getAttribute('aria-labelledby'))).map(e => e.outerHTML.slice(0, 200))"""
        )
        assert not nameless, (tab, nameless)
        assert page.evaluate("[...document.querySelectorAll('img')].every(i => !i.offsetParent || i.alt)"), tab
    faint = page.evaluate(
        """() => {
        const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const light = colour => {
          const [r, g, b] = colour.match(/[\\d.]+/g).map(v => linear(v / 255));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        return [...document.querySelectorAll('.qa-hint, .qa-lead p, .qa-header p, .who, .name')]
            .filter(e => e.offsetParent)
            .map(e => [e.className, 1.05 / (light(getComputedStyle(e).color) + 0.05)])
            .filter(([, ratio]) => ratio < 4.5);
        }"""
    )
    assert not faint, faint


@browser_test
def test_text_of_strangers_stays_text(chromium, tmp_path):
    """A release, a link and files of someone who would like the page to show their HTML or run their script."""
    from core.demo.layout.page import LAUNCH

    hostile = """<img src=x onerror="window.ran=1"> <h1>Log in</h1> '{{ 7*7 }} ${7*7} @children **b** </title></p>"""
    generator = AdapterGenerator.from_pretrained(ROOT / "weights" / "emoji")
    known = [
        {"question": f"{k['question']} {hostile}", "answers": [a + hostile for a in k["answers"]], "family": hostile}
        for k in generator.known_questions[:20]
    ]
    generator.config |= {"dataset": hostile, "preset": hostile, "questions": known}
    del generator.known_questions  # they were read from the config before
    vars(generator)["_stored"] = None  # embeddings of other questions
    demo = build_demo(generator)
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **LAUNCH)
    draw_scenes_for_question(QUESTION, 1)[0][0].save(tmp_path / "<img src=x>.png")
    (tmp_path / "<img src=x>.safetensors").write_text("no adapter", encoding="utf-8")
    page = chromium.new_page(viewport=DESKTOP)
    try:
        page.goto(address + "?" + urlencode(dict.fromkeys(("question", "answers", "method", "gamma", "seed"), hostile)))
        page.wait_for_selector("text=is left out")
        assert page.locator("h1").count() == 1 and page.locator("img[src=x]").count() == 0  # warnings go after a while
        answer = """<img src=x onerror="window.ran=1">"""  # all of `hostile` is more than the text tower reads
        _fill(page, "ask-answers", f"{answer}, b")
        page.set_input_files("#ask-pictures input[type=file]", tmp_path / "<img src=x>.png")
        page.wait_for_selector("#ask-pictures img")
        page.click("#ask")
        page.wait_for_selector("#result .qa-card")
        assert page.text_content("#result tbody th >> nth=0") == answer
        _open(page, "Compare")
        _fill(page, "questions", f"{hostile}\n{QUESTION}")
        page.click("#compare")
        page.wait_for_selector("#compared .qa-heat", timeout=90_000)
        _open(page, "What is this adapter for?")
        page.click("#identify-example")
        page.wait_for_selector("#identified .qa-ranked li")
        assert hostile in page.inner_text("#identified .qa-ranked .text >> nth=0")
        page.locator("#adapter-file").get_by_label(re.compile("Remove this file|Clear")).first.click()
        page.set_input_files("#adapter-file input[type=file]", tmp_path / "<img src=x>.safetensors")
        page.wait_for_selector("#adapter-file :text('.safetensors')")
        page.click("#identify")
        page.wait_for_selector("#identified .qa-error")
        for tab in ("Results", "About"):
            _open(page, tab)
            page.wait_for_selector(f".qa-{'source' if tab == 'Results' else 'about'}:visible")
            assert hostile in page.inner_text("body")
        assert page.locator("h1").count() == 1  # the page's own
        assert page.locator("img[src=x]").count() == 0 and page.evaluate("window.ran") is None
    finally:
        page.close()
        demo.close()
