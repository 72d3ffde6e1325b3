"""Bring your own questions: tables checked line by line, and the README's five commands on a folder of pictures."""

import csv
import json
from collections import Counter

import pytest
import torch
from PIL import Image

from core.backbones import load_backbone
from core.data.emoji.dataset import draw_scenes_for_question
from core.data.emoji.world import OBJECTS
from core.data.folder import FolderConfig, read_folder
from core.data.meta_vqa import MetaVQA, MetaVQAConfig
from core.generator import AdapterGenerator
from eval import sanity, table1
from tests.conftest import ROOT
from train import features, make_data, run_all

HEADER = ("image", "question", "answer")


def write_csv(path, rows, header=HEADER):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def photos(tmp_path):
    """Twelve pictures, two of them in a folder of their own."""
    root = tmp_path / "photos"
    (root / "more").mkdir(parents=True)
    for i in range(12):
        Image.new("RGB", (4, 4)).save(root / (f"more/{i}.png" if i > 9 else f"{i}.png"))
    return root


def good_rows(questions=8):
    names = [f"more/{i}.png" if i > 9 else f"{i}.png" for i in range(12)]
    answer = lambda i: "yes, it is" if i % 3 else "no"
    return [[name, f"What, {q}?", answer(i)] for q in range(questions) for i, name in enumerate(names)]


def folder(photos, rows, header=HEADER, **fractions):
    return read_folder(FolderConfig(str(photos), str(write_csv(photos / "t.csv", rows, header)), **fractions))


def test_a_table_becomes_tasks(photos):
    data = folder(photos, good_rows())
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 5, "val": 1, "test": 2}
    entry = next(iter(data.splits["train"].values()))
    assert Counter(a for _, a in entry["train"]) == {"yes, it is": 6, "no": 3}
    assert Counter(a for _, a in entry["test"]) == {"yes, it is": 2, "no": 1}
    assert len(data.images.files) == 12 and "more/10.png" in data.images.files and not data.notes
    assert folder(photos, good_rows()).splits == data.splits
    assert folder(photos, good_rows(), seed=1).splits != data.splits


def test_a_table_may_say_splits_and_prompts(photos):
    split = lambda q: {"What, 6?": "val", "What, 7?": "test"}.get(q, "train")
    rows = [[*row, split(row[1]), "it is {}" if row[1] == "What, 7?" else ""] for row in good_rows()]
    data = folder(photos, rows, (*HEADER, "split", "prompt"))
    assert set(data.splits["val"]) == {"What, 6?"} and set(data.splits["test"]) == {"What, 7?"}
    assert data.prompts == {"What, 7?": "it is {}"}


def test_json_and_csv_say_the_same(photos):
    entries = [dict(zip(HEADER, row, strict=True)) for row in good_rows()]
    path = photos / "t.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    assert read_folder(FolderConfig(str(photos), str(path))).splits == folder(photos, good_rows()).splits


def test_what_cannot_be_used_is_left_out_with_a_note(photos):
    rows = good_rows()
    rows[0][2] = "only here"  # of question 0
    rows = [row if row[1] != "What, 1?" else [row[0], row[1], "always"] for row in rows]
    data = folder(photos, rows)
    assert len(data.notes) == 2 and "'only here' of 'What, 0?'" in data.notes[0] and "'What, 1?'" in data.notes[1]
    used = {q: entry for part in data.splits.values() for q, entry in part.items()}
    assert "What, 1?" not in used and used["What, 0?"]["answers"] == ["yes, it is", "no"]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda rows: rows.append(["", "q?", "a"]), "line 98: image is empty"),
        (lambda rows: rows.append(["1.png", "  ", "a"]), "line 98: question is empty"),
        (lambda rows: rows.append(["none.png", "q?", "a"]), "line 98: image 'none.png' is not in"),
        (lambda rows: rows.append(["../t.png", "q?", "a"]), "line 98: image '../t.png' must be a path below"),
        (lambda rows: rows.append(["./0.png", "What, 0?", "a"]), "line 98: the same image and question as line 2"),
        (lambda rows: rows.append(["0.png", "q?"]), "line 98 has 2 cells, the header 3"),
        (lambda rows: rows.append(["0.png", "q?", "a", "b"]), "line 98 has 4 cells"),
        (lambda rows: rows.extend([["no", "q?", "a"]] * 13), "line 98: image 'no'.*\n... and 3 more"),
        (lambda rows: rows.clear(), "no rows"),
        (lambda rows: rows.__delitem__(slice(30, None)), "3 questions can be used, 4 would do: at least 2 to train"),
    ],
)
def test_bad_lines_are_named(photos, change, message):
    rows = good_rows()
    change(rows)
    with pytest.raises(ValueError, match=f"(?s)t.csv.*{message}"):
        folder(photos, rows)


