"""The photo tower: its parts in closed form, the shipped one on photographs, and the script that makes it."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from core.backbones import embedding_dim, load_backbone
from core.backbones.photo_tower import CONFIG, Squash, Trunk, colour_histogram
from core.data.built import write_dataset
from core.data.meta_vqa import find_coco
from core.release.default import located
from train.encoders import photo_tower
from train.encoders.ridge import Ridge, without_own

SHIPPED = located("weights/photos/backbone")
SAMPLES = located("core/demo/photos")


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


def test_features_of_the_shipped_photographs_are_the_towers(tower) -> None:
    """Those that no training pair shows: the others come from heads fitted without them."""
    stored = json.loads((located("weights/photos/data") / "features" / "index.json").read_text(encoding="utf-8"))
    assert stored["backbone"] == tower.identity and stored["dim"] == tower.dim


def test_the_script_makes_a_tower_of_ones_own_pictures(tmp_path) -> None:
    """From pictures to a backbone, twice the same, the second time without reading pictures again."""
    rng = random.Random(0)
    colours = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (30, 40, 200)}
    (tmp_path / "pictures").mkdir()
    questions: dict[str, dict[str, dict]] = {"train": {}, "test": {}}
    for i, split in enumerate(("train", "train", "train", "test")):
        pairs = []
        for k in range(6):
            answer = list(colours)[k % 3]
            noise = np.random.default_rng(10 * i + k).integers(-20, 20, (64, 64, 3))
            pixels = np.clip(np.array(colours[answer]) + noise, 0, 255).astype(np.uint8)
            name = f"COCO_train2014_{10 * i + k:012d}"
            Image.fromarray(pixels).save(tmp_path / "pictures" / f"{name}.jpg")
            pairs.append([name, answer])
        rng.shuffle(pairs)
        parts = {"train": pairs[:3], "test": pairs[3:]}
        questions[split][f"What color is thing {i}?"] = {**parts, "answers": list(colours)}
    for entry in (*questions["train"].values(), *questions["test"].values()):
        entry["train"].sort(key=lambda pair: pair[1])
    names = sorted({image for part in questions.values() for e in part.values() for image, _ in e["train"] + e["test"]})
    images = find_coco(names, tmp_path / "pictures")
    data = tmp_path / "data"
    write_dataset(data, questions, name="colours", source="test", prompts={}, images=images)
    backbone = tmp_path / "backbone"
    backbone.mkdir()
    for file in SHIPPED.glob("trunk*"):
        shutil.copy(file, backbone)
    own = [f"dataset.directory={data}", "dataset.val_tasks=1", f"backbone=local-dir:{backbone}"]
    argv = ["--set", *own, "--work", str(tmp_path / "work"), "--output", str(tmp_path / "out"), "--ship"]
    photo_tower.main(argv)
    made = {file.name: file.read_bytes() for file in backbone.iterdir()}
    assert (data / "features" / "index.json").is_file()
    shutil.rmtree(tmp_path / "pictures")
    photo_tower.main(argv)
    assert {file.name: file.read_bytes() for file in backbone.iterdir()} == made
    tower = load_backbone(str(backbone))
    green = Image.new("RGB", (300, 200), colours["green"])
    scores = tower.encode_images([green]) @ tower.encode_texts(list(colours)).T
    assert list(colours)[int(scores.argmax())] == "green"


def test_whitening_makes_answers_differ_in_all_directions_alike() -> None:
    rng = torch.Generator().manual_seed(0)
    spread = torch.tensor([3.0, 1.0, 1.0, 0.5])
    texts = torch.randn(4000, 4, generator=rng) * spread + 2
    mean, whitening = photo_tower.whitening_of(texts)
    white = (texts - mean) @ whitening
    torch.testing.assert_close(whitening, whitening.T)
    assert white.std(0).max() / white.std(0).min() < 1.3
    assert F.normalize(white, dim=-1).shape == (4000, 4)


def test_the_trunk_gives_a_group_of_features_for_each_source() -> None:
    trunk = Trunk(photo_tower.PhotoTowerConfig()).eval()
    assert trunk.sizes == [1280, 120, 208, 352, 9 * 31]
