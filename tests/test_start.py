"""Models that begin from those of another release: what they take, what they refuse, and what is said of it."""

import contextlib
import json
import re
import shutil

import pytest
import torch

import train.pipeline.steps
from core.config import override
from core.networks.hvae import HVAE
from core.release.checkpoint import load_model, save_model
from core.release.manifest import list_anew
from eval.harness import releases
from eval.harness.origins import training_of
from tests.test_pipeline import release
from tests.test_releases import opened, refused, write_config
from train import multitask, run_all
from train.pipeline import graph
from train.pipeline.flags import flags_of, open_run, origin_of, parser, preset_of
from train.presets import get_preset

PRESET = get_preset("tiny")
STAGES = graph.build(PRESET)
GENERATORS = tuple(PRESET.adaptations)
SEARCHED = tuple(f"{name}_{method}" for name in GENERATORS for method in ("hyperclip", "hyperldm"))
MODELS = (*PRESET.multitask, *PRESET.maml, "hvae", *SEARCHED, "latent_regression")
BUILT_ON_MNET = {"mnet_maml", "hvae", "hvae_hyperclip", "hvae_hyperldm", "latent_regression"}


def flags(work, start, *more):
    start = [] if start is None else ["--start", str(start)]
    return ["--preset", "tiny", "--work", str(work), "--device", "cpu", *start, *map(str, more)]


def opened_run(work, start, *more):
    return open_run(parser("").parse_args(flags(work, start, *more)))


def identities(run):
    return graph.identities(run, graph.build(run.preset))


@pytest.fixture
def part(tiny, tmp_path):
    """The tiny release without MNet-MAML and FiLM."""
    lacks = shutil.ignore_patterns("mnet_maml*", "cond_multitask_film*")
    directory = shutil.copytree(release(tiny), tmp_path / "part", ignore=lacks)
    list_anew(directory)
    return directory


@pytest.fixture(scope="module")
def continued(tiny, tmp_path_factory):
    """A run of all stages from the tiny release, of one step each at a rate of next to nothing. All else is other:
    seed, known questions, adaptations."""
    work = tmp_path_factory.mktemp("continued") / "work"
    work.mkdir()
    (work / "features").symlink_to(tiny / "features")
    rates = [f"multitask.{row}.lr=1e-12" for row in PRESET.multitask] + [f"maml.{row}.lr=1e-12" for row in PRESET.maml]
    rates += ["hvae_training.lr=1e-12", "diffusion.lr=1e-12", "regression.lr=1e-12"]
    rates += [f"hyperclip_training.{name}.lr=1e-12" for name in GENERATORS]
    fewer = [f"adaptations.{name}.draws=1" for name in GENERATORS]
    less = ["--seed", 1, "--descriptors", 0.5, "--steps-share", 0.01, "--set", *rates, *fewer]
    run_all.main(flags(work, release(tiny), *less))
    return opened_run(work, release(tiny), *less)


# -- what a run takes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_next_to_no_training_leaves_the_start(tiny, continued, name):
    """Parameters and statistics, which other questions and adaptations would have made others."""
    (header, before), (ours, after) = (
        load_model(directory / f"{name}.safetensors") for directory in (release(tiny), continued.output)
    )
    assert ours["config"] == header["config"] and ours["metadata"]["seed"] == 1
    assert before.keys() == after.keys()
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=0, atol=1e-6, msg=key)


def test_training_goes_on_from_the_start(tiny, tmp_path):
    """Three more steps move the weights, by no more than three of Adam's."""
    rate = "multitask.uncond_multitask.lr=1e-3"
    more = ("--output", tmp_path, "--set", rate, "multitask.uncond_multitask.steps=3", "--row", "uncond_multitask")
    multitask.main(flags(tiny, release(tiny), *more))
    before, after = (load_model(d / "uncond_multitask.safetensors")[1]["w"] for d in (release(tiny), tmp_path))
    assert 0 < float((after - before).abs().max()) < 3.01e-3


def test_what_a_release_lacks_begins_afresh(tiny, part, tmp_path, capsys):
    run = opened_run(tiny, part, "--output", tmp_path / "out")
    assert set(run.start.models) == set(MODELS) - BUILT_ON_MNET - {"cond_multitask_film"}
    for row, begun in (("cond_multitask_film", False), ("uncond_multitask", True)):
        multitask.main(flags(tiny, part, "--output", tmp_path / "out", "--row", row))
        line = f"{row}: begins from {part}\n" if begun else f"{row}: begins afresh: {part} lacks it, or what it "
        assert line in capsys.readouterr().out
        fresh, made = (load_model(d / f"{row}.safetensors")[1]["w"] for d in (release(tiny), tmp_path / "out"))
        assert torch.equal(fresh, made) != begun


# -- what it refuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting, message",
    [
        ("networks.clip_adapter.hidden=16", "its adapters have hidden 4, this run's 16"),
        ("network=lowrank", "its adapters have network clip_adapter, this run's lowrank"),
        ("logit_scale=20", "its adapters have logit scale 100.0, this run's 20.0"),
        ("question_encoder=clip", "its questions have encoder sentence, this run's clip"),
        ("question_layers=[6]", "its questions have layers [2, 6], this run's [6]"),
        ("backbone=ViT-B-32/openai", "its backbone is another than this run's, ViT-B-32/openai"),
    ],
)
def test_other_settings_are_named(tiny, setting, message):
    with pytest.raises(ValueError, match=re.escape(f"--start {release(tiny)}: {message}")):
        opened_run(tiny, release(tiny), "--set", setting)


