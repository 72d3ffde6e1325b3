"""What settings may be, by their names, which mean the same wherever they stand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_COUNTS = (
    *("batch", "behaviour_examples", "behaviour_tasks", "draws", "examples", "few_shot_steps", "hidden", "image_batch"),
    *("image_steps", "latent", "num_timesteps", "rank", "samples", "squeeze", "steps", "tasks", "text_batch"),
    *("text_heads", "text_layers", "text_steps", "text_width", "time_dim"),
)
_POSITIVE = (
    *("clip", "few_shot_lrs", "gradient_scales", "image_lr", "inner_lr", "logit_scale", "lr", "ridges", "shrinkage"),
    *("text_lr", "whitening", "widths"),
)
_NOT_NEGATIVE = (
    *("behaviour_weight", "cond_noise", "init_std", "kl_weight", "lam", "max_inner_steps", "reconstruction_weight"),
    "weight_decay",
)
_SHARES = ("decoded_share", "other_words")
_BELOW_ONE = ("drop_condition", "dropout", "ema")

Bound = tuple[Callable[[float], bool], str]
_BOUNDS: dict[str, Bound] = {
    **dict.fromkeys(_COUNTS, (lambda x: x >= 1, "1 or more")),
    **dict.fromkeys(_POSITIVE, (lambda x: 0 < x < math.inf, "above 0 and finite")),
    **dict.fromkeys(_NOT_NEGATIVE, (lambda x: 0 <= x < math.inf, "0 or more")),
    **dict.fromkeys(_SHARES, (lambda x: 0 <= x <= 1, "0 to 1")),
    **dict.fromkeys(_BELOW_ONE, (lambda x: 0 <= x < 1, "0 to below 1")),
    "support_fraction": (lambda x: 0 < x < 1, "between 0 and 1"),
}


def check_bounds(config: Any) -> None:
    """Whether all numbers of a configuration are such as training can use; before hours of it, not after them.

    Raises:
        ValueError: one is not; the message names it and what is allowed.
    """
    for path, value in _settings(config, ()):
        fits, allowed = _BOUNDS.get(path[-1], (None, ""))
        if fits is None or value is None:
            continue
        several = isinstance(value, tuple)
        if several and not value:
            raise ValueError(f"{'.'.join(path)} is empty; allowed: one number or several, {allowed}")
        if not all(fits(one) for one in (value if several else (value,))):
            raise ValueError(f"{'.'.join(path)} {list(value) if several else value}; allowed: {allowed}")


def _settings(config: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every number and tuple of a configuration, with its path."""
    if dataclasses.is_dataclass(config):
        config = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from _settings(value, (*path, name))
    elif isinstance(config, (int, float, tuple)) and not isinstance(config, bool):
        yield path, config
