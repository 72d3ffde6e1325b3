import pytest
import torch

from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.hypernet import CondHyperNet, CondHyperNetConfig
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


def test_whitened_is_whitened_and_nothing_else():
    """With little shrinkage the covariance is the identity, and the matrix symmetric and positive: no rotation."""
    e = crowded_questions()
    white = Whitening(8, shrinkage=1e-9)
    white.fit(e)
    torch.testing.assert_close(white(e).mT.cov(correction=0), torch.eye(8), rtol=0, atol=2e-3)
    torch.testing.assert_close(white.matrix, white.matrix.mT)
    assert torch.linalg.eigvalsh(white.matrix).min() > 0


def test_whitening_does_not_depend_on_the_signs_and_rotations_that_a_solver_gives():
    """The order of questions changes rounding, and with it the eigenvectors: most of all of equal variances."""
    g = torch.Generator().manual_seed(1)
    e = crowded_questions()
    even = torch.cat([torch.eye(8), -torch.eye(8)]).repeat(
        3, 1
    )  # all variances equal: any basis is one of eigenvectors
    for questions in (e, even):
        one, other = Whitening(8, shrinkage=1e-4), Whitening(8, shrinkage=1e-4)
        one.fit(questions)
        for _ in range(3):
            other.fit(questions[torch.randperm(len(questions), generator=g)])
            torch.testing.assert_close(other.matrix, one.matrix, rtol=1e-5, atol=1e-5)
            rotation = torch.linalg.qr(torch.randn(8, 8, generator=g, dtype=torch.float64))[0]
            other.fit(questions.double() @ rotation)  # the same questions in another basis: the same map in that basis
            turned = (rotation.mT @ one.matrix.double() @ rotation).float()
            torch.testing.assert_close(other.matrix, turned, rtol=1e-4, atol=1e-5 * float(one.matrix.abs().max()))


def test_noise_is_the_callers():
    e = crowded_questions()
    white = Whitening(8, noise=0.5)
    white.fit(e)
    noise = torch.randn(*e.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(white(e, noise), white(e) + 0.5 * noise)
    torch.manual_seed(0)
    assert torch.equal(white.train()(e), white.eval()(e))  # no noise but what is passed, in training either


def test_whitening_of_questions_that_are_all_alike_is_refused():
    with pytest.raises(ValueError, match="all 5 questions have the same embedding"):
        Whitening(3, 0.1).fit(torch.ones(5, 3))


def test_whitening_is_float32_under_autocast():
    e = crowded_questions()
    white = Whitening(8)
    white.fit(e)
    with torch.autocast("cpu", torch.bfloat16):
        under = white(e)
    assert torch.equal(under, white(e))
    torch.testing.assert_close(white.inverse(white(e)), e, rtol=1e-4, atol=1e-4)


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
    batch = random_batch()
    config, network = CondHyperNetConfig(), CLIPAdapter(AdapterConfig(hidden=4), dim=16)
    model = CondHyperNet(config, network=network)
    model.fit(batch.question)
    other = CondHyperNet(config, network=network)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.weights(batch.question), model.weights(batch.question))
    torch.testing.assert_close(model.weights(batch.question), model.decode(model.condition(batch.question)))
