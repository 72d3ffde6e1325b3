"""Several processes on one run, through Hugging Face Accelerate: `accelerate launch train/run_all.py ...`.

Every process draws the same batch of tasks from the same generator, works on its share and averages gradients with the
others, so that all hold the same weights at every step. Only the main one writes. Without a launcher there is one
process, and nothing of this costs anything.
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from torch import nn


class Processes:
    """This process among `count`; `rank` 0 is the main one."""

    def __init__(self, device: torch.device | None = None) -> None:
        """Join the processes that a launcher started, if any, on this kind of device."""
        self._accelerator = None
        self.rank, self.count, self.device = 0, 1, device or torch.device("cpu")
        if device is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import Accelerator, InitProcessGroupKwargs  # seconds to import

            waiting = InitProcessGroupKwargs(timeout=timedelta(days=1))  # while the main process works alone
            self._accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[waiting])
            self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes
            self.device = self._accelerator.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """This process's part of a batch; a ValueError if it cannot be parted evenly."""
        if batch % self.count:
            raise ValueError(f"a batch of {batch} cannot be shared evenly by {self.count} processes; change either")
        size = batch // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def average(self, module: nn.Module) -> None:
        """Replace gradients by their mean over processes: that of the whole batch, if losses are means."""
        if self._accelerator is not None:
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.grad = self._accelerator.reduce(parameter.grad, "mean")

    def mean(self, value: torch.Tensor) -> float:
        """The mean of a number over processes."""
        value = value.detach()
        return float(value if self._accelerator is None else self._accelerator.reduce(value, "mean"))

    def wait(self) -> None:
        """Until all processes are here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Part from the others at the end."""
        if self._accelerator is not None:
            self._accelerator.end_training()
