"""Labelled pictures of a visitor: what is accepted as an example, and which are of use for a question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..classifier import MAX_ANSWER
from ..texts import folded
from .ask import check_count, read_answers
from .files import read_pictures
from .views.asked import counted


def label(labelled: Sequence[tuple[str, str]], paths: Sequence[str], answer: str | None) -> list[tuple[str, str]]:
    """The labelled pictures (path, answer) and more of them, all with one right answer; one labelled again is there
    once, with its new answer, so that it cannot be learned from and tested with.

    Raises:
        ValueError: no picture, no answer, one that is too long, or too many pictures.
    """
    answer = (answer or "").strip()
    if not paths or not answer:
        raise ValueError("choose pictures and say what the right answer is for all of them")
    if len(answer) > MAX_ANSWER:  # no candidate answer could be it, and it would stay in memory
        raise ValueError(f"the right answer has {len(answer)} characters; {MAX_ANSWER} are allowed")
    answers = dict(labelled) | dict.fromkeys(paths, answer)
    check_count(len(answers))
    return list(answers.items())


def add(
    labelled: Sequence[tuple[str, str]], paths: Sequence[str], answer: str | None, answers: str
) -> list[tuple[str, str]]:
    """`label`, for pictures that can be read and a right answer that is one of the candidate `answers`.

    Raises:
        ValueError: what `label` refuses, another answer, or a file that is no picture.
    """
    result = label(labelled, paths, answer)
    candidates = read_answers(answers)
    if folded(answer.strip()) not in map(folded, candidates):
        raise ValueError(
            f"the right answer {answer.strip()!r} is not among the candidate answers: correct it, or add it to them"
        )
    read_pictures(paths)
    return result


def usable(labelled: Sequence[tuple[str, str]], candidates: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The labelled pictures (path, answer) whose file is there and whose answer is a candidate, in the candidate's
    words, and what is to be said of the others. They may be of an earlier question, or of an hour ago.

    Raises:
        ValueError: there are pictures, and none is usable.
    """
    check_count(len(labelled))
    words = {folded(candidate): candidate for candidate in candidates}
    fitting = [(path, words[folded(answer)]) for path, answer in labelled if folded(answer) in words]
    there = [(path, answer) for path, answer in fitting if Path(path).is_file()]
    notes = []
    if len(fitting) < len(labelled):
        strange = next(answer for _, answer in labelled if folded(answer) not in words)
        count = len(labelled) - len(fitting)
        left_out = f"{count} of {counted(len(labelled), 'labelled picture')} {'is' if count == 1 else 'are'} left out"
        notes.append(f"{left_out}: the right answer {strange!r} is not among the candidate answers.")
    if len(there) < len(fitting):
        count = len(fitting) - len(there)
        is_gone = f"{counted(count, 'labelled picture')} {'is' if count == 1 else 'are'} no longer kept here"
        notes.append(f"{is_gone}; please add {'it' if count == 1 else 'them'} again.")
    if notes and not there:
        raise ValueError(notes[0])
    return there, notes
