"""Calibration errors in closed form and against another implementation, and the script on the tiny preset."""

import dataclasses
import json
import math
import shutil

import pytest
import torch

from core.data.tasks import TaskBatch
from core.generator import AdapterGenerator
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.release.manifest import list_anew
from eval import calibration, report, table1
from eval.harness.calibration import (
    Answers,
    answers_of,
    calibration_error,
    pooled,
    reliability,
    scale_of,
    training_scale,
)
from eval.harness.parts import methods
from eval.harness.rows import ROWS, cosines_of
from eval.harness.tables import calibration_table
from tests.conftest import random_batch
from tests.test_pipeline import release

ALL = lambda batch: torch.ones(len(batch), dtype=torch.bool)


def error(confidence, right, weight=None):
    confidence, right = torch.tensor(confidence, dtype=torch.float64), torch.tensor(right, dtype=torch.bool)
    weight = torch.full((len(right),), 1 / len(right)) if weight is None else torch.tensor(weight)
    return calibration_error(reliability(Answers(confidence, right, weight)))


def test_error_in_closed_form():
    assert error([0.8] * 10, [True] * 5 + [False] * 5) == pytest.approx(0.3)
    assert error([0.75] * 4, [True, True, True, False]) == pytest.approx(0.0)
    assert error([1.0, 1.0, 0.5, 0.5], [True, False, True, False]) == pytest.approx(0.25)  # by half in half of them
    assert error([1.0, 0.5], [True, False], [0.9, 0.1]) == pytest.approx(0.05)
    # Errors of opposite sign cancel within a bin, and add up over bins.
    assert error([0.61, 0.65], [True, False]) == pytest.approx(0.13)
    assert error([0.3, 0.9], [True, False]) == pytest.approx((0.7 + 0.9) / 2)


def two_answers(gap, right, examples):
    """A task with two answers, whose cosines differ by `gap` and whose better one is right for `right` examples."""
    labels = (torch.arange(examples) >= right).long()[None]
    images = torch.zeros(1, examples, 2)
    mask = torch.ones(1, examples, dtype=torch.bool)
    batch = TaskBatch(images, labels, mask, torch.zeros(1, 2, 2), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2))
    return batch, torch.tensor([gap, 0.0]).expand(1, examples, 2)


@pytest.mark.parametrize("scale", [1.0, 10.0, math.log(4) / 0.1])
def test_scale_makes_confidence(scale):
    """Two answers, cosines 0.1 apart: confidence is the logistic function of scale times that, 0.8 at the last scale,
    which is how often the answer is right."""
    batch, cosines = two_answers(0.1, right=40, examples=50)
    answers = answers_of([(batch, cosines)], scale, ALL(batch))
    confidence = 1 / (1 + math.exp(-0.1 * scale))
    torch.testing.assert_close(
        answers.confidence, torch.full((50,), confidence, dtype=torch.float64), atol=1e-6, rtol=0
    )
    assert calibration_error(reliability(answers)) == pytest.approx(abs(0.8 - confidence), abs=1e-6)


def by_hand(confidence, right, weight, bins):
    """Expected calibration error with one pass over all answers for every bin."""
    total = 0.0
    for k in range(bins):
        inside = [i for i, c in enumerate(confidence) if k / bins < c <= (k + 1) / bins or (k == 0 and c == 0)]
        if inside:
            share = math.fsum(weight[i] for i in inside)
            accuracy = math.fsum(weight[i] * right[i] for i in inside) / share
            total += share * abs(accuracy - math.fsum(weight[i] * confidence[i] for i in inside) / share)
    return total


@pytest.mark.parametrize("bins", [1, 2, 15, 40])
def test_error_against_another_implementation(bins):
    rng = torch.Generator().manual_seed(bins)
    confidence = torch.rand(3000, generator=rng, dtype=torch.float64)
    right = torch.rand(3000, generator=rng) < confidence.square()
    weight = torch.rand(3000, generator=rng, dtype=torch.float64)
    weight /= weight.sum()
    expected = by_hand(confidence.tolist(), right.tolist(), weight.tolist(), bins)
    found = reliability(Answers(confidence, right, weight), bins)
    assert calibration_error(found) == pytest.approx(expected, abs=1e-12)
    assert float(found.share.sum()) == pytest.approx(1.0) and len(found.share) == bins
    with pytest.raises(ValueError, match="bins 0; allowed: 1 or more"):
        reliability(Answers(confidence, right, weight), 0)


def test_answers_are_those_of_a_softmax_task_by_task():
    batch = random_batch(T=6)
    cosines = CLIPAdapter(AdapterConfig(hidden=2), batch.images.shape[-1]).logits(None, batch, scale=1.0)
    mask = torch.tensor([True, False, True, True, False, True])
    parts = [(batch[:4], cosines[:4]), (batch[4:], cosines[4:])]  # as a script gives them, some tasks at a time
    found = answers_of(parts, 5.0, mask)
    confidence, right, weight = [], [], []
    for i in mask.nonzero().flatten().tolist():
        examples = batch.example_mask[i].nonzero().flatten().tolist()
        for n in examples:
            own = batch.answers[i][batch.answer_mask[i]] @ batch.images[i, n]
            probability = (5.0 * own.double()).softmax(0)
            confidence.append(float(probability.max()))
            right.append(int(probability.argmax()) == int(batch.labels[i, n]))
            weight.append(1 / 4 / len(examples))
    assert found.confidence.tolist() == pytest.approx(confidence, abs=1e-6) and found.right.tolist() == right
    assert found.weight.tolist() == pytest.approx(weight)
    alike = answers_of(parts, 5.0, mask, by_example=True)
    assert alike.weight.tolist() == pytest.approx([1 / len(weight)] * len(weight))
    assert alike.confidence.equal(found.confidence) and alike.right.equal(found.right)
    twice = pooled([found, found])
    assert float(twice.weight.sum()) == pytest.approx(1.0)
    assert calibration_error(reliability(twice)) == pytest.approx(calibration_error(reliability(found)))


