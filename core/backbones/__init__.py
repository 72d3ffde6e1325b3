"""Pictures, answers and questions to embeddings: frozen encoders, each of a kind.

To add a kind, write a module here with `load(directory, device)` and give it a line in `KINDS`. Heavy libraries belong
in that module: it is imported when a backbone of its kind is loaded.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ..files import read_json
from ..release.default import located

if TYPE_CHECKING:
    from PIL import Image

Pooling = Literal["eos", "mean"]  # how a question's token states become its task embedding e
Precision = Literal["fp32", "fp16"]  # of the arithmetic that encodes images


class Backbone(Protocol):
    """A frozen encoder of pictures, answers and questions. Embeddings are unit vectors, float32, on the CPU."""

    @property
    def identity(self) -> dict[str, str]:
        """All that embeddings depend on (weights, transform, precision). Features on disk are valid for one identity,
        saved adapters for its "sha256"."""
        ...

    @property
    def dim(self) -> int:
        """D, the size of an embedding of a picture or an answer."""
        ...

    @property
    def logit_scale(self) -> float:
        """The factor on cosines that makes them the logits that the model was trained with."""
        ...

    @property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        """An RGB picture to floats (3, H, W), a row of what `encode_images` takes. Worker processes run it. Datasets
        that make arrays do without."""
        ...

    def encode_images(self, images: Sequence[Image.Image] | np.ndarray | Tensor) -> Tensor:
        """(B, D) of pictures, of arrays (B, H, W, 3) uint8 of the model's own size, or of stacked outputs of
        `transform`."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """(B, D) of answers, bare or in their prompts."""
        ...

    def encode_questions(self, questions: Sequence[str], pooling: Pooling) -> Tensor:
        """Task embeddings e (B, D) of questions."""
        ...


class Deferred:
    """A backbone that is loaded when something is first asked of it: its libraries take seconds to import."""

    def __init__(self, load: Callable[[], Backbone]) -> None:
        self._load = load

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_load":  # asked by copy and pickle before there is a `_load`
            raise AttributeError(name)
        return getattr(self._load(), name)


Loader = Callable[[Path, torch.device], Backbone]


def _module(name: str) -> Loader:
    """`load` of a module of this package, which is imported at the first call."""
    return lambda directory, device: import_module(f".{name}", __name__).load(directory, device)


# Kinds of backbones, by the file that tells a directory of the kind.
KINDS: dict[str, Loader] = {"open_clip_config.json": _module("clip"), "photo_tower.json": _module("photo_tower")}

_NAME = re.compile(r"(fp16:)?(hf-hub:)?[\w.-]+/[\w.-]+")  # of a model that open_clip downloads


def load_backbone(spec: str, device: torch.device | str = "cpu") -> Backbone:
    """Load a backbone by its name.

    Args:
        spec: `local-dir:PATH` or a bare path, a directory of one of `KINDS`; or a model that open_clip downloads:
            `hf-hub:ORG/REPO` or `ARCHITECTURE/TAG`, e.g. `ViT-L-14-336-quickgelu/openai`, the paper's (Appendix A.2),
            with `fp16:` before it to encode images in half precision: faster on a GPU, and other features.
        device: where the model runs.

    Raises:
        ValueError: `spec` has none of these forms, no directory or model is called so, or it cannot be used.
    """
    device, path = torch.device(device), located(spec.removeprefix("local-dir:"))
    if path.is_dir():
        found = [file for file in KINDS if (path / file).is_file()]
        if len(found) != 1:
            held = " and ".join(found) or "none"
            raise ValueError(f"backbone {spec!r}: a directory must hold one of {', '.join(KINDS)}; it holds {held}")
        return KINDS[found[0]](path, device)
    if spec.startswith("local-dir:"):
        raise ValueError(f"backbone {spec!r}: there is no directory {path}")
    if not _NAME.fullmatch(spec):
        raise ValueError(
            f"backbone {spec!r}; allowed: 'local-dir:PATH', 'hf-hub:ORG/REPO', 'ARCHITECTURE/TAG', the last two with "
            "'fp16:' before them or without"
        )
    precision: Precision = "fp16" if spec.startswith("fp16:") else "fp32"
    return import_module(".clip", __name__).download(spec.removeprefix("fp16:"), device, precision)


def copy_backbone(source: Path, target: Path) -> None:
    """Copy the directory of a backbone, its weights as safetensors: a release lists, checks and reads no pickles.

    Raises:
        ValueError: pickled weights of another kind than open_clip's.
    """
    pickles = [path.name for path in source.iterdir() if is_pickle(path)]
    pickled = pickles and not any(source.glob("*.safetensors"))
    if pickled and not (source / "open_clip_config.json").is_file():
        raise ValueError(f"backbone {source}: its weights, {pickles[0]!r}, are pickled; allowed: safetensors")
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*pickles))
    if pickled:
        import_module(".clip", __name__).load(source, torch.device("cpu")).save_weights(target)


def is_pickle(path: Path | str) -> bool:
    """Whether a file is called as pickled weights are."""
    return Path(path).suffix in (".bin", ".pt", ".pth")


def embedding_dim(spec: str) -> int | None:
    """D of the backbone that `spec` names, from its description alone; None where that is not known before it is
    loaded."""
    description = located(spec.removeprefix("local-dir:")) / "open_clip_config.json"
    if description.is_file():
        try:
            dim = read_json(description)["model_cfg"]["embed_dim"]
        except (KeyError, TypeError):
            dim = None
        if type(dim) is not int or dim < 1:
            raise ValueError(f"{description}: model_cfg.embed_dim is missing, or no size")
        return dim
    if (description.parent / "photo_tower.json").is_file():
        return import_module(".questions", __name__).WIDTH  # answers are embeddings of the sentence encoder
    if not _NAME.fullmatch(spec) or "hf-hub:" in spec:
        return None
    known = import_module("open_clip").get_model_config(spec.removeprefix("fp16:").split("/")[0])
    return known["embed_dim"] if known else None
