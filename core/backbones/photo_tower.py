"""The photo tower: photographs and answers in one space, without a pre-trained CLIP.

A frozen ImageNet network reads pictures, the frozen sentence encoder reads answers, and a linear head joins them: it is
ridge regression from features of a picture to the whitened embedding of an answer (locked-image, locked-text tuning).
`train/encoders/photo_tower.py` makes its files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import from_dict
from ..data.images import as_shown
from ..files import read_json
from ..release.checkpoint import load_into, load_model
from ..release.manifest import encoder_directory
from . import Pooling
from .frozen import digest_of, no_tf32
from .questions import WIDTH
from .sentence import SentenceEncoder, shared

CONFIG, TRUNK, HEAD = "photo_tower.json", "trunk.safetensors", "head.safetensors"
TRUNK_KIND, HEAD_KIND = "photo_trunk", "photo_head"  # of the checkpoints
HUES, GREYS = 12, 7  # of a colour histogram: hues are counted as dark and as bright
_FIELDS, _SIDE = 3, 96  # a histogram for each of 3 x 3 fields, of a picture of 96 x 96 pixels
_SATURATED, _DARK, _BRIGHT = 70 / 255, 50 / 255, 150 / 255


@dataclass(frozen=True)
class PhotoTowerConfig:
    """What the tower is made from, and how it reads pictures."""

    trunk: str = "tf_efficientnet_lite2"  # timm's name
    source_sha256: str = ""  # of the trunk's public weights
    licence: str = "Apache-2.0"
    sentence_sha256: str = ""  # digest of the sentence encoder that answers go through
    image_size: int = 260  # pictures are squashed to a square of so many pixels
    blocks: tuple[int, ...] = (4, 5, 6)  # whose maps are read besides the last: colour and number die on the way
    logit_scale: float = 20.0

    def __post_init__(self) -> None:
        if not 8 <= self.image_size <= 4096 or not 0 < self.logit_scale < 1e6:
            raise ValueError(
                f"image_size {self.image_size}, logit_scale {self.logit_scale}; allowed: 8 to 4096, and above 0"
            )


class Trunk(nn.Module):
    """Pictures (B, 3, S, S), values 0 to 255, to features (B, F) and the probabilities (B, 1000) of ImageNet's
    classes. Features are means over the maps of some blocks and of the last one, and colour histograms."""

    def __init__(self, config: PhotoTowerConfig) -> None:
        """An untrained trunk; `timm` builds it."""
        super().__init__()
        import timm

        self.blocks = config.blocks
        self.net = timm.create_model(config.trunk, pretrained=False)

    @property
    def sizes(self) -> list[int]:
        """How many features each source gives: the channels that the blocks' last norms have."""
        last = lambda block: [m.num_features for m in block.modules() if isinstance(m, nn.BatchNorm2d)][-1]
        blocks = [last(block) for i, block in enumerate(self.net.blocks) if i in self.blocks]
        return [self.net.conv_head.out_channels, *blocks, _FIELDS**2 * (2 * HUES + GREYS)]

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], Tensor]:
        """A group of features for each source, and the probabilities."""
        x = (pixels - 127.0) / 128.0  # as the trunk was trained; timm's own mean and s.d. are a little off
        x = self.net.bn1(self.net.conv_stem(x))
        means = []
        for i, block in enumerate(self.net.blocks):
            x = block(x)
            if i in self.blocks:
                means.append(x.mean((2, 3)))
        last = self.net.bn2(self.net.conv_head(x)).mean((2, 3))
        return [last, *means, colour_histogram(pixels)], self.net.classifier(last).softmax(-1)


def colour_histogram(pixels: Tensor) -> Tensor:
    """Square roots of shares of colours (B, 9 * 31) in each of 3 x 3 fields, of pictures (B, 3, S, S), 0 to 255.

    A colour is one of 12 hues, dark or bright, where it is saturated and not near black, else one of 7 greys.
    """
    rgb = F.interpolate(pixels, size=(_SIDE, _SIDE), mode="area") / 255  # (B, 3, 96, 96)
    value, brightest = rgb.max(1)  # (B, 96, 96)
    chroma = value - rgb.amin(1)
    r, g, b = rgb.unbind(1)
    safe = chroma.clamp_min(1e-6)
    sixths = torch.stack([(g - b) / safe % 6, (b - r) / safe + 2, (r - g) / safe + 4], 1)
    hue = sixths.gather(1, brightest[:, None])[:, 0] / 6  # 0 to 1
    coloured = (chroma / value.clamp_min(1e-6) > _SATURATED) & (value > _DARK)
    hues = (hue * HUES).long().clamp(0, HUES - 1) * 2 + (value > _BRIGHT)
    greys = 2 * HUES + (value * GREYS).long().clamp(0, GREYS - 1)
    bins = F.one_hot(torch.where(coloured, hues, greys), 2 * HUES + GREYS).float()  # (B, 96, 96, 31)
    shares = F.adaptive_avg_pool2d(bins.permute(0, 3, 1, 2), _FIELDS)  # (B, 31, 3, 3)
    return shares.flatten(1).sqrt()


