"""The plan before a run: what rows need, what stages cost, and what the records of a run say."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import train.pipeline.plan
from core.config import override
from core.methods import FEW_SHOT_ROWS, REGRESSIONS
from eval import bench
from eval.harness.plain_loop import plain_adapt, ragged_tasks
from tests.conftest import ROOT
from train import run_all
from train.pipeline import environment, graph
from train.pipeline.environment import peak, reset_peak
from train.pipeline.plan import Estimate, duration, estimates
from train.pipeline.run import Run
from train.presets import get_preset, shortened

PRESET = get_preset("metavqa_sim")
STAGES = graph.build(PRESET)
D = 768


def planned(preset, device: str = "cpu", work: Path = Path("nowhere")) -> dict[str, Estimate]:
    return estimates(Run(preset, 0, work, work, torch.device(device)), graph.build(preset))


def cost_keys(preset, dim: int | None = D) -> dict[str, str]:
    return {name: stage.cost_key(dim) for name, stage in graph.build(preset).items()}


@pytest.mark.parametrize(
    "rows, expected",
    [
        (["clip"], {"features"}),
        (["cond_multitask"], {"features", "cond_multitask"}),
        (["hvae_hyperclip"], {"features", "mnet_maml", "adaptations_hvae", "hvae", "hvae_hyperclip"}),
        (["hnet_hyperldm"], {"features", "hnet_maml", "adaptations_hnet", "latents_hnet", "hnet_hyperldm"}),
        (["kernel_ridge"], {"features", "mnet_maml", "adaptations_hvae", "hvae", "latents_hvae", "kernel_ridge"}),
        (["latent_regression"], {"features", "mnet_maml", "adaptations_hvae", "hvae", "latent_regression"}),
        (["few_shot_ceiling"], {"features", *FEW_SHOT_ROWS} - {"clip"}),
    ],
)
def test_rows_bring_what_they_need(rows, expected):
    """And the choices, which make a release of what there is."""
    assert set(graph.stages_of(rows, STAGES)) == {*expected, "choose"}


def test_all_rows_are_all_stages():
    rows = [*PRESET.multitask, *PRESET.maml, *REGRESSIONS]
    rows += ["hvae_hyperclip", "hnet_hyperclip", "hvae_hyperldm", "hnet_hyperldm", "few_shot_ceiling"]
    assert graph.stages_of(rows, STAGES) == list(STAGES)
    for wrong in ("hvae", "features", "choose"):
        with pytest.raises(ValueError, match=f"row '{wrong}'; allowed: "):
            graph.stages_of([wrong], STAGES)


@pytest.mark.parametrize("rows", [(), ("cond_multitask",), ("hvae_hyperldm", "mnet_maml")])
def test_choices_of_some_rows_depend_on_these_and_on_what_all_rows_depend_on(rows):
    """Also where a release holds a row that a setting does not touch, or none: validation tasks, their questions, the
    base network and the grids decide."""

    def identity(*settings: str, descriptors: float = 1.0) -> str:
        preset = replace(override(PRESET, settings), descriptors=descriptors)
        stages = graph.resolved(graph.build(preset), lambda name: name in rows)
        assert set(stages["choose"].needs) == {"features", *rows}
        return graph.identities(Run(preset, 0, Path("x"), Path("x"), torch.device("cpu")), stages)["choose"]

    changes = [
        "dataset.seed=1",
        "question_pooling=mean",
        "question_encoder=sentence",
        "networks.clip_adapter.hidden=8",
        "logit_scale=50",
    ]
    changes += ["few_shot_steps=3", "few_shot_lrs=[1.0]", "sampling.steps=3", "guidance.hvae.lam=1.0"]
    found = {identity(), identity(descriptors=0.5), *(identity(change) for change in changes)}
    assert len(found) == 2 + len(changes)
    assert identity("film.cond_noise=2.0") == identity()  # of a row that is not here


def test_a_network_without_hidden_units_has_no_film_row():
    preset = override(PRESET, ["networks.clip_adapter.bias=false"])
    stages = graph.build(preset)
    assert set(STAGES) - set(stages) == {"cond_multitask_film"}
    assert "cond_multitask_film" not in stages["choose"].needs
    with pytest.raises(ValueError, match="row 'cond_multitask_film'; allowed: "):
        graph.stages_of(["cond_multitask_film"], stages)


def test_every_stage_comes_after_what_it_needs():
    for name in ("emoji", "tiny", "metavqa", "metavqa_sim"):
        stages = graph.build(get_preset(name))
        seen: set[str] = set()
        for stage in stages.values():
            assert seen.issuperset(stage.needs)
            seen.add(stage.name)
        assert ("backbone" in stages) == (name == "emoji")
        assert graph.needed(stages, ["choose"]) | {"latents_hvae", "latents_hnet"} == set(stages)


def test_costs_are_looked_up_by_size_and_scale_with_steps(monkeypatch):
    """Fewer steps or another number of draws are the same cost a step; other widths are not."""
    short = shortened(PRESET, 0.1)
    assert cost_keys(short) == cost_keys(PRESET) != cost_keys(PRESET, 512)
    small = replace(PRESET, hyperldm=replace(PRESET.hyperldm, hidden=(64, 64)))
    assert cost_keys(small)["hvae_hyperldm"] != cost_keys(PRESET)["hvae_hyperldm"]
    assert cost_keys(small)["hvae"] == cost_keys(PRESET)["hvae"]
    entry = {"step_seconds": 2.0, "rest_seconds": 5.0, "memory": 3.0}
    monkeypatch.setattr(train.pipeline.plan, "costs", lambda: {"cpu": {cost_keys(PRESET)["hvae"]: entry}})
    long, brief = (planned(preset)["hvae"] for preset in (PRESET, short))
    assert long.seconds == 5 + 2 * 54375 and brief.seconds == 5 + 2 * 5438 and long.memory == 3.0
    unmeasured = planned(PRESET)["hvae_hyperldm"], planned(PRESET, "cuda")["hvae"]
    assert all(e.seconds is None and e.memory is None and e.time_text == e.memory_text == "?" for e in unmeasured)
    assert planned(small)["hvae"].seconds == long.seconds
    total = Estimate.total([long, *unmeasured])
    assert total.seconds == long.seconds and total.more and total.time_text == "> 30.2 h" and total.memory == 3.0


def test_costs_of_the_default_presets_are_known():
    for name in ("emoji", "metavqa_sim"):
        given = {"backbone", "features"}  # they ship, or are shared by all seeds
        assert {stage for stage, estimate in planned(get_preset(name)).items() if estimate.seconds is None} <= given


def test_a_cost_knows_its_own_stage_alone():
    other = override(PRESET, ["cond_hnet.cond_hnet_maml.whitening=0.5", "hyperclip.hvae.hidden=8"])
    changed = {name for name in STAGES if cost_keys(other)[name] != cost_keys(PRESET)[name]}
    assert changed == {"cond_hnet_maml", "hvae_hyperclip", "choose"}
    other = override(PRESET, ["networks.clip_adapter.hidden=8"])  # all that makes weights
    assert {name for name in STAGES if cost_keys(other)[name] == cost_keys(PRESET)[name]} == {"features"}


def test_choosing_is_counted_in_steps_of_the_denoiser():
    full, quick = 350 * (2 + 2 * 5), 2 * sum(steps * samples for steps, samples in get_preset("metavqa").sampling.quick)
    gradient = 3 * 350 * len(get_preset("metavqa").sampling.gradient_scales) * (1 + 2)  # of one generator
    assert STAGES["choose"].steps == 2 * 3 * (full + quick) + 3 * gradient  # generators, seeds; guided gammas twice


def test_disk_is_arithmetic():
    disk = {name: estimate.disk for name, estimate in planned(PRESET).items()}
    GiB, P, T = 2 / 2**30, 394_240, 783
    assert disk["adaptations_hvae"] == 8 * T * P * GiB and disk["adaptations_hnet"] == 8 * T * 64 * GiB
    assert disk["hvae"] == 404_384_320 * GiB and disk["hvae_hyperldm"] == 609_527_328 * GiB
    assert disk["mnet_maml"] == P * GiB and disk["cond_multitask"] == (257 * P + 769 * 256) * GiB
    assert disk["features"] is None and disk["choose"] == 0.0
    small = planned(override(PRESET, ["network=lowrank", "networks.lowrank.rank=3"]))
    assert small["mnet_maml"].disk == 7 * D * GiB
    elsewhere = override(PRESET, ["dataset.dim=32"])
    assert planned(elsewhere)["mnet_maml"].disk == (2 * 32 * 256 + 32 + 256) * GiB


def test_sizes_that_the_backbone_does_not_tell_are_unknown(monkeypatch):
    monkeypatch.setattr(Run, "dim", None)
    found = planned(PRESET)
    assert found["hvae"].disk is None and found["hvae"].disk_text == "?" and found["choose"].disk_text == ""


def test_peak_memory_sees_what_was_held_and_forgets_it():
    device = torch.device("cpu")
    reset_peak(device)
    before = peak(device)["memory"]
    held = torch.ones(64 * 2**20)  # 256 MiB
    during = peak(device)["memory"]
    del held
    reset_peak(device)
    assert during - before == pytest.approx(0.25, abs=0.05) and peak(device)["memory"] < during - 0.2


def test_memory_is_left_out_where_the_system_does_not_tell(monkeypatch, tmp_path):
    """As on Windows, which has neither /proc nor the module `resource`."""
    device = torch.device("cpu")
    monkeypatch.setattr(environment, "_PROC", tmp_path / "none")
    assert peak(device)["memory"] > 0.01
    monkeypatch.setitem(sys.modules, "resource", None)
    reset_peak(device)
    assert peak(device) == {}


def test_training_and_evaluation_begin_without_the_module_resource():
    code = "import sys; sys.modules['resource'] = None; import train.run_all, eval.table1, eval.bench, eval.gpu_check"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("seconds, text", [(None, "?"), (3.2, "3 s"), (150, "2.5 min"), (9000, "2.5 h")])
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_run_is_planned_measured_and_planned_again(tmp_path, monkeypatch, capsys):
    """Records of a shortened run become costs, and the plan of two other seeds is made of them."""
    sizes = ["dataset.train_tasks=24", "dataset.val_tasks=6", "dataset.test_tasks=8", "dataset.dim=32"]
    sizes += ["networks.clip_adapter.hidden=4"]
    run = ["--preset", "metavqa_sim", "--work", str(tmp_path), "--device", "cpu", "--rows", "mnet_maml"]
    settings = ["--set", *sizes]
    run_all.main([*run, "--steps-share", "0.0003", *settings])
    (path,) = tmp_path.glob("seed-0/weights-*/stages.json")
    record = json.loads(path.read_text(encoding="utf-8"))["mnet_maml"]
    assert record["steps"] == 4 and record["step_seconds"] > 0 and record["memory"] > 0.1
    table = bench.costs(tmp_path)["cpu"]
    assert {entry["stage"] for entry in table.values()} == {"features", "mnet_maml", "choose"}
    monkeypatch.setattr(train.pipeline.plan, "costs", lambda: {"cpu": table})
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
    results = {r["row"]: r for r in json.loads(file.read_text(encoding="utf-8"))["results"]}
    assert set(results) == {"adapt", "hyperclip"} and all(r["ratio"] > 0 for r in results.values())
    assert results["adapt"]["ratio"] == pytest.approx(results["adapt"]["plain"] / results["adapt"]["batched"], abs=0.01)
    with pytest.raises(SystemExit):
        bench.main(["--tasks", "0"])
    assert "--tasks 0; allowed" in capsys.readouterr().err


def test_plain_loop_of_the_benchmark_is_the_same_descent():
    """Or else its time would say nothing."""
    preset = get_preset("emoji")
    network = preset.base_network(256)
    tasks = bench.some_tasks(preset, 256, 3, torch.device("cpu")).trimmed()
    start = network.init(torch.Generator().manual_seed(0))
    together = bench.adapt_adapters(network, start, tasks, steps=3, lr=1.0)
    parts = list(network.unpack(start).values())
    for w, task in zip(together, ragged_tasks(tasks), strict=True):
        alone = torch.cat([part.flatten() for part in plain_adapt(parts, task, 3, 1.0)])
        torch.testing.assert_close(w, alone, rtol=1e-3, atol=1e-4)
