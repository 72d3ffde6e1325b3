import pytest
import torch

from core.networks.hyperclip import ranks
from eval.harness.metrics import (
    PooledPairs,
    PooledScores,
    TaskScores,
    clustered_bootstrap,
    clustered_draws,
    crossed_bootstrap,
    mean_and_sd,
    seed_draws,
    task_draws,
)


def test_bootstrap_interval_matches_the_normal_one():
    g = torch.Generator().manual_seed(0)
    b = torch.rand(400, generator=g)
    a = b + 0.02 + 0.1 * torch.randn(400, generator=g)
    d = crossed_bootstrap((a - b)[None])
    half = 1.96 * float((a - b).std()) / 20
    assert d.mean == pytest.approx(float((a - b).mean())) and d.low < d.mean < d.high
    assert d.high - d.low == pytest.approx(2 * half, rel=0.06)


def test_a_constant_lead_is_certain():
    a = torch.rand(2, 50)
    d = TaskScores(a).minus(TaskScores(a - 0.01))
    assert d.low == pytest.approx(0.01, abs=1e-4) and d.high == pytest.approx(0.01, abs=1e-4)
    for wrong in (torch.rand(3), torch.rand(0, 3), torch.rand(2, 0)):
        with pytest.raises(ValueError, match="allowed: \\(seeds, tasks\\)"):
            crossed_bootstrap(wrong)


# -- training seeds ----------------------------------------------------------------------------------------------------


def effects(values):
    """The variances that values (seeds, T) have between seeds, between tasks, and of what is left, of all of them."""
    mean = values.mean()
    by_seed, by_task = values.mean(1, keepdim=True) - mean, values.mean(0, keepdim=True) - mean
    left = values - mean - by_seed - by_task
    return [float((part**2).mean()) for part in (by_seed, by_task, left)]


def drawn_means(values, draws=20_000):
    """The means (draws,) that `crossed_bootstrap` takes its interval of, one by one."""
    S, T = values.shape
    seeds, share = seed_draws(S, draws), task_draws(T, draws)
    return torch.stack([share[i] @ values[seeds[i]].mean(0) for i in range(draws)])


@pytest.mark.parametrize("S", [2, 3, 5])
def test_draws_have_the_variance_of_a_crossed_model(S):
    """v_st = mean + a_s + b_t + e_st. Drawing R = S - 1 of S seeds and T of T tasks, all with replacement, the mean has
    the variance a / R + b / T + e / (R T), with the parts' variances over the values at hand; and a / R is an unbiased
    estimate of the variance of the mean of S seeds."""
    g, T = torch.Generator().manual_seed(S), 40
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    values = 0.1 * draw(S, 1) + 0.3 * draw(1, T) + 0.3 * draw(S, T)
    between_seeds, between_tasks, left = effects(values)
    expected = between_seeds / (S - 1) + between_tasks / T + left / ((S - 1) * T)
    means = drawn_means(values)
    assert float(means.var()) == pytest.approx(expected, rel=0.05)
    assert float(means.mean()) == pytest.approx(float(values.mean()), abs=5 * (expected / 20_000) ** 0.5)
    assert between_seeds / (S - 1) == pytest.approx(float(values.mean(1).var()) / S)
    found = crossed_bootstrap(values, draws=20_000)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    assert (found.mean, found.low, found.high) == pytest.approx((float(values.mean()), low, high))


def test_one_seed_and_seeds_that_agree_leave_the_interval_over_tasks():
    values = torch.rand(1, 60, dtype=torch.float64)
    alone = crossed_bootstrap(values)
    again = crossed_bootstrap(values.expand(3, -1))
    assert (again.mean, again.low, again.high) == pytest.approx((alone.mean, alone.low, alone.high), abs=1e-12)
    half = 1.96 * float(values.std(correction=0)) / 60**0.5
    assert alone.high - alone.low == pytest.approx(2 * half, rel=0.06)


