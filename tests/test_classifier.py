import time

import pytest

from core.generator import check_answers


def test_as_many_and_as_long_answers_as_are_allowed():
    answers = [f"{i}".zfill(200) for i in range(256)]
    assert check_answers([f" {answer}\n" for answer in answers]) == answers


@pytest.mark.parametrize(
    "answers, word",
    [
        ([f"{i}" for i in range(257)], "257 answers; allowed: 2 to 256"),
        (["yes", "n" + "o" * 200], r"the answer 'no*\.\.\.' has 201 characters; 200 are allowed"),
        (["yes", "no", " yes"], "'yes' is given more than once"),
    ],
)
def test_too_many_too_long_and_repeated_answers_are_named(answers, word):
    with pytest.raises(ValueError, match=word):
        check_answers(answers)


def test_a_long_list_of_answers_is_refused_at_once():
    answers = ["x" * 300 + f"{i}" for i in range(40_000)]
    begun = time.perf_counter()
    with pytest.raises(ValueError, match="40000 answers"):
        check_answers(answers)
    assert time.perf_counter() - begun < 0.5