@pytest.mark.parametrize(
    "split, prompt, message",
    [
        ("training", "", "split 'training'; allowed: train, val, test"),
        ("", "", "split ''; allowed"),
        ("val", "", "split 'val', but 'train' for the same question in line 2"),
        ("train", "it is", "prompt 'it is', but ''"),
    ],
)
def test_bad_splits_and_prompts_are_named(photos, split, prompt, message):
    rows = [[*row, "train", ""] for row in good_rows()]
    question = "q?" if "allowed" in message else "What, 0?"
    rows.append(["0.png" if question == "q?" else "photo.png", question, "a", split, prompt])
    with pytest.raises(ValueError, match=message):
        folder(photos, rows, (*HEADER, "split", "prompt"))
    with pytest.raises(ValueError, match="must have one {}"):
        folder(photos, [[*row, "train", "a {} {}"] for row in good_rows()], (*HEADER, "split", "prompt"))


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("t.csv", "image,question\na,b\n", "column 'answer' is missing"),
        ("t.csv", "image,question,answer,who\na,b,c,d\n", "unknown column 'who'"),
        ("t.csv", "image,question,answer,answer\na,b,c,d\n", "a column occurs twice"),
        ("t.csv", "", "column 'image' is missing"),
        ("t.csv", 'image,question,answer\n"a,b,c\n', "unexpected end"),
        ("t.json", "{}", "expected a list of objects"),
        ("t.json", "[", "t.json"),
        ("t.json", '[{"image": "a", "question": "b", "answer": 3}]', "entry 1: expected an object of texts"),
        ("t.json", '[{"image": "a", "question": "b", "answer": "c"}, {"image": "a"}]', "entry 2 has the keys"),
        ("t.xlsx", "", "allowed: .csv, .tsv, .txt or .json; in a spreadsheet, save it as .CSV UTF-8"),
    ],
)
def test_files_that_are_no_table(photos, name, text, message):
    (photos / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_folder(FolderConfig(str(photos), str(photos / name)))


def test_missing_files_and_bad_fractions(photos):
    with pytest.raises(ValueError, match="no such file"):
        read_folder(FolderConfig(str(photos), "nowhere.csv"))
    with pytest.raises(ValueError, match="no directory"):
        read_folder(FolderConfig("nowhere", str(photos / "t.csv")))
    with pytest.raises(ValueError, match="val_fraction 1.0"):
        FolderConfig("a", "b", val_fraction=1.0)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--table", "t.csv"], "--table needs --images and --output"),
        (["--images", "x"], "--images needs"),
        (["--split-dir", "x"], "--preset metavqa"),
        (["--split-dir", "x", "--data", "y"], "exclude each other"),
        (["--download"], "--download needs"),
        (["--count", "0"], "allowed: 1 to 50"),
        (["--data", "nowhere"], "holds no built dataset"),
        (["--table", "t.csv", "--images", "nowhere", "--output", "o"], "no directory"),
    ],
)
def test_flags_of_make_data(flags, message, capsys):
    with pytest.raises(SystemExit):
        make_data.main(flags)
    assert message in capsys.readouterr().err


