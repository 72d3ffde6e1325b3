"""Test questions in other words, minimal pairs, and the script on the tiny preset."""

import json
from dataclasses import replace

import pytest
import torch

from core.data.phrasings import Phrasings
from core.data.tasks import Task
from core.generator import AdapterGenerator
from eval import phrasings as script
from eval import report
from eval.harness import pairs
from eval.harness.parts import questions as parts
from eval.harness.phrasings import ASKED_ROWS, FILES, Asked, accuracy_asked, asked_in_other_words, read_files, shown
from eval.harness.rows import accuracy
from tests.conftest import random_batch
from tests.test_pipeline import release

QUESTIONS = ["What colour is the badge behind the dog?", "Where is the cat?"]
OPPOSITES = '\nopposites = [["left of", "above"], ["red", "blue"]]\n'


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_kinds_are_judged_on_the_questions_that_they_change(tmp_path):
    file = write(tmp_path / "a.toml", '[kinds.spelling]\nrule = "spelling"\npairs = [["colour", "color"]]\n')
    groups = {"training": Phrasings.read(file)}
    plain, spelled = asked_in_other_words(QUESTIONS, groups, draws=3)
    assert plain == Asked("as it is", "as it is", (0, 1), (tuple(QUESTIONS),))
    # One way to say it is one draw, not three of the same.
    assert spelled == Asked("training", "spelling", (0,), (("What color is the badge behind the dog?",),))
    assert list(shown(QUESTIONS, [spelled], 2)) == [
        "training: spelling (1 of 2)",
        f"    {QUESTIONS[0]}  ->  What color is the badge behind the dog?",
    ]


def test_what_a_question_becomes_depends_on_no_other_question():
    groups = read_files(FILES)
    alone = {(a.group, a.kind): a for a in asked_in_other_words(QUESTIONS[1:], groups, draws=1)}
    for asked in asked_in_other_words(QUESTIONS, groups, draws=1):
        if 1 in asked.rows:
            assert asked.texts[0][-1] == alone[asked.group, asked.kind].texts[0][0]


def test_accuracy_is_that_of_the_texts(tiny):
    """The mean over draws, on the chosen tasks alone; plain CLIP does not read."""
    generator, batch = AdapterGenerator.from_pretrained(release(tiny)), random_batch(T=2, D=256)
    texts = (("Behind the dog?",), ("So, where is it?",))
    asked = Asked("kept", "x", (1,), texts)
    rows = {row.id: row for row in ASKED_ROWS}
    task = batch[torch.tensor([1])]
    for name in ("cond_multitask", "clip"):
        row = rows[name]
        each = [accuracy(row, generator, task, replace(task, question=generator.embed_questions(t))) for t in texts]
        torch.testing.assert_close(accuracy_asked(row, generator, batch, asked), torch.stack(each).mean(0))
    plain = accuracy(rows["clip"], generator, batch, batch)
    assert accuracy_asked(rows["clip"], generator, batch, asked).equal(plain[1:])


def task(question, answers=("a", "b"), family="f"):
    return Task(question, answers, ((0,), (0,)), ((1,), (1,)), "test", family)


def test_minimal_pairs():
    tasks = [
        task("What is left of the red box?"),
        task("What is above the red box?"),
        task("What is left of the blue box?", ("a", "c")),
        task("What is redder?"),
        task("What is above the blue box?", family="g"),  # two words away from the first
    ]
    found = pairs.minimal_pairs(tasks, tasks, [["left of", "above"], ["red", "blue"]])
    near = {(p.row, tasks.index(p.partner)): p for p in found}
    assert set(near) == {(0, 1), (1, 0), (0, 2), (2, 0), (2, 4), (4, 2), (1, 4), (4, 1)}
    assert near[0, 1].same_answers and not near[0, 2].same_answers
    assert near[0, 1].group == "left of / above" and near[0, 2].group == "red / blue"
    assert near[0, 1].other in (2, 3) and near[4, 1].other is None
    assert pairs.minimal_pairs(tasks[:1], tasks[:2], [["is there a", "is there no"]]) == []
    # Test questions are judged; partners may be any question of the dataset.
    assert [(p.row, p.partner) for p in pairs.minimal_pairs(tasks[:1], tasks[:2], [["left of", "above"]])] == [
        (0, tasks[1])
    ]


