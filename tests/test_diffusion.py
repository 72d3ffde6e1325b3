"""Schedules, samplers and guidance, against closed forms and against diffusers."""

import pytest
import torch

from core.diffusion.guidance import classifier_free, conditional, gradient_guidance
from core.diffusion.samplers import (
    SAMPLERS,
    sample_ddim,
    sample_ddpm,
    sample_dpmpp_2m,
    shared_normal,
    standard_normal,
    timesteps,
)
from core.diffusion.schedule import NoiseSchedule, diffusion_loss, linear_schedule, q_sample
from core.networks.hyperldm import HyperLDM, HyperLDMConfig

SCHEDULE = linear_schedule()
MEAN, STD = 2.0, 0.5


def exact_denoiser(schedule: NoiseSchedule, mean: float = MEAN, std: float = STD):
    """The posterior-mean noise prediction for data N(mean, std^2)."""

    def eps_fn(z, t):
        alpha_bar = schedule.alpha_bar[t][:, None]
        variance = alpha_bar * std**2 + 1 - alpha_bar
        return ((1 - alpha_bar).sqrt() * (z - alpha_bar.sqrt() * mean) / variance).to(z.dtype)

    return eps_fn


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("steps", [350, 35])
def test_a_gaussian_comes_back(name, steps):
    noise = standard_normal(torch.Generator().manual_seed(0))
    z = SAMPLERS[name](exact_denoiser(SCHEDULE), noise(torch.empty(20_000, 1)), SCHEDULE, steps=steps, noise=noise)
    assert float(z.mean()) == pytest.approx(MEAN, rel=0.05)
    assert float(z.std()) == pytest.approx(STD, rel=0.05)


def test_noisy_ddim_and_both_variances_bring_it_back_too():
    noise = standard_normal(torch.Generator().manual_seed(0))
    z_T = noise(torch.empty(20_000, 1))
    for z in (
        sample_ddim(exact_denoiser(SCHEDULE), z_T, SCHEDULE, eta=1.0, noise=noise),
        sample_ddpm(exact_denoiser(SCHEDULE), z_T, SCHEDULE, variance="beta", noise=noise),
        sample_ddpm(exact_denoiser(SCHEDULE), z_T, SCHEDULE, variance="beta_tilde", noise=noise),
    ):
        assert float(z.mean()) == pytest.approx(MEAN, rel=0.05) and float(z.std()) == pytest.approx(STD, rel=0.05)


def test_linear_means_linear_in_beta():
    assert SCHEDULE.betas[0] == pytest.approx(1e-4) and SCHEDULE.betas[-1] == pytest.approx(0.06)
    torch.testing.assert_close(SCHEDULE.betas.diff(), SCHEDULE.betas.diff().mean().expand(349))
    assert float(SCHEDULE.alpha_bar[-1]) == pytest.approx(2.2e-5, rel=0.05)


def test_timesteps_include_the_noisiest_and_are_distinct():
    for steps in (1, 2, 10, 50, 349, 350):
        sequence = timesteps(SCHEDULE, steps).tolist()
        assert sequence[0] == 349 and len(set(sequence)) == steps and sequence == sorted(sequence, reverse=True)
    for bad in (0, 351):
        with pytest.raises(ValueError, match="1 to 350"):
            timesteps(SCHEDULE, bad)


def test_loss_of_the_true_noise_is_zero():
    z0, eps, t = torch.randn(16, 3), torch.randn(16, 3), torch.randint(350, (16,))
    loss, out, z_t = diffusion_loss(lambda z, t: eps, eps, z0, t, eps, SCHEDULE)
    assert loss == 0 and torch.equal(out, eps) and torch.equal(z_t, q_sample(z0, t, eps, SCHEDULE))
    early = q_sample(z0, torch.zeros(16, dtype=torch.long), eps, SCHEDULE)
    torch.testing.assert_close(early, z0, atol=0.05, rtol=0)


def nonlinear(z, t):
    return torch.tanh(z * 0.7 + 0.1) * (0.3 + 0.002 * t[:, None].to(z.dtype))


