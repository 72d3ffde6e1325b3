"""Two processes on one run end where one does, at the same global batch."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT
from train import run_all
from train.pipeline.processes import Processes

# metavqa_sim at toy size, without noise of a process's own
SIZES = [
    *("dataset.train_tasks=24", "dataset.val_tasks=6", "dataset.test_tasks=8", "dataset.dim=32"),
    *("networks.clip_adapter.hidden=4", "hvae.hidden=[16,8]", "hvae.latent=4", "hyperldm.hidden=[32,64,32]"),
    *("adaptations.hvae.draws=3", "adaptations.hvae.steps=2", "few_shot_steps=2", "sampling.steps=3"),
    "sampling.sampler=ddim",
    *(
        "diffusion.behaviour_weight=1",
        "diffusion.behaviour_tasks=128",
        "diffusion.behaviour_examples=2000",
    ),  # all there are
]
ROWS = ("cond_multitask", "mnet_maml", "hvae_hyperldm")


def flags(work) -> list[str]:
    run = ["--preset", "metavqa_sim", "--work", str(work), "--device", "cpu", "--steps-share", "0.0004"]
    return [*run, "--rows", *ROWS, "--set", *SIZES]


def launch(count: int, arguments: list[str]) -> None:
    """What `accelerate launch` does for several processes on a machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    subprocess.run(
        [*launcher, "train/run_all.py", *arguments],
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def test_two_processes_reach_what_one_does(tmp_path):
    run_all.main(flags(tmp_path / "one"))
    launch(2, flags(tmp_path / "two"))
    (one,), (two,) = (list((tmp_path / name).glob("seed-0/weights-*")) for name in ("one", "two"))
    records = [json.loads((release / "stages.json").read_text(encoding="utf-8")) for release in (one, two)]
    assert set(records[0]) == set(records[1]) >= {*ROWS, "hvae", "latents_hvae"}
    for name, record in records[0].items():
        assert records[1][name]["processes"] == 2 and record["processes"] == 1
        assert records[1][name]["metrics"] == pytest.approx(record["metrics"], rel=1e-3, abs=1e-3), name
        assert records[1][name]["identity"] == record["identity"]
    for file in one.glob("*.safetensors"):
        for key, value in load_file(file).items():
            torch.testing.assert_close(load_file(two / file.name)[key], value, rtol=2e-3, atol=2e-3)
    written = [path.name for path in (tmp_path / "two").rglob("*") if "tmp" in path.name or path.suffix == ".pt"]
    assert written == []


def test_shares_of_a_batch():
    processes = Processes()
    assert processes.is_main and processes.share(7) == slice(0, 7)
    processes.count, processes.rank = 4, 3
    assert processes.share(32) == slice(24, 32)
    with pytest.raises(ValueError, match="a batch of 30 cannot be shared evenly by 4"):
        processes.share(30)
