"""Answers as self-contained HTML: one card per picture, all methods below each other, and a tile per method."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from PIL import Image
from torch import Tensor

from ..ask import LABELS, Comparison, Score, totals
from ..sensitive import subject
from .templates import render, tenths

_COLOURS = 4  # of the style sheet; plain CLIP's is the grey one
CSS_CLASS = {method: f"c{i % _COLOURS}" for i, method in enumerate(LABELS)}
_SHOWN_SIZE = 320  # pixels of a shown photograph


@dataclass(frozen=True)
class Row:
    """One method's line in every card: its probabilities (N, C) for all pictures, and where it claims no answer, since
    none is as probable as `least`."""

    label: str
    css: str
    probabilities: Tensor
    unclaimed: Sequence[bool] = ()
    least: float | None = None


def empty(text: str) -> Markup:
    """What stands where an answer will be."""
    return render("empty.html", text=text)


def error_card(message: str) -> Markup:
    """A message that says what to mend, announced to screen readers."""
    word = message.split(" ")[0]
    if word.isalpha():  # and no file's name
        message = word.capitalize() + message[len(word) :]
    return render("error.html", message=message)


def notices(texts: Sequence[str]) -> Markup:
    """Messages that stand beside an answer."""
    return render("notices.html", texts=texts)


def sensitive_note(question: str) -> Markup:
    """A notice where a question asks about a person what a picture cannot tell; nothing where it does not."""
    return render("sensitive.html", sensitive=subject(question))


def comparison_cards(comparison: Comparison, score: Score | None = None) -> Markup:
    """The page's answer to a question: tiles with right answers here and over the visit, notices, cards."""
    visit = totals(score or {})
    rows = []
    for method, probabilities in comparison.probabilities.items():
        least = None if method == "clip" else comparison.least  # plain CLIP's answers are not judged
        rows.append(Row(LABELS[method], CSS_CLASS[method], probabilities, comparison.unclaimed(method), least))
    return render(
        "comparison.html",
        tiles=[_tile(comparison, method, visit.get(method)) for method in comparison.probabilities],
        strange_question=comparison.strange_question,
        sensitive=comparison.sensitive,
        unclaimed=[(row.label, sum(row.unclaimed)) for row in rows if any(row.unclaimed)],
        unjudged=LABELS["clip"] if "clip" in comparison.probabilities else None,
        least=comparison.least,
        strange_pictures=any(comparison.strange_images),
        not_understood=comparison.drawn and not any(truth is not None for truth in comparison.truths),
        cards=picture_cards(comparison.images, comparison.truths, comparison.answers, rows, comparison.strange_images),
        adapters=sum(method != "clip" for method in comparison.probabilities),
        methods=len(rows),
        pictures=len(comparison.images),
        seconds=comparison.seconds,
    )


def _tile(comparison: Comparison, method: str, visit: tuple[int, int] | None) -> dict[str, Any]:
    """Right answers of a method, here and over the visit; where no truth is known, how sure it is."""
    known = [right for right in comparison.right(method) if right is not None]
    return {
        "label": LABELS[method],
        "css": CSS_CLASS[method],
        "known": len(known),
        "right": sum(known),
        "visit": visit,
        "sure": float(comparison.probabilities[method].max(-1).values.mean()),
    }


def picture_cards(
    images: Sequence[Image.Image],
    truths: Sequence[str | None],
    answers: Sequence[str],
    rows: Sequence[Row],
    strange: Sequence[bool] = (),
) -> Markup:
    """A card per picture with the answer of every row; `strange` pictures are marked so."""
    cards = [
        {
            "told": f"Picture {i + 1}" + ("" if truth is None else f", truth: {truth}"),
            "picture": _picture(image),
            "truth": truth,
            "candidate": truth in answers,
            "strange": bool(strange) and strange[i],
            "judgements": [_judgement(row, i, answers, truth) for row in rows],
            "table": list(
                zip(answers, zip(*(row.probabilities[i].tolist() for row in rows), strict=True), strict=True)
            ),
        }
        for i, (image, truth) in enumerate(zip(images, truths, strict=True))
    ]
    return render("cards.html", cards=cards, rows=rows)


def _judgement(row: Row, i: int, answers: Sequence[str], truth: str | None) -> dict[str, Any]:
    """A row's most probable answer for picture i, and whether it is the true one."""
    best = int(row.probabilities[i].argmax())
    probability, claimed = float(row.probabilities[i, best]), not (row.unclaimed and row.unclaimed[i])
    return {
        "label": row.label,
        "css": row.css,
        "answer": answers[best],
        "probability": probability,
        "shown": _percent(probability, row.least, claimed),
        "claimed": claimed,
        "mark": "" if truth not in answers else "right" if answers[best] == truth else "wrong",
    }


def _percent(probability: float, least: float | None, claimed: bool) -> str:
    """A probability in percent, with one more digit where a whole number would be on the other side of `least`."""
    if least is None or (round(100 * probability) >= 100 * least) == claimed:
        return f"{100 * probability:.0f}%"
    return tenths(probability, math.ceil if claimed else math.floor)


def _picture(image: Image.Image) -> dict[str, str]:
    """Drawn scenes as they are, larger pictures as small JPEGs: the class of the style sheet, and the data as a URL."""
    small = image.width <= 160
    shown = image if small else image.convert("RGB")
    if not small:
        shown.thumbnail((_SHOWN_SIZE, _SHOWN_SIZE))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG" if small else "JPEG", **({"compress_level": 1} if small else {}))
    data, kind = base64.b64encode(buffer.getvalue()).decode(), "png" if small else "jpeg"
    return {"css": "drawn" if small else "photo", "url": f"data:image/{kind};base64,{data}"}
