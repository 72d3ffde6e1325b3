"""Bring your own questions: a directory of pictures and a table of (image, question, answer) become a dataset.

The table is a text file with a header, as spreadsheets save it (CSV with commas, semicolons or tabs), or JSON, a list
of objects; its columns are

* `image`, a file below the pictures' directory, `question` and `answer`,
* optionally `split`, train, val or test: which questions to train on, to choose with and to test on; all rows of a
  question agree. Without it, questions are divided at random;
* optionally `prompt`, the question's cloze prompt, with one {} for the answer.

Questions that differ only in case, Unicode form or spaces are one question, and answers one answer: an encoder reads
them alike, and a test question would be among those for training.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import get_args

from ..texts import folded, read_records
from .built import ImageFiles, Questions, divide, image_names, is_prompt
from .tasks import Split

REQUIRED, OPTIONAL = ("image", "question", "answer"), ("split", "prompt")
LEAST: dict[Split, int] = {"train": 2, "val": 1, "test": 1}  # questions
_SHOWN = 10  # things of one kind in a message
_OLD_ENCODING = 'read as Windows-1252, for it is not UTF-8; if letters have changed, save the table as "CSV UTF-8"'


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

    def sizes(self, questions: int) -> dict[Split, int]:
        """How many of so many questions go to each split."""
        test = max(1, round(self.test_fraction * questions))
        val = max(1, round(self.val_fraction * (questions - test)))
        return {"train": questions - test - val, "val": val, "test": test}


@dataclass(frozen=True)
class Row:
    """One line of a table; `where` says which."""

    where: str
    image: str
    question: str
    answer: str
    split: str = ""
    prompt: str = ""


@dataclass(frozen=True)
class FolderData:
    """What a table and its pictures give; `notes` say what was done to it, a line for each kind of thing."""

    splits: dict[Split, Questions]
    prompts: dict[str, str]
    images: ImageFiles
    notes: list[str]


def read_folder(config: FolderConfig) -> FolderData:
    """Read and check a table, and all pictures that it names.

    As in Meta-VQA, an answer that a question's images have only once is left out (it could not be in support and
    query), and so is a question with fewer than two answers. 70% of every answer's images are support. Pictures that
    cannot be read stay in, to be mended: features are made without them.

    Raises:
        ValueError: no such table or directory; bad lines, of which the first ten are named; too few questions, with
            how many would do; no picture that can be read.
    """
    root, table = Path(config.directory), Path(config.table)
    if not root.is_dir():
        raise ValueError(f"images {config.directory!r} is no directory")
    records, encoding = read_records(table, REQUIRED, OPTIONAL)
    rows = [_row(where, record) for where, record in records]
    notes = [_OLD_ENCODING] if encoding == "cp1252" else []
    rows, problems = _located(rows, root, notes)
    problems += _problems(rows)
    if problems:
        more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ValueError(f"{table}:\n" + "\n".join(problems[:_SHOWN]) + more)
    rows = _spelled_alike(_spelled_alike(rows, "question", notes), "answer", notes)
    rows = _said_once(rows, notes)

    questions = _usable(rows, notes)
    split = {row.question: row.split for row in rows}
    if not any(split.values()):
        split = _random_split(sorted(questions), config)
    splits: dict[Split, Questions] = {
        name: {question: entry for question, entry in questions.items() if split.get(question) == name}
        for name in LEAST
    }
    counts = {name: len(part) for name, part in splits.items()}
    if any(counts[name] < least for name, least in LEAST.items()):
        told = _too_few(config, counts, len(questions), any(row.split for row in rows))
        raise ValueError("\n".join([f"{table}: {told}", *notes]))
    images = ImageFiles(root, tuple(image_names(splits.values())))
    note = _unreadable(images, rows)
    prompts = {row.question: row.prompt for row in rows if row.prompt}
    return FolderData(splits, prompts, images, notes + note)


def _row(where: str, record: Mapping[str, str]) -> Row:
    one_line = {name: " ".join(record[name].split()) for name in ("question", "answer")}
    prompt = record.get("prompt", "")
    return Row(where, record["image"], **one_line, split=folded(record.get("split", "")), prompt=prompt)


def _located(rows: Sequence[Row], root: Path, notes: list[str]) -> tuple[list[Row], list[str]]:
    """The rows with their images as the files are called, and problems with rows whose image is none below `root`.

    A path may have backslashes, and be written in another case or Unicode form than the file's.
    """
    names = {(Path(folder) / file).relative_to(root).as_posix() for folder, _, files in os.walk(root) for file in files}
    alike: dict[str, list[str]] = {}
    for name in sorted(names):
        alike.setdefault(folded(name), []).append(name)
    located, problems, otherwise = [], [], {}
    for row in rows:
        path = PurePosixPath(row.image if row.image in names else row.image.replace("\\", "/"))
        name = path.as_posix() if row.image else ""  # "./a" is "a"
        found = [name] if name in names else alike.get(folded(name), [])
        if len(found) == 1:
            if found != [name]:
                otherwise.setdefault(f"{found[0]!r} for {row.image!r}", row.where)
            name = found[0]
        elif found:
            problems.append(f"{row.where}: image {row.image!r} may be {' or '.join(map(repr, found))}, in another case")
        elif path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts:
            problems.append(f"{row.where}: image {row.image!r} must be a path below {root}")
        elif name and not os.path.isfile(root / path):  # it may lie beyond a link to a folder
            problems.append(f"{row.where}: image {row.image!r} is not in {root}")
        located.append(replace(row, image=name))
    _note(notes, "file names in another case or form", [f"{text} ({where})" for text, where in otherwise.items()])
    return located, problems


def _problems(rows: Iterable[Row]) -> Iterator[str]:
    """What is wrong with which line."""
    first: dict[tuple[str, str], Row] = {}  # by image and question
    example: dict[str, Row] = {}  # by question
    has_split = any(row.split for row in rows)
    for row in rows:
        question = folded(row.question)
        empty = [name for name in REQUIRED if not folded(getattr(row, name))]
        if empty:
            yield f"{row.where}: {empty[0]} is empty"
            continue
        own = example.setdefault(question, row)
        if row.split != own.split:
            yield f"{row.where}: split {row.split!r}, but {own.split!r} for the same question in {own.where}"
        elif has_split and row.split not in get_args(Split):
            yield f"{row.where}: split {row.split!r}; allowed: {', '.join(get_args(Split))}"
        if row.prompt != own.prompt:
            yield f"{row.where}: prompt {row.prompt!r}, but {own.prompt!r} for the same question in {own.where}"
        elif row.prompt and not is_prompt(row.prompt):
            yield f"{row.where}: prompt {row.prompt!r} must have one {{}} for the answer"
        twin = first.setdefault((row.image, question), row)
        if folded(row.answer) != folded(twin.answer):
            yield f"{row.where}: the same image and question as {twin.where}, answered {twin.answer!r}"


def _spelled_alike(rows: Sequence[Row], column: str, notes: list[str]) -> list[Row]:
    """The rows, with texts of a column that read as one spelled as most of them are."""
    spellings: dict[str, Counter[str]] = {}
    first: dict[str, str] = {}
    for row in rows:
        text = getattr(row, column)
        spellings.setdefault(folded(text), Counter())[text] += 1
        first.setdefault(text, row.where)
    kept = {key: counted.most_common(1)[0][0] for key, counted in spellings.items()}
    others = [
        f"{kept[key]!r} for " + ", ".join(f"{text!r} ({first[text]})" for text in counted if text != kept[key])
        for key, counted in spellings.items()
        if len(counted) > 1
    ]
    _note(notes, f"{column}s that differ only in case, Unicode form or spaces are one", others)
    return [replace(row, **{column: kept[folded(getattr(row, column))]}) for row in rows]


def _said_once(rows: Sequence[Row], notes: list[str]) -> list[Row]:
    """The rows less those that say what an earlier one says."""
    first: dict[tuple[str, str], Row] = {}
    again = []
    for row in rows:
        twin = first.setdefault((row.image, row.question), row)
        if twin is not row:
            again.append(f"{row.where} (as {twin.where})")
    _note(notes, "rows that say what another one says count once", again)
    return list(first.values())


def _usable(rows: Iterable[Row], notes: list[str]) -> Questions:
    """Questions with at least two answers that are given at least twice."""
    by_question: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        by_question.setdefault(row.question, {}).setdefault(row.answer, []).append(row.image)
    questions: Questions = {}
    once, too_few = [], []
    for question, by_answer in by_question.items():
        often = {answer: images for answer, images in by_answer.items() if len(images) > 1}
        if len(often) > 1:
            questions[question] = divide(often)
            once += [f"{answer!r} of {question!r}" for answer in by_answer if answer not in often]
        else:
            too_few.append(repr(question))
    _note(notes, "answers left out, given once", once)
    _note(notes, "questions left out, fewer than two of their answers are given twice", too_few)
    return questions


def _unreadable(images: ImageFiles, rows: Iterable[Row]) -> list[str]:
    """A note that names every picture that cannot be read, why, and its rows, if there is one.

    Raises:
        ValueError: there is no other.
    """
    from .images import read_image

    def complaint(file: str) -> str:
        path = images.root / file
        try:
            read_image(path, enough=1)
        except ValueError as error:
            return str(error).removeprefix(f"{path}: ")
        return ""

    with ThreadPoolExecutor() as pool:  # Pillow decodes beside Python
        found = {file: why for file, why in zip(images.files, pool.map(complaint, images.files), strict=True) if why}
    if len(found) == len(images.files):
        raise ValueError(
            f"none of the {len(found)} pictures can be read: {next(iter(found))}: {found[next(iter(found))]}"
        )
    where: dict[str, list[str]] = {file: [] for file in found}
    for row in rows:
        if row.image in where:
            where[row.image].append(row.where)
    notes: list[str] = []
    listed = [f"{file} ({_listed(where[file])}): {why}" for file, why in found.items()]
    _note(notes, "pictures that cannot be read, left out of features until they are mended", listed)
    return notes


def _random_split(questions: list[str], config: FolderConfig) -> dict[str, Split]:
    random.Random(f"{config.seed}/split").shuffle(questions)
    sizes = config.sizes(len(questions))
    test, val = sizes["test"], sizes["val"]
    return {q: "test" if i < test else "val" if i < test + val else "train" for i, q in enumerate(questions)}


def _too_few(config: FolderConfig, counts: Mapping[Split, int], usable: int, has_split: bool) -> str:
    """What is lacking where a split has fewer than `LEAST` questions."""
    if has_split:
        lacking = [f"{counts[name]} {name} (at least {n})" for name, n in LEAST.items() if counts[name] < n]
        return f"the column 'split' gives too few questions that can be used: {', '.join(lacking)}"
    enough = next(n for n in itertools.count(sum(LEAST.values())) if config.sizes(n)["train"] >= LEAST["train"])
    return f"{usable} questions can be used, {enough} would do: at least 2 to train, 1 to choose and 1 to test with"


def _note(notes: list[str], what: str, things: Sequence[str]) -> None:
    """Add a line on things of one kind, if there are any."""
    if things:
        notes.append(f"{what} ({len(things)}): {_listed(things, '; ')}")


def _listed(things: Sequence[str], between: str = ", ") -> str:
    more = [f"... and {len(things) - _SHOWN} more"] if len(things) > _SHOWN else []
    return between.join([*things[:_SHOWN], *more])
