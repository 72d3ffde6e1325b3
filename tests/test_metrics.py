import pytest
import torch

from core.networks.hyperclip import ranks
from eval.harness.metrics import (
    PooledPairs,
    PooledScores,
    clustered_bootstrap,
    clustered_draws,
    mean_and_sd,
    paired_bootstrap,
)


def test_bootstrap_interval_matches_the_normal_one():
    g = torch.Generator().manual_seed(0)
    b = torch.rand(400, generator=g)
    a = b + 0.02 + 0.1 * torch.randn(400, generator=g)
    d = paired_bootstrap(a, b)
    half = 1.96 * float((a - b).std()) / 20
    assert d.mean == pytest.approx(float((a - b).mean())) and d.low < d.mean < d.high
    assert d.high - d.low == pytest.approx(2 * half, rel=0.06)


def test_bootstrap_is_paired_and_refuses_other_tasks():
    a = torch.rand(50)
    d = paired_bootstrap(a, a - 0.01)
    assert d.low == pytest.approx(0.01, abs=1e-4) and d.high == pytest.approx(0.01, abs=1e-4)
    with pytest.raises(ValueError, match="equal"):
        paired_bootstrap(torch.rand(3), torch.rand(4))


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
    over_pairs = paired_bootstrap(of_question[question], torch.zeros(500))
    assert found.high - found.low > 2.5 * (over_pairs.high - over_pairs.low)


def test_one_question_leaves_its_pairs():
    values = (torch.arange(40) < 10).float()
    found = clustered_bootstrap(values, clustered_draws(torch.zeros(40, dtype=torch.long)))
    plain = paired_bootstrap(values, torch.zeros(40))
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
