"""Meta-VQA with a part of the images: which pairs, questions and roles are left, what is said, what is refused."""

import json
import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from core.backbones import load_backbone
from core.config import config_hash
from core.data.built import image_names, read_dataset, read_questions, write_dataset
from core.data.meta_vqa import MetaVQA, MetaVQAConfig, read_published
from core.data.part import dealt_anew, in_both_roles, left_out, with_images
from core.data.task_sets import without_images
from core.data.tasks import Task
from core.release.default import located
from tests.conftest import ROOT
from tests.test_meta_vqa import PUBLISHED, VQAFiles, small_split
from train import make_data
from train.pipeline.model_card import SHIPPED_PHOTOS, write_card
from train.pipeline.run import Run
from train.presets import get_preset

SHIPPED = ROOT / "weights" / "photos" / "data"
COCO = Path(os.environ.get("COCO_IMAGES", ROOT / "coco"))


def pairs(splits, split):
    return Counter(
        (question, image, answer)
        for question, entry in splits[split].items()
        for image, answer in entry["train"] + entry["test"]
    )


@pytest.fixture
def full():
    train, test = small_split()
    return {"train": train, "test": test}


def some(full, count, seed=0):
    return set(random.Random(seed).sample(image_names(full.values()), count))


# -- which pairs are left, in which roles ----------------------------------------------------------------------------


def test_pairs_without_an_image_go_and_nothing_else(full):
    there = some(full, 12)
    left = with_images(full, there)
    for split in full:
        assert pairs(left, split) == Counter({pair: 1 for pair in pairs(full, split) if pair[1] in there})
        for question, entry in left[split].items():
            assert entry["answers"] == full[split][question]["answers"]
            assert {i for i, _ in entry["train"]} <= {i for i, _ in full[split][question]["train"]}
    assert with_images(full, set(image_names(full.values()))) == full


def test_questions_without_any_pair_go(full):
    question, entry = next(iter(full["train"].items()))
    own = {image for image, _ in entry["train"] + entry["test"]}
    left = with_images(full, set(image_names(full.values())) - own)
    assert question not in left["train"] and left["train"].keys() < full["train"].keys()


def test_published_roles_need_both(full):
    question, entry = next(iter(full["train"].items()))
    there = set(image_names(full.values())) - {image for image, _ in entry["test"]}
    left = with_images(full, there)
    assert left["train"][question]["test"] == [] and question not in in_both_roles(left)["train"]


def test_roles_dealt_anew(full):
    left = with_images(full, some(full, 9))
    dealt = dealt_anew(left)
    for split in full:
        assert pairs(dealt, split) == pairs(left, split) and list(dealt[split]) == list(left[split])
    assert all(not entry["train"] and entry["test"] for entry in dealt["test"].values())
    for question, entry in dealt["train"].items():
        both = left["train"][question]["train"] + left["train"][question]["test"]
        random.Random(2021).shuffle(both)
        cut = round(0.7 * len(both))
        assert [entry["train"], entry["test"]] == [both[:cut], both[cut:]]
    sizes = {len(e["train"]): len(e["test"]) for e in dealt["train"].values()}
    assert sizes and all(support >= query for support, query in sizes.items())


def test_an_only_pair_is_support():
    entry = {"train": [], "test": [["a", "red"]], "answers": ["red", "blue"]}
    assert dealt_anew({"train": {"q": entry}})["train"]["q"] == {**entry, "train": [["a", "red"]], "test": []}


# -- built directories ------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path, full):
    directory = tmp_path / "split"
    directory.mkdir()
    (directory / "meta_train.json").write_text(json.dumps(full["train"]), encoding="utf-8")
    (directory / "meta_test.json").write_text(json.dumps(full["test"]), encoding="utf-8")
    (directory / "prompt_meta.json").write_text(json.dumps({q: "it is {}" for q in full["train"]}), encoding="utf-8")
    return directory


@pytest.fixture
def coco(tmp_path, full):
    """Fourteen of the images."""
    root = tmp_path / "coco"
    root.mkdir()
    for image in sorted(some(full, 14)):
        Image.new("RGB", (9, 7), (int(image[-3:]),) * 3).save(root / f"{image}.jpg")
    return root


