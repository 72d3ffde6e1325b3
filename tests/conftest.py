"""Shared fixtures: a small batch of tasks, and one run of the tiny preset that many tests read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.tasks import TaskBatch

torch.set_num_threads(1)  # many small products: more threads only wait for each other
ROOT = Path(__file__).resolve().parent.parent


def random_batch(T: int = 4, N: int = 12, C: int = 5, D: int = 16, seed: int = 0, dtype=torch.float32) -> TaskBatch:
    """Ragged random tasks with something to learn: the label is the answer nearest to a rotated image."""
    g = torch.Generator().manual_seed(seed)
    unit = lambda *shape: torch.nn.functional.normalize(torch.randn(*shape, generator=g, dtype=dtype), dim=-1)
    images, answers, question = unit(T, N, D), unit(T, C, D), unit(T, D)
    rotation = torch.linalg.qr(torch.randn(D, D, generator=g, dtype=dtype))[0]
    example_mask = torch.arange(N) < torch.randint(N // 2, N + 1, (T, 1), generator=g)
    answer_mask = torch.arange(C) < torch.randint(2, C + 1, (T, 1), generator=g)
    scores = ((images @ rotation) @ answers.mT).masked_fill(~answer_mask[:, None], -9)
    return TaskBatch(
        images * example_mask[..., None],
        scores.argmax(-1) * example_mask,
        example_mask,
        answers * answer_mask[..., None],
        answer_mask,
        question,
    )


@pytest.fixture
def batch() -> TaskBatch:
    return random_batch()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Work folder of a finished `run_all --preset tiny`; its release is in seed-0/weights."""
    from train import run_all

    work = tmp_path_factory.mktemp("tiny")
    run_all.main(["--preset", "tiny", "--work", str(work), "--device", "cpu"])
    return work
