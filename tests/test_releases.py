"""Releases to evaluate: what they say of their own training, flags that disagree, and rows that they lack."""

import argparse
import contextlib
import json
import shutil

import pytest
import torch

from core.data.built import ImageFiles, write_dataset
from core.generator import AdapterGenerator
from core.networks.adapter import AdapterConfig
from core.release.manifest import list_anew
from eval import app_load, figure5, figure6, links, sanity, table1, table4, task_inference
from eval.datasets import photo_links
from eval.harness import releases
from eval.harness.origins import Training, run_of, training_of
from eval.samples import few_examples, two_readings
from tests.conftest import ROOT
from tests.test_pipeline import release

OWN = {"preset": "tiny", "data": None, "steps_share": 1.0, "set": []}
TRAIN = "python train/run_all.py --preset tiny"
TOWER = {"encoder": "clip", "pooling": "eos"}


def write_config(directory, **changes):
    """Change the config of a release, and list its files anew; None takes a key away."""
    path = directory / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}), encoding="utf-8")
    with contextlib.suppress(ValueError):  # a field that must not be so
        list_anew(directory)


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy of the tiny release that says how it was trained."""
    directory = tmp_path / "copy"
    shutil.copytree(release(tiny), directory)
    write_config(directory, run=OWN)
    return directory


def opened(*flags):
    arguments = releases.parser("")
    return releases.open_release(arguments, arguments.parse_args([*map(str, flags), "--device", "cpu"]))


def refused(capsys, *flags):
    """The line with which flags are refused."""
    with pytest.raises(SystemExit):
        opened(*flags)
    return capsys.readouterr().err.splitlines()[-1]


def test_without_flags_the_shipped_release_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, (generator,) = opened()
    assert generator.directory == run.output == ROOT / "weights" / "emoji"


def test_weights_alone_say_all_the_rest(tiny, copy, tmp_path):
    file = tmp_path / "t.json"
    flags = ["--limit-tasks", "6", "--json", str(file), "--device", "cpu"]
    table1.main(["--weights", str(release(tiny)), *flags])
    alone = json.loads(file.read_text(encoding="utf-8"))
    table1.main(["--preset", "tiny", "--work", str(tiny), *flags])
    named = json.loads(file.read_text(encoding="utf-8"))
    assert alone["preset"] == "tiny" and alone["results"] == named["results"]
    run, (generator,) = opened("--weights", release(tiny))
    assert run.work == tiny.resolve() and run.output == release(tiny) and generator.directory == release(tiny)
    args = releases.parser("").parse_args(["--device", "cpu"])
    moved = run_of(AdapterGenerator.from_pretrained(copy), args)
    assert moved.work.parts == ("runs", "tiny")  # it lies no longer where it was trained


def test_settings_are_those_of_training(copy):
    changed = ["networks.clip_adapter.hidden=8", "question_encoder=clip", "hyperldm.hidden=[32]"]
    own = {"descriptors": 0.5, "seed": 3, "question_encoder": TOWER}
    write_config(copy, run=OWN | {"set": changed, "steps_share": 0.5}, **own)
    run, (generator,) = opened("--weights", copy, "--work", copy.parent)
    assert run.preset.network_config == AdapterConfig(hidden=8) and run.preset.hyperldm.hidden == (32,)
    assert run.preset.questions == generator.question_encoder.identity == TOWER and run.preset.diffusion.steps == 15
    assert (run.seed, run.preset.descriptors, run.preset.name) == (3, 0.5, "tiny")
    expected = f"{TRAIN} --steps-share 0.5 --set {changed[0]} question_encoder=clip 'hyperldm.hidden=[32]'"
    assert releases.command_for(run, generator) == f"{expected} --seed 3 --descriptors 0.5"


def test_a_release_brings_its_backbone(copy):
    run, (generator,) = opened("--weights", copy, "--work", copy.parent)
    assert run.preset.backbone == f"local-dir:{copy / 'backbone'}"
    assert run.backbone.identity == generator.backbone.identity


@pytest.mark.parametrize("name, base", [("tiny", "tiny"), ("metavqa_sim", "metavqa_sim"), ("metavqa-sim", "metavqa")])
def test_what_releases_said_before_they_said_how(name, base):
    assert training_of(argparse.Namespace(directory="x", config={"preset": name})) == Training(base)


@pytest.mark.parametrize(
    "changes, flags, message",
    [
        ({}, ["--preset", "emoji"], "--preset emoji: {} was trained with preset 'tiny'"),
        ({}, ["--seeds", "0"], "--seeds and --descriptors look for trained releases; with --weights leave them out"),
        ({}, ["--descriptors", "1"], "with --weights leave them out"),
        ({}, ["--data", "mine"], "--data mine: {} was trained on the dataset of preset 'tiny' itself"),
        ({"run": OWN | {"preset": "tony"}}, [], "{}: preset 'tony'; allowed: emoji"),
        ({"run": OWN | {"set": "a=b"}}, [], "{}: config.json: run.set is 'a=b'; allowed: a list"),
        ({"run": OWN | {"data": 3}}, [], "{}: config.json: run.data is 3; allowed: a text"),
        ({"run": {"presets": "tiny"}}, [], "{}: config.json: run.preset is missing"),
        ({"run": OWN | {"presets": "tiny"}}, [], "{}: Training: unknown key 'presets'; allowed: preset, data"),
        ({"run": OWN | {"set": ["hvae.size=3"]}}, [], "hvae.size: unknown key 'size'; allowed: "),
        ({"run": OWN | {"data": "/nowhere"}}, [], "{} was trained on /nowhere, which holds no dataset; --data DIR"),
        ({"run": None, "preset": "tony"}, [], "{}: preset 'tony'; allowed: emoji"),
        (
            {"run": None, "preset": "tiny-x"},
            [],
            "{} does not say where the dataset lies that",
        ),
        (
            {"run": OWN | {"set": ["dataset.train_tasks=60"]}},
            [],
            "{} was trained on other questions than this",
        ),
    ],
)
def test_flags_and_releases_that_disagree(copy, capsys, changes, flags, message):
    write_config(copy, **changes)
    assert message.format(copy) in refused(capsys, "--weights", copy, *flags)


def test_a_release_without_its_backbone(copy, capsys):
    shutil.rmtree(copy / "backbone")
    assert f"{copy} is incomplete: 'backbone/open_clip_config.json' is missing" in refused(capsys, "--weights", copy)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"run": OWN | {"set": ["film.cond_noise=2"]}}, "was trained otherwise than {} (--preset tiny --set film"),
        ({"run": OWN | {"preset": "emoji"}, "preset": "emoji"}, "was trained otherwise than {} (--preset emoji; --p"),
        ({"question_encoder": TOWER}, "others otherwise; one at a time"),
        ({}, "has another backbone than {}; one at a time"),
        ({"descriptors": 1.0}, "is of the same seed and share of descriptors as {}: 0 and 1"),
    ],
)
def test_releases_of_unlike_training_are_not_compared(tiny, copy, tmp_path, capsys, changes, message):
    other = shutil.copytree(copy, tmp_path / "other")
    if not changes:
        (other / "backbone" / "open_clip_model.safetensors").write_bytes(b"another")
    write_config(other, **changes)
    line = refused(capsys, "--weights", copy, other, "--work", tiny)
    assert str(other) in line and message.format(copy) in line


def test_seeds_and_shares_of_questions_are_compared(tiny, copy, tmp_path):
    other = shutil.copytree(copy, tmp_path / "other")
    write_config(other, run=None, seed=1, descriptors=0.5)  # and one of before releases said how they were trained
    run, generators = opened("--weights", copy, other, "--work", tiny)
    assert run.seed == 0 and [generator.config["seed"] for generator in generators] == [0, 1]


SHARES = "releases with descriptors 0.5 and 1; this script takes one share at a time"
FEWER = "a release with descriptors 0.5; this script takes releases that knew all questions"


@pytest.mark.parametrize(
    "script, message",
    [(links, SHARES), (photo_links, SHARES), (sanity, FEWER), (few_examples, FEWER), (two_readings, FEWER)],
)
def test_means_over_seeds_are_of_one_share_of_questions(tiny, copy, tmp_path, capsys, script, message):
    other = shutil.copytree(copy, tmp_path / "other")
    write_config(other, seed=1, descriptors=0.5)
    with pytest.raises(SystemExit):
        script.main(["--weights", str(copy), str(other), "--work", str(tiny), "--device", "cpu"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert message in line


@pytest.fixture
def built(copy, tmp_path):
    """A copy of the tiny release, said to be trained on a built dataset of three questions, and that dataset."""
    entry = {"train": [["a", "yes"], ["b", "no"]], "test": [["c", "yes"]], "answers": ["yes", "no"]}
    splits = {split: {f"Is it {split}?": entry} for split in ("train", "val", "test")}
    images = ImageFiles(tmp_path, ("copy/config.json",) * 3)
    write_dataset(tmp_path / "mine", splits, name="questions", source="a test", prompts={}, images=images)
    known = [{"question": f"Is it {split}?", "answers": ["yes", "no"], "family": ""} for split in ("train", "val")]
    run = OWN | {"data": str(tmp_path / "mine")}
    write_config(copy, run=run, preset="tiny-mine", dataset="questions", questions=known)
    return copy, tmp_path / "mine"


def test_a_built_dataset_follows_from_the_release(built, tmp_path, capsys):
    where, data = built
    run, _ = opened("--weights", where, "--work", tmp_path / "work")
    assert [task.question for task in run.dataset.tasks if task.split == "test"] == ["Is it test?"]
    assert run.preset.name == "tiny-mine" and releases.command_for(run) == f"{TRAIN} --data {data}"

    moved = data.rename(tmp_path / "moved")
    assert f"{where} was trained on {data}, which holds no dataset" in refused(capsys, "--weights", where)
    run, _ = opened("--weights", where, "--data", moved, "--work", tmp_path / "work")
    assert run.preset.name == "tiny-mine" and run.preset.dataset.directory == str(moved)
    assert "holds no built dataset" in refused(capsys, "--weights", where, "--data", data)

    write_config(where, run=None)  # of before releases said where their dataset lies
    run, _ = opened("--weights", where, "--data", moved, "--work", tmp_path / "work")
    assert run.preset.name == "tiny-mine" and run.preset.dataset.directory == str(moved)
    write_config(where, questions=[{"question": "Is it another?", "answers": ["yes", "no"]}])
    line = refused(capsys, "--weights", where, "--data", moved, "--work", tmp_path / "work")
    assert "1 of its 1 are not here, 2 of 2 here are not its; --data DIR says where" in line


def test_features_of_another_backbone_are_named(tiny, copy, capsys):
    index = copy / "features" / "index.json"
    shutil.copytree(tiny / "features", index.parent)
    index.write_text(json.dumps(json.loads(index.read_text(encoding="utf-8")) | {"dim": 3}), encoding="utf-8")
    line = refused(capsys, "--weights", copy, "--work", copy)
    assert "made for another dim" in line and "remove the directory" in line


# -- releases of some rows only ----------------------------------------------------------------------------------------


def keep(directory, *models):
    """Leave these models in a release, and the choices that are about them."""
    for path in directory.glob("*.safetensors"):
        if path.stem not in models:
            path.unlink()
    choices = json.loads((directory / "config.json").read_text(encoding="utf-8"))["choices"]
    baselines = [row for row in ("cond_multitask", "mnet_maml") if row in models]
    choices = {
        name: choice for name, choice in choices.items() if name.removeprefix("few_shot_") in (*models, "clip")
    } | {name: choices[name] for name in ("adaptations_hvae", "adaptations_hnet")}
    choices["few_shot_ceiling"] = {"row": baselines[0]}
    write_config(directory, choices=choices)


@pytest.fixture
def some_rows(copy):
    """What `run_all.py --rows cond_multitask hvae_hyperldm` makes."""
    keep(copy, "cond_multitask", "mnet_maml", "hvae", "latents_hvae", "hvae_hyperldm")
    return copy


def flags_of(directory, work, *more):
    return ["--weights", str(directory), "--work", str(work), "--device", "cpu", *map(str, more)]


@pytest.mark.parametrize(
    "script, more, present, missing",
    [
        (table1, [], "HVAE + HyperLDM, gamma of validation", ["hnet_hyperldm", "hvae_hyperclip", "uncond_multitask"]),
        (table4, [], "HVAE + HyperLDM, its latent adapted", ["few_shot_hnet_maml", "few_shot_hnet_hyperldm"]),
        (figure5, [], "HVAE + HyperLDM, gamma 0.25", ["HNet + HyperLDM, gamma 1.5", "Uncond. Multitask"]),
        (figure6, [], "nearest_question", []),
        (links, [], "... encoded and decoded by the HVAE", []),
        (sanity, [], "HyperLDM, random words", []),
        (task_inference, [], "chance", ["HVAE, fine-tuned weights", "HNet, generated weights"]),
    ],
)
def test_every_script_takes_a_release_of_some_rows(tiny, some_rows, tmp_path, capsys, script, more, present, missing):
    plot = ["--plot", tmp_path / "p.png"] if script in (figure5, figure6, task_inference) else []
    script.main(flags_of(some_rows, tiny, "--json", tmp_path / "r.json", "--limit-tasks", 8, *plot, *more))
    out = capsys.readouterr().out
    assert present in out
    for row in missing:
        assert f"missing: {row}; {TRAIN} makes it" in out
    assert out.count("missing: ") >= len(missing)
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["results"]


@pytest.mark.parametrize(
    "script, more, lacking",
    [
        (links, [], "MNet-MAML as adapted for the HVAE, HVAE + HyperLDM"),
        (sanity, [], "HVAE + HyperLDM, the table of the HVAE's training latents"),
        (sanity, ["--generator", "hnet"], "HNet + HyperLDM, the table of the HNet's training latents"),
    ],
)
def test_scripts_that_need_a_model_name_it(tiny, copy, capsys, script, more, lacking):
    keep(copy, "cond_multitask")
    with pytest.raises(SystemExit):
        script.main(flags_of(copy, tiny, *more))
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{copy} lacks {lacking}; {TRAIN} --seed 0 makes it" in line


@pytest.mark.parametrize("script", [table1, table4, figure5, figure6, task_inference])
def test_tables_of_a_release_with_one_row_and_without_choices(tiny, copy, capsys, script):
    keep(copy, "cond_multitask")
    write_config(copy, choices=None)
    plot = ["--plot", copy / "p.png"] if script in (figure5, figure6, task_inference) else []
    script.main(flags_of(copy, tiny, "--limit-tasks", 4, *plot))
    out = capsys.readouterr().out
    rows = {table1: "hvae_hyperldm", table4: "few_shot_clip", figure5: "Uncond. Multitask"}
    if script in rows:
        assert f"missing: {rows[script]}; {TRAIN} makes it" in out
    assert ("Cond. Multitask" in out) == (script in (table1, figure5))


def test_the_demo_is_tested_only_with_what_it_has(tiny, copy, capsys, monkeypatch):
    monkeypatch.setattr(app_load, "WEIGHTS", str(copy))
    monkeypatch.setattr(app_load, "served", lambda: pytest.fail("the demo was started"))
    keep(copy, "cond_multitask")
    with pytest.raises(SystemExit):
        app_load.main(["--accuracy"])
    assert f"{copy} lacks HVAE + HyperLDM; {TRAIN} --seed 0 makes it" in capsys.readouterr().err
    write_config(copy, dataset="questions")
    for flags in ([], ["--accuracy"]):
        with pytest.raises(SystemExit):
            app_load.main(flags)
        assert "knows no drawn scenes" in capsys.readouterr().err


def test_generators_are_on_the_device_asked_for(tiny, copy, capsys):
    _, (generator,) = opened("--weights", copy, "--work", tiny)
    assert isinstance(generator, AdapterGenerator) and generator.device == torch.device("cpu")
    with pytest.raises(SystemExit):
        arguments = releases.parser("")
        releases.open_release(arguments, arguments.parse_args(["--weights", str(copy), "--device", "cuda:99"]))
    assert "--device 'cuda:99' is not usable here" in capsys.readouterr().err
