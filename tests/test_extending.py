"""What CONTRIBUTING.md says of adding something, done from outside: no file of the project changes, but for lines that
a preset or a registry gains. A fresh process runs each, as one that finds the new files in their rooms would."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.diffusion.samplers import SAMPLERS, timesteps
from core.generator import AdapterGenerator
from tests.conftest import ROOT
from train import run_all

QUESTION, ANSWERS = "What colour is the badge behind the dog?", ["red", "blue", "green"]
BRIEFLY = ["few_shot_lrs=[1.0]", "few_shot_steps=2", "sampling.samples=[1]", "sampling.gammas=[1.0]"]

# A process in which the project's folders go on in another place: a file there is as good as one in the folder.
ELSEWHERE = """
import importlib, json, sys
from dataclasses import replace
from pathlib import Path

outside = Path({outside!r})
for room in ("core.networks", "core.data", "train"):
    importlib.import_module(room).__path__.append(str(outside / room))
"""


def files(outside: Path, **texts: str) -> Path:
    """Write modules by their dotted names, with two underscores for a dot."""
    for name, text in texts.items():
        room, _, module = name.replace("__", ".").rpartition(".")
        (outside / room).mkdir(parents=True, exist_ok=True)
        (outside / room / f"{module}.py").write_text(text, encoding="utf-8")
    return outside


def run(outside: Path, code: str):
    """What a process prints as JSON in its last line."""
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE.format(outside=str(outside)) + code],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def work(tiny, tmp_path):
    """A work folder with the features of the tiny run."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "features").symlink_to(tiny / "features")
    (folder / "stages.json").write_bytes((tiny / "stages.json").read_bytes())
    return folder


def test_a_sampler_is_one_function_and_one_line(work, monkeypatch):
    """An Euler step of the probability flow: chosen by a setting, used in training, in choices and by the release."""
    calls = []

    def sample_euler(eps_fn, z_T, schedule, *, steps=None, noise=None, callback=None):
        z, sequence = z_T, timesteps(schedule, steps).tolist()
        calls.append(len(sequence))
        for t, previous in zip(sequence, [*sequence[1:], None], strict=True):
            now = float(schedule.alpha_bar[t])
            then = 1.0 if previous is None else float(schedule.alpha_bar[previous])
            eps = eps_fn(z, torch.full((len(z),), t, device=z.device))
            z0 = (z - (1 - now) ** 0.5 * eps) / now**0.5
            z = then**0.5 * z0 + (1 - then) ** 0.5 * eps
        return z

    monkeypatch.setitem(SAMPLERS, "euler", sample_euler)  # the line
    flags = ["--preset", "tiny", "--work", str(work), "--device", "cpu", "--rows", "hvae_hyperldm"]
    run_all.main([*flags, "--set", "sampling.sampler=euler", *BRIEFLY])
    assert set(calls) == {1, 2, 4, 5} and len(calls) > 4  # the preset's, and fewer
    (directory,) = work.glob("seed-0/weights-*")
    release = AdapterGenerator.from_pretrained(directory)
    assert release.choice("hvae_hyperldm")["sampler"] == "euler"
    calls.clear()
    w = release.generate(QUESTION, steps=7, seed=1).w
    assert calls == [7] and w.isfinite().all()
    release.config["choices"]["hvae_hyperldm"]["sampler"] = "ddim"  # the same rule in other words
    torch.testing.assert_close(release.generate(QUESTION, steps=7, seed=1).w, w, rtol=1e-3, atol=1e-3)


SHIFT = '''
from dataclasses import dataclass

import torch

from .base import BASE_NETWORKS, BaseNetwork, unit


@dataclass(frozen=True)
class ShiftConfig:
    init_std: float = 0.01
    factor: float = 1.0


@BASE_NETWORKS.register("shift")
class Shift(BaseNetwork):
    """f(x; w) = normalize(x + factor w)."""

    Config = ShiftConfig

    @property
    def num_params(self):
        return self.dim

    @property
    def init_std(self):
        return self.config.init_std

    def init(self, rng=None):
        return torch.randn(self.dim, generator=rng) * self.config.init_std

    def forward(self, w, images):
        return unit(images + self.config.factor * w[:, None])
'''


