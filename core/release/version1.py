"""Releases and adapters of format 1, as they were before base networks had names: read as format 2."""

from __future__ import annotations

from typing import Any

_SCALE = 100.0  # that all of them were trained with


def _settings(value: Any) -> dict[str, Any]:
    """A copy of what should be settings by name; anyone may have made the file."""
    if not isinstance(value, dict):
        raise ValueError(f"settings {value!r}: expected a mapping")
    return dict(value)


def _network(adapter: Any) -> dict[str, Any]:
    """The description of a base network from the settings of format 1's adapter."""
    config = _settings(adapter)
    return {"name": "clip_adapter", "dim": config.pop("dim", None), "config": config, "scale": _SCALE}


def upgraded_header(header: dict[str, Any]) -> dict[str, Any]:
    """The header of a checkpoint of format 1 as format 2 has it; a ValueError for settings that are none."""
    kind, old = header["kind"], header["config"]
    if kind == "adapter":
        return header | {"config": {"config": None, "sizes": {"network": _network(old)}}}
    config, sizes = _settings(old.get("config", {})), {}
    if "adapter" in old:
        sizes["network"] = _network(old["adapter"])
    if kind == "hypernet":
        inputs, unconditional = config.pop("input_dim", None), config.pop("learn_z0", False)
        kind = "hnet" if unconditional else "cond_hypernet"
        config = {"latent": inputs, "hidden": config.get("hidden")} if unconditional else config
    elif kind == "film":
        config.pop("input_dim", None)
    elif kind == "hyperldm":
        sizes = {"latent": config.pop("latent", None), "dim": config.pop("cond_dim", None)}
    else:
        sizes = {name: old[name] for name in ("num_params", "dim") if name in old}
    return header | {"kind": kind, "config": {"config": config, "sizes": sizes}}


def upgraded_config(config: dict[str, Any]) -> dict[str, Any]:
    """A release's config.json of format 1 as format 2 has it; a ValueError for settings that are none."""
    questions = {"encoder": "clip", "pooling": config.get("question_pooling", "eos")}
    return config | {"format_version": 2, "network": _network(config["adapter"]), "question_encoder": questions}


RENAMED = {"hvae_hyperclip": "hyperclip_hvae", "hnet_hyperclip": "hyperclip_hnet"}  # files: the name now, the name then
