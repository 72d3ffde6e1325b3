"""A page of two worlds: drawn scenes, and the same models said to be of photographs."""

import json
import re
from collections import Counter
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from PIL import Image

from app import build_demo
from core.data.emoji.dataset import draw_scenes_for_question
from core.data.images import read_image
from core.demo import pages
from core.demo.api import endpoints
from core.demo.link import read_world, write_js
from core.demo.studio import Studio, open_worlds
from core.demo.world import PHOTOS, describe
from core.generator import AdapterGenerator
from core.release.default import default_release, shipped_releases
from tests.conftest import ROOT, launch
from tests.test_app import CHROMIUM_FLAGS, DESKTOP, PHONE, _fill, browser_test, chromium  # noqa: F401

gr = pytest.importorskip("gradio")
DRAWN = "What colour is the badge behind the dog?"
KNOWN = {
    "What type of animal is this?": ["cat", "dog", "raccoon"],
    "What color is the cat?": ["black", "brown", "white"],
    "What is in the cup?": ["coffee", "tea", "milk"],
    "How many animals are there?": ["1", "2", "3"],
    "What time of day is this?": ["noon", "night", "evening"],
    "What room is this?": ["kitchen", "bathroom"],
    "Who is in the photo?": ["man", "woman"],
}


def photographs(least=None):
    """The shipped models with a config of photographs."""
    generator = AdapterGenerator.from_pretrained(ROOT / "weights" / "emoji")
    questions = [{"question": question, "answers": answers, "family": ""} for question, answers in KNOWN.items()]
    thresholds = {} if least is None else {"answer": least}
    generator.config |= {"dataset": "meta-vqa-photos", "preset": "photos", "questions": questions}
    generator.config["thresholds"] = thresholds
    vars(generator)["_stored"] = None  # embeddings of other questions
    return generator


@pytest.fixture(scope="module")
def generators():
    return photographs(), AdapterGenerator.from_pretrained(ROOT / "weights" / "emoji")


@pytest.fixture(scope="module")
def studios(generators):
    return open_worlds(generators)


@pytest.fixture(scope="module")
def demo(generators):
    return build_demo(*generators)


@pytest.fixture(scope="module")
def url(demo):
    yield launch(demo)
    demo.close()


@pytest.fixture(scope="module")
def client(url):
    from gradio_client import Client

    return Client(url, verbose=False)


def element_ids(demo):
    return Counter(block.elem_id for block in demo.blocks.values() if getattr(block, "elem_id", None))


# Worlds


def test_worlds_have_keys_and_titles_of_their_own(studios, monkeypatch):
    assert [(studio.key, studio.prefix, studio.title) for studio in studios] == [
        ("photos", "photos-", "Photographs"),
        ("emoji", "emoji-", "Drawn scenes"),
    ]
    assert studios[0].generator.question_encoder.encoder is studios[1].generator.question_encoder.encoder
    monkeypatch.setattr(Studio, "__init__", lambda studio, g: vars(studio).update(generator=g, title=describe(g).title))
    same = open_worlds([studios[1].generator] * 3)
    assert [studio.key for studio in same] == ["emoji", "emoji-2", "emoji-3"]
    assert [studio.title for studio in same] == ["Drawn scenes", "Drawn scenes (2)", "Drawn scenes (3)"]
    alone = open_worlds([studios[1].generator])
    assert [(studio.key, studio.prefix) for studio in alone] == [("", "")]


def test_shipped_releases_are_those_that_are_there(tmp_path, monkeypatch):
    assert shipped_releases()[-1] == default_release()
    monkeypatch.setattr("core.release.default._shipped", lambda folder: tmp_path / folder)
    assert shipped_releases() == [tmp_path / "weights" / "emoji"]
    (tmp_path / "weights" / "photos" / "data").mkdir(parents=True)
    assert len(shipped_releases()) == 1  # a dataset is no release
    (tmp_path / "weights" / "photos" / "config.json").write_text("{}", encoding="utf-8")
    assert shipped_releases() == [tmp_path / "weights" / name for name in ("photos", "emoji")]


