"""Datasets that live in a directory: questions in the published format of Meta-VQA, and pictures in files elsewhere.

A built directory holds `meta_train.json` and `meta_test.json` (and `meta_val.json` where the builder chose validation
tasks), each `{question: {"train": [[image, answer], ...], "test": [...], "answers": [...]}}` where "train" is the
support set and "test" the query set; `prompt_meta.json`, a cloze prompt for each question that has one; `images.json`,
where each image's file lies; and, written last, `dataset.json`, what it was made from and hashes of what it holds.

Where only a part of the images is at hand, `dataset.json` counts under "part" what was left out. In a part a question
may have an empty support or query set, and candidate answers that none of its images has.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from ..config import config_hash
from ..files import write_json
from .tasks import Split

FORMAT = 1
QUESTION_FILES: dict[Split, str] = {"train": "meta_train.json", "val": "meta_val.json", "test": "meta_test.json"}
PROMPT_FILE, IMAGE_FILE, IDENTITY_FILE = "prompt_meta.json", "images.json", "dataset.json"
SUPPORT_SHARE, SEED = 0.7, 2021  # as the published Meta-VQA was divided
LEFT_OUT = ("pairs_left_out", "images_left_out", "questions_left_out")  # what "part" in `dataset.json` counts


class Entry(TypedDict):
    """One question: support pairs (image, answer), query pairs, candidate answers."""

    train: list[list[str]]
    test: list[list[str]]
    answers: list[str]


Questions = dict[str, Entry]


@dataclass(frozen=True)
class ImageFiles:
    """Where images lie: `files[i]`, below `root`, is the i-th of the sorted image names."""

    root: Path
    files: tuple[str, ...]

    def digest(self, names: Sequence[str]) -> str:
        """A hash of every image's name and its file's size in bytes: tells resized copies from originals."""
        return config_hash([[name, (self.root / f).stat().st_size] for name, f in zip(names, self.files, strict=True)])


def divide(by_answer: Mapping[str, Sequence[str]]) -> Entry:
    """The images of every answer into support (70%, rounded) and query, shuffled as Meta-VQA was."""
    entry = Entry(train=[], test=[], answers=list(by_answer))
    for answer, images in by_answer.items():
        images = list(images)
        random.Random(SEED).shuffle(images)
        cut = round(SUPPORT_SHARE * len(images))
        entry["train"] += [[image, answer] for image in images[:cut]]
        entry["test"] += [[image, answer] for image in images[cut:]]
    return entry


def image_names(questions: Iterable[Questions]) -> list[str]:
    """Every image that occurs, once, sorted: the dataset's image table."""
    return sorted({image for part in questions for e in part.values() for image, _ in e["train"] + e["test"]})


def read_questions(path: Path | str, *, part: bool = False) -> Questions:
    """A file in the published format, checked; `part` allows what only a part of a dataset may have.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not this format; the message names the file, the question and what is wrong.
    """
    questions = _read_json(path)
    if not isinstance(questions, dict) or not questions:
        raise ValueError(f"{path}: expected an object of questions, got {type(questions).__name__}")
    for question, entry in questions.items():
        problem = "an empty question" if not question.strip() else _problem(entry, part)
        if problem:
            raise ValueError(f"{path}: question {question!r}: {problem}")
    return questions


def read_prompts(path: Path | str) -> dict[str, str]:
    """Cloze prompts by question, each with one {} for the answer; a ValueError names one that is not so."""
    prompts = _read_json(path)
    if not isinstance(prompts, dict):
        raise ValueError(f"{path}: expected an object of prompts, got {type(prompts).__name__}")
    for question, prompt in prompts.items():
        if not is_prompt(prompt):
            raise ValueError(f"{path}: prompt {prompt!r} of {question!r} must be a text with one {{}} for the answer")
    return prompts


def is_prompt(prompt: object) -> bool:
    return isinstance(prompt, str) and prompt.count("{}") == prompt.count("{") == prompt.count("}") == 1


