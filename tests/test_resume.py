"""A killed run, started again, ends with the metrics of an uninterrupted one."""

import contextlib
import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import train.pipeline.steps
from train import hvae, hyperclip, hyperldm, maml, multitask, run_all
from train.pipeline import graph
from train.pipeline.flags import open_run, parser
from train.pipeline.records import Records
from train.regression import latent_regression


class Killed(BaseException):
    """Stands for SIGKILL within one process: nothing catches it, and what is on disk at that moment stays."""


def metrics(work):
    records = json.loads((work / "seed-0" / "weights" / "stages.json").read_text(encoding="utf-8"))
    return {name: record["metrics"] for name, record in records.items()}


def forget(work, stage):
    path = work / "seed-0" / "weights" / "stages.json"
    records = json.loads(path.read_text(encoding="utf-8"))
    del records[stage]
    path.write_text(json.dumps(records), encoding="utf-8")


@pytest.fixture
def again(tiny, tmp_path):
    """A copy of the finished tiny run, to kill at will."""
    return shutil.copytree(tiny, tmp_path / "work")


SCRIPTS = {
    "cond_multitask": multitask,
    "mnet_maml": maml,
    "hnet_maml": maml,
    "hvae": hvae,
    "hvae_hyperclip": hyperclip,
    "hvae_hyperldm": hyperldm,
    "latent_regression": latent_regression,
}


@pytest.mark.parametrize("stage", SCRIPTS)
def test_stage_killed_after_its_first_step_and_after_its_last(again, tiny, stage, monkeypatch):
    """The two ends of the loop: almost everything to do again, and nothing left to do but evaluate and save."""
    forget(again, stage)
    arguments = ["--preset", "tiny", "--work", str(again), "--device", "cpu", "--stages", stage]
    monkeypatch.setattr(train.pipeline.steps, "_STATE_SECONDS", 0.0)
    steps, save_state = train.pipeline.steps.training_steps, train.pipeline.steps.save_state

    def save_once(path, state):
        save_state(path, state)
        raise Killed

    def loop_then_die(*arguments):
        yield from steps(*arguments)
        raise Killed

    with monkeypatch.context() as first, pytest.raises(Killed):
        first.setattr(train.pipeline.steps, "save_state", save_once)
        run_all.main(arguments)
    with monkeypatch.context() as second, pytest.raises(Killed):
        second.setattr(SCRIPTS[stage], "training_steps", loop_then_die)
        run_all.main(arguments)
    assert stage not in metrics(again)
    run_all.main(arguments)
    assert metrics(again) == metrics(tiny)
    assert not list((again / "seed-0" / "state").glob("*.pt"))


def test_what_was_trained_on_a_stage_is_done_no_more_when_that_is_trained_anew(again, tiny, capsys):
    arguments = ["--preset", "tiny", "--work", str(again), "--device", "cpu", "--retrain", "--stages", "hvae"]
    run_all.main([*arguments, "--plan"])
    assert metrics(again) == metrics(tiny)  # planning changes nothing
    capsys.readouterr()
    run_all.main(arguments)
    assert "to be trained anew after this" in capsys.readouterr().out
    left = set(metrics(again))
    assert "hvae" in left and "mnet_maml" in left and not left & {"hvae_hyperclip", "hvae_hyperldm", "choose"}
    run_all.main([*arguments[:6]])
    assert metrics(again) == metrics(tiny)


def test_what_was_made_with_another_backbone_of_that_name_is_made_again(tiny, tmp_path, capsys):
    backbone = shutil.copytree(tiny / "seed-0" / "weights" / "backbone", tmp_path / "backbone")
    arguments = ["--preset", "tiny", "--work", str(tmp_path / "work"), "--device", "cpu", "--rows", "uncond_multitask"]
    arguments += ["--set", f"backbone=local-dir:{backbone}"]
    run_all.main(arguments)
    assert "0 stages run" not in capsys.readouterr().out
    run_all.main(arguments)
    assert "0 stages run" in capsys.readouterr().out
    (file,) = backbone.glob("*.safetensors")
    tensors = load_file(file)
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, file)
    run_all.main([*arguments, "--plan"])
    assert re.findall(r"^  run +(\w+)", capsys.readouterr().out, re.MULTILINE) == [
        "features",
        "uncond_multitask",
        "choose",
    ]
    run_all.main(arguments)
    assert "3 stages run" in capsys.readouterr().out


