"""Meta-VQA's questions out of the four official files of VQA v2 (Appendix A.5).

The paper says what Meta-VQA is; the order of steps and the seed here are what gives its published split, to the pair.
"""

from __future__ import annotations

import json
import random
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .built import Questions, divide

PARTS = ("train2014", "val2014")
MIN_EXAMPLES = 21
# What an entry must have, by the name of the list that it is in.
_FIELDS: dict[str, dict[str, type]] = {
    "questions": {"question_id": int, "image_id": int, "question": str},
    "annotations": {"question_id": int, "image_id": int, "answer_type": str, "multiple_choice_answer": str},
}
_KINDS = {int: "a whole number", str: "a text"}


def question_file(part: str) -> str:
    return f"v2_OpenEnded_mscoco_{part}_questions.json"


def annotation_file(part: str) -> str:
    return f"v2_mscoco_{part}_annotations.json"


VQA_FILES = tuple(name(part) for part in PARTS for name in (question_file, annotation_file))


def from_vqa_v2(directory: Path | str) -> tuple[Questions, Questions]:
    """Training and test questions. Reading the official files takes about 3 GB of memory and a minute.

    Raises:
        ValueError: files are missing (all are named), or are not VQA v2's.
    """
    directory = Path(directory)
    missing = [name for name in VQA_FILES if not (directory / name).is_file()]
    if missing:
        raise ValueError(
            f"{directory}: {', '.join(missing)} missing; VQA v2's questions and annotations for train2014 and val2014 "
            "come from https://visualqa.org/download.html, and train/make_data.py --download fetches them"
        )
    found: dict[str, dict[str, str]] = {}  # question -> image -> answer; the first seen counts
    for part in PARTS:
        for question, image, answer in _pairs(directory, part):
            found.setdefault(question, {}).setdefault(image, answer)
    tasks: Questions = {}
    for question, answers in found.items():
        by_answer: dict[str, list[str]] = {}
        for image, answer in answers.items():
            by_answer.setdefault(answer, []).append(image)
        by_answer = {answer: images for answer, images in by_answer.items() if len(images) > 1}
        examples = sum(map(len, by_answer.values()))
        if examples >= MIN_EXAMPLES and len(by_answer) >= 2 and not re.search(r"\bor\b", question, re.IGNORECASE):
            tasks[question] = divide(by_answer)
    order = list(tasks)
    random.Random(2021).shuffle(order)
    cut = round(0.7 * len(order))
    return {q: tasks[q] for q in order[:cut]}, {q: tasks[q] for q in order[cut:]}


def _pairs(directory: Path, part: str) -> Iterator[tuple[str, str, str]]:
    """(question, image, answer) of one part's annotations whose answer is a number or a word, not yes or no."""
    text = {
        q["question_id"]: (q["question"], q["image_id"]) for q in _read(directory / question_file(part), "questions")
    }
    path = directory / annotation_file(part)
    for annotation in _read(path, "annotations"):
        if annotation["answer_type"] not in ("number", "other"):
            continue
        question, image = text.get(annotation["question_id"], (None, None))
        if question is None or image != annotation["image_id"]:
            raise ValueError(
                f"{path}: annotation of question {annotation['question_id']}, image {annotation['image_id']}, "
                f"has no such question in {question_file(part)}"
            )
        yield question, f"COCO_{part}_{image:012d}", annotation["multiple_choice_answer"]


def _read(path: Path, key: str) -> list[dict[str, Any]]:
    """The entries under `key` of one of VQA v2's files; a ValueError that names the file, entry and field if it is
    another one's, or a split's whose answers are not published."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))[key]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not a file of VQA v2's {key} ({error!r})") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: {key!r} must be a list, got {type(entries).__name__}")
    for i, entry in enumerate(entries):
        for field, kind in _FIELDS[key].items():
            value = entry.get(field) if isinstance(entry, dict) else None
            if type(value) is not kind:
                of = (
                    f", question_id {entry['question_id']!r},"
                    if isinstance(entry, dict) and "question_id" in entry
                    else ""
                )
                what = "lacks" if value is None else f"has {reprlib.repr(value)} for"
                raise ValueError(f"{path}: entry {i + 1} of {key!r}{of} {what} {field!r}, {_KINDS[kind]}")
    return entries
