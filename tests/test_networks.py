"""Every base network keeps the promises of the protocol; and registries name what they hold."""

import dataclasses
import importlib

import pytest
import torch
from torch.nn.functional import normalize

from core.adaptation.inner_loop import maml_loss
from core.config import from_dict
from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.base import BASE_NETWORKS, BaseNetwork, open_network, task_loss
from core.networks.film import FilmConfig, FilmModel
from core.networks.lowrank import LowRank, LowRankConfig
from core.networks.weight_generator import WEIGHT_GENERATORS
from core.networks.weight_model import MODULES
from tests.conftest import random_batch
from train.presets import get_preset

D = 16


@pytest.fixture(params=BASE_NETWORKS.names())
def network(request) -> BaseNetwork:
    cls = BASE_NETWORKS[request.param]
    return cls(cls.Config(), D)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(network: BaseNetwork, tasks: int) -> torch.Tensor:
    """Weights (tasks, P) that are not fresh."""
    return network.init(rng()) + 0.3 * torch.randn(tasks, network.num_params, generator=rng(1))


# -- the protocol ----------------------------------------------------------------------------------------------------


def test_fresh_weights_are_one_vector_of_the_promised_length(network):
    w = network.init(rng())
    assert w.shape == (network.num_params,) and w.dtype == torch.float32 and w.device.type == "cpu"
    assert torch.equal(w, network.init(rng())) and not torch.equal(w, network.init(rng(1)))
    assert network.init_std > 0


def test_images_stay_unit_vectors_of_their_own_task(network):
    images, w = random_batch(N=7).images, weights(network, 4)
    there = images.abs().sum(-1) > 0
    out = network.forward(w, images)
    assert out.shape == images.shape
    torch.testing.assert_close(out[there].norm(dim=-1), torch.ones(int(there.sum())))
    assert not torch.allclose(out, network.forward(w.roll(1, 0), images))
    for i in range(4):
        torch.testing.assert_close(network.forward(w[i : i + 1], images[i : i + 1])[0], out[i])


def test_a_fresh_network_is_a_small_change(network):
    """Weights that are not fresh, nor all zero, are a larger one."""
    images = normalize(torch.randn(1, 50, D, generator=rng(2)), dim=-1)
    change = lambda w: float((network.forward(w[None], images) - images).norm(dim=-1).mean())
    fresh = change(network.init(rng()))
    assert 0 < fresh < 0.25 < change(10 * network.init(rng()))


def test_padding_stays_finite_and_gets_no_gradient_to_second_order(network):
    """Padding is zeros, where a norm has no derivative of its own."""
    batch = random_batch()
    assert not batch.example_mask.all() and not batch.answer_mask.all()
    w = network.init(rng()).requires_grad_()
    loss = lambda w: network.loss(w, batch)
    value = maml_loss(w.expand(4, -1), loss, loss, steps=2, lr=0.01)
    (gradient,) = torch.autograd.grad(value.mean(), w)
    assert value.isfinite().all() and gradient.isfinite().all() and gradient.abs().sum() > 0
    other = dataclasses.replace(batch, images=batch.images + ~batch.example_mask[..., None] * 0.7)
    torch.testing.assert_close(network.loss(weights(network, 4), other), network.loss(weights(network, 4), batch))


def test_meta_gradient_matches_finite_differences(network):
    batch, w = random_batch(dtype=torch.float64), network.init(rng()).double()
    loss = lambda w: network.loss(w, batch) / 10  # where float64 is well conditioned
    value = lambda w: maml_loss(w.expand(4, -1), loss, loss, steps=2, lr=0.1).mean()
    leaf = w.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    direction, h = torch.randn(w.shape, generator=rng(3), dtype=torch.float64), 1e-6
    numeric = (value((w + h * direction).requires_grad_()) - value((w - h * direction).requires_grad_())) / (2 * h)
    assert float(gradient @ direction) == pytest.approx(float(numeric), rel=1e-4)