def test_a_stage_that_another_run_finishes_meanwhile_is_not_made_again(again, monkeypatch):
    forget(again, "uncond_multitask")
    arguments = ["--preset", "tiny", "--work", str(again), "--device", "cpu", "--rows", "uncond_multitask"]
    alone_at = Records.alone_at

    @contextlib.contextmanager
    def after_another(self, name):
        monkeypatch.setattr(Records, "alone_at", alone_at)
        run_all.main(arguments)  # the other run has the stage
        monkeypatch.setattr(run_all, "_run_stage", lambda *_: pytest.fail("made twice"))
        with alone_at(self, name):
            yield

    monkeypatch.setattr(Records, "alone_at", after_another)
    run_all.main(arguments)
    assert "uncond_multitask" in metrics(again)


def tiny_run(work, *flags):
    return open_run(parser("").parse_args(["--preset", "tiny", "--work", str(work), "--device", "cpu", *flags]))


def test_the_global_state_is_apart_from_a_steps_draws(tiny):
    """Dropout draws from the global state, all else from the step's own; both are the step's alone."""
    run = tiny_run(tiny)
    for _, rng in train.pipeline.steps.training_steps(run, "hvae_hyperldm", 1, {}):
        noise, drawn = torch.randn(4096), torch.randn(8192, generator=rng)
        assert not torch.isin(noise, drawn).any()
    again = run.rng("hvae_hyperldm", 0, "global", 0)
    assert torch.equal(torch.randn(4096, generator=again), noise)


@pytest.mark.parametrize(
    "stage", ["cond_multitask", "cond_multitask_film", "cond_hnet_maml", "hvae", "hvae_hyperclip", "hvae_hyperldm"]
)
def test_no_step_draws_from_the_global_state(tiny, tmp_path, stage, monkeypatch):
    """Noise on questions is drawn by the step, as all else but dropout, which these models have none of: whatever
    happens to the global state once a model is built, the same weights come out."""
    run = tiny_run(tiny, "--output", str(tmp_path))
    shutil.copytree(tiny / "seed-0" / "weights", tmp_path, dirs_exist_ok=True)
    file = tmp_path / f"{stage}.safetensors"
    before, seeds, manual_seed = load_file(file), [], torch.manual_seed

    def another(seed):
        seeds.append(seed)  # the first one is for the initialisation
        return manual_seed(seed if len(seeds) == 1 else seed + 1)

    monkeypatch.setattr(torch, "manual_seed", another)
    file.unlink()
    graph.build(run.preset)[stage].run(run)
    after = load_file(file)
    assert len(seeds) > 4 and all(torch.equal(before[name], after[name]) for name in before.keys() | after.keys())


def test_state_of_another_seed_or_config_is_not_resumed(again, tiny, monkeypatch):
    """A state left in the folder by other settings must not leak into a result."""
    monkeypatch.setattr(train.pipeline.steps, "_STATE_SECONDS", 0.0)
    forget(again, "uncond_multitask")
    arguments = ["--preset", "tiny", "--work", str(again), "--device", "cpu"]
    save_state = train.pipeline.steps.save_state

    def save_foreign(path, state):
        save_state(path, {**state, "key": "of another run"})
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train.pipeline.steps, "save_state", save_foreign)
        run_all.main([*arguments, "--stages", "uncond_multitask"])
    run_all.main([*arguments, "--stages", "uncond_multitask"])
    assert metrics(again) == metrics(tiny)