def test_table1_on_images_that_training_does_not_show(tmp_path, monkeypatch, capsys):
    """Every picture serves a training question; of the test question's, those of its own alone count."""
    monkeypatch.chdir(ROOT)
    (tmp_path / "photos").mkdir()
    rows, pictures = [], {}
    for i in range(60):
        colour = ("red", "blue", "green")[i * 7 % 3]
        pictures[f"{i:02}"] = Image.new("RGB", (80, 80), ((i * 37) % 255, (i * 91) % 255, (i * 53) % 255))
        pictures[f"{i:02}"].save(tmp_path / "photos" / f"{i:02}.png")
        if i < 30:  # of the test question alone below
            rows += [[f"{i:02}.png", f"What, {q}?", colour, "train" if q else "val"] for q in range(3)]
        if i >= 15:
            rows.append([f"{i:02}.png", "Which colour?", colour, "test"])
            rows.append([f"{i:02}.png", "Which other colour?", colour, "test"] if i < 30 else rows[-1])
    rows = list({(image, question): row for row in rows for image, question in [row[:2]]}.values())
    write_csv(tmp_path / "t.csv", rows, (*HEADER, "split"))
    data, release = tmp_path / "mine", tmp_path / "release"
    make_data.main(["--images", str(tmp_path / "photos"), "--table", str(tmp_path / "t.csv"), "--output", str(data)])
    release.mkdir()
    config = {"format_version": 1, "preset": "tiny-mine", "seed": 0, "choices": {}, "questions": []}
    config |= {"adapter": {"dim": 256, "hidden": 4}, "backbone": str(ROOT / "weights" / "emoji" / "backbone")}
    (release / "config.json").write_text(json.dumps(config), encoding="utf-8")
    flags = ["--preset", "tiny", "--data", str(data), "--weights", str(release), "--work", str(tmp_path / "work")]
    flags += ["--device", "cpu", "--json", str(tmp_path / "t.json"), "--per-task", str(tmp_path / "t")]
    table1.main([*flags, "--image-disjoint"])
    assert "image_disjoint (1)" in capsys.readouterr().out  # the other question has no picture of its own

    dataset = MetaVQA(MetaVQAConfig.at(data))
    (task,) = [task for task in dataset.tasks if task.question == "Which colour?"]
    own = [(i, label) for i, label in zip(*task.query, strict=True) if int(dataset.names[i][:2]) >= 30]
    assert 0 < len(own) < len(task.query[0])
    backbone = load_backbone(config["backbone"])
    x = backbone.encode_images([dataset.load_image(i) for i, _ in own])
    right = (x @ backbone.encode_texts(task.answers).mT).argmax(-1) == torch.tensor([label for _, label in own])
    (record,) = [
        r for r in json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["results"] if r["row"] == "clip"
    ]
    assert (record["tasks"], record["n_tasks"]) == ("image_disjoint", 1)
    assert record["mean"] == pytest.approx(float(right.float().mean()), abs=1e-4)
    assert "Which colour?" in (tmp_path / "t_tasks.csv").read_text(encoding="utf-8")

    table1.main(flags)
    assert {r["tasks"] for r in json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["results"]} == {
        "known",
        "all",
    }
    with pytest.raises(SystemExit):  # scenes of Emoji-VQA belong to one task each
        table1.main(["--preset", "emoji", "--image-disjoint", "--work", str(tmp_path / "other")])
    assert "--image-disjoint: 0 of " in capsys.readouterr().err


def test_five_commands(tmp_path, monkeypatch, capsys):
    """A folder of 300 pictures and a CSV to a dataset, features, training, a table, answers."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").symlink_to(make_data.Path(make_data.__file__).resolve().parent.parent / "weights")
    (tmp_path / "photos").mkdir()
    things = list(OBJECTS)[:10]
    asked = ("How big is the {}?", "What shape is the badge behind the {}?", "Where is the {}?")
    rows = []
    for question in (text.format(thing) for text in asked for thing in things):
        for scene, answer in draw_scenes_for_question(question, 10):
            file = f"{len(rows):03d}.png"
            scene.save(tmp_path / "photos" / file)
            rows.append([file, question, answer])
    (tmp_path / "photos" / "007.png").write_bytes(b"damaged")
    write_csv(tmp_path / "questions.csv", rows)

    make_data.main(["--images", "photos", "--table", "questions.csv", "--output", "data/mine", "--preview"])
    assert "questions: " in capsys.readouterr().out and (tmp_path / "data/mine/preview.png").is_file()
    tasks = MetaVQA(MetaVQAConfig.at("data/mine")).tasks
    assert {task.split for task in tasks} == {"train", "val", "test"}

    run = ["--preset", "tiny", "--data", "data/mine", "--device", "cpu"]
    features.main(run)
    out = capsys.readouterr().out
    assert "1 unreadable images are left out" in out and "'unreadable': 1.0" in out
    run_all.main(run)
    table1.main([*run, "--json", "table1.json"])
    results = json.loads((tmp_path / "table1.json").read_text(encoding="utf-8"))["results"]
    assert {r["n_tasks"] for r in results} == {sum(task.split == "test" for task in tasks)}
    sanity.main(run)
    out = capsys.readouterr().out
    assert "HyperLDM, random words" in out and "other words" not in out  # nobody knows other words for these questions
    card = (tmp_path / "runs/tiny-mine/seed-0/weights/README.md").read_text(encoding="utf-8")
    assert (
        "`python train/run_all.py --preset tiny --data data/mine --seed 0`" in card and "questions: a dataset" in card
    )
    generator = AdapterGenerator.from_pretrained("runs/tiny-mine/seed-0/weights")
    own = [known["question"] for known in generator.known_questions]
    assert any(f'.generate("{question}")' in card for question in own)
    assert generator.config["dataset"] == "questions" and generator.config["preset"] == "tiny-mine"
    adapter = generator.generate(f"How big is the {things[0]}?", method="hyperldm")
    assert len(adapter.classify(["photos/000.png"], ["small", "large"])) == 1

    run_all.main(run)
    assert "0 stages run" in capsys.readouterr().out
    rows[:10] = [[image, "Another question?", answer] for image, _, answer in rows[:10]]
    write_csv(tmp_path / "questions.csv", rows)
    make_data.main(["--images", "photos", "--table", "questions.csv", "--output", "data/mine"])
    run_all.main([*run, "--plan"])
    assert "done" not in capsys.readouterr().out.split("work files in")[1]
