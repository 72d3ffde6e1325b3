"""The tiny CLIP's image trunk, registered with timm under the name `emoji_cnn` so that open_clip can build it.

A small convolutional network whose last map is pooled to 2 x 2 cells and flattened instead of averaged away: place
and badge of each thing stay apart in the embedding.
"""

from __future__ import annotations

import torch
from timm.models import register_model
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = _conv(width, width)
        self.conv2 = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv2(self.conv1(x)))


class EmojiCNN(nn.Module):
    """Images (B, 3, H, W) to features (B, 4 * cell_width), one block of features per quadrant."""

    default_cfg = {"input_size": (3, 80, 80), "pool_size": None}

    def __init__(self, widths: tuple[int, int, int] = (24, 48, 96), cell_width: int = 256) -> None:
        super().__init__()
        first, second, third = widths
        self.stem = nn.Sequential(
            _conv(3, first, stride=2),  # (B, 24, 40, 40)
            _conv(first, second, stride=2),  # (B, 48, 20, 20)
            _conv(second, second),
            _conv(second, third, stride=2),  # (B, 96, 10, 10)
            _Residual(third),
            _conv(third, cell_width, kernel=1),
        )
        self.pool = nn.AdaptiveAvgPool2d(2)
        # What a cell shows is worked out per cell (thing with its badge) before places are mixed.
        self.cell = nn.Sequential(
            nn.Linear(cell_width, 2 * cell_width), nn.ReLU(inplace=True), nn.Linear(2 * cell_width, cell_width)
        )
        self.num_features = 4 * cell_width

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """timm's interface; this trunk has no classifier to reset."""

    def cells(self, x: Tensor) -> Tensor:
        """Features of the four quadrants, (B, 4, cell_width), in reading order."""
        x = self.pool(self.stem(x)).flatten(2).transpose(1, 2)  # (B, 4, cell_width)
        return x + self.cell(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.cells(x).flatten(1)  # (B, 4 * cell_width)


@register_model
def emoji_cnn(pretrained: bool = False, **kwargs: object) -> EmojiCNN:
    """The tiny CLIP's trunk. Its weights come with the CLIP checkpoint, so `pretrained` must be False."""
    if pretrained:
        raise ValueError("emoji_cnn has no pretrained weights of its own; load the CLIP directory instead")
    return EmojiCNN()