def test_an_address_names_a_world():
    assert read_world({}, ["photos", "emoji"]) == ("photos", [])
    assert read_world({"world": "emoji"}, ["photos", "emoji"]) == ("emoji", [])
    found, (complaint,) = read_world({"world": "moon"}, ["photos", "emoji"])
    assert found == "photos" and "'moon' is left out: it is none of photos, emoji" in complaint
    assert 'show("emoji", link)' in write_js("emoji") and 'show("", link)' in write_js("")


def test_a_page_of_one_world_is_as_it_was(generators):
    alone = build_demo(generators[1])
    ids, components = element_ids(alone), json.dumps(alone.get_config_file(), default=str)
    assert {"ask-question", "ask", "result", "guide", "refine", "identify", "compare"} <= set(ids)
    assert "world" not in ids and "What to ask about" not in components
    for name, endpoint in alone.get_api_info()["named_endpoints"].items():
        assert "world" not in [parameter["parameter_name"] for parameter in endpoint["parameters"]], name


def test_every_tab_serves_every_world_under_names_of_its_own(demo):
    ids = element_ids(demo)
    assert max(ids.values()) == 1 and ids["world"] == 1
    for world in ("photos", "emoji"):
        names = ("ask-question", "result", "guide", "refine", "identify", "compare", "results-table1", "results-links")
        assert {f"{world}-{name}" for name in names} <= set(ids)
    tabs = Counter(b.label for b in demo.blocks.values() if type(b).__name__ in ("Tab", "TabItem"))
    assert tabs == dict.fromkeys(
        ("Ask", "Guidance", "Refine", "What is this adapter for?", "Compare", "Results", "About"), 2
    )


# Photographs


def test_example_photographs_are_small_and_credited(studios):
    told = (PHOTOS / "README.md").read_text(encoding="utf-8")
    files = sorted(path.name for path in PHOTOS.glob("*.jpg"))
    assert files == sorted(sample.path.name for sample in studios[0].world.samples) and len(files) == 4
    for file in files:
        (line,) = [line for line in told.splitlines() if f"`{file}`" in line]
        assert "CC0" in line or "public domain" in line
        assert max(read_image(PHOTOS / file).size) <= 640 and (PHOTOS / file).stat().st_size < 100_000


@pytest.mark.parametrize("name", ["meta-vqa", "meta-vqa-photos-part"])
def test_verdicts_are_those_of_the_dataset_on_which_they_were_measured(studios, name):
    shipped, other = (
        describe(SimpleNamespace(config={"dataset": dataset}, known_questions=[]))
        for dataset in ("meta-vqa-photos", name)
    )
    assert shipped == studios[0].world and other.title == shipped.title and other.samples == shipped.samples
    assert all(verdict in shipped.summary for verdict in ("what it knows best", "often gets"))
    assert not any(verdict in other.summary for verdict in ("what it knows best", "often gets"))
    assert [*other.questions.values()] == [*shipped.questions.values()]
    assert "often wrong" in "".join(shipped.questions) and "wrong" not in "".join(other.questions)


def test_words_about_photographs(studios):
    world = studios[0].world
    assert not world.drawn and studios[0].first_question == "What animal is this?"
    assert all(word in world.summary for word in ("photographs", "wrong")) and "COCO" in world.credit
    assert "stereotypes" in world.bias and studios[0].suggest("What animal is this?") == ["cat", "dog", "raccoon"]
    assert sum(map(len, studios[0].examples.values())) > 10


def _ask(studio, question, answers, paths, methods=None, drawn=False):
    how = dict(name=studio.name, gamma=1.0, steps=5, samples=1, seed=0, score={})
    return pages.ask(studio, question, answers, drawn, 2, paths, methods or list(studio.methods), **how)[0]


def test_questions_about_people_get_a_notice_in_both_worlds(studios):
    cat = [PHOTOS / "cat.jpg"]
    for studio in studios:
        assert "cannot tell race or ethnicity" in _ask(studio, "What is the man's race?", "a, b", cat)
        assert "cannot tell" not in _ask(studio, "Who won the race?", "red, blue", cat)
        curves, _ = next(pages.guide(studio, "How old is the man?", "ten, forty", False, 1, cat, 0))
        assert "cannot tell age" in curves and "<svg" in curves


