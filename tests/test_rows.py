"""Rows that are made of others: ensembles by probability, and samples that HyperCLIP's gradient guides."""

import dataclasses
import json

import pytest
import torch

from core.generator import AdapterGenerator
from core.methods import ALONE, GUIDED
from core.networks.base import right_answers
from eval import table1
from eval.harness.rows import ROWS, answered, available, cosines_of, scores_of, weights_of
from tests.conftest import random_batch
from train.choices.options import denoiser_steps, gradient_options
from train.pipeline import graph
from train.presets import get_preset

ENSEMBLES = [row for row in ROWS if row.members]
GRADIENT = [row for row in ROWS if row.guided]


@pytest.fixture(scope="module")
def release(tiny):
    return AdapterGenerator.from_pretrained(tiny / "seed-0" / "weights")


@pytest.fixture(scope="module")
def batch(release):
    asked = [known["question"] for known in release.known_questions[:5]]
    return dataclasses.replace(random_batch(T=5, D=256), question=release.embed_questions(asked))


@pytest.mark.parametrize("row", ENSEMBLES, ids=lambda row: row.id)
def test_an_ensemble_averages_probabilities_each_at_its_own_scale(release, batch, row):
    ((_, scores),) = scores_of(row, release, batch, batch)
    expected = torch.zeros_like(scores)
    for member in row.members:
        ((_, cosines),) = cosines_of(member, release, batch, batch)
        assert release.scale(member.id) != release.network.scale  # calibrated
        expected += (release.scale(member.id) * cosines).softmax(-1) / len(row.members)
    torch.testing.assert_close(scores.exp(), expected)
    assert answered(row, release, batch, batch).equal(right_answers(expected, batch))


def test_an_ensemble_of_one_is_its_member(release, batch):
    row = next(row for row in ROWS if row.id == "cond_multitask")
    alone = dataclasses.replace(ENSEMBLES[0], members=(row,))
    assert answered(alone, release, batch, batch).equal(answered(row, release, batch, batch))


def test_an_ensemble_needs_all_of_its_members(release):
    for row in (*ENSEMBLES, *GRADIENT):
        assert available(row, release)
    held = lambda *lost: type("Part", (), {"config": release.config, "has": lambda self, m, g="hvae": m not in lost})()
    assert not available(ENSEMBLES[0], held("cond_multitask_film")) and available(ENSEMBLES[1], held("cond_multitask"))
    assert not any(available(row, held("hyperclip")) for row in GRADIENT)


@pytest.mark.parametrize("row", GRADIENT, ids=lambda row: row.guided)
def test_the_gradient_is_as_strong_as_validation_chose(release, batch, row):
    choice = release.choice(row.guided)
    assert (choice["gamma"] == 0) == (row.guided == ALONE)
    options = {(o["gamma"], o["gradient_scale"]) for o in choice["tried"]}
    assert {scale for _, scale in options} == set(get_preset("tiny").sampling.gradient_scales)
    assert choice["val_accuracy"] == max(option["val_accuracy"] for option in choice["tried"])
    ((_, w),) = weights_of(row, release, batch, batch, seed=2)
    how = {name: choice[name] for name in ("gamma", "steps", "samples")}
    plain = release.weights(batch.question, seed=2, **how)
    assert not torch.allclose(w, plain)
    how["gradient_scale"] = choice["gradient_scale"]
    torch.testing.assert_close(w, release.weights(batch.question, seed=2, **how))
    assert release.scale(GUIDED) != release.network.scale


def test_a_gradient_counts_as_two_steps_more():
    sampling = get_preset("tiny").sampling
    for option in (*gradient_options(sampling, 0.0), *gradient_options(sampling, 1.5)):
        plain = {name: value for name, value in option.items() if name != "gradient_scale"}
        assert denoiser_steps(option) == 3 * denoiser_steps(plain)


def test_the_stages_of_a_guided_row():
    stages = graph.build(get_preset("tiny"))
    assert {"hvae_hyperldm", "hvae_hyperclip", "latents_hvae"} <= set(graph.stages_of([GUIDED], stages))


def test_they_are_rows_of_table_1(tiny, tmp_path):
    file = tmp_path / "t.json"
    table1.main(["--preset", "tiny", "--work", str(tiny), "--device", "cpu", "--json", str(file), "--limit-tasks", "6"])
    found = {(r["row"], r["gamma"]) for r in json.loads(file.read_text(encoding="utf-8"))["results"]}
    assert {row.id for row in ROWS if not row.few_shot} <= {row for row, _ in found}
    assert (GUIDED, 0.0) in found and len([row for row in found if row[0] == GUIDED]) == 2
