"""A release of some rows only, and how later runs complete it."""

import json
import shutil

import pytest
import torch

from app import build_demo
from core.demo import pages
from core.demo.api import endpoints
from core.demo.studio import Studio
from core.generator import AdapterGenerator
from core.methods import METHODS
from core.networks.weight_generator import WEIGHT_GENERATORS
from core.release.manifest import list_anew
from train import run_all
from train.pipeline.flags import open_run, parser
from train.pipeline.graph import build, identities
from train.pipeline.records import Records

ROWS = ("cond_multitask", "hvae_hyperldm")


def beside(tiny, work):
    """Flags of a run in a work folder of its own, with the features of the tiny run."""
    work.mkdir()
    (work / "features").symlink_to(tiny / "features")
    (work / "stages.json").write_bytes((tiny / "stages.json").read_bytes())
    return ["--preset", "tiny", "--work", str(work), "--device", "cpu"]


def read(directory, name):
    return json.loads((directory / name).read_text(encoding="utf-8"))


def changed(before, after):
    """Stages with another record than before."""
    before, after = read(before, "stages.json"), read(after, "stages.json")
    return {name for name in before if before[name] != after[name]}, after.keys() - before.keys()


# Three runs, one after the other on one release; each fixture is a copy of it as that run left it.


@pytest.fixture(scope="module")
def arguments(tiny, tmp_path_factory):
    return beside(tiny, tmp_path_factory.mktemp("rows") / "work")


def run_and_copy(arguments, tmp_path_factory, *more):
    run_all.main([*arguments, *more])
    return shutil.copytree(f"{arguments[3]}/seed-0/weights", tmp_path_factory.mktemp("rows") / "release")


@pytest.fixture(scope="module")
def some(arguments, tmp_path_factory):
    return run_and_copy(arguments, tmp_path_factory, "--rows", *ROWS)


@pytest.fixture(scope="module")
def with_another(some, arguments, tmp_path_factory):
    return run_and_copy(arguments, tmp_path_factory, "--rows", "uncond_multitask")


@pytest.fixture(scope="module")
def whole(with_another, arguments, tmp_path_factory):
    return run_and_copy(arguments, tmp_path_factory)


def test_rows_by_themselves_make_a_release(tiny, some):
    assert read(some, "stages.json").keys() == {"mnet_maml", "hvae", "latents_hvae", "choose", *ROWS}
    release, full = (AdapterGenerator.from_pretrained(path) for path in (some, tiny / "seed-0" / "weights"))
    held = {(m, g) for m in METHODS for g in WEIGHT_GENERATORS.names() if release.has(m, g)}
    assert {m for m, _ in held} == {"clip", "cond_multitask", "hyperldm", "mnet_maml"}
    assert ("hyperldm", "hnet") not in held
    e = release.embed_questions(["Where is the cat?", "What colour is the badge behind the dog?"])
    assert torch.equal(release.weights(e, "cond_multitask"), full.weights(e, "cond_multitask"))
    how = {"gamma": 1.0, "steps": 3, "samples": 2}
    assert torch.equal(release.weights(e, **how), full.weights(e, **how))  # the same as in a whole run
    assert release.generate("Where is the cat?").scale == release.scale("hvae_hyperldm") != 100.0


def test_its_choices_and_scales_are_of_what_it_holds(some):
    few_shot = {f"few_shot_{row}" for row in ("clip", "cond_multitask", "mnet_maml", "hvae_hyperldm")}
    config = read(some, "config.json")
    scales = {"training", "clip", "cond_multitask", "mnet_maml", "hvae_hyperldm"}
    assert config["scales"].keys() == scales | few_shot
    adaptations = {"adaptations_hvae", "adaptations_hnet"}
    assert config["choices"].keys() == {"hvae_hyperldm", "few_shot_ceiling"} | few_shot | adaptations


def test_another_row_joins_it_and_choices_are_made_for_all(some, with_another):
    assert changed(some, with_another) == ({"choose"}, {"uncond_multitask"})
    choices = read(with_another, "config.json")["choices"]
    assert {"hvae_hyperldm", "few_shot_cond_multitask", "few_shot_uncond_multitask"} <= choices.keys()


def test_a_whole_run_completes_it(tiny, with_another, whole, arguments, capsys):
    assert changed(with_another, whole)[0] == {"choose"}
    full = tiny / "seed-0" / "weights"
    for key in ("metrics", "identity"):
        ours, theirs = ({name: r[key] for name, r in read(path, "stages.json").items()} for path in (whole, full))
        assert ours == theirs
    assert read(whole, "config.json") == read(full, "config.json")
    for more in ([], ["--rows", *ROWS]):
        run_all.main([*arguments, *more])
        assert "0 stages run" in capsys.readouterr().out


def test_models_of_other_data_leave_the_release_before_it_is_judged(some, tiny, tmp_path, capsys):
    """As after `make_data.py` divided the questions anew: test questions may be among those that a model has seen."""
    flags = beside(tiny, tmp_path / "work")
    release = shutil.copytree(some, tmp_path / "work" / "seed-0" / "weights")
    records = read(release, "stages.json")
    records["cond_multitask"]["identity"] = "of other data"
    (release / "stages.json").write_text(json.dumps(records), encoding="utf-8")
    trained = (release / "cond_multitask.safetensors").read_bytes()
    run = open_run(parser("").parse_args(flags))
    stages = build(run.preset)
    kept = Records(run, stages)
    with kept.alone_at("cond_multitask"):  # another run may have written its model, and not recorded it yet
        assert list(Records(run, stages).set_aside(identities(run, stages))) == []
    run_all.main([*flags, "--rows", "uncond_multitask"])
    said = capsys.readouterr().out
    assert "cond_multitask: of other data or settings, so out of the release" in said and "hvae: of other" not in said
    moved = tmp_path / "work" / "seed-0" / "out-of-date" / "cond_multitask.safetensors"
    assert moved.read_bytes() == trained and not (release / "cond_multitask.safetensors").exists()
    config = read(release, "config.json")
    assert "cond_multitask" not in config["scales"] and "hvae_hyperldm" in config["scales"]
    assert "cond_multitask.safetensors" not in config["files"]
    assert "name: cond_multitask" not in (release / "README.md").read_text(encoding="utf-8")
    AdapterGenerator.from_pretrained(release)
    run_all.main([*flags, "--rows", *ROWS])  # made again, it is back
    assert "cond_multitask" in read(release, "config.json")["scales"]


