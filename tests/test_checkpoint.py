import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.film import FilmConfig, FilmModel
from core.networks.hvae import HVAE, HVAEConfig
from core.networks.hyperclip import HyperCLIP, HyperCLIPConfig
from core.networks.hyperldm import HyperLDM, HyperLDMConfig
from core.networks.hypernet import (
    CondBottleneck,
    CondBottleneckConfig,
    CondHyperNet,
    CondHyperNetConfig,
    HNet,
    HNetConfig,
)
from core.networks.lowrank import LowRank, LowRankConfig
from core.networks.regression import KernelRidge, KernelRidgeConfig, LatentRegression
from core.networks.trunk import TrunkConfig
from core.networks.weight_model import SharedWeights
from core.release import checkpoint
from core.release.checkpoint import load_adapter, load_model, load_module, save_adapter, save_model, save_module
from tests.conftest import ROOT

NETWORK = CLIPAdapter(AdapterConfig(hidden=3), dim=8)
OTHER = LowRank(LowRankConfig(rank=2), dim=8, scale=12.5)
HYPERCLIP_SIZES = {"num_params": 20, "dim": 8}
weights = lambda m: m.weights(torch.arange(16.0).view(2, 8))
MODULES = {
    "hnet": (lambda: HNet(HNetConfig(5, 6), network=NETWORK), weights),
    "cond_hypernet": (lambda: CondHyperNet(CondHyperNetConfig(6), network=NETWORK), weights),
    "cond_hypernet, lowrank": (lambda: CondHyperNet(CondHyperNetConfig(6), network=OTHER), weights),
    "cond_bottleneck": (lambda: CondBottleneck(CondBottleneckConfig(2, (6,), 6), network=NETWORK), weights),
    "latent_regression": (
        lambda: LatentRegression(TrunkConfig(hidden=(16, 16)), latent=3, dim=8),
        lambda m: m.latents(torch.ones(2, 8)),
    ),
    "kernel_ridge": (
        lambda: KernelRidge(KernelRidgeConfig(), questions=5, latent=3, dim=8),
        lambda m: m.latents(torch.ones(2, 8)),
    ),
    "film": (lambda: FilmModel(FilmConfig(), network=NETWORK), weights),
    "film, lowrank": (lambda: FilmModel(FilmConfig(), network=OTHER), weights),
    "adapter": (lambda: SharedWeights(network=NETWORK), weights),
    "adapter, lowrank": (lambda: SharedWeights(network=OTHER), weights),
    "hvae": (lambda: HVAE(HVAEConfig(latent=3, hidden=(7, 4)), num_params=20), lambda m: m.decode(torch.ones(2, 3))),
    "hyperclip": (lambda: HyperCLIP(HyperCLIPConfig(6), **HYPERCLIP_SIZES), lambda m: m(torch.ones(2, 20))),
    "hyperclip, components": (
        lambda: HyperCLIP(HyperCLIPConfig(6, components=4), **HYPERCLIP_SIZES),
        lambda m: m(torch.ones(2, 20)),
    ),
    "hyperldm": (
        lambda: HyperLDM(HyperLDMConfig(hidden=(16, 16), time_dim=4), latent=3, dim=8),
        lambda m: m(torch.ones(2, 3), torch.tensor([1, 300]), torch.ones(2, 8)),
    ),
}


def test_every_kind_of_module_is_here():
    assert {kind.partition(",")[0] for kind in MODULES} == set(checkpoint.MODULES.names())


@pytest.mark.parametrize("kind", MODULES)
def test_a_module_comes_back_from_its_path_alone(kind, tmp_path):
    torch.manual_seed(0)
    make, use = MODULES[kind]
    module = make()
    for buffer in module.buffers():
        buffer.uniform_(0.5, 1.5)
    for values in (*module.parameters(), *module.buffers()):  # on disk matrices are half precision
        values.data.copy_(values.data.half() if values.ndim > 1 else values.data)
    save_module(tmp_path / "m.safetensors", module, {"seed": 3})
    again = load_module(tmp_path / "m.safetensors")
    assert type(again) is type(module) and not again.training and not any(p.requires_grad for p in again.parameters())
    assert again.config == module.config and again.sizes() == module.sizes()
    torch.testing.assert_close(use(again), use(module.eval()))
    assert load_model(tmp_path / "m.safetensors", kind.partition(",")[0])[0]["metadata"] == {"seed": 3}


