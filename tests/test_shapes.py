"""Questions about simple shapes: what is promised of them before anything is trained on them."""

import json
import re
from collections import Counter, defaultdict

import pytest
from PIL import Image

from core.data.meta_vqa import MetaVQA, MetaVQAConfig
from eval.datasets import shapes
from eval.harness.shapes import BACKGROUNDS, COLOURS, SHAPES, draw_scene, questions
from tests.conftest import ROOT
from train import make_data, run_all

NEGATIONS = {"no", "not", "nothing"}
# Results are about these questions and pictures. Another digest is another set: it needs its results measured anew.
DIGEST = "da33da19ca291664f39bf5f693ff9f603a3c46083d09f5b2f71207f1cf4a277c"


def words(text):
    return text.lower().strip("?").split()


@pytest.fixture(scope="module")
def drawn():
    return shapes.pictures_of(seed=0)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The command's files, with fewer pictures."""
    root = tmp_path_factory.mktemp("shapes")
    shapes.main(["--output", str(root), "--pictures", "12"])
    return root


def test_the_set_is_the_one_that_was_committed(drawn):
    assert shapes.digest(shapes.texts_of(drawn)) == DIGEST
    assert shapes.digest(shapes.texts_of(shapes.pictures_of(seed=1))) != DIGEST


def test_the_same_seed_draws_the_same_pixels(drawn, written):
    again = shapes.pictures_of(seed=0, pictures=12)
    assert shapes.texts_of(again) == {
        name: (written / name).read_text(encoding="utf-8") for name in ("shapes.csv", "scenes.json")
    }
    for name, _, scene in again[::50]:
        with Image.open(written / "pictures" / name) as picture:
            assert picture.size == (80, 80) and picture.tobytes() == draw_scene(scene).tobytes()


def test_answers_are_true(written):
    """Counted again from the words of the question and the list of things."""
    scenes = json.loads((written / "scenes.json").read_text(encoding="utf-8"))
    lines = (written / "shapes.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "image,question,answer,split" and len(lines) == 1 + 104 * 12
    for image, question, answer, _ in (line.split(",") for line in lines[1:]):
        asked = set(words(question))
        size = "big" if "biggest" in asked else "small" if "smallest" in asked else None
        fits = []
        for thing in scenes[image]["things"]:
            properties = {thing["shape"], thing["colour"], *thing["place"].split()}
            wanted = asked & {*SHAPES, *COLOURS, "left", "right", "top", "bottom"}
            fits.append(wanted <= properties and size in (None, thing["size"]))
        if size:  # there is one biggest and one smallest
            assert sorted(thing["size"] for thing in scenes[image]["things"]) == ["big", "small"]
        assert answer == ("yes" if any(fits) != bool(asked & NEGATIONS) else "no"), (question, scenes[image])


@pytest.mark.parametrize("seed", range(5))
def test_splits_and_polarities(seed):
    asked = questions(seed)
    assert len({question.text for question in asked}) == 104  # so none is in two splits
    counts = Counter((question.split, bool(NEGATIONS & set(words(question.text)))) for question in asked)
    assert counts == {(s, n): k for s, k in (("train", 32), ("val", 4), ("test", 16)) for n in (False, True)}
    split = {question.text: question.split for question in asked}
    partners = Counter(split[q.partner] for q in asked if q.split == "test")
    assert partners == {"train": 16, "test": 16}
    known = Counter(word for question in asked if question.split == "train" for word in words(question.text))
    assert all(known[word] >= 3 for question in asked for word in words(question.text))
    by_family = defaultdict(set)
    for question in asked:
        by_family[question.meaning.family].add((question.split, question.negated))
    assert len(by_family) == 9
    for found in by_family.values():
        assert {("train", False), ("train", True)} <= found and {"test"} <= {s for s, _ in found}


def test_one_meaning_has_one_wording():
    """Apart from the negation no two questions ask for the same."""
    asked = Counter((m.extreme, m.shape, m.colour, m.side) for m in {q.meaning for q in questions(0)})
    assert len(asked) == 52 and set(asked.values()) == {1}
    for question in questions(0):
        form = lambda text: re.sub(r"\b(no|not) |\ba |\b(some|any|no)thing", "", text)
        assert form(question.text) == form(question.partner) and question.text != question.partner


def test_answers_are_balanced_and_style_tells_nothing(drawn):
    """Half yes in every question, and there among pictures of equally many shapes; backgrounds within chance."""
    by_count, by_background = defaultdict(Counter), defaultdict(Counter)
    for _, question, scene in drawn:
        answer = question.answer(scene)
        by_count[question.text, len(scene.things)][answer] += 1
        by_background[scene.background][answer] += 1
    assert all(counts["yes"] == counts["no"] >= 10 for counts in by_count.values())
    assert set(by_background) == set(BACKGROUNDS)
    for counts in by_background.values():  # about 2,080 pictures: one standard error is 1.1 points
        assert abs(counts["yes"] / counts.total() - 0.5) < 0.04
    assert len({scene for _, _, scene in drawn}) == len(drawn) == 104 * 60


def test_as_ones_own_data(written, tmp_path, monkeypatch, capsys):
    """The two commands take it; the built tasks are balanced in support and query, and share no picture."""
    monkeypatch.chdir(ROOT)
    data = tmp_path / "shapes"
    flags = ["--images", str(written / "pictures"), "--table", str(written / "shapes.csv")]
    make_data.main([*flags, "--output", str(data), "--preview"])
    assert "left out" not in capsys.readouterr().out and (data / "preview.png").is_file()
    dataset = MetaVQA(MetaVQAConfig.at(data))
    tasks, opposites = dataset.tasks[: -dataset.num_denials], dataset.tasks[-dataset.num_denials :]
    assert {task.question: task.split for task in tasks} == {q.text: q.split for q in questions(0)}
    seen = Counter()
    for task in tasks:
        assert set(task.answers) == {"yes", "no"}
        for images, labels in (task.support, task.query):
            assert 2 * sum(labels) == len(labels)
            seen.update(images)
    assert set(seen.values()) == {1}
    # 44 of 64 training questions are asked in both forms anyway; of the others' opposites none is a test question.
    assert len(opposites) == 20 + 3 and {task.split for task in opposites} == {"train"}
    assert not {task.question for task in opposites} & {task.question for task in tasks}
    run_all.main(["--data", str(data), "--plan"])
    assert "hyperldm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--output DIR or --probe"),
        (["--output", "x", "--pictures", "50"], "pictures 50 a question; allowed: multiples of 12"),
        (["--output", "x", "--pictures", "0"], "allowed: multiples of 12"),
    ],
)
def test_bad_flags(flags, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        shapes.main(flags)
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_document_says_what_is_there():
    text = (ROOT / "eval" / "README.md").read_text(encoding="utf-8")
    assert f"`{DIGEST[:12]}`" in text
    for line in shapes.summary(questions(0)).splitlines():
        split, *counts = re.findall(r"^\w+|\d+", line)
        assert f"| {split} | {' | '.join(counts)} |" in text
