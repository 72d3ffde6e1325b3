"""A killed run, started again, ends with the metrics of an uninterrupted one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

import train.run
from tests.conftest import ROOT
from train import run_all


class Killed(BaseException):
    """Stands for SIGKILL within one process: nothing catches it, and what is on disk at that moment stays."""


def metrics(work):
    records = json.loads((work / "seed-0" / "weights" / "stages.json").read_text())
    return {name: record["metrics"] for name, record in records.items()}


def forget(work, stage):
    path = work / "seed-0" / "weights" / "stages.json"
    records = json.loads(path.read_text())
    del records[stage]
    path.write_text(json.dumps(records))


@pytest.fixture
def again(tiny, tmp_path):
    """A copy of the finished tiny run, to kill at will."""
    return shutil.copytree(tiny, tmp_path / "work")


@pytest.mark.parametrize(
    "stage", ["cond_multitask", "mnet_maml", "hnet_maml", "hvae", "hyperclip_hvae", "hvae_hyperldm"]
)
def test_stage_killed_after_its_first_step_and_after_its_last(again, tiny, stage, monkeypatch):
    """The two ends of the loop: almost everything to do again, and nothing left to do but evaluate and save."""
    forget(again, stage)
    arguments = ["--preset", "tiny", "--work", str(again), "--device", "cpu", "--stages", stage]
    monkeypatch.setattr(train.run, "_STATE_SECONDS", 0.0)
    steps, save_state = train.run.Run.steps, train.run.save_state

    def save_once(path, state):
        save_state(path, state)
        raise Killed

    def loop_then_die(self, name, total, state):
        yield from steps(self, name, total, state)
        raise Killed

    with monkeypatch.context() as first, pytest.raises(Killed):
        first.setattr(train.run, "save_state", save_once)
        run_all.main(arguments)
    with monkeypatch.context() as second, pytest.raises(Killed):
        second.setattr(train.run.Run, "steps", loop_then_die)
        run_all.main(arguments)
    assert stage not in metrics(again)
    run_all.main(arguments)
    assert metrics(again) == metrics(tiny)
    assert not list((again / "seed-0" / "state").glob("*"))


def test_state_of_another_seed_or_config_is_not_resumed(again, tiny, monkeypatch):
    """A state left in the folder by other settings must not leak into a result."""
    monkeypatch.setattr(train.run, "_STATE_SECONDS", 0.0)
    forget(again, "uncond_multitask")
    arguments = ["--preset", "tiny", "--work", str(again), "--device", "cpu"]
    save_state = train.run.save_state

    def save_foreign(path, state):
        save_state(path, {**state, "key": "of another run"})
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train.run, "save_state", save_foreign)
        run_all.main([*arguments, "--stages", "uncond_multitask"])
    run_all.main([*arguments, "--stages", "uncond_multitask"])
    assert metrics(again) == metrics(tiny)


def test_same_metrics_after_sigkill(tiny, tmp_path):
    """The real thing, in processes of their own: killed while it encodes images, and in the middle of the HVAE."""
    code = (
        "import sys, time, train.run; train.run._STATE_SECONDS = 0.0; save = train.run.save_state\n"
        "def slow(*a): save(*a); time.sleep(0.05)\n"  # leaves the test time to see a state and strike
        "train.run.save_state = slow; from train import run_all; run_all.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "--preset", "tiny", "--work", str(tmp_path), "--device", "cpu"]
    options = dict(
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for pattern in ("features/images-00000.*", "seed-0/state/hvae.pt"):
        process = subprocess.Popen(command, **options)
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob(pattern)) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = metrics(tmp_path)
    assert "mnet_maml" in done and "hvae" not in done
    subprocess.run(command, check=True, **options)
    assert metrics(tmp_path) == metrics(tiny)
