"""Releases and adapters of format 1, written here byte by byte as that format had them."""

import json

import pytest
import torch
from safetensors.torch import save_file

from core.generator import AdapterGenerator
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.film import FilmConfig, FilmModel
from core.networks.hvae import HVAE, HVAEConfig
from core.networks.hyperclip import HyperCLIP, HyperCLIPConfig
from core.networks.hyperldm import HyperLDM, HyperLDMConfig
from core.networks.hypernet import CondHyperNet, CondHyperNetConfig, HNet, HNetConfig
from core.networks.weight_model import SharedWeights
from core.release.checkpoint import files_of, load_adapter, load_model, load_module, save_module
from core.release.manifest import read_config

ADAPTER = {"dim": 8, "hidden": 3, "bias": True, "init_std": 0.1}
NETWORK = CLIPAdapter(AdapterConfig(hidden=3), dim=8)
P = NETWORK.num_params
BOTH = {"whitening": 1e-4, "cond_noise": 1.0}
HVAE_THEN = {"latent": 4, "hidden": [6], "kl_weight": 0.005, "reconstruction": "mean", "reconstruction_weight": 3e-05}
HVAE_THEN |= {"behaviour_weight": 1.0, "behaviour": "labels"}
LDM_THEN = {"time_dim": 4, "squeeze": 2, "dropout": 0.0, **BOTH, "prediction": "v", "num_timesteps": 20}
LDM_THEN |= {"hidden": [6, 6], "beta_start": 1e-4, "beta_end": 0.06}
CLIP_THEN = {"hidden": 5, "activation": "tanh", **BOTH, "decoded": True, "decoded_share": 0.5, "components": 2}
LDM = HyperLDMConfig(hidden=(6, 6), time_dim=4, squeeze=2, prediction="v", num_timesteps=20, **BOTH)
# by row: the file's name then, the kind and the config in its header then, and the module that it is now
MODELS = {
    "mnet_maml": ("mnet_maml", "adapter", ADAPTER, lambda: SharedWeights(network=NETWORK)),
    "hnet_maml": (
        "hnet_maml",
        "hypernet",
        {
            "config": {"input_dim": 4, "hidden": 5, "learn_z0": True, "whitening": 1e-3, "cond_noise": 0.0},
            "adapter": ADAPTER,
        },
        lambda: HNet(HNetConfig(latent=4, hidden=5), network=NETWORK),
    ),
    "cond_multitask": (
        "cond_multitask",
        "hypernet",
        {"config": {"input_dim": 8, "hidden": 5, "learn_z0": False, **BOTH}, "adapter": ADAPTER},
        lambda: CondHyperNet(CondHyperNetConfig(hidden=5, **BOTH), network=NETWORK),
    ),
    "cond_multitask_film": (
        "cond_multitask_film",
        "film",
        {"config": {"input_dim": 8, **BOTH}, "adapter": ADAPTER},
        lambda: FilmModel(FilmConfig(**BOTH), network=NETWORK),
    ),
    "hvae": (
        "hvae",
        "hvae",
        {"config": HVAE_THEN, "num_params": P},
        lambda: HVAE(HVAEConfig(**{**HVAE_THEN, "hidden": (6,)}), num_params=P),
    ),
    "hvae_hyperclip": (
        "hyperclip_hvae",
        "hyperclip",
        {"config": CLIP_THEN, "num_params": P, "dim": 8},
        lambda: HyperCLIP(HyperCLIPConfig(**CLIP_THEN), num_params=P, dim=8),
    ),
    "hnet_hyperclip": (
        "hyperclip_hnet",
        "hyperclip",
        {"config": {**CLIP_THEN, "components": 0}, "num_params": P, "dim": 8},
        lambda: HyperCLIP(HyperCLIPConfig(**{**CLIP_THEN, "components": 0}), num_params=P, dim=8),
    ),
    "hvae_hyperldm": (
        "hvae_hyperldm",
        "hyperldm",
        {"config": {"latent": 4, "cond_dim": 8, **LDM_THEN}},
        lambda: HyperLDM(LDM, latent=4, dim=8),
    ),
    "hnet_hyperldm": (
        "hnet_hyperldm",
        "hyperldm",
        {"config": {"latent": 4, "cond_dim": 8, **LDM_THEN}},
        lambda: HyperLDM(LDM, latent=4, dim=8),
    ),
}
CONFIG = {"library": "question-to-adapter", "preset": "emoji", "seed": 0, "descriptors": 1.0, "dataset": "emoji-vqa v1"}
CONFIG |= {"backbone": "backbone", "question_pooling": "mean", "questions": []}
CONFIG |= {"choices": {f"{g}_hyperldm": {"gamma": 1.5, "samples": 2, "steps": 3} for g in ("hvae", "hnet")}}
METHODS = [("mnet_maml", "hvae"), ("hnet_maml", "hvae"), ("cond_multitask", "hvae"), ("cond_multitask_film", "hvae")]
METHODS += [("hyperldm", "hvae"), ("hyperldm", "hnet"), ("hyperclip", "hvae"), ("hyperclip", "hnet")]