def test_other_sizes_encoders_and_places(tiny, part, tmp_path):
    config = json.loads((part / "config.json").read_text(encoding="utf-8"))
    write_config(part, network=config["network"] | {"dim": 64})
    with pytest.raises(ValueError, match="its adapters have D 64, this run's 256"):
        opened_run(tiny, part)
    write_config(part, network=config["network"], question_encoder=config["question_encoder"] | {"sha256": "0" * 64})
    with pytest.raises(ValueError, match="another sentence encoder"):
        _ = opened_run(tiny, part).questions
    with pytest.raises(ValueError, match=f"--start {part}: this run writes there; --output names another"):
        opened_run(tiny, part, "--output", part)
    with pytest.raises(ValueError, match=f"--start {tmp_path} has no config.json"):
        opened_run(tiny, tmp_path)


def test_the_command_says_what_differs(tiny, capsys):
    with pytest.raises(SystemExit):
        run_all.main(flags(tiny, release(tiny), "--set", "logit_scale=20"))
    assert "its adapters have logit scale 100.0, this run's 20.0" in capsys.readouterr().err


def test_a_model_of_other_settings_is_refused(tiny):
    run = opened_run(tiny, release(tiny))
    model = HVAE(override(PRESET.hvae, ["kl_weight=3.0"]), num_params=run.network.num_params)
    with pytest.raises(ValueError, match=r"its hvae has kl_weight 1\.0, this run's 3\.0"):
        run.begin(model, "hvae")


# -- what tells it from other runs -------------------------------------------------------------------------------------


def test_identities_tell_a_start_from_none(tiny, part):
    fresh, begun = identities(opened_run(tiny, None)), identities(opened_run(tiny, release(tiny)))
    trained = set(graph.downstream(STAGES, MODELS))
    assert {name for name in STAGES if fresh[name] != begun[name]} == trained == set(STAGES) - {"features"}
    some = identities(opened_run(tiny, part))  # MNet-MAML and all that is built on it are those of a fresh run
    afresh = BUILT_ON_MNET | {"cond_multitask_film", "adaptations_hvae", "latents_hvae", "kernel_ridge", "features"}
    assert {name for name in STAGES if fresh[name] == some[name]} == afresh


def test_identities_follow_the_start_and_not_its_place(tiny, part, tmp_path):
    before = identities(opened_run(tiny, part))
    moved = shutil.copytree(part, tmp_path / "moved")
    assert identities(opened_run(tiny, moved)) == before
    header, tensors = load_model(moved / "hnet_maml.safetensors")
    save_model(moved / "hnet_maml.safetensors", tensors, kind="hnet", config=header["config"], metadata={"again": 1})
    after = identities(opened_run(tiny, moved))
    assert {name for name in STAGES if before[name] != after[name]} == set(graph.downstream(STAGES, ["hnet_maml"]))


def test_folders_and_resume_states_are_apart(tiny, part, tmp_path, monkeypatch):
    fresh, begun = opened_run(tmp_path, None), opened_run(tmp_path, part)
    assert begun.output == tmp_path / "seed-0" / f"weights-from-{begun.start.name}" and fresh.output.name == "weights"
    assert begun.state_path("x") != fresh.state_path("x")

    monkeypatch.setattr(train.pipeline.steps, "_STATE_SECONDS", 0.0)
    steps = lambda run: train.pipeline.steps.training_steps(run, "uncond_multitask", 3, {})
    with contextlib.closing(steps(begun)) as first:  # killed in its second step
        assert [next(first)[0].step, next(first)[0].step] == [0, 1]
    assert [watch.step for watch, _ in steps(begun)] == [1, 2]
    other = shutil.copytree(part, tmp_path / "elsewhere" / "part")  # its namesake
    header, tensors = load_model(other / "uncond_multitask.safetensors")
    save_model(other / "uncond_multitask.safetensors", {"w": -tensors["w"]}, kind="adapter", config=header["config"])
    same = shutil.copytree(part, tmp_path / "new" / "part")
    namesake, moved = opened_run(tmp_path, other), opened_run(tmp_path, same)
    assert namesake.output != begun.output == moved.output and namesake.output.name.startswith("weights-from-part-")
    assert [watch.step for watch, _ in steps(namesake)] == [0, 1, 2]


# -- what is said of it ------------------------------------------------------------------------------------------------


def test_a_release_says_what_it_began_from(tiny, continued, tmp_path, capsys):
    config = json.loads((continued.output / "config.json").read_text(encoding="utf-8"))
    assert config["run"] == continued.origin and config["run"]["start"] == str(release(tiny).resolve())
    assert preset_of(config["run"]) == override(continued.preset, ["descriptors=1.0"])
    assert f"--start {release(tiny)}" in (continued.output / "README.md").read_text(encoding="utf-8")

    run, (generator,) = opened("--weights", continued.output)
    assert training_of(generator).start == run.origin["start"] and run.start is None
    assert f"--start {release(tiny)}" in releases.command_for(run, generator)

    moved = shutil.copytree(continued.output, tmp_path / "moved")  # to where the start is not
    write_config(moved, run=config["run"] | {"start": "/nowhere"})
    run, _ = opened("--weights", moved, "--work", continued.work)
    assert run.origin["start"] == "/nowhere"
    line = refused(capsys, "--weights", continued.output, moved, "--work", continued.work)
    assert "was trained otherwise than" in line and "--start /nowhere" in line


def test_flags_of_a_run_without_a_start(tiny):
    assert origin_of("tiny", None, 1.0, [])["start"] is None
    assert flags_of(opened_run(tiny, None)) == ["--preset", "tiny"]
