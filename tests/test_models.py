"""Hypernetworks, HVAE, HyperCLIP, HyperLDM: shapes, statistics, gradients, and equivalences with plain formulas."""

import dataclasses
import math

import pytest
import torch

from core.diffusion.schedule import q_sample
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.ema import EMA
from core.networks.film import FilmConfig, FilmModel
from core.networks.hvae import HVAE, HVAEConfig
from core.networks.hyperclip import (
    HyperCLIP,
    HyperCLIPConfig,
    embed_latents,
    guide_latent,
    hyperclip_loss,
    infer_task,
    ranks,
)
from core.networks.hyperldm import HyperLDM, HyperLDMConfig, drop_condition
from core.networks.hypernet import CondHyperNet, CondHyperNetConfig, HNet, HNetConfig
from core.networks.weight_model import SharedWeights

NETWORK = CLIPAdapter(AdapterConfig(hidden=4), dim=16)
SMALL_LDM, SIZES = HyperLDMConfig(hidden=(32, 24), time_dim=10), {"latent": 6, "dim": 16}


def every_parameter_gets_gradient(module, output):
    output.square().sum().backward()
    return [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize(
    "make",
    [
        lambda network, rng: HNet(HNetConfig(latent=64), network=network, rng=rng),
        lambda network, rng: CondHyperNet(CondHyperNetConfig(), network=network, rng=rng),
    ],
)
def test_hypernet_starts_at_the_networks_own_scale(make):
    network = CLIPAdapter(AdapterConfig(hidden=16), dim=64)
    net = make(network, torch.Generator().manual_seed(0))
    parts = network.unpack(net.decode(torch.randn(50, 64)).detach())
    assert parts["W1"].std() == pytest.approx(1.0, rel=0.1)
    assert 0.05 < float(parts["W2"].std()) < 0.3


def weight_models():
    """One model of every kind, on 16-dimensional questions."""
    rng = torch.Generator().manual_seed(0)
    film = FilmModel(FilmConfig(cond_noise=0.5), network=NETWORK, rng=rng)
    torch.nn.init.normal_(film.film.weight)
    return [
        SharedWeights(network=NETWORK, rng=rng),
        HNet(HNetConfig(latent=8, hidden=16), network=NETWORK, rng=rng),
        CondHyperNet(CondHyperNetConfig(hidden=16, cond_noise=0.5), network=NETWORK, rng=rng),
        film,
    ]


@pytest.mark.parametrize("model", weight_models(), ids=lambda model: model.name)
def test_every_parameter_of_a_weight_model_learns(model):
    e = torch.randn(3, 16)
    model.fit(torch.randn(20, 16))
    assert model.weights(e).shape == (3, NETWORK.num_params)
    assert every_parameter_gets_gradient(model, model.weights(e)) == []


@pytest.mark.parametrize("model", weight_models(), ids=lambda model: model.name)
def test_weights_are_what_the_start_of_adaptation_decodes_to(model):
    """And noise on a question, where a model takes any, is what the caller passes, no other."""
    e, noise = torch.randn(3, 16), torch.randn(3, model.condition_dim)
    torch.testing.assert_close(model.weights(e), model.decode(model.initial(e)))
    torch.testing.assert_close(model.weights(e, noise), model.decode(model.initial(e, noise)))
    assert torch.equal(model.weights(e), model.train().weights(e))
    if model.condition_dim:
        assert model.condition_dim == 16 and not torch.allclose(model.weights(e, noise), model.weights(e))
        torch.testing.assert_close(model.initial(e, noise) - model.initial(e), 0.5 * noise, rtol=1e-4, atol=1e-5)
    else:
        torch.testing.assert_close(model.weights(e, noise), model.weights(e[:1]).expand(3, -1))


@pytest.mark.parametrize("reconstruction", ["authors", "mean"])
def test_hvae_learns_a_low_dimensional_family(reconstruction):
    torch.manual_seed(0)
    w = 3 + torch.randn(64, 2) @ torch.randn(2, 40)
    w[:, 0] = 7.0  # a coordinate that never moves
    model = HVAE(HVAEConfig(latent=4, hidden=(64,), kl_weight=0.01, reconstruction=reconstruction), num_params=40)
    model.set_statistics(w.mean(0), w.std(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(600):
        terms, _ = model.losses(w, torch.randn(64, 4))
        loss = sum(term.mean() for term in terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    decoded = model.decode(model.encode(w))
    assert float((decoded - w)[:, 1:].square().mean() / w[:, 1:].var()) < 0.1
    assert (decoded[:, 0] - 7.0).abs().max() < 0.5


def test_hvae_loss_scales_as_stated():
    model = HVAE(HVAEConfig(latent=3, hidden=(8,)), num_params=20)
    w, noise = torch.randn(5, 20), torch.randn(5, 3)
    terms, decoded = model.losses(w, noise)
    torch.testing.assert_close(terms["reconstruction"], (decoded - w).square().sum(-1) / math.sqrt(20))
    mu, log_var = model.posterior(w)
    q = torch.distributions.Normal(mu, (0.5 * log_var).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(terms["kl"], kl / math.sqrt(20), rtol=1e-4, atol=1e-5)


def test_losses_of_the_hvae_stay_float32_under_autocast():
    """Only the towers' products are bfloat16: the posterior and every loss taken of it keep float32's digits."""
    torch.manual_seed(0)
    model = HVAE(HVAEConfig(latent=3, hidden=(8,)), num_params=20)
    w, noise = torch.randn(5, 20), torch.randn(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        mu, log_var = model.posterior(w)
        terms, decoded = model.losses(w, noise)
        part = model.decode(noise, slice(2, 9))
    assert {x.dtype for x in (mu, log_var, decoded, part, *terms.values())} == {torch.float32}
    torch.testing.assert_close(terms["reconstruction"], (decoded - w).square().sum(-1) / math.sqrt(20))
    kl = 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(-1) / math.sqrt(20)
    torch.testing.assert_close(terms["kl"], kl)
    assert not torch.equal(terms["kl"], terms["kl"].bfloat16().float())  # more digits than bfloat16 has


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


def test_a_tied_rank_counts_against_the_target():
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.3, 0.1]])
    assert ranks(scores, torch.tensor([2, 0])).tolist() == [2, 2]


def test_noise_on_questions_is_the_callers():
    model = HyperCLIP(HyperCLIPConfig(hidden=8, cond_noise=0.5), num_params=20, dim=16)
    e, noise = torch.randn(6, 16), torch.randn(6, 16)
    assert torch.equal(model.train().embed_questions(e), model.eval().embed_questions(e))
    expected = torch.nn.functional.normalize(model.condition(e) + 0.5 * noise, dim=-1)
    torch.testing.assert_close(model.embed_questions(e, noise), expected)


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
    for n in (3, 4):
        with pytest.raises(ValueError, match=f"4 components need more than 4 weight vectors, got {n}"):
            model.set_components(w[:n], e)
    with pytest.raises(ValueError, match="50 components of 40 weights; components must be at most the number of weig"):
        HyperCLIP(HyperCLIPConfig(hidden=8, components=50), num_params=40, dim=16)


@pytest.mark.parametrize("options", [{"components": -1}, {"decoded_share": 1.5}])
def test_hyperclip_refuses_settings_out_of_range(options):
    with pytest.raises(ValueError, match="allowed: 0"):
        HyperCLIPConfig(**options)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_guidance_raises_the_cosine_of_each_task_alone(optimizer):
    model, e = trained_hyperclip()
    cosine = lambda z, rows: (model(z) * model.embed_questions(e[rows])).sum(-1)
    z0, rows, target = torch.zeros(4, 16), torch.arange(4), model.embed_questions(e[:4])
    seen = []
    z = guide_latent(z0, target, model, optimizer=optimizer, callback=lambda i, z, c: seen.append(c))
    assert len(seen) == 10 and (cosine(z, rows) > cosine(z0, rows)).all()
    alone = guide_latent(z0[:1], target[:1], model, optimizer=optimizer)
    torch.testing.assert_close(z[:1], alone)
    torch.testing.assert_close(guide_latent(z0, target, model, steps=0), z0)
    far = guide_latent(z0, target, model, steps=50, lam=0.0, optimizer=optimizer)
    near = guide_latent(z0, target, model, steps=50, lam=10.0, optimizer=optimizer)
    assert (near.norm(dim=-1) < far.norm(dim=-1)).all()


@pytest.mark.parametrize("optimizer, of_torch", [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)])
def test_guidance_descends_as_the_optimizer_of_torch(optimizer, of_torch):
    model, e = trained_hyperclip()
    target, z0 = model.embed_questions(e[:4]), torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    z = z0.clone().requires_grad_()
    descent = of_torch([z], 0.1)
    for _ in range(12):
        descent.zero_grad()
        (0.01 * ((z - z0).square().sum(-1) + 1e-12).sqrt() - (model(z) * target).sum(-1)).sum().backward()
        descent.step()
    found = guide_latent(z0, target, model, steps=12, optimizer=optimizer)
    torch.testing.assert_close(found, z.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("components", [0, 6])
def test_what_is_multiplied_out_embeds_as_the_models_in_turn(components):
    torch.manual_seed(0)
    network = CLIPAdapter(AdapterConfig(hidden=3), 8)
    clip = HyperCLIP(HyperCLIPConfig(hidden=5, components=components), num_params=network.num_params, dim=7)
    w, e = torch.randn(20, network.num_params), torch.randn(20, 7)
    if components:
        clip.set_components(w, e)
    else:
        clip.set_statistics(w.mean(0), w.std(0), e)
    hvae = HVAE(HVAEConfig(latent=4, hidden=(9,)), num_params=network.num_params)
    hvae.set_statistics(w.mean(0), w.std(0))

    class Other(HVAE):  # a decoder that does not end in an affine map
        def affine_end(self):
            return None

    other = Other(hvae.config, num_params=network.num_params)
    other.load_state_dict(hvae.state_dict())
    z = torch.randn(6, 4)
    for generator in (hvae, other, HNet(HNetConfig(latent=4, hidden=9), network=network)):
        embedded = embed_latents(generator, clip)(z)
        torch.testing.assert_close(embedded, clip(generator.decode(z)), atol=1e-5, rtol=1e-4)


def test_every_part_of_the_denoiser_learns():
    torch.manual_seed(0)
    model = HyperLDM(SMALL_LDM, **SIZES)
    torch.nn.init.normal_(model.outlet.weight)
    out = model(torch.randn(8, 6), torch.randint(350, (8,)), torch.randn(8, 16))
    assert out.shape == (8, 6)
    assert every_parameter_gets_gradient(model, out) == []


def test_noise_on_the_denoisers_condition_is_the_callers_and_spares_dropped_ones():
    torch.manual_seed(0)
    model = HyperLDM(dataclasses.replace(SMALL_LDM, cond_noise=0.5), **SIZES)
    torch.nn.init.normal_(model.outlet.weight)
    z, t, e, noise = torch.randn(8, 6), torch.arange(8), torch.randn(8, 16), torch.randn(8, 16)
    e[::2] = 0.0
    plain, noisy = model.train().predict(z, t, e), model.predict(z, t, e, noise)
    assert torch.equal(plain, model.eval().predict(z, t, e))
    same = torch.isclose(plain, noisy).all(-1)
    assert same.tolist() == [True, False] * 4


def test_denoiser_statistics_are_saved_and_invertible():
    model = HyperLDM(SMALL_LDM, **SIZES)
    z = 5 + 3 * torch.randn(200, 6)
    model.set_statistics(z, torch.randn(20, 16))
    torch.testing.assert_close(model.unstandardise(model.standardise(z)), z)
    assert model.standardise(z).std() == pytest.approx(1.0, rel=0.02)
    assert {"z_mean", "z_std", "condition.mean", "condition.matrix"} <= set(model.state_dict())


def test_papers_denoiser_size():
    with torch.device("meta"):
        model = HyperLDM(HyperLDMConfig(), latent=32, dim=768)
    # 8192, 16384, 8192: two maps of 134 M between layers, as much again for the skips that change width, and the gates
    assert sum(p.numel() for p in model.parameters()) == 609_527_328


def test_dropped_conditions_are_zeros_at_the_asked_rate():
    e = torch.randn(5000, 16)
    kept = drop_condition(e, 0.2, torch.Generator().manual_seed(0))
    dropped = (kept == 0).all(-1)
    assert float(dropped.float().mean()) == pytest.approx(0.2, abs=0.02)
    assert torch.equal(kept[~dropped], e[~dropped])


def test_an_average_over_nothing_is_the_module_itself():
    module = torch.nn.Linear(2, 2)
    ema = EMA(module, decay=0.0)
    ema.update(module)
    assert ema.shipped() is module and ema.state_dict() == {}
    ema.load_state_dict({})


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


def test_ema_in_closed_form():
    """Each update keeps `decay` of the average; the first ones keep less, (1 + n) / (10 + n)."""
    module, expected = torch.nn.Linear(1, 1, bias=False), 0.0
    module.weight.data.zero_()
    ema = EMA(module, decay=0.6)
    for n in range(1, 20):
        module.weight.data.fill_(n)
        ema.update(module)
        decay = min(0.6, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
        assert float(ema.model.weight) == pytest.approx(expected, rel=1e-5)


def test_v_prediction_is_the_same_noise_in_other_words():
    model = HyperLDM(dataclasses.replace(SMALL_LDM, prediction="v"), **SIZES)
    torch.nn.init.normal_(model.outlet.weight)
    g = torch.Generator().manual_seed(0)
    z0, eps, e = torch.randn(8, 6, generator=g), torch.randn(8, 6, generator=g), torch.randn(8, 16, generator=g)
    t = torch.tensor([0, 5, 50, 100, 200, 300, 340, 349])
    z_t = q_sample(z0, t, eps, model.schedule)
    v = model.target(z0, t, eps)
    torch.testing.assert_close(model.to_z0(v, z_t, t), z0, atol=1e-4, rtol=1e-4)
    model._output = lambda *_: v  # a perfect network
    torch.testing.assert_close(model(z_t, t, e), eps, atol=1e-4, rtol=1e-4)
    plain = HyperLDM(SMALL_LDM, **SIZES)
    early = slice(0, 5)  # from the noise, z_0 is lost at large t
    torch.testing.assert_close(plain.to_z0(eps[early], z_t[early], t[early]), z0[early], atol=1e-3, rtol=1e-3)
