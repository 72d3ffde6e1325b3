"""Hypernetworks, HVAE, HyperCLIP, HyperLDM: shapes, statistics, gradients, and equivalences with plain formulas."""

import dataclasses
import math

import pytest
import torch

from core.diffusion.schedule import q_sample
from core.networks.adapter import AdapterConfig, adapter_forward, init_adapter, unpack
from core.networks.hvae import HVAE, HVAEConfig
from core.networks.hyperclip import HyperCLIP, HyperCLIPConfig, guide_latent, hyperclip_loss, infer_task
from core.networks.hyperldm import EMA, HyperLDM, HyperLDMConfig, drop_condition
from core.networks.hypernet import FilmAdapter, FilmConfig, HyperNet, HyperNetConfig

ADAPTER = AdapterConfig(dim=16, hidden=4)
SMALL_LDM = HyperLDMConfig(latent=6, cond_dim=16, hidden=(32, 24), time_dim=10)


def every_parameter_gets_gradient(module, output):
    output.square().sum().backward()
    return [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_hypernet_starts_at_the_adapters_own_scale():
    net = HyperNet(HyperNetConfig(input_dim=64), AdapterConfig(dim=64, hidden=16), torch.Generator().manual_seed(0))
    parts = unpack(net(torch.randn(50, 64)).detach(), net.adapter)
    assert parts["W1"].std() == pytest.approx(1.0, rel=0.1)
    assert 0.05 < float(parts["W2"].std()) < 0.3


@pytest.mark.parametrize(
    "make",
    [
        lambda: (HyperNet(HyperNetConfig(8, 16), ADAPTER), torch.randn(3, 8)),
        lambda: (FilmAdapter(FilmConfig(8), ADAPTER), torch.randn(3, 8)),
    ],
)
def test_every_parameter_of_a_hypernetwork_learns(make):
    module, z = make()
    if isinstance(module, FilmAdapter):
        torch.nn.init.normal_(module.film.weight)
    assert every_parameter_gets_gradient(module, module(z)) == []


def test_folded_film_is_film():
    torch.manual_seed(0)
    film = FilmAdapter(FilmConfig(8), ADAPTER)
    torch.nn.init.normal_(film.film.weight, std=0.3)
    e, images = torch.randn(3, 8), torch.nn.functional.normalize(torch.randn(3, 5, 16), dim=-1)
    scale, shift = film.film(e).chunk(2, -1)
    parts = unpack(film.w, ADAPTER)
    x = images * 4.0  # sqrt(16)
    hidden = torch.relu(x @ parts["W1"].T / 4.0 + parts["b1"])
    hidden = (1 + scale[:, None]) * hidden + shift[:, None]
    expected = torch.nn.functional.normalize(x + hidden @ parts["W2"].T / 2.0 + parts["b2"], dim=-1)
    torch.testing.assert_close(adapter_forward(film(e), images, ADAPTER), expected)


@pytest.mark.parametrize("reconstruction", ["authors", "mean"])
def test_hvae_learns_a_low_dimensional_family(reconstruction):
    torch.manual_seed(0)
    w = 3 + torch.randn(64, 2) @ torch.randn(2, 40)
    w[:, 0] = 7.0  # a coordinate that never moves
    model = HVAE(HVAEConfig(latent=4, hidden=(64,), kl_weight=0.01, reconstruction=reconstruction), 40)
    model.set_statistics(w.mean(0), w.std(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(600):
        terms, _ = model.losses(w, torch.randn(64, 4))
        loss = sum(term.mean() for term in terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    decoded = model.decode(model.encode(w)[0])
    assert float((decoded - w)[:, 1:].square().mean() / w[:, 1:].var()) < 0.1
    assert (decoded[:, 0] - 7.0).abs().max() < 0.5


def test_hvae_loss_scales_as_stated():
    model = HVAE(HVAEConfig(latent=3, hidden=(8,)), 20)
    w, noise = torch.randn(5, 20), torch.randn(5, 3)
    terms, decoded = model.losses(w, noise)
    torch.testing.assert_close(terms["reconstruction"], (decoded - w).square().sum(-1) / math.sqrt(20))
    mu, log_var = model.encode(w)
    q = torch.distributions.Normal(mu, (0.5 * log_var).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(terms["kl"], kl / math.sqrt(20), rtol=1e-4, atol=1e-5)


def trained_hyperclip():
    """HyperCLIP on 12 tasks whose weights are noisy copies of their question."""
    torch.manual_seed(0)
    e = torch.nn.functional.normalize(torch.randn(12, 16), dim=-1)
    model = HyperCLIP(HyperCLIPConfig(hidden=32), num_params=16, dim=16)
    model.set_statistics(e.mean(0), e.std(0), e)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = hyperclip_loss(model(e + 0.02 * torch.randn_like(e)), model.embed_questions(e), model.logit_scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.requires_grad_(False), e


def test_hyperclip_infers_the_task():
    model, e = trained_hyperclip()
    probability = infer_task(model, e, e)
    assert (probability.argmax(-1) == torch.arange(12)).all()
    torch.testing.assert_close(probability.sum(-1), torch.ones(12))


def test_hyperclip_reads_principal_components():
    torch.manual_seed(0)
    e = torch.nn.functional.normalize(torch.randn(12, 16), dim=-1)
    scale = torch.tensor([20.0, 9.0, 5.0, 3.0, *[0.1] * 36])
    w = 2 + scale * torch.randn(300, 40) @ torch.linalg.qr(torch.randn(40, 40)).Q
    model = HyperCLIP(HyperCLIPConfig(hidden=8, components=4), num_params=40, dim=16)
    model.set_components(w, e)
    x = (w - model.w_mean) @ model.projection
    torch.testing.assert_close(x.mT.cov(correction=0), torch.eye(4), rtol=0, atol=1e-4)
    directions = torch.linalg.svd(w - w.mean(0), full_matrices=False).Vh[:4]
    cosine = torch.nn.functional.normalize(model.projection, dim=0).mT @ directions.mT
    torch.testing.assert_close(cosine.abs(), torch.eye(4), rtol=0, atol=1e-3)
    assert model.hidden.in_features == 4 and model(w).shape == (300, 16)
    across = torch.linalg.svd(w - w.mean(0), full_matrices=False).Vh[10]  # what no component holds is not seen
    torch.testing.assert_close(model(w + across), model(w), rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="4 components need more than 4 weights, got 3"):
        model.set_components(w[:3], e)
    with pytest.raises(ValueError, match="50 components of 40 weights"):
        HyperCLIP(HyperCLIPConfig(hidden=8, components=50), num_params=40, dim=16)


@pytest.mark.parametrize("options", [{"components": -1}, {"decoded_share": 1.5}])
def test_hyperclip_refuses_settings_out_of_range(options):
    with pytest.raises(ValueError, match="allowed: 0"):
        HyperCLIPConfig(**options)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_guidance_raises_the_cosine_of_each_task_alone(optimizer):
    model, e = trained_hyperclip()
    cosine = lambda z, rows: (model(z) * model.embed_questions(e[rows])).sum(-1)
    z0, rows = torch.zeros(4, 16), torch.arange(4)
    seen = []
    z = guide_latent(z0, e[rows], lambda z: z, model, optimizer=optimizer, callback=lambda i, z, c: seen.append(c))
    assert len(seen) == 10 and (cosine(z, rows) > cosine(z0, rows)).all()
    alone = guide_latent(z0[:1], e[:1], lambda z: z, model, optimizer=optimizer)
    torch.testing.assert_close(z[:1], alone)
    torch.testing.assert_close(guide_latent(z0, e[rows], lambda z: z, model, steps=0), z0)
    far = guide_latent(z0, e[rows], lambda z: z, model, steps=50, lam=0.0, optimizer=optimizer)
    near = guide_latent(z0, e[rows], lambda z: z, model, steps=50, lam=10.0, optimizer=optimizer)
    assert (near.norm(dim=-1) < far.norm(dim=-1)).all()


def test_every_part_of_the_denoiser_learns():
    torch.manual_seed(0)
    model = HyperLDM(SMALL_LDM)
    torch.nn.init.normal_(model.outlet.weight)
    out = model(torch.randn(8, 6), torch.randint(350, (8,)), torch.randn(8, 16))
    assert out.shape == (8, 6)
    assert every_parameter_gets_gradient(model, out) == []


def test_denoiser_statistics_are_saved_and_invertible():
    model = HyperLDM(SMALL_LDM)
    z = 5 + 3 * torch.randn(200, 6)
    model.set_statistics(z, torch.randn(20, 16))
    torch.testing.assert_close(model.unstandardise(model.standardise(z)), z)
    assert model.standardise(z).std() == pytest.approx(1.0, rel=0.02)
    assert {"z_mean", "z_std", "condition.mean", "condition.matrix"} <= set(model.state_dict())


def test_papers_denoiser_size():
    with torch.device("meta"):
        model = HyperLDM(HyperLDMConfig())
    # 8192, 16384, 8192: two maps of 134 M between layers, as much again for the skips that change width, and the gates
    assert sum(p.numel() for p in model.parameters()) == 609_527_328


def test_dropped_conditions_are_zeros_at_the_asked_rate():
    e = torch.randn(5000, 16)
    kept = drop_condition(e, 0.2, torch.Generator().manual_seed(0))
    dropped = (kept == 0).all(-1)
    assert float(dropped.float().mean()) == pytest.approx(0.2, abs=0.02)
    assert torch.equal(kept[~dropped], e[~dropped])


def test_ema_is_an_average():
    module = torch.nn.Linear(2, 2)
    ema = EMA(module, decay=0.9)
    start = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1.0)
    ema.update(module)
    moved = (ema.model.weight - start).mean()
    assert 0 < float(moved) < 1
    for _ in range(200):
        ema.update(module)
    torch.testing.assert_close(ema.model.weight, module.weight, rtol=1e-3, atol=1e-3)
    other = EMA(module)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 201 and torch.equal(other.model.weight, ema.model.weight)


def test_fresh_adapter_scale():
    w = unpack(
        init_adapter(AdapterConfig(dim=64, hidden=32), torch.Generator().manual_seed(0)),
        AdapterConfig(dim=64, hidden=32),
    )
    assert w["W1"].std() == pytest.approx(1, rel=0.1) and w["W2"].std() == pytest.approx(0.1, rel=0.1)
    assert w["b1"].abs().max() == w["b2"].abs().max() == 0


def test_v_prediction_is_the_same_noise_in_other_words():
    model = HyperLDM(dataclasses.replace(SMALL_LDM, prediction="v"))
    torch.nn.init.normal_(model.outlet.weight)
    g = torch.Generator().manual_seed(0)
    z0, eps, e = torch.randn(8, 6, generator=g), torch.randn(8, 6, generator=g), torch.randn(8, 16, generator=g)
    t = torch.tensor([0, 5, 50, 100, 200, 300, 340, 349])
    z_t = q_sample(z0, t, eps, model.schedule)
    v = model.target(z0, t, eps)
    torch.testing.assert_close(model.to_z0(v, z_t, t), z0, atol=1e-4, rtol=1e-4)
    model.predict = lambda *_: v  # a perfect network
    torch.testing.assert_close(model(z_t, t, e), eps, atol=1e-4, rtol=1e-4)
    plain = HyperLDM(SMALL_LDM)
    early = slice(0, 5)  # from the noise, z_0 is lost at large t
    torch.testing.assert_close(plain.to_z0(eps[early], z_t[early], t[early]), z0[early], atol=1e-3, rtol=1e-3)