def write_dataset(
    directory: Path | str,
    splits: Mapping[Split, Questions],
    *,
    name: str,
    source: str,
    prompts: Mapping[str, str],
    images: ImageFiles | None,
    part: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Write a built directory.

    Args:
        images: None where only the questions are at hand.
        part: the counts `LEFT_OUT`, where the dataset is a part of another.

    Returns:
        What `dataset.json` says: name, source, counts, hashes.

    Raises:
        ValueError: a question belongs to two splits.
    """
    directory = Path(directory)
    seen: dict[str, Split] = {}
    for split, questions in splits.items():
        for question in questions:
            if question in seen:
                raise ValueError(f"question {question!r} belongs to {seen[question]} and to {split}")
            seen[question] = split
    names = image_names(splits.values())
    prompts = {question: prompts[question] for question in seen if question in prompts}
    identity = {
        "name": name,
        "format": FORMAT,
        "source": source,
        "counts": {split: len(splits.get(split, {})) for split in QUESTION_FILES}
        | {
            "pairs": sum(len(e["train"]) + len(e["test"]) for part in splits.values() for e in part.values()),
            "images": len(names),
            "prompts": len(prompts),
        },
        "questions": _digest({split: splits[split] for split in QUESTION_FILES if split in splits}),
        "prompts": _digest(prompts),
        "images": images.digest(names) if images else None,
    } | ({} if part is None else {"part": dict(part)})
    (directory / IDENTITY_FILE).unlink(missing_ok=True)  # until it is back, this is no dataset
    for split, file in QUESTION_FILES.items():
        if split in splits:
            write_json(directory / file, splits[split])
        else:
            (directory / file).unlink(missing_ok=True)
    write_json(directory / PROMPT_FILE, prompts)
    if images:
        write_images(directory, images)
    else:
        (directory / IMAGE_FILE).unlink(missing_ok=True)
    write_json(directory / IDENTITY_FILE, identity)
    return identity


def write_images(directory: Path | str, images: ImageFiles) -> None:
    """Note in a built directory where its images lie on this machine."""
    table = {"root": os.path.abspath(images.root), "files": list(images.files)}
    write_json(Path(directory) / IMAGE_FILE, table)


def read_identity(directory: Path | str) -> dict[str, Any]:
    """What `dataset.json` says.

    Raises:
        ValueError: the directory holds no dataset, or one of a newer format; the message says how to make one.
    """
    path = Path(directory) / IDENTITY_FILE
    if not path.is_file():
        raise ValueError(
            f"{directory} holds no built dataset ({IDENTITY_FILE} is missing); train/make_data.py makes one"
        )
    identity = _read_json(path)
    if not isinstance(identity, dict) or identity.get("format") != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}; make the dataset again with train/make_data.py")
    if "part" in identity and not _is_count_of_left_out(identity["part"]):
        raise ValueError(f"{path}: 'part' must count {', '.join(LEFT_OUT)}, got {identity['part']!r}")
    return identity


def read_dataset(directory: Path | str) -> tuple[dict[str, Any], dict[Split, Questions], dict[str, str]]:
    """Identity, questions by split and prompts of a built directory.

    Raises:
        ValueError: no dataset, or its files are not those that were built.
    """
    directory = Path(directory)
    identity = read_identity(directory)
    present = {split: directory / file for split, file in QUESTION_FILES.items() if (directory / file).is_file()}
    splits = {split: read_questions(path, part="part" in identity) for split, path in present.items()}
    prompts = read_prompts(directory / PROMPT_FILE)
    for key, value in (("questions", splits), ("prompts", prompts)):
        if _digest(value) != identity[key]:
            raise ValueError(f"{directory}: its {key} changed since it was built; run train/make_data.py again")
    return identity, splits, prompts


def read_images(directory: Path | str, count: int) -> ImageFiles | None:
    """Where the `count` images of a built directory lie; None if it was built without pictures."""
    path = Path(directory) / IMAGE_FILE
    if not path.is_file():
        return None
    table = _read_json(path)
    if len(table["files"]) != count:
        raise ValueError(f"{path}: {len(table['files'])} files for {count} images; run train/make_data.py again")
    return ImageFiles(Path(table["root"]), tuple(table["files"]))


def _is_count_of_left_out(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == set(LEFT_OUT)
        and all(type(count) is int and count >= 0 for count in value.values())
    )


def _problem(entry: Any, part_of_it: bool) -> str | None:
    """What is wrong with one question's entry, None if nothing."""
    if not isinstance(entry, dict) or entry.keys() != {"train", "test", "answers"}:
        return "expected the keys 'train', 'test' and 'answers'"
    answers = entry["answers"]
    if not isinstance(answers, list) or not all(isinstance(a, str) and a.strip() for a in answers):
        return f"answers must be a list of texts, got {answers!r}"
    if len(set(answers)) != len(answers) or len(answers) < 2:
        return f"needs at least 2 different answers, got {answers!r}"
    images: set[str] = set()
    given: set[str] = set()
    for part in ("train", "test"):
        pairs = entry[part]
        if not isinstance(pairs, list) or not (pairs or part_of_it):
            return f"{part!r} must be a list of [image, answer] pairs, got {pairs!r}"
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                return f"{part!r}: {pair!r} is no [image, answer] pair"
            if pair[1] not in answers:
                return f"{part!r}: {pair[1]!r} is none of its answers"
            if pair[0] in images:
                return f"image {pair[0]!r} occurs twice"
            images.add(pair[0])
            given.add(pair[1])
    if part_of_it:
        return None if images else "no image at all"
    unused = [answer for answer in answers if answer not in given]
    return f"no image has the answer {unused[0]!r}" if unused else None


def _read_json(path: Path | str) -> Any:
    """JSON in which no key occurs twice; a ValueError names the file."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
        return result

    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=unique)
    except ValueError as error:  # not JSON, not UTF-8, or a key twice
        raise ValueError(f"{path}: {error}") from None


def _digest(value: Any) -> str:
    """SHA-256 of JSON, order included."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()
