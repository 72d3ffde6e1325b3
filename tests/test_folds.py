"""Five-fold validation of settings on training questions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from core.config import config_hash
from core.data.emoji.dataset import EmojiConfig, EmojiVQA
from core.data.meta_vqa import MetaVQA, MetaVQAConfig
from core.data.tasks import Task
from eval.datasets import folds


def test_every_training_question_is_judged_once_by_a_run_that_did_not_see_it(colours, tmp_path, capsys) -> None:
    argv = ["--preset", "photos", "--data", str(colours), "--folds", "2", "--steps-share", "0.02", "--device", "cpu"]
    argv += ["--work", str(tmp_path / "work"), "--rows", "clip", "uncond_multitask"]
    folds.main([*argv, "--json", str(tmp_path / "r.json")])
    printed = capsys.readouterr().out
    assert "CLIP, bare answers" in printed and "Uncond. Multitask" in printed
    records = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["results"]
    assert {(r["row"], r["tasks"]) for r in records} == {
        (row, tasks) for row in ("clip", "uncond_multitask") for tasks in ("all", "colour")
    }
    for record in records:
        assert record["n_tasks"] == 12 and record["n_pairs"] == 72
        assert record["interval"][0] <= record["mean"] <= record["interval"][1]
    by_fold = []
    for fold in range(2):
        tasks = MetaVQA(MetaVQAConfig(str(colours), folds=2, fold=fold)).tasks
        by_fold.append({task.question for task in tasks if task.split == "val"})
    assert not by_fold[0] & by_fold[1] and len(by_fold[0] | by_fold[1]) == 12


def test_kinds_are_told_by_words() -> None:
    asked = {
        "What color is the room?": "colour",
        "How many animals are there?": "count",
        "What sport is this?": "room, sport, animal, activity",
        "What is on the plate?": "other",
        "What type of transportation is this?": "other",  # no sport
        "?": "other",
    }
    assert {question: folds.kind_of(question) for question in asked} == asked


def test_no_row_is_judged_by_what_chose_it() -> None:
    rows = folds.rows_to_judge(["clip", "hvae_hyperldm", "hvae_hyperclip"])
    assert [(row.id, row.gamma) for row in rows] == [
        ("clip", None),
        ("hvae_hyperclip", None),
        ("hvae_hyperldm", 1.0),
        ("hvae_hyperldm", 1.5),
    ]


def test_folds_are_pooled_over_their_pairs() -> None:
    tasks = [
        Task("What sport is this?", ("a", "b"), ((0, 1), (0, 1)), ((2,), (0,)), "val"),
        Task("What color is it?", ("a", "b"), ((0,), (0,)), ((), ()), "val"),
    ]
    right = {"x": torch.tensor([True, False, True, False])}  # three pairs of the first, one of the second
    found = {r["tasks"]: r for r in folds.judge(tasks, right, {"x": {"row": "x", "label": "x", "gamma": None}}, 3)}
    assert {name: (r["mean"], r["n_pairs"]) for name, r in found.items()} == {
        "all": (0.5, 4),
        "room, sport, animal, activity": (0.6667, 3),
        "colour": (0.0, 1),
    }
    assert all(record["seeds"] == [3] for record in found.values())


def test_folds_where_every_question_counts_the_same() -> None:
    tasks = [
        Task("What sport is this?", ("a", "b"), ((0, 1), (0, 1)), ((2,), (0,)), "val"),
        Task("What room is it?", ("a", "b"), ((0,), (0,)), ((), ()), "val"),
    ]
    right = {"x": torch.tensor([True, False, True, False])}
    heads = {"x": {"row": "x", "label": "x", "gamma": None}}
    found = folds.judge(tasks, right, heads, 3, pooled=False)
    (record,) = found  # kinds are of Meta-VQA's words
    assert record["mean"] == pytest.approx((2 / 3 + 0) / 2, abs=1e-4) and record["n_tasks"] == 2
    assert record["interval"] == [0.0, 0.6667] and "vs_without" not in record


@pytest.mark.parametrize("pooled", [True, False])
def test_settings_tried_beside_others_are_paired_with_them(pooled) -> None:
    task = Task("What sport is this?", ("a", "b"), ((0, 1), (0, 1)), ((2,), (0,)), "val")
    right = {"x": torch.tensor([True, False, False] * 4), "x; lr=1": torch.tensor([True, True, False] * 4)}
    heads = {"x": {"row": "x", "label": "x"}, "x; lr=1": {"row": "x", "label": "x; lr=1", "against": "x"}}
    found = {r["label"]: r for r in folds.judge([task] * 4, right, heads, 0, pooled) if r["tasks"] == "all"}
    mean, low, high = found["x; lr=1"]["vs_without"]
    assert mean == pytest.approx(1 / 3, abs=1e-4) and low <= mean <= high and "vs_without" not in found["x"]
    if not pooled:  # every question gains the same
        assert low == high == mean
    assert "against" not in found["x; lr=1"] and "+33.33 [" in folds.cell(found["x; lr=1"])


def test_folds_of_the_embedded_dataset(tmp_path, capsys) -> None:
    """They part the training questions, and change neither the order of tasks nor what images depend on."""
    small = EmojiConfig(train_tasks=12, val_tasks=3, test_known_tasks=4, test_new_tasks=2)
    plain, parts = EmojiVQA(small), [EmojiVQA(replace(small, folds=3, fold=fold)) for fold in range(3)]
    val = [[task.question for task in part.tasks if task.split == "val"] for part in parts]
    train = [task.question for task in plain.tasks if task.split != "test"]
    assert sorted(question for fold in val for question in fold) == sorted(train)
    for part in parts:
        assert part.identity == plain.identity
        assert [replace(task, split="") for task in part.tasks] == [replace(task, split="") for task in plain.tasks]
    assert config_hash(small) == config_hash(replace(small, folds=0)) != config_hash(parts[0].config)
    for impossible, message in ((1, "folds 1; allowed: 0"), (13, "folds 13; allowed: up to 12")):
        with pytest.raises(ValueError, match=message):
            replace(small, folds=impossible)
    argv = ["--preset", "tiny", "--folds", "2", "--device", "cpu", "--rows", "uncond_multitask"]
    argv += ["--also", "multitask.uncond_multitask.steps=2"]
    folds.main([*argv, "--first", "1", "--work", str(tmp_path / "work"), "--json", str(tmp_path / "r.json")])
    assert "over the first 1 of 2 folds" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["results"][0]["n_tasks"] == 36
    folds.main([*argv, "--work", str(tmp_path / "work"), "--json", str(tmp_path / "r.json")])
    assert "Uncond. Multitask; multitask.uncond_multitask.steps=2" in capsys.readouterr().out
    plain, also = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["results"]
    assert plain["n_tasks"] == also["n_tasks"] == 72 and plain["tasks"] == also["tasks"] == "all"
    assert also["vs_without"][0] == pytest.approx(also["mean"] - plain["mean"], abs=2e-4)


def test_one_fold_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        folds.main(["--folds", "1"])
    assert "--folds 1; allowed: 2 or more" in capsys.readouterr().err
    for first in (0, 6):
        with pytest.raises(SystemExit):
            folds.main(["--first", str(first)])
        assert f"--first {first}; allowed: 1 to 5" in capsys.readouterr().err


def test_settings_tried_leave_the_dataset_as_it_is(capsys) -> None:
    with pytest.raises(SystemExit):
        folds.main(["--also", "dataset.seed=3"])
    assert "the same questions" in capsys.readouterr().err
