"""Meta-VQA with the images that are there: which pairs and questions these leave, and in which roles."""

from __future__ import annotations

import random
from collections.abc import Container, Mapping

from .built import LEFT_OUT, SEED, SUPPORT_SHARE, Entry, Questions, image_names
from .tasks import Split


def with_images(splits: Mapping[Split, Questions], there: Container[str]) -> dict[Split, Questions]:
    """Questions less the pairs whose image is not among those `there`.

    Roles and candidate answers stay, also answers that no pair has any more. Questions without any pair go.
    """
    result: dict[Split, Questions] = {}
    for split, questions in splits.items():
        entries = {
            question: Entry(
                train=[pair for pair in entry["train"] if pair[0] in there],
                test=[pair for pair in entry["test"] if pair[0] in there],
                answers=entry["answers"],
            )
            for question, entry in questions.items()
        }
        result[split] = {question: entry for question, entry in entries.items() if entry["train"] or entry["test"]}
    return result


def in_both_roles(splits: Mapping[Split, Questions]) -> dict[Split, Questions]:
    """The questions that have both support and query pairs."""
    return {
        split: {question: entry for question, entry in questions.items() if entry["train"] and entry["test"]}
        for split, questions in splits.items()
    }


def dealt_anew(splits: Mapping[Split, Questions]) -> dict[Split, Questions]:
    """The same pairs in new roles, for questions of few pairs.

    Of each training question 70% of the pairs (rounded) are support and the others query; its only pair is support. All
    pairs of a test question are query.
    """

    def deal(split: Split, entry: Entry) -> Entry:
        pairs = entry["train"] + entry["test"]
        if split == "test":
            return Entry(train=[], test=pairs, answers=entry["answers"])
        random.Random(SEED).shuffle(pairs)
        cut = round(SUPPORT_SHARE * len(pairs))
        return Entry(train=pairs[:cut], test=pairs[cut:], answers=entry["answers"])

    return {split: {q: deal(split, entry) for q, entry in questions.items()} for split, questions in splits.items()}


def left_out(full: Mapping[Split, Questions], part: Mapping[Split, Questions]) -> dict[str, int]:
    """How many pairs, images and questions of the full dataset a part of it lacks, by the names `LEFT_OUT`."""
    counts = zip(LEFT_OUT, sizes(full), sizes(part), strict=True)
    return {name: all_of_them - kept for name, all_of_them, kept in counts}


def sizes(splits: Mapping[Split, Questions]) -> tuple[int, int, int]:
    """Numbers of pairs, of images and of questions."""
    entries = [entry for questions in splits.values() for entry in questions.values()]
    return sum(len(e["train"]) + len(e["test"]) for e in entries), len(image_names(splits.values())), len(entries)