# -- what the page and programs get of it ------------------------------------------------------------------------------


def part_of(tiny, folder, *kept):
    """A release with these models of the tiny one, and their tables of latents."""
    release = shutil.copytree(tiny / "seed-0" / "weights", folder / "release")
    for path in release.glob("*.safetensors"):
        if path.stem not in kept:
            path.unlink()
    list_anew(release)
    return AdapterGenerator.from_pretrained(release)


@pytest.mark.parametrize(
    "kept, methods, labels",
    [
        (("hvae", "hvae_hyperclip", "mnet_maml"), {"hyperclip", "clip"}, ["HVAE"]),
        (
            ("hnet_maml", "hnet_hyperldm", "hnet_hyperclip", "latents_hnet"),
            {"hyperldm", "hyperclip", "clip"},
            ["HNet"],
        ),
        (("hnet_maml", "hnet_hyperldm"), {"hyperldm", "clip"}, ["HNet"]),
        (("cond_multitask",), {"cond_multitask", "clip"}, []),
        ((), {"clip"}, []),
    ],
    ids=lambda part: "+".join(part) if isinstance(part, tuple) else "",
)
def test_the_page_serves_what_a_release_holds(tiny, tmp_path, kept, methods, labels):
    release = part_of(tiny, tmp_path, *kept)
    build_demo(release)
    studio = Studio(release)
    assert studio.methods.keys() == methods and list(studio.generators) == labels
    question, answers = "Where is the cat?", "left, right"
    name = next(iter(studio.generators.values()), "hvae")
    how = {"name": name, "gamma": 1.0, "steps": 2, "samples": 1, "seed": 0, "score": {}}
    html, *_ = pages.ask(studio, question, answers, True, 2, [], list(studio.methods), **how)
    assert 'role="alert"' not in html and html.count("<article") >= 2
    assert studio.guidable == ("latents_hnet" in kept)
    if studio.guidable:
        assert 'role="alert"' not in list(pages.guide(studio, question, answers, True, 2, [], 0))[-1][0]
    if studio.comparable:
        assert 'role="alert"' not in pages.compare(studio, "Where is the cat?\nWhere is the dog?", 0)
    offered = endpoints([studio])
    assert ("infer_question" in offered) == bool(studio.readers) == ("hyperclip" in methods)
    if studio.readers:
        known = release.known_questions[0]["question"]
        assert 'role="alert"' not in pages.identify(studio, pages.example_adapter(studio, known))
    for method in methods - {"clip"}:
        assert offered["generate"](question, method).path.endswith(".safetensors")


def test_what_a_release_lacks_is_named(tiny, tmp_path):
    release = part_of(tiny, tmp_path, "hnet_maml", "hnet_hyperldm")
    with pytest.raises(ValueError, match="holds no hvae_hyperldm; .*: hyperldm \\(hnet\\), hnet_maml, clip$"):
        release.generate("Where is the cat?")
    with pytest.raises(ValueError, match="holds no hnet_hyperclip; methods that it holds"):
        release.weights(torch.zeros(1, 256), generator="hnet", gradient_scale=1.0)


def test_plain_clip_alone_is_a_release(tiny, tmp_path):
    """Its few-shot rate and its scale are all that there is to choose."""
    settings = ["--rows", "clip", "--set", "few_shot_lrs=[1.0]", "few_shot_steps=2"]
    run_all.main([*beside(tiny, tmp_path / "work"), *settings])
    (directory,) = tmp_path.glob("work/seed-0/weights-*")
    release = AdapterGenerator.from_pretrained(directory)
    assert [m for m in METHODS if release.has(m)] == ["clip"]
    assert release.generate("Where is the cat?", "clip").scale == pytest.approx(19.09, abs=0.01)
    assert release.choice("few_shot_ceiling")["row"] == "clip"


def test_rows_of_changed_settings_take_what_they_need_and_are_done_when_run_again(tiny, capsys):
    """Beside a whole run of the preset: its other rows stay out of this release, in the first call and the second."""
    flags = ["--preset", "tiny", "--work", str(tiny), "--device", "cpu", "--rows", "cond_multitask_film"]
    flags += ["--set", "film.cond_noise=0.25", "few_shot_lrs=[1.0]", "few_shot_steps=1"]
    run_all.main(flags)
    directory = open_run(parser("").parse_args([*flags[:6], *flags[8:]])).output
    assert read(directory, "stages.json").keys() == {"cond_multitask_film", "choose"}
    run_all.main(flags)
    assert "0 stages run" in capsys.readouterr().out
    one_more = [*flags[:7], "cond_multitask", *flags[8:]]
    run_all.main(one_more)
    assert "cond_multitask: the same as in the preset's own run" in capsys.readouterr().out
    assert read(directory, "stages.json").keys() == {"cond_multitask_film", "cond_multitask", "choose"}
    assert "few_shot_cond_multitask" in read(directory, "config.json")["choices"]
