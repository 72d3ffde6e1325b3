"""The demo: ask a question, get an adapter for it, classify pictures. Layout and event wiring only."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections import deque
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
import torch

from core.cards import CSS, error_card, result_cards
from core.data.emoji_vqa import draw_scenes_for_question, example_questions
from core.generator import Adapter, AdapterGenerator, check_answers, open_image

WEIGHTS = os.environ.get("HF_WEIGHTS", str(Path(__file__).parent / "weights" / "emoji"))
METHOD_LABELS = {"HyperLDM": "hyperldm", "HyperCLIP guidance": "hyperclip", "Plain CLIP": "clip"}
DRAWN, UPLOADED = "Draw scenes for this question", "My own pictures"
INTRO = """# A question becomes a neural network
Type a question. A diffusion model writes the **weights** of a small CLIP-Adapter for it, with no training data,
and the adapter classifies pictures, beside plain CLIP. This model lives in a world of drawn scenes: up to four
things on coloured badges, on a coloured background, in a frame."""
CREDIT = """Method: *Meta-Learning via Classifier(-free) Diffusion Guidance* (Nava et al., TMLR 2023).
Glyphs: [OpenMoji](https://openmoji.org), CC BY-SA 4.0. Code: Apache-2.0."""
FIRST_QUESTION = "What colour is the badge behind the dog?"


class Downloads:
    """The latest adapters as files, named after their questions; older ones go, so that a Space's disk never fills."""

    def __init__(self, keep: int = 64) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="adapters-")
        self.paths: deque[Path] = deque()
        self.keep, self.count = keep, 0

    def save(self, adapter: Adapter) -> Path:
        """Write an adapter; returns its path."""
        self.count += 1
        slug = re.sub(r"[^a-z0-9]+", "-", adapter.provenance["question"].lower()).strip("-")[:60]
        path = Path(self.directory.name) / str(self.count) / f"{slug or 'adapter'}.safetensors"
        adapter.save(path)
        self.paths.append(path)
        while len(self.paths) > self.keep:
            self.paths.popleft().unlink(missing_ok=True)
        return path


def build_demo(generator: AdapterGenerator) -> gr.Blocks:
    """The Gradio app around loaded models."""
    downloads = Downloads()
    examples = [[questions[0]] for questions in example_questions(1, seed=2).values()]

    def suggest(question: str, filled_for: str, answers: str) -> tuple[str, str]:
        """Fill in the answers of the nearest known question when the question has changed."""
        question = (question or "").strip()
        if not question or question == filled_for:
            return answers, filled_for
        return ", ".join(generator.suggest_answers(question)), question

    def ask(question, answers, source, count, files, method, name, gamma, steps, samples, seed):
        """Generate an adapter for the question and classify images with it; returns HTML and the adapter's file."""
        try:
            question, seed = (question or "").strip(), int(seed or 0)
            if not question:
                raise ValueError("please type a question")
            candidates = check_answers([a for a in (answers or "").split(",") if a.strip()])
            if source == DRAWN:
                images, truths = zip(*draw_scenes_for_question(question, int(count), seed), strict=True)
            else:
                if not files:
                    raise ValueError("please add at least one picture, or let scenes be drawn")
                images = [open_image(file) for file in files]
                truths = [None] * len(images)
            begun = time.perf_counter()
            adapter = generator.generate(
                question,
                METHOD_LABELS[method],
                generator=name.lower(),
                gamma=float(gamma),
                steps=int(steps),
                samples=int(samples),
                seed=seed,
            )
            generated = time.perf_counter()
            adapted = adapter.probabilities(images, candidates)
            plain = generator.generate(question, "clip").probabilities(images, candidates)
            seconds = (generated - begun, time.perf_counter() - generated)
        except ValueError as error:
            return error_card(str(error)), gr.update(value=None, interactive=False)
        html = result_cards(images, truths, candidates, adapted, plain, method, seconds)
        if adapter.w is None:
            return html, gr.update(value=None, interactive=False)
        return html, gr.update(value=str(downloads.save(adapter)), interactive=True)

    with gr.Blocks(title="A question becomes a neural network", delete_cache=(3600, 3600)) as demo:
        gr.Markdown(INTRO)
        filled_for = gr.State(FIRST_QUESTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                question = gr.Textbox(
                    FIRST_QUESTION, label="Question", placeholder="What animal is in the picture?", elem_id="question"
                )
                answers = gr.Textbox(
                    ", ".join(generator.suggest_answers(FIRST_QUESTION)),
                    label="Candidate answers, separated by commas",
                    info="Filled in from the nearest known question; edit as you like.",
                    elem_id="answers",
                )
                button = gr.Button("Generate the adapter", variant="primary", elem_id="ask")
                source = gr.Radio([DRAWN, UPLOADED], value=DRAWN, label="Pictures")
                count = gr.Slider(1, 12, 6, step=1, label="Scenes to draw")
                files = gr.File(file_count="multiple", label="Pictures", visible=False, elem_id="pictures")
                with gr.Row():
                    method = gr.Radio(list(METHOD_LABELS), value="HyperLDM", label="Method")
                    name = gr.Radio(["HVAE", "HNet"], value="HVAE", label="Weight generator")
                default = generator.config.get("choices", {}).get("hvae_hyperldm", {})
                gamma = gr.Slider(
                    0,
                    3,
                    default.get("gamma", 1.5),
                    step=0.05,
                    label="Guidance strength gamma",
                    info="0 ignores the question, 1 is the conditional model, more exaggerates it",
                )
                with gr.Accordion("More", open=False):
                    steps = gr.Slider(1, 100, default.get("steps", 50), step=1, label="Steps")
                    samples = gr.Slider(1, 16, default.get("samples", 1), step=1, label="Samples to average")
                    seed = gr.Number(0, precision=0, label="Seed")
                download = gr.DownloadButton("Download the adapter", interactive=False)
                gr.Examples(examples, inputs=question, label="Questions by family", examples_per_page=8)
            with gr.Column(scale=3, min_width=320):
                result = gr.HTML(elem_id="result")
        gr.Markdown(CREDIT)

        inputs = [question, answers, source, count, files, method, name, gamma, steps, samples, seed]
        outputs = [result, download]
        source.change(
            lambda s: (gr.update(visible=s == DRAWN), gr.update(visible=s == UPLOADED)),
            source,
            [count, files],
            api_name=False,
        )
        filling = {
            "fn": suggest,
            "inputs": [question, filled_for, answers],
            "outputs": [answers, filled_for],
            "api_name": False,
        }
        question.change(**filling, trigger_mode="always_last", show_progress="hidden")
        button.click(**filling).then(ask, inputs, outputs, api_name="ask")
        question.submit(**filling).then(ask, inputs, outputs, api_name=False)
        demo.load(ask, inputs, outputs, api_name=False)
    return demo


def main() -> None:
    torch.set_num_threads(min(2, os.cpu_count() or 1))  # small models: more threads only wait for each other
    generator = AdapterGenerator.from_pretrained(WEIGHTS, device="cuda" if torch.cuda.is_available() else "cpu")
    generator.generate(FIRST_QUESTION)  # warm up: models are loaded once, here
    demo = build_demo(generator)
    demo.queue(max_size=64).launch(css=CSS, theme=gr.themes.Soft())


if __name__ == "__main__":
    main()
