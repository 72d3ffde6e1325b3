"""The importer's rules on random VQA-like files and tables, beside a slow reading of each rule."""

from __future__ import annotations

import json
import random
import re
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.data.built import Questions
from core.data.folder import FolderConfig, FolderData, read_folder
from core.data.vqa_v2 import MIN_EXAMPLES, from_vqa_v2
from tests.test_folder import HEADER, write_csv
from tests.test_meta_vqa import VQAFiles, name

SEEDS = st.integers(0, 2**31)
TYPES = ("number", "other", "other", "yes/no")


# -- files like VQA v2's -----------------------------------------------------------------------------------------------

QUESTIONS = (
    "What color?",
    "what color?",
    "Red or blue?",
    "Red OR blue?",
    "For what?",
    "Or?",
    "何色?",
    "How many?",
    "q",
)


@st.composite
def vqa_files(draw) -> VQAFiles:
    """A few questions about some images, answered by some words; often the same pair twice."""
    rng, files = random.Random(draw(SEEDS)), VQAFiles()
    questions = draw(st.lists(st.sampled_from(QUESTIONS), min_size=1, max_size=5, unique=True))
    answers = [f"answer {i}" if i else "or" for i in range(draw(st.integers(1, 6)))]
    images = [name(i, rng.choice(("train2014", "val2014"))) for i in range(draw(st.integers(1, 60)))]
    for _ in range(draw(st.integers(0, 300))):
        answer = answers[min(int(rng.expovariate(1)), len(answers) - 1)]
        files.add(rng.choice(questions), rng.choice(images), answer, rng.choice(TYPES))
    return files


def imported(files: VQAFiles) -> tuple[Questions, Questions]:
    with tempfile.TemporaryDirectory() as folder:
        files.write(Path(folder))
        return from_vqa_v2(folder)


def pairs_by_the_rules(files: VQAFiles) -> dict[str, dict[str, str]]:
    """Answers by image of every question that is kept, one rule after the other."""
    rows = []
    for part in ("train2014", "val2014"):
        text = {question["question_id"]: question["question"] for question in files.questions[part]}
        rows += [
            (text[row["question_id"]], name(row["image_id"], part), row["multiple_choice_answer"])
            for row in files.annotations[part]
            if row["answer_type"] in ("number", "other")
        ]
    kept = {}
    for question in {row[0] for row in rows}:
        own = [row for row in rows if row[0] == question]
        first = {image: next(row[2] for row in own if row[1] == image) for image in {row[1] for row in own}}
        counts = Counter(first.values())
        pairs = {image: answer for image, answer in first.items() if counts[answer] > 1}
        with_or = "or" in re.findall(r"\w+", question.lower())
        if len(pairs) >= MIN_EXAMPLES and len(set(pairs.values())) >= 2 and not with_or:
            kept[question] = pairs
    return kept


@given(vqa_files())
def test_the_rules_on_files_like_vqa_v2s(files):
    train, test = imported(files)
    expected = pairs_by_the_rules(files)
    assert train.keys() | test.keys() == expected.keys() and not train.keys() & test.keys()
    assert len(train) == round(0.7 * len(expected))
    for question, entry in {**train, **test}.items():
        pairs = entry["train"] + entry["test"]
        assert dict(pairs) == expected[question] and len(pairs) == len(expected[question])
        counts = Counter(expected[question].values())
        assert sorted(entry["answers"]) == sorted(counts)
        assert Counter(answer for _, answer in entry["train"]) == {a: round(0.7 * n) for a, n in counts.items()}


@given(vqa_files(), SEEDS)
def test_what_the_rules_do_not_read_changes_nothing(files, seed):
    """Yes/no questions, other fields, the order of the question files."""
    before, rng = json.dumps(imported(files)), random.Random(seed)
    for _ in range(30):
        files.add(rng.choice(QUESTIONS), name(rng.randrange(60)), rng.choice(("yes", "no")), "yes/no")
    for part in files.questions.values():
        rng.shuffle(part)
        for row in part:
            row["coco_url"] = None
    assert json.dumps(imported(files)) == before


# -- tables ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    (root / "more").mkdir()
    for file in IMAGES:
        Image.new("RGB", (4, 4)).save(root / file)
    return root


IMAGES = tuple(f"more/{i}.png" if i > 9 else f"{i}.png" for i in range(14))
WORDS = ("red", "blue", "größe", "café", "two words", "no")
SPELLINGS = (
    str,
    str.upper,
    lambda text: f"  {text} ",
    lambda text: unicodedata.normalize("NFD", text),
    lambda text: text.replace(" ", "  "),
)


def folded(text: str) -> str:
    """What two spellings of one text share."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


@st.composite
def tables(draw) -> list[list[str]]:
    """Rows of image, question and answer, each in any spelling; no image twice for one question."""
    rng, rows = random.Random(draw(SEEDS)), []
    for q in range(draw(st.integers(1, 12))):
        words = rng.sample(WORDS, draw(st.integers(1, 4)))
        for image in rng.sample(IMAGES, draw(st.integers(1, 14))):
            rows.append([image, *(rng.choice(SPELLINGS)(text) for text in (f"What café {q}?", rng.choice(words)))])
    rng.shuffle(rows)
    return rows


def check(data: FolderData, rows: list[list[str]]) -> None:
    """Every pair that the rules keep, once, with one spelling of each text."""
    expected: dict[str, dict[str, str]] = {}
    for image, question, answer in rows:
        expected.setdefault(folded(question), {})[image] = folded(answer)
    for question, pairs in list(expected.items()):
        counts = Counter(pairs.values())
        expected[question] = {image: answer for image, answer in pairs.items() if counts[answer] > 1}
        if len(set(expected[question].values())) < 2:
            del expected[question]
    found = [(question, entry) for part in data.splits.values() for question, entry in part.items()]
    assert sorted(folded(question) for question, _ in found) == sorted(expected)
    for question, entry in found:
        pairs, wanted = entry["train"] + entry["test"], expected[folded(question)]
        assert {image: folded(answer) for image, answer in pairs} == wanted and len(pairs) == len(wanted)
        assert {answer for _, answer in pairs} == set(entry["answers"])
        counts = Counter(wanted.values())
        assert sorted(map(folded, entry["answers"])) == sorted(counts)
        support = Counter(folded(answer) for _, answer in entry["train"])
        assert support == {answer: round(0.7 * n) for answer, n in counts.items()}
    assert all(data.splits.values()) and all((data.images.root / file).is_file() for file in data.images.files)


def read(pictures: Path, rows: list[list[str]]) -> FolderData | None:
    """None for a table that is refused, which names it in one message."""
    with tempfile.TemporaryDirectory() as folder:
        table = write_csv(Path(folder) / "t.csv", rows, HEADER)
        try:
            return read_folder(FolderConfig(str(pictures), str(table)))
        except ValueError as error:
            assert "t.csv" in str(error)
            return None


@given(tables())
def test_the_rules_on_tables(pictures, rows):
    data = read(pictures, rows)
    if data is not None:
        check(data, rows)
        assert read(pictures, rows).splits == data.splits


def test_most_random_tables_of_enough_questions_are_read(pictures):
    rng = random.Random(0)
    rows = [[image, f"What {q}?", rng.choice(("a", "b"))] for q in range(12) for image in IMAGES]
    data = read(pictures, rows)
    assert data is not None
    check(data, rows)
