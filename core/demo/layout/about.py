"""The About tab: the method, data, licences, limits, how programs ask."""

from __future__ import annotations

import gradio as gr

from ..studio import Studio
from ..views import about


def about_tab(studio: Studio, *, address: str) -> None:
    """Lay the tab out. Programs ask at `address`."""
    gr.HTML(about.picture())
    text = about.text(
        studio.world,
        encoder=studio.question_encoder,
        calibrated=studio.calibrated,
        least=studio.least_probability,
        judged=studio.judges_pictures,
    )
    gr.Markdown(text, elem_classes="qa-about")
    gr.Markdown("**For programs.** Every endpoint is listed under “Use via API” at the foot of the page.")
    snippet = about.snippet(address, studio.first_question)
    gr.Code(snippet, language="python", label="Python", interactive=False)
    gr.Code(about.citation(), language=None, label="How to cite (BibTeX)", interactive=False)
