"""The Compare tab: how alike the adapters of several questions are."""

from __future__ import annotations

import gradio as gr

from .. import pages
from ..studio import Studio
from ..views.cards import empty
from .gpu import on_gpu
from .parts import MODELS, PRIVATE


def compare_tab(studio: Studio) -> None:
    """Lay the tab out."""
    compare = on_gpu(lambda text, seed: pages.compare(studio, text, seed))
    gr.Markdown(
        "Questions that read alike may need very different adapters, and questions that read differently the same one.",
        elem_classes="qa-lead",
    )
    text = gr.Textbox(
        "\n".join(studio.alike), label="Questions, one a line (2 to 12)", lines=7, elem_id=f"{studio.prefix}questions"
    )
    with gr.Row():
        button = gr.Button("Compare", variant="primary", elem_id=f"{studio.prefix}compare", scale=3)
        seed = gr.Number(0, step=1, label="Seed", scale=1, min_width=120)
    result = gr.HTML(empty("Two maps of similarities will be here."), elem_id=f"{studio.prefix}compared")
    button.click(compare, [text, seed], result, **PRIVATE, **MODELS)
