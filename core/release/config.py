"""What a release's config.json may hold, field by field: anyone may have made it."""

from __future__ import annotations

from typing import Any

from ..diffusion.samplers import SAMPLERS
from ..methods import MAX_GAMMA, MAX_SAMPLES, MAX_SEED, MAX_STEPS, SEARCHES
from ..networks.base import open_network
from .fields import Check, listed, mapping, nullable, number, one_of, record, refuse, text, whole, yes

_PARAMETERS = 2**34  # of a base network
_LAYERS = 64  # of a sentence encoder

_CHOICE: dict[str, Check] = {  # for a row: it has some of these
    "gamma": number(0, MAX_GAMMA),
    "gradient_scale": number(0, 1e6),
    "samples": whole(1, MAX_SAMPLES),
    "steps": whole(1, 1_000_000),
    "start": number(-1e3, 1e3),
    "lr": number(above=0, most=1e6),
    "lam": number(0, 1e6),
    "optimizer": one_of(("adam", "sgd")),
    "row": text(),
    "val_accuracy": number(0, 1),
}
_RUN: dict[str, Check] = {
    "data": nullable(text()),
    "steps_share": number(above=0),
    "set": listed(text()),
    "start": nullable(text()),
}


def check_config(config: Any) -> None:
    """A ValueError that names the first field of a config.json of this format that holds what it must not, and what is
    allowed. Fields that this project does not know may hold anything."""
    _CHECK(config, "")


def _choice(value: Any, name: str) -> None:
    """What validation tasks chose for a row, by the row's name."""
    searched = name.endswith(SEARCHES) and "few_shot" not in name
    steps = {"steps": whole(1, MAX_STEPS)} if searched else {}
    record({}, _CHOICE | {"sampler": one_of(SAMPLERS)} | steps)(value, name)


def _encoder(value: Any, name: str) -> None:
    """The spec of a question encoder (`core.backbones.questions`)."""
    more = {"model": text(), "sha256": text(64, 64), "answers": yes}
    record({"encoder": one_of(("sentence", "clip"))}, more)(value, name)
    if value["encoder"] == "clip":
        record({"pooling": one_of(("eos", "mean"))})(value, name)
        return
    record({"layers": listed(whole(0, _LAYERS), least=1)})(value, name)
    if len(set(value["layers"])) < len(value["layers"]):
        raise refuse(value["layers"], f"{name}.layers", "different layers")


def _network(value: Any, name: str) -> None:
    """The description of a base network."""
    try:
        size = open_network(value).num_params
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if size > _PARAMETERS:
        raise ValueError(f"{name}: a network of {size:.1e} weights; allowed: up to {_PARAMETERS:.1e}")


_CHECK = record(
    {
        "format_version": whole(1, 2**31),
        "backbone": text(),
        "network": _network,
        "preset": text(),
        "seed": whole(0, MAX_SEED),
        "question_encoder": _encoder,
    },
    {
        "library": text(),
        "dataset": text(),
        "descriptors": number(above=0, most=1),
        "run": nullable(record({"preset": text()}, _RUN)),
        "choices": mapping(_choice),
        "scales": mapping(number(above=0, most=1e6)),
        "thresholds": mapping(number(-1, 1)),
        "questions": listed(
            record({"question": text(), "answers": listed(text(), least=1)}, {"family": text(least=0)})
        ),
    },
)
