"""Token states of open_clip's text towers.

There are three: CLIP's, whose parts are the model's own; `TextTransformer` in `model.text` (CustomTextCLIP, CoCa); and
`HFTextEncoder` there, an encoder of the transformers library.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn


def token_states(model: nn.Module, tokens: Tensor) -> Tensor:
    """States (B, L, width) of tokens (B, L) after the last layer and its norm; CoCa's class token is none of them."""
    tower = _tower(model)
    if isinstance(tower, HFTextEncoder):
        attended = (tokens != tower.config.pad_token_id).long()  # as in its own `forward`
        return tower.transformer(input_ids=tokens, attention_mask=attended).last_hidden_state
    out = model.forward_intermediates(
        text=tokens, text_indices=1, normalize_intermediates=True, intermediates_only=True
    )
    return out["text_intermediates"][-1]


def project(model: nn.Module, pooled: Tensor) -> Tensor:
    """Pooled states (B, width) through the tower's own projection to (B, D): none, a matrix or a module."""
    tower = _tower(model)
    projection = tower.proj if isinstance(tower, HFTextEncoder) else tower.text_projection
    if projection is None:
        return pooled
    return projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection


def token_mask(tokenizer: Any, tokens: Tensor) -> Tensor:
    """Which of tokens (B, L) are no padding, (B, L) bool.

    CLIP's tokenizer pads with 0, which is also its "!": what follows the end of the text is padding there. Others have
    a number for it; some (SigLIP's) end texts with the same number. Of a text without any token, the first position
    counts.
    """
    if hasattr(tokenizer, "eot_token_id"):
        end = (tokens == tokenizer.eot_token_id).int().argmax(-1)  # the first
        return torch.arange(tokens.shape[1]) <= end[:, None]
    mask = tokens != tokenizer.tokenizer.pad_token_id
    mask[:, 0] |= ~mask.any(1)
    return mask


def _tower(model: nn.Module) -> nn.Module:
    return getattr(model, "text", model)
