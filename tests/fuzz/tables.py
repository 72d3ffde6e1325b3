"""Random tables of one's own questions, as programs and people save and damage them: each becomes a dataset or is
refused with a message that names the table."""

from __future__ import annotations

import csv
import functools
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from core.data.built import write_dataset
from core.data.folder import FolderConfig, read_folder
from core.texts import folded

_PICTURES = ("a.jpg", "B.JPG", "c d.png", "é.png", "in/e.jpg", "cut.jpg")
_QUESTIONS = (
    "What colour is it?",
    "How big, really?",
    "Où est-ce ?",
    "Is it “new”; or old?",
    "N?",
    "Which one\nis it?",
)
_ANSWERS = (("red", "Red ", "ｒｅｄ", "RED"), ("bleu été", "Bleu  e\u0301te\u0301", "bleu été"))  # two answers
_ODD = ("", " ", "../x.png", "C:\\x.png", "in\\e.jpg", "A.JPG", "\0", "\u200b", "image", "x" * 500, 'a;"b', "12")
_ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "utf-32", "mac-roman")

Case = tuple[str, bytes]  # the name of the table's file and what is in it


def cases(seed: int, count: int) -> Iterator[Case]:
    """`count` tables with random columns, separators, encodings and line ends, empty cells, odd names and damage."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        suffix = str(
            rng.choice([".csv", ".CSV", ".tsv", ".txt", ".json", ".json", ".xlsx"], p=[0.6, *[0.08] * 4, 0.05, 0.03])
        )
        rows = _rows(rng)
        text = _json(rng, rows) if suffix == ".json" else _delimited(rng, rows)
        yield f"table{suffix}", _damaged(rng, text.encode(str(rng.choice(_ENCODINGS)), "replace"))


def check(case: Case) -> str:
    """ "result" for a dataset in which no text occurs twice, "refused" for a ValueError that names the table or the
    pictures; AssertionError else."""
    name, data = case
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / name
        table.write_bytes(data)
        try:
            built = read_folder(FolderConfig(str(_photos()), str(table)))
        except ValueError as error:
            assert str(table) in str(error) and len(str(error)) < 20_000, error
            return "refused"
        questions = [question for part in built.splits.values() for question in part]
        assert len({folded(question) for question in questions}) == len(questions), questions
        for part in built.splits.values():
            for entry in part.values():
                assert len({folded(answer) for answer in entry["answers"]}) == len(entry["answers"]) >= 2, entry
        out = Path(folder) / "out"
        write_dataset(out, built.splits, name="n", source="s", prompts=built.prompts, images=built.images)
        return "result"


@functools.cache
def _photos() -> Path:
    """Pictures that a table may name, one of them cut."""
    folder = tempfile.TemporaryDirectory()
    _KEPT.append(folder)
    root = Path(folder.name)
    for i, name in enumerate(_PICTURES):
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(root / name)
    (root / "cut.jpg").write_bytes((root / "a.jpg").read_bytes()[:200])
    return root


_KEPT: list[tempfile.TemporaryDirectory] = []  # until the process ends


def _rows(rng: np.random.Generator) -> list[list[str]]:
    """A header and rows; half of the tables are in order but for how their texts are written."""
    header = ["image", "question", "answer"]
    if rng.random() < 0.2:
        header += ["split"]
    if rng.random() < 0.1:
        header += ["prompt"]
    rows, odd = [header], rng.random() < 0.5
    for i, question in enumerate(_QUESTIONS[: int(rng.integers(2, len(_QUESTIONS) + 1))]):
        for j, picture in enumerate(_PICTURES):
            cells = {
                "image": picture,
                "question": str(rng.choice([question, question.upper(), f" {question.replace(' ', '  ')}"])),
                "answer": str(rng.choice(_ANSWERS[j % 2])),
                "split": ("train", "Train ", "val", "test", "train", "test")[i],
                "prompt": "it is {}",
            }
            rows.append([cells[name] for name in header])
    for _ in range(int(rng.integers(1, 4)) if odd else 0):  # a cell that is something else
        row = rows[int(rng.integers(0, len(rows)))]
        row[int(rng.integers(0, len(row)))] = str(rng.choice(_ODD))
    rows[0] = [str(rng.choice([name, name.upper(), f" {name.title()} "])) for name in rows[0]]
    return rows


def _delimited(rng: np.random.Generator, rows: list[list[str]]) -> str:
    buffer, separator = io.StringIO(newline=""), str(rng.choice([",", ";", "\t", "|"], p=[0.4, 0.3, 0.25, 0.05]))
    quoting = csv.QUOTE_ALL if rng.random() < 0.3 else csv.QUOTE_MINIMAL
    writer = csv.writer(
        buffer, delimiter=separator, lineterminator=str(rng.choice(["\n", "\r\n", "\r"])), quoting=quoting
    )
    if rng.random() < 0.1:
        buffer.write(f"sep={separator}\r\n")
    empty = int(rng.choice([0, 0, 1, 3]))
    writer.writerows([*row, *[""] * empty] for row in rows)
    writer.writerows([[""] * len(rows[0])] * int(rng.choice([0, 0, 2])))
    return buffer.getvalue()


def _json(rng: np.random.Generator, rows: list[list[str]]) -> str:
    entries = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    return json.dumps(entries if rng.random() < 0.9 else {"rows": entries}, ensure_ascii=bool(rng.random() < 0.5))


def _damaged(rng: np.random.Generator, data: bytes) -> bytes:
    """As it is or, one time in three, cut or with some bytes changed."""
    damage = rng.random()
    if damage < 0.1:
        return data[: int(rng.integers(0, len(data) + 1))]
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5)) if damage < 0.33 and data else 0):
        changed[int(rng.integers(0, len(data)))] = int(rng.choice([0, 34, 44, 10, 92, 129, 255, 195]))
    return bytes(changed)
