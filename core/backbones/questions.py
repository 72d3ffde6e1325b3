"""Task embeddings e of questions: by a pre-trained sentence encoder, or by the backbone's text tower (Section 2.2).

A spec says which, JSON-able, as a release keeps it: `{"encoder": "sentence", "layers": [2, 6]}`, with "model" and
"sha256" of the encoder in a release, or `{"encoder": "clip", "pooling": "eos"}`, the paper's way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from . import Backbone, Pooling

Kind = Literal["sentence", "clip"]
LAYERS, WIDTH = 6, 384  # of the sentence encoder


class QuestionEncoder(Protocol):
    """Questions to unit vectors e (B, E), float32, on the CPU."""

    @property
    def identity(self) -> dict[str, Any]:
        """The spec, with all that embeddings depend on besides the backbone."""
        ...

    @property
    def dim(self) -> int:
        """E."""
        ...

    def encode(self, questions: Sequence[str]) -> Tensor:
        """Task embeddings (B, E)."""
        ...

    def meaning(self, e: Tensor) -> Tensor:
        """The part (B, M) of e (B, E), unit vectors, whose cosines say how alike questions are as a whole."""
        ...


class TowerQuestions:
    """The backbone's own text tower. E = D."""

    def __init__(self, backbone: Backbone, pooling: Pooling) -> None:
        self.backbone, self.pooling = backbone, pooling
        self.identity = {"encoder": "clip", "pooling": pooling}
        self.dim = backbone.dim

    def encode(self, questions: Sequence[str]) -> Tensor:
        return self.backbone.encode_questions(questions, self.pooling)

    def meaning(self, e: Tensor) -> Tensor:
        return e


class SentenceQuestions:
    """Layers of the sentence encoder, side by side. E = 384 for each."""

    def __init__(self, directory: Path, layers: Sequence[int], device: torch.device | str = "cpu") -> None:
        """Load the encoder that lies in `directory`.

        Raises:
            ValueError: the encoder is not there or damaged, or has no such layers.
        """
        from .sentence import shared

        check_layers(layers)
        self.encoder, self.layers = shared(directory, device), tuple(layers)
        if self.encoder.dim(layers) != WIDTH * len(layers):
            raise ValueError(f"sentence encoder {directory}: its width is {self.encoder.dim((0,))}; allowed: {WIDTH}")
        self.identity = {"encoder": "sentence", "layers": list(layers), **self.encoder.identity}
        self.dim = WIDTH * len(layers)

    def encode(self, questions: Sequence[str]) -> Tensor:
        return self.encoder.encode(questions, self.layers)

    def meaning(self, e: Tensor) -> Tensor:
        """The highest layer's part: that is what the encoder was trained to compare."""
        return last_layer(e, self.layers)


def last_layer(e: Tensor, layers: Sequence[int]) -> Tensor:
    """The highest layer's part (B, 384) of e (B, E), unit vectors."""
    start = WIDTH * max(range(len(layers)), key=lambda i: layers[i])
    return F.normalize(e[..., start : start + WIDTH], dim=-1)


def check_layers(layers: Sequence[int]) -> None:
    """A ValueError unless these are different layers of the sentence encoder."""
    if not layers or len(set(layers)) < len(layers) or not all(0 <= layer <= LAYERS for layer in layers):
        raise ValueError(f"layers {list(layers)} of the sentence encoder; allowed: different ones from 0 to {LAYERS}")


def question_dim(spec: dict[str, Any], dim: int) -> int:
    """E of the encoder that a spec names, beside a backbone of size `dim`."""
    return WIDTH * len(spec["layers"]) if spec["encoder"] == "sentence" else dim


def open_question_encoder(
    spec: dict[str, Any], backbone: Callable[[], Backbone], directory: Path, device: torch.device | str = "cpu"
) -> QuestionEncoder:
    """The encoder that a spec names.

    Args:
        backbone: gives the backbone, which the tower's way alone needs.
        directory: where the sentence encoder lies.

    Raises:
        ValueError: an unknown encoder, or another one than the spec's digest names.
    """
    if spec["encoder"] == "clip":
        return TowerQuestions(backbone(), spec["pooling"])
    if spec["encoder"] != "sentence":
        raise ValueError(f"question encoder {spec['encoder']!r}; allowed: 'sentence', 'clip'")
    result = SentenceQuestions(directory, spec["layers"], device)
    for key in ("model", "sha256"):
        if key in spec and spec[key] != result.identity[key]:
            raise ValueError(
                f"{directory} holds another sentence encoder ({key} {result.identity[key]}) than the release was "
                f"trained with ({spec[key]})"
            )
    return result
