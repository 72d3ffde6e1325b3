"""The demo: ask a question, get an adapter for it, see what it does. Layout and event wiring only."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
try:  # the Hub's shared GPUs: a function under this decorator gets one while it runs
    from spaces import GPU as on_gpu
except ImportError:

    def on_gpu(function):
        """Without the optional `spaces` package a function runs where it is."""
        return function


import gradio as gr
import torch

from core.demo import about, pages, results
from core.demo.api import endpoints
from core.demo.ask import MAX_PICTURES
from core.demo.link import MAX_GAMMA, WRITE_JS, Shared, read_link
from core.demo.parts import DRAWN, OWN, PRIVATE, Pictures, Question, download_of, paths_of, stops, upload
from core.demo.refine import KS
from core.demo.studio import Studio
from core.demo.views import EMPTY, HEADER, INFERENCE
from core.generator import MAX_SAMPLES, AdapterGenerator
from core.release.default import default_release

ROOT = Path(__file__).parent
WEIGHTS = os.environ.get("HF_WEIGHTS", str(default_release()))
WORKERS, QUEUE, FILE_SIZE = 2, 64, "10 MB"  # requests worked on at a time, waiting, and the size of an upload
MODELS = {"concurrency_limit": WORKERS, "concurrency_id": "models"}  # one limit for all that computes
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
    "css_paths": ROOT / "core" / "demo" / "style.css",
    "max_file_size": FILE_SIZE.replace(" ", "").lower(),
}


def ask_tab(demo: gr.Blocks, studio: Studio) -> Question:
    default = Shared(studio.first_question, "", tuple(studio.methods), studio.gamma, 0)
    families = list(studio.examples)

    @on_gpu
    def ask(question, answers, source, count, own, methods, name, gamma, steps, samples, seed, score):
        html, score, file = pages.ask(
            studio,
            question,
            answers,
            source == DRAWN,
            int(count),
            paths_of(own),
            methods,
            name.lower(),
            float(gamma),
            int(steps),
            int(samples),
            int(seed or 0),
            score,
        )
        return html, score, download_of(file)

    def restore(request: gr.Request):
        """The state that the page's address asks for."""
        shared, complaints = read_link(dict(request.query_params), default)
        for complaint in complaints:
            gr.Warning(complaint)
        answers = shared.answers or ", ".join(studio.suggest(shared.question))
        return shared.question, answers, shared.question, list(shared.methods), shared.gamma, shared.seed

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
                name = gr.Radio(["HVAE", "HNet"], value="HVAE", label="Decoder of HyperLDM and HyperCLIP")
                steps = gr.Slider(1, 100, studio.choice.get("steps", 50), step=1, label="Sampling steps")
                samples = gr.Slider(1, MAX_SAMPLES, studio.choice.get("samples", 1), step=1, label="Samples to average")
                seed = gr.Number(0, precision=0, minimum=0, label="Seed of scenes and noise")
                reset = gr.Button("Start the score anew", size="sm")
            download = gr.DownloadButton("Download the adapter", interactive=False, size="md")
        with gr.Column(elem_classes="qa-result"):
            result = gr.HTML(EMPTY.format("The answers will be here."), elem_id="result", min_height=200)
            family = gr.Dropdown(families, value=families[0] if families else None, label="Examples by family")
            samples_of = gr.Dataset(
                components=[gr.Textbox(visible=False)],
                samples=[[q] for q in studio.examples.get(families[0], [])] if families else [],
                show_label=False,
                elem_id="examples",
            )

    score = gr.State({})
    inputs = [words.question, words.answers, *pictures.inputs, chosen, name, gamma, steps, samples, seed, score]
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
    picked = samples_of.click(lambda sample: sample[0], samples_of, words.question, **PRIVATE)
    picked = picked.then(**words.filling).then(**asking, **PRIVATE)
    picked.then(**writing)
    stops(stop, clicked, submitted, renewed, picked)
    family.change(
        lambda family: gr.Dataset(samples=[[q] for q in studio.examples[family]]), family, samples_of, **PRIVATE
    )
    reset.click(lambda: {}, None, score, **PRIVATE)
    restored = [words.question, words.answers, words.filled_for, chosen, gamma, seed]
    demo.load(restore, None, restored, **PRIVATE).then(**asking, **PRIVATE)
    return words