def write_then(path, kind, config, tensors, metadata):
    """A checkpoint as format 1 wrote it: matrices in half precision, the header as one string."""
    stored = {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}
    header = {"kind": kind, "format_version": 1, "config": config, "metadata": metadata}
    header["shapes"] = {name: list(tensor.shape) for name, tensor in stored.items()}
    save_file(stored, path, metadata={"header": json.dumps(header)})


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """The same models as a release of format 1 and as one of today."""
    then, now = tmp_path_factory.mktemp("then"), tmp_path_factory.mktemp("now")
    torch.manual_seed(0)
    for name, (file, kind, config, make) in MODELS.items():
        module = make()
        for values in (*module.parameters(), *module.buffers()):
            values.data.add_(0.1 * torch.rand(values.shape))
        tensors = {key: value.detach().contiguous() for key, value in module.state_dict().items()}
        write_then(then / f"{file}.safetensors", kind, config, tensors, {"row": name, "seed": 0})
        save_module(now / f"{name}.safetensors", module, {"row": name, "seed": 0})
    old = {"format_version": 1, **CONFIG, "adapter": ADAPTER}
    (then / "config.json").write_text(json.dumps(old), encoding="utf-8")
    new = {"format_version": 2, **CONFIG, "network": NETWORK.spec()}
    new["question_encoder"] = {"encoder": "clip", "pooling": "mean"}
    (now / "config.json").write_text(json.dumps(new), encoding="utf-8")
    return then, now


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_of_then_is_the_module_of_now(releases, name):
    then, now = releases
    old = load_module(then / f"{MODELS[name][0]}.safetensors")
    new = load_module(now / f"{name}.safetensors")
    assert type(old) is type(new) and old.config == new.config and old.sizes() == new.sizes()
    a, b = old.state_dict(), new.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert load_model(then / f"{MODELS[name][0]}.safetensors")[0]["metadata"] == {"row": name, "seed": 0}


def test_a_release_of_then_reads_as_one_of_now(releases):
    then, now = releases
    assert read_config(then).keys() - {"adapter"} == read_config(now).keys()
    assert read_config(then)["question_encoder"] == {"encoder": "clip", "pooling": "mean"}
    old, new = (AdapterGenerator.from_pretrained(directory) for directory in releases)
    assert old.network == new.network == NETWORK and old.choice("hvae_hyperldm") == new.choice("hvae_hyperldm")
    assert old.scale("hvae_hyperldm") == 100.0  # it has none but that of training
    e = torch.nn.functional.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    for method, generator in METHODS:
        assert old.has(method, generator) and new.has(method, generator)
        how = {"generator": generator, "seed": 5}
        assert torch.equal(old.weights(e, method, **how), new.weights(e, method, **how)), (method, generator)
    assert not old.has("mnet_fomaml") and old.has_row("hvae_hyperclip") and not old.has_row("mnet_fomaml")


def test_the_file_of_now_wins_over_the_one_of_then(releases, tmp_path):
    """A release trained on in its old folder holds both names."""
    then, now = releases
    for file, source in (("hyperclip_hvae", then), ("hvae_hyperclip", now)):
        (tmp_path / f"{file}.safetensors").write_bytes((source / f"{file}.safetensors").read_bytes())
    generator = AdapterGenerator(tmp_path, read_config(now))
    header, _ = load_model(tmp_path / "hvae_hyperclip.safetensors")
    assert header["format_version"] == 2 and len(files_of(tmp_path / "hvae_hyperclip.safetensors")) == 1
    (tmp_path / "hyperclip_hvae.safetensors").write_bytes(b"damaged")
    assert isinstance(generator.module("hvae_hyperclip"), HyperCLIP)


def test_an_adapter_of_then(tmp_path):
    w = torch.arange(float(P))
    write_then(tmp_path / "a.safetensors", "adapter", ADAPTER, {"w": w}, {"question": "q?"})
    again, network, metadata = load_adapter(tmp_path / "a.safetensors")
    assert torch.equal(again, w) and network == NETWORK and metadata == {"question": "q?"} and network.scale == 100.0


def test_a_table_of_latents_of_then(tmp_path):
    z = torch.randn(5, 4).half().float()
    write_then(tmp_path / "latents_hvae.safetensors", "latents", {}, {"z": z}, {})
    assert torch.equal(load_model(tmp_path / "latents_hvae.safetensors", "latents")[1]["z"], z)


@pytest.mark.parametrize(
    "kind, config",
    [
        ("adapter", {}),
        ("adapter", {"dim": "8"}),
        ("adapter", {"dim": 8, "hiden": 3}),
        ("hypernet", {}),
        ("hypernet", {"config": "x", "adapter": ADAPTER}),
        ("hypernet", {"config": [1], "adapter": ADAPTER}),
        ("hypernet", {"config": {"input_dim": 4}, "adapter": "x"}),
        ("hypernet", {"config": {"input_dim": "4", "learn_z0": True}, "adapter": ADAPTER}),
        ("film", {"config": {"input_dim": 4}}),
        ("hyperldm", {"config": {"latent": "4"}}),
        ("hvae", {"config": {}, "num_params": "many"}),
        ("nope", {"config": {}}),
    ],
)
def test_whatever_a_header_of_then_says_the_error_names_the_file(tmp_path, kind, config):
    write_then(tmp_path / "crafted.safetensors", kind, config, {"w": torch.zeros(3)}, {})
    for load in (load_module, load_adapter):
        with pytest.raises(ValueError, match=r"crafted\.safetensors"):
            load(tmp_path / "crafted.safetensors")


@pytest.mark.parametrize("adapter", ["small", [1], None, {"dim": "8"}, {"dim": 8, "hiden": 2}, {}])
def test_a_config_of_then_with_another_adapter_is_refused(tmp_path, adapter):
    (tmp_path / "config.json").write_text(
        json.dumps({"format_version": 1, **CONFIG, "adapter": adapter}), encoding="utf-8"
    )
    with pytest.raises(ValueError):
        AdapterGenerator.from_pretrained(tmp_path)
