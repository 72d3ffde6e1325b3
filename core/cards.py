"""Results as self-contained HTML: one card per image, the generated adapter's answer beside plain CLIP's."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image
from torch import Tensor

CSS = """
.qa-cards {display:grid; grid-template-columns:repeat(auto-fill,minmax(270px,1fr)); gap:14px;}
.qa-card {border:1px solid var(--border-color-primary); border-radius:14px; padding:12px; display:flex; flex-direction:column;
  gap:8px; background:var(--background-fill-secondary); color:var(--body-text-color);}
.qa-card img {width:100%; aspect-ratio:1; object-fit:contain; border-radius:10px; image-rendering:pixelated; background:#8881;}
.qa-card img.photo {image-rendering:auto;}
.qa-truth {font-size:.85em; opacity:.75;}
.qa-side {display:grid; grid-template-columns:1fr 1fr; gap:10px;}
.qa-side h4 {margin:0 0 4px 0; font-size:.72em; letter-spacing:.05em; text-transform:uppercase; opacity:.7; font-weight:600;}
.qa-answer {font-weight:700; margin-bottom:4px; overflow-wrap:anywhere;}
.qa-right {color:#15803d;} .qa-wrong {color:#c2410c;}
.dark .qa-right {color:#4ade80;} .dark .qa-wrong {color:#fb923c;}
.qa-bar {position:relative; height:17px; margin:2px 0; border-radius:5px; overflow:hidden; background:#8882; font-size:.72em; line-height:17px;}
.qa-bar i {position:absolute; inset:0 auto 0 0; background:#6366f1aa;} .qa-bar.clip i {background:#94a3b8aa;}
.qa-bar span {position:relative; padding:0 6px; display:flex; justify-content:space-between; white-space:nowrap; gap:6px;}
.qa-bar span b {font-weight:500; overflow:hidden; text-overflow:ellipsis;}
.qa-summary {display:flex; flex-wrap:wrap; gap:8px 22px; align-items:baseline; padding:12px 16px; margin-bottom:14px; border-radius:14px;
  background:var(--background-fill-secondary); border:1px solid var(--border-color-primary); color:var(--body-text-color);}
.qa-summary .big {font-size:1.35em; font-weight:700;}
.qa-error {padding:14px 18px; border-radius:14px; border:1px solid #f59e0b; background:#f59e0b22; color:var(--body-text-color); font-weight:500;}
"""


def error_card(message: str) -> str:
    """A message that says what to mend, announced to screen readers."""
    return f'<div class="qa-error" role="alert">{html.escape(message[:1].upper() + message[1:])}</div>'


def result_cards(
    images: Sequence[Image.Image],
    truths: Sequence[str | None],
    answers: Sequence[str],
    adapted: Tensor,
    plain: Tensor,
    method: str,
    seconds: tuple[float, float],
) -> str:
    """Cards for images with probabilities `adapted` and `plain` (N, C); `truths` may be None where unknown.

    `seconds` are the times to generate the adapter and to classify.
    """
    known = [i for i, truth in enumerate(truths) if truth is not None]
    parts = ['<div class="qa-summary" role="status">']
    if known:
        for name, table in ((method, adapted), ("plain CLIP", plain)):
            right = sum(answers[int(table[i].argmax())] == truths[i] for i in known)
            parts.append(f'<span><span class="big">{right} of {len(known)}</span> right by {html.escape(name)}</span>')
    parts.append(
        f"<span>adapter generated in {1000 * seconds[0]:.0f} ms, {len(images)} images classified twice in "
        f"{1000 * seconds[1]:.0f} ms</span></div><div class='qa-cards'>"
    )
    for i, image in enumerate(images):
        label = f"Image {i + 1}" if truths[i] is None else f"Image {i + 1}, truth: {truths[i]}"
        parts.append(f'<div class="qa-card">{_picture(image, label)}')
        if truths[i] is not None:
            aside = "" if truths[i] in answers else " (not among the answers)"
            parts.append(f'<div class="qa-truth">truth: <b>{html.escape(truths[i])}</b>{aside}</div>')
        parts.append('<div class="qa-side">')
        for name, css, table in ((method, "", adapted), ("plain CLIP", "clip", plain)):
            parts.append(_column(name, css, table[i], answers, truths[i]))
        parts.append("</div></div>")
    return "".join(parts) + "</div>"


def _column(name: str, css: str, probabilities: Tensor, answers: Sequence[str], truth: str | None) -> str:
    order = probabilities.argsort(descending=True).tolist()
    best = answers[order[0]]
    mark = "" if truth is None else ("qa-right" if best == truth else "qa-wrong")
    sign = {"qa-right": "✓ ", "qa-wrong": "✗ "}.get(mark, "")
    bars = "".join(
        f'<div class="qa-bar {css}"><i style="width:{100 * float(probabilities[k]):.1f}%"></i>'
        f"<span><b>{html.escape(answers[k])}</b>{100 * float(probabilities[k]):.0f}%</span></div>"
        for k in order[:4]
    )
    return f'<div><h4>{html.escape(name)}</h4><div class="qa-answer {mark}">{sign}{html.escape(best)}</div>{bars}</div>'


def _picture(image: Image.Image, label: str) -> str:
    small = image.width <= 160
    shown = image if small else image.copy()
    if not small:
        shown.thumbnail((480, 480))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG" if small else "JPEG")
    data = base64.b64encode(buffer.getvalue()).decode()
    kind = "png" if small else "jpeg"
    return f'<img class="{"" if small else "photo"}" alt="{html.escape(label)}" src="data:image/{kind};base64,{data}">'
