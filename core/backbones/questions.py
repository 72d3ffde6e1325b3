"""Task embeddings e of questions: by a pre-trained sentence encoder, or by the backbone's text tower (Section 2.2).

A spec says which, JSON-able, as a release keeps it: `{"encoder": "sentence", "layers": [2, 6]}`, with "model" and
"sha256" of the encoder in a release, or `{"encoder": "clip", "pooling": "eos"}`, the paper's way. With "answers": true,
e also says what the candidate answers are, which are known whenever a picture is classified (beyond the paper).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
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
    """Questions, and candidate answers where the spec reads them, to unit vectors e (B, E), float32, on the CPU: what
    `encode` and `candidates` give, as `beside` puts it together."""

    reads_answers: bool

    @property
    def identity(self) -> dict[str, Any]:
        """The spec, with all that embeddings depend on besides the backbone."""
        ...

    @property
    def dim(self) -> int:
        """E."""
        ...

    def encode(self, questions: Sequence[str]) -> Tensor:
        """Unit embeddings of questions: all of e, or the half of it that is theirs."""
        ...

    def candidates(self, answers: Sequence[Sequence[str]]) -> Tensor:
        """Unit embeddings of sets of candidate answers, whatever their order: the other half of e; nothing, (B, 0), for
        a spec that does not read them. A ValueError for an empty set."""
        ...

    def meaning(self, question: Tensor) -> Tensor:
        """The part (B, M) of embeddings of questions, unit vectors, whose cosines say how alike they are as a whole."""
        ...


def beside(question: Tensor, candidates: Tensor) -> Tensor:
    """e (..., E) of unit embeddings of questions (..., Q) and of their candidate answers (..., E - Q), if these are
    read: again a unit vector."""
    if not candidates.shape[-1]:
        return question
    return torch.cat([question, candidates.expand(*question.shape[:-1], -1)], dim=-1) / 2**0.5


def question_part(e: Tensor, encoder: QuestionEncoder) -> Tensor:
    """The unit embeddings of questions in e (..., E), without what it says of candidate answers."""
    return e[..., : encoder.dim // 2] * 2**0.5 if encoder.reads_answers else e


def candidates_part(e: Tensor, encoder: QuestionEncoder) -> Tensor:
    """The unit embeddings of candidate answers in e (..., E); nothing, (..., 0), where these are not read."""
    return e[..., encoder.dim // 2 :] * 2**0.5 if encoder.reads_answers else e[..., :0]


class _Reader(ABC):
    """What all encoders share: candidate answers are read as questions are, and their mean is taken."""

    reads_answers = False

    @abstractmethod
    def encode(self, questions: Sequence[str]) -> Tensor: ...

    def candidates(self, answers: Sequence[Sequence[str]]) -> Tensor:
        if not self.reads_answers:
            return torch.empty(len(answers), 0)
        if not all(answers):
            raise ValueError("no candidate answers for one of the questions; allowed: one or more")
        row = {answer: i for i, answer in enumerate(dict.fromkeys(a for own in answers for a in own))}
        each = self.encode(list(row))
        return torch.stack([F.normalize(each[[row[a] for a in own]].mean(0), dim=-1) for own in answers])


class TowerQuestions(_Reader):
    """The backbone's own text tower. E = D."""

    def __init__(self, backbone: Backbone, pooling: Pooling, reads_answers: bool = False) -> None:
        self.backbone, self.pooling, self.reads_answers = backbone, pooling, reads_answers
        self.identity = {"encoder": "clip", "pooling": pooling} | ({"answers": True} if reads_answers else {})
        self.dim = backbone.dim * (1 + reads_answers)

    def encode(self, questions: Sequence[str]) -> Tensor:
        return self.backbone.encode_questions(questions, self.pooling)

    def meaning(self, question: Tensor) -> Tensor:
        return question


class SentenceQuestions(_Reader):
    """Layers of the sentence encoder, side by side. E = 384 for each."""

    def __init__(
        self,
        directory: Path,
        layers: Sequence[int],
        device: torch.device | str = "cpu",
        reads_answers: bool = False,
    ) -> None:
        """Load the encoder that lies in `directory`.

        Raises:
            ValueError: the encoder is not there or damaged, or has no such layers.
        """
        from .sentence import shared

        check_layers(layers)
        self.encoder, self.layers, self.reads_answers = shared(directory, device), tuple(layers), reads_answers
        if self.encoder.dim(layers) != WIDTH * len(layers):
            raise ValueError(f"sentence encoder {directory}: its width is {self.encoder.dim((0,))}; allowed: {WIDTH}")
        self.identity = {"encoder": "sentence", "layers": list(layers), **self.encoder.identity}
        self.identity |= {"answers": True} if reads_answers else {}
        self.dim = WIDTH * len(layers) * (1 + reads_answers)

    def encode(self, questions: Sequence[str]) -> Tensor:
        return self.encoder.encode(questions, self.layers)

    def meaning(self, question: Tensor) -> Tensor:
        """The highest layer's part: that is what the encoder was trained to compare."""
        return last_layer(question, self.layers)


def last_layer(question: Tensor, layers: Sequence[int]) -> Tensor:
    """The highest layer's part (B, 384) of embeddings of questions, unit vectors."""
    start = WIDTH * max(range(len(layers)), key=lambda i: layers[i])
    return F.normalize(question[..., start : start + WIDTH], dim=-1)


def check_layers(layers: Sequence[int]) -> None:
    """A ValueError unless these are different layers of the sentence encoder."""
    if not layers or len(set(layers)) < len(layers) or not all(0 <= layer <= LAYERS for layer in layers):
        raise ValueError(f"layers {list(layers)} of the sentence encoder; allowed: different ones from 0 to {LAYERS}")


def question_dim(spec: dict[str, Any], dim: int) -> int:
    """E of the encoder that a spec names, beside a backbone of size `dim`."""
    own = WIDTH * len(spec["layers"]) if spec["encoder"] == "sentence" else dim
    return own * (1 + spec.get("answers", False))


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
    reads_answers = spec.get("answers", False)
    if spec["encoder"] == "clip":
        return TowerQuestions(backbone(), spec["pooling"], reads_answers)
    if spec["encoder"] != "sentence":
        raise ValueError(f"question encoder {spec['encoder']!r}; allowed: 'sentence', 'clip'")
    result = SentenceQuestions(directory, spec["layers"], device, reads_answers)
    for key in ("model", "sha256"):
        if key in spec and spec[key] != result.identity[key]:
            raise ValueError(
                f"{directory} holds another sentence encoder ({key} {result.identity[key]}) than the release was "
                f"trained with ({spec[key]})"
            )
    return result