@pytest.fixture
def built(tmp_path, source, coco):
    make_data.main(photos(tmp_path, source, coco))
    return tmp_path / "built"


def photos(tmp_path, source, coco, *more):
    flags = ["--preset", "photos", "--split-dir", source, "--images", coco, "--output", tmp_path / "built"]
    return [str(flag) for flag in (*flags, *more)]


def opened(directory, **settings):
    return MetaVQA(MetaVQAConfig(str(directory), **({"folds": 5} | settings)))


def test_a_part_says_what_it_lacks(built, full, coco, capsys, tmp_path, source):
    there = {path.stem for path in coco.iterdir()}
    expected = dealt_anew(with_images(full, there))
    identity, splits, prompts = read_dataset(built)
    assert splits == expected and identity["name"] == "meta-vqa-photos-part"
    assert identity["part"] == left_out(full, expected)
    pairs_left, images_left = sum(map(len, (pairs(full, s) for s in full))), len(image_names(full.values())) - 14
    pairs_left -= identity["counts"]["pairs"]
    assert identity["part"] == {"pairs_left_out": pairs_left, "images_left_out": images_left, "questions_left_out": 0}
    assert prompts == {q: "it is {}" for q in full["train"]}
    capsys.readouterr()
    make_data.main(photos(tmp_path, source, coco))
    assert f"left out, for lack of images: {pairs_left} of" in capsys.readouterr().out


def test_tasks_of_a_part(built, full):
    data = opened(built)
    test = [task for task in data.tasks if task.split == "test"]
    assert test and all(task.support == ((), ()) and task.query[0] for task in test)
    assert all(task.answers == ("red", "blue", "two words") for task in data.tasks)
    assert {data.names[i] for task in test for i in task.query[0]} == {image for _, image, _ in pairs(full, "test")} & {
        *data.names
    }


def test_from_the_files_of_vqa_v2_too(tmp_path, source, coco, built, full):
    files, directory = VQAFiles(), tmp_path / "vqa"
    files.add_split(full["train"], full["test"])
    directory.mkdir()
    files.write(directory)
    flags = ["--preset", "photos", "--vqa-dir", directory, "--images", coco, "--output", tmp_path / "again"]
    make_data.main([str(flag) for flag in flags])
    assert read_dataset(tmp_path / "again")[1] == read_dataset(built)[1]


def test_meta_vqa_keeps_its_roles(tmp_path, source, coco, full, capsys):
    flags = ["--preset", "metavqa", "--split-dir", source, "--images", coco, "--output", tmp_path / "mv"]
    query = {image for image, _ in next(iter(full["train"].values()))["test"]}
    for path in coco.iterdir():
        if path.stem in query:  # one question at least has support left alone
            path.unlink()
    shown = with_images(full, {path.stem for path in coco.iterdir()})
    expected = in_both_roles(shown)
    make_data.main([str(flag) for flag in flags])  # too few for 87 validation tasks: a fifth are
    out = capsys.readouterr().out
    identity, splits, _ = read_dataset(tmp_path / "mv")
    assert splits == expected and identity["part"] == left_out(full, expected) and identity["name"] == "meta-vqa"
    lost = sum(len(shown[s]) - len(expected[s]) for s in full)
    assert lost and f"{lost} of these questions have pairs left, but no support or no query pair" in out


def test_all_images_make_no_part(tmp_path, source, coco, full, capsys):
    for image in image_names(full.values()):
        Image.new("RGB", (9, 7)).save(coco / f"{image}.jpg")
    flags = ["--preset", "metavqa", "--split-dir", source, "--images", coco, "--output", tmp_path / "mv"]
    make_data.main([str(flag) for flag in flags])
    identity, splits, _ = read_dataset(tmp_path / "mv")
    assert splits == full and "part" not in identity and "left out" not in capsys.readouterr().out


def test_no_image_at_all_is_an_error(tmp_path, source, coco, capsys):
    for images, message in ((tmp_path / "nowhere", "there is no directory"), (source, "60 of 60 images are missing")):
        with pytest.raises(SystemExit):
            make_data.main(photos(tmp_path, source, images))
        assert message in capsys.readouterr().err and not (tmp_path / "built").exists()


