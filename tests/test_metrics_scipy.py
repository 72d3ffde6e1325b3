"""Statistics and losses against SciPy's, on random shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, optimize, special, stats

from core.adaptation.calibration import fit_scale
from core.classifier import Adapter
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.base import task_accuracy, task_loss
from core.networks.hvae import HVAE, HVAEConfig
from core.networks.hyperclip import hyperclip_loss, ranks
from core.networks.whitening import Whitening
from eval.harness.calibration import Answers, calibration_error, reliability
from eval.harness.metrics import (
    PooledPairs,
    PooledScores,
    clustered_bootstrap,
    clustered_draws,
    crossed_bootstrap,
    mean_and_sd,
)
from tests.conftest import random_batch

SEEDS = st.integers(0, 2**31)
SHARES = st.floats(0, 1, width=32)


@given(st.lists(SHARES, min_size=1, max_size=20))
def test_mean_and_sd(values):
    mean, sd = mean_and_sd(values)
    assert mean == pytest.approx(np.mean(values))
    assert sd == (pytest.approx(stats.tstd(values), abs=1e-12) if len(values) > 1 else None)


@settings(max_examples=5)
@given(SEEDS, st.integers(8, 200))
def test_the_bootstrap_over_tasks(seed, T):
    """As SciPy's percentile bootstrap: two of the same distribution differ by their own draws alone."""
    g = np.random.default_rng(seed)
    a, b = g.random(T), g.random(T)
    found = crossed_bootstrap(torch.from_numpy(a - b)[None], draws=4000)
    expected = stats.bootstrap((a - b,), np.mean, method="percentile", n_resamples=4000, rng=g)
    assert found.mean == pytest.approx((a - b).mean())
    spread = 0.3 * expected.standard_error  # about four s.d. of the difference of two such quantiles
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=spread)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=spread)


@settings(max_examples=5)
@given(SEEDS, st.integers(8, 120))
def test_the_bootstrap_of_questions_of_one_pair_is_that_over_tasks(seed, M):
    values = np.random.default_rng(seed).random(M)
    found = clustered_bootstrap(torch.from_numpy(values), clustered_draws(torch.arange(M), draws=4000))
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=seed)
    spread = 0.3 * expected.standard_error
    assert found.mean == pytest.approx(values.mean(), abs=1e-6)
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=spread)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=spread)


@settings(max_examples=5)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), SEEDS, st.booleans())
def test_pooled_scores(question, seed, by_question):
    """Means over pairs, or over questions, with the weights of `numpy.average`."""
    right = np.random.default_rng(seed).integers(0, 2, (3, len(question)))
    scores = PooledScores(torch.from_numpy(right), PooledPairs(torch.tensor(question), by_question=by_question))
    names, index, count = np.unique(question, return_inverse=True, return_counts=True)
    weight = 1 / count[index] if by_question else None
    assert scores.per_seed() == pytest.approx(np.average(right, axis=1, weights=weight).tolist())
    assert scores.estimate().mean == pytest.approx(np.average(right.mean(0), weights=weight))
    by_task = [right[:, index == i].mean(1) for i in range(len(names))]
    np.testing.assert_allclose(scores.by_task().numpy(), np.stack(by_task, 1))


@given(st.integers(1, 6), st.integers(1, 9), st.data())
def test_ranks(B, Q, data):
    scores = data.draw(st.lists(st.lists(st.integers(0, 4), min_size=Q, max_size=Q), min_size=B, max_size=B))
    target = data.draw(st.lists(st.integers(0, Q - 1), min_size=B, max_size=B))
    expected = stats.rankdata(-np.array(scores), method="max", axis=1)[np.arange(B), target]
    assert ranks(torch.tensor(scores), torch.tensor(target)).tolist() == expected.tolist()


@given(SEEDS, st.integers(1, 5), st.integers(2, 12), st.integers(2, 6), st.integers(2, 16))
def test_loss_and_accuracy(seed, T, N, C, D):
    batch = random_batch(T, N, C, D, seed)
    network = CLIPAdapter(AdapterConfig(hidden=2), D)
    logits = network.logits(None, batch)
    for i, (loss, accuracy) in enumerate(zip(task_loss(logits, batch), task_accuracy(logits, batch), strict=True)):
        n, c = int(batch.example_mask[i].sum()), int(batch.answer_mask[i].sum())
        scores, labels = logits[i, :n, :c].double().numpy(), batch.labels[i, :n].numpy()
        expected = -special.log_softmax(scores, axis=1)[np.arange(n), labels].mean()
        assert float(loss) == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert float(accuracy) == pytest.approx((scores.argmax(1) == labels).mean())


