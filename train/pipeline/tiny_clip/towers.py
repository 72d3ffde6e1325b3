"""The two towers of the tiny CLIP: built, trained one after the other, and saved in open_clip's format."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from core.backbones import emoji_tower  # noqa: F401  (registers the trunk with timm)
from core.config import config_hash
from core.data.emoji.captions import loose_caption
from core.data.emoji.scene import IMAGE_SIZE
from core.files import replacing, write_json
from core.release.state import damaged, load_state, save_state
from core.tensors import check_finite

from .config import TinyCLIPConfig
from .heads import SceneHeads
from .scenes import SceneStream, training_scene

_STATE_EVERY = 250  # steps
# What is on a badge of a colour is the hardest to read out linearly: 11 colours times 19 kinds of eight things each.
_READOUT_WEIGHTS = {"colour: kind": 3.0, "colour: within": 3.0}


def build_model(config: TinyCLIPConfig) -> torch.nn.Module:
    """A freshly initialised tiny CLIP."""
    settings = config.model_config(IMAGE_SIZE)
    model = open_clip.CLIP(embed_dim=config.dim, vision_cfg=settings["vision_cfg"], text_cfg=settings["text_cfg"])
    model.visual.image_mean = model.visual.image_std = (0.5, 0.5, 0.5)
    return model


def cosine_rate(step: int, steps: int, warmup: int = 100) -> float:
    """Learning rate factor: linear warm-up, then half a cosine down to 2%."""
    return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def normalise(images: Tensor, model: torch.nn.Module) -> Tensor:
    """uint8 (B, H, W, 3) to the model's input (B, 3, H, W)."""
    mean, std = (
        torch.tensor(v, device=images.device)[:, None, None] for v in (model.visual.image_mean, model.visual.image_std)
    )
    x = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
    return x.contiguous(memory_format=torch.channels_last)


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the machine multiplies in it; elsewhere it would only be slower."""
    native = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=native)


def train_image_tower(
    model: torch.nn.Module, config: TinyCLIPConfig, seed: int, state: Path, device: torch.device, workers: int
) -> dict[str, float]:
    """Fit `model.visual`; returns the running accuracy of every readout. Resumes from `state` if it exists."""
    visual = model.visual.to(memory_format=torch.channels_last)
    heads = SceneHeads(config.dim, cell_width=visual.trunk.num_features // 4).to(device)
    optimizer = torch.optim.AdamW(
        [
            {"params": visual.parameters(), "lr": config.image_lr, "weight_decay": 0.02},
            {"params": heads.parameters(), "lr": 1.5 * config.image_lr, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
        fused=True,
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    accuracy: dict[str, float] = {}
    start = 0
    key = config_hash(config.dim, config.image_steps, config.image_batch, config.image_lr, seed)
    saved = load_state(state, device) if state.is_file() else {}
    if saved.get("key") == key:  # a state of other settings is no state of this run
        try:
            visual.load_state_dict(saved["visual"])
            heads.load_state_dict(saved["heads"])
            optimizer.load_state_dict(saved["optimizer"])
            start, accuracy = saved["step"], saved["accuracy"]
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise damaged(state, error) from None
    stream = SceneStream(seed, config.image_batch, start, config.image_steps)
    batches = DataLoader(stream, batch_size=None, num_workers=workers)
    progress = tqdm(batches, desc="image tower", initial=start, total=config.image_steps, mininterval=5)
    visual.train()
    for step, (images, labels) in enumerate(progress, start):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * cosine_rate(step, config.image_steps)
        with autocast(device):
            cells = visual.trunk.cells(normalise(images.to(device), model))
            embedding = visual.head(cells.flatten(1))
        embedding = F.normalize(embedding.float(), dim=-1)
        with autocast(device):
            readouts = heads(embedding, cells, labels.to(device))
        # Object names are the slowest to learn and everything else hangs on them.
        cell = [
            loss * (3 if name == "cell name" else 1) for name, (loss, _) in readouts.items() if name.startswith("cell")
        ]
        weights = {name: _READOUT_WEIGHTS.get(name, 1.0) for name in readouts if not name.startswith("cell")}
        asked = [weight * readouts[name][0] for name, weight in weights.items()]
        loss = sum(cell) / 6 + sum(asked) / sum(weights.values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(visual.parameters(), 5.0)
        optimizer.step()
        if step % 50 == 0 or (step + 1) % _STATE_EVERY == 0 or step + 1 == config.image_steps:
            _check_loss(loss, "image tower", step, config.image_steps, "tiny_clip.image_lr", config.image_lr)
        for name, (_, hit) in readouts.items():
            accuracy[name] = 0.98 * accuracy.get(name, float(hit)) + 0.02 * float(hit)
        if step % 50 == 0:
            progress.set_postfix(loss=f"{float(loss.detach()):.3f}", accuracy=f"{np.mean(list(accuracy.values())):.3f}")
        if (step + 1) % _STATE_EVERY == 0:
            save_state(
                state,
                {
                    "visual": visual.state_dict(),
                    "heads": heads.state_dict(),
                    "step": step + 1,
                    "key": key,
                    "optimizer": optimizer.state_dict(),
                    "accuracy": accuracy,
                },
            )
    return accuracy


def train_text_tower(
    model: torch.nn.Module, config: TinyCLIPConfig, seed: int, device: torch.device, workers: int
) -> float:
    """Fit the text tower to loose captions of fresh scenes, image tower locked; returns the last running loss."""
    model.eval()
    first = config.image_steps * config.image_batch  # scenes that the image tower was not trained on
    batch = config.image_batch
    stream = SceneStream(seed, batch, first // batch, (first + config.caption_scenes) // batch)
    with torch.no_grad():
        features = torch.cat(
            [
                F.normalize(model.encode_image(normalise(images.to(device), model)).float(), dim=-1)
                for images, _ in tqdm(DataLoader(stream, batch_size=None, num_workers=workers), desc="caption scenes")
            ]
        )
    scenes = [training_scene(stream.worlds, seed, first + i) for i in range(len(features))]
    encode = functools.cache(open_clip.get_tokenizer("ViT-B-32").encode)  # captions repeat a few hundred words
    text = [p for name, p in model.named_parameters() if not name.startswith("visual.")]
    optimizer = torch.optim.AdamW(text, lr=config.text_lr, weight_decay=0.01, betas=(0.9, 0.98), fused=True)
    rng = torch.Generator().manual_seed(seed)
    running = math.log(config.text_batch)
    progress = tqdm(range(config.text_steps), desc="text tower", mininterval=5)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = config.text_lr * cosine_rate(step, config.text_steps)
        rows = torch.randint(len(features), (config.text_batch,), generator=rng)
        captions = [loose_caption(scenes[i], random.Random(f"{seed}/{step}/{i}")) for i in rows.tolist()]
        tokens = _tokens(captions, encode, config.context).to(device)
        logits = model.logit_scale.exp() * F.normalize(_encode_short(model, tokens), dim=-1) @ features[rows].T
        target = torch.arange(len(rows), device=device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        _check_loss(loss, "text tower", step, config.text_steps, "tiny_clip.text_lr", config.text_lr)
        running = 0.99 * running + 0.01 * float(loss.detach())
        if step % 50 == 0:
            progress.set_postfix(loss=f"{running:.3f}")
    return running


def _check_loss(loss: Tensor, tower: str, step: int, steps: int, setting: str, rate: float) -> None:
    """A ValueError that says what to change if a tower's loss is not finite."""
    if not math.isfinite(float(loss.detach())):
        raise ValueError(
            f"{tower}: loss {float(loss.detach())} at step {step + 1} of {steps}; nothing is recorded; a smaller rate "
            f"may do: --set {setting}={rate / 10:g}"
        )


