"""Yes/no questions in their opposite form: the rules, and the training tasks that are made by them."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from core.config import config_hash
from core.data.meta_vqa import MetaVQAConfig, denied
from core.data.phrasings.denials import opposite
from core.data.tasks import Task
from eval.harness.shapes import questions
from tests.conftest import ROOT
from train import make_data
from train.pipeline.flags import preset_with_data

PAIRS = [
    ("Is there an elephant?", "Is there no elephant?"),
    ("Is there a dog on the left?", "Is there no dog on the left?"),
    ("Are there any people?", "Are there no people?"),
    ("Is anything red?", "Is nothing red?"),
    ("Is anybody in the picture?", "Is nobody in the picture?"),
    ("Is there anyone?", "Is there no one?"),
    ("Is a red square present?", "Is no red square present?"),
    ("Is the biggest shape red?", "Is the biggest shape not red?"),
    ("Is the biggest shape a star?", "Is the biggest shape not a star?"),
    ("Is the man wearing a hat?", "Is the man not wearing a hat?"),
    ("Is the cat on the table?", "Is the cat not on the table?"),
    ("Is this a kitchen?", "Is this not a kitchen?"),
    ("Is this room clean?", "Is this room not clean?"),
    ("Is it raining?", "Is it not raining?"),
    ("Is the big red square on the left?", "Is the big red square not on the left?"),
    ("Is the door closed?", "Is the door not closed?"),
    ("Are there two cats?", "Are there not two cats?"),
    ("Are all plates empty?", "Are not all plates empty?"),
]
ONE_WAY = [
    ("is there water", "Is there no water?"),
    ("Are there people in the picture?", "Are there no people in the picture?"),
    ("Does the man wear a hat?", "Does the man wear no hat?"),
    ("Can you see any dog?", "Can you see no dog?"),
    ("Is there something on the left?", "Is there nothing on the left?"),
    ("Was someone here?", "Was no one here?"),
    ("Do you see no dog?", "Do you see any dog?"),
]
LEFT = [
    "What colour is the dog?",
    "Where is no dog?",
    "Isn't it red?",
    "Is it no longer raining?",
    "Is there no dog that is not black?",
    "Does it rain?",
    "Is there",
    "Is",
    "",
]


@pytest.mark.parametrize("positive, negated", PAIRS)
def test_the_two_forms_are_each_others_opposite(positive, negated):
    assert (opposite(positive), opposite(negated)) == (negated, positive)


@pytest.mark.parametrize("question, other", ONE_WAY)
def test_the_opposite_of_a_question(question, other):
    assert opposite(question) == other


@pytest.mark.parametrize("question", LEFT)
def test_what_the_rules_do_not_understand_is_left(question):
    assert opposite(question) is None


def test_the_shapes_are_asked_in_forms_that_the_rules_know():
    """Their results speak of it: half of the test questions are the opposite of a training question."""
    told = [question.text for question in questions(0) if opposite(question.text) != question.partner]
    assert all("nothing" in text for text in told) and len(told) == 4  # "something" became "anything"


def task(question, answers=("no", "Yes"), split="train"):
    return Task(question, answers, ((0, 1, 2), (0, 1, 1)), ((3, 4), (1, 0)), split, family="is there", prompt="{} dog")


def test_a_denied_task_has_the_same_pictures_and_the_other_answers():
    (found,) = denied([task("Is there a dog?")])
    assert found.question == "Is there no dog?" and found.answers == ("no", "Yes") and found.split == "train"
    assert (found.support, found.query) == (((0, 1, 2), (1, 0, 0)), ((3, 4), (0, 1)))
    assert found.prompt == "" and found.family == "is there"


def test_only_training_questions_for_yes_or_no_are_denied_and_none_twice():
    other = [
        task("Is there a dog?", split="val"),
        task("Is there a cat?", split="test"),
        task("Is there a cow?", answers=("no", "yes", "maybe")),
        task("Is there a bird?", answers=("some", "none")),
        task("What is there?"),
    ]
    assert not denied(other)
    alike = [task("Is there a dog?"), task("Is there any dog?"), task("Are there dogs?"), task("Are there any dogs?")]
    assert [t.question for t in denied(alike)] == ["Is there no dog?", "Are there no dogs?"]
    both = [task("Is there a dog?"), task("is there no dog")]
    assert not denied(both)
    assert [t.question for t in denied([*both, task("Is there a cat?")])] == ["Is there no cat?"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_no_held_out_question_is_asked_in_training_word_for_word(split):
    (found,) = denied([task("Is there a dog?"), task("is there no dog", split=split)])
    assert found.question == "Is there no dog at all?" and found.split == "train"
    held_out = [task(text, split=split) for text in ("is there no dog", "Is there no dog at all?")]
    assert not denied([task("Is there a dog?"), *held_out])


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Data of one's own with yes/no questions, and data without."""
    root = tmp_path_factory.mktemp("denials")
    for i in range(8):
        Image.new("RGB", (8, 8), (31 * i, 0, 0)).save(root / f"{i}.png")
    asked = {
        "yes": ["Is there a dog?", "Is there a cat?", "Is there a cow?", "Is it red?", "Is it raining?"],
        "big": [f"Where is thing {i}?" for i in range(5)],
    }
    for name, texts in asked.items():
        with (root / f"{name}.csv").open("w", newline="") as file:
            rows = [(f"{i}.png", text, [name, "no"][i % 2]) for text in texts for i in range(8)]
            csv.writer(file).writerows([("image", "question", "answer"), *rows])
    return root


def test_ones_own_yes_no_questions_are_denied_in_training_alone(own, capsys):
    make_data.main(["--images", str(own), "--table", str(own / "yes.csv"), "--output", str(own / "yes")])
    told = capsys.readouterr().out
    config = preset_with_data("tiny", own / "yes").dataset
    tasks = config.open().tasks
    assert config.denials and [t.split for t in tasks].count("test") == 2
    train = [t for t in tasks if t.split == "train"]
    assert len(train) == 4 and {opposite(t.question) for t in train[:2]} == {t.question for t in train[2:]}
    assert "2 training questions are asked in their opposite form, too" in told
    assert config_hash(config) != config_hash(MetaVQAConfig(**{**vars(config), "denials": False}))


def test_other_data_are_as_they_were(own, capsys):
    make_data.main(["--images", str(own), "--table", str(own / "big.csv"), "--output", str(own / "big")])
    assert "opposite" not in capsys.readouterr().out
    config = preset_with_data("tiny", own / "big").dataset
    assert not config.denials and len(config.open().tasks) == 5
    fields = {name: value for name, value in vars(config).items() if name not in ("denials", "directory")}
    assert config_hash(config) == config_hash(fields)
    assert not preset_with_data("photos", ROOT / Path("weights/photos/data")).dataset.denials
