"""The moving average of a model's weights, which is what is evaluated and shipped."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA:
    """Exponential moving average of a module's parameters. `shipped` is what to evaluate and to ship: the average, or
    for a decay of 0 the module itself, at no cost."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"EMA decay {decay}; allowed: 0 <= decay < 1")
        self.decay, self.updates = decay, 0
        self.model = copy.deepcopy(module).eval().requires_grad_(False) if decay else module

    def shipped(self) -> nn.Module:
        """The model that training made."""
        return self.model.eval().requires_grad_(False)

    def state_dict(self) -> dict:
        if not self.decay:
            return {}
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        if self.decay:
            self.model.load_state_dict(state["model"])
            self.updates = state["updates"]

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        if not self.decay:
            return
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))  # a short run is not ruled by its start
        source = module.state_dict()
        target = self.model.state_dict()
        assert source.keys() == target.keys(), "EMA: the module's parameters changed"
        for name, value in target.items():
            value.lerp_(source[name], 1 - decay) if value.is_floating_point() else value.copy_(source[name])
