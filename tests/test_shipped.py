"""The shipped weights are those of the published results: accuracies of a few test tasks, remade."""

import random
from types import SimpleNamespace

import pytest
import torch

from core.data.emoji.dataset import EmojiVQA
from core.data.task_sets import build_task_set
from core.generator import AdapterGenerator
from eval.harness.comparison.answers import read_answers
from eval.harness.results import RESULTS
from eval.harness.rows import ROWS, accuracy
from tests.conftest import ROOT

LABELS = ("CLIP, bare answers", "Cond. Multitask", "HVAE + HyperLDM, gamma of validation")


def test_shipped_weights_reach_the_published_accuracies():
    judged, lines = read_answers(RESULTS / "table1")
    of_seed_0 = {line.label: line for line in lines if (line.seed, line.descriptors) == (0, 1.0)}
    dataset, generator = EmojiVQA(), AdapterGenerator.from_pretrained(ROOT / "weights" / "emoji")
    test = [task for task in dataset.tasks if task.split == "test"]
    assert list(judged.questions) == [task.question for task in test]
    assert judged.examples.tolist() == [len(task.query[0]) for task in test]
    draw = random.Random(0)
    kinds = [[i for i, task in enumerate(test) if task.new_family == new] for new in (False, True)]
    chosen = [i for kind in kinds for i in draw.sample(kind, 10)]

    tasks, backbone = [test[i] for i in chosen], generator.backbone
    rows = [row for task in tasks for row in task.query[0]]
    images = torch.zeros(dataset.num_images, backbone.dim, dtype=torch.float16)  # as features lie on disk
    images[rows] = backbone.encode_images(dataset.load_arrays(rows)).half()
    store = SimpleNamespace(
        images=lambda indices, progress: images,
        unreadable={},
        answers=backbone.encode_texts,
        questions=lambda texts, encoder: encoder.encode(texts),
        candidates=lambda answers, encoder: encoder.candidates(answers),
    )
    query = build_task_set(store, tasks, questions=generator.question_encoder).batch(part="query")
    for label in LABELS:
        row = next(row for row in ROWS if row.label == label)
        found, expected = accuracy(row, generator, query, query), judged.by_task(of_seed_0[label].right)[chosen]
        assert float(found.mean()) == pytest.approx(float(expected.mean()), abs=0.01), label
