"""The rules of the GPU that `tests.fake_cuda` imitates: each once, on what fails, and on what works."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.networks.adapter import AdapterConfig, CLIPAdapter
from core.networks.ema import EMA
from core.release.state import load_state, save_state
from tests.fake_cuda import CudaTensor, fake_cuda
from train.pipeline.environment import usable_device
from train.pipeline.optim import adam


@pytest.fixture(autouse=True)
def gpu():
    with fake_cuda():
        yield


def on_gpu(*shape: int, **options):
    return torch.randn(*shape, device="cuda", **options)


def here(*shape: int):
    return torch.randn(*shape)


@pytest.mark.parametrize(
    "function",
    [
        lambda: on_gpu(3) + here(3),
        lambda: here(3) * on_gpu(1),
        lambda: on_gpu(3).add_(here(3)),
        lambda: here(()).add_(on_gpu(())),  # the CPU's takes no result
        lambda: on_gpu(2, 3) @ here(3, 4),
        lambda: torch.cat([on_gpu(2), here(2)]),
        lambda: torch.stack([on_gpu(()), here(())]),
        lambda: torch.where(here(3) > 0, on_gpu(3), 0.0),
        lambda: on_gpu(3).masked_fill(here(3) > 0, 0.0),
        lambda: on_gpu(3, 4).gather(1, torch.zeros(3, 1, dtype=torch.long)),
        lambda: here(5)[torch.zeros(2, dtype=torch.long, device="cuda")],
        lambda: here(5)[on_gpu(5) > 0],
        lambda: on_gpu(5).index_copy(0, torch.tensor([1]), on_gpu(1)),
        lambda: on_gpu(5).__setitem__(torch.tensor([0, 1]), here(2)),
        lambda: here(5).__setitem__(torch.tensor([0, 1]), on_gpu(2)),
        lambda: F.cross_entropy(on_gpu(3, 4), torch.zeros(3, dtype=torch.long)),
        lambda: F.linear(on_gpu(2, 3), here(4, 3)),
        lambda: torch.linalg.solve(on_gpu(3, 3), here(3, 3)),
        lambda: nn.Linear(3, 4)(on_gpu(2, 3)),
        lambda: nn.Linear(3, 4).to("cuda")(here(2, 3)),
    ],
)
def test_devices_do_not_mix(function):
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        function()


@pytest.mark.parametrize(
    "function",
    [
        lambda g: torch.rand(3, generator=g, device="cuda"),
        lambda g: on_gpu(3).normal_(generator=g),
        lambda g: torch.randperm(3, generator=g, device="cuda"),
        lambda g: torch.multinomial(torch.ones(3, device="cuda"), 1, generator=g),
    ],
)
def test_a_cpu_generator_does_not_draw_on_the_gpu(function):
    with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator"):
        function(torch.Generator())


def test_numpy_cannot_read_it():
    for read in (lambda x: x.numpy(), np.asarray, np.array):
        with pytest.raises(TypeError, match=re.escape("can't convert cuda:0")):
            read(on_gpu(3))
    assert on_gpu(3).cpu().numpy().shape == (3,)


def test_other_gpus_are_not_there():
    assert usable_device("cuda:0").type == "cuda" and torch.cuda.device_count() == 1
    for missing in (lambda: torch.zeros(1, device="cuda:1"), lambda: here(1).to("cuda:1")):
        with pytest.raises(RuntimeError, match="invalid device ordinal"):
            missing()
    with pytest.raises(ValueError, match="--device 'cuda:1' is not usable here"):
        usable_device("cuda:1")


def test_broken_code_is_caught():
    """Code of this project as it must not be: a generator's noise on the model's device, a table left behind."""
    network = CLIPAdapter(AdapterConfig(hidden=2), dim=4)

    def noisy(w, images):
        return network.forward(w + torch.randn(w.shape, generator=torch.Generator(), device=w.device), images)

    w, images = on_gpu(2, network.num_params), on_gpu(2, 3, 4)
    assert network.forward(w, images).is_cuda
    for broken in (lambda: noisy(w, images), lambda: network.forward(w, images.cpu())):
        with pytest.raises(RuntimeError):
            broken()


@pytest.mark.parametrize(
    "function",
    [
        lambda: on_gpu(3) * torch.tensor(2.0),  # numbers
        lambda: torch.where(on_gpu(3) > 0, on_gpu(3), torch.tensor(0.0)),
        lambda: on_gpu(3).clamp(min=float(here(()))),
        lambda: on_gpu(5)[torch.tensor([0, 1])],  # indices from the CPU
        lambda: on_gpu(5, requires_grad=True)[here(5) > 0],
        lambda: on_gpu(2, 5)[:, [0, 1]],
        lambda: torch.tensor([1, 2], device="cuda"),  # data
        lambda: torch.as_tensor(here(3), device="cuda"),
        lambda: torch.tensor([on_gpu(()), on_gpu(())], device="cuda"),
        lambda: on_gpu(2).new_tensor([1.0, 2.0]),
        lambda: here(3).cuda(),
        lambda: here(3).to(on_gpu(1)),
        lambda: on_gpu(3).new_zeros(4) + torch.zeros_like(on_gpu(4)),
        lambda: torch.zeros(4, 4, device="cuda:0").fill_diagonal_(1.0),
        lambda: F.one_hot(torch.tensor([0, 2], device="cuda"), 3),
        lambda: torch.svd_lowrank(on_gpu(6, 5), q=2)[0],
        lambda: torch.rand_like(on_gpu(3)),
    ],
)
def test_what_a_gpu_does(function):
    assert isinstance(function(), CudaTensor) and function().device == torch.device("cuda:0")


def test_values_come_back():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device="cuda")
    assert x.tolist() == [[1, 2], [3, 4]] and x.sum().item() == 10 and float(x[1, 1]) == 4 and bool((x > 0).all())
    assert type(x.cpu()) is torch.Tensor and x.cpu().device.type == "cpu" and x.to("cpu").equal(x.cpu())
    assert x.to("cuda") is x and x.float() is x and x.half().device == x.device
    x[:, 0] = torch.zeros(2)  # copied
    x[0].add_(5.0)  # a view
    assert x.tolist() == [[5, 7], [0, 4]]
    kept = here(2)
    kept.copy_(x[0])
    assert type(kept) is torch.Tensor and kept.tolist() == [5, 7]
    assert torch.zeros(2).to("cuda").cpu().tolist() == [0, 0] and x.mT.tolist() == [[5, 0], [7, 4]]


def test_gradients_of_first_and_second_order_are_those_of_the_cpu():
    def gradients(x):
        (first,) = torch.autograd.grad((x.exp() * x[:, :1]).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        return first.detach(), second

    x = here(3, 4)
    for own, plain in zip(gradients(x.to("cuda").requires_grad_()), gradients(x.clone().requires_grad_()), strict=True):
        assert own.is_cuda and own.cpu().equal(plain)
    source = here(3).requires_grad_()  # through the way between devices
    source.to("cuda").square().sum().cpu().backward()
    torch.testing.assert_close(source.grad, 2 * source.detach())


def test_training_goes_as_on_the_cpu_and_is_saved_and_resumed(tmp_path):
    """Modules, fused Adam, EMA, clipping, dropout, inference mode, states on disk."""

    def begun(device):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.LayerNorm(8), nn.Linear(8, 2)).to(device)
        return model, adam(model.parameters(), 0.1, 0.01), EMA(model, 0.9)

    def go_on(model, optimizer, ema, device, seed):
        torch.manual_seed(seed)
        x = torch.randn(16, 4).to(device)
        loss = F.cross_entropy(model(x), (x[:, 0] > 0).long())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        ema.update(model)

    ends = {}
    for device in ("cpu", "cuda"):
        model, optimizer, ema = begun(device)
        go_on(model, optimizer, ema, device, 1)
        assert optimizer.param_groups[0]["fused"] and copy.deepcopy(model)[0].weight.requires_grad
        parts = {"model": model, "optimizer": optimizer, "ema": ema}
        save_state(tmp_path / "state.pt", {name: part.state_dict() for name, part in parts.items()})
        model, optimizer, ema = begun(device)
        saved = load_state(tmp_path / "state.pt", device)
        for name, part in {"model": model, "optimizer": optimizer, "ema": ema}.items():
            part.load_state_dict(saved[name])
        go_on(model, optimizer, ema, device, 2)
        assert {p.device.type for p in (*model.parameters(), *ema.model.parameters())} == {device}
        assert {s["exp_avg"].device.type for s in optimizer.state.values()} == {device}
        with torch.inference_mode():
            answer = ema.model(torch.ones(1, 4).to(device)).cpu()
        ends[device] = [answer, *(parameter.detach().cpu() for parameter in model.parameters())]
    for own, plain in zip(ends["cuda"], ends["cpu"], strict=True):
        torch.testing.assert_close(own, plain, rtol=1e-5, atol=1e-6)


def test_inference_mode_is_seen():
    with torch.inference_mode():
        made = on_gpu(2, 3) @ on_gpu(3, 2)
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        made * on_gpu(2, 2).requires_grad_()
