"""The frozen CLIP: images and texts to unit embeddings, through open_clip, whatever the model."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from . import emoji_tower  # noqa: F401  (registers the tiny CLIP's trunk with timm)

Pooling = Literal["eos", "mean"]  # how a question's token states become its task embedding e


class Backbone:
    """A frozen CLIP model with its own transform and tokenizer.

    Build it with `Backbone.load`; `spec` is one of open_clip's three ways to name a model:

    * `local-dir:PATH`, a directory with `open_clip_config.json` and weights (a bare path to one works too),
    * `hf-hub:ORG/REPO`,
    * `ARCHITECTURE/TAG`, e.g. `ViT-L-14-336-quickgelu/openai`, the paper's (Appendix A.2).
    """

    def __init__(self, spec: str, model: torch.nn.Module, transform: object, tokenizer: object) -> None:
        self.spec = spec
        self.model = model.eval().requires_grad_(False)
        self.transform = transform
        self.tokenizer = tokenizer
        self._text_tower = threading.Lock()  # `encode_questions` hooks it, and a hook hears every thread

    @classmethod
    def load(cls, spec: str, device: torch.device | str = "cpu") -> Backbone:
        """Load the model, its evaluation transform and its tokenizer.

        Raises:
            ValueError: `spec` has none of the three forms, or names a directory that holds no open_clip model.
        """
        if spec.startswith("local-dir:") or (Path(spec) / "open_clip_config.json").is_file():
            path = Path(spec.removeprefix("local-dir:"))
            if not (path / "open_clip_config.json").is_file():
                raise ValueError(f"backbone {spec!r}: {path} has no open_clip_config.json")
            name, tag = f"local-dir:{path}", None
        elif spec.startswith("hf-hub:"):
            name, tag = spec, None
        elif re.fullmatch(r"[\w.-]+/[\w.-]+", spec):
            name, tag = spec.split("/")
        else:
            raise ValueError(f"backbone {spec!r}; allowed: 'local-dir:PATH', 'hf-hub:ORG/REPO', 'ARCHITECTURE/TAG'")
        model, transform = open_clip.create_model_from_pretrained(name, pretrained=tag, device=device, precision="fp32")
        return cls(spec, model, transform, open_clip.get_tokenizer(name))

    @property
    def device(self) -> torch.device:
        return self.model.logit_scale.device

    @property
    def dim(self) -> int:
        """D, the size of an embedding."""
        return int(self.model.text_projection.shape[-1])

    @property
    def image_size(self) -> int:
        size = self.model.visual.image_size
        return int(size[0] if isinstance(size, (tuple, list)) else size)

    @property
    def logit_scale(self) -> float:
        """The factor on cosines that the model was trained with."""
        return float(self.model.logit_scale.exp())

    @cached_property
    def identity(self) -> dict[str, str]:
        """What features depend on: the model's name, a digest of its weights, and its transform."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        name = "local" if "local-dir:" in self.spec or Path(self.spec).is_dir() else self.spec  # a path is no identity
        return {"model": name, "sha256": digest.hexdigest(), "transform": " ".join(str(self.transform).split())}

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
        return torch.stack([self.transform(image.convert("RGB")) for image in images])

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image] | np.ndarray | Tensor) -> Tensor:
        """Unit embeddings (B, D), float32, on the CPU. Accepts what `preprocess` does; on a GPU in mixed precision."""
        with torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"):
            features = self.model.encode_image(self.preprocess(images).to(self.device))
        return F.normalize(features.float(), dim=-1).cpu()

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], batch_size: int = 1024) -> Tensor:
        """Unit embeddings (B, D), float32, on the CPU; texts longer than the context are cut, as open_clip does."""
        chunks = [self.tokenizer(list(texts[i : i + batch_size])) for i in range(0, len(texts), batch_size)]
        with self._text_tower:
            features = [self.model.encode_text(chunk.to(self.device)) for chunk in chunks]
        return F.normalize(torch.cat(features).float(), dim=-1).cpu()

    @torch.inference_mode()
    def encode_questions(self, questions: Sequence[str], pooling: Pooling = "eos", batch_size: int = 1024) -> Tensor:
        """Task embeddings e (B, D), unit, float32, on the CPU.

        "eos" is CLIP's own text embedding, the paper's (Section 2.2): the state of the end-of-text token. "mean" is
        the mean over all tokens, through the same projection. Contrastive training on captions teaches the end token
        to drop what no caption speaks of, such as what is asked of a thing; the states of the words still hold it.

        Raises:
            ValueError: unknown `pooling`.
        """
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling {pooling!r}; allowed: {', '.join(get_args(Pooling))}")
        if pooling == "eos":
            return self.encode_texts(questions, batch_size)
        states: list[Tensor] = []
        chunks = [self.tokenizer(list(questions[i : i + batch_size])) for i in range(0, len(questions), batch_size)]
        with self._text_tower:
            hook = self.model.ln_final.register_forward_hook(lambda module, inputs, output: states.append(output))
            try:
                for chunk in chunks:
                    self.model.encode_text(chunk.to(self.device))
            finally:
                hook.remove()
        means = []
        for chunk, state in zip(chunks, states, strict=True):  # (B, L), (B, L, width)
            end = chunk.argmax(-1)  # CLIP's end-of-text token has the largest number; padding follows it
            mask = (torch.arange(chunk.shape[1]) <= end[:, None]).to(state)[..., None]  # (B, L, 1)
            means.append((state * mask).sum(1) / mask.sum(1))  # (B, width)
        return F.normalize((torch.cat(means) @ self.model.text_projection).float(), dim=-1).cpu()


def embedding_dim(spec: str) -> int | None:
    """D of the model that `spec` names, from its description alone; None where that is not on this machine."""
    description = Path(spec.removeprefix("local-dir:")) / "open_clip_config.json"
    if description.is_file():
        return json.loads(description.read_text(encoding="utf-8"))["model_cfg"]["embed_dim"]
    known = open_clip.get_model_config(spec.split("/")[0])
    return known["embed_dim"] if known else None