def test_which_scale_reads_a_row_out(tiny):
    generator = AdapterGenerator.from_pretrained(release(tiny))
    rows = {row.id: row for row in ROWS}
    generator.config.pop("scales", None)
    assert training_scale(generator) == scale_of(rows["clip"], generator) == 100.0
    generator.config["scales"] = {"training": 50.0, "clip": 19.0, "cond_multitask": 30.0}
    found = {
        name: scale_of(rows[name], generator) for name in ("clip", "clip_prompted", "cond_multitask", "hvae_hyperldm")
    }
    assert found == {"clip": 19.0, "clip_prompted": 19.0, "cond_multitask": 30.0, "hvae_hyperldm": 50.0}
    assert training_scale(generator) == 50.0


def test_cosines_times_a_scale_are_logits(tiny):
    generator, batch = AdapterGenerator.from_pretrained(release(tiny)), random_batch(T=5, D=256)
    asked = [known["question"] for known in generator.known_questions[:5]]
    batch = dataclasses.replace(batch, question=generator.embed_questions(asked))
    row = next(row for row in ROWS if row.id == "hvae_hyperldm")
    ((tasks, cosines),) = cosines_of(row, generator, batch, batch)
    w = generator.weights(batch.question, "hyperldm", gamma=1.0)
    assert row.gamma == 1.0 and tasks.labels.equal(batch.labels)
    torch.testing.assert_close(7.0 * cosines, generator.network.logits(w, batch, scale=7.0))
    assert cosines[batch.answer_mask[:, None].expand_as(cosines)].abs().max() <= 1.001


@pytest.fixture
def scaled(tiny, tmp_path):
    """The tiny release with scales; of a second seed without."""
    directories = [shutil.copytree(release(tiny), tmp_path / name) for name in ("scaled", "other")]
    config = json.loads((directories[0] / "config.json").read_text(encoding="utf-8"))
    config.pop("scales", None)
    (directories[1] / "config.json").write_text(json.dumps(config | {"seed": 1}), encoding="utf-8")
    scales = {"training": 100.0, "clip": 19.0, "hvae_hyperldm": 40.0}
    (directories[0] / "config.json").write_text(json.dumps(config | {"scales": scales}), encoding="utf-8")
    for directory in directories:
        list_anew(directory)
    return directories


def test_the_script(tiny, scaled, tmp_path, capsys, monkeypatch):
    file, plot, table = tmp_path / "c.json", tmp_path / "c.png", tmp_path / "t.json"
    flags = ["--weights", *map(str, scaled), "--work", str(tiny), "--device", "cpu"]
    calibration.main([*flags, "--json", str(file), "--plot", str(plot)])
    out = capsys.readouterr().out
    assert f"missing: the scales of {scaled[1]}; python train/run_all.py --preset tiny --seed 1 chooses them" in out
    assert (
        "the scales of " + str(scaled[0]) not in out and "ECE after" in out and plot.read_bytes().startswith(b"\x89PNG")
    )
    document = json.loads(file.read_text(encoding="utf-8"))
    records = {(r["label"], r["tasks"], r["when"]): r for r in document["results"]}
    assert len(records) == len(document["results"]) == len(calibration.JUDGED) * 3 * 2
    table1.main([*flags, "--json", str(table)])
    for r in json.loads(table.read_text(encoding="utf-8"))["results"]:
        if (r["label"], r["tasks"], "before") in records:  # the accuracy of Table 1
            before, after = (records[r["label"], r["tasks"], when] for when in ("before", "after"))
            assert before["accuracy"] == pytest.approx(r["mean"], abs=2e-4), r["label"]
            assert (before["seeds"], after["seeds"], before["n_tasks"]) == ([0, 1], [0], r["n_tasks"])
            if after["scales"] == [100.0]:
                assert after["per_seed"] == before["per_seed"][:1]
    clip, ours = (records[label, "all", "after"] for label in ("CLIP, bare answers", "HVAE + HyperLDM, gamma 1"))
    assert (
        clip["scales"] == [19.0]
        and ours["scales"] == [40.0]
        and records[ours["label"], "new", "before"]["scales"] == [100.0] * 2
    )
    assert clip["confidence"] < records[clip["label"], "all", "before"]["confidence"]
    bins = clip["bins"]
    remade = sum(s * abs(a - c) for s, c, a in zip(bins["share"], bins["confidence"], bins["accuracy"], strict=True))
    assert len(bins["share"]) == 15 and remade == pytest.approx(clip["mean"], abs=1e-3)
    assert "bins" not in records[clip["label"], "new", "after"]

    shown = calibration_table(document["results"])
    assert shown.loc["CLIP, bare answers", "scale"] == "19" and shown.loc["Cond. Multitask", "scale"] == "100"
    monkeypatch.setattr(methods, "read_results", lambda name: document)
    lines = report.PARTS["calibration"]().splitlines()
    assert lines[0] == "| row | accuracy | confidence before | ECE before | scale | confidence after | ECE after |"
    assert lines[2].startswith("| CLIP, bare answers | ") and "15 bins of confidence" in " ".join(lines)


def test_a_release_without_scales_is_judged_before_alone(tiny, scaled, tmp_path, capsys):
    plot = tmp_path / "c.png"
    flags = ["--work", str(tiny), "--device", "cpu", "--limit-tasks", "5", "--plot", str(plot)]
    calibration.main(["--weights", str(scaled[1]), *flags])
    out = capsys.readouterr().out
    assert "ECE before" in out and "ECE after" not in out and plot.is_file()