def _tokens(captions: list[str], encode: Callable[[str], list[int]], context: int) -> Tensor:
    """What CLIP's tokenizer gives for captions of plain words, (B, longest), word by word."""
    start, end = 49406, 49407
    rows = [[start, *[i for word in caption.split() for i in encode(word)][: context - 2], end] for caption in captions]
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


def _encode_short(model: torch.nn.Module, tokens: Tensor) -> Tensor:
    """`model.encode_text` on tokens cut to their longest caption: the rest is padding behind a causal mask."""
    n = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:n]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:n, :n]))
    return x[torch.arange(len(x)), tokens.argmax(-1)] @ model.text_projection


def save(model: torch.nn.Module, config: TinyCLIPConfig, directory: Path, record: dict) -> None:
    """Write open_clip's directory format, half precision, and how it was made in `training.json`."""
    tensors = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor.contiguous()
        for name, tensor in model.state_dict().items()
    }
    path = directory / "open_clip_model.safetensors"
    check_finite(path, tensors)
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    preprocess = {
        "mean": list(model.visual.image_mean),
        "std": list(model.visual.image_std),
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    description = {"model_cfg": config.model_config(IMAGE_SIZE), "preprocess_cfg": preprocess}
    write_json(directory / "open_clip_config.json", description)
    write_json(directory / "training.json", record)
