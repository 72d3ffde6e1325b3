"""The plan before a run: what rows need, what stages cost, and what the records of a run say."""

import json
from dataclasses import replace

import pytest
import torch

import train.pipeline.plan
from core.config import override
from eval import bench
from eval.harness.plain_loop import plain_adapt, ragged_tasks
from train import run_all
from train.pipeline import graph, memory
from train.pipeline.plan import cost_key, duration, estimates, steps_of
from train.presets import get_preset, shortened

PRESET = get_preset("metavqa_sim")
STAGES = graph.build(PRESET)


@pytest.mark.parametrize(
    "rows, expected",
    [
        (["clip"], {"features"}),
        (["cond_multitask"], {"features", "cond_multitask"}),
        (["hvae_hyperclip"], {"features", "mnet_maml", "adaptations_hvae", "hvae", "hyperclip_hvae"}),
        (
            ["hnet_hyperldm"],
            {"features", "hnet_maml", "adaptations_hnet", "latents_hnet", "hnet_hyperldm"},
        ),
    ],
)
def test_rows_bring_what_they_need(rows, expected):
    assert set(graph.stages_of(rows, STAGES)) == expected


def test_all_rows_are_all_stages():
    rows = [*PRESET.multitask, *PRESET.maml]
    rows += ["hvae_hyperclip", "hnet_hyperclip", "hvae_hyperldm", "hnet_hyperldm", "few_shot_ceiling"]
    assert graph.stages_of(rows, STAGES) == list(STAGES)
    with pytest.raises(ValueError, match="row 'hvae'; allowed: "):
        graph.stages_of(["hvae"], STAGES)


def test_costs_are_looked_up_by_size_and_scale_with_steps(monkeypatch):
    """Fewer steps or another number of draws are the same cost a step; other widths are not."""
    short = shortened(PRESET, 0.1)
    assert all(cost_key(short, name) == cost_key(PRESET, name) for name in STAGES)
    small = replace(PRESET, hyperldm=replace(PRESET.hyperldm, hidden=(64, 64)))
    assert cost_key(small, "hvae_hyperldm") != cost_key(PRESET, "hvae_hyperldm")
    assert cost_key(small, "hvae") == cost_key(PRESET, "hvae")
    entry = {"step_seconds": 2.0, "rest_seconds": 5.0, "memory": 3.0}
    monkeypatch.setattr(train.pipeline.plan, "_costs", lambda: {"cpu": {cost_key(PRESET, "hvae"): entry}})
    long, brief = (estimates(preset, STAGES, torch.device("cpu"))["hvae"] for preset in (PRESET, short))
    assert long.seconds == 5 + 2 * 54375 and brief.seconds == 5 + 2 * steps_of(short, "hvae") and long.memory == 3.0
    unknown = estimates(PRESET, STAGES, torch.device("cuda"))["hvae"]
    # weights, gradients and moments of 404 M parameters, 8 draws of adaptations, and a batch of weights
    assert unknown.seconds is None and 6.0 + 4.6 < unknown.memory < 13


@pytest.mark.parametrize("stage", STAGES)
def test_memory_by_arithmetic_is_near_what_was_measured(stage, monkeypatch):
    """Every stage was measured at paper size, with one draw of adaptations: train/README.md has the command."""
    measured = json.loads(train.pipeline.plan.COSTS.read_text())["costs"]["cpu"][cost_key(PRESET, stage)]["memory"]
    preset = override(PRESET, ["adaptations.hvae.draws=1", "adaptations.hnet.draws=1"])
    monkeypatch.setattr(train.pipeline.plan, "_costs", dict)
    estimate = estimates(preset, STAGES, torch.device("cpu"))[stage].memory
    assert 0.6 * estimate < measured < 1.2 * estimate


def test_costs_of_the_default_preset_are_known():
    preset = get_preset("emoji")
    found = estimates(preset, graph.build(preset), torch.device("cpu"))
    given = {"backbone", "features"}  # they ship, or are shared by all seeds
    assert {name for name, estimate in found.items() if estimate.seconds is None} <= given


def test_a_cost_knows_its_own_stage_alone():
    other = override(PRESET, ["cond_hnet.cond_hnet_maml.whitening=0.5", "hyperclip.hvae.hidden=8"])
    changed = {name for name in STAGES if cost_key(other, name) != cost_key(PRESET, name)}
    assert changed == {"cond_hnet_maml", "hyperclip_hvae", "choose"}


