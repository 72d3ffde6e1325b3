"""Nearest questions by wording, and the answers they suggest."""

import pytest

from core.data.emoji.dataset import EmojiVQA
from core.data.known_questions import KnownQuestion, KnownQuestions
from train.presets import get_preset

KNOWN = KnownQuestions(
    [
        KnownQuestion("What colour is the badge behind the dog?", ("red", "blue"), "badge"),
        KnownQuestion("What colour is the badge behind the cat?", ("red", "green"), "badge"),
        KnownQuestion("Where is the dog?", ("left", "right"), "place"),
    ]
)


def test_what_is_asked_counts_more_than_what_it_is_about():
    nearest = KNOWN.nearest("What colour is the badge behind the apple?", 3)
    assert [k.family for k in nearest] == ["badge", "badge", "place"]
    assert 0 < nearest[2].similarity < nearest[0].similarity < 1


def test_a_known_question_gets_its_own_answers():
    assert KNOWN.suggest_answers("where is the DOG") == ["left", "right"]
    assert KNOWN.nearest("Where is the dog?", 1)[0].similarity == pytest.approx(1.0)


def test_nothing_is_known():
    assert KnownQuestions([]).suggest_answers("Where is the dog?") == []


def test_most_right_answers_of_test_questions_are_suggested():
    tasks = EmojiVQA(get_preset("emoji").dataset).tasks
    known = KnownQuestions([KnownQuestion(t.question, t.answers) for t in tasks if t.split != "test"])
    shares = []
    for task in [t for t in tasks if t.split == "test" and not t.new_family][::5]:
        suggested = set(known.suggest_answers(task.question))
        shares.append(sum(task.answers[label] in suggested for label in task.query[1]) / len(task.query[1]))
    assert sum(shares) / len(shares) > 0.8
