"""The Ask tab: a question, pictures, several methods side by side."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from ...methods import MAX_SAMPLES
from .. import pages
from ..ask import GENERATORS_BY_LABEL
from ..link import MAX_GAMMA, MAX_STEPS, read_world, write_js
from ..studio import Studio
from ..views.cards import empty
from .gpu import on_gpu
from .parts import DRAWN, MODELS, PRIVATE, Pictures, Question, Samples, download_of, seed_box, stops, warn


def ask_tab(demo: gr.Blocks, studio: Studio, keys: Sequence[str] = ("",), switch: gr.Radio | None = None) -> Question:
    """Lay the tab out; returns its question, which other tabs take over with its pictures.

    Args:
        keys: of all worlds of the page, in their order.
        switch: what chooses among several worlds. One that is not shown at first waits with its first answer until it
            is.
    """
    families, default = list(studio.examples), pages.default_state(studio)
    labels = list(studio.generators or GENERATORS_BY_LABEL)
    label_of = {GENERATORS_BY_LABEL[label]: label for label in labels}

    @on_gpu
    def ask(question, answers, source, count, own, methods, label, gamma, steps, samples, seed, score, sample):
        html, score, file, link = pages.ask(
            studio,
            question,
            answers,
            source == DRAWN,
            int(count),
            pictures.paths(own, sample),
            methods,
            GENERATORS_BY_LABEL.get(label, studio.name),
            float(gamma),
            int(steps),
            int(samples),
            seed,
            score,
        )
        return html, score, download_of(file), gr.skip() if link is None else link

    def restore(request: gr.Request):
        """The state that the page's address asks for, and whether this world waits, since another is shown."""
        query = dict(request.query_params)
        waits = read_world(query, keys)[0] != studio.key
        shared, complaints = pages.restore(studio, {} if waits else query)
        for complaint in complaints:
            warn(complaint)
        state = (shared.question, shared.answers, shared.question, list(shared.methods), shared.gamma, shared.seed)
        return *state, label_of.get(shared.decoder, labels[0]), shared.steps, shared.samples, waits

    with gr.Row(elem_classes="qa-grid"):
        with gr.Column(elem_classes="qa-words"):
            if not studio.world.drawn:  # people come with a picture
                pictures = Pictures(studio, "ask", count=6)
            tried = Samples(studio)
            words = Question(studio, "ask")
            with gr.Row():
                button = gr.Button("Generate", variant="primary", elem_id=f"{studio.prefix}ask", scale=3, min_width=90)
                again = gr.Button("New scenes", visible=studio.world.drawn, scale=3, min_width=90)
                stop = gr.Button("Stop", scale=1, min_width=60)
        with gr.Column(elem_classes="qa-settings"):
            if studio.world.drawn:
                pictures = Pictures(studio, "ask", count=6)
            chosen = gr.CheckboxGroup(
                [(label, method) for method, label in studio.methods.items()],
                value=list(studio.methods),
                label="Methods side by side",
            )
            gamma = gr.Slider(
                0,
                max(MAX_GAMMA, studio.gamma),
                studio.gamma,
                step=0.05,
                label="Guidance strength gamma",
                info="0 ignores the question, 1 is the conditional model, more exaggerates it",
            )
            with gr.Accordion("More", open=False):
                decoder = gr.Radio(labels, value=labels[0], label="Decoder of HyperLDM and HyperCLIP")
                most = max(MAX_STEPS, default.steps)
                steps = gr.Slider(1, most, default.steps, step=1, label="Sampling steps")
                samples = gr.Slider(1, MAX_SAMPLES, default.samples, step=1, label="Samples to average")
                seed = seed_box(studio)
                reset = gr.Button("Start the score anew", size="sm", visible=studio.world.drawn)
            download = gr.DownloadButton("Download the adapter", interactive=False, size="md")
        with gr.Column(elem_classes="qa-result"):
            result = gr.HTML(empty("The answers will be here."), elem_id=f"{studio.prefix}result", min_height=200)
            family = gr.Dropdown(families, value=families[0] if families else None, label="Examples by family")
            examples = gr.Dataset(
                components=[gr.Textbox(visible=False)],
                samples=[[question] for question in studio.examples[families[0]]] if families else [],
                show_label=False,
                elem_id=f"{studio.prefix}examples",
            )

    words.pictures, words.sample = pictures.own, tried.number
    tried.give_way(pictures.own)
    score, waiting = gr.State({}), gr.State(False)
    link = gr.Textbox(visible=False)  # of the latest answer
    settings = [chosen, decoder, gamma, steps, samples, seed]
    inputs = [words.question, words.answers, *pictures.inputs, *settings, score, tried.number]
    outputs = [result, score, download, link]
    answered = [link] if switch is None else [link, switch]
    writing = {"fn": None, "inputs": answered, "js": write_js(studio.key), **PRIVATE}
    asking = {"fn": ask, "inputs": inputs, "outputs": outputs, **MODELS}
    api_name = "ask" if studio.key == keys[0] else f"ask_{studio.key}"
    clicked = button.click(**words.filling).then(**asking, api_name=api_name, api_visibility="undocumented")
    clicked.then(**writing)
    submitted = words.question.submit(**words.filling).then(**asking, **PRIVATE)
    submitted.then(**writing)
    listed = words.answers.submit(**asking, **PRIVATE)
    listed.then(**writing)
    renewed = again.click(pages.next_seed, seed, seed, **PRIVATE).then(**asking, **PRIVATE)
    renewed.then(**writing)
    picked = examples.click(lambda sample: words.take(sample[0]), examples, words.taken, **PRIVATE)
    picked = picked.then(**asking, **PRIVATE)
    picked.then(**writing)
    tried_one = tried.picked(pictures.own, words).then(**asking, **PRIVATE)
    tried_one.then(**writing)
    stops(stop, clicked, submitted, listed, renewed, picked, tried_one)
    pictures.source.change(
        lambda source: gr.update(visible=source == DRAWN), pictures.source, again, show_progress="hidden", **PRIVATE
    )
    family.change(
        lambda family: gr.Dataset(samples=[[question] for question in studio.examples[family]]),
        family,
        examples,
        **PRIVATE,
    )
    reset.click(lambda: {}, None, score, **PRIVATE)

    def begin(wanted: bool, *inputs):
        """The first answer, if it is wanted now; the world waits for it no longer."""
        return (*ask(*inputs), False) if wanted else (gr.skip(),) * 5

    restored = [*words.taken, chosen, gamma, seed, decoder, steps, samples, waiting]
    beginning = {"outputs": [*outputs, waiting], **PRIVATE, **MODELS}
    remembering = {**writing, "js": write_js(studio.key, opened=True)}
    opened = lambda waiting, *inputs: begin(not waiting, *inputs)
    demo.load(restore, None, restored, **PRIVATE).then(opened, [waiting, *inputs], **beginning).then(**remembering)
    if switch is not None:
        switched = lambda waiting, shown, *inputs: begin(waiting and shown == studio.key, *inputs)
        switch.input(switched, [waiting, switch, *inputs], **beginning).then(**writing)
    return words
