"""The pages of the Guidance, Refine and Compare tabs and of task inference, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..generator import Adapter, AdapterGenerator
from .ask import LABELS
from .cards import Row, picture_cards
from .charts import Line, bars, heatmap, line_chart, path_chart
from .guidance import GAMMAS, PATHS, Guided, LatentPlane
from .refine import DRAWS, KS, ROWS, KShot

HEADER = (Path(__file__).parent / "header.html").read_text()
_SHOWN = 6  # pictures judged before and after refinement
EMPTY = '<div class="qa-empty">{}</div>'


def working(done: int, total: int, what: str) -> str:
    """A progress bar that leaves what is already there in sight."""
    if done >= total:
        return ""
    return (
        f'<p class="qa-hint" role="status"><progress value="{done}" max="{total}" aria-label="{escape(what)}">'
        f"</progress> {escape(what)}</p>"
    )


def guidance_curves(seen: Sequence[Guided], chosen: float) -> str:
    """Accuracy and confidence over gamma; the dotted line is the strength that validation tasks chose."""
    gammas = [guided.gamma for guided in seen]
    lines = [Line("confidence", gammas, [100 * guided.confidence for guided in seen], "c1")]
    if seen and seen[0].accuracy is not None:
        lines.insert(0, Line("accuracy", gammas, [100 * guided.accuracy for guided in seen], "c0"))
    chart = line_chart(
        lines,
        x_label="strength of guidance gamma",
        y_label="of the pictures",
        x_ticks=(0, 0.5, 1, 1.5, 2, 2.5, 3),
        title="What it does to the answers",
        mark=chosen,
    )
    return chart + working(len(seen), len(GAMMAS), f"gamma {GAMMAS[min(len(seen), len(GAMMAS) - 1)]:g}")


def guidance_plane(plane: LatentPlane, seen: Sequence[Guided]) -> str:
    """The way of z_t through the plane of the training latents."""
    by_gamma = {guided.gamma: guided for guided in seen}
    classes = ("c3", "c1", "c2", "c0")
    paths = [(f"gamma {gamma:g}", css, by_gamma[gamma].path) for gamma, css in zip(PATHS, classes, strict=True)]
    ends = torch.stack([guided.end for guided in seen])
    return path_chart(plane.points, paths, ends, "The way of the latent z_t") + (
        f'<p class="qa-hint">From the same noise (open circle) to a latent. The plane holds {100 * plane.share:.0f}% '
        "of the variance of the training latents; the dotted trail joins the means of all samples from gamma 0 to 3, "
        "which become the adapters.</p>"
    )


def refine_curve(points: Sequence[KShot], total: int, held_out: str) -> str:
    """Accuracy on held-out pictures over the number of examples, with the range over orders."""
    rows = [row for row in ROWS if row in points[0].accuracy]
    ks = [point.k for point in points]
    lines = [
        Line(
            ROWS[row],
            ks,
            [100 * point.accuracy[row][0] for point in points],
            "c0" if row == "hvae_hyperldm" else "c4",
            [100 * point.accuracy[row][1] for point in points],
            [100 * point.accuracy[row][2] for point in points],
        )
        for row in rows
    ]
    last = max([k for k in KS if k <= total] + [total, 1])
    ticks = [k for k in (0, 1, 2, 5, 10, 20, 30, 40, 50) if k <= last and (last <= 10 or k not in (1, 2, 5))]
    ticks = [*ticks, last] if ticks[-1] != last else ticks
    chart = line_chart(
        lines, x_label="labelled examples", y_label="accuracy", x_ticks=ticks, title="Accuracy on pictures held out"
    )
    done = bool(points) and points[-1].k >= total
    return (
        chart
        + (
            ""
            if done
            else working(ks[-1] if ks else 0, total, f"adapting on more examples, {ks[-1] if ks else 0} so far")
        )
        + f'<p class="qa-hint">Mean and range over {DRAWS} orders of the examples, on {escape(held_out)}.</p>'
    )


def refine_cards(
    images: Sequence[Image.Image],
    truths: Sequence[str | None],
    answers: Sequence[str],
    adapters: dict[str, Adapter],
    x: Tensor,
) -> str:
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
    told = '<p class="qa-hint">Some of the pictures held out, those first on which the adapters disagree:</p>'
    return told + picture_cards(images, truths, answers, rows)


def similarity_maps(questions: Sequence[str], adapters: Tensor, embeddings: Tensor) -> str:
    """Two heatmaps beside each other."""
    return (
        '<div class="qa-charts">'
        f'<div class="qa-chart">{heatmap("Adapters: what the weights do", questions, adapters)}</div>'
        f'<div class="qa-chart">{heatmap("Embeddings: how the questions read", questions, embeddings)}</div></div>'
        '<p class="qa-hint">Cosine similarity around the mean over known questions; 1 is the same direction.</p>'
    )


INFERENCE = (
    "HyperCLIP embeds weights beside questions, so it can say which question an adapter answers without running it on "
    "a single picture. It reads generated adapters best; for fine-tuned ones it finds the kind of question more often "
    "than the very one."
)


def inference(adapter: Adapter, found: Sequence[dict[str, Any]], generator: AdapterGenerator) -> str:
    """The ranked questions of an adapter, beside what its file says of itself."""
    own = adapter.provenance.get("question")
    method = str(adapter.provenance.get("method", "an unknown method"))
    how = "fine-tuning on examples" if method.startswith("few_shot_") else LABELS.get(method, method)
    made = f"made for “{own}” by {how}" if own else "made for no question"
    ranked = bars([(item["question"], ", ".join(item["answers"][:6]), item["probability"]) for item in found])
    return (
        f'<p class="qa-hint">Among {len(generator.known_questions)} known questions, by the weights alone:</p>{ranked}'
        f'<p class="qa-hint">For comparison, the file itself says that it was {escape(made)}.</p>'
    )
