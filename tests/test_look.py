"""How pictures look: the measure in closed form, its file, the shipped one, and the page's notice."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from core.backbones.clip import load as load_clip
from core.backbones.photo_tower import Squash
from core.data.built import ImageFiles, image_names, write_dataset
from core.data.emoji.dataset import draw_scenes_for_question
from core.data.emoji.questions import FAMILIES
from core.data.images import read_image
from core.data.look import LOOK, Look, describe
from core.data.meta_vqa import MetaVQAConfig
from core.demo import pages
from core.demo.studio import Studio
from core.demo.views import about
from core.demo.world import PHOTOS
from core.release.default import located
from tests.conftest import ROOT
from tests.test_worlds import photographs
from train.encoders import photo_tower

SHIPPED = located("weights/photos/backbone") / LOOK
EMOJI = ROOT / "weights" / "emoji" / "backbone"


def samples() -> list[Image.Image]:
    return [read_image(path) for path in sorted(PHOTOS.glob("*.jpg"))]


def crops(count: int, seed: int) -> list[Image.Image]:
    """Parts of the example photographs, as many from each."""
    rng, whole = random.Random(seed), samples()
    result = []
    for i in range(count):
        image = whole[i % len(whole)]
        side = rng.randint(200, min(image.size))
        left, top = rng.randint(0, image.width - side), rng.randint(0, image.height - side)
        result.append(image.crop((left, top, left + side, top + side)))
    return result


def scenes(count: int) -> list[Image.Image]:
    """A drawn scene of each of so many questions."""
    questions = [question.text for family in FAMILIES.values() for question in family.questions]
    return [draw_scenes_for_question(q, 1, seed=0)[0][0] for q in random.Random(0).sample(questions, count)]


def screenshot(seed: int) -> Image.Image:
    """A page of made-up words, with a title bar and buttons."""
    rng = random.Random(seed)
    paper, ink = rng.choice([("white", "#222222"), ("#1e1e1e", "#e6e6e6"), ("#f5f5f7", "black")])
    image = Image.new("RGB", rng.choice([(1280, 720), (390, 844), (800, 600)]), paper)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=rng.choice([12, 15, 20]))
    draw.rectangle((0, 0, image.width, 50), fill="#3367d6")
    for y in range(70, image.height - 40, 30):
        if rng.random() < 0.15:
            draw.rounded_rectangle((30, y, 160, y + 26), 8, fill="#34a853")
        else:
            words = ("".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 9))) for _ in range(rng.randint(3, 12)))
            draw.text((30, y), " ".join(words), fill=ink, font=font)
    return image


# The measure


def test_descriptions_are_quantiles_of_differences() -> None:
    """A ramp of two levels a pixel across, none down: half of the differences are 0, half 2 of 255."""
    ramp = Image.frombytes("L", (100, 100), bytes(2 * x for _ in range(100) for x in range(100))).convert("RGB")
    x = describe([ramp], Squash(100))[0].exp() - 0.0055
    assert x[0] == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(x[2:], torch.full((5,), 2 / 255))


def test_the_measure_does_not_depend_on_the_numbers_that_a_transform_gives() -> None:
    squash, pictures = Squash(80), crops(4, seed=0)
    mean, std = torch.tensor([0.48, 0.46, 0.41])[:, None, None], torch.tensor([0.27, 0.26, 0.28])[:, None, None]
    normalised = lambda image: (squash(image) / 255 - mean) / std
    torch.testing.assert_close(describe(pictures, normalised), describe(pictures, squash), rtol=1e-4, atol=1e-4)


def test_distance_is_mahalanobis_and_the_limit_a_quantile_of_what_is_left_out_in_turn() -> None:
    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(7, 7, generator=rng)
    x = torch.randn(3000, 7, generator=rng) @ mixing + 3

    def expected(known, asked):
        covariance = torch.cov(known.mT).double() + 1e-3 * torch.eye(7, dtype=torch.float64)
        centred = (asked - known.mean(0)).double()
        return (centred * torch.linalg.solve(covariance, centred.mT).mT).sum(1)

    look = Look.fit(x)
    torch.testing.assert_close(look.distance(x).double(), expected(x, x), rtol=1e-3, atol=1e-3)
    in_turn = torch.cat([expected(torch.cat([x[:k], x[k + 1000 :]]), x[k : k + 1000]) for k in (0, 1000, 2000)])
    by_thirds = Look.fit(x, folds=torch.arange(3000) // 1000)
    assert int((in_turn > by_thirds.limit).sum()) == 60  # 2%
    fresh = torch.randn(6000, 7, generator=rng) @ mixing + 3
    assert sum(look.are_strange(fresh)) / 6000 == pytest.approx(0.02, abs=0.01)
    with pytest.raises(ValueError, match="8 pictures are too few"):
        Look.fit(x[:8])


def test_a_look_is_the_same_from_its_file_and_a_damaged_one_is_named(tmp_path) -> None:
    look = Look.fit(torch.randn(90, 7, generator=torch.Generator().manual_seed(0)))
    look.write(path := tmp_path / LOOK)
    again = Look.read(path)
    assert again.limit == look.limit
    assert torch.equal(again.mean, look.mean) and torch.equal(again.precision, look.precision)
    whole = json.loads(path.read_text(encoding="utf-8"))
    for broken in ("", "[]", json.dumps({"mean": [0.0]}), json.dumps(whole | {"mean": [0.0]})):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(ValueError, match=f"{LOOK}: not the look of pictures"):
            Look.read(path)


def test_photographs_and_others_are_told_apart() -> None:
    squash = Squash(260)
    look = Look.fit(describe(crops(240, seed=0), squash))
    assert sum(look.are_strange(describe(crops(100, seed=1), squash))) <= 8
    assert all(look.are_strange(describe([*scenes(20), *map(screenshot, range(10))], squash)))


def test_the_tower_s_script_writes_the_look_of_training_pictures(tmp_path) -> None:
    """Also where it does not read them again."""
    pictures, backbone = tmp_path / "pictures", tmp_path / "backbone"
    pictures.mkdir(), backbone.mkdir()
    for k, part in enumerate(crops(24, seed=0)):
        part.save(pictures / f"{k:02d}.jpg")
    entry = lambda i: {"train": pairs(6 * i, 3), "test": pairs(6 * i + 3, 3), "answers": ["cat", "dog", "cup"]}
    pairs = lambda first, count: [[f"{first + k:02d}.jpg", ("cat", "dog", "cup")[k]] for k in range(count)]
    questions = {"train": {f"What is {i}?": entry(i) for i in range(3)}, "test": {"What is it?": entry(3)}}
    images = ImageFiles(pictures, tuple(image_names(questions.values())))
    write_dataset(tmp_path / "data", questions, name="a", source="b", prompts={}, images=images)
    config = replace(MetaVQAConfig.at(tmp_path / "data"), val_tasks=1)
    data = config.open()
    for file in SHIPPED.parent.glob("trunk*"):
        shutil.copy(file, backbone)
    settings = [f"dataset.directory={config.directory}", f"dataset.digest={config.digest}", "dataset.val_tasks=1"]
    settings += [f"backbone=local-dir:{backbone}"]
    learned = sorted({i for task in data.tasks if task.split == "train" for i in task.examples("all")[0]})
    expected = Look.fit(describe([data.load_image(i) for i in learned], Squash(260)))
    assert len(learned) == 12
    for _ in range(2):
        photo_tower.main(["--set", *settings, "--work", str(tmp_path / "work"), "--output", str(tmp_path / "out")])
        look = Look.read(backbone / LOOK)
        torch.testing.assert_close(look.mean, expected.mean)
        assert look.limit == pytest.approx(expected.limit, rel=1e-3)
        shutil.rmtree(pictures, ignore_errors=True)
        (backbone / LOOK).unlink()


# The shipped one


@pytest.mark.skipif(not SHIPPED.is_file(), reason="no look of photographs is shipped")
def test_the_shipped_look_knows_photographs() -> None:
    """Of any size; drawn scenes, as they are and enlarged, and screenshots are strange."""
    look, squash = Look.read(SHIPPED), Squash(260)
    strange = lambda images: look.are_strange(describe(images, squash))
    assert not any(strange(samples()))
    assert not any(strange([image.resize((image.width // 3, image.height // 3)) for image in samples()]))
    assert not any(strange([image.resize((3 * image.width, 3 * image.height)) for image in samples()]))
    drawn = scenes(100)
    assert sum(strange(drawn)) >= 97
    assert sum(strange([image.resize((400, 400), Image.Resampling.BICUBIC) for image in drawn])) >= 97
    assert all(strange([screenshot(seed) for seed in range(20)]))
    assert all(strange([Image.open(path) for path in sorted((ROOT / "eval" / "results").glob("app*.png"))]))


# The page


@pytest.fixture
def world_of_photographs(tmp_path):
    """The shipped models said to be of photographs, with the look of photographs beside their backbone."""
    backbone = shutil.copytree(EMOJI, tmp_path / "backbone")
    Look.fit(describe(crops(60, seed=0), load_clip(EMOJI, torch.device("cpu")).transform)).write(backbone / LOOK)
    generator = photographs()
    generator.config["backbone"] = f"local-dir:{backbone}"
    return Studio(generator)


def ask(studio: Studio, paths: list) -> str:
    how = dict(name=studio.name, gamma=1.0, steps=2, samples=1, seed=0, score={})
    return pages.ask(studio, "What animal is this?", "cat, dog", False, 1, paths, ["clip"], **how)[0]


def test_a_drawn_scene_is_unfamiliar_in_a_world_of_photographs(world_of_photographs, tmp_path) -> None:
    paths = [tmp_path / f"scene-{i}.png" for i in range(2)]
    for path, scene in zip(paths, scenes(2), strict=True):
        scene.save(path)
    html = ask(world_of_photographs, [PHOTOS / "cat.jpg", *paths])
    assert html.count('class="qa-strange"') == 2
    assert "look unlike any that these models were trained on" in html and "scene" not in html
    assert "unfamiliar" not in ask(world_of_photographs, [PHOTOS / "cat.jpg"])


def test_the_page_says_how_it_judges_pictures(world_of_photographs) -> None:
    told = lambda studio, judged: " ".join(about.text(studio.world, encoder="a tower", judged=judged).split())
    judged = told(world_of_photographs, True)
    assert "farther from that of the pictures that the models learned from" in judged and "drawn scenes" not in judged
    assert "not judged" not in judged and "Pictures are not judged" in told(world_of_photographs, False)
    assert Studio(photographs()).pictures is None  # where no look lies beside the backbone