class Squash:
    """A picture of any size to floats (3, S, S), 0 to 255: all of it, without regard to its aspect."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Tensor:
        small = as_shown(image).resize((self.size, self.size), Image.Resampling.BICUBIC, reducing_gap=3.0)
        return torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1).float()

    def __repr__(self) -> str:
        return f"Squash({self.size}, bicubic)"


class PhotoTower:
    """The tower with its head. D = 384."""

    def __init__(
        self, config: PhotoTowerConfig, trunk: Trunk, head: dict[str, Tensor], sentences: SentenceEncoder
    ) -> None:
        """Freeze the parts.

        Args:
            head: "mean", "scale" (F,) of features; "weight" (F, D), "bias" (D,) of the regression; "classes" (1000, D)
                embeddings of the names of ImageNet's classes, which it builds on; "text_mean" (D,) and "text_whitening"
                (D, D) of answers.

        Raises:
            ValueError: another sentence encoder than the tower was made with.
        """
        if sentences.identity["sha256"] != config.sentence_sha256:
            raise ValueError(
                f"the photo tower was made with another sentence encoder ({config.sentence_sha256}) than is here "
                f"({sentences.identity['sha256']})"
            )
        self.config, self.sentences = config, sentences
        self.trunk = trunk.eval().requires_grad_(False)
        self.head = head
        self.dim = len(head["bias"])  # D
        self.logit_scale = config.logit_scale
        self.transform = Squash(config.image_size)

    @property
    def device(self) -> torch.device:
        return self.head["bias"].device

    @cached_property
    def identity(self) -> dict[str, str]:
        """All that embeddings depend on."""
        state = {f"trunk.{name}": tensor for name, tensor in self.trunk.state_dict().items()} | self.head
        digest = digest_of(state, self.config.sentence_sha256)
        return {"model": f"photo tower ({self.config.trunk})", "sha256": digest, "transform": repr(self.transform)}

    def encode_images(self, images: Sequence[Image.Image] | np.ndarray | Tensor) -> Tensor:
        """Unit embeddings (B, D), float32, on the CPU, of pictures, of arrays (B, S, S, 3) uint8 of the tower's own
        size, or of stacked outputs of `transform`."""
        features, probabilities = self.read(images)
        return F.normalize(self.embed(features, probabilities), dim=-1).cpu()

    @torch.no_grad()
    def read(self, images: Sequence[Image.Image] | np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
        """What the trunk makes of pictures: features (B, F) and class probabilities (B, 1000), on the device."""
        if isinstance(images, Tensor) and images.dtype == torch.float32:
            pixels = images
        elif isinstance(images, (np.ndarray, Tensor)):
            pixels = torch.as_tensor(images).permute(0, 3, 1, 2).float()
        else:
            pixels = torch.stack([self.transform(image) for image in images])
        if pixels.shape[1:] != (3, self.config.image_size, self.config.image_size):
            raise ValueError(f"image batch: expected (B, 3, {self.config.image_size}, ...), got {tuple(pixels.shape)}")
        with no_tf32():
            groups, probabilities = self.trunk(pixels.to(self.device))
        return torch.cat(groups, 1), probabilities

    def embed(self, features: Tensor, probabilities: Tensor) -> Tensor:
        """The head's answer (B, D), before it is scaled to unit length."""
        x = (features - self.head["mean"]) * self.head["scale"]
        return x @ self.head["weight"] + probabilities @ self.head["classes"] + self.head["bias"]

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings (B, D), float32, on the CPU, of answers."""
        return whitened(self.sentences.encode(texts), self.head["text_mean"], self.head["text_whitening"]).cpu()

    def encode_questions(self, questions: Sequence[str], pooling: Pooling = "eos") -> Tensor:
        """As `encode_texts`: the encoder knows one way of pooling."""
        return self.encode_texts(questions)


def whitened(texts: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """Sentence embeddings (B, D), whitened as answers are; unit vectors."""
    return F.normalize((texts.to(mean) - mean) @ whitening, dim=-1)


def _check_head(head: dict[str, Tensor], trunk: Trunk, directory: Path) -> None:
    """A ValueError unless a head's tables have the sizes that a trunk and the sentence encoder need."""
    F, D = sum(trunk.sizes), WIDTH
    needed = {"mean": (F,), "scale": (F,), "weight": (F, D), "bias": (D,), "classes": (1000, D)}
    needed |= {"text_mean": (D,), "text_whitening": (D, D)}
    for name in needed | head:
        if name not in needed or name not in head or tuple(head[name].shape) != needed[name]:
            held = f"is {tuple(head[name].shape)}" if name in head else "is missing"
            raise ValueError(f"{directory / HEAD}: {name!r} {held}; expected {needed.get(name, 'no such table')}")


def load(directory: Path, device: torch.device) -> PhotoTower:
    """The tower of a directory with `photo_tower.json` and its weights. The sentence encoder lies beside it in a
    release, or is the shipped one.

    Raises:
        ValueError: files that are missing, damaged or do not go together; the message names them.
    """
    try:
        stored = read_json(directory / CONFIG)
        try:
            config = from_dict(PhotoTowerConfig, stored)
            with torch.device("meta"):  # without storage: what its weights are not, it must not ask memory for
                trunk = Trunk(config)
            _ = trunk.sizes
        except Exception as error:  # whatever timm says of a name
            raise ValueError(f"{directory / CONFIG}: {error}") from None
        load_into(trunk.net, load_model(directory / TRUNK, TRUNK_KIND)[1], str(directory / TRUNK), assign=True)
        head = load_model(directory / HEAD, HEAD_KIND)[1]
        _check_head(head, trunk, directory)
        sentences = shared(encoder_directory(directory.parent), device)
        head = {name: tensor.to(device) for name, tensor in head.items()}
        return PhotoTower(config, trunk.to(device), head, sentences)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"backbone {directory}: {error}") from None