@pytest.mark.parametrize("steps", [350, 35])
def test_parity_with_diffusers(steps):
    diffusers = pytest.importorskip("diffusers")
    settings = dict(num_train_timesteps=350, trained_betas=SCHEDULE.betas.numpy(), clip_sample=False)
    noise = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sequence = timesteps(SCHEDULE, steps)

    def walk(scheduler):
        z = noise.clone()
        for t in sequence:
            z = scheduler.step(nonlinear(z, t.repeat(6)), t, z).prev_sample
        return z

    ddim = diffusers.DDIMScheduler(**settings, set_alpha_to_one=True)
    if steps == 350:  # diffusers derives t_prev from an integer ratio, right only for the full walk
        ddim.set_timesteps(350)
        torch.testing.assert_close(sample_ddim(nonlinear, noise, SCHEDULE), walk(ddim), rtol=1e-4, atol=1e-5)
        ddpm = diffusers.DDPMScheduler(**settings, variance_type="fixed_small")
        one = ddpm.step(nonlinear(noise, torch.full((6,), 200)), 200, noise, generator=torch.Generator().manual_seed(5))
        alpha_bar = SCHEDULE.alpha_bar
        pair = NoiseSchedule(torch.tensor([1 - alpha_bar[199], 1 - alpha_bar[200] / alpha_bar[199]]))
        seen = []
        sample_ddpm(
            lambda z, t: nonlinear(noise, torch.full((6,), 200)) if len(seen) < 1 else torch.zeros_like(z),
            noise,
            pair,
            variance="beta_tilde",
            noise=standard_normal(torch.Generator().manual_seed(5)),
            callback=lambda i, t, z, z0: seen.append(z),
        )
        torch.testing.assert_close(seen[1], one.prev_sample, rtol=1e-4, atol=1e-5)
    solver = diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=350,
        trained_betas=SCHEDULE.betas.numpy(),
        solver_order=2,
        algorithm_type="dpmsolver++",
        final_sigmas_type="zero",
        lower_order_final=False,
        euler_at_final=True,
    )
    solver.set_timesteps(timesteps=sequence.tolist())
    torch.testing.assert_close(
        sample_dpmpp_2m(nonlinear, noise, SCHEDULE, steps=steps), walk(solver), rtol=1e-3, atol=1e-4
    )


@pytest.fixture
def denoiser():
    torch.manual_seed(0)
    model = HyperLDM(HyperLDMConfig(hidden=(16, 16), time_dim=6), latent=4, dim=8).eval()
    torch.nn.init.normal_(model.outlet.weight)
    return model.requires_grad_(False)


