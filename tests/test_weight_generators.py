"""Every weight generator, through the protocol by which HyperCLIP guidance and HyperLDM search it."""

import math

import pytest
import torch

from core.adaptation.few_shot import few_shot_from_latents
from core.methods import method_of, row_of
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.hvae import HVAE, HVAEConfig
from core.networks.hypernet import HNet, HNetConfig
from core.networks.weight_generator import WEIGHT_GENERATORS, WeightGenerator
from tests.conftest import random_batch

NETWORK = CLIPAdapter(AdapterConfig(hidden=4), dim=16)
P = NETWORK.num_params


def make_hvae() -> HVAE:
    model = HVAE(HVAEConfig(latent=6, hidden=(8,)), num_params=P)
    model.set_statistics(torch.randn(P), torch.rand(P) + 0.5)
    return model.requires_grad_(False)


def make_hnet() -> HNet:
    return HNet(HNetConfig(latent=6, hidden=8), network=NETWORK).requires_grad_(False)


@pytest.fixture(params=[make_hvae, make_hnet], ids=["hvae", "hnet"])
def generator(request) -> WeightGenerator:
    torch.manual_seed(0)
    return request.param()


def adapted(generator: WeightGenerator) -> torch.Tensor:
    """What fine-tuning made, (5, K): weights for the HVAE, latents for the HNet."""
    return torch.randn(5, P if generator.name == "hvae" else 6, generator=torch.Generator().manual_seed(1))


def test_it_is_what_its_name_calls(generator):
    assert WEIGHT_GENERATORS[generator.name] is type(generator)
    assert (generator.latent, generator.num_params) == (6, P)
    assert generator.label and generator.checkpoint and generator.guidance_starts
    assert method_of(row_of("hyperldm", generator.name)) == ("hyperldm", generator.name)


def test_latents_decode_to_weights(generator):
    z = generator.encode(adapted(generator))
    assert z.shape == (5, 6) and generator.decode(z).shape == (5, P)
    torch.testing.assert_close(generator.decode(z)[2], generator.decode(z[2:3])[0])
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(generator.decode(leaf)[0].sum(), leaf)  # guidance descends on z
    assert gradient[0].abs().sum() > 0 and (gradient[1:] == 0).all()


@pytest.mark.parametrize("some", [slice(3, 50), slice(0, P), slice(P - 5, P + 11), slice(7, 8)])
def test_some_coordinates_are_those_of_the_whole(generator, some):
    x = adapted(generator)
    z = generator.encode(x)
    torch.testing.assert_close(generator.decode(z, some), generator.decode(z)[:, some])
    torch.testing.assert_close(generator.adapted_weights(x, some), generator.adapted_weights(x)[:, some])
    assert generator.adapted_weights(x).shape == (5, P)


def test_start_is_a_function_of_the_random_state_and_scales(generator):
    start = lambda scale=1.0, seed=0: generator.start(torch.Generator().manual_seed(seed), scale)
    assert start().shape == (6,) and torch.equal(start(), start())
    torch.testing.assert_close(start(0.5), 0.5 * start())
    assert (start(0.0) == 0).all()


def test_the_hvae_starts_at_a_draw_of_its_prior_and_the_hnet_at_z0():
    hvae, hnet = make_hvae(), make_hnet()
    draws = torch.stack([hvae.start(torch.Generator().manual_seed(seed)) for seed in range(500)])
    assert abs(float(draws.mean())) < 0.05 and float(draws.std()) == pytest.approx(1, rel=0.05)
    assert torch.equal(hnet.start(torch.Generator().manual_seed(3)), hnet.z0)


def test_what_fine_tuning_makes_is_weights_for_the_hvae_and_latents_for_the_hnet():
    hvae, hnet = make_hvae(), make_hnet()
    w, z = adapted(hvae), adapted(hnet)
    assert torch.equal(hvae.adapted_weights(w), w) and torch.equal(hnet.encode(z), z)
    assert torch.equal(hvae.encode(w), hvae.posterior(w)[0])
    assert torch.equal(hnet.adapted_weights(z), hnet.decode(z))


def test_the_hvae_decodes_as_its_formula_says():
    model, z = make_hvae(), torch.randn(4, 6)
    first, last = model.decoder[0], model.decoder[-1]
    hidden = torch.relu(z @ first.weight.T + first.bias)
    expected = model.w_mean + model.w_std * (hidden @ last.weight.T + last.bias)
    torch.testing.assert_close(model.decode(z), expected)


def test_a_coordinate_that_never_moved_is_not_blown_up():
    model, std = make_hvae(), torch.ones(P)
    std[3] = 0.0
    model.set_statistics(torch.zeros(P), std)
    assert float(model.w_std[3]) == pytest.approx(0.01, rel=1e-4) and float(model.w_std[0]) == 1.0
    mu, log_var = model.posterior(torch.zeros(2, P).index_fill(1, torch.tensor(3), 1.0))
    assert mu.isfinite().all() and log_var.isfinite().all() and log_var.max() <= 5 and log_var.min() >= -10


def test_latents_adapt_to_a_support_set(generator):
    batch, z = random_batch(T=5, D=16), generator.encode(adapted(generator))
    network = CLIPAdapter(AdapterConfig(hidden=4), dim=16, scale=10.0)
    w = few_shot_from_latents(network, generator, z, batch, steps=20, lr=0.05 / math.sqrt(P))
    assert w.shape == (5, P) and not w.requires_grad
    before, after = network.loss(generator.decode(z), batch), network.loss(w, batch)
    assert after.mean() < before.mean()
    torch.testing.assert_close(
        few_shot_from_latents(network, generator, z, batch, steps=0, lr=1.0), generator.decode(z)
    )
