"""The Guidance tab: one question while the strength of guidance rises."""

from __future__ import annotations

import gradio as gr

from .. import pages
from ..studio import Studio
from ..views.cards import empty
from .gpu import on_gpu
from .parts import DRAWN, MODELS, PRIVATE, Pictures, Question, paths_of, seed_box, stops


def guidance_tab(studio: Studio, tab: gr.Tab, asked: Question) -> None:
    """Lay the tab out; it takes over what was `asked` on the Ask tab: the question, and pictures where it has none."""

    @on_gpu
    def guide(question, answers, source, count, own, seed, asked_about, sample):
        paths = paths_of(own) or pictures.paths(asked_about, sample)
        steps = pages.guide(studio, question, answers, source == DRAWN, int(count), paths, seed)
        yield gr.skip(), waiting  # the plane of an earlier question goes
        for curves, plane in steps:
            yield curves, gr.skip() if plane is None else plane

    waiting = empty("The way of the latent will be here.")

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
            if not studio.world.drawn:
                gr.Markdown("Where you add none here, those of the Ask tab are taken.", elem_classes="qa-lead")
            seed = seed_box(studio)
        with gr.Column(elem_classes=["qa-result", "qa-charts"]):
            curves = gr.HTML(
                empty("Accuracy and confidence over gamma will be here."), elem_id=f"{studio.prefix}curves"
            )
            plane = gr.HTML(waiting, elem_id=f"{studio.prefix}plane")
    running = button.click(
        guide,
        [words.question, words.answers, *pictures.inputs, seed, asked.pictures, asked.sample],
        [curves, plane],
        show_progress="minimal",
        **PRIVATE,
        **MODELS,
    )
    stops(stop, running, progress=curves)