@pytest.mark.parametrize("name", [*sorted(SAMPLERS), "ddim, eta 1"])
@pytest.mark.parametrize("samples", [1, 3])
def test_noise_of_a_question_depends_on_no_other(denoiser, name, samples):
    """The same question and seed alone, first of eight and last of eight."""
    sampler = SAMPLERS.get(name, lambda *a, **k: sample_ddim(*a, eta=1.0, **k))
    e = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))

    def latents(e, seed=0):
        noise = shared_normal(samples, torch.Generator().manual_seed(seed))
        z_T = noise(torch.empty(samples * len(e), 4))
        z = sampler(conditional(denoiser, e.repeat(samples, 1)), z_T, SCHEDULE, steps=10, noise=noise)
        return z.view(samples, len(e), 4)

    alone, first, last = latents(e[:1])[:, 0], latents(e)[:, 0], latents(e.flip(0))[:, -1]
    torch.testing.assert_close(first, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(last, alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(latents(e[:1], seed=1)[:, 0], alone, atol=1e-2)
    if samples > 1:  # draws of their own
        assert (alone[0] - alone[1]).abs().max() > 1e-2


def test_shared_noise_is_standard_normal_over_samples_and_steps():
    noise = shared_normal(500, torch.Generator().manual_seed(0))
    drawn = torch.stack([noise(torch.empty(500 * 3, 4)) for _ in range(4)]).view(4, 500, 3, 4)
    assert torch.equal(drawn[:, :, 0], drawn[:, :, 2]) and not torch.equal(drawn[0], drawn[1])
    assert float(drawn.mean()) == pytest.approx(0, abs=0.05) and float(drawn.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.5])
def test_samples_share_what_is_made_of_their_questions(denoiser, gamma):
    z, t, e = torch.randn(3 * 5, 4), torch.full((15,), 30), torch.randn(5, 8)
    shared = classifier_free(denoiser, e, gamma)(z, t)
    torch.testing.assert_close(shared, classifier_free(denoiser, e.repeat(3, 1), gamma)(z, t))


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_what_is_computed_once_is_what_training_predicts(prediction):
    """The condition's part of every layer, shared by three latents a question, against layers as training runs them."""
    torch.manual_seed(0)
    model = HyperLDM(HyperLDMConfig(hidden=(16, 8, 8), time_dim=6, squeeze=2, prediction=prediction), latent=4, dim=5)
    torch.nn.init.normal_(model.outlet.weight)
    e, z_t, t = torch.randn(2, 5), torch.randn(6, 4), torch.tensor([0, 3, 9, 20, 200, 349])
    e[1] = 0.0  # no condition
    model.condition.fit(torch.randn(9, 5))
    out = model.predict(z_t, t, e.repeat(3, 1))
    z0 = model.to_z0(out, z_t, t)
    alpha_bar = model.alpha_bar[t][:, None]
    torch.testing.assert_close(alpha_bar.sqrt() * z0 + (1 - alpha_bar).sqrt() * model.given(e)(z_t, t), z_t)


def test_guidance_convention(denoiser):
    z, t, e = torch.randn(5, 4), torch.full((5,), 30), torch.randn(5, 8)
    with_e, without = conditional(denoiser, e)(z, t), conditional(denoiser, torch.zeros_like(e))(z, t)
    assert torch.equal(classifier_free(denoiser, e, 1.0)(z, t), with_e)
    assert torch.equal(classifier_free(denoiser, e, 0.0)(z, t), without)
    torch.testing.assert_close(classifier_free(denoiser, e, 2.5)(z, t), -1.5 * without + 2.5 * with_e)
    assert torch.equal(classifier_free(denoiser, e, torch.tensor(2.5))(z, t), classifier_free(denoiser, e, 2.5)(z, t))
    assert not torch.allclose(with_e, without)
    with pytest.raises(ValueError, match="gamma -1"):
        classifier_free(denoiser, e, -1)


def test_gradient_guidance_samples_the_product():
    """Data N(0, 1) under a Gaussian likelihood around 2 with variance 1 has posterior N(1, 1/2)."""
    prior = exact_denoiser(SCHEDULE, 0.0, 1.0)

    def log_prob(
        z0,
    ):  # of y = 2 given z_t, through the predicted z_0; s.d. wide enough that its uncertainty matters little
        return -0.5 * ((2.0 - z0) ** 2).sum(-1) / 4.0

    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    z = sample_ddim(gradient_guidance(prior, log_prob, SCHEDULE, 1.0), noise, SCHEDULE, steps=100)
    assert float(z.mean()) == pytest.approx(2 / 5, abs=0.1)
    unguided = sample_ddim(gradient_guidance(prior, log_prob, SCHEDULE, 0.0), noise, SCHEDULE, steps=100)
    assert float(unguided.mean()) == pytest.approx(0.0, abs=0.03)


@pytest.mark.parametrize(
    "call, word",
    [
        (lambda z: sample_ddim(nonlinear, z, SCHEDULE, eta=2.0), "eta"),
        (lambda z: sample_ddpm(nonlinear, z, SCHEDULE, variance="mean"), "beta_tilde"),
        (lambda z: NoiseSchedule(torch.tensor([0.1, 1.5])), "betas"),
    ],
)
def test_bad_values_are_named(call, word):
    with pytest.raises(ValueError, match=word):
        call(torch.zeros(1, 2))