@given(SEEDS, st.integers(1, 5), st.integers(2, 9), st.integers(1, 16), st.floats(0.1, 200))
def test_probabilities(seed, N, C, D, scale):
    g = torch.Generator().manual_seed(seed)
    unit = lambda *shape: torch.nn.functional.normalize(torch.randn(*shape, generator=g), dim=-1)
    x, answers = unit(N, D), unit(C, D)
    adapter = Adapter(None, CLIPAdapter(AdapterConfig(hidden=2), D), backbone=None, provenance={"scale": scale})
    expected = special.softmax(scale * x.double().numpy() @ answers.double().numpy().T, axis=1)
    np.testing.assert_allclose(adapter.probabilities_of(x, answers).numpy(), expected, atol=1e-3)


@given(SEEDS, st.integers(1, 80), st.integers(1, 20))
def test_reliability_and_calibration_error(seed, M, bins):
    g = np.random.default_rng(seed)
    confidence, right, weight = g.random(M), g.integers(0, 2, M).astype(bool), g.dirichlet(np.ones(M))
    found = reliability(Answers(*map(torch.from_numpy, (confidence, right, weight))), bins)
    total = lambda values: stats.binned_statistic(confidence, values, "sum", bins, range=(0, 1)).statistic
    share = total(weight)
    np.testing.assert_allclose(found.share.numpy(), share, atol=1e-12)
    np.testing.assert_allclose((found.share * found.confidence).numpy(), total(weight * confidence), atol=1e-12)
    np.testing.assert_allclose((found.share * found.accuracy).numpy(), total(weight * right), atol=1e-12)
    gap = np.abs(total(weight * confidence) - total(weight * right)).sum()
    assert calibration_error(found) == pytest.approx(gap, abs=1e-9)


@given(SEEDS, st.integers(1, 4), st.integers(4, 20), st.integers(2, 5))
def test_the_fitted_scale_has_the_least_cross_entropy(seed, T, N, C):
    batch = random_batch(T, N, C, D=4, seed=seed)
    cosines = batch.images @ batch.answers.mT + 0.5 * torch.randn(
        (*batch.images.shape[:2], C), generator=torch.Generator().manual_seed(seed)
    )

    def loss(log_scale: float) -> float:
        logits = (np.exp(log_scale) * cosines.double()).masked_fill(~batch.answer_mask[:, None], -torch.inf)
        return float(task_loss(logits, batch).mean())

    found = np.log(fit_scale(cosines, batch))
    best = optimize.minimize_scalar(loss, bounds=(np.log(1e-2), np.log(1e4)), method="bounded")
    assert np.log(1e-2) <= found <= np.log(1e4) and loss(found) <= best.fun + 1e-6


@given(SEEDS, st.integers(1, 6), st.integers(1, 5), st.floats(0, 3))
def test_the_contrastive_loss(seed, B, E, logit_scale):
    g = torch.Generator().manual_seed(seed)
    h, e = (torch.nn.functional.normalize(torch.randn(B, E, generator=g), dim=-1) for _ in range(2))
    logits = np.exp(logit_scale) * h.double().numpy() @ e.double().numpy().T
    both = [-np.diagonal(special.log_softmax(logits, axis=axis)).mean() for axis in (0, 1)]
    found = hyperclip_loss(h, e, torch.tensor(logit_scale))
    assert float(found) == pytest.approx(np.mean(both), rel=1e-4, abs=1e-4)


@given(SEEDS, st.integers(1, 5), st.integers(1, 4))
def test_the_divergence_of_the_hvae(seed, B, Z):
    """KL(q(z | w) || N(0, I)), from the entropy and the cross-entropy of normal distributions."""
    torch.manual_seed(seed)
    model = HVAE(HVAEConfig(latent=Z, hidden=(4,), kl_weight=2.0, reconstruction="mean"), num_params=6)
    w = torch.randn(B, 6)
    with torch.no_grad():
        terms, _ = model.losses(w, torch.zeros(B, Z))
        mu, log_var = (part.double().numpy() for part in model.posterior(w))
    entropy = stats.norm.entropy(mu, np.exp(0.5 * log_var)).sum(1)
    cross = (0.5 * np.log(2 * np.pi) + 0.5 * (mu**2 + np.exp(log_var))).sum(1)
    np.testing.assert_allclose(terms["kl"].numpy(), 2.0 * (cross - entropy), rtol=1e-4, atol=1e-5)


@given(SEEDS, st.integers(2, 30), st.integers(1, 6), st.floats(1e-3, 1))
def test_whitening_is_the_symmetric_inverse_root(seed, count, E, shrinkage):
    e = np.random.default_rng(seed).normal(size=(count, E)) * np.arange(1, E + 1)
    whitening = Whitening(E, shrinkage)
    whitening.fit(torch.from_numpy(e))
    covariance = np.cov(e.T, bias=True).reshape(E, E)
    root = linalg.inv(linalg.sqrtm(covariance + shrinkage * np.linalg.eigvalsh(covariance)[-1] * np.eye(E)))
    expected = (e - e.mean(0)) @ root.real
    found = whitening(torch.from_numpy(e).float()).double().numpy()
    np.testing.assert_allclose(found, expected / np.sqrt((expected**2).mean()), rtol=1e-3, atol=1e-3)
