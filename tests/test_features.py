import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

import core.data.features
import core.data.images
from core.backbones import load_backbone
from core.backbones.questions import TowerQuestions
from core.backbones.stored import StoredBackbone
from core.data.features import EarlierBuild, FeatureStore
from core.data.task_sets import build_task_set
from core.data.tasks import Task
from tests.conftest import ROOT
from train import features


class Images:
    """Ten images whose pixels are their number."""

    num_images = 10

    def __init__(self, name="ten"):
        self.identity = {"name": name}
        self.tasks = [
            Task("q1?", ("a", "b"), ((0, 1), (0, 1)), ((2,), (0,)), "train", prompt="it is {}"),
            Task("q2?", ("b", "c"), ((7, 8), (0, 1)), ((9,), (1,)), "test"),
        ]
        self.loaded: list[int] = []

    def load_arrays(self, indices):
        self.loaded += list(indices)
        return np.array(list(indices), np.uint8)[:, None, None, None]


class Encoder:
    identity = {"sha256": "0"}
    dim = 4

    def encode_images(self, images):
        return torch.as_tensor(images).float().flatten(1) + torch.arange(4) / 4

    def encode_texts(self, texts):
        return torch.tensor([[float(len(text)), float(ord(text[0])), 0, 0] for text in texts])

    def encode_questions(self, questions, pooling):
        return self.encode_texts(questions) + (pooling == "mean")


ASKED = TowerQuestions(Encoder(), "eos")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(core.data.features, "SHARD", 3)


def test_only_what_is_asked_is_encoded_and_only_once(tmp_path):
    images = Images()
    table = FeatureStore(tmp_path, images, Encoder()).images([1, 7])
    assert images.loaded == [0, 1, 2, 6, 7, 8] and table[7, 0] == 7
    again = FeatureStore(tmp_path, images, Encoder()).images([1, 4])
    assert images.loaded == [0, 1, 2, 6, 7, 8, 3, 4, 5] and again[4, 0] == 4 and again[1, 0] == 1


def test_a_crash_loses_one_shard_at_most(tmp_path):
    images = Images()

    class Dying(Encoder):
        def encode_images(self, batch):
            if int(batch.max()) > 5:
                raise KeyboardInterrupt
            return super().encode_images(batch)

    with pytest.raises(KeyboardInterrupt):
        FeatureStore(tmp_path, images, Dying()).images(range(10))
    images.loaded.clear()
    FeatureStore(tmp_path, images, Encoder()).images(range(10))
    assert images.loaded == [6, 7, 8, 9]


@pytest.mark.parametrize("change", ["dataset", "backbone"])
def test_another_identity_is_refused(tmp_path, change):
    FeatureStore(tmp_path, Images(), Encoder())
    encoder = Encoder()
    if change == "backbone":
        encoder.identity = {"sha256": "1"}
    with pytest.raises(ValueError, match=change):
        FeatureStore(tmp_path, Images("other" if change == "dataset" else "ten"), encoder)
    assert json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))["dataset"] == {"name": "ten"}


def test_equal_answers_share_a_row_and_prompts_are_used(tmp_path):
    images = Images()
    store = FeatureStore(tmp_path, images, Encoder())
    plain = build_task_set(store, images.tasks, questions=ASKED)
    assert plain.answer_rows == ((0, 1), (1, 2))
    prompted = build_task_set(store, images.tasks, prompted=True, questions=ASKED)
    assert prompted.answer_features[0, 0] == len("it is a") and prompted.answer_rows[1] == (2, 3)


# -- pictures in files -------------------------------------------------------------------------------------------


class Pictures:
    """Ten pictures in files, whose pixels are their number."""

    num_images = 10

    def __init__(self, directory, slow=0.0):
        self.identity, self.tasks = {"name": "pictures"}, Images().tasks
        self.directory, self.slow = directory, slow
        if not directory.exists():
            directory.mkdir()
            for i in range(self.num_images):
                Image.new("RGB", (5, 4), (i, i, i)).save(directory / f"{i}.png")

    def load_image(self, index):
        time.sleep(self.slow)
        try:
            with Image.open(self.directory / f"{index}.png") as image:
                return image.convert("RGB")
        except OSError as error:
            raise OSError(f"{index}.png: {error}") from None


