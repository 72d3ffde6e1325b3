"""Few-shot adaptation (Table 4): gradient descent on support sets, of whatever a row adapts."""

from __future__ import annotations

from torch import Tensor, no_grad

from ..data.tasks import TaskBatch
from ..networks.base import BaseNetwork
from ..networks.weight_generator import WeightGenerator
from ..networks.weight_model import SharedWeights, WeightModel
from .inner_loop import adapt
from .weights import adapt_weights, loss_on


def adapt_model(network: BaseNetwork, model: WeightModel, support: TaskBatch, *, steps: int, lr: float) -> Tensor:
    """What a row adapts (Table 2), (T, K), after support sets: weights, a latent, or a whitened question."""
    if isinstance(model, SharedWeights):
        return adapt_weights(network, model.w.detach(), support, steps=steps, lr=lr)
    with no_grad():
        start = model.initial(support.question)
    return adapt(start, loss_on(network, support, model.decode), steps=steps, lr=lr)


def few_shot_weights(network: BaseNetwork, model: WeightModel, support: TaskBatch, *, steps: int, lr: float) -> Tensor:
    """Weights w (T, P) of a row after adapting it to support sets."""
    with no_grad():
        return model.decode(adapt_model(network, model, support, steps=steps, lr=lr))


def few_shot_from_latents(
    network: BaseNetwork, generator: WeightGenerator, z: Tensor, support: TaskBatch, *, steps: int, lr: float
) -> Tensor:
    """Weights w (T, P) after adapting latents z (T, Z) to support sets, through a generator's decoder."""
    adapted = adapt(z, loss_on(network, support, generator.decode), steps=steps, lr=lr)
    with no_grad():
        return generator.decode(adapted)
