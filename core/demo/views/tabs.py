"""What the Guidance, Refine and Compare tabs and task inference show, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from ...generator import Adapter
from ..ask import LABELS
from ..guidance import GAMMAS, PATHS, Guided, LatentPlane
from ..refine import DRAWS, KS, ROWS, KShot
from .cards import Row, picture_cards
from .charts import Line, bars, heatmap, line_chart, path_chart
from .templates import render

_SHOWN = 6  # pictures judged before and after refinement
INFERENCE = (
    "HyperCLIP embeds weights beside questions, so it can say which question an adapter answers without running it on "
    "a single picture. It reads generated adapters best; for fine-tuned ones it finds the kind of question more often "
    "than the very one."
)


def header() -> Markup:
    """The head of the page."""
    return render("header.html")


def progress(done: int, total: int, what: str) -> Markup:
    """A progress bar that leaves what is already there in sight; nothing once all is done."""
    return render("progress.html", done=done, total=total, what=what)


def guidance_curves(seen: Sequence[Guided], chosen: float) -> Markup:
    """Accuracy, where it is known, and confidence over gamma; the dotted line is the strength that validation tasks
    chose."""
    gammas = [guided.gamma for guided in seen]
    lines = [Line("confidence", gammas, [100 * guided.confidence for guided in seen], "c1")]
    known = bool(seen) and seen[0].accuracy is not None
    if known:
        lines.insert(0, Line("accuracy", gammas, [100 * guided.accuracy for guided in seen], "c0"))
    chart = line_chart(
        lines,
        x_label="strength of guidance gamma",
        y_label="accuracy, mean confidence" if known else "mean confidence",
        x_ticks=(0, 0.5, 1, 1.5, 2, 2.5, 3),
        title="What it does to the answers",
        mark=chosen,
        mark_label=f"gamma of this release, {chosen:g}",
    )
    return chart + progress(len(seen), len(GAMMAS), f"gamma {GAMMAS[min(len(seen), len(GAMMAS) - 1)]:g}")


def guidance_plane(plane: LatentPlane, seen: Sequence[Guided]) -> Markup:
    """The way of z_t through the plane of the training latents."""
    by_gamma = {guided.gamma: guided for guided in seen}
    classes = ("c3", "c1", "c2", "c0")
    paths = [(f"gamma {gamma:g}", css, by_gamma[gamma].path) for gamma, css in zip(PATHS, classes, strict=True)]
    ends = torch.stack([guided.end for guided in seen])
    chart = path_chart(plane.points, paths, ends, "The way of the latent z_t")
    return render("guidance_plane.html", chart=chart, share=plane.share)


def refine_curve(points: Sequence[KShot], total: int, held_out: str) -> Markup:
    """Accuracy on held-out pictures over the number of examples, with the range over orders."""
    ks = [point.k for point in points]
    lines = []
    for row, css in zip(ROWS, ("c0", "c4"), strict=True):
        if row in points[0].accuracy:
            mean, low, high = ([100 * point.accuracy[row][part] for point in points] for part in range(3))
            lines.append(Line(ROWS[row], ks, mean, css, low, high))
    last = max([k for k in KS if k <= total] + [total, 1])
    ticks = [k for k in (0, 1, 2, 5, 10, 20, 30, 40, 50) if k <= last and (last <= 10 or k not in (1, 2, 5))]
    ticks = [*ticks, last] if ticks[-1] != last else ticks
    chart = line_chart(
        lines, x_label="labelled examples", y_label="accuracy", x_ticks=ticks, title="Accuracy on pictures held out"
    )
    adapting = progress(ks[-1], total, f"adapting on more examples, {ks[-1]} so far")
    return render("refine_curve.html", chart=chart, progress=adapting, draws=DRAWS, held_out=held_out)


def refine_cards(
    images: Sequence[Image.Image],
    truths: Sequence[str | None],
    answers: Sequence[str],
    adapters: dict[str, Adapter],
    x: Tensor,
) -> Markup:
    """Held-out pictures, with embeddings x (N, D), as adapters judge them; those on which they disagree come first."""
    texts = next(iter(adapters.values())).backbone.encode_texts(answers)
    rows = []
    for css, (label, adapter) in zip(("c3", "c0", "c4"), adapters.items(), strict=True):
        with torch.inference_mode():
            rows.append(Row(label, css, adapter.probabilities_of(x, texts)))
    best = torch.stack([row.probabilities.argmax(-1) for row in rows])  # (3, N)
    order = (best == best[0]).all(0).int().argsort(stable=True)[:_SHOWN].tolist()
    rows = [Row(row.label, row.css, row.probabilities[order]) for row in rows]
    images, truths = [images[i] for i in order], [truths[i] for i in order]
    return render("refined.html", cards=picture_cards(images, truths, answers, rows))


def similarity_maps(questions: Sequence[str], adapters: Tensor, embeddings: Tensor) -> Markup:
    """Two heatmaps beside each other."""
    maps = [
        heatmap("Adapters: what the weights do", questions, adapters),
        heatmap("Embeddings: how the questions read", questions, embeddings),
    ]
    return render("similarity.html", maps=maps)


def inference(adapter: Adapter, found: Sequence[dict[str, Any]], known: int) -> Markup:
    """The ranked questions of an adapter, among so many `known` ones, beside what its file says of itself."""
    method = str(adapter.provenance.get("method", "an unknown method"))
    return render(
        "inference.html",
        known=known,
        ranked=bars([(item["question"], ", ".join(item["answers"][:6]), item["probability"]) for item in found]),
        question=adapter.provenance.get("question"),
        how="fine-tuning on examples" if method.startswith("few_shot_") else LABELS.get(method, method),
    )