def test_fresh_process_gives_the_same(tmp_path):
    w = torch.randn(OTHER.num_params)
    save_adapter(tmp_path / "a.safetensors", w, OTHER, {"question": "q?"})
    load = f"w, n, m = load_adapter({str(tmp_path / 'a.safetensors')!r})"
    code = f"from core.release.checkpoint import load_adapter; {load}; print(float(w.sum()), n.name, n.scale, m)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True, cwd=ROOT
    )
    out = run.stdout
    assert out.split(" ", 3) == [str(float(w.sum())), "lowrank", "12.5", "{'question': 'q?'}\n"]


def test_the_checkpoint_of_shared_weights_is_an_adapters(tmp_path):
    module = SharedWeights(network=NETWORK)
    save_module(tmp_path / "m.safetensors", module, {"seed": 3})
    w, network, metadata = load_adapter(tmp_path / "m.safetensors")
    assert torch.equal(w, module.w) and network == NETWORK and metadata == {"seed": 3}
    save_adapter(tmp_path / "a.safetensors", w, network)
    assert torch.equal(load_module(tmp_path / "a.safetensors").w, w)


def test_matrices_are_half_precision_unless_they_do_not_fit(tmp_path):
    """Half precision ends at 65,504: what lies beyond would be stored as infinite."""
    tensors = {
        "usual": torch.tensor([[1.0, 0.1]]),
        "large": torch.tensor([[1e5, 0.1], [-3e38, 1.0]]),
        "edge": torch.tensor([[65504.0, -65504.0]]),
        "vector": torch.tensor([1e5, 0.1]),
        "count": torch.tensor([[70000]]),
    }
    for max_bytes in (None, 20):  # whole, and in parts
        path = tmp_path / "m.safetensors"
        files = save_model(path, tensors, kind="adapter", config={}, max_bytes=max_bytes)
        stored = {name: tensor for file in files for name, tensor in load_file(file).items()}
        assert stored["usual"].dtype == stored["edge"].dtype == torch.float16
        assert stored["vector"].dtype == torch.float32
        again = load_model(path)[1]
        assert all(torch.equal(again[name], tensors[name].float()) for name in ("large", "edge", "vector", "count"))
        torch.testing.assert_close(again["usual"], tensors["usual"], rtol=1e-3, atol=0)


def test_parts_of_two_savings_are_refused(tmp_path):
    path, old = tmp_path / "m.safetensors", tmp_path / "old"
    save = lambda value: save_model(
        path, {"big": torch.full((50, 64), value)}, kind="adapter", config={}, max_bytes=2000
    )
    first = save(1.0)[0]
    old.write_bytes(first.read_bytes())
    save(2.0)
    old.replace(first)
    with pytest.raises(ValueError, match="different savings"):
        load_model(path)
    assert save(1.0) and (load_model(path)[1]["big"] == 1).all()


@pytest.mark.parametrize("rows", [4, 50])
def test_large_files_are_split_and_found_again(tmp_path, rows):
    tensors = {"big": torch.randn(rows, 64).half().float(), "small": torch.randn(5)}
    files = save_model(tmp_path / "m.safetensors", tensors, kind="adapter", config={}, max_bytes=2000)
    assert all(file.stat().st_size < 4000 for file in files) and (len(files) > 1) == (rows == 50)
    _, again = load_model(tmp_path / "m.safetensors")
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    if rows == 50:
        files[1].unlink()
        with pytest.raises(ValueError, match="incomplete"):
            load_model(tmp_path / "m.safetensors")
        save_model(tmp_path / "m.safetensors", {"small": torch.ones(2)}, kind="adapter", config={})
        assert load_model(tmp_path / "m.safetensors")[1].keys() == {"small"}  # the old parts are gone


def test_damage_is_named(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError, match="m.safetensors"):
        load_model(path)
    save_file({"x": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="not one of this project"):
        load_model(path)
    save_adapter(path, torch.zeros(NETWORK.num_params), NETWORK)
    with pytest.raises(ValueError, match="expected a 'hvae'"):
        load_model(path, "hvae")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        load_model(path)


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda t: t.pop("z_mean"), "missing tensor 'z_mean'"),
        (lambda t: t.update(extra=torch.ones(1)), "unexpected tensor 'extra'"),
        (lambda t: t.update(z_mean=torch.ones(7)), "misshapen tensor 'z_mean'"),
    ],
)
def test_loading_is_strict(tmp_path, change, word):
    module = MODULES["hyperldm"][0]()
    save_module(tmp_path / "m.safetensors", module)
    header, tensors = load_model(tmp_path / "m.safetensors")
    change(tensors)
    save_model(tmp_path / "m.safetensors", tensors, kind="hyperldm", config=header["config"])
    with pytest.raises(ValueError, match=word):
        load_module(tmp_path / "m.safetensors")


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_adapter(path, torch.zeros(NETWORK.num_params), NETWORK)

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        save_adapter(path, torch.ones(NETWORK.num_params), NETWORK)
    assert load_adapter(path)[0].abs().sum() == 0 and [*tmp_path.iterdir()] == [path]


