"""Tables of one's own questions as spreadsheets and people write them: one text for what reads as one, one summary."""

import csv
import io
import json

import pytest
from PIL import Image

from core.classifier import check_answers
from core.data.built import write_dataset
from core.data.folder import FolderConfig, read_folder
from core.data.meta_vqa import MetaVQA, MetaVQAConfig
from core.data.vqa_v2 import VQA_FILES, from_vqa_v2
from core.texts import decoded, folded, read_records
from tests.fuzz import tables
from tests.test_folder import HEADER, folder, good_rows, photos  # noqa: F401
from train import features, make_data

CLEAN = [list(HEADER), *good_rows()]


def delimited(rows, separator=",", end="\r\n"):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=separator, lineterminator=end).writerows(rows)
    return buffer.getvalue()


def read(photos, data, name="t.csv"):  # noqa: F811
    (photos / name).write_bytes(data)
    return read_folder(FolderConfig(str(photos), str(photos / name)))


SAVED = {
    "semicolons": delimited(CLEAN, ";").encode(),
    "tabs": delimited(CLEAN, "\t").encode(),
    "commas, old Mac": delimited(CLEAN, end="\r").encode(),
    "Excel's own line": b"sep=;\r\n" + delimited(CLEAN, ";").encode(),
    "UTF-8 with a mark": delimited(CLEAN).encode("utf-8-sig"),
    "Unicode text": delimited(CLEAN, "\t").encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + delimited(CLEAN, "\t").encode("utf-16-be"),
    "UTF-16 without a mark": delimited(CLEAN, "\t").encode("utf-16-le"),
    "empty columns": delimited([[*row[:1], "", *row[1:], "", ""] for row in CLEAN]).encode(),
    "empty rows": delimited([["", "", ""], *CLEAN[:5], ["", " ", ""], *CLEAN[5:], [], ["", "", ""]]).encode(),
    "another case": delimited([[" Image", "QUESTION ", "Answer"], *CLEAN[1:]]).encode(),
    "spaces": delimited([[f" {cell}  " for cell in row] for row in CLEAN]).encode(),
    "backslashes": delimited(
        [CLEAN[0], *([f".\\{row[0]}".replace("/", "\\"), *row[1:]] for row in CLEAN[1:])]
    ).encode(),
    "an empty column of splits": delimited([[*CLEAN[0], "split"], *([*row, ""] for row in CLEAN[1:])]).encode(),
    "short rows": delimited([[*CLEAN[0], "prompt"], *CLEAN[1:]]).encode(),
}


@pytest.mark.parametrize("way", SAVED)
def test_tables_as_spreadsheets_save_them(photos, way):  # noqa: F811
    data = read(photos, SAVED[way])
    assert data.splits == read(photos, delimited(CLEAN).encode()).splits and not data.notes


def test_other_names_of_tables_are_read(photos):  # noqa: F811
    clean = read(photos, delimited(CLEAN).encode()).splits
    assert read(photos, SAVED["tabs"], "t.TSV").splits == read(photos, SAVED["Unicode text"], "t.txt").splits == clean
    entries = [dict(zip(("Image", "Question ", "ANSWER"), row, strict=True)) for row in CLEAN[1:]]
    assert read(photos, json.dumps(entries).encode("utf-8-sig"), "t.json").splits == clean


