"""Meta-VQA: the published split to the pair, from both kinds of source, and what is refused."""

import copy
import json
import os
import random
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import torch
from PIL import Image

from core.config import config_hash
from core.data.built import divide, image_names, read_dataset, read_questions, write_dataset
from core.data.coco import find_coco
from core.data.meta_vqa import MetaVQA, MetaVQAConfig, read_published
from core.data.task_sets import image_disjoint, without_images
from core.data.tasks import TaskSet
from core.data.vqa_v2 import VQA_FILES, annotation_file, from_vqa_v2, question_file
from tests.conftest import ROOT
from train import make_data

PUBLISHED = Path(os.environ.get("METAVQA_SPLITS", ROOT / "metavqa"))
published = pytest.mark.skipif(not (PUBLISHED / "meta_train.json").is_file(), reason="no published split files")


def name(i, part="train2014"):
    return f"COCO_{part}_{i:012d}"


def small_split(first_val=60):
    """Ten questions in two parts, of 24 to 42 images each; images from `first_val` on are COCO's val2014."""
    questions = {}
    for q in range(10):
        rng = random.Random(q)
        numbers = sorted(rng.sample(range(60), 24 + 2 * q))
        images = [name(i, "val2014" if i >= first_val else "train2014") for i in numbers]
        by_answer = {"red": images[:11], "blue": images[11:20], "two words": images[20:]}
        questions[f"What color is thing {q}?"] = divide(by_answer)
    items = list(questions.items())
    return dict(items[:7]), dict(items[7:])


def original_order(pairs):
    """The images of one answer, support then query, as they were before `divide` shuffled them."""
    order = list(range(len(pairs)))
    random.Random(2021).shuffle(order)
    result = [None] * len(pairs)
    for image, i in zip(pairs, order, strict=True):
        result[i] = image
    return result


class VQAFiles:
    """VQA v2's four files in the making: pairs in order of annotation, with decoys."""

    def __init__(self):
        self.questions = {"train2014": [], "val2014": []}
        self.annotations = {"train2014": [], "val2014": []}

    def add(self, question, image, answer, answer_type="other"):
        _, part, number = image.split("_")
        identifier = len(self.questions[part])
        self.questions[part].append({"image_id": int(number), "question": question, "question_id": identifier})
        self.annotations[part].append(
            {
                "image_id": int(number),
                "question_id": identifier,
                "question_type": "what",
                "answer_type": answer_type,
                "multiple_choice_answer": answer,
            }
        )

    def add_split(self, train, test):
        """Pairs in an order that the rules turn into just this split, after one that they drop for each task."""
        both = {**train, **test}
        tasks = original_order(list(both))
        chains = {}
        for question, entry in both.items():
            pairs = [*entry["train"], *entry["test"]]
            chains[question] = {a: original_order([i for i, given in pairs if given == a]) for a in entry["answers"]}
        graph = {}
        for by_answer in chains.values():
            firsts = [images[0] for images in by_answer.values()]
            for chain in (*by_answer.values(), firsts):
                for before, after in zip(chain, chain[1:], strict=False):
                    graph.setdefault(after, set()).add(before)
        for question in tasks:  # whoever comes first decides the order of tasks
            self.add(question, name(900_000), "an answer seen once")
        answers = {}
        for question in tasks:
            for answer, images in chains[question].items():
                for image in images:
                    answers.setdefault(image, []).append((question, answer))
        for image in TopologicalSorter(graph).static_order():
            for question, answer in answers[image]:
                self.add(question, image, answer)

    def add_decoys(self, train):
        """What each rule must drop."""
        question, entry = next(iter(train.items()))
        for i in range(30):
            image = name(800_000 + i, "val2014")
            self.add(question, image, "yes" if i % 2 else "no", "yes/no")
            self.add("Is it so?", image, "yes" if i % 2 else "no", "yes/no")
            self.add("Is it red or blue?", image, "red" if i % 2 else "blue")
            self.add("Cats OR dogs?", image, "cats" if i % 2 else "dogs")
            self.add("How unlike are they?", image, f"answer {i}", "number")  # every answer once
            self.add("What is it always?", image, "a cat")  # one answer only
            if i < 20:
                self.add("What has twenty examples?", image, "a" if i % 2 else "b")
                self.add("What has twenty-one?", image, "a" if i % 2 else "b")  # and two answers seen once
        for i, answer in enumerate(("c", "d")):
            self.add("What has twenty-one?", name(810_000 + i, "val2014"), answer)
        for image, answer in entry["train"]:  # a second time, with another answer
            self.add(question, image, next(a for a in entry["answers"] if a != answer))

    def write(self, directory):
        for part in ("train2014", "val2014"):
            head = {"data_subtype": part, "data_type": "mscoco"}
            (directory / question_file(part)).write_text(
                json.dumps({**head, "questions": self.questions[part]}), encoding="utf-8"
            )
            (directory / annotation_file(part)).write_text(
                json.dumps({**head, "annotations": self.annotations[part]}), encoding="utf-8"
            )