def test_seeds_that_differ_widen_the_interval_of_a_mean_but_not_of_a_lead_that_they_share():
    """Both rows of a difference have the same drawn seed: what a seed gives to both is in neither's lead."""
    g = torch.Generator().manual_seed(0)
    base = torch.rand(3, 80, generator=g) + torch.tensor([[0.0], [0.1], [0.2]])
    lead = 0.05 + 0.02 * torch.randn(1, 80, generator=g)
    wide = lambda estimate: estimate.high - estimate.low
    ours, theirs = TaskScores(base + lead), TaskScores(base)
    assert wide(ours.estimate()) > 1.5 * wide(crossed_bootstrap(base.mean(0, keepdim=True)))
    assert wide(ours.minus(theirs)) == pytest.approx(wide(crossed_bootstrap(lead)), rel=1e-4)
    assert wide(ours.minus(theirs)) < wide(ours.estimate()) / 10


def test_the_true_mean_lies_in_about_every_interval_of_three_seeds():
    """Simulated with as much variance between seeds as between tasks."""
    inside = 0
    for seed in range(80):
        g = torch.Generator().manual_seed(seed)
        values = 0.02 * torch.randn(3, 1, generator=g) + 0.2 * torch.randn(1, 100, generator=g)
        found = crossed_bootstrap(values + 0.2 * torch.randn(3, 100, generator=g), draws=2000)
        inside += found.low <= 0 <= found.high
    assert inside >= 70


def test_pairs_are_drawn_after_questions_after_seeds():
    """Of Q questions with n pairs each and S seeds: the seeds' variance on top of that of both stages of pairs."""
    g = torch.Generator().manual_seed(0)
    Q, n, S = 60, 8, 3
    question = torch.arange(Q).repeat_interleave(n)
    taken = clustered_draws(question)
    values = (0.3 * torch.randn(Q, 1, generator=g) + torch.randn(Q, n, generator=g)).flatten()
    of_seed = torch.tensor([-0.2, 0.0, 0.3])
    found = clustered_bootstrap(values + of_seed[:, None], taken)
    over_pairs = (
        (values.view(Q, n).mean(1).var(correction=0) + values.view(Q, n).var(1, correction=0).mean() / n) / Q
    ) ** 0.5
    drawn = (taken @ values / taken.sum(1)) + of_seed[seed_draws(S)].mean(1)
    assert found.mean == pytest.approx(float(values.mean() + of_seed.mean()), abs=1e-6)
    low, high = drawn.quantile(torch.tensor([0.025, 0.975])).tolist()
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)
    assert float(drawn.var()) == pytest.approx(float(over_pairs) ** 2 + float(of_seed.var(correction=0)) / 2, rel=0.05)
    alike, one = clustered_bootstrap(values.expand(S, -1), taken), clustered_bootstrap(values, taken)
    assert (alike.low, alike.high) == pytest.approx((one.low, one.high), abs=1e-6)


def test_spread_and_ranks():
    assert mean_and_sd([0.5]) == (0.5, None)
    assert mean_and_sd([0.4, 0.6])[1] == pytest.approx(0.1414, abs=1e-3)
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.3, 0.1]])
    assert ranks(scores, torch.tensor([2, 0])).tolist() == [2, 2]  # a tie counts against


# -- pairs within questions --------------------------------------------------------------------------------------------


def test_every_draw_takes_whole_questions_with_replacement():
    question = torch.tensor([7, 3, 7, 3, 3, 9])  # in any order
    taken = clustered_draws(question, draws=4000)
    assert taken.shape == (4000, 6) and (taken.sum(1) >= 3).all()
    counts = torch.stack([taken[:, question == q].sum(1) for q in (7, 3, 9)], dim=1)  # (draws, questions)
    per_question = counts / torch.tensor([2.0, 3.0, 1.0])  # how often each question was drawn
    assert per_question.equal(per_question.round()) and (per_question.sum(1) == 3).all()
    torch.testing.assert_close(taken.mean(0), torch.ones(6), atol=0.06, rtol=0)  # each pair once on average
    assert taken.equal(clustered_draws(question, draws=4000)) and not taken.equal(clustered_draws(question, 4000, 1))
    with pytest.raises(ValueError, match="question"):
        clustered_draws(torch.zeros(0, dtype=torch.long))


