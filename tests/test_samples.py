"""Samples of HyperLDM that are not averaged: what they are, and Figure 5A with one and with many."""

import json
import shutil

import pytest
import torch

from core.diffusion.guidance import classifier_free
from core.generator import AdapterGenerator
from eval import figure5
from eval.samples import draws, gammas
from tests.fake_cuda import means_on_both
from tests.test_figures import PNG, flags
from tests.test_pipeline import release
from tests.test_releases import write_config


@pytest.fixture(scope="module")
def generator(tiny):
    return AdapterGenerator.from_pretrained(release(tiny))


@pytest.fixture(scope="module")
def e(generator):
    dim = generator.module("hvae_hyperldm").dim
    return torch.nn.functional.normalize(torch.randn(5, dim, generator=torch.Generator().manual_seed(1)), dim=-1)


def test_strengths_of_their_own_are_those_of_separate_calls(generator, e):
    model = generator.module("hvae_hyperldm")
    strengths = torch.tensor([0.0, 1.0, 2.5])
    z, t = torch.randn(15, model.latent), torch.arange(15) % model.schedule.num_steps
    with torch.no_grad():
        found = classifier_free(model, e, strengths)(z, t).unflatten(0, (3, 5))
        for i, gamma in enumerate(strengths.tolist()):
            own = slice(5 * i, 5 * i + 5)
            torch.testing.assert_close(found[i], classifier_free(model, e, gamma)(z[own], t[own]), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="gamma"):
        classifier_free(model, e, torch.tensor([1.0, -0.5]))


@pytest.mark.parametrize("at_once", [1, 10**6])
def test_the_mean_of_samples_is_what_the_release_gives(generator, e, at_once, monkeypatch):
    monkeypatch.setattr(draws, "ROWS_AT_ONCE", at_once)
    pairs = [(1.0, 0), (1.5, 3), (0.0, 0)]
    found = draws.latents(generator, "hvae", e, pairs, samples=3, steps=4)
    assert found.shape[:3] == (3, 3, 5)
    for z, (gamma, seed) in zip(found, pairs, strict=True):
        expected = generator.latents(e, gamma=gamma, seed=seed, samples=3, steps=4)
        torch.testing.assert_close(z.mean(0), expected, atol=1e-5, rtol=1e-5)


def test_figure5_with_one_sample_and_with_many(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gammas, "GAMMAS", (0.0, 1.0, 1.5))
    monkeypatch.setattr(gammas, "AVERAGED", 3)
    file, plot = tmp_path / "s.json", tmp_path / "s.png"
    figure5.main(flags(tiny, "--parts", "samples", "--noise-seeds", 2, "--json", file, "--plot", plot))
    document = json.loads(file.read_text(encoding="utf-8"))
    records = {(r["row"], r["way"], r["gamma"], r["tasks"]): r for r in document["results"]}
    assert len(records) == 2 * (3 + 3 + 2) * 3 and plot.read_bytes().startswith(PNG)
    for contrast in document["contrasts"]:
        at = [records[contrast["row"], contrast["way"], gamma, contrast["tasks"]]["mean"] for gamma in (1.5, 1.0)]
        mean, low, high = contrast["difference"]
        assert low <= mean <= high and mean == pytest.approx(at[0] - at[1], abs=2e-4)
    out = capsys.readouterr().out
    assert "HNet + HyperLDM, one sample" in out and "Gamma 1.5 less gamma 1" in out


def test_the_same_weights_as_two_training_seeds_change_no_difference(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(gammas, "GAMMAS", (1.0, 1.5))
    monkeypatch.setattr(gammas, "WAYS", {"one": "one sample"})
    once, twice = tmp_path / "once.json", tmp_path / "twice.json"
    other = shutil.copytree(release(tiny), tmp_path / "other")
    write_config(other, seed=1)
    for file, weights in ((once, [release(tiny)]), (twice, [release(tiny), other])):
        figure5.main(flags(tiny, "--weights", *weights, "--parts", "samples", "--noise-seeds", 1, "--json", file))
    read = lambda file: [c["difference"] for c in json.loads(file.read_text(encoding="utf-8"))["contrasts"]]
    assert read(once) == read(twice)


def test_a_gpu_gives_what_the_cpu_gives(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(gammas, "GAMMAS", (1.0, 1.5))
    monkeypatch.setattr(gammas, "AVERAGED", 2)
    arguments = ["--parts", "samples", "--noise-seeds", 1, "--limit-tasks", 6]
    main = lambda device, file: figure5.main(flags(tiny, *arguments, "--device", device, "--json", file))
    on_gpu, on_cpu = means_on_both(main, tmp_path)
    assert on_gpu == pytest.approx(on_cpu, abs=0.02)


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--parts", "samples", "A"], "--parts samples stands alone"),
        (["--parts", "samples", "--noise-seeds", "0"], "--noise-seeds 0; allowed: 1 or more"),
    ],
)
def test_bad_flags_are_named(tiny, arguments, word, capsys):
    with pytest.raises(SystemExit):
        figure5.main(flags(tiny, *arguments))
    assert word in capsys.readouterr().err
