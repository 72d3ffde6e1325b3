"""What a start is worth (`eval/datasets/start.py`): the divisions, their datasets, the numbers."""

from __future__ import annotations

import json

import pytest
import torch

from core.data.built import image_names, read_dataset
from core.data.meta_vqa import MetaVQA, MetaVQAConfig
from core.release.default import located
from core.tensors import load_tensors
from eval.datasets import start

SOURCE = located("weights/photos") / "data"
QUESTIONS = start.taking_part(read_dataset(SOURCE)[1]["test"])


def rows_of(directory):
    names = image_names(read_dataset(directory)[1].values())
    rows = load_tensors(directory / "features" / "images-00000.safetensors", "features")["features"]
    assert len(names) == len(rows)
    return dict(zip(names, rows, strict=True))


def test_divisions_share_no_question_and_differ():
    first, second = (start.divided(QUESTIONS, division) for division in (0, 1))
    assert {split: len(part) for split, part in first.items()} == {"train": 12, "val": 4, "test": len(QUESTIONS) - 16}
    assert sorted(q for part in first.values() for q in part) == list(QUESTIONS) and first["test"] != second["test"]
    assert start.divided(QUESTIONS, 0) == first
    assert not any(entry["train"] for entry in first["test"].values())  # all pairs of a held-out question are judged


def test_a_division_is_a_dataset_with_the_features_of_its_pictures(tmp_path):
    splits = start.divided(QUESTIONS, 0)
    start.build(SOURCE, tmp_path, splits)
    tasks = MetaVQA(MetaVQAConfig(str(tmp_path), val_tasks=0)).tasks
    assert {split: [t.question for t in tasks if t.split == split] for split in splits} == {
        split: list(part) for split, part in splits.items()
    }
    every, own = rows_of(SOURCE), rows_of(tmp_path)
    assert all(row.equal(every[name]) for name, row in own.items()) and len(own) < len(every)


def test_a_pair_counts_once_with_the_mean_of_its_divisions():
    question, times = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([2.0, 2.0, 1.0, 1.0, 0.0])
    counts = {
        (start.NOTHING, "uncond_multitask"): (torch.tensor([2.0, 1.0, 0.0, 1.0, 0.0]), times),
        (start.AS_IT_IS, "uncond_multitask"): (torch.tensor([2.0, 2.0, 1.0, 1.0, 0.0]), times),
    }
    nothing, as_it_is = start.records_of(counts, question, seed=3)
    assert (nothing["mean"], as_it_is["mean"]) == (0.625, 1.0)
    assert (nothing["n_pairs"], nothing["n_tasks"], nothing["seeds"]) == (
        4,
        2,
        [3],
    )  # none of a question never held out
    assert "vs_nothing" not in nothing and as_it_is["vs_nothing"][0] == 0.375


def test_rows_are_trained_judged_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(start, "ALL_STEPS", 0.01)
    flags = ["--divisions", "1", "--shares", "0.002", "--device", "cpu", "--work", str(tmp_path / "work")]
    start.main([*flags, "--json", str(tmp_path / "start.json")])
    records = json.loads((tmp_path / "start.json").read_text(encoding="utf-8"))["results"]
    settings = [start.NOTHING, "--steps-share 0.002", start.AS_IT_IS]
    rows = ["uncond_multitask", "cond_multitask", "hvae_hyperldm"]
    assert [(r["setting"], r["row"]) for r in records] == [(setting, row) for setting in settings for row in rows]
    assert all(0 < r["mean"] < 1 and r["n_tasks"] == len(QUESTIONS) - 16 for r in records)
    assert "begins from" in (said := capsys.readouterr().out) and f"over training {start.NOTHING}" in said


@pytest.mark.parametrize(
    "flags, message",
    [(["--divisions", "0"], "--divisions 0; allowed: 1 or more"), (["--shares", "1.5"], "--shares 1.5; allowed: more")],
)
def test_numbers_that_mean_nothing_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit):
        start.main(flags)
    assert message in capsys.readouterr().err