def test_the_interval_has_the_variance_of_both_stages():
    """Of Q questions with n pairs each, the mean of a two-stage draw has variance (b + w / n) / Q: b that of the
    questions' means, w the mean of that within questions, both with the denominators Q and n of a resampled set."""
    g = torch.Generator().manual_seed(0)
    Q, n = 60, 8
    values = 0.3 * torch.randn(Q, 1, generator=g) + torch.randn(Q, n, generator=g)
    sd = ((values.mean(1).var(correction=0) + values.var(1, correction=0).mean() / n) / Q).sqrt()
    taken = clustered_draws(torch.arange(Q).repeat_interleave(n))
    found = clustered_bootstrap(values.flatten(), taken)
    assert found.mean == pytest.approx(float(values.mean())) and found.low < found.mean < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * float(sd), rel=0.04)
    assert float((taken @ values.flatten() / taken.sum(1)).std()) == pytest.approx(float(sd), rel=0.03)


def test_pairs_that_say_the_same_are_one_piece_of_evidence():
    """Questions alone make the interval where their pairs agree; a plain bootstrap over pairs would be too sure."""
    g = torch.Generator().manual_seed(0)
    of_question = torch.rand(50, generator=g)
    question = torch.arange(50).repeat_interleave(10)
    found, alone = (clustered_bootstrap(of_question[q], clustered_draws(q)) for q in (question, torch.arange(50)))
    assert found.high - found.low == pytest.approx(alone.high - alone.low, rel=0.04)
    over_pairs = crossed_bootstrap(of_question[question][None])
    assert found.high - found.low > 2.5 * (over_pairs.high - over_pairs.low)


def test_one_question_leaves_its_pairs():
    values = (torch.arange(40) < 10).float()
    found = clustered_bootstrap(values, clustered_draws(torch.zeros(40, dtype=torch.long)))
    plain = crossed_bootstrap(values[None])
    assert (found.mean, found.low, found.high) == pytest.approx((plain.mean, plain.low, plain.high), abs=0.026)


def test_the_true_mean_lies_in_about_every_interval():
    """Simulated: questions of 1 to 20 pairs, whose accuracies vary. Two stages are on the safe side."""
    inside = 0
    for seed in range(60):
        g = torch.Generator().manual_seed(seed)
        count = torch.randint(1, 21, (80,), generator=g)
        chance = 0.1 + 0.6 * torch.rand(80, generator=g)  # 0.4 on average
        question = torch.arange(80).repeat_interleave(count)
        right = (torch.rand(len(question), generator=g) < chance[question]).float()
        found = clustered_bootstrap(right, clustered_draws(question, draws=1000))
        inside += found.low <= 0.4 <= found.high
    assert inside >= 55


def test_weights_make_a_mean_over_questions():
    values, question = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([0, 0, 0, 1])
    taken = clustered_draws(question)
    weight = torch.tensor([1 / 3, 1 / 3, 1 / 3, 1.0])
    assert clustered_bootstrap(values, taken).mean == pytest.approx(0.75)
    found = clustered_bootstrap(values, taken, weight)
    assert (found.mean, found.low, found.high) == (pytest.approx(0.5), 0, 1)
    with pytest.raises(ValueError, match="values"):
        clustered_bootstrap(values[:3], taken)


def test_pooled_scores_of_some_pairs():
    question = torch.tensor([0, 0, 1, 1, 1, 2])
    pairs = PooledPairs(question, torch.tensor([True, True, True, False, True, False]))
    right = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 0]]).bool()
    scores = PooledScores(right, pairs)
    assert (len(pairs), pairs.n_questions) == (4, 2)
    assert scores.by_task().tolist() == [[1, 0.5], [0.5, 0.5]] and scores.estimate().mean == pytest.approx(5 / 8)
    same, worse = scores.minus(scores), scores.minus(PooledScores(~right, pairs))
    assert (same.mean, same.low, same.high) == (0, 0, 0) and worse.mean == pytest.approx(0.25)
