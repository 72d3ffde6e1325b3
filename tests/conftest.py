"""Shared fixtures: a small batch of tasks, and one run of the tiny preset that many tests read."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from hypothesis import HealthCheck, settings

from core.data.tasks import TaskBatch
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.release.checkpoint import save_adapter
from tests.hub_stub import OWNER_TOKEN, HubStub

torch.set_num_threads(1)  # many small products: more threads only wait for each other
os.environ["OMP_NUM_THREADS"] = "1"  # in processes that tests start, too: what they compute is compared
# Property tests try the same few examples every time; `--hypothesis-profile long` draws many new ones.
settings.register_profile(
    "short", max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
settings.register_profile("long", settings.get_profile("short"), max_examples=1000, derandomize=False)
settings.load_profile("short")
ROOT = Path(__file__).resolve().parent.parent
REPO, CARD = "user/adapters", "---\nlicense: apache-2.0\n---\n\n# A card\n"  # of the `release` below


def launch(demo):
    """The address of the page on a free port of this machine, served as `app.py` does."""
    from core.demo.layout import page
    from core.demo.limits import QUEUE

    queue = demo.queue(max_size=QUEUE)
    _, address, _ = queue.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **page.LAUNCH)
    return address


def random_batch(T: int = 4, N: int = 12, C: int = 5, D: int = 16, seed: int = 0, dtype=torch.float32) -> TaskBatch:
    """Ragged random tasks with something to learn: the label is the answer nearest to a rotated image."""
    g = torch.Generator().manual_seed(seed)
    unit = lambda *shape: torch.nn.functional.normalize(torch.randn(*shape, generator=g, dtype=dtype), dim=-1)
    images, answers, question = unit(T, N, D), unit(T, C, D), unit(T, D)
    rotation = torch.linalg.qr(torch.randn(D, D, generator=g, dtype=dtype))[0]
    example_mask = torch.arange(N) < torch.randint(N // 2, N + 1, (T, 1), generator=g)
    answer_mask = torch.arange(C) < torch.randint(2, C + 1, (T, 1), generator=g)
    scores = ((images @ rotation) @ answers.mT).masked_fill(~answer_mask[:, None], -9)
    return TaskBatch(
        images * example_mask[..., None],
        scores.argmax(-1) * example_mask,
        example_mask,
        answers * answer_mask[..., None],
        answer_mask,
        question,
    )


@pytest.fixture
def batch() -> TaskBatch:
    return random_batch()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Work folder of a finished `run_all --preset tiny`; its release is in seed-0/weights."""
    from train import run_all

    work = tmp_path_factory.mktemp("tiny")
    run_all.main(["--preset", "tiny", "--work", str(work), "--device", "cpu"])
    return work


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub of our own, its owner's token, an empty cache, and no waiting between attempts."""
    with HubStub(part_bytes=1 << 16) as stub:
        monkeypatch.setattr(constants, "ENDPOINT", stub.url)
        template = stub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", OWNER_TOKEN)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        disable_progress_bars()
        yield stub
        enable_progress_bars()


@pytest.fixture
def release(tmp_path):
    """A small release: two models, one of them too large for one part, a backbone, and what should stay here."""
    directory = tmp_path / "release"
    for name, hidden in (("mnet_maml", 8), ("uncond_multitask", 128)):
        network = CLIPAdapter(AdapterConfig(hidden=hidden), dim=256)
        save_adapter(directory / f"{name}.safetensors", torch.arange(network.num_params) % 7.0, network)
    config = {"format_version": 2, "preset": "emoji", "seed": 0, "dataset": "emoji-vqa v1", "backbone": "backbone"}
    config |= {"network": network.spec(), "questions": [], "question_encoder": {"encoder": "clip", "pooling": "eos"}}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "stages.json").write_text(
        json.dumps({"mnet_maml": {"metrics": {"val_accuracy": 0.5}}}), encoding="utf-8"
    )
    (directory / "README.md").write_text(CARD, encoding="utf-8")
    (directory / "backbone").mkdir()
    (directory / "backbone" / "open_clip_config.json").write_text("{}", encoding="utf-8")
    for stays in ("hvae.pt", "hvae.safetensors.tmp", "notes.txt", ".DS_Store", "backbone/x.bin"):
        (directory / stays).write_text("no", encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """A built dataset: what colour is it, twelve training and two test questions about six noisy pictures each."""
    import numpy as np
    from PIL import Image

    from core.data.built import ImageFiles, image_names, write_dataset

    root = tmp_path_factory.mktemp("colours")
    shades = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (30, 40, 200)}
    questions = {"train": {}, "test": {}}
    (root / "pictures").mkdir()
    for i in range(14):
        pairs = []
        for k, answer in enumerate(2 * list(shades)):
            noise = np.random.default_rng(10 * i + k).integers(-20, 20, (64, 64, 3))
            pixels = np.clip(np.array(shades[answer]) + noise, 0, 255).astype(np.uint8)
            pairs.append([f"{i:02d}-{k}.png", answer])
            Image.fromarray(pixels).save(root / "pictures" / pairs[-1][0])
        entry = {"train": pairs[:3], "test": pairs[3:], "answers": list(shades)}
        questions["test" if i > 11 else "train"][f"What color is thing {i}?"] = entry
    images = ImageFiles(root / "pictures", tuple(image_names(questions.values())))
    write_dataset(root / "data", questions, name="colours", source="drawn", prompts={}, images=images)
    return root / "data"
