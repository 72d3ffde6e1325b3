"""Checkpoints: safetensors files that carry their own config, written atomically, read strictly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import from_dict, to_dict
from ..files import replacing
from ..networks.base import BaseNetwork, open_network
from ..networks.weight_model import MODULES, Saved
from ..tensors import check_finite
from . import version1

FORMAT_VERSION = 2
MAX_BYTES = 10 * 1024 * 1024 - 4096  # what the Hub and git take without large-file storage
SMALL = 8 * MAX_BYTES  # a model up to this size may be shipped in git; larger ones are split for file systems' sake
LARGE_BYTES = 2 * 1024**3


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
    check_finite(path, tensors)
    stored = {name: _on_disk(tensor) for name, tensor in tensors.items()}
    if max_bytes is None:
        size = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
        max_bytes = MAX_BYTES if size <= SMALL else LARGE_BYTES
    parts = _split(stored, max_bytes)
    header = {
        "kind": kind,
        "format_version": FORMAT_VERSION,
        "config": config,
        "shapes": {k: list(v.shape) for k, v in stored.items()},
        "metadata": dict(metadata or {}),
    }
    if len(parts) > 1:
        header["content"] = _digest(stored)
    try:
        text = json.dumps(header, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: not written: {error}") from None
    stale = set(files_of(path))
    files = [path] if len(parts) == 1 else [_part_path(path, i, len(parts)) for i in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        with replacing(file) as partial:
            save_file(part, partial, metadata={"header": text})
    for file in stale - set(files):
        file.unlink()
    return files


def load_model(path: Path | str, kind: str | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header (kind, config, metadata ...) and float32 tensors of a file that `save_model` wrote.

    Raises:
        FileNotFoundError: no such file, nor parts of it.
        ValueError: not one of our files, another kind than asked for, a newer format, or parts missing.
    """
    path = Path(path)
    files = files_of(path)
    if not files:
        raise FileNotFoundError(f"{path}: no such checkpoint")
    tensors: dict[str, Tensor] = {}
    contents = set()
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                header = _read_header((opened.metadata() or {}).get("header", "null"), file)
                contents.add(str(header.get("content")))
                for name in sorted(opened.keys()):  # parts of one matrix in order
                    base = name.split("#")[0]
                    tensor = opened.get_tensor(name).float()
                    tensors[base] = torch.cat([tensors[base], tensor]) if base in tensors else tensor
        except SafetensorError as error:
            raise ValueError(f"{file}: damaged or not a safetensors file ({error})") from None
        except RuntimeError as error:  # PyTorch's, such as at rows of a matrix that do not fit together
            raise ValueError(f"{file}: {error}") from None
    if len(contents) > 1:
        raise ValueError(f"{path}: its parts are of different savings; make or fetch all of them again")
    if kind is not None and header["kind"] != kind:
        raise ValueError(f"{path}: holds a {header['kind']!r}, expected a {kind!r}")
    if header["format_version"] > FORMAT_VERSION:
        raise ValueError(f"{path}: format {header['format_version']} is newer than this code's {FORMAT_VERSION}")
    if header["format_version"] == 1:
        try:
            header = version1.upgraded_header(header)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    wrong = [n for n, shape in header["shapes"].items() if n not in tensors or list(tensors[n].shape) != shape]
    if wrong:
        raise ValueError(f"{path}: incomplete, {wrong[0]!r} is missing or cut; are all its parts there?")
    return header, tensors


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], where: str, *, assign: bool = False) -> None:
    """Strictly copy tensors into a module, or make them its own (`assign`); a missing, unexpected or misshapen one is a
    ValueError naming it."""
    own = module.state_dict()
    for problem, names in (
        ("missing", own.keys() - tensors.keys()),
        ("unexpected", tensors.keys() - own.keys()),
        ("misshapen", {n for n in own.keys() & tensors.keys() if own[n].shape != tensors[n].shape}),
    ):
        if names:
            raise ValueError(f"{where}: {problem} tensor {sorted(names)[0]!r}")
    module.load_state_dict(tensors, assign=assign)


def save_module(path: Path | str, module: Saved, metadata: Mapping[str, Any] | None = None) -> list[Path]:
    """Save one of our modules with what is needed to rebuild it from the path alone: its config and its sizes, among
    them the base network's description."""
    config = _described(module.config, module.sizes())
    return save_model(path, module.state_dict(), kind=module.name, config=config, metadata=metadata)


def load_module(path: Path | str, device: torch.device | str = "cpu") -> Saved:
    """Rebuild a module from its file, in evaluation mode. Raises what `load_model` and `load_into` do."""
    header, tensors = load_model(path)
    try:
        cls, own = MODULES[header["kind"]], header["config"]
        sizes = {name: open_network(size) if name == "network" else size for name, size in own["sizes"].items()}
        module = cls(None if own["config"] is None else from_dict(cls.Config, own["config"]), **sizes)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    load_into(module, tensors, str(path))
    return module.to(device).eval().requires_grad_(False)


def save_adapter(path: Path | str, w: Tensor, network: BaseNetwork, metadata: Mapping[str, Any] | None = None) -> None:
    """Save weights of a base network: w (P,) of one task, or (samples, P)."""
    save_model(path, {"w": w}, kind="adapter", config=_described(None, {"network": network}), metadata=metadata)


def load_adapter(path: Path | str) -> tuple[Tensor, BaseNetwork, dict[str, Any]]:
    """Weights, base network and metadata of a file written by `save_adapter`."""
    header, tensors = load_model(path, "adapter")
    try:
        network = open_network(header["config"]["sizes"]["network"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    w = tensors.get("w")
    if w is None or w.ndim == 0:
        raise ValueError(f"{path}: holds no vector of weights")
    if w.shape[-1] != network.num_params:
        raise ValueError(f"{path}: {w.shape[-1]} weights, its config says {network.num_params}")
    if not w.isfinite().all():
        raise ValueError(f"{path}: some of its weights are infinite or not numbers")
    return w, network, header["metadata"]


def _described(config: Any, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """A module's config and sizes for a header."""
    return {
        "config": None if config is None else to_dict(config),
        "sizes": {name: size.spec() if isinstance(size, BaseNetwork) else size for name, size in sizes.items()},
    }


_HEADER: dict[str, type] = {"kind": str, "format_version": int, "config": dict, "shapes": dict, "metadata": dict}


def _read_header(text: str, file: Path) -> dict[str, Any]:
    """The header of one of our files, with all that `save_model` writes; anyone may have made the file."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or "kind" not in header:
        raise ValueError(f"{file}: a safetensors file, but not one of this project's checkpoints")
    for name, kind in _HEADER.items():
        if not isinstance(header.get(name), kind):
            got = f"got {type(header[name]).__name__}" if name in header else "it is missing"
            raise ValueError(f"{file}: {name!r} in its header must be {kind.__name__}, {got}")
    return header


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


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


def files_of(path: Path) -> list[Path]:
    """The files of a checkpoint at `path`: itself or its numbered parts, in order; [] if there is neither. Parts win,
    since a split checkpoint has no whole."""
    parts = sorted(path.parent.glob(f"{path.stem}-?????-of-?????{path.suffix}"))
    return parts or ([path] if path.is_file() else [])


def checkpoint_path(directory: Path, name: str) -> Path:
    """Where a release keeps the model called `name`; in one of format 1, by the name that it had then."""
    path, then = directory / f"{name}.safetensors", version1.RENAMED.get(name)
    if then and not files_of(path) and files_of(directory / f"{then}.safetensors"):
        return directory / f"{then}.safetensors"
    return path
