"""The page: a world of tabs for each release. Layout and event wiring only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..door.temporary import temporary_folder
from .gpu import on_gpu  # before PyTorch
from .quick import quick_import

# isort: split
# Before Gradio is imported, which else shares a folder with all users of the machine; PyTorch leaves one behind.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(temporary_folder() / "torch"))
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")  # that Gradio remembers to tell how long one takes
with quick_import():
    import gradio as gr

    from ..door.page import PROTECTION, Page

from ...release.default import shipped_releases
from ..api import endpoints
from ..link import WORLD_JS, read_world
from ..studio import Studio
from ..views.tabs import header
from ..views.templates import STYLE
from ..world import PHOTOS
from .about import about_tab
from .ask import ask_tab
from .compare import compare_tab
from .guidance import guidance_tab
from .identify import identify_tab
from .parts import MODELS, PRIVATE, warn
from .refine import refine_tab
from .results import results_tab

THEME = gr.themes.Default(
    primary_hue="indigo",
    secondary_hue="indigo",
    neutral_hue="slate",
    radius_size="lg",
    font=["Inter", "ui-sans-serif", "system-ui", "sans-serif"],
    font_mono=["ui-monospace", "Menlo", "monospace"],
).set(
    body_text_color_subdued="*neutral_500",  # readable: 4.7 to 1 on white, where the default has 2.6
    block_info_text_color="*neutral_500",
    block_label_text_color="*neutral_600",
    block_title_text_color="*neutral_700",
    button_large_text_size="*text_md",
    button_large_padding="10px 14px",
)
LAUNCH = {
    "theme": THEME,
    "css_paths": STYLE,
    "allowed_paths": [str(PHOTOS)],
    **PROTECTION,
}


def world_tabs(
    demo: gr.Blocks, studio: Studio, results: Path, keys: Sequence[str] = ("",), switch: gr.Radio | None = None
) -> None:
    """What the page offers for one release; `keys` and `switch` are those of `ask_tab`."""
    gr.Markdown(studio.world.summary, elem_classes="qa-world")
    with gr.Tabs():
        with gr.Tab("Ask", id="ask"):
            asked = ask_tab(demo, studio, keys, switch)
        if studio.guidable:
            with gr.Tab("Guidance", id="guidance") as tab:
                guidance_tab(studio, tab, asked)
        if studio.few_shot:
            with gr.Tab("Refine", id="refine") as tab:
                refine_tab(studio, tab, asked)
        if studio.readers and studio.generator.known_questions:
            with gr.Tab("What is this adapter for?", id="identify"):
                identify_tab(studio)
        if studio.comparable:
            with gr.Tab("Compare", id="compare"):
                compare_tab(studio)
        with gr.Tab("Results", id="results"):
            release = studio.generator.directory
            shipped = release.resolve() in [path.resolve() for path in shipped_releases()]
            results_tab(results, studio.generator.config["preset"], studio.prefix, None if shipped else release)
        with gr.Tab("About", id="about"):
            about_tab(demo, studio)


def worlds(demo: gr.Blocks, studios: Sequence[Studio], results: Path) -> None:
    """A world for each of several releases, of which the page shows one: at first that which its address names."""
    keys = [studio.key for studio in studios]
    switch = gr.Radio(
        [(studio.title, studio.key) for studio in studios],
        value=keys[0],
        label="What to ask about",
        elem_id="world",
        elem_classes="qa-switch",
    )
    columns = []
    for studio in studios:
        with gr.Column(visible=studio is studios[0]) as column:
            world_tabs(demo, studio, results, keys, switch)
        columns.append(column)

    def show(chosen: str):
        return [gr.Column(visible=key == chosen) for key in keys]

    def restore(request: gr.Request):
        chosen, complaints = read_world(dict(request.query_params), keys)
        for complaint in complaints:
            warn(complaint)
        return [chosen, *show(chosen)]

    demo.load(restore, None, [switch, *columns], show_progress="hidden", **PRIVATE)
    switch.input(show, switch, columns, show_progress="hidden", **PRIVATE)
    switch.input(None, switch, js=WORLD_JS, **PRIVATE)


def build_demo(studios: Sequence[Studio], results: Path) -> gr.Blocks:
    """The Gradio app around opened releases, a world for each; launch it with the arguments of `LAUNCH`.

    Args:
        results: where the tables and figures of the evaluation lie.
    """
    with Page(title="A question becomes a neural network") as demo:
        gr.HTML(header())
        if len(studios) == 1:
            world_tabs(demo, studios[0], results)
        else:
            worlds(demo, studios, results)
        for name, function in endpoints(studios).items():
            gr.api(on_gpu(function), api_name=name, **MODELS)
    return demo