def rebuilt(train, test, directory):
    files = VQAFiles()
    files.add_split(train, test)
    files.add_decoys(train)
    files.write(directory)
    return from_vqa_v2(directory)


def test_the_rules_give_back_a_split_and_drop_every_decoy(tmp_path):
    train, test = small_split(first_val=40)
    again = rebuilt(train, test, tmp_path)
    assert json.dumps(again) == json.dumps([train, test])  # order included


@published
def test_the_rules_give_back_the_published_split(tmp_path):
    train, test, _ = read_published(PUBLISHED)
    again = rebuilt(train, test, tmp_path)
    assert json.dumps(again) == json.dumps([train, test])


@pytest.mark.parametrize("examples, kept", [(20, False), (21, True)])
def test_a_task_needs_more_than_twenty_examples(tmp_path, examples, kept):
    files = VQAFiles()
    for i in range(examples):
        files.add("What is it?", name(i), "a" if i % 2 else "b")
    for i in range(30):
        files.add("What else?", name(i, "val2014"), "a" if i % 2 else "b", "number")
    files.write(tmp_path)
    train, test = from_vqa_v2(tmp_path)
    assert ("What is it?" in {**train, **test}) == kept and "What else?" in {**train, **test}


def test_seventy_percent_of_every_answer_is_support():
    entry = divide({"a": [str(i) for i in range(10)], "b": ["x", "y"], "c": ["u", "v", "w"]})
    assert Counter(a for _, a in entry["train"]) == {"a": 7, "b": 1, "c": 2}
    assert Counter(a for _, a in entry["test"]) == {"a": 3, "b": 1, "c": 1}
    assert {i for i, _ in entry["train"]}.isdisjoint(i for i, _ in entry["test"])


def test_missing_vqa_files_are_all_named_with_their_source(tmp_path):
    (tmp_path / VQA_FILES[0]).write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{VQA_FILES[1]}.*{VQA_FILES[3]}.*visualqa.org") as error:
        from_vqa_v2(tmp_path)
    assert VQA_FILES[0] not in str(error.value)


def test_vqa_files_that_do_not_fit_together(tmp_path):
    files = VQAFiles()
    files.add("What is it?", name(1), "a")
    files.annotations["train2014"][0]["question_id"] += 1
    files.write(tmp_path)
    with pytest.raises(ValueError, match="no such question"):
        from_vqa_v2(tmp_path)
    (tmp_path / VQA_FILES[0]).write_text('{"questions"', encoding="utf-8")
    with pytest.raises(ValueError, match=VQA_FILES[0]):
        from_vqa_v2(tmp_path)


@published
def test_the_published_split_has_its_published_numbers(tmp_path, capsys):
    make_data.main(["--preset", "metavqa", "--split-dir", str(PUBLISHED), "--output", str(tmp_path / "mv")])
    assert "as published" in capsys.readouterr().out
    data = MetaVQAConfig(str(tmp_path / "mv")).open()
    splits = Counter(task.split for task in data.tasks)
    assert (splits["train"] + splits["val"], splits["val"], splits["test"]) == (870, 87, 373)
    assert sum(len(task.examples("all")[0]) for task in data.tasks) == 104_112
    means = [mean(f(t) for t in data.tasks) for f in (lambda t: len(t.answers), lambda t: len(t.support[0]))]
    assert [round(m, 2) for m in means] == [9.14, 57.86]
    assert round(mean(len(task.query[0]) for task in data.tasks), 2) == 25.90
    assert data.num_images == 64_665 and all(task.prompt.count("{}") == 1 for task in data.tasks)
    test, seen = without_features([t for t in data.tasks if t.split == "test"]), trained_images(data.tasks)
    left = image_disjoint(test, seen)
    assert [sum(len(task.query[0]) for task in tasks.tasks) for tasks in (test, left)] == [9176, 4621]  # about half
    assert len(left) == 373


# -- the built directory -----------------------------------------------------------------------------------------


@pytest.fixture
def coco(tmp_path):
    """Pictures of the small split, in COCO's layout, each of its own grey."""
    root = tmp_path / "coco"
    (root / "train2014").mkdir(parents=True)
    for image in image_names(small_split()):
        Image.new("RGB", (9, 7), (int(image[-3:]),) * 3).save(root / "train2014" / f"{image}.jpg")
    return root


