import json

import numpy as np
import pytest
import torch

import core.features
from core.features import FeatureStore, build_task_set
from core.tasks import Task


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


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(core.features, "SHARD", 3)


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
    assert json.loads((tmp_path / "index.json").read_text())["dataset"] == {"name": "ten"}


def test_equal_answers_share_a_row_and_prompts_are_used(tmp_path):
    images = Images()
    store = FeatureStore(tmp_path, images, Encoder())
    plain = build_task_set(store, images.tasks)
    assert plain.answer_rows == ((0, 1), (1, 2))
    prompted = build_task_set(store, images.tasks, prompted=True)
    assert prompted.answer_features[0, 0] == len("it is a") and prompted.answer_rows[1] == (2, 3)