def guidance_tab(studio: Studio, tab: gr.Tab, asked: Question) -> None:
    @on_gpu
    def guide(question, answers, source, count, own, seed):
        steps = pages.guide(studio, question, answers, source == DRAWN, int(count), paths_of(own), int(seed or 0))
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
                button = gr.Button("Turn the strength up", variant="primary", elem_id="guide", scale=3)
                stop = gr.Button("Stop", scale=1, min_width=60)
        with gr.Column(elem_classes="qa-settings"):
            pictures = Pictures(studio, "guidance", count=32)
            seed = gr.Number(0, precision=0, minimum=0, label="Seed of scenes and noise")
        with gr.Column(elem_classes=["qa-result", "qa-charts"]):
            curves = gr.HTML(EMPTY.format("Accuracy and confidence over gamma will be here."), elem_id="curves")
            plane = gr.HTML(EMPTY.format("The way of the latent will be here."), elem_id="plane")
    running = button.click(
        guide,
        [words.question, words.answers, *pictures.inputs, seed],
        [curves, plane],
        show_progress="minimal",
        **PRIVATE,
        **MODELS,
    )
    stops(stop, running)


def refine_tab(studio: Studio, tab: gr.Tab, asked: Question) -> None:
    @on_gpu
    def refine(question, answers, source, most, labelled, seed):
        steps = pages.refine(studio, question, answers, source == DRAWN, int(most), labelled, int(seed or 0))
        for curve, cards, file in steps:
            yield curve, gr.skip() if cards is None else cards, gr.skip() if file is None else download_of(file)

    def label(own, answer, labelled):
        try:
            labelled = pages.label(labelled, paths_of(own), answer)
        except ValueError as error:
            gr.Warning(str(error))
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
            most = gr.Slider(0, KS[-1], KS[-1], step=1, label="Labelled examples, at most", elem_id="examples-count")
            with gr.Row():
                button = gr.Button("Refine", variant="primary", elem_id="refine", scale=3)
                stop = gr.Button("Stop", scale=1, min_width=60)
        with gr.Column(elem_classes="qa-settings"):
            source = gr.Radio([DRAWN, OWN], value=DRAWN if drawn else OWN, label="Examples", visible=drawn)
            with gr.Group(visible=not drawn) as own_group:
                own = upload("Pictures with one right answer", elem_id="refine-pictures")
                answer = gr.Textbox(label="Their right answer", elem_id="refine-answer")
                add = gr.Button("Add as examples", size="sm")
                gallery = gr.Gallery(label="Labelled examples", interactive=False, columns=4, height=180)
            seed = gr.Number(0, precision=0, minimum=0, label="Seed of scenes, noise and order")
            download = gr.DownloadButton("Download the refined adapter", interactive=False, size="md")
        with gr.Column(elem_classes="qa-result"):
            curve = gr.HTML(EMPTY.format("Accuracy over the number of examples will be here."), elem_id="curve")
            cards = gr.HTML(elem_id="refined")
    labelled = gr.State([])
    source.change(lambda source: gr.update(visible=source == OWN), source, own_group, **PRIVATE)
    add.click(label, [own, answer, labelled], [labelled, gallery, own], **PRIVATE)
    running = button.click(
        refine,
        [words.question, words.answers, source, most, labelled, seed],
        [curve, cards, download],
        show_progress="minimal",
        **PRIVATE,
        **MODELS,
    )
    stops(stop, running)


def identify_tab(studio: Studio) -> None:
    identify = on_gpu(lambda path: pages.identify(studio, path))
    example = on_gpu(lambda question: pages.example_adapter(studio, question))
    gr.Markdown(INFERENCE, elem_classes="qa-lead")
    with gr.Row(elem_classes="qa-grid"):
        with gr.Column(elem_classes="qa-words"):
            file = gr.File(
                label="Adapter file (.safetensors)",
                file_count="single",
                type="filepath",
                elem_id="adapter-file",
                height=140,
            )
            button = gr.Button("What is it for?", variant="primary", elem_id="identify")
            made = gr.Button("Try an adapter fine-tuned for a known question", size="sm", elem_id="identify-example")
            known = gr.Dropdown(
                [question["question"] for question in studio.generator.known_questions[:40]], label="Known question"
            )
        with gr.Column(elem_classes="qa-result"):
            result = gr.HTML(EMPTY.format("The most likely questions will be here."), elem_id="identified")
    button.click(identify, file, result, **PRIVATE, **MODELS)
    made.click(example, known, file, **PRIVATE, **MODELS).then(identify, file, result, **PRIVATE, **MODELS)