def test_none_of_these():
    """No answer that is less probable than the release's threshold is claimed; plain CLIP's are not calibrated."""
    studio = Studio(photographs(least=0.999999))
    cat = [PHOTOS / "cat.jpg"]
    html = _ask(studio, "What animal is this?", "cat, dog, bird", cat)
    assert html.count("none of these <span") == 3 and re.search(r"<th scope=\"row\">cat</th><td>\d+%", html)
    assert "gives every candidate answer less than 100.0%" in html and "Plain CLIP always names its best" in html
    html = _ask(studio, "What animal is this?", "cat, dog, bird", cat, methods=["clip"])
    assert "none of these" not in html.lower()
    for least in (None, 0.0):
        studio.generator.config["thresholds"] = {} if least is None else {"answer": least}
        assert "none of these" not in _ask(studio, "What animal is this?", "cat, dog, bird", cat).lower()


def test_a_probability_at_the_threshold_is_claimed(studios):
    image = read_image(PHOTOS / "cat.jpg")
    compared = studios[0].compare("What animal is this?", ["a", "b"], [image], [None], ["hyperldm"], drawn=False)
    best = float(compared.probabilities["hyperldm"].max())
    for least, unclaimed in ((best, False), (best + 1e-4, True)):
        object.__setattr__(compared, "least", least)
        assert compared.unclaimed("hyperldm") == [unclaimed]


def test_scenes_are_no_photographs_and_yet_read(studios, tmp_path):
    """Nothing to compare with: pictures are not judged in a release without statistics of its own."""
    draw_scenes_for_question(DRAWN, 1)[0][0].save(tmp_path / "a.png")
    assert studios[0].pictures is None and "unfamiliar" not in _ask(
        studios[0], "What room is this?", "a, b", [tmp_path / "a.png"]
    )


# Programs


def test_programs_choose_a_world(client, tmp_path):
    from gradio_client import handle_file

    told = client.view_api(return_format="dict")["named_endpoints"]
    assert all(e["parameters"][-1]["parameter_name"] == "world" for e in told.values()) and len(told) == 6
    cat, question = [handle_file(str(PHOTOS / "cat.jpg"))], "What type of animal is this?"
    assert client.predict(question, api_name="/suggest_answers") == KNOWN[question]
    assert client.predict(DRAWN, world="emoji", api_name="/suggest_answers")[0] == "black"
    for world in ("photos", "emoji"):
        (record,) = client.predict(question, ["cat", "dog"], cat, world=world, api_name="/classify")
        assert record["answer"] in ("cat", "dog") and record["none_of_these"] is False
        assert record["unfamiliar"] is (world == "emoji")  # drawn scenes are what it knows
    told = client.predict(DRAWN, ["red", "black"], 2, api_name="/try_on_scenes")  # the first that draws scenes
    assert len(told["truths"]) == 2
    file = client.predict(question, api_name="/generate")
    found = client.predict(handle_file(file), 3, api_name="/infer_question")
    assert len(found) == 3 and {item["question"] for item in found} <= set(KNOWN)
    assert client.predict([question, DRAWN], world="emoji", api_name="/compare_questions")["adapters"][0][0] > 0.99
    with pytest.raises(Exception, match="'moon'; allowed here: photos, emoji"):
        client.predict(question, world="moon", api_name="/suggest_answers")
    with pytest.raises(Exception, match="'photos'; allowed here: emoji"):
        client.predict(DRAWN, ["red", "black"], world="photos", api_name="/try_on_scenes")


def test_gamma_is_by_default_what_each_world_chose(studios, monkeypatch):
    used = []
    monkeypatch.setattr(Studio, "gamma", property(lambda studio: {"photos": 0.75, "emoji": 1.25}[studio.key]))
    monkeypatch.setattr(AdapterGenerator, "generate", lambda *_, gamma, **__: used.append(gamma) or 1 / 0)
    generate = endpoints(studios)["generate"]
    for arguments in ({}, {"world": "emoji"}, {"gamma": 2.0}, {"method": "hyperclip"}):
        with pytest.raises(ZeroDivisionError):
            generate("What room is this?", **arguments)
    assert used == [0.75, 1.25, 2.0, None]


# People


