"""Releases and adapters that are damaged, exchanged or made by somebody hostile."""

from __future__ import annotations

import functools
import json
import random
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from core.classifier import Adapter
from core.data.known_questions import KnownQuestion, fit_answers
from core.generator import AdapterGenerator
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.hvae import HVAE, HVAEConfig
from core.networks.hyperclip import HyperCLIP, HyperCLIPConfig
from core.networks.hyperldm import HyperLDM, HyperLDMConfig
from core.networks.hypernet import CondHyperNet, CondHyperNetConfig
from core.networks.weight_model import SharedWeights
from core.release.checkpoint import save_model, save_module
from core.release.manifest import CONFIG, KNOWN, list_anew, write_release

QUESTION, ANSWERS = "Where is it?", ["left", "right"]
WRONG = [None, True, -1, 0, 1.5, -0.0, 10**18, 1e308, "x", "", [], [[]], {}, {"a": 1}, ["x"] * 50]
METHODS = ("hyperldm", "hyperclip", "cond_multitask", "mnet_maml", "mnet_fomaml", "clip")
DIM = 8


@dataclass(frozen=True)
class Case:
    """One way to spoil a release; `listing` says whether config.json lists what the files are: as it was before
    ("kept"), not at all ("none", as in releases of before), or as it is now ("anew", as its maker could)."""

    seed: int
    spoil: str
    listing: str


def cases(seed: int, count: int) -> list[Case]:
    """That many cases; the same for the same seed."""
    rng = random.Random(seed)
    return [Case(rng.randrange(2**32), rng.choice(sorted(SPOILS)), rng.choice(_LISTINGS)) for _ in range(count)]


def check(case: Case) -> str:
    """ "result" or "refused"; raises for anything else, such as answers from a file that is not what is listed."""
    rng = random.Random(case.seed)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(shutil.copytree(whole_release(), Path(folder) / "release"))
        if case.listing == "none":
            config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
            del config["files"]
            (directory / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        before = _contents(directory)
        SPOILS[case.spoil](directory, rng)
        changed = _contents(directory) != before
        try:
            if case.listing == "anew":
                list_anew(directory)
            _use(directory, rng)
        except (ValueError, OSError) as error:
            message = str(error)
            if "\n" in message or not ("release" in message or "adapter" in message):
                raise AssertionError(f"{case}: no line that names the file: {message!r}") from error
            return "refused"
        if changed and case.listing == "kept" and case.spoil != "adapter":
            raise AssertionError(f"{case}: a release that changed is taken")
    return "result"


def _use(directory: Path, rng: random.Random) -> None:
    """Ask a release in all ways, and an adapter file where there is one."""
    generator = AdapterGenerator.from_pretrained(directory)
    pictures = [Image.new("RGB", (20, 20), (200, 30, 30))]
    for method in METHODS:
        table = generator.generate(QUESTION, method).classify(pictures, ANSWERS)
        assert table["probability"].between(0, 1).all(), method
    assert generator.suggest_answers(QUESTION)
    Adapter.load(directory / "extra" / "adapter.safetensors", generator.backbone).classify(pictures, ANSWERS)


def _contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def _some_file(directory: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(path for path in directory.rglob("*") if path.is_file() and path.parent.name != "extra"))


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _flip_bit(directory: Path, rng: random.Random) -> None:
    _flip(_some_file(directory, rng), rng)


def _cut(directory: Path, rng: random.Random) -> None:
    path = _some_file(directory, rng)
    data = path.read_bytes()
    path.write_bytes(data[: rng.choice([0, 1, 7, 8, rng.randrange(len(data))])])


def _append(directory: Path, rng: random.Random) -> None:
    path = _some_file(directory, rng)
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randrange(1, 100)))


def _swap(directory: Path, rng: random.Random) -> None:
    a, b = rng.sample(sorted(directory.glob("*.safetensors")), 2)
    first = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(first)


def _remove(directory: Path, rng: random.Random) -> None:
    _some_file(directory, rng).unlink()