def test_a_base_network_is_one_file(work, tmp_path):
    outside = files(tmp_path, core__networks__shift=SHIFT)
    code = f"""
from train import run_all
from core.generator import AdapterGenerator
from core.methods import METHODS
flags = ["--preset", "tiny", "--work", {str(work)!r}, "--device", "cpu"]
run_all.main([*flags, "--set", "network=shift", "networks.shift.factor=0.5", *{BRIEFLY!r}])
release = AdapterGenerator.from_pretrained(next(Path({str(work)!r}).glob("seed-0/weights-*")))
w = {{method: release.generate({QUESTION!r}, method).w for method in METHODS if release.has(method)}}
spec = release.network.spec()
print(json.dumps([spec, {{method: x is not None and len(x) for method, x in w.items()}}, release.config["choices"]]))
"""
    spec, weights, choices = run(outside, code)
    assert spec == {"name": "shift", "config": {"init_std": 0.01, "factor": 0.5}, "dim": 256, "scale": 100.0}
    rows = {"hyperldm", "hyperclip", "uncond_multitask", "cond_multitask", "mnet_maml", "mnet_fomaml", "hnet_maml"}
    rows |= {"cond_hnet_maml", "cond_bottleneck", "latent_regression", "kernel_ridge"}
    assert weights == dict.fromkeys(rows, 256) | {"clip": False}  # no hidden units, no FiLM
    assert choices["few_shot_mnet_maml"]["val_accuracy"] > 0


COMPONENTS = '''
from dataclasses import dataclass

import torch

from .weight_generator import WEIGHT_GENERATORS, WeightGenerator
from .weight_model import MODULES, Saved


@dataclass(frozen=True)
class ComponentsConfig:
    latent: int = 5


@MODULES.register("my_components")
@WEIGHT_GENERATORS.register("my_components")
class Components(Saved, WeightGenerator):
    """Principal components of fine-tuned weights: w = mean + z directions."""

    Config = ComponentsConfig
    label = "Components"
    checkpoint = "my_components"
    adapted_row = "mnet_maml"
    guidance_starts = (0.0,)

    def __init__(self, config, *, num_params):
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(num_params))
        self.register_buffer("directions", torch.zeros(config.latent, num_params))

    def sizes(self):
        return {"num_params": self.num_params}

    @property
    def latent(self):
        return self.config.latent

    @property
    def num_params(self):
        return len(self.mean)

    def fit(self, w):
        self.mean.copy_(w.mean(0))
        _, singular, directions = torch.pca_lowrank(w, q=self.latent)
        self.directions.copy_((directions * singular / len(w) ** 0.5).mT)

    def start(self, rng, scale=1.0):
        return scale * torch.randn(self.latent, generator=rng)

    def encode(self, adapted):
        return (adapted - self.mean) @ torch.linalg.pinv(self.directions)

    def adapted_weights(self, adapted, some=None):
        return adapted if some is None else adapted[:, some]

    def decode(self, z, some=None):
        some = slice(None) if some is None else some
        return self.mean[some] + z @ self.directions[:, some]
'''
FIT_COMPONENTS = '''
import torch

from core.networks.my_components import Components
from core.release.checkpoint import save_module
from train.pipeline.adapted import load_draws
from train.pipeline.stage import Stage, release_file


def stages(preset):
    """One stage, where the preset makes its training data."""
    if Components.name not in preset.adaptations:
        return []
    config = preset.generators[Components.name]
    needs = (f"adaptations_{Components.name}",)
    return [Stage(Components.checkpoint, run, needs, (config,), release_file(Components.checkpoint))]


def run(run):
    torch.manual_seed(run.rng("components").initial_seed())
    model = Components(run.preset.generators[Components.name], num_params=run.network.num_params)
    w = torch.cat(load_draws(run, Components.name)).float()
    model.fit(w)
    save_module(run.output / f"{Components.checkpoint}.safetensors", model)
    return {"left": float((model.decode(model.encode(w)) - w).square().mean() / w.var(0).mean())}
'''
PRESET_WITH_COMPONENTS = """
from core.networks.my_components import ComponentsConfig
from train import presets
tiny = presets.get_preset("tiny")
more = {name: {**getattr(tiny, name), "my_components": getattr(tiny, name)["hvae"]}
        for name in ("adaptations", "hyperclip", "hyperclip_training", "guidance")}
presets._PRESETS["tiny"] = replace(tiny, generators={"my_components": ComponentsConfig()}, **more)
"""  # what train/presets.py, the third file, would hold