def test_file_names_in_another_case_or_form_are_found(photos):  # noqa: F811
    (photos / "0.png").rename(photos / "e\u0301te\u0301.PNG")
    rows = [["été.png" if row[0] == "0.png" else row[0].upper(), *row[1:]] for row in good_rows()]
    data = folder(photos, rows)
    assert "e\u0301te\u0301.PNG" in data.images.files and "more/10.png" in data.images.files
    (note,) = data.notes
    assert note.startswith("file names in another case or form (12): ") and "'1.png' for '1.PNG' (line 3)" in note
    (photos / "1.PNG").write_bytes((photos / "1.png").read_bytes())
    rows[1][0] = "1.Png"
    with pytest.raises(ValueError, match=r"line 3: image '1.Png' may be '1.PNG' or '1.png'"):
        folder(photos, rows)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"PK\x03\x04", "a workbook, not a table in text; save it as .CSV UTF-8. in the spreadsheet"),
        (delimited(CLEAN).encode("utf-32"), "in none of the encodings"),
        (b"image,question,answer\n\x81\x8d,b,c", "in none of the encodings"),
        (b"a;image;question;answer\n1;2;3;4", "unknown column 'a'"),
        (b"Bild;Frage;Antwort\na;b;c", "unknown column 'bild'; required: image, question, answer"),
        (b"image,question,answer,\na,b,c,d", "line 2: 'd' is in column 4, without a name"),
        (b'image,question,answer\na,b,c\n"a,b', "line 3: unexpected end of data"),
        (b"image,Image,question,answer\na,a,b,c", "a column occurs twice"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(photos, data, message):  # noqa: F811
    with pytest.raises(ValueError, match=rf"t\.csv: {message}"):
        read(photos, data)


def test_deep_json_is_refused(photos):  # noqa: F811
    with pytest.raises(ValueError, match="too deep"):
        read(photos, b"[" * 100_000, "t.json")


def test_an_old_encoding_is_read_and_said(photos):  # noqa: F811
    rows = [[*row[:2], "été" if row[2] == "no" else row[2]] for row in CLEAN]
    data = read(photos, delimited(rows, ";").encode("cp1252"))
    assert "été" in next(iter(data.splits["train"].values()))["answers"] and "Windows-1252" in data.notes[0]


@pytest.mark.parametrize(
    "texts",
    [
        ("red", "Red", "RED ", "ｒｅｄ", "re\u200bd", "\ufeffred"),
        ("bleu été", "Bleu  e\u0301te\u0301", "bleu\u00a0été"),
        ("Où est-ce ?", "où est-ce?", "OÙ EST-CE\u202f?"),
        ("Straße", "STRASSE"),
        ("İ", "i̇"),
    ],
)
def test_what_reads_as_one_text(texts):
    assert len({folded(text) for text in texts}) == 1
    assert folded(folded(texts[0])) == folded(texts[0])


def test_what_reads_as_two():
    assert len({folded(text) for text in ("red", "read", "re d", "réd", "red!", "red?", "a, b", "a. b")}) == 8


def test_answers_that_read_alike_are_refused_as_candidates():
    for twin in ("Red", "red ", "re\u200bd"):
        with pytest.raises(ValueError, match="given more than once|differs from 'red' in case, form or spaces alone"):
            check_answers(["red", twin, "blue"])
    assert check_answers(["red", "Blue"]) == ["red", "Blue"]


def test_questions_and_answers_that_read_alike_are_one(photos):  # noqa: F811
    rows = good_rows()
    for n, row in enumerate(rows):
        row[1] = row[1].upper() if n % 5 == 0 else row[1]
        row[2] = row[2].capitalize() if n % 5 == 1 else row[2]
    rows += [[rows[0][0], rows[0][1].lower(), rows[0][2]], rows[1]]  # said twice
    data = folder(photos, rows)
    assert data.splits == folder(photos, good_rows()).splits
    questions, answers, twice = data.notes
    assert "'What, 0?' for 'WHAT, 0?' (line 2)" in questions and questions.startswith("questions that differ only in")
    assert "'yes, it is' for 'Yes, it is' (line 3)" in answers
    assert twice == "rows that say what another one says count once (2): line 98 (as line 2); line 99 (as line 3)"


def test_a_split_that_parts_one_question_is_refused(photos):  # noqa: F811
    rows = [[*row, "Train"] for row in good_rows()]
    rows[5][1:] = ["what,  0 ?", rows[5][2], "test"]
    with pytest.raises(ValueError, match="line 7: split 'test', but 'train' for the same question in line 2"):
        folder(photos, rows, (*HEADER, "split"))


def test_too_few_questions_say_how_many_would_do(photos):  # noqa: F811
    with pytest.raises(ValueError, match="3 questions can be used, 4 would do"):
        folder(photos, good_rows(3))
    assert {name: len(part) for name, part in folder(photos, good_rows(4)).splits.items()} == {
        "train": 2,
        "val": 1,
        "test": 1,
    }
    with pytest.raises(ValueError, match="8 questions can be used, 9 would do"):
        folder(photos, good_rows(8), test_fraction=0.7)
    rows = [[*row, "train"] for row in good_rows()]
    with pytest.raises(ValueError, match=r"'split' gives too few .*: 0 val \(at least 1\), 0 test \(at least 1\)"):
        folder(photos, rows, (*HEADER, "split"))


@pytest.mark.parametrize("train, val", [(98, 10), (870, 87), (2000, 87), (4, 1), (2, 1)])
def test_a_tenth_of_the_training_questions_chooses(tmp_path, train, val):
    entry = {"train": [["a", "x"], ["b", "y"]], "test": [["c", "x"], ["d", "y"]], "answers": ["x", "y"]}
    splits = {"train": {f"{i}?": entry for i in range(train)}, "test": {"t?": entry}}
    write_dataset(tmp_path, splits, name="n", source="s", prompts={}, images=None)
    tasks = MetaVQA(MetaVQAConfig.at(tmp_path)).tasks
    assert sum(task.split == "val" for task in tasks) == val
    if train == 98:
        with pytest.raises(ValueError, match="val_tasks 87; allowed: 1 to 49, of 98 .*--set dataset.val_tasks=10"):
            MetaVQA(MetaVQAConfig(str(tmp_path)))


def test_broken_pictures_are_found_when_the_dataset_is_built_and_read_once_mended(photos, tmp_path, capsys):  # noqa: F811
    for i in range(12):
        path = photos / (f"more/{i}.png" if i > 9 else f"{i}.png")
        Image.new("RGB", (40, 40), (20 * i, 0, 0)).save(path)
    whole = (photos / "3.png").read_bytes()
    (photos / "3.png").write_bytes(whole[:60])
    (photos / "4.png").write_bytes(b"\0\0\0\x18ftypheic")
    table = photos / "t.csv"
    table.write_text(delimited(CLEAN), encoding="utf-8", newline="")
    build = ["--images", str(photos), "--table", str(table), "--output", str(tmp_path / "mine")]
    encode = ["--preset", "tiny", "--data", str(tmp_path / "mine"), "--work", str(tmp_path / "work"), "--device", "cpu"]
    make_data.main(build)
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "cannot be read" in line]
    assert told.startswith(
        "  pictures that cannot be read, left out of features until they are mended (2): 3.png (line 5,"
    )
    assert told.count("3.png") == told.count("4.png") == 1 and "HEIC" in told
    features.main(encode)
    assert "'unreadable': 2.0" in capsys.readouterr().out
    (photos / "3.png").write_bytes(whole)
    features.main(encode)
    assert "'unreadable': 1.0" in capsys.readouterr().out
    Image.new("RGB", (40, 40)).save(photos / "4.png")
    make_data.main(build)  # as one would
    assert "cannot be read" not in capsys.readouterr().out
    features.main(encode)
    out = capsys.readouterr().out
    assert "'unreadable': 0.0" in out and "they are encoded anew" in out
    for i in range(12):
        (photos / (f"more/{i}.png" if i > 9 else f"{i}.png")).write_bytes(b"no")
    with pytest.raises(SystemExit):
        make_data.main(build)
    assert "none of the 12 pictures can be read: 0.png" in capsys.readouterr().err