def test_logits_are_scaled_cosines_and_padded_answers_are_out(network):
    batch, w = random_batch(), weights(network, 4)
    logits = network.logits(w, batch)
    cosine = network.forward(w, batch.images) @ batch.answers.mT
    open_ = batch.answer_mask[:, None].expand_as(logits)
    torch.testing.assert_close(logits[open_], network.scale * cosine[open_])
    assert (logits[~open_] == -torch.inf).all()
    torch.testing.assert_close(network.logits(w, batch, scale=3.0)[open_], 3 * cosine[open_])
    torch.testing.assert_close(network.loss(w, batch), task_loss(logits, batch))
    torch.testing.assert_close(
        network.logits(None, batch)[open_], network.scale * (batch.images @ batch.answers.mT)[open_]
    )


def test_a_description_builds_the_same_network_again(network):
    own = type(network)(network.config, D, scale=7.5)
    again = open_network(own.spec())
    assert type(again) is type(own) and again == own and hash(again) == hash(own) and again != network
    assert again.num_params == own.num_params and again.scale == 7.5 and again.dim == D
    assert open_network({k: v for k, v in network.spec().items() if k != "scale"}) == network


@pytest.mark.parametrize(
    "change, word",
    [
        ({"name": "nope"}, "network 'nope'; allowed: clip_adapter, lowrank"),
        ({"dim": "16"}, "dim '16'"),
        ({"dim": True}, "dim True"),
        ({"dim": 0}, "dim 0"),
        ({"scale": "big"}, "scale 'big'"),
        ({"scale": -1.0}, "scale -1.0"),
        ({"config": {"hiden": 3}}, "unknown key 'hiden'"),
        ({"config": {"hidden": 0}}, "hidden 0; allowed: 1 or more"),
        ({"config": 3}, "expected a mapping"),
        ({"extra": 1}, "expected name, config, dim and scale"),
    ],
)
def test_bad_descriptions_are_named(change, word):
    spec = CLIPAdapter(AdapterConfig(hidden=3), D).spec()
    with pytest.raises(ValueError, match=word):
        open_network(spec | change)
    with pytest.raises(ValueError, match="expected name, config, dim and scale"):
        open_network({})


def test_weights_of_another_length_are_refused(network):
    with pytest.raises(ValueError, match=f"w has 3 values.* takes {network.num_params}"):
        network.forward(torch.zeros(1, 3), torch.zeros(1, 2, D))


# -- FiLM ------------------------------------------------------------------------------------------------------------


def hidden_and_rest(network: BaseNetwork, w: torch.Tensor, images: torch.Tensor):
    """Hidden activations (N, H), and the network's output (N, D) as a function of them."""
    p, x = {}, images * D**0.5
    if isinstance(network, CLIPAdapter):
        p = network.unpack(w)
        H = network.config.hidden
        hidden = torch.relu(x @ p["W1"].T / D**0.5 + p["b1"])
        return hidden, lambda h: normalize(x + h @ p["W2"].T / H**0.5 + p["b2"], dim=-1)
    R = network.config.rank
    V, U, b = w[: R * D].view(R, D), w[R * D : 2 * R * D].view(D, R), w[2 * R * D :]
    return x @ V.T / D**0.5, lambda h: normalize(x + h @ U.T / R**0.5 + b, dim=-1)


@pytest.mark.parametrize("cls", [CLIPAdapter, LowRank])
def test_folded_film_is_film_on_the_hidden_activation(cls):
    network, images = cls(cls.Config(), D), normalize(torch.randn(3, 5, D, generator=rng()), dim=-1)
    model = FilmModel(FilmConfig(), network=network, rng=rng())
    torch.nn.init.normal_(model.film.weight, std=0.3)
    e = torch.randn(3, D, generator=rng(1))
    out = network.forward(model.weights(e), images)
    scale, shift = model.film(e).detach().chunk(2, -1)
    assert scale.shape == (3, network.film_units)
    for i in range(3):
        hidden, rest = hidden_and_rest(network, model.w.detach(), images[i])
        torch.testing.assert_close(rest(hidden), network.forward(model.w[None], images[i : i + 1])[0])
        torch.testing.assert_close(out[i], rest((1 + scale[i]) * hidden + shift[i]), rtol=1e-4, atol=1e-5)