class PictureEncoder(Encoder):
    @staticmethod
    def transform(image):
        return torch.full((3, 2, 2), float(image.getpixel((0, 0))[0]))

    def encode_images(self, images):
        return images[:, :1, 0, 0] + torch.arange(4) / 4


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_are_transformed_and_those_that_cannot_be_read_are_listed(tmp_path, workers, capsys):
    pictures = Pictures(tmp_path / "pictures")
    (pictures.directory / "1.png").write_bytes(b"no picture")
    (pictures.directory / "4.png").unlink()
    store = FeatureStore(tmp_path / "features", pictures, PictureEncoder(), workers)
    table = store.images(range(10))
    read = [i for i in range(10) if i not in (1, 4)]
    assert torch.equal(table[read, 0], torch.tensor(read).half()) and not table[[1, 4]].any()
    listed = json.loads((tmp_path / "features" / "unreadable.json").read_text(encoding="utf-8"))
    assert set(listed) == {"1", "4"} and "1.png" in listed["1"]
    # task 1 loses its only example of "b", so it goes; task 2 stays whole
    data = build_task_set(store, pictures.tasks, questions=ASKED)
    assert [task.question for task in data.tasks] == ["q2?"] and len(data.question_features) == 1
    out = capsys.readouterr().out
    assert "1 unreadable images" in out and "left out: 'q1?'" in out
    with pytest.raises(ValueError, match="no task with readable images"):
        build_task_set(store, pictures.tasks[:1], questions=ASKED)


def test_mended_pictures_and_only_they_are_read_by_the_next_run(tmp_path, monkeypatch):
    pictures = Pictures(tmp_path / "pictures")
    for i in (1, 4):
        (pictures.directory / f"{i}.png").rename(tmp_path / f"{i}.png")
    FeatureStore(tmp_path / "features", pictures, PictureEncoder()).images(range(10))
    (tmp_path / "4.png").rename(pictures.directory / "4.png")
    seen = []
    monkeypatch.setattr(
        Pictures, "load_image", lambda self, i, load=Pictures.load_image: seen.append(i) or load(self, i)
    )
    store = FeatureStore(tmp_path / "features", pictures, PictureEncoder())
    table = store.images([0, 4, 9])
    store.images(range(10))
    assert seen == [1, 4] and table[4, 0] == 4 and list(store.unreadable) == [1]
    monkeypatch.setattr(Pictures, "load_image", lambda self, i: int("the pictures are not here"))  # a ValueError
    assert FeatureStore(tmp_path / "features", pictures, PictureEncoder()).images(range(10))[4, 0] == 4


def test_features_of_pictures_hold_for_one_way_of_reading_them(tmp_path, monkeypatch):
    pictures = Pictures(tmp_path / "pictures")
    FeatureStore(tmp_path / "features", pictures, PictureEncoder())
    monkeypatch.setattr(core.data.images, "READING", "otherwise")
    with pytest.raises(EarlierBuild, match="made for another reading .*, now 'otherwise'"):
        FeatureStore(tmp_path / "features", pictures, PictureEncoder())
    stored = StoredBackbone(tmp_path / "features")  # encodes nothing, so it takes what there is
    assert FeatureStore(tmp_path / "features", pictures, stored).directory == tmp_path / "features"
    pictures.identity = {"name": "other"}
    with pytest.raises(ValueError) as refused:
        FeatureStore(tmp_path / "features", pictures, PictureEncoder())
    assert refused.type is ValueError
    FeatureStore(tmp_path / "drawn", Images(), Encoder())
    assert "reading" not in json.loads((tmp_path / "drawn" / "index.json").read_text(encoding="utf-8"))


def test_a_directory_that_is_gone_is_an_error_and_leaves_no_shard(tmp_path, monkeypatch):
    pictures = Pictures(tmp_path / "pictures")
    pictures.directory.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(core.data.features, "SHARD", 10)
    with pytest.raises(ValueError, match="none of 10 images can be read: 0.png"):
        FeatureStore(tmp_path / "features", pictures, PictureEncoder()).images(range(10))
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["index.json"]


def _encode_slowly(directory):
    pictures = Pictures(directory / "pictures", slow=0.05)
    FeatureStore(directory / "features", pictures, PictureEncoder()).images(range(10))


