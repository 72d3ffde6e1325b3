"""How often "none of these" is said, and to what."""

from __future__ import annotations

import json

import pytest
import torch

from core.data.tasks import TaskBatch
from core.release.default import shipped_release
from eval.demo import none_of_these
from tests.conftest import random_batch


def test_every_picture_is_paired_once_with_a_question_of_others() -> None:
    batch = random_batch(T=6)
    other = none_of_these.other_pictures(batch, seed=0)
    mask = batch.example_mask
    own, shown = batch.images[mask], other.images[mask]
    assert sorted(map(tuple, own.tolist())) == sorted(map(tuple, shown.tolist()))
    for t in range(len(batch)):
        mine = set(map(tuple, batch.images[t][mask[t]].tolist()))
        assert not mine & set(map(tuple, other.images[t][mask[t]].tolist()))
    again = none_of_these.other_pictures(batch, seed=0).images
    assert torch.equal(other.images, again) and not torch.equal(
        other.images, none_of_these.other_pictures(batch, 1).images
    )


def test_a_question_with_most_of_the_pictures_is_refused() -> None:
    batch = random_batch(T=2)
    few = torch.zeros_like(batch.example_mask)
    few[0], few[1, :1] = batch.example_mask[0], True
    one_sided = TaskBatch(**{**vars(batch), "example_mask": few})
    with pytest.raises(ValueError, match="more than half"):
        none_of_these.other_pictures(one_sided, seed=0)


def test_it_is_said_of_wrong_answers_more_than_of_right_ones(tmp_path, capsys) -> None:
    """The shipped release, on its test questions."""
    weights = shipped_release("photos")
    flags = ["--weights", str(weights), "--work", str(tmp_path / "work"), "--device", "cpu"]
    none_of_these.main([*flags, "--json", str(tmp_path / "r.json")])
    assert "HyperCLIP guidance" in capsys.readouterr().out
    records = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["results"]
    share = {(r["row"], r["answers"]): r["mean"] for r in records}
    for row in ("hvae_hyperldm", "hvae_hyperclip", "cond_multitask"):
        assert 0.0 < share[row, "right"] < share[row, "wrong"] < share[row, "another question's"] < 1.0
    assert sum(r["n_pairs"] for r in records if r["row"] == "cond_multitask") == 2 * 1584