def _replace(value: Any, rng: random.Random) -> Any:
    """JSON in which one field, at any depth, holds something else, or is gone."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return rng.choice(WRONG)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if rng.random() < 0.1:
        del value[key]
    else:
        value[key] = _replace(value[key], rng)
    return value


def _replace_field(directory: Path, rng: random.Random) -> None:
    path = rng.choice([directory / CONFIG, directory / "backbone" / "open_clip_config.json"])
    value = json.loads(path.read_text(encoding="utf-8"))
    listed = value.pop("files", None)
    value = _replace(value, rng)
    if listed is not None and isinstance(value, dict):
        value["files"] = listed
    path.write_text(json.dumps(value), encoding="utf-8")


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    """A checkpoint with another header or other tensors, whole as a file."""
    data = path.read_bytes()
    metadata = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]]).get("__metadata__", {})
    header, tensors = json.loads(metadata.get("header", "{}")), load_file(path)
    header.pop("sha256", None)
    change(header, tensors)
    save_file(tensors, path, metadata={"header": json.dumps(header)} if "header" in metadata else metadata)


def _replace_header(directory: Path, rng: random.Random) -> None:
    def change(header: dict[str, Any], _: dict[str, torch.Tensor]) -> None:
        key = rng.choice(["kind", "format_version", "config", "shapes", "metadata"])
        header[key] = _replace(header[key], rng)

    rewrite(rng.choice(sorted(directory.glob("*.safetensors"))), change)


def _put_nan(directory: Path, rng: random.Random) -> None:
    def change(_: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        tensor = tensors[rng.choice(sorted(name for name in tensors if tensors[name].is_floating_point()))]
        tensor.view(-1)[rng.randrange(tensor.numel())] = rng.choice([float("nan"), float("inf"), -float("inf")])

    rewrite(rng.choice(sorted(directory.rglob("*.safetensors"))), change)


def _put_large(directory: Path, rng: random.Random) -> None:
    def change(_: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        for tensor in tensors.values():
            if tensor.is_floating_point():
                tensor.fill_(torch.finfo(tensor.dtype).max)

    rewrite(rng.choice(sorted(directory.rglob("*.safetensors"))), change)


def _spoil_adapter(directory: Path, rng: random.Random) -> None:
    path = directory / "extra" / "adapter.safetensors"
    if rng.random() < 0.5:
        _flip(path, rng)
    else:
        rewrite(path, lambda header, _: header.update(metadata=_replace(header["metadata"], rng)))


SPOILS: dict[str, Callable[[Path, random.Random], None]] = {
    "flip": _flip_bit,
    "cut": _cut,
    "append": _append,
    "swap": _swap,
    "remove": _remove,
    "field": _replace_field,
    "header": _replace_header,
    "nan": _put_nan,
    "large": _put_large,
    "adapter": _spoil_adapter,
}
_LISTINGS = ("kept", "none", "anew")


@functools.cache
def whole_release() -> Path:
    """A whole release, smaller than any that is trained, in a folder that goes with the process."""
    whole_release.folder = tempfile.TemporaryDirectory()
    directory = Path(whole_release.folder.name) / "whole"
    torch.manual_seed(0)
    description = {
        "embed_dim": DIM,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 8, "head_width": 4, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    backbone = directory / "backbone"
    backbone.mkdir(parents=True)
    config = {"model_cfg": description, "preprocess_cfg": {}}
    (backbone / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(open_clip.CLIP(**description).state_dict(), backbone / "open_clip_model.safetensors")
    network = CLIPAdapter(AdapterConfig(hidden=2), dim=DIM)
    sizes = {"num_params": network.num_params}
    models = {
        "hvae": HVAE(HVAEConfig(latent=3, hidden=(6, 4)), **sizes),
        "hvae_hyperldm": HyperLDM(HyperLDMConfig(hidden=(16, 16), time_dim=4, num_timesteps=10), latent=3, dim=DIM),
        "hvae_hyperclip": HyperCLIP(HyperCLIPConfig(hidden=6), **sizes, dim=DIM),
        "cond_multitask": CondHyperNet(CondHyperNetConfig(hidden=6), network=network),
        "mnet_maml": SharedWeights(network=network),
        "mnet_fomaml": SharedWeights(network=network),
    }
    for name, module in models.items():
        save_module(directory / f"{name}.safetensors", module, {"row": name, "seed": 0})
    questions = [{"question": f"Where is the {thing}?", "answers": ANSWERS, "family": "where"} for thing in "abcdef"]
    write_release(
        directory,
        {
            "preset": "tiny",
            "seed": 0,
            "dataset": "made up",
            "question_encoder": {"encoder": "clip", "pooling": "eos"},
            "network": network.spec(),
            "choices": {"hvae_hyperldm": {"gamma": 1.5, "samples": 2, "sampler": "ddim", "steps": 2}},
            "scales": {"clip": 10.0, "hvae_hyperldm": 20.0},
            "questions": questions,
        },
        f"local-dir:{backbone}",
    )
    generator = AdapterGenerator.from_pretrained(directory)
    e = generator.embed_questions([known["question"] for known in questions])
    mean, fitted = fit_answers([KnownQuestion(q["question"], tuple(q["answers"])) for q in questions], e[:, None])
    save_model(directory / KNOWN, {"e": e, "mean": mean, "map": fitted}, kind="questions", config={})
    generator = AdapterGenerator.from_pretrained(directory)
    generator.generate(QUESTION, "cond_multitask").save(directory / "extra" / "adapter.safetensors")
    return directory
