"""Checkpoints: safetensors files that carry their own config, written atomically, read strictly."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..config import from_dict, to_dict
from ..files import replacing
from ..methods import MAX_SEED
from ..networks.base import BaseNetwork, open_network
from ..networks.weight_model import MODULES, Saved
from ..tensors import check_finite, digest_of_tensors
from . import version1
from .fields import listed, nullable, number, record, text, whole
from .manifest import note_written
from .stored import FORMAT_VERSION, files_of, open_stored, read_stored

MAX_BYTES = 10 * 1024 * 1024 - 4096  # what the Hub and git take without large-file storage
SMALL = 8 * MAX_BYTES  # a model up to this size may be shipped in git; larger ones are split for file systems' sake
LARGE_BYTES = 2 * 1024**3

_log = logging.getLogger(__name__)


def save_model(
    path: Path | str,
    tensors: Mapping[str, Tensor],
    *,
    kind: str,
    config: dict[str, Any],
    metadata: Mapping[str, Any] | None = None,
    max_bytes: int | None = None,
) -> list[Path]:
    """Write `path` (`name.safetensors`), half precision for matrices and float32 for vectors (statistics, biases).

    More than `max_bytes` (default: 10 MiB for models of up to 80 MiB, 2 GiB for larger ones) go to numbered parts,
    `name-00001-of-00002.safetensors`, each with the same metadata; `load_model` of `path` finds them. A matrix that
    does not fit is split by rows.

    Returns:
        The files written. A crash leaves old files or new ones, never half of one; parts of two savings are refused by
        `load_model`.

    Raises:
        ValueError: a tensor, or a number in the metadata, is not finite; nothing is written then.
        OSError: see `core.files.replacing`.
    """
    path = Path(path)
    stored = {name: _on_disk(tensor) for name, tensor in tensors.items()}
    if max_bytes is None:
        size = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
        max_bytes = MAX_BYTES if size <= SMALL else LARGE_BYTES
    parts = _split(stored, max_bytes)
    check_finite(path, stored)
    header = {
        "kind": kind,
        "format_version": FORMAT_VERSION,
        "config": config,
        "shapes": {k: list(v.shape) for k, v in stored.items()},
        "metadata": dict(metadata or {}),
    }
    header["sha256"] = digest_of_tensors(stored, header)
    try:
        header_text = json.dumps(header, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: not written: {error}") from None
    stale = set(files_of(path))
    files = [path] if len(parts) == 1 else [_part_path(path, i, len(parts)) for i in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        with replacing(file) as partial:
            save_file(part, partial, metadata={"header": header_text})
    stale -= set(files)
    for file in stale:
        file.unlink()
    note_written(path.parent, files, stale)
    return files


def load_model(path: Path | str, kind: str | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header (kind, config, metadata ...) and float32 tensors of a file that `save_model` wrote.

    Raises:
        FileNotFoundError: no such file, nor parts of it.
        ValueError: not one of our files, another kind than asked for, a newer format, parts missing, infinity or
            NaN, or a content that changed since it was written.
    """
    stored = open_stored(path, kind)
    return stored.header, read_stored(stored)


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], where: str, *, assign: bool = False) -> None:
    """Strictly copy tensors into a module, or make them its own (`assign`), in its own precision; a missing, unexpected
    or misshapen one is a ValueError naming it."""
    check_shapes(module, {name: tensor.shape for name, tensor in tensors.items()}, where)
    own = module.state_dict()
    module.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in tensors.items()}, assign=assign)


def check_shapes(module: nn.Module, shapes: Mapping[str, Sequence[int]], where: str) -> None:
    """A ValueError that names the first tensor which a module lacks, has besides, or has of another shape."""
    own = module.state_dict()
    for problem, names in (
        ("missing", own.keys() - shapes.keys()),
        ("unexpected", shapes.keys() - own.keys()),
        ("misshapen", {n for n in own.keys() & shapes.keys() if list(own[n].shape) != list(shapes[n])}),
    ):
        if names:
            raise ValueError(f"{where}: {problem} tensor {sorted(names)[0]!r}")


def save_module(path: Path | str, module: Saved, metadata: Mapping[str, Any] | None = None) -> list[Path]:
    """Save one of our modules with what is needed to rebuild it from the path alone: its config and its sizes, among
    them the base network's description."""
    config = _described(module.config, module.sizes())
    return save_model(path, module.state_dict(), kind=module.name, config=config, metadata=metadata)


def load_module(path: Path | str, device: torch.device | str = "cpu") -> Saved:
    """Rebuild a module from its file, in evaluation mode. Raises what `load_model` and `load_into` do.

    A file says the sizes of its module. They are compared with the shapes that it holds before they cost any memory.
    """
    stored = open_stored(path)
    try:
        with torch.device("meta"), _Undrawn():  # without storage
            module = _described_module(stored.header)
        check_shapes(module, stored.header["shapes"], str(path))
        saved = module.state_dict().keys()
        if any(tensor.is_meta for name, tensor in module.named_buffers() if name not in saved):
            module = _described_module(stored.header)
    except Exception as error:  # whatever constructors say of settings that anyone may have written
        reason = str(error).removeprefix(f"{path}: ") or type(error).__name__
        raise ValueError(f"{path}: {reason}") from None
    load_into(module, read_stored(stored), str(path), assign=True)
    return module.to(device).eval().requires_grad_(False)


