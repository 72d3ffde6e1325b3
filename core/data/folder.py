"""Bring your own questions: a directory of pictures and a table of (image, question, answer) become a dataset.

The table is a CSV file with a header, or JSON, a list of objects; its columns are

* `image`, a file below the pictures' directory, `question` and `answer`,
* optionally `split`, train, val or test: which questions to train on, to choose with and to test on; all rows of a
  question agree. Without it, questions are divided at random;
* optionally `prompt`, the question's cloze prompt, with one {} for the answer.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import get_args

from .built import ImageFiles, Questions, divide, image_names, is_prompt
from .tasks import Split

REQUIRED, OPTIONAL = ("image", "question", "answer"), ("split", "prompt")
_SHOWN = 10  # problems in one message


@dataclass(frozen=True)
class FolderConfig:
    """How a table without a `split` column is divided: `test_fraction` of the questions, and `val_fraction` of the
    other ones, at random by `seed`."""

    directory: str
    table: str
    test_fraction: float = 0.3
    val_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("test_fraction", "val_fraction"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name} {getattr(self, name)!r} must lie strictly between 0 and 1")


@dataclass(frozen=True)
class Row:
    """One line of a table; `where` says which."""

    where: str
    image: str
    question: str
    answer: str
    split: str
    prompt: str


@dataclass(frozen=True)
class FolderData:
    """What a table and its pictures give; `notes` says what was left out."""

    splits: dict[Split, Questions]
    prompts: dict[str, str]
    images: ImageFiles
    notes: list[str]


def read_folder(config: FolderConfig) -> FolderData:
    """Read and check a table.

    As in Meta-VQA, an answer that a question's images have only once is left out (it could not be in support and
    query), and so is a question with fewer than two answers. 70% of every answer's images are support.

    Raises:
        ValueError: no such table or directory; bad lines, of which the first ten are named; too few questions.
    """
    root, table = Path(config.directory), Path(config.table)
    if not root.is_dir():
        raise ValueError(f"images {config.directory!r} is no directory")
    rows, has_split = read_table(table)
    problems = list(_problems(rows, root, has_split))
    if problems:
        more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ValueError(f"{table}:\n" + "\n".join(problems[:_SHOWN]) + more)

    by_question: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        by_question.setdefault(row.question, {}).setdefault(row.answer, []).append(row.image)
    questions: Questions = {}
    notes = []
    for question, by_answer in by_question.items():
        once = [answer for answer, images in by_answer.items() if len(images) == 1]
        notes += [f"left out: answer {answer!r} of {question!r}, given once" for answer in once]
        by_answer = {answer: images for answer, images in by_answer.items() if answer not in once}
        if len(by_answer) < 2:
            notes.append(f"left out: {question!r}, fewer than two answers are given twice")
        else:
            questions[question] = divide(by_answer)
    split = {row.question: row.split for row in rows} if has_split else _random_split(sorted(questions), config)
    splits: dict[Split, Questions] = {
        name: {question: entry for question, entry in questions.items() if split[question] == name}
        for name in get_args(Split)
    }
    for name, least in (("train", 2), ("val", 1), ("test", 1)):
        if len(splits[name]) < least:
            raise ValueError(
                f"{table}: {len(splits[name])} {name} questions of {len(questions)} that can be used; {least} or more "
                "are needed" + "".join(f"\n{note}" for note in notes[:_SHOWN])
            )
    prompts = {row.question: row.prompt for row in rows if row.prompt}
    return FolderData(splits, prompts, ImageFiles(root, tuple(image_names(splits.values()))), notes)


def read_table(path: Path | str) -> tuple[list[Row], bool]:
    """The rows of a CSV or JSON table, and whether it has splits.

    Raises:
        ValueError: no such file, another kind of file, missing, unknown or surplus columns.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"table {str(path)!r}: no such file")
    reader = {".csv": _read_csv, ".json": _read_json}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"table {str(path)!r}; allowed: a .csv or a .json file")
    try:
        columns, records = reader(path)
    except (csv.Error, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    unknown = [name for name in columns if name not in REQUIRED + OPTIONAL]
    missing = [name for name in REQUIRED if name not in columns]
    if unknown or missing:
        what = f"unknown column {unknown[0]!r}" if unknown else f"column {missing[0]!r} is missing"
        raise ValueError(f"{path}: {what}; required: {', '.join(REQUIRED)}; optional: {', '.join(OPTIONAL)}")
    if len(set(columns)) != len(columns) or not records:
        raise ValueError(f"{path}: no rows" if not records else f"{path}: a column occurs twice")
    rows = []
    for where, record in records:
        row = Row(where, **{name: record.get(name, "") for name in REQUIRED + OPTIONAL})
        rows.append(replace(row, image=PurePosixPath(row.image).as_posix() if row.image else ""))  # "./a" is "a"
    return rows, "split" in columns


def _read_csv(path: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        columns = [name.strip() for name in next(reader, [])]
        records = []
        for cells in reader:
            if not cells:  # a blank line
                continue
            if len(cells) != len(columns):
                raise ValueError(f"{path}: line {reader.line_num} has {len(cells)} cells, the header {len(columns)}")
            record = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
            records.append((f"line {reader.line_num}", record))
    return columns, records


def _read_json(path: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    entries = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list of objects, got {type(entries).__name__}")
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
            raise ValueError(f"{path}: entry {i + 1}: expected an object of texts, got {entry!r}")
        if entry.keys() != entries[0].keys():
            raise ValueError(f"{path}: entry {i + 1} has the keys {list(entry)}, the first {list(entries[0])}")
    records = [(f"entry {i + 1}", {k: v.strip() for k, v in entry.items()}) for i, entry in enumerate(entries)]
    return list(entries[0]) if entries else list(REQUIRED), records


def _problems(rows: list[Row], root: Path, has_split: bool) -> Iterator[str]:
    """What is wrong with which line."""
    first: dict[tuple[str, str], Row] = {}  # by image and question
    example: dict[str, Row] = {}  # by question
    for row in rows:
        empty = [name for name in REQUIRED if not getattr(row, name)]
        if empty:
            yield f"{row.where}: {empty[0]} is empty"
            continue
        own = example.setdefault(row.question, row)
        if row.split != own.split:
            yield f"{row.where}: split {row.split!r}, but {own.split!r} for the same question in {own.where}"
        elif has_split and row.split not in get_args(Split):
            yield f"{row.where}: split {row.split!r}; allowed: {', '.join(get_args(Split))}"
        if row.prompt != own.prompt:
            yield f"{row.where}: prompt {row.prompt!r}, but {own.prompt!r} for the same question in {own.where}"
        elif row.prompt and not is_prompt(row.prompt):
            yield f"{row.where}: prompt {row.prompt!r} must have one {{}} for the answer"
        twin = first.setdefault((row.image, row.question), row)
        if twin is not row:
            yield f"{row.where}: the same image and question as {twin.where}, answered {twin.answer!r}"
        path = PurePosixPath(row.image)
        if path.is_absolute() or ".." in path.parts:
            yield f"{row.where}: image {row.image!r} must be a path below {root}"
        elif not (root / path).is_file():
            yield f"{row.where}: image {row.image!r} is not in {root}"


def _random_split(questions: list[str], config: FolderConfig) -> dict[str, Split]:
    random.Random(f"{config.seed}/split").shuffle(questions)
    test = max(1, round(config.test_fraction * len(questions)))
    val = max(1, round(config.val_fraction * (len(questions) - test)))
    return {q: "test" if i < test else "val" if i < test + val else "train" for i, q in enumerate(questions)}