@pytest.fixture
def built(tmp_path, coco):
    """The small split, built through `make_data`, with prompts."""
    source = tmp_path / "split"
    source.mkdir()
    train, test = small_split()
    (source / "meta_train.json").write_text(json.dumps(train), encoding="utf-8")
    (source / "meta_test.json").write_text(json.dumps(test), encoding="utf-8")
    (source / "prompt_meta.json").write_text(
        json.dumps({q: "it is {}" for q in [*train][:3]} | {"unknown": "{}?"}), encoding="utf-8"
    )
    output = tmp_path / "built"
    arguments = ["--preset", "metavqa", "--split-dir", str(source), "--images", str(coco), "--output", str(output)]
    make_data.main(arguments)
    return output


def test_tasks_point_at_their_pictures(built):
    data = MetaVQA(MetaVQAConfig(str(built), val_tasks=2))
    train, test = small_split()
    assert [t.question for t in data.tasks] == [*train, *test]
    assert Counter(t.split for t in data.tasks) == {"train": 5, "val": 2, "test": 3}
    task, entry = data.tasks[0], next(iter(train.values()))
    pairs = [[data.names[i], task.answers[y]] for i, y in zip(*task.support, strict=True)]
    assert pairs == entry["train"] and task.family == "what color" and task.prompt == "it is {}"
    index = task.query[0][0]
    assert abs(int(np.array(data.load_image(index))[0, 0, 0]) - int(data.names[index][-3:])) <= 2


def test_validation_tasks_depend_on_the_seed_alone(built):
    val = lambda seed: {
        t.question for t in MetaVQA(MetaVQAConfig(str(built), val_tasks=3, seed=seed)).tasks if t.split == "val"
    }
    assert val(0) == val(0) and len(val(0)) == 3 and any(val(0) != val(s) for s in (1, 2, 3))


def test_a_digest_pins_contents_and_a_place_does_not_matter(built, tmp_path):
    config = MetaVQAConfig.at(built)
    moved = built.rename(tmp_path / "moved")
    assert config.digest and config_hash(config) == config_hash(MetaVQAConfig.at(moved))
    assert config_hash(config) != config_hash(MetaVQAConfig(str(moved)))
    train, test = small_split()
    write_dataset(moved, {"train": train, "test": test}, name="meta-vqa", source="s", prompts={}, images=None)
    with pytest.raises(ValueError, match="another dataset"):
        MetaVQA(MetaVQAConfig(str(moved), config.digest, val_tasks=2))


def test_changed_files_are_noticed(built):
    path = built / "meta_test.json"
    path.write_text(path.read_text(encoding="utf-8").replace("two words", "three words"), encoding="utf-8")
    with pytest.raises(ValueError, match="questions changed since"):
        read_dataset(built)


def test_resized_pictures_are_another_dataset(built, coco):
    before = MetaVQA(MetaVQAConfig(str(built), val_tasks=2)).identity
    file = next((coco / "train2014").iterdir())
    Image.new("RGB", (90, 70)).save(file)
    train, test = small_split()
    images = find_coco(image_names((train, test)), coco)
    after = write_dataset(built, {"train": train, "test": test}, name="meta-vqa", source="s", prompts={}, images=images)
    assert before["images"] != after["images"] and before["questions"] == after["questions"]


@pytest.mark.parametrize("layout", [".", "images", "images/train2014"])
def test_pictures_are_found_in_other_layouts(coco, tmp_path, layout):
    other = tmp_path / "other" / layout
    other.parent.mkdir(parents=True, exist_ok=True)
    (coco / "train2014").rename(other)
    names = image_names(small_split())
    files = find_coco(names, tmp_path / "other")
    assert [Path(f).stem for f in files.files] == names and all((files.root / f).is_file() for f in files.files)


def test_missing_pictures_are_counted_and_named(coco):
    (coco / "train2014" / f"{name(5)}.jpg").unlink()
    with pytest.raises(
        ValueError, match=rf"1 of \d+ images are missing, such as {name(5)}.jpg; searched .*cocodataset"
    ):
        find_coco(image_names(small_split()), coco)
    with pytest.raises(ValueError, match="no directory"):
        find_coco([name(5)], coco / "nowhere")


def test_an_unreadable_picture_is_an_oserror_that_names_it(built, coco):
    data = MetaVQA(MetaVQAConfig(str(built), val_tasks=2))
    paths = [coco / "train2014" / f"{n}.jpg" for n in data.names[:4]]
    paths[0].write_bytes(b"")
    paths[1].write_bytes(b"not a picture")
    paths[2].write_bytes(paths[2].read_bytes()[:-300])
    paths[3].unlink()
    for i in range(4):
        with pytest.raises(OSError, match=data.names[i]):
            data.load_image(i)