class _Undrawn(TorchFunctionMode):
    """Initial values stay undrawn: a module without storage has none, and PyTorch loads its compiler to draw them."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _described_module(header: Mapping[str, Any]) -> Saved:
    """A module with the config and the sizes of a header."""
    cls, own = MODULES[header["kind"]], header["config"]
    sizes = {name: open_network(size) if name == "network" else size for name, size in own["sizes"].items()}
    return cls(None if own["config"] is None else from_dict(cls.Config, own["config"]), **sizes)


def save_adapter(path: Path | str, w: Tensor, network: BaseNetwork, metadata: Mapping[str, Any] | None = None) -> None:
    """Save weights of a base network: w (P,) of one task, or (samples, P)."""
    save_model(path, {"w": w}, kind="adapter", config=_described(None, {"network": network}), metadata=metadata)


def load_adapter(path: Path | str) -> tuple[Tensor, BaseNetwork, dict[str, Any]]:
    """Weights, base network and metadata of a file written by `save_adapter`; anyone may have made it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what `load_model` refuses, other weights than its config says, or metadata of the wrong type. One of
            before adapters held a digest is taken, and a line says what is unchecked.
    """
    stored = open_stored(path, "adapter")
    shape = stored.header["shapes"].get("w")
    try:
        network = open_network(stored.header["config"]["sizes"]["network"])
        _METADATA(stored.header["metadata"], "metadata")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not shape or len(stored.pieces) > 1:
        raise ValueError(f"{path}: holds no vector of weights, or something else besides")
    if shape[-1] != network.num_params:
        raise ValueError(f"{path}: {shape[-1]} weights, its config says {network.num_params}")
    if "sha256" not in stored.written:
        _log.warning(f"{path} was saved before adapters held a digest: whether its weights changed since is unchecked")
    # Copied to where PyTorch allocates: products round otherwise at another alignment, and a saved adapter is to answer
    # as before it was saved.
    return read_stored(stored)["w"].clone(), network, stored.header["metadata"]


def _described(config: Any, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """A module's config and sizes for a header."""
    return {
        "config": None if config is None else to_dict(config),
        "sizes": {name: size.spec() if isinstance(size, BaseNetwork) else size for name, size in sizes.items()},
    }


_METADATA = record(  # of an adapter: how it was made
    {},
    {
        "question": text(),
        "method": text(),
        "generator": nullable(text()),
        "gamma": nullable(number()),
        "steps": nullable(whole(0, 1_000_000)),
        "samples": nullable(whole(0, 1_000_000)),
        "sampler": nullable(text()),
        "seed": whole(0, MAX_SEED),
        "scale": number(above=0, most=1e6),
        "backbone_sha256": nullable(text(64)),
        "preset": nullable(text()),
        "seconds": number(0),
        "examples": whole(0, 1_000_000_000),
        "answers": listed(text()),
    },
)


def _on_disk(tensor: Tensor) -> Tensor:
    """Matrices in half precision, unless they hold values beyond its range; vectors (statistics, biases, one adapter)
    are small and stay exact."""
    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point() or tensor.ndim < 2 or not tensor.numel():
        return tensor
    return tensor if tensor.abs().max() > torch.finfo(torch.float16).max else tensor.half()


def _split(tensors: dict[str, Tensor], max_bytes: int) -> list[dict[str, Tensor]]:
    """Greedy parts of at most `max_bytes`; rows of one matrix that are apart are named `name#00001` and so on."""
    parts: list[dict[str, Tensor]] = [{}]
    room = max_bytes
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if size > max_bytes:
            rows = max(1, max_bytes // (size // len(tensor)))
            chunks = {f"{name}#{i:05d}": chunk.contiguous() for i, chunk in enumerate(tensor.split(rows))}
        else:
            chunks = {name: tensor}
        for key, chunk in chunks.items():
            size = chunk.numel() * chunk.element_size()
            if size > room:
                parts.append({})
                room = max_bytes
            parts[-1][key] = chunk
            room -= size
    return [part for part in parts if part] or [{}]


def _part_path(path: Path, index: int, count: int) -> Path:
    return path.with_name(f"{path.stem}-{index + 1:05d}-of-{count:05d}{path.suffix}")


def checkpoint_path(directory: Path, name: str) -> Path:
    """Where a release keeps the model called `name`; in one of format 1, by the name that it had then."""
    path, then = directory / f"{name}.safetensors", version1.RENAMED.get(name)
    if then and not files_of(path) and files_of(directory / f"{then}.safetensors"):
        return directory / f"{then}.safetensors"
    return path