def test_choosing_is_counted_in_steps_of_the_denoiser():
    assert steps_of(PRESET, "choose") == 2 * 3 * 350 * (2 + 2 * 5)  # generators, seeds, steps; guided gammas twice


def test_disk_is_arithmetic():
    disk = {name: estimate.disk for name, estimate in estimates(PRESET, STAGES, torch.device("cpu")).items()}
    assert disk["adaptations_hvae"] == 8 * 783 * 394_240 * 2 / 2**30
    assert disk["hvae"] == 404_384_320 * 2 / 2**30


def test_peak_memory_sees_what_was_held_and_forgets_it():
    device = torch.device("cpu")
    memory.reset_peak(device)
    before = memory.peak(device)["memory"]
    held = torch.ones(64 * 2**20)  # 256 MiB
    during = memory.peak(device)["memory"]
    del held
    memory.reset_peak(device)
    assert during - before == pytest.approx(0.25, abs=0.05) and memory.peak(device)["memory"] < during - 0.2


@pytest.mark.parametrize("seconds, text", [(None, "?"), (3.2, "3 s"), (150, "2.5 min"), (9000, "2.5 h")])
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_run_is_planned_measured_and_planned_again(tmp_path, monkeypatch, capsys):
    """Records of a shortened run become costs, and the plan of two other seeds is made of them."""
    sizes = ["dataset.train_tasks=24", "dataset.val_tasks=6", "dataset.test_tasks=8", "dataset.dim=32"]
    sizes += ["adapter.dim=32", "adapter.hidden=4"]
    run = ["--preset", "metavqa_sim", "--work", str(tmp_path), "--device", "cpu", "--rows", "mnet_maml"]
    settings = ["--set", *sizes]
    run_all.main([*run, "--steps-share", "0.0003", *settings])
    (path,) = tmp_path.glob("seed-0/weights-*/stages.json")
    record = json.loads(path.read_text())["mnet_maml"]
    assert record["steps"] == 4 and record["step_seconds"] > 0 and record["memory"] > 0.1
    table = bench.costs(tmp_path)["cpu"]
    assert {entry["stage"] for entry in table.values()} == {"features", "mnet_maml"}
    monkeypatch.setattr(train.pipeline.plan, "_costs", lambda: {"cpu": table})
    capsys.readouterr()
    elsewhere = tmp_path / "x"
    flags = ["--work", str(elsewhere), "--device", "cpu", "--plan", "--seeds", "1", "2", *settings]
    run_all.main(["--preset", "metavqa_sim", *flags])
    out = capsys.readouterr().out
    assert out.count("preset metavqa_sim, seed") == 2 and "seed 2" in out
    line = next(line for line in out.splitlines() if " mnet_maml " in line)
    assert "GiB" in line and "?" not in line
    assert not elsewhere.exists()


def test_bench_compares_in_one_run(tmp_path, capsys):
    file = tmp_path / "b.json"
    arguments = [
        "--sizes",
        "emoji",
        "--only",
        "adapt",
        "hyperclip",
        "--tasks",
        "2",
        "--repeats",
        "1",
        "--device",
        "cpu",
    ]
    bench.main([*arguments, "--json", str(file)])
    results = {r["row"]: r for r in json.loads(file.read_text())["results"]}
    assert set(results) == {"adapt", "hyperclip"} and all(r["ratio"] > 0 for r in results.values())
    assert results["adapt"]["ratio"] == pytest.approx(results["adapt"]["plain"] / results["adapt"]["batched"], abs=0.01)
    with pytest.raises(SystemExit):
        bench.main(["--tasks", "0"])
    assert "--tasks 0; allowed" in capsys.readouterr().err


def test_plain_loop_of_the_benchmark_is_the_same_descent():
    """Or else its time would say nothing."""
    preset = get_preset("emoji")
    tasks = bench.some_tasks(preset, 3, torch.device("cpu")).trimmed()
    start = bench.init_adapter(preset.adapter, torch.Generator().manual_seed(0))
    together = bench.adapt_adapters(start, tasks, preset.adapter, steps=3, lr=1.0)
    parts = list(bench.unpack(start, preset.adapter).values())
    for w, task in zip(together, ragged_tasks(tasks), strict=True):
        alone = torch.cat([part.flatten() for part in plain_adapt(parts, task, 3, 1.0)])
        torch.testing.assert_close(w, alone, rtol=1e-3, atol=1e-4)
