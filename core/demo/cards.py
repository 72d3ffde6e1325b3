"""Answers as self-contained HTML: one card per picture, all methods below each other, and a tile per method."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image
from torch import Tensor

from .ask import LABELS, Comparison, Score, totals

CSS_CLASS = {"hyperldm": "c0", "hyperclip": "c1", "cond_multitask": "c2", "clip": "c3"}  # colours of the style sheet
_SHOWN_SIZE = 320  # pixels of a shown photograph


@dataclass(frozen=True)
class Row:
    """One method's line in every card: its probabilities (N, C) for all pictures."""

    label: str
    css: str
    probabilities: Tensor


def error_card(message: str) -> str:
    """A message that says what to mend, announced to screen readers."""
    word = message.split(" ")[0]
    if word.isalpha():  # and no file's name
        message = word.capitalize() + message[len(word) :]
    return f'<div class="qa-error" role="alert">{escape(message)}</div>'


def notice(message: str) -> str:
    """Something to know beside an answer."""
    return f'<div class="qa-notice" role="note">{escape(message)}</div>'


def comparison_cards(comparison: Comparison, score: Score | None = None) -> str:
    """The page's answer to a question: tiles with right answers here and over the visit, notices, cards."""
    labels = {method: LABELS[method] for method in comparison.probabilities}
    visit = totals(score or {})
    parts = ['<div class="qa-tiles" role="status">']
    for method, label in labels.items():
        known = [right for right in comparison.right(method) if right is not None]
        if known:
            big, small = f"{sum(known)}<small> of {len(known)} right</small>", ""
            if method in visit:
                right, asked = visit[method]
                small = f"this visit {right} of {asked}, {100 * right / asked:.0f}%"
        else:
            sure = float(comparison.probabilities[method].max(-1).values.mean())
            big, small = f"{100 * sure:.0f}%<small> sure</small>", "mean over the pictures"
        parts.append(
            f'<div class="qa-tile {CSS_CLASS[method]}"><div class="name"><i></i>{escape(label)}</div>'
            f'<div class="big">{big}</div><div class="small">{small}</div></div>'
        )
    parts.append("</div>")
    if comparison.strange_question:
        parts.append(notice(f"Take these answers with care: {comparison.strange_question}."))
    if any(comparison.strange_images):
        parts.append(notice("Pictures marked “unfamiliar” look unlike any that these models were trained on."))
    elif not any(truth is not None for truth in comparison.truths):
        parts.append('<p class="qa-hint">What is true of these pictures is not known, so nothing is marked.</p>')
    rows = [Row(label, CSS_CLASS[method], comparison.probabilities[method]) for method, label in labels.items()]
    parts.append(
        picture_cards(comparison.images, comparison.truths, comparison.answers, rows, comparison.strange_images)
    )
    parts.append(
        f'<p class="qa-hint">{len(labels)} adapters made in {1000 * comparison.seconds[0]:.0f} ms, '
        f"{len(comparison.images)} pictures classified by all of them in {1000 * comparison.seconds[1]:.0f} ms.</p>"
    )
    return "".join(parts)


def picture_cards(
    images: Sequence[Image.Image],
    truths: Sequence[str | None],
    answers: Sequence[str],
    rows: Sequence[Row],
    strange: Sequence[bool] = (),
) -> str:
    """A card per picture with the answer of every row; `strange` pictures are marked so."""
    parts = ['<div class="qa-cards">']
    for i, (image, truth) in enumerate(zip(images, truths, strict=True)):
        told = f"Picture {i + 1}" + ("" if truth is None else f", truth: {truth}")
        parts.append(
            f'<article class="qa-card" aria-label="{escape(told)}"><div class="qa-side">{_picture(image, told)}'
        )
        if truth is not None:
            aside = "" if truth in answers else ' <span class="aside">(not a candidate)</span>'
            parts.append(f'<div class="qa-truth">truth <b>{escape(truth)}</b>{aside}</div>')
        if strange and strange[i]:
            parts.append('<div class="qa-strange">unfamiliar</div>')
        parts.append('</div><div class="qa-body">')
        parts += [_row(row, i, answers, truth) for row in rows]
        parts.append(f"{_all_probabilities(rows, i, answers)}</div></article>")
    return "".join(parts) + "</div>"


def _row(row: Row, i: int, answers: Sequence[str], truth: str | None) -> str:
    best = int(row.probabilities[i].argmax())
    percent = 100 * float(row.probabilities[i, best])
    mark, sign = "", ""
    if truth is not None:
        mark, sign = ("right", "✓") if answers[best] == truth else ("wrong", "✗")
    told = f'<span class="sign" role="img" aria-label="{mark}">{sign}</span>' if mark else ""
    return (
        f'<div class="qa-row {row.css} {mark}"><span class="who">{escape(row.label)}</span>'
        f'<span class="bar" style="--p:{percent:.0f}%"><span class="answer">{told}{escape(answers[best])}</span>'
        f'<span class="pct">{percent:.0f}%</span></span></div>'
    )


def _all_probabilities(rows: Sequence[Row], i: int, answers: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(row.label)}</th>' for row in rows)
    body = "".join(
        f'<tr><th scope="row">{escape(answer)}</th>'
        + "".join(f"<td>{100 * float(row.probabilities[i, k]):.0f}%</td>" for row in rows)
        + "</tr>"
        for k, answer in enumerate(answers)
    )
    return (
        '<details><summary>all probabilities</summary><div class="qa-scroll"><table>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def _picture(image: Image.Image, told: str) -> str:
    """Drawn scenes as they are, larger pictures as small JPEGs."""
    small = image.width <= 160
    shown = image if small else image.convert("RGB")
    if not small:
        shown.thumbnail((_SHOWN_SIZE, _SHOWN_SIZE))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG" if small else "JPEG", **({"compress_level": 1} if small else {}))
    data, kind = base64.b64encode(buffer.getvalue()).decode(), "png" if small else "jpeg"
    return f'<img class="{"drawn" if small else "photo"}" alt="{escape(told)}" src="data:image/{kind};base64,{data}">'
