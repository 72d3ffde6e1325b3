import pytest
import torch

from core.adaptation.inner_loop import adapt, maml_loss
from core.data.tasks import split_support_query
from core.networks.adapter import AdapterConfig, CLIPAdapter
from tests.conftest import random_batch

NETWORK = CLIPAdapter(AdapterConfig(hidden=4), dim=16, scale=10.0)


def setup(dtype=torch.float32, T=4):
    batch = random_batch(T=T, N=18, D=16, dtype=dtype)
    support, query = split_support_query(batch, rng=torch.Generator().manual_seed(0))
    w = NETWORK.init(torch.Generator().manual_seed(1)).to(dtype)
    loss = lambda tasks: lambda w: NETWORK.loss(w, tasks)
    return w, support, query, loss


def test_adaptation_lowers_the_loss_and_leaves_no_graph():
    w, support, _, loss = setup()
    start = w.expand(4, -1)
    adapted = adapt(start, loss(support), steps=30, lr=0.5)
    assert (loss(support)(adapted) < loss(support)(start)).all()
    assert not adapted.requires_grad


def test_gradient_of_a_batch_is_the_mean_of_its_tasks():
    w, support, query, loss = setup()

    def meta_gradient(rows):
        leaf = w.clone().requires_grad_()
        s, q = support[rows], query[rows]
        value = maml_loss(leaf.expand(len(s), -1), loss(s), loss(q), steps=3, lr=0.1).mean()
        return torch.autograd.grad(value, leaf)[0]

    singles = torch.stack([meta_gradient(torch.tensor([i])) for i in range(4)])
    torch.testing.assert_close(meta_gradient(torch.arange(4)), singles.mean(0), rtol=1e-4, atol=1e-6)


def test_second_order_matches_finite_differences():
    w, support, query, loss = setup(torch.float64)
    value = lambda w: maml_loss(w.expand(4, -1), loss(support), loss(query), steps=2, lr=0.1).mean()
    leaf = w.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    direction = torch.randn(w.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    h = 1e-6
    numeric = (value((w + h * direction).requires_grad_()) - value((w - h * direction).requires_grad_())) / (2 * h)
    assert float(gradient @ direction) == pytest.approx(float(numeric), rel=1e-5)


def test_first_order_is_the_query_gradient_at_the_adapted_weights():
    w, support, query, loss = setup()
    leaf = w.clone().requires_grad_()
    value = maml_loss(leaf.expand(4, -1), loss(support), loss(query), steps=3, lr=0.1, first_order=True).mean()
    (gradient,) = torch.autograd.grad(value, leaf)
    adapted = adapt(w.expand(4, -1), loss(support), steps=3, lr=0.1).requires_grad_()
    (expected,) = torch.autograd.grad(loss(query)(adapted).mean(), adapted)
    torch.testing.assert_close(gradient, expected.sum(0))


def test_steps_per_task_equal_separate_runs():
    w, support, _, loss = setup()
    steps = torch.tensor([0, 1, 4, 2])
    together = adapt(w.expand(4, -1), loss(support), steps=steps, lr=0.2)
    for i, n in enumerate(steps.tolist()):
        alone = adapt(w[None], loss(support[torch.tensor([i])]), steps=n, lr=0.2)
        torch.testing.assert_close(together[i], alone[0], rtol=1e-4, atol=1e-5)


def test_tasks_that_are_through_are_not_asked_again_and_the_meta_gradient_is_the_same():
    w, support, query, loss = setup()
    steps = torch.tensor([4, 2, 1, 0])
    asked = []

    def falling(z):
        asked.append(len(z))
        return loss(support[: len(z)])(z)

    results = []
    for inner, arguments in ((falling, {"falling": True}), (loss(support), {})):
        leaf = w.clone().requires_grad_()
        value = maml_loss(leaf.expand(4, -1), inner, loss(query), steps=steps, lr=0.2, **arguments)
        results.append((value, *torch.autograd.grad(value.mean(), leaf)))
    assert asked == [3, 2, 1, 1]
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="do not fall"):
        adapt(w.expand(4, -1), falling, steps=steps.flip(0), lr=0.2, falling=True)


@pytest.mark.parametrize("arguments", [dict(steps=-1, lr=0.1), dict(steps=1, lr=-0.1)])
def test_negative_values_are_refused(arguments):
    with pytest.raises(ValueError, match="negative"):
        adapt(torch.zeros(1, 2), lambda w: w.sum(-1), **arguments)


def test_least_steps_are_checked_too():
    with pytest.raises(ValueError, match="steps -3"):
        adapt(torch.zeros(2, 2), lambda w: w.sum(-1), steps=torch.tensor([-3, 1]), lr=0.1)


def test_a_task_that_is_through_stays_whatever_its_gradient_is():
    """The square root has none at 0, where the first task arrives."""
    start = torch.tensor([[1.0], [4.0]])
    adapted = adapt(start, lambda w: w.sqrt().sum(-1), steps=torch.tensor([1, 2]), lr=2.0)
    assert adapted[0].tolist() == [0.0] and adapted[1] < 4


@pytest.mark.parametrize("differentiable", [True, False])
def test_the_start_is_left_as_it_is(differentiable):
    start = torch.ones(2, 3)
    adapt(start, lambda w: w.square().sum(-1), steps=2, lr=0.1, differentiable=differentiable)
    assert not start.requires_grad and start.eq(1).all()