def test_summary_of_pairs_in_closed_form():
    tasks = [task("left"), task("right"), task("up", ("a", "c"))]
    found = [pairs.Pair(0, tasks[1], "left / right", True, 2), pairs.Pair(0, tasks[2], "left / up", False, None)]
    values = {
        "own": torch.tensor([0.8, 0.2]),
        "partner": torch.tensor([0.5, 0.1]),
        "distance": torch.tensor([0.3, 0.5]),
        "random": torch.tensor([0.6, torch.nan]),
    }
    every, first, second = pairs.summary(found, [values, values])
    assert (every["own"], every["partner"], every["n_pairs"], every["n_same"]) == (0.8, 0.5, 2, 1)
    assert every["distance"] == pytest.approx(0.4) and every["relative"] == pytest.approx(0.4 / 0.6, abs=1e-4)
    assert first["group"] == "left / right" and first["relative"] == pytest.approx(0.5)
    assert second["own"] is None and second["relative"] is None and second["distance"] == pytest.approx(0.5)


def test_the_script(tiny, tmp_path, capsys, monkeypatch):
    training = write(tmp_path / "t.toml", '[kinds.case]\nrule = "case"\nforms = ["lower"]\n')
    kept = write(
        tmp_path / "k.toml", OPPOSITES + '[kinds.chatty]\nrule = "frames"\nframes = ["Oh {q}?", "Hi there. {Q}"]\n'
    )
    file, plot = tmp_path / "p.json", tmp_path / "p.png"
    flags = ["--weights", str(release(tiny)), "--work", str(tiny), "--device", "cpu"]
    flags += ["--training", str(training), "--kept", str(kept), "--draws", "2"]
    script.main([*flags, "--json", str(file), "--plot", str(plot)])
    out = capsys.readouterr().out
    assert "training, case: " in out and plot.read_bytes().startswith(b"\x89PNG")
    document = json.loads(file.read_text(encoding="utf-8"))
    records = {(r["row"], r["group"], r["kind"]): r for r in document["results"]}
    assert len(records) == len(document["results"]) == len(ASKED_ROWS) * 3
    for (row, group, _), record in records.items():
        plain = records[row, "as it is", "as it is"]
        assert record["n_tasks"] == plain["n_tasks"] and record["as_it_is"] == plain["mean"]
        assert record["difference"] == pytest.approx(record["mean"] - plain["mean"], abs=2e-4)
        if row == "clip" or group == "as it is":
            assert record["difference"] == 0
    # The tiny CLIP's tokenizer reads small letters alone.
    assert records["cond_multitask", "training", "case"]["difference"] == 0
    monkeypatch.setattr(parts, "read_results", lambda name: document)
    text = report.PARTS["phrasings"]()
    assert text.startswith("| kind of phrasing | questions | CLIP, bare answers | ") and "| kept: chatty | " in text

    script.main([*flags, "--show", "1"])
    out = capsys.readouterr().out
    assert "kept: chatty (" in out and "CLIP" not in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--draws", "0"], "--draws 0; allowed: a whole number from 1"),
        (["--show", "-1"], "--show -1; allowed"),
        (["--kept", "nowhere.toml"], "nowhere.toml"),
        (["--training", str(FILES["training"].with_name("presets.py"))], "no TOML"),
    ],
)
def test_bad_flags(flags, message, capsys):
    with pytest.raises(SystemExit):
        script.main(flags)
    assert message in capsys.readouterr().err