def test_too_few_images_for_a_test_question(tmp_path, source, coco, full, capsys):
    in_test = {image for _, image, _ in pairs(full, "test")}
    for path in coco.iterdir():
        path.unlink()
    alone = next(image for image in image_names(full.values()) if image not in in_test)
    Image.new("RGB", (9, 7)).save(coco / f"{alone}.jpg")
    with pytest.raises(SystemExit):
        make_data.main(photos(tmp_path, source, coco))
    assert "its 1 images leave no test question" in capsys.readouterr().err and not (tmp_path / "built").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--split-dir", "s"], "built from --images that are there"),
        (["--split-dir", "s", "--images", "i", "--download"], "built from --images that are there"),
        (["--download"], "--images alone"),
    ],
)
def test_flags_of_photos(flags, message, capsys):
    with pytest.raises(SystemExit):
        make_data.main(["--preset", "photos", *flags])
    assert message in capsys.readouterr().err


# -- the format: what a part may have, others may not ----------------------------------------------------------------


@pytest.mark.parametrize("change", [lambda e: e["test"].clear(), lambda e: e["answers"].append("green")])
def test_only_a_part_may_have_gaps(tmp_path, full, change):
    change(next(iter(full["train"].values())))
    path = tmp_path / "meta_train.json"
    path.write_text(json.dumps(full["train"]), encoding="utf-8")
    assert read_questions(path, part=True) == full["train"]
    with pytest.raises(ValueError, match="meta_train.json"):
        read_questions(path)
    write_dataset(tmp_path, full, name="n", source="s", prompts={}, images=None)
    with pytest.raises(ValueError, match="meta_train.json"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda e: (e["train"].clear(), e["test"].clear()), "no image at all"),
        (lambda e: e.update(test=None), "list of"),
        (lambda e: e["test"].append(["x", "green"]), "'green' is none"),
        (lambda e: e["test"].append(list(e["train"][0])), "occurs twice"),
        (lambda e: e["answers"].append("red"), "2 different"),
    ],
)
def test_the_other_rules_hold_for_a_part(tmp_path, full, change, word):
    change(next(iter(full["train"].values())))
    path = tmp_path / "meta_train.json"
    path.write_text(json.dumps(full["train"]), encoding="utf-8")
    with pytest.raises(ValueError, match=word):
        read_questions(path, part=True)


@pytest.mark.parametrize("part", [None, {}, {"pairs_left_out": 1}, 3, "all"])
def test_a_part_must_be_counted(built, part):
    path = built / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"part": part}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"dataset.json: 'part' must count pairs_left_out"):
        read_dataset(built)


def test_an_unreadable_image_takes_no_answer_that_had_none():
    task = Task("q", ("red", "blue", "green"), ((), ()), ((4, 5, 6), (0, 1, 0)), "test")
    ((kept,), notes) = without_images([task], {5})
    assert (
        not notes and kept.answers == ("red", "green") and kept.query == ((4, 6), (0, 0)) and kept.support == ((), ())
    )
    assert without_images([task], {4, 5, 6})[0] == []
    had = Task("q", ("red", "blue"), ((1, 2), (0, 1)), ((4, 5, 6), (0, 1, 0)), "test")
    assert len(without_images([had], {2})[0]) == 1 and without_images([had], {1, 2})[0] == []  # it loses its support


# -- pictures that are elsewhere or not at all -----------------------------------------------------------------------


def test_questions_are_there_without_pictures(built, coco, tmp_path):
    coco.rename(tmp_path / "moved")
    data = opened(built)
    assert data.tasks and data.num_images == 14
    with pytest.raises(ValueError, match=r"pictures' directory .* is gone; .*--images DIR"):
        data.load_image(0)
    (built / "images.json").unlink()
    data = opened(built)
    with pytest.raises(ValueError, match=r"its pictures are not here; .*--images DIR"):
        data.load_image(0)


