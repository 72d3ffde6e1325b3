"""Accuracy pooled over pairs: Table 1, kinds of question, floors and few-shot rows where test tasks have no support."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
import torch

from core.data.emoji.dataset import EmojiConfig, EmojiVQA
from core.data.meta_vqa import MetaVQA, MetaVQAConfig
from core.data.task_sets import trained_images
from core.data.tasks import Task
from core.generator import AdapterGenerator
from core.networks.base import accuracies
from core.release.manifest import list_anew
from eval import calibration, links, sanity, table1, table4, task_inference
from eval.datasets import floors, photo_few_shot, photo_kinds, photo_links
from eval.harness.comparison.answers import read_answers
from eval.harness.metrics import PooledPairs
from eval.harness.parts import photos, validation
from eval.harness.rows import FEW_SHOT, ROWS, chosen_few_shot
from eval.harness.tables import pooled_sets, question_of_pairs
from tests.conftest import ROOT, random_batch
from train.adaptations import query_weights
from train.pipeline.graph import build, identities
from train.pipeline.run import Run
from train.presets import get_preset


class FewPairs(EmojiVQA):
    """Emoji-VQA with test tasks of 2 to 13 pairs, all of them query, whose first picture a training task shows."""

    def __init__(self, config):
        super().__init__(config)
        shown = [task.support[0][0] for task in self.tasks if task.split == "train"]
        number = 0
        for i, task in enumerate(self.tasks):
            if task.split == "test":
                count = 2 + number % 12
                images, labels = (part[::2][:count] for part in task.query)
                images = (shown[number], *images[1:])
                self.tasks[i] = replace(task, support=((), ()), query=(images, labels))
                number += 1


def pooled_release(tiny, directory, seed=0):
    """The tiny release, with a preset that pools."""
    shutil.copytree(tiny / "seed-0" / "weights", directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config |= {"seed": seed, "run": {"preset": "tiny", "data": None, "set": ["pooled=true"]}}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    list_anew(directory)
    return directory


@pytest.fixture
def flags(tiny, tmp_path, monkeypatch):
    """Of a script that evaluates a pooled release on the few pairs."""
    monkeypatch.setattr(EmojiConfig, "open", lambda self: FewPairs(self))
    release = pooled_release(tiny, tmp_path / "release")
    return ["--weights", str(release), "--work", str(tiny), "--device", "cpu", "--json", str(tmp_path / "r.json")]


@pytest.fixture
def judged():
    return [task for task in FewPairs(get_preset("tiny").dataset).tasks if task.split == "test"]


def read(tmp_path):
    document = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert {"command", "commit", "versions", "preset", "results"} == set(document) - {"bins"} and document[
        "preset"
    ] == "tiny"
    return document["results"]


@pytest.fixture
def part(monkeypatch, tmp_path):
    """The lines of a part of the document, made of the file that a script has just written."""

    def lines(make):
        for module in (photos, validation):
            monkeypatch.setattr(
                module, "read_results", lambda name: json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
            )
        return make().splitlines()

    return lines


def make_run(tiny):
    return Run(replace(get_preset("tiny"), pooled=True), 0, tiny / "seed-0" / "weights", tiny, torch.device("cpu"))


# -- the setting -------------------------------------------------------------------------------------------------------


def test_a_run_weights_tasks_by_their_pairs(tmp_path):
    batch = random_batch(T=6)
    for pooled in (False, True):
        preset = replace(get_preset("tiny"), pooled=pooled)
        run = Run(preset, 0, tmp_path, tmp_path, torch.device("cpu"))
        vars(run)["network"] = network = preset.base_network(16)
        by_task = accuracies(network, None, batch).tolist()
        count = batch.example_mask.sum(1).tolist()
        assert len(set(count)) > 1
        weight = count if pooled else [1] * 6
        expected = sum(a * n for a, n in zip(by_task, weight, strict=True)) / sum(weight)
        assert run.accuracy(None, batch) == pytest.approx(expected)


def test_what_draws_tasks_and_what_judges_them_depends_on_it(tiny):
    run = make_run(tiny)
    before, after = (identities(run, build(replace(run.preset, pooled=pooled))) for pooled in (False, True))
    changed = {name for name in before if before[name] != after[name]}
    assert {"mnet_maml", "cond_multitask", "hvae", "hvae_hyperldm", "choose"} <= changed
    assert not changed & {"features", "backbone"}


def test_a_run_draws_tasks_by_their_pairs(tiny):
    run, even = make_run(tiny), make_run(tiny).changed(preset=get_preset("tiny"))
    count = torch.tensor([float(1 + i % 4) for i in range(len(run.train))])
    vars(run)["task_weights"] = count
    rows = torch.arange(8)
    drawn = run.draw_tasks(20_000, torch.Generator().manual_seed(0), rows)
    share = drawn.bincount(minlength=8) / 20_000
    torch.testing.assert_close(share, count[:8] / count[:8].sum(), atol=0.01, rtol=0.0)
    assert run.val_judged.example_mask.sum() == sum(len(task.examples("all")[0]) for task in run.val.tasks)
    assert even.val_judged is even.val_query and even.task_weights.unique().tolist() == [1.0]


@pytest.mark.parametrize("pooled", [False, True])
def test_adaptations_are_judged_by_held_out_pairs(tiny, pooled):
    """A task of one pair has none held out, and counts for nothing."""
    run = make_run(tiny).changed(preset=replace(get_preset("tiny"), pooled=pooled))
    batch = random_batch(T=6)
    count = torch.tensor([1, 2, 3, 5, 5, 10])
    mask = torch.arange(10) < count[:, None]
    vars(run)["train_batch"] = replace(batch, example_mask=mask)
    config = replace(run.preset.adaptations["hvae"], support_fraction=0.8)
    held_out = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    expected = held_out if pooled else held_out.clamp(max=1.0)
    torch.testing.assert_close(query_weights(run, config), expected / expected.sum())


# -- tables ------------------------------------------------------------------------------------------------------------


def test_table1(flags, tiny, judged, part, tmp_path, capsys):
    table1.main([*flags, "--per-task", str(tmp_path / "t"), "--csv", str(tmp_path / "t.csv")])
    out = capsys.readouterr().out
    assert "left out: few_shot_mnet_maml, few_shot_ceiling, few_shot_hvae; test tasks have no support" in out
    assert "missing" not in out and "closed" not in out
    assert "[95% interval: questions resampled, then pairs within questions]" in out
    records = {(r["row"], r["gamma"], r["tasks"]): r for r in read(tmp_path)}
    assert {name for _, _, name in records} == {"all", "image_disjoint"}
    counts = [len(task.query[0]) for task in judged]
    assert len(set(counts)) > 5

    run = make_run(tiny)
    test, generator = run.task_set("test"), AdapterGenerator.from_pretrained(tiny / "seed-0" / "weights")
    for row in ("clip", "uncond_multitask", "cond_multitask"):
        right = []
        w = generator.weights(test.question_features, row)
        for i in range(len(test)):  # one by one
            query = test.batch([i], "query")
            logits = generator.network.logits(None if w is None else w[i : i + 1], query)[0]
            right.append((logits.argmax(-1) == query.labels[0]).tolist())
        found = records[row, None, "all"], records[row, None, "image_disjoint"]
        assert found[0]["mean"] == pytest.approx(sum(map(sum, right)) / sum(counts), abs=1e-4)
        own = [value for values in right for value in values[1:]]  # the first picture is one of training
        assert found[1]["mean"] == pytest.approx(sum(own) / len(own), abs=1e-4)
        assert [r["n_pairs"] for r in found] == [sum(counts), len(own)]
        assert [r["n_tasks"] for r in found] == [len(counts), len(counts)]
        for record in found:
            assert record["interval"][0] <= record["mean"] <= record["interval"][1]
    assert "vs_uncond_multitask" not in records["uncond_multitask", None, "all"]
    mean, low, high = records["cond_multitask", None, "all"]["vs_uncond_multitask"]
    difference = records["cond_multitask", None, "all"]["mean"] - records["uncond_multitask", None, "all"]["mean"]
    assert mean == pytest.approx(difference, abs=2e-4) and low <= mean <= high
    assert {"vs_uncond_multitask", "vs_cond_multitask"} <= records["clip", None, "image_disjoint"].keys()

    table = pd.read_csv(tmp_path / "t.csv", index_col=0)
    assert table.columns.tolist() == [
        f"all ({sum(counts)} pairs)",
        "vs Uncond. Multitask [95%]",
        "vs Cond. Multitask [95%]",
        "vs strongest [95%]",
        "paper",
        f"image_disjoint ({sum(counts) - len(counts)} pairs)",
    ]
    head, _, clip, *rest = part(photos.photo_table1)
    assert head.split(" | ")[:3] == ["| row", f"all ({sum(counts)} pairs)", f"image-disjoint ({len(own)} pairs)"]
    low, high = (f"{100 * end:.1f}" for end in records["clip", None, "all"]["interval"])
    assert clip.startswith("| CLIP, bare answers | ") and f"[{low}, {high}] |" in clip and clip.endswith("| 45.0 |")
    about = " ".join(rest)
    assert "training seed 0; 95% intervals: 10,000 draws of questions" in about and "nothing of other seeds" in about
    asked, lines = read_answers(tmp_path / "t")
    (line,) = [line for line in lines if line.row == "cond_multitask"]
    assert asked.examples.tolist() == counts and asked.own.logical_not().sum() == len(counts)
    pooled = float(line.right.double().mean())
    assert pooled == pytest.approx(records["cond_multitask", None, "all"]["mean"], abs=1e-4)


def test_validation_tasks_are_judged_on_all_their_examples(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(EmojiConfig, "open", lambda self: EmojiVQA(self))  # whose tasks have support sets
    table1.main([*flags, "--validation", "--limit-tasks", "3"])
    assert not any(r["row"].startswith("few_shot") for r in read(tmp_path))  # their support is among what is judged
    assert "few_shot_ceiling, few_shot_hvae; validation tasks have no support" in capsys.readouterr().out
    monkeypatch.setattr(EmojiConfig, "open", lambda self: FewPairs(self))
    table1.main([*flags, "--validation"])
    every = [task for task in FewPairs(get_preset("tiny").dataset).tasks if task.split == "val"]
    examples = sum(len(task.examples("all")[0]) for task in every)
    assert examples > sum(len(task.query[0]) for task in every)
    assert {(r["tasks"], r["n_tasks"], r["n_pairs"]) for r in read(tmp_path)} == {("all", len(every), examples)}


def test_table1_of_two_seeds_and_fewer_tasks(flags, tiny, part, tmp_path):
    other = pooled_release(tiny, tmp_path / "other", seed=1)
    table1.main([flags[0], str(other), *flags[1:], "--limit-tasks", "5", "--baselines-only"])
    record = read(tmp_path)[0]
    assert record["seeds"] == [1, 0] and record["sd"] == 0 and record["n_tasks"] == 5
    lines = part(photos.photo_table1)
    about = " ".join(lines)
    assert "training seeds 0, 1, ± their standard deviation" in about and "and, crossed, of training seeds" in about


@pytest.mark.parametrize(
    "script, more, message",
    [
        (table1, ["--image-disjoint"], "has these pairs in a column"),
        (table4, [], "photo_few_shot.py"),
        (photo_few_shot, ["--least-pairs", "4"], "allowed: 5 or more"),
        (photo_few_shot, ["--least-pairs", "99"], "no test question has so many"),
        (photo_kinds, [], "'What sport is this.' is none of the test questions"),
    ],
)
def test_what_cannot_be_judged_is_said(flags, script, more, message, capsys):
    with pytest.raises(SystemExit):
        script.main([*flags, *more])
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    "script, message",
    [
        (links, "1 val tasks of tiny have no query set"),
        (task_inference, r"\d+ test tasks of tiny have no support set, '.*' for one"),
        (sanity, "1 val tasks of tiny have no query set, '.*' for one"),
    ],
)
def test_what_needs_sets_says_which_are_missing(flags, monkeypatch, script, message, capsys):
    class OneMore(FewPairs):  # a validation task whose few pairs are all support
        def __init__(self, config):
            super().__init__(config)
            i = next(i for i, task in enumerate(self.tasks) if task.split == "val")
            self.tasks[i] = replace(self.tasks[i], query=((), ()))

    monkeypatch.setattr(EmojiConfig, "open", lambda self: OneMore(self))
    with pytest.raises(SystemExit):
        script.main(flags)
    assert re.search(message, capsys.readouterr().err)


def test_sanity_of_means_over_tasks(flags, tmp_path, capsys):
    sanity.main(flags)
    assert "each task weighing the same" in capsys.readouterr().out
    assert {"chance", "kernel_ridge", "hvae_hyperldm"} <= {r["row"] for r in read(tmp_path)}


def test_calibration_has_the_accuracy_of_table1(flags, tmp_path, capsys):
    calibration.main(flags)
    assert "each pair of picture and question weighing the same" in capsys.readouterr().out
    found = {r["label"]: r["accuracy"] for r in read(tmp_path) if (r["tasks"], r["when"]) == ("all", "before")}
    table1.main(flags)
    pooled = {r["label"]: r["mean"] for r in read(tmp_path) if r["tasks"] == "all"}
    ensembles = {row.label for row in ROWS if row.members}  # these have no scale of their own
    assert pooled.keys() - found.keys() == ensembles & pooled.keys()
    assert found == pytest.approx({label: pooled[label] for label in found}, abs=2e-4)


def test_table4_of_pairs_has_no_column_of_table1(flags, tmp_path, monkeypatch):
    monkeypatch.undo()  # the tasks as they are, with support sets
    table4.main([*flags, "--limit-tasks", "5", "--csv", str(tmp_path / "t.csv")])
    first, *others = pd.read_csv(tmp_path / "t.csv", index_col=0).columns
    assert first.startswith("all (") and others == ["paper"]


# -- floors ------------------------------------------------------------------------------------------------------------


def make_task(question, answers, labels, split="test", images=None):
    examples = (tuple(images or range(len(labels))), tuple(labels))
    empty = ((), ())
    return Task(question, answers, *((empty, examples) if split == "test" else (examples, empty)), split)


def test_floors_on_a_known_case():
    colours, train = ("red", "blue", "green"), "train"
    tasks = [
        make_task("a", colours, [0, 0, 1], train),
        make_task("b", ("blue", "pink"), [0, 0, 1], train),
        make_task("c", ("cat", "dog"), [0, 0, 0], train),
        make_task("x", colours, [1, 1, 0, 2], images=[0, 1, 8, 9]),
        make_task("y", ("dog", "cow"), [0, 1], images=[8, 9]),
    ]
    meaning = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    found = {(r["row"], r["tasks"]): r for r in floors.evaluate(tasks, meaning)}
    assert {r["n_pairs"] for r in found.values() if r["tasks"] == "all"} == {6}
    assert found["chance", "all"]["mean"] == pytest.approx((4 / 3 + 1) / 6, abs=1e-4)
    assert found["commonest_answer", "all"]["mean"] == pytest.approx((2 + 1) / 6, abs=1e-4)
    # Of x: red 2 * 0.8, blue 0.8 + 2 * 0.96, so blue. Of y no training question says anything: both share.
    assert found["nearest_answer_prior", "all"]["mean"] == pytest.approx((2 + 1) / 6, abs=1e-4)
    assert found["nearest_answer_prior", "image_disjoint"]["mean"] == pytest.approx((0 + 1) / 4, abs=1e-4)
    assert all(r["seeds"] == [] and r["sd"] is None for r in found.values())
    nearest = floors.nearest_answer_prior(tasks[3:4], tasks[:3], meaning[3:4] @ meaning[:3].mT, k=1)
    assert nearest == [[1, 1, 0, 0]]  # b, at 0.96, and so blue


def test_floors_of_a_release(flags, judged, part, tmp_path, capsys):
    floors.main(flags)
    assert "nobody may know" in capsys.readouterr().out
    records = {r["row"]: r for r in read(tmp_path) if r["tasks"] == "all"}
    assert set(records) == set(floors.LABELS)
    total = sum(len(task.query[1]) for task in judged)
    chance = sum(len(task.query[1]) / len(task.answers) for task in judged) / total
    commonest = sum(max(Counter(task.query[1]).values()) for task in judged) / total
    assert records["chance"]["mean"] == pytest.approx(chance, abs=1e-4)
    assert records["commonest_answer"]["mean"] == pytest.approx(commonest, abs=1e-4)
    lines = part(photos.photo_floors)
    assert lines[0].startswith("| without a picture | all (") and f"| {100 * chance:.1f} [" in lines[2]


def test_validation_tasks_show_pictures_of_training():
    tasks = [make_task("x", ("a", "b"), [0, 1], split, [i, i + 1]) for i, split in enumerate(("train", "val", "test"))]
    assert trained_images(tasks) == {0, 1, 2}


def test_pairs_of_tasks_without_any():
    tasks = [make_task("x", ("a", "b"), labels) for labels in ([0], [], [1, 0])]
    assert question_of_pairs(tasks).tolist() == [0, 2, 2]
    assert set(pooled_sets(tasks, {5})) == {"all"} and set(pooled_sets(tasks, {1})) == {"all", "image_disjoint"}
    assert set(pooled_sets(tasks, {0, 1})) == {"all"}


# -- kinds of question -------------------------------------------------------------------------------------------------


def test_kinds(flags, judged, part, tmp_path, capsys):
    chosen = judged[:5]
    names = [json.dumps(task.question) for task in chosen]
    kinds = tmp_path / "kinds.toml"
    kinds.write_text(f"[kinds]\nfew = [{', '.join(names[:3])}]\nmany = [{', '.join(names[3:])}]\n", encoding="utf-8")
    photo_kinds.main([*flags, "--kinds", str(kinds)])
    assert "on average" in capsys.readouterr().out
    records = read(tmp_path)
    assert {r["row"] for r in records} == {
        "clip",
        "uncond_multitask",
        "cond_multitask",
        "hvae_hyperldm",
        "commonest_answer",
    }
    for row in ("clip", "commonest_answer"):
        found = {(r["kind"], r["question"], r["average"]): r for r in records if r["row"] == row}
        assert len(found) == 5 + 2 * 2
        for kind, tasks in (("few", chosen[:3]), ("many", chosen[3:])):
            own = [found[kind, task.question, "pairs"] for task in tasks]
            assert [r["n_pairs"] for r in own] == [len(task.query[0]) for task in tasks]
            mean = sum(r["mean"] for r in own) / len(own)
            pooled = sum(r["mean"] * r["n_pairs"] for r in own) / sum(r["n_pairs"] for r in own)
            assert found[kind, None, "questions"]["mean"] == pytest.approx(mean, abs=2e-4)
            assert found[kind, None, "pairs"]["mean"] == pytest.approx(pooled, abs=2e-4)
    best = {r["question"]: r["mean"] for r in records if r["row"] == "commonest_answer" and r["question"]}
    for task in chosen:
        expected = max(Counter(task.query[1]).values()) / len(task.query[1])
        assert best[task.question] == pytest.approx(expected, abs=1e-4)

    lines = part(photos.photo_kinds)
    pairs = sum(len(task.query[0]) for task in chosen[:3])
    assert lines[2].startswith(f"| few (3 questions, {pairs} pairs), on average over its questions | ")
    (own,) = [line for line in lines if line.startswith(f"| {chosen[4].question} ({len(chosen[4].query[0])}) | ")]
    assert own.endswith(f"| {100 * best[chosen[4].question]:.1f} |")


def test_the_list_of_kinds():
    kinds = photo_kinds.read_kinds(photo_kinds.KINDS)
    assert {kind: len(questions) for kind, questions in kinds.items()} == {
        "room, sport, animal, activity": 6,
        "colour": 9,
        "count": 5,
        "other": 9,
    }
    assert all(question.startswith("What color") for question in kinds["colour"])
    assert all(question.startswith("How many") for question in kinds["count"])


@pytest.mark.skipif(not (ROOT / "weights/photos/data/dataset.json").is_file(), reason="no data of `photos`")
def test_the_list_of_kinds_is_whole():
    """It has each test question with at least ten pairs, and no other."""
    kinds = photo_kinds.read_kinds(photo_kinds.KINDS)
    tasks = MetaVQA(MetaVQAConfig(str(ROOT / "weights/photos/data"), val_tasks=1)).tasks
    assert sorted(text for asked in kinds.values() for text in asked) == sorted(photo_kinds.frequent(tasks))


@pytest.mark.parametrize(
    "text, message",
    [
        ("kinds = 3", "allowed: lists of questions by kind"),
        ("[kinds]\na = []", "allowed: lists"),
        ("[kinds]\na = ['x']\nb = ['x']", "'x' stands there twice"),
        ("[kinds", "kinds.toml: "),
    ],
)
def test_files_that_are_no_list_of_kinds(tmp_path, text, message):
    (tmp_path / "kinds.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        photo_kinds.read_kinds(tmp_path / "kinds.toml")


# -- few-shot ----------------------------------------------------------------------------------------------------------


def test_folds_are_even_and_random():
    mask = torch.arange(14) < torch.tensor([[14], [10], [7]])
    fold = photo_few_shot.folds(mask)
    assert fold.equal(photo_few_shot.folds(mask)) and not fold.equal(photo_few_shot.folds(mask, seed=1))
    assert (fold >= 0).equal(mask)
    for row, sizes in zip(fold, ([3, 3, 3, 3, 2], [2, 2, 2, 2, 2], [2, 2, 1, 1, 1]), strict=True):
        assert torch.bincount(row[row >= 0]).tolist() == sizes


def test_few_shot(flags, tiny, judged, part, tmp_path, capsys, monkeypatch):
    told = []

    def weights(generator, support, row, seed=0):
        told.append(support)
        return chosen_few_shot(generator, support, row, seed)

    monkeypatch.setattr("eval.harness.rows.chosen_few_shot", weights)
    photo_few_shot.main(flags)
    assert "few-shot" in capsys.readouterr().out
    records = {(r["row"], r["few_shot"]): r for r in read(tmp_path)}
    chosen = [i for i, task in enumerate(judged) if len(task.query[0]) >= 10]
    assert {row for row, few_shot in records if few_shot} == {row.id for row in FEW_SHOT}
    assert {row for row, few_shot in records if not few_shot} == {row.id for row in photo_kinds.ZERO_SHOT}
    pairs = sum(len(judged[i].query[0]) for i in chosen)
    assert {(r["n_tasks"], r["n_pairs"]) for r in records.values()} == {(len(chosen), pairs)}

    run = make_run(tiny)
    test, generator = run.task_set("test"), AdapterGenerator.from_pretrained(tiny / "seed-0" / "weights")
    batch = test.batch(chosen, "all")
    fold, right = photo_few_shot.folds(batch.example_mask), 0
    for i in range(len(chosen)):  # one task and fold at a time
        for held_out in range(5):
            own = batch[i : i + 1]
            w = chosen_few_shot(generator, own.with_mask(fold[i : i + 1] != held_out).trimmed(), "cond_multitask")
            query = own.with_mask(fold[i : i + 1] == held_out).trimmed()
            right += int(((generator.network.logits(w, query).argmax(-1) == query.labels) & query.example_mask).sum())
    reached = records["few_shot_cond_multitask", True]["mean"]
    assert reached == pytest.approx(right / pairs, abs=1.5 / pairs)  # a picture may lie on the edge of two answers
    assert records["few_shot_cond_multitask", True]["vs_uncond_multitask"][0] == pytest.approx(
        reached - records["uncond_multitask", False]["mean"], abs=2e-4
    )
    # Five calls a row, each without a fifth of the pairs; together every pair is left out once.
    first = told[:5]
    assert sum(int(support.example_mask.sum()) for support in first) == 4 * pairs
    lines = part(photos.photo_few_shot)
    assert lines[0].startswith(f"|  | row | accuracy ({pairs:,} pairs) | against")
    assert lines[2].startswith("| zero-shot | CLIP, bare answers | ") and len(lines) > 2 + len(records)


def test_links(flags, tiny, judged, part, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(photo_links, "CHUNK", 7)  # so that the last chunk is smaller than the others
    photo_links.main(flags)
    assert "cross-fitted" in capsys.readouterr().out
    records = {(r["row"], r["tasks"]): r for r in read(tmp_path)}
    photo_few_shot.main(flags)
    rows = {(r["row"], r["few_shot"]): r for r in read(tmp_path)}
    for link, row in {  # what both scripts judge is the same
        ("plain CLIP", "test"): ("clip", False),
        ("... encoded and decoded by the HVAE", "test"): ("few_shot_hvae", True),
        ("generated by HyperLDM, chosen gamma", "test"): ("hvae_hyperldm", False),
    }.items():
        assert records[link]["mean"] == pytest.approx(rows[row]["mean"], abs=2 / rows[row]["n_pairs"])
        assert records[link]["n_pairs"] == rows[row]["n_pairs"]
    run, generator = make_run(tiny), AdapterGenerator.from_pretrained(tiny / "seed-0" / "weights")
    query = run.task_set("val").batch(part="query")
    by_task = accuracies(generator.network, None, query)
    pooled = (by_task * query.example_mask.sum(1)).sum() / query.example_mask.sum()
    assert records["plain CLIP", "val"]["mean"] == pytest.approx(float(pooled), abs=1e-3)


def test_sets_by_question_and_by_pair_differ():
    question = torch.tensor([0, 0, 0, 1])
    by_pair, by_question = PooledPairs(question), PooledPairs(question, by_question=True)
    assert by_pair.weight.tolist() == [1, 1, 1, 1]
    assert by_question.weight.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])