def compare_tab(studio: Studio) -> None:
    compare = on_gpu(lambda text, seed: pages.compare(studio, text, int(seed or 0)))
    gr.Markdown(
        "Questions that read alike may need very different adapters, and questions that read differently the same one.",
        elem_classes="qa-lead",
    )
    lines = studio.world.alike or [questions[0] for questions in studio.examples.values()][:8]
    text = gr.Textbox("\n".join(lines), label="Questions, one a line (2 to 12)", lines=7, elem_id="questions")
    with gr.Row():
        button = gr.Button("Compare", variant="primary", elem_id="compare", scale=3)
        seed = gr.Number(0, precision=0, minimum=0, label="Seed", scale=1, min_width=120)
    result = gr.HTML(EMPTY.format("Two maps of similarities will be here."), elem_id="compared")
    button.click(compare, [text, seed], result, **PRIVATE, **MODELS)


def results_tab(preset: str) -> None:
    directory = ROOT / "eval" / "results"
    for name, title, show in (
        ("table1", "Table 1: from the question alone", results.table1),
        ("links", "Link by link: where accuracy is lost", results.links),
        ("figure5", "Figure 5: strength of guidance", results.figure5_panels),
    ):
        gr.Markdown(f"### {title}")
        document = results.read(directory, name)
        if document is None or document["preset"] != preset:  # those of another release say nothing of this one
            command = f"python eval/{name}.py --preset {preset} --json eval/results/{name}.json"
            gr.Markdown(f"`{command}` writes these results for releases of preset {preset}; they are not here.")
            continue
        gr.HTML(show(document), elem_id=f"results-{name}")
        gr.Markdown(results.source(document))


def about_tab(studio: Studio) -> None:
    gr.HTML(about.PICTURE)
    gr.Markdown(about.text(studio.world, queue=QUEUE, pictures=MAX_PICTURES, size=FILE_SIZE), elem_classes="qa-about")
    gr.Markdown("**For programs.** Every endpoint is listed under “Use via API” at the foot of the page.")
    address = os.environ.get("SPACE_ID", "http://127.0.0.1:7860")
    gr.Code(about.snippet(address, studio.first_question), language="python", label="Python", interactive=False)
    gr.Code(about.citation(), language=None, label="How to cite (BibTeX)", interactive=False)


def build_demo(generator: AdapterGenerator) -> gr.Blocks:
    """The Gradio app around loaded models; launch it with the arguments of `LAUNCH`."""
    studio = Studio(generator)
    with gr.Blocks(title="A question becomes a neural network", delete_cache=(3600, 3600)) as demo:
        gr.HTML(HEADER)
        gr.Markdown(studio.world.summary, elem_classes="qa-world")
        with gr.Tabs():
            with gr.Tab("Ask", id="ask"):
                asked = ask_tab(demo, studio)
            if studio.plane is not None:
                with gr.Tab("Guidance", id="guidance") as tab:
                    guidance_tab(studio, tab, asked)
            if studio.few_shot:
                with gr.Tab("Refine", id="refine") as tab:
                    refine_tab(studio, tab, asked)
            if generator.has("hyperclip") and generator.known_questions:
                with gr.Tab("What is this adapter for?", id="identify"):
                    identify_tab(studio)
            if studio.similarity is not None:
                with gr.Tab("Compare", id="compare"):
                    compare_tab(studio)
            with gr.Tab("Results", id="results"):
                results_tab(generator.config["preset"])
            with gr.Tab("About", id="about"):
                about_tab(studio)
        for name, function in endpoints(studio).items():
            gr.api(on_gpu(function), api_name=name, **MODELS)
    return demo


_EPILOG = """Every flag has an environment variable for a default, as a Space sets them: HF_WEIGHTS, GRADIO_SERVER_NAME,
GRADIO_SERVER_PORT, MCP. Gradio reads more of its own (GRADIO_SHARE, GRADIO_ROOT_PATH ...).

What it needs: about 1.2 GB of memory with the shipped weights, more while many ask at once; no GPU, though one is used
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
        default=WEIGHTS,
        metavar="WHERE",
        help="release directory, or Hub repository USER/REPO or USER/REPO@REVISION "
        "(default: HF_WEIGHTS, else the shipped weights/emoji)",
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
    try:
        demo = build_demo(AdapterGenerator.from_pretrained(args.weights, device=device))
    except ValueError as error:
        arguments.error(f"--weights (or HF_WEIGHTS) {args.weights}: {error}")
    demo.queue(max_size=QUEUE).launch(server_name=args.host, server_port=args.port, mcp_server=args.mcp, **LAUNCH)


if __name__ == "__main__":
    main()
