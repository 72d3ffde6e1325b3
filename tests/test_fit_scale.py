"""The scale of a row's probabilities, against labels that were drawn with a known one."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from core.adaptation.calibration import fit_scale
from core.data.tasks import TaskBatch


def drawn(scale: float, T: int = 20, N: int = 2000, C: int = 6, seed: int = 0) -> tuple[torch.Tensor, TaskBatch]:
    """Cosines (T, N, C), some of them padding, and labels drawn with probabilities softmax(scale * cosines)."""
    g = torch.Generator().manual_seed(seed)
    cosines = 0.3 * torch.rand(T, N, C, generator=g) - 0.1
    example_mask = torch.arange(N) < torch.randint(N // 2, N + 1, (T, 1), generator=g)
    answer_mask = torch.arange(C) < torch.randint(2, C + 1, (T, 1), generator=g)
    probability = (scale * cosines).masked_fill(~answer_mask[:, None], -torch.inf).softmax(-1)
    labels = torch.multinomial(probability.flatten(0, 1), 1, generator=g).view(T, N)
    nothing = torch.zeros(T, 1, 1)
    return cosines, TaskBatch(nothing, labels * example_mask, example_mask, nothing, answer_mask, nothing[:, 0])


def mean_loss(scale: torch.Tensor, cosines: torch.Tensor, batch: TaskBatch) -> torch.Tensor:
    """Cross-entropy, task by task over what is not padding."""
    losses = []
    for x, y, examples, answers in zip(cosines, batch.labels, batch.example_mask, batch.answer_mask, strict=True):
        losses.append(cross_entropy(scale * x[examples][:, answers], y[examples]))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("scale", [3.0, 19.0, 100.0])
def test_the_scale_that_labels_were_drawn_with_comes_back(scale):
    assert fit_scale(*drawn(scale)) == pytest.approx(scale, rel=0.05)


def test_the_loss_has_no_slope_there_and_is_more_to_both_sides():
    cosines, batch = drawn(12.0, T=5, N=60)
    cosines = cosines.double()
    scale = torch.tensor(fit_scale(cosines, batch), dtype=torch.float64, requires_grad=True)
    loss = mean_loss(scale, cosines, batch)
    (slope,) = torch.autograd.grad(loss, scale)
    assert abs(float(slope)) < 1e-9
    assert all(mean_loss(scale.detach() * factor, cosines, batch) > loss.detach() for factor in (0.9, 1.1))


@pytest.mark.parametrize("padding", [0.9, torch.nan, -torch.inf])
def test_padding_is_not_looked_at(padding):
    """Cosines of padded answers as `BaseNetwork.logits` gives them, -inf, or whatever else stands there."""
    cosines, batch = drawn(12.0, T=5, N=60)
    assert not batch.answer_mask.all() and not batch.example_mask.all()
    expected = fit_scale(cosines, batch)
    closed = ~batch.answer_mask[:, None].expand_as(cosines)
    assert fit_scale(cosines.masked_fill(closed, padding), batch) == expected
    if padding == 0.9:
        out = ~batch.example_mask[..., None].expand_as(cosines)
        assert fit_scale(cosines.masked_fill(out, padding), batch) == expected


def test_tasks_count_alike_whatever_their_size():
    """A task of many examples does not outvote small ones: the objective is the mean over tasks."""
    cosines, batch = drawn(12.0, T=2, N=400)
    few = torch.stack([torch.arange(400) < 400, torch.arange(400) < 40])
    batch = TaskBatch(
        batch.images, batch.labels, few, batch.answers, torch.ones_like(batch.answer_mask), batch.question
    )
    scale = torch.tensor(fit_scale(cosines.double(), batch), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(mean_loss(scale, cosines.double(), batch), scale)
    assert abs(float(slope)) < 1e-9


def test_answers_that_are_always_right_or_always_wrong_have_a_finite_scale():
    cosines = torch.tensor([[[0.3, 0.1], [0.2, 0.1]]])
    mask, nothing = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 1, 1)
    right = TaskBatch(nothing, torch.zeros(1, 2, dtype=torch.long), mask, nothing, mask, nothing[:, 0])
    wrong = TaskBatch(nothing, torch.ones(1, 2, dtype=torch.long), mask, nothing, mask, nothing[:, 0])
    surest = torch.tensor(fit_scale(cosines, right))
    assert surest <= 1e4 and mean_loss(surest, cosines.double(), right) < 1e-12
    assert fit_scale(cosines, wrong) == pytest.approx(1e-2, rel=1e-3)
