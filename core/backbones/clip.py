"""A frozen CLIP of open_clip, whatever its class: images and texts to unit embeddings."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ..data.images import as_shown
from ..files import read_json
from ..tensors import check_finite
from . import (
    Pooling,
    Precision,
    emoji_tower,  # noqa: F401  (registers the tiny CLIP's trunk with timm)
)
from .frozen import digest_of, no_tf32
from .text_towers import project, token_mask, token_states

_WEIGHTS = (".safetensors", ".bin", ".pth")  # what open_clip looks for in a directory


class ClipBackbone:
    """An open_clip model (CLIP, CustomTextCLIP such as SigLIP and EVA02, CoCa) with its own transform and tokenizer.

    `name` is how others get the same model, or "local"; it is part of `identity`.
    """

    def __init__(
        self, name: str, model: torch.nn.Module, transform: Any, tokenizer: Any, precision: Precision = "fp32"
    ) -> None:
        """Freeze the model, and read one text and one picture, which tells D.

        Raises:
            ValueError: the model does not make one vector of a text and one of a picture, of equal size.
        """
        self.name, self.precision = name, precision
        self.model = model.eval().requires_grad_(False)
        self.transform = transform
        self.tokenizer = tokenizer
        check_finite("its weights", model.state_dict())
        self.dim = self._check_towers()  # D

    @property
    def device(self) -> torch.device:
        return self.model.logit_scale.device

    @property
    def image_size(self) -> int:
        size = self.model.visual.image_size
        return int(size[0] if isinstance(size, (tuple, list)) else size)

    @property
    def logit_scale(self) -> float:
        """The factor on cosines that the model was trained with. SigLIP also adds a `logit_bias`, the same to every
        answer's logit, which a softmax over answers does not see."""
        return float(self.model.logit_scale.exp())

    @cached_property
    def identity(self) -> dict[str, str]:
        """What features depend on: the model's name, a digest of its weights, its transform, and the precision of image
        encoding unless it is float32."""
        digest, transform = digest_of(self.model.state_dict()), " ".join(str(self.transform).split())
        result = {"model": self.name, "sha256": digest, "transform": transform}
        return result if self.precision == "fp32" else {**result, "precision": self.precision}

    def save_weights(self, directory: Path) -> None:
        """Write the weights as safetensors, by the name that open_clip looks for."""
        weights = {name: value.contiguous().clone() for name, value in self.model.state_dict().items()}
        save_file(weights, directory / "open_clip_model.safetensors")

    def preprocess(self, images: Sequence[Image.Image] | np.ndarray | Tensor) -> Tensor:
        """PIL images, or uint8 (B, H, W, 3) already of the model's size, to normalised floats (B, 3, H, W); such floats
        are taken as they are."""
        if isinstance(images, Tensor) and images.dtype == torch.float32:
            if images.shape[1:] != (3, self.image_size, self.image_size):
                raise ValueError(f"image batch: expected (B, 3, {self.image_size}, ...), got {tuple(images.shape)}")
            return images
        if isinstance(images, (np.ndarray, Tensor)):
            batch = torch.as_tensor(images)
            if batch.dtype != torch.uint8 or batch.shape[1:] != (self.image_size, self.image_size, 3):
                raise ValueError(
                    f"image batch: expected uint8 (B, {self.image_size}, {self.image_size}, 3), "
                    f"got {batch.dtype} {tuple(batch.shape)}"
                )
            mean, std = (
                torch.tensor(v)[:, None, None] for v in (self.model.visual.image_mean, self.model.visual.image_std)
            )
            return (batch.permute(0, 3, 1, 2).float() / 255 - mean) / std
        return torch.stack([self.transform(as_shown(image)) for image in images])

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image] | np.ndarray | Tensor) -> Tensor:
        """Unit embeddings (B, D), float32, on the CPU. Accepts what `preprocess` does."""
        with no_tf32(), self._autocast():
            features = self.model.encode_image(self.preprocess(images).to(self.device))
        return F.normalize(features.float(), dim=-1).cpu()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.float16, enabled=self.precision == "fp16")

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], batch_size: int = 1024) -> Tensor:
        """Unit embeddings (B, D), float32, on the CPU.

        Raises:
            ValueError: a text of more tokens than the tower reads: nothing is cut.
        """
        if not texts:
            return torch.empty(0, self.dim)
        with no_tf32():
            features = [self.model.encode_text(tokens.to(self.device)) for tokens in self._tokens(texts, batch_size)]
        return F.normalize(torch.cat(features).float(), dim=-1).cpu()

    @torch.no_grad()
    def encode_questions(self, questions: Sequence[str], pooling: Pooling = "eos", batch_size: int = 1024) -> Tensor:
        """Task embeddings e (B, D), unit, float32, on the CPU.

        "eos" is the model's own text embedding, the paper's (Section 2.2): for CLIP, the state of the end-of-text
        token. "mean" is the mean over all tokens but padding, through the same projection. Contrastive training on
        captions teaches the end token to drop what no caption speaks of, such as what is asked of a thing; the states
        of the words still hold it.

        Raises:
            ValueError: unknown `pooling`, or a text of more tokens than the tower reads.
        """
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling {pooling!r}; allowed: {', '.join(get_args(Pooling))}")
        if pooling == "eos" or not questions:
            return self.encode_texts(questions, batch_size)
        means = []
        with no_tf32():
            for tokens in self._tokens(questions, batch_size):
                states = token_states(self.model, tokens.to(self.device))  # (B, L, width)
                mask = token_mask(self.tokenizer, tokens).to(states)[..., None]  # (B, L, 1)
                means.append((states * mask).sum(1) / mask.sum(1))  # (B, width)
            features = project(self.model, torch.cat(means))
        return F.normalize(features.float(), dim=-1).cpu()

    def _tokens(self, texts: Sequence[str], batch_size: int) -> Iterator[Tensor]:
        """Token ids (B, L), padded to the model's context. Tokenizers cut what is longer: with room for one more, a
        text that fills it is too long."""
        context = self.tokenizer.context_length  # L
        for i in range(0, len(texts), batch_size):
            batch = list(texts[i : i + batch_size])
            tokens = self.tokenizer(batch, context_length=context + 1)  # (B, L + 1)
            long = token_mask(self.tokenizer, tokens).sum(1) > context
            if long.any():
                text = batch[int(long.int().argmax())]
                raise ValueError(f"text of more than {context} tokens, {text[:60]!r} ...; allowed: {context}")
            yield tokens[:, :context]

    @torch.no_grad()
    def _check_towers(self) -> int:
        picture = self.preprocess([Image.new("RGB", (self.image_size, self.image_size))])
        made = {
            "a text": self.model.encode_text(self.tokenizer(["a"]).to(self.device)),
            "a picture": self.model.encode_image(picture.to(self.device)),
        }
        shapes = {of: tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__ for of, out in made.items()}
        if shapes["a text"] != shapes["a picture"] or len(shapes["a text"]) != 2:
            raise ValueError(
                f"it makes {' and '.join(f'{out} of {of}' for of, out in shapes.items())}; it must make one vector of "
                "each, of equal size, which models of pool_type 'none' or with output_tokens do not"
            )
        check_finite("what it makes of a text and a picture", made | {"logit scale": self.model.logit_scale.exp()})
        return shapes["a text"][1]