def test_a_network_without_hidden_units_has_no_film(monkeypatch):
    bare = CLIPAdapter(AdapterConfig(hidden=4, bias=False), D)
    assert bare.film_units == 0
    with pytest.raises(ValueError, match="FiLM: network 'clip_adapter' with .*bias=False"):
        FilmModel(FilmConfig(), network=bare)
    with pytest.raises(ValueError, match="no hidden units"):
        bare.film(bare.init(rng()), torch.zeros(1, 4), torch.zeros(1, 4))


# -- the low-rank map ------------------------------------------------------------------------------------------------


def test_lowrank_is_a_linear_map_of_low_rank():
    network = LowRank(LowRankConfig(rank=3), D)
    w = weights(network, 1)
    parts = w[0].split([3 * D, D * 3, D])
    assert network.num_params == sum(map(len, parts)) == 7 * D
    A = parts[1].view(D, 3) @ parts[0].view(3, D) / (3 * D) ** 0.5
    images = normalize(torch.randn(9, D, generator=rng()), dim=-1)
    expected = normalize(images * D**0.5 @ (torch.eye(D) + A).T + parts[2], dim=-1)
    torch.testing.assert_close(network.forward(w, images[None])[0], expected)
    assert torch.linalg.matrix_rank(A) == 3


def test_a_fresh_lowrank_map_has_the_stated_scale():
    network = LowRank(LowRankConfig(rank=32, init_std=0.2), 64)
    V, U, b = network.init(rng()).split([32 * 64, 64 * 32, 64])
    assert V.std() == pytest.approx(1, rel=0.1) and U.std() == pytest.approx(0.2, rel=0.1) and (b == 0).all()
    with pytest.raises(ValueError, match="rank 0; allowed: 1 or more"):
        LowRankConfig(rank=0)


# -- registries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "registry, names",
    [
        (BASE_NETWORKS, {"clip_adapter", "lowrank"}),
        (WEIGHT_GENERATORS, {"hvae", "hnet"}),
        (MODULES, {"adapter", "hvae", "hnet", "cond_hypernet", "film", "hyperclip", "hyperldm"}),
    ],
)
def test_registries_know_their_classes_and_classes_their_names(registry, names):
    assert names <= set(registry.names()) and list(registry.names()) == sorted(registry.names())
    assert all(registry[name].name == name for name in names)
    assert "nope" not in registry and min(names) in registry
    with pytest.raises(ValueError, match=f"{registry.noun} 'nope'; allowed: {', '.join(registry.names())}"):
        registry["nope"]


def test_a_registry_finds_what_lies_in_its_package(tmp_path, monkeypatch):
    """Without anyone importing the module."""
    package = tmp_path / "some_zoo"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from core.registry import Registry\nZOO = Registry('animal', __name__)\n", encoding="utf-8"
    )
    (package / "cat.py").write_text(
        "from . import ZOO\n\n\n@ZOO.register('cat')\nclass Cat:\n    pass\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    zoo = importlib.import_module("some_zoo").ZOO
    assert zoo.names() == ("cat",) and zoo["cat"].name == "cat"
    with pytest.raises(ValueError, match="animal 'dog'; allowed: cat"):
        zoo["dog"]
    with pytest.raises(ValueError, match="animal 'cat': some_zoo.cat.Cat has that name already"):
        zoo.register("cat")(type("Lion", (), {}))
    assert importlib.reload(importlib.import_module("some_zoo.cat")).Cat is zoo["cat"]


def test_presets_hold_settings_of_every_network():
    for name in BASE_NETWORKS.names():
        config = get_preset("tiny").networks[name]
        assert isinstance(config, BASE_NETWORKS[name].Config)
        assert from_dict(type(config), dataclasses.asdict(config)) == config