def described(config=None, **sizes):
    """A header's config of a module."""
    return {"config": {"config": config, "sizes": {"network": NETWORK.spec(), **sizes}}}


HEADER = {"kind": "adapter", "format_version": 2, "metadata": {}, "shapes": {"w": [3]}, **described()}
SPEC = NETWORK.spec()


@pytest.mark.parametrize(
    "change, word",
    [
        ({"metadata": []}, "'metadata' in its header must be dict, got list"),
        ({"metadata": None}, "'metadata' in its header"),
        ({"shapes": []}, "'shapes' in its header must be dict, got list"),
        ({"config": "small"}, "'config' in its header must be dict, got str"),
        ({"config": {}}, "sizes"),
        ({"config": {"sizes": {}}}, "network"),
        ({"config": {"sizes": []}}, "list"),
        (described(network="small"), "network 'small': expected name, config, dim and scale"),
        (described(network={**SPEC, "dim": -1}), "must be positive"),
        (described(network={**SPEC, "dim": 8.0}), "dim 8.0 .* must be numbers"),
        (described(network={**SPEC, "name": "nope"}), "network 'nope'; allowed"),
        (described(network={**SPEC, "name": ["nope"]}), "nope"),
        (described(network={**SPEC, "config": {"dimm": 2}}), "unknown key 'dimm'"),
        ({"format_version": "1"}, "'format_version' in its header must be int, got str"),
        ({"format_version": 3}, "format 3 is newer than this code's 2"),
        ({"kind": ["adapter"]}, "'kind' in its header must be str, got list"),
        ({}, "3 weights, its config says"),
    ],
)
def test_whatever_a_header_says_the_error_names_the_file(tmp_path, change, word):
    path = tmp_path / "crafted.safetensors"
    save_file({"w": torch.zeros(3)}, path, metadata={"header": json.dumps(HEADER | change)})
    with pytest.raises(ValueError, match=rf"crafted\.safetensors: .*{word}"):
        load_adapter(path)


@pytest.mark.parametrize("header", ['{"kind": "adapter"}', "[" * 100_000, "{", "[]", '"kind"'])
def test_whatever_the_header_is_the_error_names_the_file(tmp_path, header):
    path = tmp_path / "crafted.safetensors"
    save_file({"w": torch.zeros(3)}, path, metadata={"header": header})
    with pytest.raises(ValueError, match=r"crafted\.safetensors"):
        load_adapter(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {"v": torch.zeros(3)},
        {"w": torch.zeros(())},
        {"w": torch.full((NETWORK.num_params,), torch.nan)},
        {"w#0": torch.zeros(2, 3), "w#1": torch.zeros(2, 4)},
        {"w#0": torch.zeros(()), "w#1": torch.zeros(())},
    ],
)
def test_whatever_an_adapter_file_holds_the_error_names_it(tmp_path, tensors):
    path = tmp_path / "crafted.safetensors"
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items() if "#" not in name}
    save_file(tensors, path, metadata={"header": json.dumps(HEADER | {"shapes": shapes})})
    with pytest.raises(ValueError, match=r"crafted\.safetensors"):
        load_adapter(path)


@pytest.mark.parametrize(
    "change, word",
    [
        ({"kind": "nope"}, "kind of module 'nope'; allowed: adapter, "),
        ({"kind": "latents"}, "kind of module 'latents'; allowed: adapter, "),
        ({"config": {}}, ""),
        (described({"latnet": 2}), "unknown key 'latnet'"),
        (described({"latent": 2}, dim=3), "dim"),
        ({"config": {"config": {}, "sizes": {}}}, "network"),
        ({"config": {"config": [], "sizes": {"network": SPEC}}}, "expected a mapping"),
        ({"config": {"config": {}, "sizes": {"network": {**SPEC, "name": {}}}}}, ""),
    ],
)
def test_whatever_a_modules_header_says_the_error_names_the_file(tmp_path, change, word):
    path = tmp_path / "crafted.safetensors"
    save_file({"w": torch.zeros(3)}, path, metadata={"header": json.dumps(HEADER | {"kind": "hnet"} | change)})
    with pytest.raises(ValueError, match=rf"crafted\.safetensors: .*{word}"):
        load_module(path)
