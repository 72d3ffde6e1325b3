"""The About tab: the method, data, licences, limits, how programs ask."""

from __future__ import annotations

import os

import gradio as gr

from ..studio import Studio
from ..views import about
from .parts import PRIVATE


def about_tab(demo: gr.Blocks, studio: Studio) -> None:
    """Lay the tab out. Programs ask at the Space, or at the address that the browser has the page from."""
    gr.HTML(about.picture(studio.world.drawn))
    text = about.text(
        studio.world,
        encoder=studio.question_encoder,
        calibrated=studio.calibrated,
        least=studio.least_probability,
        judged=studio.judges_pictures,
        trunk=studio.trunk,
    )
    gr.Markdown(text, elem_classes="qa-about")
    gr.Markdown(
        "**For programs.** `client.view_api()` lists every endpoint with its arguments; so does “Use via API” at the "
        "foot of the page, where the window is wide enough to show it."
    )
    space = os.environ.get("SPACE_ID")
    snippet = about.snippet(space or about.PLACEHOLDER, studio.first_question, studio.key)
    name = f"{studio.prefix}snippet"
    code = gr.Code(snippet, language="python", label="Python", interactive=False, elem_id=name)
    if space is None:
        demo.load(None, code, code, js=about.ADDRESS_JS, **PRIVATE)
    gr.Code(about.citation(), language=None, label="How to cite (BibTeX)", interactive=False)
