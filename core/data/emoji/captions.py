"""Captions of scenes as found on the web: loose bags of facts that do not say what belongs to what.

Real text towers treat a sentence much like a bag of words, and real image embeddings hold more than text can ask of
them. A text tower trained on exact statements would answer every question by itself and leave adapters nothing to do.
"""

from __future__ import annotations

import random
import re

from .questions import FAMILIES
from .world import COLOURS, COUNTS, OBJECTS, SHAPES, SIZES, Scene

_STRAY = (*OBJECTS, *COLOURS, *SHAPES, *SIZES, *COUNTS, "left", "right", "top", "bottom")
_QUESTIONS = tuple(question.text for family in FAMILIES.values() for question in family.questions)


def loose_caption(scene: Scene, rng: random.Random) -> str:
    """Some of the scene's facts in any order, with stray words of questions; names are mentioned more often than
    looks, numbers and sizes seldom, and one word in eight is about something else, as on the web."""
    facts: list[str] = []
    for thing in scene.things:
        if rng.random() < 0.7:
            facts.append(thing.name if rng.random() < 0.75 else thing.category)
        if thing.shape is not None:
            if rng.random() < 0.2:
                facts.append(thing.shape)
            if rng.random() < 0.3:
                facts.append(thing.colour)
        if rng.random() < 0.06:
            facts.append(thing.size)
        if rng.random() < 0.15:
            facts.append(thing.place)
    if rng.random() < 0.5:
        facts.append(scene.background + rng.choice(("", " background", " wall")))
    if scene.frame is not None and rng.random() < 0.4:
        facts.append(scene.frame + rng.choice(("", " frame")))
    if rng.random() < 0.06:
        facts.append(COUNTS[len(scene.things) - 1])
    words = [rng.choice(_STRAY) if rng.random() < 0.125 else word for word in " ".join(facts).split()]
    words += rng.sample(re.findall(r"[a-z]+", rng.choice(_QUESTIONS).lower()), 3)
    rng.shuffle(words)
    return " ".join(words[:24])
