import pytest
import torch

from core.networks.hypernet import HyperNet, HyperNetConfig
from core.networks.whitening import Whitening
from tests.conftest import random_batch


def crowded_questions(count: int = 200, dim: int = 8) -> torch.Tensor:
    """Embeddings far from the origin, their spread falling threefold from one direction to the next."""
    g = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=g))[0]
    spread = 3.0 ** -torch.arange(dim).float()
    return 1 + (torch.randn(count, dim, generator=g) * spread) @ rotation


def test_whitened_questions_have_unit_covariance_where_shrinkage_allows():
    e = crowded_questions()
    white = Whitening(8, shrinkage=1e-5)
    white.fit(e)
    out = white(e)
    torch.testing.assert_close(out.mean(0), torch.zeros(8), atol=1e-3, rtol=0)
    variance = torch.linalg.eigvalsh(torch.cov(out.mT))
    assert variance[-3] > 0.9 * variance[-1]  # the three directions above the shrinkage are level
    assert variance[0] < 0.05 * variance[-1]  # 3^-14, far below the shrinkage, stays small: 0.02
    assert out.square().mean() == pytest.approx(1.0, rel=1e-3)


def test_large_shrinkage_only_centres_and_scales():
    e = crowded_questions()
    white = Whitening(8, shrinkage=1e6)
    white.fit(e)
    spread = (e - e.mean(0)).square().mean().sqrt()
    distance = lambda x: torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(distance(white(e)), distance(e) / spread, rtol=1e-3, atol=1e-4)


def test_noise_is_for_training_alone():
    e = crowded_questions()
    white = Whitening(8, noise=0.5)
    white.fit(e)
    torch.manual_seed(0)
    noisy = white.train()(e)
    assert (noisy - white.eval()(e)).std() == pytest.approx(0.5, rel=0.05)
    torch.testing.assert_close(white(e), white(e), atol=0, rtol=0)


def test_identity_until_fitted_and_bad_input():
    e = torch.randn(3, 8)
    torch.testing.assert_close(Whitening(8)(e), e)
    with pytest.raises(ValueError, match="shrinkage 0"):
        Whitening(8, shrinkage=0)
    with pytest.raises(ValueError, match="noise -1"):
        Whitening(8, noise=-1)
    with pytest.raises(ValueError, match="at least 2 questions"):
        Whitening(8).fit(e[:1])


def test_statistics_travel_with_the_hypernetwork():
    from core.networks.adapter import AdapterConfig

    batch = random_batch()
    config, adapter = HyperNetConfig(input_dim=16), AdapterConfig(dim=16, hidden=4)
    model = HyperNet(config, adapter)
    model.condition.fit(batch.question)
    other = HyperNet(config, adapter)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(batch.question), model(batch.question))
    torch.testing.assert_close(model(batch.question), model.decode(model.condition(batch.question)))