def test_a_kill_loses_one_shard_at_most(tmp_path):
    Pictures(tmp_path / "pictures")
    process = multiprocessing.get_context("fork").Process(target=_encode_slowly, args=(tmp_path,))
    process.start()
    first = tmp_path / "features" / "images-00000.safetensors"
    deadline = time.monotonic() + 20
    while not first.is_file() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "features").glob("images-*.safetensors")}
    assert first.name in done and len(done) < 4
    counted = Counted()
    pictures = Pictures(tmp_path / "pictures")
    table = FeatureStore(tmp_path / "features", pictures, PictureEncoder()).images(range(10), counted)
    assert torch.equal(table[:, 0], torch.arange(10).half()) and counted.total == counted.seen == 10 - 3 * len(done)
    assert all((tmp_path / "features" / name).stat().st_mtime_ns == then for name, then in done.items())


class Counted:
    """A progress bar that remembers."""

    total = seen = 0

    def __call__(self, total):
        self.total = total
        return self

    def update(self, n):
        self.seen += n

    def close(self):
        assert self.seen == self.total


def test_progress_counts_images_and_only_those_to_encode(tmp_path):
    counted = Counted()
    FeatureStore(tmp_path, Images(), Encoder()).images([1], counted)
    assert counted.total == 3
    never = lambda total: pytest.fail("nothing is to be encoded")
    FeatureStore(tmp_path, Images(), Encoder()).images([1], never)


def test_texts_are_encoded_once_and_apart_by_prompt_and_pooling(tmp_path):
    class Counting(Encoder):
        calls = 0

        def encode_texts(self, texts):
            Counting.calls += 1
            return super().encode_texts(texts)

    images = Images()

    def build(pooling="eos", **how):
        backbone = Counting()
        store = FeatureStore(tmp_path, images, backbone)
        return build_task_set(store, images.tasks, questions=TowerQuestions(backbone, pooling), **how)

    first = build()
    assert Counting.calls == 2  # answers and questions
    again = build()
    assert Counting.calls == 2 and torch.equal(first.answer_features, again.answer_features)
    mean, prompted = build(pooling="mean"), build(prompted=True)
    assert Counting.calls == 4
    assert torch.equal(mean.question_features, first.question_features + 1)
    assert not torch.equal(prompted.answer_features, first.answer_features)
    assert first.answer_features.dtype == torch.float32


def test_the_global_random_state_is_left_alone(tmp_path):
    before = torch.get_rng_state()
    FeatureStore(tmp_path, Images(), Encoder()).images(range(10))
    assert torch.equal(before, torch.get_rng_state())


def test_the_refusal_names_what_differs(tmp_path):
    one, other = Images(), Images()
    one.identity, other.identity = ({"name": "ten", "prompts": prompts} for prompts in ("a", "b"))
    FeatureStore(tmp_path, one, Encoder())
    with pytest.raises(ValueError, match="another dataset \\(prompts 'a', now 'b'\\)"):
        FeatureStore(tmp_path, other, Encoder())


def test_pixels_from_workers_are_what_the_backbone_would_make():
    backbone = load_backbone(f"local-dir:{ROOT / 'weights' / 'emoji' / 'backbone'}")
    g = np.random.default_rng(0)
    pictures = [Image.fromarray(g.integers(0, 255, (h, w, 3), np.uint8)) for h, w in ((80, 80), (100, 61), (33, 200))]
    pixels = torch.stack([backbone.transform(picture) for picture in pictures])
    assert torch.equal(backbone.encode_images(pixels), backbone.encode_images(pictures))
    with pytest.raises(ValueError, match="expected \\(B, 3, 80"):
        backbone.encode_images(pixels[:, :, 1:])


def test_the_stage_encodes_everything_and_then_nothing(tmp_path, capsys):
    arguments = ["--preset", "tiny", "--work", str(tmp_path), "--device", "cpu", "--workers", "1"]
    arguments += ["--set", *(f"dataset.{n}=2" for n in ("test_known_tasks", "test_new_tasks"))]
    arguments += ["dataset.train_tasks=3", "dataset.val_tasks=1"]
    features.main(arguments)
    assert "'tasks': 7.0, 'dropped': 0.0" in capsys.readouterr().out
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "features").iterdir()}
    assert len([name for name in times if name.startswith("texts-")]) == 9  # bare, prompted, questions of three splits
    features.main(arguments)
    assert times == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "features").iterdir()}
    with pytest.raises(SystemExit):
        features.main([*arguments, "--workers", "-1"])
    assert "--workers -1" in capsys.readouterr().err
