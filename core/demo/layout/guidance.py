"""The Guidance tab: one question while the strength of guidance rises."""

from __future__ import annotations

import gradio as gr

from .. import pages
from ..studio import Studio
from ..views.cards import empty
from .gpu import on_gpu
from .parts import DRAWN, MODELS, PRIVATE, Pictures, Question, seed_label, stops


def guidance_tab(studio: Studio, tab: gr.Tab, asked: Question) -> None:
    """Lay the tab out; it takes over the question that was `asked` on the Ask tab."""

    @on_gpu
    def guide(question, answers, source, count, own, seed):
        steps = pages.guide(studio, question, answers, source == DRAWN, int(count), pictures.paths(own), int(seed or 0))
        for curves, plane in steps:
            yield curves, gr.skip() if plane is None else plane

    gr.Markdown(
        "One question, one set of pictures, the same noise, and the strength of guidance from 0 (the question is not "
        "heard) over 1 (the conditional model) to 3 (exaggerated).",
        elem_classes="qa-lead",
    )
    with gr.Row(elem_classes="qa-grid"):
        with gr.Column(elem_classes="qa-words"):
            words = Question(studio, "guidance")
            words.follow(tab, asked)
            with gr.Row():
                button = gr.Button("Turn the strength up", variant="primary", elem_id=f"{studio.prefix}guide", scale=3)
                stop = gr.Button("Stop", scale=1, min_width=60)
        with gr.Column(elem_classes="qa-settings"):
            pictures = Pictures(studio, "guidance", count=32)
            seed = gr.Number(0, precision=0, minimum=0, label=seed_label(studio))
        with gr.Column(elem_classes=["qa-result", "qa-charts"]):
            curves = gr.HTML(
                empty("Accuracy and confidence over gamma will be here."), elem_id=f"{studio.prefix}curves"
            )
            plane = gr.HTML(empty("The way of the latent will be here."), elem_id=f"{studio.prefix}plane")
    running = button.click(
        guide,
        [words.question, words.answers, *pictures.inputs, seed],
        [curves, plane],
        show_progress="minimal",
        **PRIVATE,
        **MODELS,
    )
    stops(stop, running)
