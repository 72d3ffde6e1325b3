"""Rows that go from a question straight to a latent, or to few numbers: closed forms, and what their stages make."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from core.config import override
from core.generator import AdapterGenerator
from core.methods import REGRESSIONS, decoder_of
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.hypernet import CondBottleneck, CondBottleneckConfig
from core.networks.regression import KernelRidge, KernelRidgeConfig, LatentRegression
from core.networks.trunk import TrunkConfig
from core.networks.whitening import Whitening
from core.release.checkpoint import load_model, load_module
from core.release.manifest import list_anew
from train import multitask
from train.pipeline import graph
from train.pipeline.flags import open_run, parser
from train.presets import get_preset
from train.regression import kernel_ridge, latent_regression

QUESTION = "What colour is the badge behind the dog?"


def tiny_run(tiny, *more):
    return open_run(parser("").parse_args(["--preset", "tiny", "--work", str(tiny), "--device", "cpu", *more]))


@pytest.fixture(scope="module")
def release(tiny):
    return AdapterGenerator.from_pretrained(tiny / "seed-0" / "weights")


def test_kernel_ridge_is_the_textbook_formula():
    """Eq. 3.12 of Rasmussen & Williams for the mean, coordinate by coordinate."""
    e, z = torch.randn(9, 4), torch.randn(9, 2)
    condition = Whitening(4, 0.1)
    condition.fit(e)
    config = KernelRidgeConfig(whitening=0.1, width=0.8, ridge=0.3)
    model = KernelRidge(config, questions=9, latent=2, dim=4)
    model.fit(e, z, condition)
    asked = torch.randn(3, 4)
    x = model.known  # whitened and rounded, as a checkpoint keeps it
    torch.testing.assert_close(x, condition(e), atol=2e-3, rtol=1e-3)
    for row, found in zip(model.condition(asked), model.latents(asked), strict=True):
        k = torch.stack([torch.exp(-(row - other).square().sum() / (2 * 0.8**2 * 4)) for other in x])
        K = torch.stack([torch.exp(-(x - other).square().sum(1) / (2 * 0.8**2 * 4)) for other in x])
        expected = z.mean(0) + k @ torch.inverse(K + 0.3 * torch.eye(9)) @ (z - z.mean(0))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_kernel_ridge_goes_through_what_it_knows_and_is_the_mean_far_away():
    e, z = torch.eye(4), torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    model = KernelRidge(KernelRidgeConfig(ridge=1e-6), questions=4, latent=1, dim=4)
    model.fit(e, z, Whitening(4))
    torch.testing.assert_close(model.latents(e), z, atol=1e-3, rtol=0)
    assert model.latents(1000 * e[:1]).item() == pytest.approx(2.5)


def test_latent_regression_begins_at_the_mean_latent_and_reads_the_question():
    torch.manual_seed(0)
    model = LatentRegression(TrunkConfig(hidden=(8, 8), squeeze=2), latent=3, dim=4)
    z, e = torch.randn(50, 3) + 5, torch.randn(20, 4)
    model.set_statistics(z, e)
    torch.testing.assert_close(model.latents(e), z.mean(0).expand(20, -1))  # the outlet is zero
    torch.nn.init.normal_(model.outlet.weight)
    assert not torch.allclose(model.latents(e[:1]), model.latents(e[1:2]))
    model.predict(e).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_bottleneck_is_all_that_weights_depend_on():
    network = CLIPAdapter(AdapterConfig(hidden=3), dim=8)
    rng = torch.Generator().manual_seed(0)
    model = CondBottleneck(CondBottleneckConfig(latent=2, encoder=(16,), hidden=16), network=network, rng=rng)
    e = torch.randn(200, 8)
    model.fit(e)
    z = model.initial(e)
    assert z.shape == (200, 2) and model.condition_dim == 8
    torch.testing.assert_close(model.decode(z), model.weights(e))
    w = model.weights(e)
    spread = (w - model.out.bias).square().mean().sqrt() / network.init(rng).std()
    assert 0.1 < spread < 10  # of the size of a fresh network


def test_stages_fit_what_they_say(tiny, release):
    """The checkpoint of kernel ridge is the best of the grid on validation tasks, and the same as sanity rows take."""
    run = tiny_run(tiny)
    _, tensors = load_model(tiny / "seed-0" / "weights" / "latents_hvae.safetensors", "latents")
    model, accuracy = kernel_ridge.fitted(run, tensors["z"], release.weight_generator("hvae").decode)
    saved = load_module(tiny / "seed-0" / "weights" / "kernel_ridge.safetensors")
    assert saved.config == model.config and saved.questions == len(run.train)
    e = run.val_judged.question
    torch.testing.assert_close(
        saved.latents(e), model.latents(e), atol=1e-4, rtol=1e-4
    )  # though half precision on disk
    records = json.loads((tiny / "seed-0" / "weights" / "stages.json").read_text(encoding="utf-8"))
    assert records["kernel_ridge"]["metrics"]["val_accuracy"] == pytest.approx(accuracy, abs=1e-4)


@pytest.mark.parametrize("method", REGRESSIONS)
def test_a_regression_is_a_method_that_decodes_through_the_hvae(release, method):
    e = release.embed_questions([QUESTION, "Where is the cat?"])
    z = release.latents(e, method)
    torch.testing.assert_close(release.weight_generator("hvae").decode(z), release.weights(e, method))
    for name in ("hvae", "hnet"):  # which generator is searched does not concern it
        assert decoder_of(method, name) == "hvae"
        assert torch.equal(release.weights(e, method, generator=name, seed=3), release.weights(e, method))
    with pytest.raises(ValueError, match="method 'clip' has no latents; allowed: hyperldm, hyperclip, latent_regre"):
        release.latents(e, "clip")


def test_a_regression_needs_the_hvae(tiny, tmp_path):
    directory = shutil.copytree(tiny / "seed-0" / "weights", tmp_path / "release")
    (directory / "hvae.safetensors").unlink()
    list_anew(directory)
    release = AdapterGenerator.from_pretrained(directory)
    assert not any(release.has(method) for method in REGRESSIONS) and release.has("cond_bottleneck")


@pytest.mark.parametrize(
    "script, arguments, row",
    [
        (multitask, ["--row", "cond_bottleneck"], "cond_bottleneck"),
        (latent_regression, [], "latent_regression"),
        (kernel_ridge, [], "kernel_ridge"),
    ],
)
def test_their_scripts_make_the_same_again(tiny, script, arguments, row, capsys):
    path = tiny / "seed-0" / "weights" / f"{row}.safetensors"
    before = path.read_bytes()
    script.main(["--preset", "tiny", "--work", str(tiny), "--device", "cpu", *arguments])
    assert "val_accuracy" in capsys.readouterr().out and path.read_bytes() == before


ON = {  # what turns on, for each row that reads questions, all that HyperLDM has
    "cond_multitask": "multitask.cond_multitask",
    "cond_multitask_film": "multitask.cond_multitask_film",
    "cond_bottleneck": "multitask.cond_bottleneck",
    "cond_hnet_maml": "maml.cond_hnet_maml",
    "hvae_hyperclip": "hyperclip_training.hvae",
    "latent_regression": "regression",
    "kernel_ridge": "kernel_ridge",
}


def identities(tiny, settings=(), descriptors=1.0):
    run = tiny_run(tiny, "--descriptors", str(descriptors))
    run = run.changed(preset=replace(override(get_preset("tiny"), settings), descriptors=descriptors))
    return graph.identities(run, graph.build(run.preset))


def test_what_all_rows_may_have_is_off_and_then_leaves_no_trace(tiny):
    """A setting that joined later and is at its default does not make done stages undone; turned on, it counts."""
    before = identities(tiny)
    off = [f"{key}.ema=0.0" for key in ("multitask.cond_multitask", "maml.mnet_maml", "hyperclip_training.hvae")]
    assert identities(tiny, [*off, "maml.mnet_maml.weight_decay=0"]) == before
    changed = identities(tiny, ["maml.mnet_maml.weight_decay=0.1", "multitask.uncond_multitask.ema=0.9"])
    assert {name for name in before if before[name] != changed[name]} >= {"mnet_maml", "uncond_multitask", "hvae"}
    assert changed["cond_multitask"] == before["cond_multitask"]


def test_inferred_descriptors_need_the_latents_they_are_inferred_from(tiny):
    settings = [f"{key}.infer_descriptors=true" for key in ON.values()]
    preset = override(get_preset("tiny"), settings)
    for share in (1.0, 0.5):
        stages = graph.build(replace(preset, descriptors=share))
        for row in ("cond_multitask", "cond_multitask_film", "cond_bottleneck", "cond_hnet_maml"):
            assert ("adaptations_hvae" in stages[row].needs) == ("hvae" in stages[row].needs) == (share < 1)
    none = [f"{key}.infer_descriptors=false" for key in ON.values()]
    assert identities(tiny, none)["cond_multitask"] != identities(tiny, settings)["cond_multitask"]


@pytest.mark.parametrize("row", ON)
def test_a_row_learns_from_tasks_without_questions(tiny, tmp_path, row):
    """With a share of the questions, inferred ones alone make another model, of the same statistics; so does EMA."""

    def trained(*settings):
        output = shutil.copytree(tiny / "seed-0" / "weights", tmp_path / str(len(list(tmp_path.iterdir()))))
        run = tiny_run(tiny, "--descriptors", "0.5", "--output", str(output), "--set", *settings)
        graph.build(run.preset)[row].run(run)
        return load_module(output / f"{row}.safetensors"), run

    off, on = f"{ON[row]}.infer_descriptors=false", f"{ON[row]}.infer_descriptors=true"
    (without, run), (told, _) = trained(off), trained(on)
    same = lambda a, b: all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert same(without.condition.buffers(), told.condition.buffers())
    if row == "kernel_ridge":
        assert (without.questions, told.questions) == (len(run.described), len(run.train))
    else:
        assert not same(without.parameters(), told.parameters())
        (last, _), (averaged, _) = trained(off, f"{ON[row]}.ema=0"), trained(off, f"{ON[row]}.ema=0.5")
        assert not same(last.parameters(), averaged.parameters())
