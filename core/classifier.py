"""An adapter at work: images and candidate answers in, a table of answers out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .networks.base import BaseNetwork
from .release.checkpoint import load_adapter, save_adapter
from .release.default import preset_of_backbone
from .texts import folded

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from .backbones import Backbone

MAX_ANSWERS, MAX_ANSWER = 256, 200  # candidate answers, and the characters of one
_AT_ONCE = 16  # pictures: decoded ones of a phone take 36 MB each


class OtherBackbone(ValueError):
    """An adapter was made for another backbone; that of the shipped release of `preset`, unless it is None."""

    def __init__(self, path: Path | str, provenance: Mapping[str, Any]) -> None:
        self.preset = preset_of_backbone(provenance.get("backbone_sha256"))
        told = self.preset or provenance.get("preset")
        super().__init__(f"{path}: made for another backbone" + (f", of preset {str(told)[:40]!r}" if told else ""))


@dataclass(frozen=True, eq=False)  # tensors have no one truth of "=="
class Adapter:
    """Weights for one question, ready to classify images.

    `w` (P,) are the weights of `network`, None for plain CLIP; `provenance` says how they were made.
    """

    w: Tensor | None
    network: BaseNetwork
    backbone: Backbone
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        """The factor on cosines in probabilities: calibrated on validation tasks, if its release was."""
        return float(self.provenance.get("scale", self.network.scale))

    def probabilities(self, images: Sequence[Image.Image], answers: Sequence[str]) -> Tensor:
        """Probability (N, C) of every answer for every image."""
        return self._probabilities(images, check_answers(answers), lambda image: image)

    def _probabilities(
        self, images: Sequence[Any], answers: Sequence[str], read: Callable[[Any], Image.Image]
    ) -> Tensor:
        """`probabilities` of what `read` makes of images, a few at a time."""
        few = [images[first : first + _AT_ONCE] for first in range(0, len(check_images(images)), _AT_ONCE)]
        x = torch.cat([self.backbone.encode_images([read(image) for image in part]) for part in few])  # (N, D)
        return self.probabilities_of(x, self.backbone.encode_texts(answers))

    def probabilities_of(self, x: Tensor, answers: Tensor) -> Tensor:
        """Probability (N, C) of every answer from embeddings of images x (N, D) and of answers (C, D).

        Raises:
            ValueError: they come out as no numbers, as with weights so large that products overflow.
        """
        if self.w is not None:
            x = self.network.forward(self.w[None], x[None])[0]
        result = (self.scale * x @ answers.mT).softmax(-1)
        if not result.isfinite().all():
            raise ValueError("the adapter gives no numbers for these pictures: its weights are damaged, or too large")
        return result

    def classify(
        self, images: Sequence[Image.Image | str | Path] | Image.Image | str | Path, answers: Sequence[str]
    ) -> pd.DataFrame:
        """One row per image: `answer`, its `probability`, and a column with the probability of each answer.

        Images are PIL images or paths; the table's index is the path, or the image's number.
        """
        import pandas as pd
        from PIL import Image

        if isinstance(images, (Image.Image, str, Path)):
            images = [images]
        names = [str(image) if isinstance(image, (str, Path)) else i for i, image in enumerate(images)]
        answers = check_answers(answers)
        taken = {"answer", "probability"}.intersection(answers)
        if taken:
            raise ValueError(f"the answer {min(taken)!r} is the name of a column of the table; word it otherwise")
        probabilities = self._probabilities(images, answers, open_image)
        table = pd.DataFrame(probabilities.tolist(), index=pd.Index(names, name="image"), columns=answers)
        best = probabilities.max(-1)
        table.insert(0, "answer", [answers[i] for i in best.indices.tolist()])
        table.insert(1, "probability", best.values.tolist())
        return table

    def save(self, path: Path | str) -> None:
        """Write the weights with their provenance as safetensors."""
        if self.w is None:
            raise ValueError("plain CLIP has no adapter weights to save")
        save_adapter(path, self.w, self.network, self.provenance)

    @classmethod
    def load(cls, path: Path | str, backbone: Backbone) -> Adapter:
        """Read what `save` wrote; `backbone` must be the one it was made for, else it is an `OtherBackbone`."""
        w, network, provenance = load_adapter(path)
        if w.ndim != 1:
            raise ValueError(f"{path}: holds weights of shape {tuple(w.shape)}, one adapter is a vector")
        made_for = provenance.get("backbone_sha256")
        if network.dim != backbone.dim or made_for not in (None, backbone.identity["sha256"]):
            raise OtherBackbone(path, provenance)
        return cls(w, network, backbone, provenance)


def check_answers(answers: Sequence[str]) -> list[str]:
    """Stripped answers; a ValueError for fewer than two, too many, empty, too long or repeated ones."""
    if isinstance(answers, str):
        raise ValueError(f"answers must be a list of texts, got the text {answers!r}")
    if len(answers) > MAX_ANSWERS:
        raise ValueError(f"{len(answers)} answers; allowed: 2 to {MAX_ANSWERS}")
    answers = [answer.strip() for answer in answers]
    if any(not answer for answer in answers):
        raise ValueError("one of the answers is empty")
    if len(answers) < 2:
        raise ValueError(f"at least two answers are needed, got {len(answers)}")
    longest = max(answers, key=len)
    if len(longest) > MAX_ANSWER:
        start = f"{longest[:40]}..."
        raise ValueError(f"the answer {start!r} has {len(longest)} characters; {MAX_ANSWER} are allowed")
    first: dict[str, str] = {}
    for answer in answers:
        key = folded(answer)
        if key in first:
            twin = first[key]
            told = (
                "is given more than once" if twin == answer else f"differs from {twin!r} in case, form or spaces alone"
            )
            raise ValueError(f"the answer {answer!r} {told}")
        first[key] = answer
    return answers


def check_images(images: Sequence[Image.Image]) -> Sequence[Image.Image]:
    if not len(images):
        raise ValueError("no image given")
    return images


def open_image(source: Image.Image | str | Path) -> Image.Image:
    """A picture as a viewer shows it, from a PIL image or a path; a ValueError, naming the file, if it is none."""
    from PIL import Image

    from .data.images import as_shown, read_image

    return as_shown(source) if isinstance(source, Image.Image) else read_image(source)
