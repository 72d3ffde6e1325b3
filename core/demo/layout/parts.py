"""Parts that several tabs share: a question with its answers, pictures to ask about, a button that stops, warnings."""

from __future__ import annotations

import gradio as gr

from ...texts import join_answers
from ..limits import MAX_PICTURES, MAX_QUESTION, WORKERS
from ..studio import Studio
from ..views.templates import escape_html

DRAWN, OWN = "Drawn scenes", "My own pictures"
MODELS = {"concurrency_limit": WORKERS, "concurrency_id": "models"}  # one limit for all that computes
PRIVATE = {"api_visibility": "private"}  # events of the page, of no use to programs
# In what there is so far, a bar of what is still to come becomes a word.
_STOPPED_JS = """html => {
  const page = new DOMParser().parseFromString(html ?? "", "text/html");
  page.querySelector("progress")?.replaceWith("Stopped:");
  return page.body.innerHTML;
}"""


class Question:
    """A question with its candidate answers, filled in from it or the nearest known one when it changes."""

    def __init__(self, studio: Studio, tab: str) -> None:
        self._studio = studio
        first = studio.first_question
        self.filled_for = gr.State(first)
        self.question = gr.Textbox(
            first,
            label="Question",
            placeholder=first,
            elem_id=f"{studio.prefix}{tab}-question",
            max_length=MAX_QUESTION,
            lines=1,
        )
        self.answers = gr.Textbox(
            join_answers(studio.suggest(first)),
            label="Candidate answers, separated by commas",
            info="Filled in from your question or the nearest known one; edit as you like.",
            elem_id=f"{studio.prefix}{tab}-answers",
            lines=1,
            max_lines=4,
        )
        self.filling = {
            "fn": self._fill,
            "inputs": [self.question, self.filled_for],
            "outputs": [self.answers, self.filled_for],
            "show_progress": "hidden",
            **PRIVATE,
        }
        self.question.change(**self.filling, trigger_mode="always_last")

    def _fill(self, question: str, filled_for: str) -> tuple:
        """Answers for the question and the question itself. Where they stay, they are left alone, not sent back: a
        visitor may have edited them since."""
        question = " ".join((question or "").split())
        if not question or question == filled_for or len(question) > MAX_QUESTION:
            return gr.skip(), gr.skip()
        try:
            return join_answers(self._studio.suggest(question)), question
        except ValueError:  # too long for the encoder, as the answer will say
            return gr.skip(), gr.skip()

    def take(self, question: str) -> tuple[str, str, str]:
        """Another question with its answers, for `taken`: all at once, so that no answer of the one before is left."""
        return question, join_answers(self._studio.suggest(question)), question

    @property
    def taken(self) -> list:
        """The components of what `take` gives."""
        return [self.question, self.answers, self.filled_for]

    @staticmethod
    def _mark(question: str | None, answers: str | None) -> int:
        """What tells one question with its answers from another, in little memory."""
        return hash((question or "", answers or ""))

    def follow(self, tab: gr.Tab, other: Question) -> None:
        """Take over another tab's question and answers when this tab is opened, if either is new."""
        first = self._studio.first_question
        taken = gr.State(self._mark(first, join_answers(self._studio.suggest(first))))

        def take_over(theirs, their_answers, taken):
            mark = self._mark(theirs, their_answers)
            # The box stops visitors, not programs, and states stay in memory.
            if mark == taken or len(theirs or "") > MAX_QUESTION:
                return (gr.skip(),) * 4
            return theirs, their_answers, " ".join((theirs or "").split()), mark

        tab.select(
            take_over,
            [other.question, other.answers, taken],
            [self.question, self.answers, self.filled_for, taken],
            show_progress="hidden",
            **PRIVATE,
        )


