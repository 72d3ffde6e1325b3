"""A new kind of backbone, added from outside: one loader, one line in `KINDS`."""

import csv
import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

from core import backbones
from core.backbones import KINDS, load_backbone
from core.files import write_json
from tests.conftest import ROOT
from train import features, make_data
from train.pipeline.flags import open_run, parser
from train.pipeline.records import begun

SIZE = 8


class MeanColour:
    """Pictures by their mean colour, texts by how often they have some letters."""

    logit_scale = 10.0

    def __init__(self, letters, device):
        self.letters, self.dim, self.device = letters, 3 + len(letters), device
        self.identity = {"model": "mean colour", "sha256": letters}

    def transform(self, image):
        return pil_to_tensor(image.resize((SIZE, SIZE))).float() / 255

    def encode_images(self, images):
        pixels = images if isinstance(images, torch.Tensor) else torch.stack([self.transform(i) for i in images])
        return F.normalize(F.pad(pixels.to(self.device).mean((2, 3)), (0, len(self.letters))), dim=-1).cpu()

    def encode_texts(self, texts):
        return F.normalize(torch.tensor([[1.0, 1, 1, *map(text.count, self.letters)] for text in texts]), dim=-1)

    def encode_questions(self, questions, pooling):
        return self.encode_texts(questions) * (1 if pooling == "eos" else -1)


def load_mean_colour(directory, device):
    return MeanColour(json.loads((directory / "mean_colour.json").read_text(encoding="utf-8"))["letters"], device)


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setitem(backbones.KINDS, "mean_colour.json", load_mean_colour)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "mean_colour.json").write_text('{"letters": "aeiou"}', encoding="utf-8")
    return tmp_path / "toy"


def test_it_is_loaded_by_what_its_directory_holds(directory):
    for spec in (f"local-dir:{directory}", str(directory)):
        backbone = load_backbone(spec, "cpu")
        assert (backbone.dim, backbone.device) == (8, torch.device("cpu"))
    red = backbone.encode_images([Image.new("RGB", (20, 30), "red")])
    torch.testing.assert_close(red, F.one_hot(torch.tensor([0]), 8).float())


def test_a_directory_of_no_kind_or_of_two_is_refused(directory, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match="one of open_clip_config.json, photo_tower.json, mean_colour.json; it holds none"
    ):
        load_backbone(f"local-dir:{tmp_path / 'empty'}")
    (directory / "open_clip_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="it holds open_clip_config.json and mean_colour.json"):
        load_backbone(f"local-dir:{directory}")


def test_a_stage_encodes_a_dataset_with_it(directory, tmp_path, capsys):
    """Every picture, answer (bare and prompted) and question of one's own data, by one setting."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = []
    for i in range(12):
        colour = "red" if i % 2 else "blue"
        Image.new("RGB", (20, 30), colour).save(photos / f"{i:02}.png")
        rows += [(f"{i:02}.png", f"Which colour is it, {q}?", colour, "it is {}") for q in range(5)]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "question", "answer", "prompt"), *rows])
    data, work = str(tmp_path / "mine"), tmp_path / "work"
    make_data.main(["--images", str(photos), "--table", str(tmp_path / "t.csv"), "--output", data])
    setting = ["--set", f"backbone=local-dir:{directory}", "question_encoder=clip", "question_pooling=mean"]
    features.main(["--preset", "tiny", "--data", data, "--work", str(work), "--device", "cpu", *setting])
    assert "'images': 12.0, 'unreadable': 0.0, 'tasks': 5.0" in capsys.readouterr().out
    index = json.loads((work / "features" / "index.json").read_text(encoding="utf-8"))
    assert index["backbone"] == {"model": "mean colour", "sha256": "aeiou"} and index["dim"] == 8
    images = load_file(work / "features" / "images-00000.safetensors")["features"]
    expected = [[0, 0, 1], [1, 0, 0]] * 6
    assert images[:, :3].tolist() == expected and not images[:, 3:].any()
    texts = [load_file(path)["features"] for path in (work / "features").glob("texts-*")]
    assert any((rows < 0).any() for rows in texts)  # questions, pooled as the setting says


def test_heavy_libraries_wait_until_a_backbone_is_loaded():
    code = (
        "import sys, core.backbones, core.data, core.generator, core.cli\n"
        "heavy = {'open_clip', 'timm', 'torchvision'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
        "core.backbones.load_backbone('weights/emoji/backbone')\n"
        "assert {'open_clip', 'timm'} <= sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("preset, other", [("emoji", "open_clip_config.json"), ("photos", "photo_tower.json")])
def test_a_backbone_that_is_there_is_not_written_over(preset, other, tmp_path):
    """A run trains its own into a folder that has none, or that a run made; someone's own it takes as it is."""
    directory = tmp_path / "mine"

    def own(backbone: str) -> object:
        run = open_run(parser("").parse_args(["--preset", preset, "--device", "cpu", "--set", f"backbone={backbone}"]))
        return run.preset.own_backbone

    assert own(f"local-dir:{directory}") is not None
    assert own("ViT-B-32-quickgelu/openai") is None
    directory.mkdir()
    for kind in KINDS:
        (directory / kind).write_text("{}", encoding="utf-8")
        assert own(f"local-dir:{directory}") is None and own(str(directory)) is None
        (directory / kind).unlink()
    (directory / other).write_text("{}", encoding="utf-8")
    begun(directory).touch()  # by a run that was killed
    assert own(f"local-dir:{directory}") is not None
    begun(directory).unlink()
    assert own(f"local-dir:{directory}") is None
    write_json(tmp_path / "stages.json", {"backbone": {"identity": "of a run"}})
    assert own(f"local-dir:{directory}") is not None
