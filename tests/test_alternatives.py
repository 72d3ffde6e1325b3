"""Answers that a question names itself."""

from __future__ import annotations

import pytest
import torch

from core.data.emoji.dataset import EmojiConfig, EmojiVQA
from core.data.known_questions import KnownQuestion, KnownQuestions
from core.data.meta_vqa import MetaVQA, MetaVQAConfig
from core.data.phrasings.alternatives import YES_OR_NO, asks_yes_or_no, named_answers
from core.release.default import shipped_release
from eval.harness.phrasings import FILES, asked_in_other_words, read_files

KNOWN = ["cat", "sunny", "cloudy", "living room", "red", "blue", "Top left"]


@pytest.mark.parametrize(
    "question, answers",
    [
        ("Is this a cat or a dog?", ["cat", "dog"]),
        ("is it day or night?", ["day", "night"]),
        ("Is the light red or green", ["red", "green"]),
        ("man or woman?", ["man", "woman"]),
        ("Is it sunny or cloudy outside?", ["sunny", "cloudy"]),
        ("Is it a living room or kitchen?", ["living room", "kitchen"]),
        ("Is it red, green, or blue?", ["red", "green", "blue"]),
        ("Please, is it red or blue?", ["red", "blue"]),
        ("Which is bigger, the cat or the dog?", ["cat", "dog"]),
        ("What is this: a cat or a dog?", ["cat", "dog"]),
        ("Is the cat on the sofa or under the table?", ["on the sofa", "under the table"]),
        ("Do you see a red or blue badge?", ["red", "blue"]),
        ("Is the man young or old?", ["young", "old"]),
        ("Is it top left or bottom right?", ["Top left", "bottom right"]),  # as the known answer is written
        ("cat, dog or bird", ["cat", "dog", "bird"]),
        ("Is there a dog or not?", YES_OR_NO),
        ("Is there a dog in the picture?", YES_OR_NO),
        ("Can you see a car?", YES_OR_NO),
        ("Isn\u2019t it raining?", YES_OR_NO),
        ("So, are they happy?", YES_OR_NO),
        ("I wonder whether it rains", YES_OR_NO),
        ("tell me if there is a dog", YES_OR_NO),
        ("How many cats or dogs are there?", []),
        ("Can you tell me what colour the badge is?", []),
        ("Could you name the colour of the badge behind the dog", []),
        ("Is it possible to say the colour of the badge", []),
        ("Were is the dog?", []),
        ("Waht is on the plate?", []),
        ("What colour is it, or something?", []),
        ("Is it a cat or a cat?", []),
        ("", []),
        ("or", []),
        ("is it or a", []),
    ],
)
def test_answers_that_a_question_names(question, answers):
    assert named_answers(question, KNOWN) == answers
    assert asks_yes_or_no(question) == (answers == YES_OR_NO)


@pytest.mark.parametrize("world", ["emoji", "photos"])
def test_no_known_question_in_any_words_is_taken_for_one(world):
    if world == "emoji":
        dataset = EmojiVQA(EmojiConfig())
    else:
        dataset = MetaVQA(MetaVQAConfig(str(shipped_release("photos") / "data")))
    questions = [task.question for task in dataset.tasks]
    known = {answer for task in dataset.tasks for answer in task.answers}
    forms = {text for asked in asked_in_other_words(questions, read_files(FILES), 1) for t in asked.texts for text in t}
    assert len(forms) > 10 * len(questions)
    assert [text for text in sorted(forms) if named_answers(text, known)] == []


def test_suggestions_take_what_a_question_names():
    pets = KnownQuestion("What animal is this?", ("cat", "dog", "bird"))
    open_ones = KnownQuestions([pets, KnownQuestion("Where is it?", ("left", "right"))], torch.eye(2))
    assert open_ones.suggest_answers("Is this a fox or a cat?", torch.eye(2)[0]) == ["fox", "cat"]
    assert open_ones.suggest_answers("Is there a cat?", torch.eye(2)[0]) == YES_OR_NO
    closed = KnownQuestions([pets, KnownQuestion("Is there a cat?", ("Yes", "No"))], torch.eye(2))
    assert closed.suggest_answers("Is there a bird?", torch.eye(2)[1]) == ["Yes", "No"]  # as it knows them
    chosen = KnownQuestion("Is it a cat or a dog?", ("dog", "cat", "neither"))
    assert KnownQuestions([chosen], torch.eye(1)).suggest_answers(chosen.question, torch.ones(1)) == list(
        chosen.answers
    )
