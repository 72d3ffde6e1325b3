"""Test questions in other words: by the kinds that training uses, and by those that are kept for the test."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.data.phrasings import Phrasings
from train.pipeline.asked import RULES
from train.pipeline.environment import ROOT

KEPT = ROOT / "eval" / "phrasings.toml"
AS_THEY_ARE = "as it is"
FILES = {"training": RULES, "kept": KEPT}  # by group
LABELS = {AS_THEY_ARE: "as they are", "training": "kinds that training uses", "kept": "kinds kept for the test"}


@dataclass(frozen=True)
class Form:
    """Questions in one kind of other words: which of them it changes, and what these become."""

    group: str
    kind: str
    rows: tuple[int, ...]
    questions: tuple[str, ...]


def forms(questions: Sequence[str], draw: int = 0) -> list[Form]:
    """The questions as they are, then in one form of every kind of each file that changes one of them."""
    result = [Form(AS_THEY_ARE, AS_THEY_ARE, tuple(range(len(questions))), tuple(questions))]
    for group, path in FILES.items():
        rules = Phrasings.read(path)
        for kind in rules.kinds:
            rng = random.Random(f"{draw}/{group}/{kind}")
            put = [(i, rules.put(question, kind, rng)) for i, question in enumerate(questions)]
            changed = [(i, text) for i, text in put if text is not None]
            if changed:
                result.append(Form(group, kind, *zip(*changed, strict=True)))
    return result