@pytest.fixture
def visit(chromium, url, capfd):  # noqa: F811
    """Opens pages; at the end none may have logged an error, nor the server a traceback."""
    errors, opened = [], []

    def visited(size=DESKTOP, query="", world="photos"):
        page = chromium.new_page(viewport=size)
        page.set_default_timeout(40_000)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url + query)
        page.wait_for_selector(f"#{world}-result .qa-card")
        opened.append(page)
        return page

    yield visited
    for page in opened:
        page.close()
    assert not errors, errors
    assert "Traceback" not in "".join(capfd.readouterr())


def _open(page, tab):
    page.get_by_role("tab", name=tab, exact=True).locator("visible=true").click()


def _switch(page, title):
    page.locator("#world").get_by_text(title, exact=True).click()


@browser_test
def test_a_visitor_uploads_photographs_and_changes_worlds(visit, tmp_path):
    page = visit()
    assert page.locator("#photos-result .qa-card").count() == 1  # of the first example
    page.locator("#photos-samples button").nth(1).click()
    page.wait_for_function("location.search.includes('world=photos&question=What+is+in+the+cup')")
    assert page.input_value("#photos-ask-answers textarea") == "coffee, tea, milk"

    exif = Image.Exif()
    exif[0x0112] = 6  # a phone that was held upright
    photograph = Image.open(PHOTOS / "raccoon.jpg").resize((4000, 3000))
    photograph.save(tmp_path / "0.jpg", exif=exif)
    page.set_input_files("#photos-ask-pictures input[type=file]", [tmp_path / "0.jpg", PHOTOS / "cat.jpg"])
    page.wait_for_selector("#photos-ask-pictures img")
    page.click("#photos-ask")
    page.wait_for_function("document.querySelectorAll('#photos-result .qa-card').length == 2")
    width, height = page.evaluate(
        "(i => [i.naturalWidth, i.naturalHeight])(document.querySelector('#photos-result .qa-card img'))"
    )
    assert width < height and page.locator("#photos-result .qa-row .answer").first.inner_text()

    _switch(page, "Drawn scenes")
    page.wait_for_function("document.querySelectorAll('#emoji-result .qa-card').length == 6")
    page.wait_for_function("location.search.startsWith('?world=emoji&question=What+colour')")
    assert not page.locator("#photos-ask").is_visible()
    page.click("#emoji-ask")
    page.wait_for_function("location.search.includes('world=emoji&question=')")
    again = visit(query="?" + page.url.partition("?")[2], world="emoji")
    assert not again.locator("#photos-ask").is_visible() and again.input_value("#emoji-ask-question textarea") == DRAWN
    _switch(page, "Photographs")
    page.wait_for_function("document.querySelectorAll('#photos-result .qa-card').length == 2")  # as it was left
    page.wait_for_function("document.querySelectorAll('#photos-ask-pictures img').length == 2")


@browser_test
def test_guidance_is_of_the_pictures_that_are_asked_about(visit):
    page = visit()
    marked = "n => document.querySelectorAll('#photos-samples .selected').length == n"
    pictures = "n => document.querySelectorAll('#photos-curves img').length == n"
    page.locator("#photos-samples button").nth(1).click()
    page.wait_for_function("document.querySelector('#photos-result h2').textContent == 'What is in the cup?'")
    assert not page.get_by_role("button", name="Start the score anew").locator("visible=true").count()
    _fill(page, "photos-ask-answers", "coffee, tea")
    page.locator("#photos-ask-answers textarea").press("Enter")
    page.wait_for_function("location.search.includes('answers=coffee%2C+tea&')")
    _open(page, "Guidance")
    page.wait_for_function("document.querySelector('#photos-guidance-answers textarea').value == 'coffee, tea'")
    page.click("#photos-guide")
    page.wait_for_selector("#photos-plane svg")
    assert page.inner_text("#photos-curves h2") == "What is in the cup?" and page.evaluate(pictures, 1)
    _open(page, "Ask")
    page.set_input_files("#photos-ask-pictures input[type=file]", [PHOTOS / "rocket.jpg", PHOTOS / "cat.jpg"])
    page.wait_for_function(marked, arg=0)
    _open(page, "Guidance")
    page.click("#photos-guide")
    page.wait_for_function(pictures, arg=2)
    _open(page, "Ask")
    page.locator("#photos-ask-pictures").get_by_label("Clear").first.click()
    page.wait_for_function("!document.querySelector('#photos-ask-pictures img')")
    page.click("#photos-ask")
    page.wait_for_selector("#photos-result .qa-error:has-text('or choose an example')")
    assert page.evaluate(marked, 0)
    page.locator("#photos-samples button").nth(2).click()
    page.wait_for_function("document.querySelector('#photos-result h2')?.textContent.includes('animals')")
    assert page.evaluate(marked, 1)