def test_a_weight_generator_is_three_files(work, tmp_path):
    outside = files(tmp_path, core__networks__my_components=COMPONENTS, train__my_components=FIT_COMPONENTS)
    code = f"""{PRESET_WITH_COMPONENTS}
from train import run_all
from core import cli
from core.generator import AdapterGenerator
flags = ["--preset", "tiny", "--work", {str(work)!r}, "--device", "cpu"]
flags += ["--rows", "my_components_hyperldm", "my_components_hyperclip"]
flags += ["--set", "generators.my_components.latent=4", *{BRIEFLY!r}]
run_all.main([*flags, "--plan"])
run_all.main(flags)
directory = next(Path({str(work)!r}).glob("seed-0/weights-*"))
release = AdapterGenerator.from_pretrained(directory)
made = {{}}
for method in ("hyperldm", "hyperclip"):
    adapter = release.generate({QUESTION!r}, method, generator="my_components", seed=3)
    guesses = release.infer_question(adapter, generator="my_components")
    made[method] = [len(adapter.w), adapter.scale, len(guesses)]
saved = str(outside / "a.safetensors")
cli.main([{QUESTION!r}, "--generator", "my_components", "--weights", str(directory), "--save", saved])
stages, config = json.loads((directory / "stages.json").read_text()), release.config
print(json.dumps([made, stages["my_components"]["metrics"], list(stages), config["choices"], config["scales"]]))
"""
    made, metrics, stages, choices, scales = run(outside, code)
    assert set(stages) == {
        *("mnet_maml", "my_components", "latents_my_components", "choose"),
        *("my_components_hyperldm", "my_components_hyperclip"),
    }
    assert 0 < metrics["left"] < 0.9
    for method, (size, scale, guesses) in made.items():
        assert size == 2 * 256 * 4 + 256 + 4 and guesses == 5 and scale == scales[f"my_components_{method}"] != 100.0
    assert choices["my_components_hyperldm"]["gamma"] == 1.0 and choices["my_components_hyperclip"]["start"] == 0.0
    assert choices["few_shot_my_components_hyperldm"]["lr"] == 1.0
    assert (tmp_path / "a.safetensors").is_file()


SQUARES = '''
from dataclasses import dataclass

from PIL import Image

from .base import DatasetConfig
from .tasks import Task

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


@dataclass(frozen=True)
class SquaresConfig(DatasetConfig):
    tasks: int = 12
    images: int = 12

    def open(self):
        return Squares(self)


class Squares:
    """Plain squares, asked for their colour in many words."""

    def __init__(self, config):
        self.config, self.tasks, self.num_images = config, [], config.tasks * config.images
        for t in range(config.tasks):
            rows = tuple(range(t * config.images, (t + 1) * config.images))
            half = config.images // 2
            parts = [(part, tuple(i % 3 for i in part)) for part in (rows[:half], rows[half:])]
            split = ("train", "train", "val", "test")[t % 4]
            self.tasks.append(Task(f"Which colour, {t}?", tuple(COLOURS), *parts, split=split))

    @property
    def identity(self):
        return {"name": "squares v1", "tasks": self.config.tasks, "images": self.config.images}

    def load_image(self, index):
        return Image.new("RGB", (80, 80), list(COLOURS.values())[index % 3])
'''


def test_a_dataset_is_one_file_and_a_preset(tmp_path):
    outside, work = files(tmp_path, core__data__squares=SQUARES), tmp_path / "work"
    code = f"""
from core.data.squares import SquaresConfig
from train import presets
presets._PRESETS["squares"] = replace(presets.get_preset("tiny"), name="squares", dataset=SquaresConfig())
presets.PRESET_NAMES = tuple(presets._PRESETS)
from train import run_all
from core.generator import AdapterGenerator
flags = ["--preset", "squares", "--work", {str(work)!r}, "--device", "cpu", "--rows", "cond_multitask"]
run_all.main([*flags, "--set", "dataset.images=9", *{BRIEFLY!r}])
release = AdapterGenerator.from_pretrained(next(Path({str(work)!r}).glob("seed-0/weights-*")))
adapter = release.generate("Which colour, 3?", "cond_multitask")
table = adapter.classify([presets.get_preset("squares").dataset.open().load_image(i) for i in range(6)],
                         ["red", "green", "blue"])
print(json.dumps([release.config["dataset"], release.config["questions"], table.shape]))
"""
    dataset, questions, shape = run(outside, code)
    assert dataset == "squares v1" and len(questions) == 9 and shape == [6, 5]
    index = json.loads((work / "features" / "index.json").read_text(encoding="utf-8"))
    assert index["dim"] == 256
