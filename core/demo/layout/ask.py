"""The Ask tab: a question, pictures, several methods side by side."""

from __future__ import annotations

import gradio as gr

from ...methods import MAX_SAMPLES
from .. import pages
from ..ask import GENERATORS_BY_LABEL
from ..link import MAX_GAMMA, WRITE_JS
from ..studio import Studio
from ..views.cards import empty
from .gpu import on_gpu
from .parts import DRAWN, MODELS, PRIVATE, Pictures, Question, download_of, paths_of, stops, warn


def ask_tab(demo: gr.Blocks, studio: Studio) -> Question:
    """Lay the tab out; returns its question, which other tabs take over."""
    families = list(studio.examples)

    @on_gpu
    def ask(question, answers, source, count, own, methods, label, gamma, steps, samples, seed, score):
        html, score, file = pages.ask(
            studio,
            question,
            answers,
            source == DRAWN,
            int(count),
            paths_of(own),
            methods,
            GENERATORS_BY_LABEL[label],
            float(gamma),
            int(steps),
            int(samples),
            int(seed or 0),
            score,
        )
        return html, score, download_of(file)

    def restore(request: gr.Request):
        """The state that the page's address asks for."""
        shared, complaints = pages.restore(studio, dict(request.query_params))
        for complaint in complaints:
            warn(complaint)
        return shared.question, shared.answers, shared.question, list(shared.methods), shared.gamma, shared.seed

    with gr.Row(elem_classes="qa-grid"):
        with gr.Column(elem_classes="qa-words"):
            words = Question(studio, "ask")
            with gr.Row():
                button = gr.Button("Generate", variant="primary", elem_id="ask", scale=3, min_width=90)
                again = gr.Button("New scenes", visible=studio.world.drawn, scale=3, min_width=90)
                stop = gr.Button("Stop", scale=1, min_width=60)
        with gr.Column(elem_classes="qa-settings"):
            pictures = Pictures(studio, "ask", count=6)
            chosen = gr.CheckboxGroup(
                [(label, method) for method, label in studio.methods.items()],
                value=list(studio.methods),
                label="Methods side by side",
            )
            gamma = gr.Slider(
                0,
                MAX_GAMMA,
                studio.gamma,
                step=0.05,
                label="Guidance strength gamma",
                info="0 ignores the question, 1 is the conditional model, more exaggerates it",
            )
            with gr.Accordion("More", open=False):
                labels = list(studio.generators or GENERATORS_BY_LABEL)
                decoder = gr.Radio(labels, value=labels[0], label="Decoder of HyperLDM and HyperCLIP")
                steps = gr.Slider(1, 100, studio.choice.get("steps", 50), step=1, label="Sampling steps")
                samples = gr.Slider(1, MAX_SAMPLES, studio.choice.get("samples", 1), step=1, label="Samples to average")
                seed = gr.Number(0, precision=0, minimum=0, label="Seed of scenes and noise")
                reset = gr.Button("Start the score anew", size="sm")
            download = gr.DownloadButton("Download the adapter", interactive=False, size="md")
        with gr.Column(elem_classes="qa-result"):
            result = gr.HTML(empty("The answers will be here."), elem_id="result", min_height=200)
            family = gr.Dropdown(families, value=families[0] if families else None, label="Examples by family")
            examples = gr.Dataset(
                components=[gr.Textbox(visible=False)],
                samples=[[question] for question in studio.examples[families[0]]] if families else [],
                show_label=False,
                elem_id="examples",
            )

    score = gr.State({})
    inputs = [words.question, words.answers, *pictures.inputs, chosen, decoder, gamma, steps, samples, seed, score]
    outputs = [result, score, download]
    writing = {
        "fn": None,
        "inputs": [words.question, words.answers, chosen, gamma, seed],
        "js": WRITE_JS,
        **PRIVATE,
    }
    asking = {"fn": ask, "inputs": inputs, "outputs": outputs, **MODELS}
    clicked = button.click(**words.filling).then(**asking, api_name="ask", api_visibility="undocumented")
    clicked.then(**writing)
    submitted = words.question.submit(**words.filling).then(**asking, **PRIVATE)
    submitted.then(**writing)
    renewed = again.click(lambda seed: int(seed or 0) + 1, seed, seed, **PRIVATE).then(**asking, **PRIVATE)
    renewed.then(**writing)
    picked = examples.click(lambda sample: sample[0], examples, words.question, **PRIVATE)
    picked = picked.then(**words.filling).then(**asking, **PRIVATE)
    picked.then(**writing)
    stops(stop, clicked, submitted, renewed, picked)
    family.change(
        lambda family: gr.Dataset(samples=[[question] for question in studio.examples[family]]),
        family,
        examples,
        **PRIVATE,
    )
    reset.click(lambda: {}, None, score, **PRIVATE)
    restored = [words.question, words.answers, words.filled_for, chosen, gamma, seed]
    demo.load(restore, None, restored, **PRIVATE).then(**asking, **PRIVATE)
    return words
