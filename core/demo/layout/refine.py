"""The Refine tab: a generated adapter learns from labelled examples."""

from __future__ import annotations

import gradio as gr

from .. import examples, pages
from ..refine import KS
from ..studio import Studio
from ..views.cards import empty
from .gpu import on_gpu
from .parts import DRAWN, MODELS, OWN, PRIVATE, Question, download_of, paths_of, seed_box, stops, upload, warn


def refine_tab(studio: Studio, tab: gr.Tab, asked: Question) -> None:
    """Lay the tab out; it takes over the question that was `asked` on the Ask tab."""

    @on_gpu
    def refine(question, answers, source, most, labelled, seed, own):
        drawn, pending = source == DRAWN, len(own or [])
        steps = pages.refine(studio, question, answers, drawn, int(most), labelled, seed, pending)
        yield gr.skip(), "", download_of(None)  # what is there of an earlier question goes
        for curve, cards, file in steps:
            yield curve, gr.skip() if cards is None else cards, gr.skip() if file is None else download_of(file)

    def label(own, answer, labelled, answers):
        try:
            labelled = examples.add(labelled, paths_of(own), answer, answers)
        except ValueError as error:
            warn(str(error))
            return labelled, labelled, own
        return labelled, labelled, None

    gr.Markdown(
        "With a few labelled examples the generated adapter is refined by gradient descent on its latent. Watch it "
        "against weights that start from the MNet-MAML initialisation and know only the examples.",
        elem_classes="qa-lead",
    )
    drawn = studio.world.drawn
    with gr.Row(elem_classes="qa-grid"):
        with gr.Column(elem_classes="qa-words"):
            words = Question(studio, "refine")
            words.follow(tab, asked)
            most = gr.Slider(
                0, KS[-1], KS[-1], step=1, label="Labelled examples, at most", elem_id=f"{studio.prefix}examples-count"
            )
            with gr.Row():
                button = gr.Button("Refine", variant="primary", elem_id=f"{studio.prefix}refine", scale=3)
                stop = gr.Button("Stop", scale=1, min_width=60)
        with gr.Column(elem_classes="qa-settings"):
            source = gr.Radio([DRAWN, OWN], value=DRAWN if drawn else OWN, label="Examples", visible=drawn)
            with gr.Group(visible=not drawn) as own_group:
                own = upload("Pictures with one right answer", elem_id=f"{studio.prefix}refine-pictures")
                answer = gr.Textbox(label="Their right answer", elem_id=f"{studio.prefix}refine-answer")
                with gr.Row():
                    add = gr.Button("Add as examples", size="sm", scale=2)
                    clear = gr.Button("Remove all", size="sm", elem_id=f"{studio.prefix}refine-clear", min_width=90)
                gallery = gr.Gallery(
                    label="Labelled examples", interactive=False, columns=4, height=180, elem_classes="qa-examples"
                )
            seed = seed_box(studio, " and order")
            download = gr.DownloadButton("Download the refined adapter", interactive=False, size="md")
        with gr.Column(elem_classes="qa-result"):
            curve = gr.HTML(
                empty("Accuracy over the number of examples will be here."), elem_id=f"{studio.prefix}curve"
            )
            cards = gr.HTML(elem_id=f"{studio.prefix}refined")
    labelled = gr.State([])
    source.change(lambda source: gr.update(visible=source == OWN), source, own_group, **PRIVATE)
    add.click(label, [own, answer, labelled, words.answers], [labelled, gallery, own], **PRIVATE)
    clear.click(lambda: ([], []), None, [labelled, gallery], **PRIVATE)
    running = button.click(
        refine,
        [words.question, words.answers, source, most, labelled, seed, own],
        [curve, cards, download],
        show_progress="minimal",
        **PRIVATE,
        **MODELS,
    )
    stops(stop, running, progress=curve)
