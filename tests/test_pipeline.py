"""The tiny preset through every stage, and evaluated, by the scripts' own `main`."""

import json
import re
import shutil

import pytest
import torch

from core.config import override
from core.release.checkpoint import load_model
from core.release.manifest import list_anew
from eval import ablations, descriptors, table1, table4
from train import adaptations, choose, hvae, hyperclip, hyperldm, maml, multitask, run_all, tune
from train.pipeline import graph
from train.pipeline.flags import open_run, parser
from train.pipeline.run import Run
from train.presets import get_preset


def release(work):
    return work / "seed-0" / "weights"


def stage_metrics(work, seed=0):
    records = json.loads((work / f"seed-{seed}" / "weights" / "stages.json").read_text(encoding="utf-8"))
    return {name: record["metrics"] for name, record in records.items()}


def test_run_all_makes_everything_and_then_nothing(tiny, capsys):
    expected = {name for name, stage in graph.build(get_preset("tiny")).items() if stage.release}
    assert set(stage_metrics(tiny)) == expected
    lines = [json.loads(line) for line in (tiny / "seed-0" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["stage"] for line in lines} >= expected
    run_all.main(["--preset", "tiny", "--work", str(tiny), "--device", "cpu"])
    assert "0 stages run" in capsys.readouterr().out


def test_files_carry_how_they_were_made(tiny):
    header, _ = load_model(release(tiny) / "hvae_hyperldm.safetensors", "hyperldm")
    assert header["metadata"]["seed"] == 0 and header["config"]["config"]["num_timesteps"] == 350
    config = json.loads((release(tiny) / "config.json").read_text(encoding="utf-8"))
    assert 0.0 < config["thresholds"]["answer"] < 1.0
    assert (
        config["preset"] == "tiny" and config["choices"]["hvae_hyperldm"]["gamma"] in get_preset("tiny").sampling.gammas
    )
    assert len(config["questions"]) == 72


@pytest.mark.parametrize("generator, noisy", [("hvae", 6), ("hnet", 12)])
def test_hyperclip_learns_from_the_share_it_was_promised(tiny, generator, noisy):
    """Of 12 weights the first are decoded with noise, the others as adapted, both of the tasks asked for."""
    flags = ["--preset", "tiny", "--work", str(tiny), "--device", "cpu"]
    weights = hyperclip.TrainingWeights(open_run(parser("").parse_args(flags)), generator)
    draw, task = torch.arange(12) % 2, torch.arange(12) * 5
    w = weights(draw, task, torch.Generator().manual_seed(0))
    torch.testing.assert_close(w[noisy:], weights.adapted(draw, task)[noisy:])
    clean = weights.decoded(draw, task)
    assert not any(torch.allclose(a, b) for a, b in zip(w[:noisy], clean[:noisy], strict=True))
    weights.spread = torch.zeros_like(weights.spread)
    torch.testing.assert_close(weights(draw, task, torch.Generator())[:noisy], clean[:noisy])


def test_a_small_dataset_has_fewer_components(tiny):
    header, tensors = load_model(release(tiny) / "hvae_hyperclip.safetensors", "hyperclip")
    assert header["config"]["config"]["components"] == 60 < get_preset("tiny").hyperclip["hvae"].components
    assert tensors["projection"].shape[1] == 60  # half of the 2 x 60 weights that they are taken of


def test_one_changed_config_reruns_what_depends_on_it(tiny):
    preset = get_preset("tiny")
    run = Run(preset, 0, release(tiny), tiny, torch.device("cpu"))
    stages = graph.build(preset)
    before, other_seed = (
        graph.identities(run, stages),
        graph.identities(Run(preset, 1, release(tiny), tiny, run.device), stages),
    )
    assert before["features"] == other_seed["features"] and before["hvae"] != other_seed["hvae"]
    done = lambda name: name not in ("hvae", "adaptations_hvae")
    # HVAE alone must run, and brings back the work files that it needs
    assert graph.plan(stages, done, stages) == ["adaptations_hvae", "hvae"]
    # work files that nothing needs are not made again: shipped weights need no features
    assert graph.plan(stages, lambda name: stages[name].release, stages) == []


@pytest.mark.parametrize(
    "script, arguments",
    [
        (multitask, ["--row", "cond_multitask"]),
        (maml, ["--row", "mnet_fomaml"]),
        (adaptations, ["--generator", "hnet"]),
        (hvae, []),
        (hyperclip, ["--generator", "hnet"]),
        (hyperldm, ["--generator", "hvae"]),
        (choose, []),
    ],
)
def test_every_stage_has_a_main_of_its_own(tiny, script, arguments, capsys):
    before = stage_metrics(tiny)
    script.main(["--preset", "tiny", "--work", str(tiny), "--device", "cpu", *arguments])
    assert "{" in capsys.readouterr().out and stage_metrics(tiny) == before


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--stages", "hvea"], "allowed"),
        (["--push-to-hub", "no-slash"], "USER/REPO"),
        (["--device", "cuda:99"], "not usable"),
        (["--preset", "tony"], "invalid choice"),
        (["--descriptors", "0"], "more than 0"),
        (["--set", "hvae_training.stepz=3"], "allowed: steps"),
        (["--set", "diffusion.steps=many"], "expected int"),
        (["--set", "adapter.dim=512"], "adapter.dim: no group 'adapter'; groups here: "),
        (["--set", "networks.clip_adapter.dim=512"], "unknown key 'dim'; allowed: hidden, bias, init_std"),
        (["--set", "hyperldm.latent=8"], "unknown key 'latent'; allowed: hidden"),
        (["--set", "network=nope"], "network 'nope'; allowed: clip_adapter, lowrank"),
        (["--set", "sampling.sampler=nope"], "sampler 'nope'; allowed: ddpm, ddim, dpmpp_2m"),
        (["--set", "logit_scale=-1"], "scale -1.0"),
        (["--rows", "nope"], "row 'nope'; allowed: "),
        (["--rows", "clip", "--stages", "hvae"], "--rows or --stages, not both"),
        (["--seeds", "0", "1", "--output", "x"], "for one seed"),
    ],
)
def test_bad_flags_are_named_before_anything_runs(arguments, word, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_all.main(["--preset", "tiny", "--work", str(tmp_path / "work"), "--device", "cpu", *arguments])
    printed = capsys.readouterr()
    assert stopped.value.code == 2 and not printed.out and not (tmp_path / "work").exists()
    *usage, last = printed.err.splitlines()
    assert word in last and "error: " in last and usage[0].startswith("usage: ") and "Traceback" not in printed.err


def test_a_stage_without_its_input_says_so(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_all.main(["--preset", "tiny", "--work", str(tmp_path), "--device", "cpu", "--stages", "hvae"])
    assert "needs 'mnet_maml'" in capsys.readouterr().err


def test_table1(tiny, tmp_path, capsys):
    files = {name: tmp_path / f"t.{name}" for name in ("json", "csv", "markdown")}
    table1.main(
        [
            "--preset",
            "tiny",
            "--work",
            str(tiny),
            "--device",
            "cpu",
            *[x for n, f in files.items() for x in (f"--{n}", str(f))],
        ]
    )
    assert "HVAE + HyperLDM, gamma 1.5" in capsys.readouterr().out
    document = json.loads(files["json"].read_text(encoding="utf-8"))
    assert {"command", "commit", "versions", "preset", "results"} == set(document)
    results = {(r["row"], r["gamma"], r["tasks"]): r for r in document["results"]}
    floor, ceiling = (results[row, None, "known"] for row in ("clip", "few_shot_ceiling"))
    assert ceiling["n_tasks"] == 16 and floor.get("closed") == (0 if ceiling["mean"] > floor["mean"] else None)
    assert all(0 <= r["mean"] <= 1 for r in document["results"])
    assert "HVAE" in files["csv"].read_text(encoding="utf-8") and files["markdown"].read_text(
        encoding="utf-8"
    ).startswith("| row |")
    table1.main(["--preset", "tiny", "--work", str(tiny), "--device", "cpu", "--baselines-only", "--limit-tasks", "5"])
    assert "HyperLDM" not in capsys.readouterr().out


def test_table1_names_missing_rows(tiny, tmp_path, capsys):
    for name in ("config.json", "mnet_maml.safetensors", "uncond_multitask.safetensors"):
        (tmp_path / name).write_bytes((release(tiny) / name).read_bytes())
    shutil.copytree(release(tiny) / "backbone", tmp_path / "backbone")
    list_anew(tmp_path)
    table1.main(["--preset", "tiny", "--work", str(tiny), "--weights", str(tmp_path), "--device", "cpu"])
    assert "missing: cond_multitask; python train/run_all.py" in capsys.readouterr().out


def test_half_of_the_descriptors(tiny, tmp_path, capsys):
    run_all.main(["--preset", "tiny", "--work", str(tiny), "--device", "cpu", "--descriptors", "0.5"])
    assert "mnet_maml: the same as in the preset's own run" in capsys.readouterr().out
    half = release(tiny).parent / "weights-50"
    same = lambda name: (half / name).read_bytes() == (release(tiny) / name).read_bytes()
    assert same("hvae.safetensors") and not same("cond_multitask.safetensors") and not same("hvae_hyperldm.safetensors")
    file = tmp_path / "t.json"
    table1.main(
        [
            "--preset",
            "tiny",
            "--work",
            str(tiny),
            "--device",
            "cpu",
            "--json",
            str(file),
            "--weights",
            str(release(tiny)),
            str(half),
        ]
    )
    assert "all, 50% Q." in capsys.readouterr().out
    records = {
        (r["row"], r["gamma"], r["tasks"], r["descriptors"]): r
        for r in json.loads(file.read_text(encoding="utf-8"))["results"]
    }
    assert records["mnet_maml", None, "all", 0.5]["mean"] == records["mnet_maml", None, "all", 1.0]["mean"]
    assert records["mnet_maml", None, "all", 0.5]["loss"] == [0.0, 0.0, 0.0]
    assert "loss" not in records["mnet_maml", None, "all", 1.0]
    for row, gamma in (("hvae_hyperldm", 1.0), ("cond_multitask", None), ("cond_hnet_maml", None)):
        full, fewer = (records[row, gamma, "all", share] for share in (1.0, 0.5))
        loss, low, high = fewer["loss"]
        assert abs(loss - (full["mean"] - fewer["mean"])) < 2e-4
        # So small a HyperLDM answers the same with half of the questions: no loss, and no interval.
        assert low < loss < high or (row == "hvae_hyperldm" and fewer["loss"] == [0.0, 0.0, 0.0])
    work = ["--preset", "tiny", "--work", str(tiny), "--device", "cpu", "--descriptors", "0.5"]
    table4.main([*work, "--limit-tasks", "4"])  # alone, without a release that knows all questions
    out = capsys.readouterr().out
    assert "all, 50% Q." in out and "CLIP as base model" in out and "known" not in out.split("Accuracy in %")[0]


def test_the_behaviour_loss_reaches_the_denoiser(tiny):
    """Each weight makes another denoiser of the same draws, each of finite weights."""
    flags = ["--preset", "tiny", "--work", str(tiny), "--device", "cpu"]
    trained = []
    for weight in ("0", "1", "100"):
        setting = [*flags, "--set", f"diffusion.behaviour_weight={weight}"]
        run_all.main([*setting, "--stages", "hvae_hyperldm"])
        output = open_run(parser("").parse_args(setting)).output
        trained.append(load_model(output / "hvae_hyperldm.safetensors", "hyperldm")[1])
    none, some, much = (torch.cat([value.float().flatten() for value in t.values()]) for t in trained)
    assert torch.isfinite(much).all() and 0 < (some - none).norm() < (much - none).norm()


def test_described_tasks_are_drawn_more_often(tiny, monkeypatch):
    drawn, multinomial = [], torch.multinomial

    def spy(*args, **kwargs):
        drawn.append(multinomial(*args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(torch, "multinomial", spy)
    setting = ["--descriptors", "0.5", "--set", "diffusion.described_weight=9", "diffusion.steps=60"]
    flags = ["--preset", "tiny", "--work", str(tiny), "--device", "cpu", *setting]
    run_all.main([*flags, "--stages", "hvae_hyperldm"])
    rows = torch.cat(drawn)
    described = torch.isin(rows, open_run(parser("").parse_args(flags)).described)
    assert len(rows) == 60 * 32 and abs(float(described.float().mean()) - 0.9) < 0.03

    drawn.clear()  # a weight of 1 draws as trainings from before there were weights
    evenly = ["--descriptors", "0.5", "--set", "diffusion.described_weight=1", "diffusion.steps=7"]
    run_all.main(["--preset", "tiny", "--work", str(tiny), "--device", "cpu", *evenly, "--stages", "hvae_hyperldm"])
    assert not drawn


def test_inferred_descriptors_are_judged(tiny, tmp_path, capsys):
    arguments = ["--preset", "tiny", "--work", str(tiny), "--device", "cpu"]
    run_all.main([*arguments, "--descriptors", "0.5"])
    file = tmp_path / "d.json"
    descriptors.main([*arguments, "--json", str(file)])
    value = {(r["row"], r["metric"]): r["mean"] for r in json.loads(file.read_text(encoding="utf-8"))["results"]}
    assert len(value) == 5 + 4 and value["inferred", "R^2"] < 1
    assert value["inferred", "reciprocal rank"] > value["chance", "reciprocal rank"]
    out = capsys.readouterr().out
    assert "50% Q., inferred (30)" in out
    assert "missing: seed 0, 10% Q.; python train/run_all.py --preset tiny --seed 0 --descriptors 0.1 makes it" in out
    half, said = release(tiny).parent / "weights-50", lambda: capsys.readouterr().err
    descriptors.main(["--weights", str(half), "--device", "cpu", "--json", str(file)])  # which says all the rest
    assert {
        (r["row"], r["metric"]): r["mean"] for r in json.loads(file.read_text(encoding="utf-8"))["results"]
    } == value
    with pytest.raises(SystemExit):
        descriptors.main(["--weights", str(release(tiny)), "--device", "cpu"])
    assert "was told all questions; allowed: releases with --descriptors below 1" in said()
    with pytest.raises(SystemExit):
        descriptors.main([*arguments, "--descriptors", "0.25"])
    assert "none of --seeds 0 is trained" in said()
    shutil.copytree(half, tmp_path / "half")
    with pytest.raises(SystemExit):
        descriptors.main(["--weights", str(tmp_path / "half"), "--work", str(tmp_path), "--device", "cpu"])
    assert "is missing; python train/run_all.py --preset tiny --seed 0 --descriptors 0.5 makes it" in said()
    config = json.loads((half / "config.json").read_text(encoding="utf-8"))
    config["run"] = {"preset": "tiny", "set": ["diffusion.infer_descriptors=false"]}
    (tmp_path / "half" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    list_anew(tmp_path / "half")
    with pytest.raises(SystemExit):
        descriptors.main(["--weights", str(tmp_path / "half"), "--work", str(tiny), "--device", "cpu"])
    assert "its settings infer none" in said()


def test_a_changed_setting_makes_a_run_of_its_own(tiny, capsys):
    arguments = ["--preset", "tiny", "--work", str(tiny), "--device", "cpu", "--set", "hyperldm.cond_noise=0.5"]
    run_all.main(arguments)
    out = capsys.readouterr().out  # both denoisers and the choices, nothing else
    assert all(f"/3] {name}" in out for name in ("hvae_hyperldm", "hnet_hyperldm", "choose"))
    changed = open_run(parser("").parse_args(arguments)).output
    assert changed.parent == release(tiny).parent and re.fullmatch("weights-[0-9a-f]{8}", changed.name)
    same = lambda name: (changed / name).read_bytes() == (release(tiny) / name).read_bytes()
    assert same("hvae.safetensors") and not same("hvae_hyperldm.safetensors")


def test_table1_of_validation_tasks_has_what_training_measured_there(tiny, tmp_path, capsys):
    arguments = ["--preset", "tiny", "--work", str(tiny), "--device", "cpu", "--validation"]
    table1.main([*arguments, "--json", str(tmp_path / "t.json")])
    assert "query sets of tiny's validation tasks" in capsys.readouterr().out
    records = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["results"]
    found = {r["row"]: r["mean"] for r in records if r["tasks"] == "all" and r["gamma"] is None}
    measured = stage_metrics(tiny)
    for row in ("uncond_multitask", "cond_multitask", "cond_hnet_maml", "kernel_ridge", "latent_regression"):
        assert found[row] == pytest.approx(measured[row]["val_accuracy"], abs=5e-3), row  # shipped in half precision
    with pytest.raises(SystemExit):
        table1.main([*arguments, "--image-disjoint"])
    assert "--image-disjoint is about test tasks" in capsys.readouterr().err


def test_table4(tiny, tmp_path, capsys):
    files = [tmp_path / "t.json", tmp_path / "t.csv"]
    table4.main(
        ["--preset", "tiny", "--work", str(tiny), "--device", "cpu", "--json", str(files[0]), "--csv", str(files[1])]
    )
    assert "missing" not in capsys.readouterr().out
    rows = {r["row"] for r in json.loads(files[0].read_text(encoding="utf-8"))["results"]}
    assert (
        len(rows) == 10
        and "few_shot_cond_multitask" in rows
        and "CLIP as base model" in files[1].read_text(encoding="utf-8")
    )


def test_tuning_gives_every_row_the_same_budget_and_goes_on_where_it_stopped(tiny, tmp_path, capsys):
    assert min(len(settings) for settings in tune.GRIDS.values()) == 5
    for row, settings in tune.GRIDS.items():  # every setting is one the preset has, and it holds one of them
        assert sum(override(get_preset("emoji"), setting) == get_preset("emoji") for setting in settings) == 1, row
    file = tmp_path / "tuning.json"
    arguments = ["--preset", "tiny", "--work", str(tiny), "--device", "cpu", "--json", str(file)]
    tune.main([*arguments, "--rows", "cond_multitask_film"])
    document = json.loads(file.read_text(encoding="utf-8"))
    document["results"][1]["val_accuracy"] = 1.0  # kept, not made again
    file.write_text(json.dumps(document), encoding="utf-8")
    capsys.readouterr()
    tune.main([*arguments, "--rows", "cond_multitask_film"])
    (best,) = [line for line in capsys.readouterr().out.splitlines() if "chosen" in line]
    assert "100.00" in best and "lr=1e-3" in best
    document["results"][1]["identity"] = "of other settings"
    file.write_text(json.dumps(document), encoding="utf-8")
    tune.main([*arguments, "--rows", "cond_multitask_film"])
    assert json.loads(file.read_text(encoding="utf-8"))["results"][1]["val_accuracy"] < 1.0  # made again
    with pytest.raises(SystemExit):
        tune.main([*arguments, "--set", "film.cond_noise=2"])
    with pytest.raises(SystemExit):  # of other data: nothing is replaced
        tune.main([*arguments, "--rows", "cond_multitask_film", "--descriptors", "0.5"])
    assert "holds tries of descriptors 1.0" in capsys.readouterr().err
    file.write_text(json.dumps(document | {"preset": "emoji"}), encoding="utf-8")
    with pytest.raises(SystemExit):
        tune.main([*arguments, "--rows", "cond_multitask_film"])
    assert "holds tries of preset emoji" in capsys.readouterr().err


def test_ablations(tiny, tmp_path, capsys):
    assert len({(a.row, a.label) for a in ablations.ABLATIONS}) == len(ablations.ABLATIONS)  # no line hides another
    for ablation in ablations.ABLATIONS:
        assert override(get_preset("emoji"), ablation.setting) != get_preset("emoji") or not ablation.setting
    assert len({ablations.line_of(a) for a in ablations.ABLATIONS}) == len(ablations.ABLATIONS)
    by_end_token = [a for a in ablations.ABLATIONS if "end token" in a.label]
    for ablation in by_end_token:
        assert override(get_preset("emoji"), ablation.setting).questions == {"encoder": "clip", "pooling": "eos"}
    assert len(by_end_token) == 2
    file = tmp_path / "a.json"
    arguments = ["--preset", "tiny", "--work", str(tiny), "--device", "cpu"]
    number = {a.label: str(i + 1) for i, a in enumerate(ablations.ABLATIONS) if a.row == "hvae_hyperldm"}
    behaviour, undescribed = (
        "HyperLDM learns behaviour too",
        "half of the questions, no descriptors inferred",
    )

    def records():
        return {r["label"]: r for r in json.loads(file.read_text(encoding="utf-8"))["results"] if r["tasks"] == "all"}

    ablations.main([*arguments, "--only", number[behaviour], number[undescribed], "--json", str(file)])
    results = records()
    assert [r["descriptors"] for r in results.values()] == [1.0, 0.5] and list(results) == [behaviour, undescribed]
    assert len({tuple(r["setting"]) for r in results.values()}) == 2
    assert len(list((tiny / "seed-0").glob("weights-????????/hvae_hyperldm.safetensors"))) >= 1

    # A line made later goes to its place; the others stay as they are, under today's labels if those have changed.
    document = json.loads(file.read_text(encoding="utf-8"))
    for record in document["results"]:
        record |= {"commit": "before", "label": record["label"].replace("no descriptors inferred", "as called before")}
    gone = record | {"setting": ["hyperldm.cond_noise=0.123"]}  # of a line that is no more
    file.write_text(json.dumps(document | {"results": [*document["results"], gone]}), encoding="utf-8")
    ablations.main([*arguments, "--only", "1", "--json", str(file)])
    results = records()
    assert list(results) == [ablations.ABLATIONS[0].label, behaviour, undescribed]
    assert [r["commit"] == "before" for r in results.values()] == [False, True, True]
    assert all(r["command"].startswith("python eval/ablations.py") for r in results.values())
    file.write_text(json.dumps(document | {"preset": "emoji"}), encoding="utf-8")
    for wrong in (
        ["--only", "99"],
        ["--descriptors", "0.5"],
        ["--steps-share", "0.5"],
        ["--only", "1", "--json", str(file)],
    ):
        with pytest.raises(SystemExit):
            ablations.main([*arguments, *wrong])
    said = capsys.readouterr().err
    assert "allowed: 1 to" in said and said.count("--steps-share and --output are for") == 2
    assert "results of preset 'emoji'" in said
