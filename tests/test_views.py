"""The demo's HTML: what strangers write is shown as text, wherever it comes from and wherever it goes."""

import ast
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import gradio as gr
import jinja2
import pytest
import torch
from PIL import Image

from core.demo.ask import Comparison
from core.demo.guidance import GAMMAS, Guided
from core.demo.layout import parts
from core.demo.link import Shared, read_link
from core.demo.refine import ROWS, KShot
from core.demo.views import about, cards, charts, results, tabs
from core.demo.views.templates import FOLDER, escape_markdown, render
from core.demo.world import describe
from core.generator import AdapterGenerator
from core.methods import row_of
from tests.conftest import ROOT

HARMLESS = "1 b c"
HOSTILE = """<img src=x onerror="alert(1)"> '" {{ 7 * 7 }} {% raw %} ${7 * 7} &lt;b&gt; </p></title></svg>"""


class _Page(HTMLParser):
    """The tags of a page with the names of their attributes, and all its texts and values as a browser reads them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple] = []
        self.texts: list[str] = []
        self.feed(str(html))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.texts += [value or "" for _, value in attrs]

    def handle_endtag(self, tag):
        self.tags.append(("/" + tag,))

    def handle_data(self, data):
        self.texts.append(data)


def _comparison(text: str, **changes) -> Comparison:
    values = dict(
        question=text,
        answers=[text, "other"],
        images=[Image.new("RGB", (80, 80)), Image.new("RGB", (400, 300))],
        truths=[text, f"neither {text}"],
        probabilities={"hyperldm": torch.tensor([[0.75, 0.25], [0.5, 0.5]]), "clip": torch.full((2, 2), 0.5)},
        adapters={},
        seconds=(0.1, 0.2),
        strange_question=text,
        strange_images=(True, False),
    )
    return Comparison(**(values | changes))


def _line_chart(text: str) -> str:
    lines = [charts.Line(text, [0, 1], [0, 100], "c0", [0, 1], [2, 100]), charts.Line(text, [0], [5], "c1")]
    return charts.line_chart(lines, x_label=text, y_label=text, x_ticks=[0, 1], title=text, unit=text, mark=0.5)


def _inference(text: str) -> str:
    adapter = SimpleNamespace(provenance={"question": text, "method": text})
    found = [{"question": text, "answers": [text, text], "probability": 0.5}]
    return tabs.inference(adapter, found, 3)


def _document(text: str) -> dict:
    record = {"row": text, "label": text, "tasks": "all", "descriptors": 1.0, "gamma": None, "mean": 0.5, "n_tasks": 3}
    records = [record | {"tasks": tasks} for tasks in ("known", "new", "all")]
    return {"preset": text, "command": text, "commit": text, "results": records}


VIEWS = {
    "empty": cards.empty,
    "error": cards.error_card,
    "comparison": lambda text: cards.comparison_cards(_comparison(text)),
    "comparison of what is not known": lambda text: cards.comparison_cards(_comparison(text, truths=[None, None])),
    "lines": _line_chart,
    "paths": lambda text: charts.path_chart(torch.rand(5, 2), [(text, "c0", torch.rand(4, 2))], torch.rand(3, 2), text),
    "heatmap": lambda text: charts.heatmap(text, [text, "b"], torch.eye(2)),
    "bars": lambda text: charts.bars([(text, text, 0.5)]),
    "progress": lambda text: tabs.progress(1, 2, text),
    "refinement": lambda text: tabs.refine_curve([KShot(0, {row: (0.5, 0.4, 0.6) for row in ROWS})], 5, text),
    "similarity": lambda text: tabs.similarity_maps([text, "b"], torch.eye(2), torch.eye(2)),
    "inference": _inference,
    "table 1": lambda text: results.table1(_document(text)),
    "links": lambda text: results.links(_document(text)),
    "source": lambda text: results.source(_document(text)),
    "missing": lambda text: results.missing("table1", text),
}


@pytest.mark.parametrize("name", VIEWS)
def test_hostile_text_changes_no_tag_and_is_shown_letter_by_letter(name):
    plain, page = _Page(VIEWS[name](HARMLESS)), _Page(VIEWS[name](HOSTILE))
    assert page.tags == plain.tags
    assert any(HOSTILE in text for text in page.texts), page.texts
    assert sum(HOSTILE in text for text in page.texts) == sum(HARMLESS in text for text in plain.texts)


def test_what_is_not_claimed_is_said_of_each_method_and_contradicts_no_number():
    """A threshold of 16.66% is neither of the two answers of 17%, of which one is claimed and one is not."""
    rows = lambda *best: torch.tensor([[p] + [(1 - p) / 6] * 6 for p in best])
    probabilities = {"hyperldm": rows(0.1665, 0.28), "cond_multitask": rows(0.1667, 0.17), "clip": rows(0.15, 0.15)}
    unknown = {"truths": [None, None], "strange_question": "", "strange_images": ()}
    answers = {"answers": [f"answer {i}" for i in range(7)]}
    html = cards.comparison_cards(_comparison("Q", probabilities=probabilities, least=0.1666, **unknown, **answers))
    words = " ".join(" ".join(_Page(html).texts).split())
    assert "less than 16.7% (HyperLDM: 1 of 2 pictures)" in words and "Plain CLIP always names its best" in words
    assert re.findall(r'class="pct">([^<]*)<', html) == ["16.6%", "17%", "15%", "28%", "17%", "15%"]
    assert cards._percent(0.1605, 0.1602, True) == "16.1%" and cards._percent(0.1601, 0.1602, False) == "16%"


@pytest.mark.parametrize(
    "methods, pictures, told, sure",
    [
        (["clip"], 1, "1 picture classified in 200 ms.", "about this picture"),
        (["hyperldm"], 2, "1 adapter made in 100 ms; 2 pictures classified in 200 ms.", "mean over the pictures"),
        (
            ["hyperldm", "hyperclip", "clip"],
            1,
            "2 adapters made in 100 ms; 1 picture classified by all methods",
            "about",
        ),
    ],
)
def test_one_is_not_several(methods, pictures, told, sure):
    probabilities = dict.fromkeys(methods, torch.full((pictures, 2), 0.5))
    images, unknown = [Image.new("RGB", (8, 8))] * pictures, [None] * pictures
    own = {"images": images, "truths": unknown, "probabilities": probabilities, "strange_images": (False,) * pictures}
    words = " ".join(_Page(cards.comparison_cards(_comparison("Q", **own))).texts)
    assert told in words and sure in words and ("adapter" in words) == (methods != ["clip"])


def test_figure_5_has_a_panel_for_each_kind_of_family():
    records = [
        {"row": row, "tasks": tasks, "descriptors": 1.0, "gamma": gamma, "mean": 0.5}
        for row in (row_of("hyperldm"), row_of("hyperldm", "hnet"), "clip")
        for tasks in ("known", "new")
        for gamma in ((0.0, 1.0) if row != "clip" else (None,))
    ]
    page = _Page(results.figure5_panels({"results": records}))
    assert sum(tag[0] == "svg" for tag in page.tags) == 2 and "HNet + HyperLDM" in page.texts
    known = [record for record in records if record["tasks"] == "known"]  # one's own data has no new families
    assert sum(tag[0] == "svg" for tag in _Page(results.figure5_panels({"results": known})).tags) == 1


def test_tables_have_columns_for_what_was_measured():
    document = _document("own")
    document["results"] = [record for record in document["results"] if record["tasks"] != "new"]
    texts = " ".join(_Page(results.table1(document)).texts)
    assert "all (" in texts and "new families" not in texts and "against Cond. Multitask" in texts
    document["results"] = [record | {"strongest": "kernel ridge"} for record in document["results"]]
    texts = " ".join(_Page(results.table1(document)).texts)
    assert "against the best baseline" in texts and "of its own settings" not in texts


def test_no_template_and_no_view_goes_around_the_escaping():
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe|autoescape", text), path.name
    for path in sorted((ROOT / "core" / "demo").rglob("*.py")):
        code = path.read_text(encoding="utf-8")
        assert path.name == "templates.py" or "Markup(" not in code, path
        literals = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
        assert not [text for text in literals if isinstance(text, str) and re.search(r"</?[a-z]+[ >]", text)], path


def test_a_template_that_misses_a_value_is_refused():
    with pytest.raises(jinja2.UndefinedError, match="message"):
        render("error.html", mesage="misspelt")


def test_finished_html_is_taken_over_as_it_is():
    page = _Page(render("refined.html", cards=cards.empty(HOSTILE)))
    assert ("div", "class") in page.tags and "qa-empty" in page.texts and HOSTILE in page.texts


def test_guidance_curves_without_truths_show_confidence_alone():
    seen = [Guided(gamma, None, 0.5, torch.zeros(2, 2), torch.zeros(2)) for gamma in GAMMAS[:3]]
    page = _Page(tabs.guidance_curves(seen, 1.5))
    assert sum(tag[0] == "circle" for tag in page.tags) == 3 and "accuracy" not in page.texts
    assert f"gamma {GAMMAS[3]:g}" in page.texts  # what is worked on
    assert "mean confidence" in page.texts and "gamma of this release, 1.5" in page.texts
    known = [Guided(gamma, 0.5, 0.5, torch.zeros(2, 2), torch.zeros(2)) for gamma in GAMMAS[:3]]
    assert "accuracy, mean confidence" in _Page(tabs.guidance_curves(known, 1.5)).texts


def test_numbers_of_many_questions_are_short():
    matrix = torch.eye(9)
    matrix[0, 1], matrix[1, 0] = 0.5, -0.25
    html = str(charts.heatmap("title", [f"question {i}" for i in range(9)], matrix))
    shown = re.findall(r'--v:[\d.]+">([^<]*)<', html)
    assert shown[:3] == ["1", ".50", ".00"] and shown[9] == "-.25" and 'style="--n:9"' in html
    assert ">0.50<" in charts.heatmap("title", ["a", "b"], torch.tensor([[1.0, 0.5], [0.5, 1.0]]))


def test_a_bar_is_as_long_as_its_percentage():
    html = str(charts.bars([("first", "", 0.088), ("second", "", 0.05)]))
    assert re.findall(r"--p:([\d.]+)%", html) == re.findall(r'class="pct">([\d.]+)%', html) == ["8.8", "5.0"]


def test_a_few_points_far_away_hide_no_way():
    """Ways as long as most of the cloud is wide are so in the picture, too, and none ends outside it."""
    points = torch.cat([torch.rand(96, 2, generator=torch.Generator().manual_seed(0)), torch.full((4, 2), 100.0)])
    path = torch.tensor([[0.0, 0.0], [1.0, 1.2]])
    html = str(charts.path_chart(points, [("way", "c0", path)], torch.rand(3, 2)))
    (x0, y0), (x1, y1) = (tuple(map(float, c)) for c in re.findall(r'<circle[^>]*cx="([\d.]+)" cy="([\d.]+)"', html))
    assert x1 - x0 > charts.WIDTH / 2 and y0 - y1 > charts.HEIGHT / 2
    assert min(x0, x1) > 0 and max(x0, x1) < charts.WIDTH and min(y0, y1) > 0 and max(y0, y1) < charts.HEIGHT
    drawn = [tuple(map(int, c)) for c in re.findall(r"M(-?\d+) (-?\d+)h0", html)]
    assert len(drawn) == 96 and all(0 <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT for x, y in drawn)
    assert "training tasks, 4 more are outside" in html


# Links, warnings, Markdown, the snippet


def test_what_a_link_says_is_cut_short_wherever_it_is_repeated():
    default = Shared("Q?", "", ("hyperldm", "clip"), 1.25, 0)
    long = "<h1>" + "x" * 10_000
    query = {"question": long, "answers": long, "method": long, "gamma": long, "seed": long}
    state, complaints = read_link(query, default)
    assert state == default and len(complaints) == 5 and max(map(len, complaints)) < 400


def test_warnings_show_text_and_come_from_one_place(monkeypatch):
    shown = []
    monkeypatch.setattr(gr, "Warning", shown.append)
    parts.warn(HOSTILE)
    page = _Page(shown[0])
    assert not page.tags and "".join(page.texts) == HOSTILE
    for path in [ROOT / "app.py", *sorted((ROOT / "core" / "demo").rglob("*.py"))]:
        if path.name != "parts.py":
            assert not re.search(r"gr\.(Warning|Info|Success)\(", path.read_text(encoding="utf-8")), path


def test_a_dataset_s_name_is_no_markdown():
    markdown_it = pytest.importorskip("markdown_it")
    name = f"{HOSTILE} **b** `c` [d](http://e.example) http://f.example\n# g\n\n- h meta-vqa v1.0"
    world = describe(SimpleNamespace(config={"dataset": name}, known_questions=[]))
    for text in (world.summary, world.credit, world.bias):
        page = _Page(markdown_it.MarkdownIt("commonmark", {"linkify": False}).render(text))
        assert {tag[0] for tag in page.tags} <= {"p", "/p", "strong", "/strong"}
        assert " ".join(name.split()) in "".join(page.texts)
    assert escape_markdown("meta-vqa") == "meta-vqa"


def test_the_snippet_quotes_any_question():
    question = 'say "hi"\n\\ and {braces} or Größe'
    tree = ast.parse(about.snippet("http://a.example", question))
    assigned = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    assert ast.literal_eval(assigned["question"]) == question


def test_the_snippet_asks_the_world_that_it_is_shown_in():
    tree = ast.parse(about.snippet("http://a.example", "Q?", "emoji"))
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("predict")
    ]
    worlds = [{word.arg: ast.literal_eval(word.value) for word in call.keywords}.get("world") for call in calls]
    assert worlds == ["emoji"] * 3 and "world" not in about.snippet("http://a.example", "Q?")


def test_the_picture_of_the_method_shows_what_is_asked_about():
    drawn, photograph = (_Page(about.picture(drawn)) for drawn in (True, False))
    assert sum(tag[0] == "svg" for tag in drawn.tags) == 2  # one for wide windows, one for phones
    assert "thing" in drawn.texts and "hill" not in drawn.texts
    assert "hill" in photograph.texts and "thing" not in photograph.texts


# Probabilities


def test_the_scale_of_probabilities_is_the_release_s():
    network = {"name": "clip_adapter", "config": {"hidden": 4}, "dim": 8, "scale": 90.0}
    of = lambda **config: AdapterGenerator("nowhere", {"network": network, **config})
    chosen = of(scales={"training": 90.0, "clip": 19.0, "hvae_hyperldm": 30.0, "cond_multitask": 40.0})
    assert chosen.scale(row_of("hyperldm")) == chosen.scale("hvae_hyperldm") == 30.0
    assert chosen.scale(row_of("cond_multitask", "hnet")) == 40.0 and chosen.scale("clip") == 19.0
    assert chosen.scale(row_of("hyperldm", "hnet")) == chosen.scale("mnet_maml") == 90.0
    assert of().scale("hvae_hyperldm") == 90.0