def load(directory: Path, device: torch.device) -> ClipBackbone:
    """The model of a directory with `open_clip_config.json` and weights.

    Raises:
        ValueError: files that are missing, damaged or do not go together; one line that names them.
    """
    weights = sorted(file.name for file in directory.iterdir() if file.suffix in _WEIGHTS)
    if not weights:
        raise ValueError(f"backbone {directory}: no weights there, a file that ends in {', '.join(_WEIGHTS)}")
    with _one_line(f"{directory} with open_clip_config.json and {', '.join(weights)}"):
        _check_sizes(directory)
        return _build("local", f"local-dir:{directory}", None, device)  # a path is no identity


_SMALL = 10**8  # numbers that a model may have whatever its weights


def _check_sizes(directory: Path) -> None:
    """A ValueError if a description asks for a far larger model than the weights beside it are, before such a model
    takes any memory. Weights that are no safetensors are not looked into."""
    config = read_json(directory / "open_clip_config.json")["model_cfg"]
    shapes: list[list[int]] = []
    for file in directory.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            shapes += [opened.get_slice(name).get_shape() for name in opened.keys()]
    if not shapes:
        return
    held = sum(map(math.prod, shapes))
    for tower in ("text_cfg", "vision_cfg"):
        own = config[tower]
        size = lambda name, least=1, own=own: max(least, own[name]) if type(own.get(name)) is int else least
        patches = size("image_size") // size("patch_size")
        rows = 4 * size("layers") * size("width") + size("vocab_size") + config["embed_dim"] + patches**2
        asked = rows * size("width") + size("context_length") ** 2 + size("image_size") ** 2
        if size("layers") > len(shapes) or asked > 4 * held + _SMALL:
            raise ValueError(f"{tower} asks for {asked:.0e} numbers or more, the weights have {held:.0e}")


def download(name: str, device: torch.device, precision: Precision = "fp32") -> ClipBackbone:
    """The model `hf-hub:ORG/REPO` or `ARCHITECTURE/TAG`, fetched once.

    Raises:
        ValueError: no such model, or it cannot be had; one line with what is like it.
    """
    architecture, tag = (name, None) if name.startswith("hf-hub:") else _known(name)
    with _one_line(repr(name)):
        return _build(name, architecture, tag, device, precision)


def _build(
    name: str, architecture: str, tag: str | None, device: torch.device, precision: Precision = "fp32"
) -> ClipBackbone:
    model, transform = open_clip.create_model_from_pretrained(architecture, tag, precision="fp32", device=device)
    return ClipBackbone(name, model, transform, open_clip.get_tokenizer(architecture), precision)


@contextmanager
def _one_line(backbone: str) -> Iterator[None]:
    """Whatever readers of JSON, safetensors and pickles, the network and open_clip raise, as a one-line ValueError."""
    try:
        yield
    except ImportError as error:
        raise ValueError(f"backbone {backbone} needs another package: pip install {error.name}") from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"backbone {backbone} cannot be used ({reason[:300]})") from error


def _known(name: str) -> tuple[str, str]:
    """Architecture and tag of a name; a ValueError with what is like it if open_clip has none of that name."""
    architecture, tag = name.split("/")
    known = open_clip.list_models()
    if architecture not in known:
        like = ", ".join(difflib.get_close_matches(architecture, known)) or "nothing"
        raise ValueError(f"backbone {name!r}: open_clip has no architecture {architecture!r}; like it: {like}")
    if not open_clip.get_pretrained_cfg(architecture, tag):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise ValueError(f"backbone {name!r}: open_clip has no weights {tag!r} of {architecture}; allowed: {tags}")
    return architecture, tag