def test_without_pictures_there_is_everything_but_pictures(tmp_path):
    train, test = small_split()
    write_dataset(tmp_path, {"train": train, "test": test}, name="n", source="s", prompts={}, images=None)
    data = MetaVQA(MetaVQAConfig(str(tmp_path), val_tasks=2))
    with pytest.raises(ValueError, match="--images"):
        data.load_image(0)


def test_a_missing_dataset_says_how_to_make_it(tmp_path):
    with pytest.raises(ValueError, match="make_data.py"):
        MetaVQAConfig(str(tmp_path)).open()
    with pytest.raises(ValueError, match=r"meta_train.json is missing"):
        read_published(tmp_path)


@pytest.mark.parametrize("val_tasks", [0, 4, 7, -1])
def test_impossible_numbers_of_validation_tasks(built, val_tasks):
    with pytest.raises(ValueError, match=rf"val_tasks {val_tasks}; allowed: 1 to 3, of 7 training questions"):
        MetaVQA(MetaVQAConfig(str(built), val_tasks=val_tasks))


def test_a_question_in_two_splits_is_refused(tmp_path):
    train, _ = small_split()
    with pytest.raises(ValueError, match="belongs to train and to test"):
        write_dataset(tmp_path, {"train": train, "test": train}, name="n", source="s", prompts={}, images=None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda e: e.pop("answers"), "keys"),
        (lambda e: e.update(extra=1), "keys"),
        (lambda e: e["answers"].append("red"), "2 different"),
        (lambda e: e["answers"].append("green"), "no image has the answer 'green'"),
        (lambda e: e["answers"].append(3), "list of texts"),
        (lambda e: e["test"].clear(), "list of"),
        (lambda e: e["test"].append(["x"]), "no \\[image, answer\\] pair"),
        (lambda e: e["test"].append(["x", "green"]), "'green' is none"),
        (lambda e: e["test"].append(copy.copy(e["train"][0])), "occurs twice"),
    ],
)
def test_files_not_in_the_published_format_are_named(tmp_path, change, word):
    questions, _ = small_split()
    change(questions["What color is thing 3?"])
    path = tmp_path / "meta_train.json"
    path.write_text(json.dumps(questions), encoding="utf-8")
    with pytest.raises(ValueError, match=f"meta_train.json: question 'What color is thing 3.': .*{word}"):
        read_questions(path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"q": 1, "q": 2}', '{" ": {}}'])
def test_files_that_hold_no_questions(tmp_path, text):
    path = tmp_path / "meta_test.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="meta_test.json"):
        read_questions(path)


# -- tasks that lose examples ------------------------------------------------------------------------------------


def test_tasks_lose_unreadable_images_and_answers_with_them(built):
    tasks = MetaVQA(MetaVQAConfig(str(built), val_tasks=2)).tasks
    task = tasks[0]
    of_red = {i for i, y in zip(*task.examples("all"), strict=True) if task.answers[y] == "red"}
    kept, notes = without_images(tasks[:1], of_red)
    assert kept[0].answers == ("blue", "two words") and not notes
    truth = {i: task.answers[y] for i, y in zip(*task.examples("all"), strict=True)}
    assert {i: kept[0].answers[y] for i, y in zip(*kept[0].examples("all"), strict=True)} == {
        i: a for i, a in truth.items() if i not in of_red
    }
    kept, notes = without_images(tasks[:2], set(task.query[0]))
    assert task.question not in {t.question for t in kept} and task.question in notes[0]
    assert without_images(tasks, set()) == (list(tasks), [])


def without_features(tasks):
    """A TaskSet whose features are a number that tells questions apart."""
    return TaskSet(
        tuple(tasks),
        image_features=torch.zeros(1, 1),
        answer_features=torch.zeros(1, 1),
        question_features=torch.arange(len(tasks))[:, None].float(),
        answer_rows=tuple((0,) * len(task.answers) for task in tasks),
    )


def trained_images(tasks):
    return {i for task in tasks if task.split != "test" for i in task.examples("all")[0]}


def test_image_disjoint_keeps_what_no_training_task_shows(built):
    tasks = MetaVQA(MetaVQAConfig(str(built), val_tasks=2)).tasks
    test = without_features([task for task in tasks if task.split == "test"])
    first, second, third = (set(task.query[0]) for task in test.tasks)
    seen = set(list(first - second)[:2]) | second  # the second loses all
    left = image_disjoint(test, seen)
    assert first - seen and third - seen and left.question_features.flatten().tolist() == [0, 2]
    result = {t.question: t for t in left.tasks}
    for task in test.tasks:
        left = [(i, y) for i, y in zip(*task.query, strict=True) if i not in seen]
        assert (task.question in result) == bool(left)
        if left:
            assert list(zip(*result[task.question].query, strict=True)) == left
            assert result[task.question].support == task.support