def test_pictures_can_be_found_again(built, coco, tmp_path, capsys):
    before = read_dataset(built)
    (built / "images.json").unlink()
    moved = coco.rename(tmp_path / "moved")
    make_data.main(["--data", str(built), "--images", str(moved), "--preset", "photos"])
    out = capsys.readouterr().out
    assert "finds its 14 pictures" in out and "differ a little" not in out and read_dataset(built) == before
    assert opened(built).load_image(0).size == (9, 7)
    Image.new("RGB", (90, 70)).save(next(moved.iterdir()))
    make_data.main(["--data", str(built), "--images", str(moved), "--preset", "photos"])
    assert "differ a little" in capsys.readouterr().out and read_dataset(built) == before
    next(moved.iterdir()).unlink()
    with pytest.raises(SystemExit):
        make_data.main(["--data", str(built), "--images", str(moved), "--preset", "photos"])
    assert "1 of 14 images are missing" in capsys.readouterr().err


def test_pictures_of_a_dataset_that_was_built_without(tmp_path, full, coco, capsys):
    write_dataset(tmp_path / "d", full, name="n", source="s", prompts={}, images=None)
    config = MetaVQAConfig(str(tmp_path / "d"), val_tasks=2)
    with pytest.raises(ValueError, match="built without pictures"):
        config.open().load_image(0)


# -- folds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_part_the_training_questions(built, folds):
    train = [task.question for task in opened(built).tasks if task.split in ("train", "val")]
    val = [
        {task.question for task in opened(built, folds=folds, fold=k).tasks if task.split == "val"}
        for k in range(folds)
    ]
    assert sorted(question for part in val for question in part) == sorted(train)
    assert max(map(len, val)) - min(map(len, val)) <= 1


def test_folds_depend_on_the_seed_alone(built):
    val = lambda seed: {task.question for task in opened(built, folds=2, seed=seed).tasks if task.split == "val"}
    assert val(0) == val(0) and any(val(0) != val(seed) for seed in (1, 2, 3))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"folds": 1}, "folds 1; allowed: 0 for none, or 2 and more"),
        ({"folds": -2}, "folds -2; allowed"),
        ({"folds": 5, "fold": 5}, "fold 5; allowed: 0 to 4"),
        ({"folds": 5, "fold": -1}, "fold -1; allowed: 0 to 4"),
        ({"folds": 0, "fold": 1}, "fold 1; allowed: 0 to 0"),
    ],
)
def test_impossible_folds(settings, message):
    with pytest.raises(ValueError, match=message):
        MetaVQAConfig(**settings)


def test_folds_of_too_few_questions_or_of_a_dataset_with_validation_tasks(built, tmp_path, full):
    with pytest.raises(ValueError, match="folds 8; allowed: up to 7"):
        opened(built, folds=8)
    items = list(full["train"].items())
    own = {"train": dict(items[:5]), "val": dict(items[5:]), "test": full["test"]}
    write_dataset(tmp_path / "own", own, name="n", source="s", prompts={}, images=None)
    with pytest.raises(ValueError, match="folds 2: .* has its own validation tasks"):
        opened(tmp_path / "own", folds=2, val_tasks=0)


# -- what is shipped --------------------------------------------------------------------------------------------------


def test_what_presets_name_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = get_preset("photos").dataset
    assert config.directory == "weights/photos/data" and located(config.directory) == SHIPPED
    assert config.pinned() == MetaVQAConfig("weights/photos/data", config_hash(read_dataset(SHIPPED)[0]), val_tasks=74)
    assert load_backbone(get_preset("emoji").backbone).dim == 256
    assert located("nowhere") == Path("nowhere") and located(tmp_path) == tmp_path
    (tmp_path / "weights" / "photos" / "data").mkdir(parents=True)  # what is here comes first
    assert located(config.directory) == Path("weights/photos/data")


