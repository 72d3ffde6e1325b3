"""The demo: ask a question, get an adapter for it, see what it does. Layout and event wiring only."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
from core.demo.layout.gpu import on_gpu  # before PyTorch

# isort: split
import gradio as gr
import torch

from core.demo.api import endpoints
from core.demo.layout import results
from core.demo.layout.about import about_tab
from core.demo.layout.ask import ask_tab
from core.demo.layout.compare import compare_tab
from core.demo.layout.guidance import guidance_tab
from core.demo.layout.identify import identify_tab
from core.demo.layout.parts import MODELS, PRIVATE, WORKERS, warn
from core.demo.layout.refine import refine_tab
from core.demo.link import WORLD_JS, read_world
from core.demo.studio import Studio, open_worlds
from core.demo.views.tabs import header
from core.demo.views.templates import STYLE
from core.demo.world import PHOTOS
from core.generator import AdapterGenerator
from core.release.default import shipped_releases

ROOT = Path(__file__).parent
WEIGHTS = [where.strip() for where in os.environ.get("HF_WEIGHTS", "").split(",") if where.strip()]
WEIGHTS = WEIGHTS or [str(directory) for directory in shipped_releases()]
QUEUE, FILE_SIZE = 64, "10 MB"  # requests that may wait, and the size of an upload
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
    "max_file_size": FILE_SIZE.replace(" ", "").lower(),
    "allowed_paths": [str(PHOTOS)],
}


def results_tab(preset: str, prefix: str = "", release: Path | None = None) -> None:
    """The results that come with this checkout, as far as they are of the preset, or those of one's own release."""
    results.results_tab(ROOT / "eval" / "results", preset, prefix, release)


def world_tabs(demo: gr.Blocks, studio: Studio, keys: Sequence[str] = ("",), switch: gr.Radio | None = None) -> None:
    """What the page offers for one release; `keys` and `switch` are those of `ask_tab`."""
    gr.Markdown(studio.world.summary, elem_classes="qa-world")
    with gr.Tabs():
        with gr.Tab("Ask", id="ask"):
            asked = ask_tab(demo, studio, keys, switch)
        if studio.plane is not None:
            with gr.Tab("Guidance", id="guidance") as tab:
                guidance_tab(studio, tab, asked)
        if studio.few_shot:
            with gr.Tab("Refine", id="refine") as tab:
                refine_tab(studio, tab, asked)
        if studio.readers and studio.generator.known_questions:
            with gr.Tab("What is this adapter for?", id="identify"):
                identify_tab(studio)
        if studio.similarity is not None:
            with gr.Tab("Compare", id="compare"):
                compare_tab(studio)
        with gr.Tab("Results", id="results"):
            release = studio.generator.directory
            shipped = release.resolve() in [path.resolve() for path in shipped_releases()]
            results_tab(studio.generator.config["preset"], studio.prefix, None if shipped else release)
        with gr.Tab("About", id="about"):
            address = os.environ.get("SPACE_ID", "http://127.0.0.1:7860")
            about_tab(studio, queue=QUEUE, file_size=FILE_SIZE, address=address)


def worlds(demo: gr.Blocks, studios: Sequence[Studio]) -> None:
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
            world_tabs(demo, studio, keys, switch)
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


def build_demo(*generators: AdapterGenerator) -> gr.Blocks:
    """The Gradio app around loaded models, a world for each; launch it with the arguments of `LAUNCH`."""
    studios = open_worlds(generators)
    with gr.Blocks(title="A question becomes a neural network", delete_cache=(3600, 3600)) as demo:
        gr.HTML(header())
        if len(studios) == 1:
            world_tabs(demo, studios[0])
        else:
            worlds(demo, studios)
        for name, function in endpoints(studios).items():
            gr.api(on_gpu(function), api_name=name, **MODELS)
    return demo


_EPILOG = """Every flag has an environment variable for a default, as a Space sets them: HF_WEIGHTS, GRADIO_SERVER_NAME,
GRADIO_SERVER_PORT, MCP. Gradio reads more of its own (GRADIO_SHARE, GRADIO_ROOT_PATH ...).

What it needs: about 1.7 GB of memory with both shipped worlds, more while many ask at once; no GPU, though one is used
where there is one, and no network for a local release. How long it takes to start: 10 to 20 seconds on two CPU cores.
A release from the Hub is downloaded once (about 80 MB for the emoji preset)."""


def parser() -> argparse.ArgumentParser:
    """The flags, with what the environment says for defaults."""
    result = argparse.ArgumentParser(
        prog="python app.py",
        description="Serve the demo: ask a question, get an adapter for it, see what it does.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "--weights",
        action="append",
        metavar="WHERE",
        help="release directory, or Hub repository USER/REPO or USER/REPO@REVISION; given several times, the page "
        "has a world of each (default: HF_WEIGHTS, separated by commas, else all shipped releases)",
    )
    # Without these two Gradio itself reads its variables, and looks for a free port from the variable's onwards.
    result.add_argument("--host", help="address to listen at (default: GRADIO_SERVER_NAME, else 127.0.0.1)")
    result.add_argument(
        "--port", type=int, help="this port or none (default: the first free one from GRADIO_SERVER_PORT, else 7860)"
    )
    result.add_argument(
        "--mcp",
        action="store_true",
        default=os.environ.get("MCP", "0") not in ("", "0"),
        help="also offer the endpoints as tools to MCP clients; needs the extra gradio[mcp] (default: MCP=1)",
    )
    return result


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser()
    args = arguments.parse_args(argv)
    if args.port is not None and not 0 < args.port < 2**16:
        arguments.error(f"--port {args.port}; allowed: 1 to {2**16 - 1}")
    if args.mcp and importlib.util.find_spec("mcp") is None:
        arguments.error("--mcp (or MCP=1) needs Gradio's extra: pip install 'gradio[mcp]'")
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // WORKERS))  # small models: more threads wait for each other
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = args.weights or WEIGHTS
    try:
        demo = build_demo(*(AdapterGenerator.from_pretrained(where, device=device) for where in weights))
    except ValueError as error:
        arguments.error(f"--weights (or HF_WEIGHTS) {', '.join(weights)}: {error}")
    demo.queue(max_size=QUEUE).launch(server_name=args.host, server_port=args.port, mcp_server=args.mcp, **LAUNCH)


if __name__ == "__main__":
    main()
