"""The tab "What is this adapter for?": task inference for an adapter's file."""

from __future__ import annotations

import gradio as gr

from .. import pages
from ..studio import Studio
from ..views.cards import empty
from ..views.tabs import INFERENCE
from .gpu import on_gpu
from .parts import MODELS, PRIVATE

_EXAMPLES = 40  # known questions to try


def identify_tab(studio: Studio) -> None:
    """Lay the tab out."""
    identify = on_gpu(lambda path: pages.identify(studio, path))
    example = on_gpu(lambda question: pages.example_adapter(studio, question))
    gr.Markdown(INFERENCE, elem_classes="qa-lead")
    with gr.Row(elem_classes="qa-grid"):
        with gr.Column(elem_classes="qa-words"):
            file = gr.File(
                label="Adapter file (.safetensors)",
                file_count="single",
                type="filepath",
                elem_id=f"{studio.prefix}adapter-file",
                height=140,
            )
            button = gr.Button("What is it for?", variant="primary", elem_id=f"{studio.prefix}identify")
            made = gr.Button(
                f"Try an adapter {'fine-tuned' if studio.world.drawn else 'generated'} for a known question",
                size="sm",
                elem_id=f"{studio.prefix}identify-example",
            )
            known = gr.Dropdown(
                [question["question"] for question in studio.generator.known_questions[:_EXAMPLES]],
                label="Known question",
            )
        with gr.Column(elem_classes="qa-result"):
            result = gr.HTML(empty("The most likely questions will be here."), elem_id=f"{studio.prefix}identified")
    button.click(identify, file, result, **PRIVATE, **MODELS)
    made.click(example, known, file, **PRIVATE, **MODELS).then(identify, file, result, **PRIVATE, **MODELS)