@browser_test
def test_the_address_names_what_was_answered_in_the_world_that_is_shown(visit):
    page = visit(query="?world=emoji&decoder=hnet&steps=3", world="emoji")
    assert "decoder HNet, gamma" in page.inner_text("#emoji-result") and "3 steps" in page.inner_text("#emoji-result")
    page.click("#emoji-ask")
    page.wait_for_function("location.search.includes('question=')")
    asked = page.url
    assert asked.endswith("&decoder=hnet&steps=3")
    _fill(page, "emoji-ask-question", "Where is the cat?")  # typed, not asked
    page.wait_for_function("document.querySelector('#emoji-ask-answers textarea').value.includes('left')")
    box = page.get_by_label("Seed of scenes and noise").locator("visible=true")
    for _ in range(20):  # what is clicked while the page moves is not heard
        page.get_by_role("button", name="More").locator("visible=true").click()
        page.wait_for_timeout(500)
        if box.count():
            break
    for seed in ("-5", "1.7", "99999999999"):
        message = page.locator(f"#emoji-result .qa-error:has-text('Seed {seed}; allowed: whole numbers')")
        for _ in range(20):  # nor is a click while the one before is at work, nor what a box gets as it opens
            box.fill(seed)
            box.blur()
            page.click("#emoji-ask")
            page.wait_for_timeout(2_000)
            if message.count():
                break
        assert message.count()
    assert page.url == asked and not page.locator(".toast-body").count()
    _switch(page, "Photographs")
    page.wait_for_function("location.search.startsWith('?world=photos&question=What+animal')")
    _switch(page, "Drawn scenes")
    page.wait_for_function("asked => location.href == asked", arg=asked)
    again = page.get_by_role("button", name="New scenes").locator("visible=true")
    again.wait_for()
    page.get_by_label("My own pictures").locator("visible=true").first.check()
    again.wait_for(state="hidden")


@browser_test
def test_what_was_stopped_says_so(visit):
    page = visit(query="?world=emoji", world="emoji")
    _open(page, "Refine")
    page.click("#emoji-refine")
    page.wait_for_selector("#emoji-curve progress")
    page.get_by_role("button", name="Stop").locator("visible=true").click()
    page.wait_for_selector("#emoji-curve :text('Stopped: adapting')")
    assert not page.locator("#emoji-curve progress").count() and "question=" not in page.url


@browser_test
def test_a_link_opens_its_world_with_its_question(visit):
    page = visit(query="?" + urlencode({"world": "emoji", "question": "Where is the cat?"}), world="emoji")
    assert page.input_value("#emoji-ask-question textarea") == "Where is the cat?"
    assert "question=Where+is+the+cat" in page.url
    _switch(page, "Photographs")
    page.wait_for_selector("#photos-result .qa-card")
    assert page.input_value("#photos-ask-question textarea") == "What animal is this?"
    page = visit(query="?world=moon")
    page.wait_for_selector("text=is left out")


@browser_test
def test_two_worlds_on_a_phone(visit):
    page = visit(PHONE)
    for title, world in (("Photographs", "photos"), ("Drawn scenes", "emoji")):
        _switch(page, title)
        page.wait_for_selector(f"#{world}-result .qa-card")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('input, textarea, button, select')]
            .filter(e => e.offsetParent && e.type !== 'file' && e.type !== 'hidden')
            .filter(e => !(e.labels?.length || e.ariaLabel || e.title || e.textContent.trim() || e.closest('label')
              || e.getAttribute('aria-labelledby'))).map(e => e.outerHTML.slice(0, 200))"""
        )
        assert not nameless
        assert page.evaluate("[...document.querySelectorAll('img')].every(i => !i.offsetParent || i.alt)")
