"""Settings of the tiny CLIP of drawn scenes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TinyCLIPConfig:
    """How the tiny CLIP is built and trained (`train/backbone.py`)."""

    dim: int = 256  # D
    text_width: int = 64  # CLIP's vocabulary of 49,408 at width 64 takes 6.3 of the 10 MiB that a file may have
    text_heads: int = 4
    text_layers: int = 2
    context: int = 40
    image_steps: int = 9000
    image_batch: int = 256
    image_lr: float = 2e-3
    text_steps: int = 700
    text_batch: int = 512
    text_lr: float = 1e-3
    caption_scenes: int = 30_000

    def model_config(self, image_size: int) -> dict[str, object]:
        """open_clip's description of the model."""
        return {
            "embed_dim": self.dim,
            "vision_cfg": {
                "timm_model_name": "emoji_cnn",
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "mlp",
                "image_size": image_size,
            },
            "text_cfg": {
                "context_length": self.context,
                "vocab_size": 49408,
                "width": self.text_width,
                "heads": self.text_heads,
                "layers": self.text_layers,
            },
        }