class Pictures:
    """Scenes drawn to order, where the release's world can be drawn, or a visitor's own pictures."""

    def __init__(self, studio: Studio, tab: str, count: int, most: int = MAX_PICTURES) -> None:
        drawn = studio.world.drawn
        self._samples = studio.world.samples
        self.source = gr.Radio([DRAWN, OWN], value=DRAWN if drawn else OWN, label="Pictures", visible=drawn)
        self.count = gr.Slider(1, most, min(count, most), step=1, label="How many scenes", visible=drawn)
        self.own = upload("Your pictures", elem_id=f"{studio.prefix}{tab}-pictures", visible=not drawn)
        self.source.change(
            lambda source: (gr.update(visible=source == DRAWN), gr.update(visible=source == OWN)),
            self.source,
            [self.count, self.own],
            show_progress="hidden",
            **PRIVATE,
        )
        self.inputs = [self.source, self.count, self.own]

    def paths(self, own: list[tuple[str, str | None]] | None, sample: int | None = None) -> list[str]:
        """The files of the gallery, or the world's sample of that number, if one is chosen and the gallery is empty."""
        return paths_of(own) or ([] if sample is None else [str(one.path) for one in self._samples[sample:][:1]])


class Samples:
    """The world's pictures to try, each with a question that suits it. The one that is asked about is marked; none is
    once there are own pictures, nor when these are taken away."""

    def __init__(self, studio: Studio) -> None:
        self._samples = studio.world.samples
        self.number = gr.State(0 if self._samples else None)
        self._gallery = gr.Gallery(
            [(str(sample.path), sample.path.stem) for sample in self._samples],
            label="Or try one of these",
            object_fit="cover",
            interactive=False,
            allow_preview=False,
            selected_index=0 if self._samples else None,
            buttons=[],
            columns=len(self._samples) or None,
            visible=bool(self._samples),
            elem_id=f"{studio.prefix}samples",
            elem_classes="qa-samples",
        )

    def picked(self, own: gr.Gallery, words: Question):
        """The event of a click on one: it takes the place of own pictures, and its question that of the question."""

        def put(own: list | None, event: gr.SelectData):
            if own:
                warn("This example takes the place of your own pictures; add them again to ask about them.")
            return event.index, None, *words.take(self._samples[event.index].question)

        return self._gallery.select(put, own, [self.number, own, *words.taken], show_progress="hidden", **PRIVATE)

    def give_way(self, own: gr.Gallery) -> None:
        """Choose none once there are own pictures."""
        # Gradio leaves out of an update what is None; no picture has this number.
        leave = lambda own: (None, gr.update(selected_index=-1)) if own else (gr.skip(), gr.skip())
        own.change(leave, own, [self.number, self._gallery], show_progress="hidden", **PRIVATE)


def upload(label: str, **kwargs) -> gr.Gallery:
    """Where pictures come in: many files, pasted, or from the camera."""
    return gr.Gallery(
        label=label,
        sources=["upload", "clipboard", "webcam"],
        type="filepath",
        file_types=["image"],
        interactive=True,
        columns=4,
        height=210,
        object_fit="contain",
        elem_classes="qa-upload",
        **kwargs,
    )


def warn(message: str) -> None:
    """Show a message beside the page. Gradio takes it for HTML, and it may quote what a stranger wrote."""
    gr.Warning(escape_html(message))


def seed_label(studio: Studio) -> str:
    """What a seed decides in a release's world."""
    return "Seed of scenes and noise" if studio.world.drawn else "Seed of noise"


def paths_of(gallery: list[tuple[str, str | None]] | None) -> list[str]:
    """The files of a gallery."""
    return [path for path, _ in gallery or []]


def download_of(file: str | None):
    """What a download button offers, if anything."""
    return gr.update(value=file or None, interactive=bool(file))


def seed_box(studio: Studio, more: str = "") -> gr.Number:
    """Where a seed is typed. What it may be is checked when it is used, with a message of the page's own."""
    return gr.Number(0, step=1, label=f"{seed_label(studio)}{more}")


def stops(button: gr.Button, *events, progress: gr.HTML | None = None) -> None:
    """Let a button end the waiting for events; what is being computed runs to its next step. What shows `progress` says
    then that it was stopped."""
    stopped = button.click(None, cancels=list(events), **PRIVATE)
    if progress is not None:
        stopped.then(None, progress, progress, js=_STOPPED_JS, **PRIVATE)
