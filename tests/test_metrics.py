import pytest
import torch

from core.networks.hyperclip import ranks
from eval.harness.metrics import mean_and_sd, paired_bootstrap


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
