"""Fine-tuned weights of all training tasks, as generative models learn from them."""

import pytest
import torch

from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.hypernet import HNet, HNetConfig
from train import adaptations
from train.pipeline import adapted, graph
from train.pipeline.adapted import AdaptedWeights, draws_folder, load_draws, load_generator, training_latents
from train.pipeline.flags import open_run, parser

NETWORK = CLIPAdapter(AdapterConfig(hidden=4), dim=16)


def tiny_run(tiny, *flags):
    return open_run(parser("").parse_args(["--preset", "tiny", "--work", str(tiny), "--device", "cpu", *flags]))


@pytest.fixture(params=["weights", "latents"])
def source(request):
    """Three draws of seven tasks; the same weights in full (3, 7, P), and how they are asked for."""
    rng = torch.Generator().manual_seed(0)
    if request.param == "weights":
        draws = torch.randn(3, 7, NETWORK.num_params, generator=rng).half()
        return AdaptedWeights(list(draws), torch.device("cpu")), draws.float()
    model = HNet(HNetConfig(latent=5, hidden=6), network=NETWORK, rng=rng).requires_grad_(False)
    draws = torch.randn(3, 7, 5, generator=rng).half()
    w = model.decode(draws.float().flatten(0, 1)).view(3, 7, -1)
    return AdaptedWeights(list(draws), torch.device("cpu"), model.adapted_weights), w


def test_rows_are_those_asked_for(source):
    weights, expected = source
    draw, task = torch.tensor([2, 0, 2, 1]), torch.tensor([6, 6, 0, 3])
    assert len(weights) == 3 and weights(draw, task).dtype == torch.float32
    torch.testing.assert_close(weights(draw, task), expected[draw, task])
    torch.testing.assert_close(weights.tasks(1, task), expected[1, task])


@pytest.mark.parametrize("at_once", [1, 2**26])
def test_moments_are_those_of_all_draws_and_tasks(source, at_once, monkeypatch):
    weights, expected = source
    monkeypatch.setattr(adapted, "_VALUES_AT_ONCE", at_once)  # 16 coordinates at a time, and all of them
    mean, std = weights.moments()
    torch.testing.assert_close(mean, expected.flatten(0, 1).mean(0))
    torch.testing.assert_close(std, expected.flatten(0, 1).std(0))


@pytest.mark.parametrize("name", ["hvae", "hnet"])
def test_training_latents_are_what_the_generator_makes_of_draws(tiny, name, monkeypatch):
    run = tiny_run(tiny)
    z, generator, draws = training_latents(run, name), load_generator(run, name), load_draws(run, name)
    assert z.shape == (2, len(run.train), generator.latent) and draws[0].dtype == torch.float16
    torch.testing.assert_close(z[1], generator.encode(draws[1].float()))
    monkeypatch.setattr(adapted, "_VALUES_AT_ONCE", 3 * generator.num_params)  # three tasks at a time
    torch.testing.assert_close(training_latents(run, name), z)


def test_draws_of_other_tasks_than_there_are_now_are_refused(tiny):
    """As after pictures were mended that a question was left out for."""
    run = tiny_run(tiny)
    vars(run)["train"] = run.train.select(range(len(run.train) - 1))
    with pytest.raises(
        ValueError,
        match=rf"weights of {len(run.train) + 1} training tasks, and there are {len(run.train)}: .*--retrain",
    ):
        load_draws(run, "hvae")


def test_draws_of_other_settings_or_another_start_lie_apart(tiny, tmp_path):
    """A run that was killed may have left some: they are never taken for this one's."""
    run = tiny_run(tiny)
    own = draws_folder(run, "hvae")
    assert own == draws_folder(tiny_run(tiny), "hvae") and own.is_dir()
    settings = ["adaptations.hvae.lr=0.5", "logit_scale=50", "network=lowrank", "dataset.train_tasks=70"]
    others = [tiny_run(tiny, "--output", str(run.output), "--set", setting) for setting in settings]
    others.append(tiny_run(tiny, "--output", str(tmp_path)))  # without the weights that it starts from
    assert len({own, *(draws_folder(other, "hvae") for other in others)}) == 1 + len(others)


@pytest.mark.parametrize("name, rate", [("hvae", 1e9), ("hnet", 1e9)])
def test_adaptations_beyond_half_precision_are_refused(tiny, tmp_path, name, rate):
    """They would be stored as infinite, and everything that learns from them with them."""
    release = tiny / "seed-0" / "weights"
    for file in ("mnet_maml.safetensors", "hnet_maml.safetensors"):
        (tmp_path / file).write_bytes((release / file).read_bytes())
    run = tiny_run(tiny, "--output", str(tmp_path), "--set", f"adaptations.{name}.lr={rate}")
    said = rf"adaptations.{name}: 5 steps at rate 1000000000.0 on '.*' reach .*half precision.*{name}.lr=1e\+08"
    with pytest.raises(ValueError, match=said):
        adaptations.run(run, name)
    assert not list(draws_folder(run, name).glob("*.safetensors"))
    assert not graph.build(run.preset)[f"adaptations_{name}"].outputs(run)[0].exists()
