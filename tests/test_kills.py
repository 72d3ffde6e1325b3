"""Runs that are killed by SIGKILL and started again end with the files of an undisturbed run, bit for bit.

The short form kills three times. The long one, `python -m pytest -m long tests/test_kills.py`, kills 36 times over all
stages, those of features and of building a dataset included, and each stage of training in its middle: two minutes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from tests.conftest import ROOT

TIMES = {"metrics.jsonl", "stages.json", "README.md", "training.json"}  # they hold seconds


def killed(folder, commands, places):
    """Run commands, killed at the places; returns how often that was."""
    job = folder / "job.json"
    job.write_text(json.dumps({"commands": commands, "places": places}), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills", str(job)], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    )
    job.unlink()
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def contents(folder):
    """The bytes of all files by path, and of the records what does not tell of time."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    here = str(folder).encode()  # a release names its dataset
    result = {name: path.read_bytes().replace(here, b"") for name, path in files.items() if name.name not in TIMES}
    for name, path in files.items():
        if name.name == "config.json" and name.parent.name == "weights":  # its own digest is of a text with `here`
            config = json.loads(result[name])
            assert len(config["files"].pop("config.json")) == 64
            result[name] = config
        if name.name == "stages.json":
            records = json.loads(path.read_text(encoding="utf-8"))
            result[name] = {stage: (record["identity"], record["metrics"]) for stage, record in records.items()}
    return {name: content for name, content in result.items() if name.suffix != ".lock"}


def same(one, other):
    """Whether two folders hold the same; names the first file that differs."""
    one, other = contents(one), contents(other)
    assert one.keys() == other.keys()
    assert not [name for name in one if one[name] != other[name]]


def forget(records, *stages):
    kept = json.loads(records.read_text(encoding="utf-8"))
    records.write_text(json.dumps({k: v for k, v in kept.items() if k not in stages}), encoding="utf-8")


def test_three_kills(tiny, tmp_path):
    """While features are encoded, in the middle of adaptations, and in the middle of the HVAE."""
    start = shutil.copytree(tiny, tmp_path / "start")  # whatever other tests left there
    shutil.rmtree(start / "features")
    shutil.rmtree(start / "seed-0" / "adaptations")
    forget(start / "stages.json", "features")
    forget(start / "seed-0" / "stages.json", "adaptations_hvae", "adaptations_hnet")
    forget(start / "seed-0" / "weights" / "stages.json", "hvae")
    places = [["features/images-00000.safetensors", 1], ["draw-000.safetensors", 1], ["state/hvae.pt", 9]]
    stages = ["--stages", "features", "adaptations_hvae", "adaptations_hnet", "hvae"]
    for name, kills in (("one", []), ("other", places)):
        shutil.copytree(start, tmp_path / name)
        command = ["run_all", "--preset", "tiny", "--work", str(tmp_path / name), "--device", "cpu", *stages]
        assert killed(tmp_path, [command], kills) == len(kills)
    assert (tmp_path / "one" / "features" / "images-00000.safetensors").is_file()
    assert len(list((tmp_path / "one" / "seed-0" / "adaptations").iterdir())) == 2
    same(tmp_path / "one", tmp_path / "other")


ROWS = (
    *("uncond_multitask", "cond_multitask", "cond_multitask_film", "cond_bottleneck", "latent_regression"),
    *("mnet_maml", "mnet_fomaml", "hnet_maml", "cond_hnet_maml", "hvae"),
    *("hvae_hyperclip", "hvae_hyperldm", "hnet_hyperclip", "hnet_hyperldm"),
)
PLACES = [
    *([name, 1] for name in ("meta_train.json", "meta_test.json", "images.json", "dataset.json")),
    *([name, 1] for name in ("image_tower.pt", "backbone/open_clip_model.safetensors", "backbone/training.json")),
    *([f"features/{name}", 1] for name in ("index.json", "images-00000.safetensors", "texts-*", "questions.json")),
    *([f"state/{row}.pt", 2] for row in ROWS),
    *([f"weights/{row}.safetensors", 1] for row in ("cond_multitask", "mnet_maml", "hvae_hyperldm", "latents_hvae")),
    *([f"adaptations/hvae-*/draw-00{i}.safetensors", 1] for i in range(2)),
    ["adaptations/hnet-*/draw-001.safetensors", 1],
    *([f"work/{name}", 1] for name in ("stages.json", "seed-0/stages.json")),
    *([f"seed-0/weights/{name}", 1] for name in ("stages.json", "known_questions.safetensors", "config.json")),
    ["seed-0/weights/README.md", 1],
]


@pytest.mark.long
def test_many_kills(colours, tmp_path):
    """From pictures and a table to a whole release, and the training of a backbone."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    lines = ["image,question,answer"]
    for i, shade in enumerate(("red", "green", "blue") * 28):
        Image.new("RGB", (64, 64), shade).save(pictures / f"{i:02d}.png")
        lines.append(f"{i:02d}.png,What color is thing {i // 6}?,{shade}")
    (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")

    def commands(folder):
        make = ["--images", str(pictures), "--table", str(tmp_path / "table.csv"), "--output", str(folder / "mine")]
        small = {"image_steps": 3, "image_batch": 8, "text_steps": 2, "text_batch": 8, "caption_scenes": 16}
        tower = [f"tiny_clip.{name}={value}" for name, value in small.items()]
        tower = ["--preset", "emoji", "--set", f"backbone=local-dir:{folder / 'tower' / 'backbone'}", *tower]
        train = ["--preset", "tiny", "--data", str(folder / "mine"), "--work", str(folder / "work")]
        return [
            ["make_data", *make],
            ["run_all", *tower, "--work", str(folder / "tower"), "--stages", "backbone", "--device", "cpu"],
            ["run_all", *train, "--device", "cpu"],
        ]

    for name, places in (("one", []), ("other", PLACES)):
        (tmp_path / name).mkdir()
        assert killed(tmp_path, commands(tmp_path / name), places) == len(places)
    same(tmp_path / "one", tmp_path / "other")
