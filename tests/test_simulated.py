"""Simulated features: shaped like Meta-VQA, a pure function of their config, and usable by every stage."""

import json
import os
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

import pytest
import torch

from core.adaptation.subspace import adapt_adapters
from core.backbones.questions import TowerQuestions
from core.data.simulated import SimulatedConfig, SimulatedVQA
from core.data.task_sets import build_task_set
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.base import accuracies
from tests.conftest import ROOT
from train import run_all
from train.pipeline import graph
from train.pipeline.run import Run
from train.presets import get_preset

PUBLISHED = Path(os.environ.get("METAVQA_SPLITS", ROOT / "metavqa"))
SMALL = SimulatedConfig(train_tasks=24, val_tasks=6, test_tasks=8, dim=32)


@pytest.fixture(scope="module")
def full():
    return SimulatedVQA()


def test_drawn_index_has_the_statistics_of_meta_vqa(full):
    tasks = full.tasks
    counts = {split: sum(task.split == split for task in tasks) for split in ("train", "val", "test")}
    assert counts == {"train": 783, "val": 87, "test": 373}
    sizes = [len(task.examples("all")[0]) for task in tasks]
    assert mean(len(t.support[0]) for t in tasks) == pytest.approx(57.86, rel=0.1)
    assert mean(len(t.query[0]) for t in tasks) == pytest.approx(25.90, rel=0.1)
    assert mean(len(t.answers) for t in tasks) == pytest.approx(9.14, rel=0.1)
    assert min(sizes) == 21 and 35 < median(sizes) < 48 and 900 < max(sizes) <= 1780  # a long tail
    for task in tasks[:50]:
        images, labels = task.examples("all")
        assert len(set(images)) == len(images) and set(task.support[1]) == set(labels) == set(range(len(task.answers)))


def test_zero_shot_and_few_shot_accuracy_are_the_papers(full):
    """Near 45% without examples, and with them clearly more: there is something to learn that carries over."""
    encoder, network = full.backbone(), CLIPAdapter(AdapterConfig(), dim=768)
    tasks = [task for task in full.tasks if task.split == "test" and len(task.support[0]) < 100][:30]

    class Source:
        backbone, unreadable = encoder, {}
        images = staticmethod(lambda indices, progress=None: full._features)
        answers = staticmethod(encoder.encode_texts)
        questions = staticmethod(lambda texts, encoder: encoder.encode(texts))
        candidates = staticmethod(lambda answers, encoder: encoder.candidates(answers))

    chosen = build_task_set(Source, tasks, questions=TowerQuestions(encoder, "eos"))
    support, query = chosen.batch(part="support"), chosen.batch(part="query")
    accuracy = lambda w: float(accuracies(network, w, query).mean())
    assert accuracy(None) == pytest.approx(0.45, abs=0.06)
    start = network.init(torch.Generator().manual_seed(0))
    adapted = adapt_adapters(network, start, support, steps=50, lr=0.1)
    assert accuracy(adapted) == pytest.approx(0.60, abs=0.06)


def test_pure_function_of_the_config():
    one, two, other = SimulatedVQA(SMALL), SimulatedVQA(SMALL), SimulatedVQA(replace(SMALL, seed=1))
    assert one.tasks == two.tasks != other.tasks and one.identity == two.identity != other.identity
    assert torch.equal(one.load_arrays([5, 9]), two.load_arrays(range(10))[[5, 9]])
    assert not torch.equal(one.load_arrays([5]), other.load_arrays([5]))
    torch.testing.assert_close(one.backbone().encode_texts(["dog", "red"])[1:], two.backbone().encode_texts(["red"]))


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published split files are not here")
def test_published_questions():
    data = SimulatedVQA(SimulatedConfig(splits=str(PUBLISHED)))
    assert len(data.tasks) == 1243 and sum(len(t.examples("all")[0]) for t in data.tasks) == 104_112
    entry = json.loads((PUBLISHED / "meta_test.json").read_text(encoding="utf-8"))["What is the kid holding?"]
    (task,) = [task for task in data.tasks if task.question == "What is the kid holding?"]
    assert task.split == "test" and [task.answers[y] for y in task.query[1]] == [answer for _, answer in entry["test"]]


@pytest.mark.parametrize(
    "fields, word", [({"val_tasks": 870}, "val_tasks"), ({"test_tasks": 0}, "positive"), ({"splits": "no"}, "no meta_")]
)
def test_bad_configs(fields, word):
    with pytest.raises(ValueError, match=word):
        SimulatedConfig(**fields).open()


def test_every_stage_runs_on_features_without_pixels(tmp_path):
    """All of `metavqa_sim` at toy size, by its own command."""
    sizes = {
        **{f"dataset.{k}": v for k, v in {"train_tasks": 24, "val_tasks": 6, "test_tasks": 8, "dim": 32}.items()},
        **{"networks.clip_adapter.hidden": 4, "hvae.hidden": "[16,8]", "hvae.latent": 4},
        **{"hyperldm.hidden": "[32,64,32]", "latent_regression.hidden": "[32,64,32]"},
        **{"adaptations.hvae.draws": 2, "adaptations.hvae.steps": 2, "adaptations.hnet.steps": 2, "few_shot_steps": 2},
        **{"sampling.steps": 3, "sampling.gammas": "[1.0]", "few_shot_lrs": "[0.1]"},
    }
    settings = [f"{key}={value}" for key, value in sizes.items()]
    arguments = ["--preset", "metavqa_sim", "--work", str(tmp_path), "--device", "cpu", "--steps-share", "0.0002"]
    run_all.main([*arguments, "--set", *settings])
    (release,) = tmp_path.glob("seed-0/weights-*")
    assert json.loads((release / "config.json").read_text(encoding="utf-8"))["dataset"] == "simulated v1"
    assert len(json.loads((release / "stages.json").read_text(encoding="utf-8"))) == 18


def test_every_stage_of_the_preset_has_an_identity(tmp_path):
    preset = get_preset("metavqa_sim")
    stages = graph.build(preset)
    assert "backbone" not in stages
    assert set(graph.identities(Run(preset, 0, tmp_path, tmp_path, torch.device("cpu")), stages)) == set(stages)