def test_the_shipped_questions(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    make_data.main(["--preset", "photos"])
    assert "meta-vqa-photos: 1073 tasks, 3347 images" in capsys.readouterr().out
    data = get_preset("photos").dataset.open()
    splits = read_dataset(SHIPPED)[1]
    assert [len(splits[split]) for split in ("train", "test")] == [739, 334]
    assert [sum(pairs(splits, split).values()) for split in ("train", "test")] == [3759, 1584]
    assert data.num_images == 3347 and all(task.prompt for task in data.tasks)
    assert Counter(task.split for task in data.tasks) == {"train": 665, "val": 74, "test": 334}
    known = {name for _, name, _ in pairs(splits, "train")}
    assert sum(image not in known for _, image, _ in pairs(splits, "test")) == 813
    assert sum(path.stat().st_size for path in SHIPPED.glob("*.json")) < 2_000_000
    assert str(Path.home()) not in (SHIPPED / "dataset.json").read_text(encoding="utf-8")


@pytest.mark.skipif(
    not ((PUBLISHED / "meta_train.json").is_file() and COCO.is_dir()),
    reason="no published split files, or no images of COCO (METAVQA_SPLITS, COCO_IMAGES)",
)
def test_the_shipped_questions_can_be_made_again(tmp_path, capsys):
    """From any images of COCO among which are the shipped dataset's own."""
    shipped = read_dataset(SHIPPED)[1]
    train, test, _ = read_published(PUBLISHED)
    again = dealt_anew(with_images({"train": train, "test": test}, set(image_names(shipped.values()))))
    assert json.dumps(again) == json.dumps(shipped)  # order included
    make_data.main(photos(tmp_path, PUBLISHED, COCO))
    identity = read_dataset(tmp_path / "built")[0]
    assert identity["counts"]["images"] <= len(list(COCO.rglob("*.jpg")))
    if identity["counts"]["images"] == 3347:
        assert identity == read_dataset(SHIPPED)[0]


def test_the_shipped_questions_alone_have_the_shipped_name(tmp_path, monkeypatch):
    """Also where they are made again, of other files of the same pictures."""
    identity, shipped, _ = read_dataset(SHIPPED)
    assert identity["questions"] == SHIPPED_PHOTOS
    monkeypatch.setattr(make_data, "read_published", lambda directory: (shipped["train"], shipped["test"], {}))
    monkeypatch.setattr(make_data, "take_part", lambda full, root, anew: (full, None, left_out(full, full)))
    args = make_data.parse(photos(tmp_path, tmp_path, tmp_path))[1]
    make_data.build_meta_vqa(args, tmp_path / "again")
    assert read_dataset(tmp_path / "again")[0]["name"] == "meta-vqa-photos"
    del shipped["test"][next(iter(shipped["test"]))]
    make_data.build_meta_vqa(args, tmp_path / "again")
    assert read_dataset(tmp_path / "again")[0]["name"] == "meta-vqa-photos-part"


def test_a_card_says_of_a_dataset_what_is_true_of_it(built, tmp_path):
    """Numbers are its own, and what was measured on the shipped dataset is said of that one alone."""

    def about(config):
        preset = replace(get_preset("photos"), dataset=config)
        origin = {"preset": "photos", "data": None, "start": None, "steps_share": 1.0, "set": []}
        write_card(Run(preset, 0, tmp_path / "out", tmp_path, torch.device("cpu"), origin=origin), {})
        lines = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("**Data.** ")).split(": ", 1)[1]

    card = (ROOT / "weights" / "photos" / "README.md").read_text(encoding="utf-8")
    shipped, part = about(get_preset("photos").dataset), about(MetaVQAConfig(str(built), folds=5))
    assert shipped in card and "3,347" in shipped and "Best at rooms" in shipped
    assert "about 14 of its COCO photographs" in part and "was not measured" in part
    assert not any(word in part for word in ("3,347", "Best at", "fail", "wrong"))
    identity = json.loads((built / "dataset.json").read_text(encoding="utf-8"))  # as it was named before
    (built / "dataset.json").write_text(json.dumps({**identity, "name": "meta-vqa-photos"}), encoding="utf-8")
    assert about(MetaVQAConfig(str(built), folds=5)) == part


def test_a_sheet_of_a_part(built, tmp_path, capsys):
    flags = ["--preset", "photos", "--data", str(built), "--preview", "--output", str(tmp_path / "sheet.png")]
    make_data.main(flags)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 100