def test_a_table_called_like_a_shipped_dataset_is_none(photos, tmp_path):  # noqa: F811
    (photos / "meta-vqa.csv").write_text(delimited(CLEAN), encoding="utf-8", newline="")
    make_data.main(
        ["--images", str(photos), "--table", str(photos / "meta-vqa.csv"), "--output", str(tmp_path / "mine")]
    )
    assert MetaVQA(MetaVQAConfig.at(tmp_path / "mine")).identity["name"] == "own meta-vqa"


@pytest.mark.parametrize(
    "key, entry, message",
    [
        (
            "questions",
            {"question_id": 1, "image_id": 1},
            "entry 1 of 'questions', question_id 1, lacks 'question', a text",
        ),
        ("questions", {"question_id": 1, "image_id": "1", "question": "a"}, "has '1' for 'image_id', a whole number"),
        ("questions", {"question_id": [1], "image_id": 1, "question": "a"}, r"has \[1\] for 'question_id'"),
        ("questions", 3, "entry 1 of 'questions' lacks 'question_id'"),
        ("annotations", {"question_id": 1, "image_id": 1, "answer_type": "other"}, "lacks 'multiple_choice_answer'"),
        ("annotations", {"question_id": 1, "image_id": True}, "has True for 'image_id'"),
    ],
)
def test_files_of_vqa_without_a_field_are_named(tmp_path, key, entry, message):
    for name in VQA_FILES:
        kind = "questions" if "questions" in name else "annotations"
        (tmp_path / name).write_text(json.dumps({kind: [entry] if kind == key else []}), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"train2014_{key}\.json: .*{message}"):
        from_vqa_v2(tmp_path)
    for name in VQA_FILES:
        (tmp_path / name).write_text('{"questions": {}, "annotations": {}}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"questions\.json: 'questions' must be a list, got dict"):
        from_vqa_v2(tmp_path)


def test_texts_and_records_name_what_they_are(tmp_path):
    assert decoded("é".encode("cp1252")) == ("é", "cp1252") and decoded("é".encode()) == ("é", "utf-8")
    (tmp_path / "t.csv").write_text("a;b\n1;x\n", encoding="utf-8")
    assert read_records(tmp_path / "t.csv", ("a", "b")) == ([("line 2", {"a": "1", "b": "x"})], "utf-8")


def test_random_tables_become_datasets_or_are_refused():
    outcomes = [tables.check(case) for case in tables.cases(seed=1, count=100)]
    assert min(outcomes.count(outcome) for outcome in ("result", "refused")) > 10
