"""What each tab answers to what a visitor sends: HTML, or a message in its place where something is amiss."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..classifier import MAX_ANSWER
from ..generator import Adapter
from ..texts import folded
from . import refine as few_shot
from .ask import (
    Score,
    add_to_score,
    check_count,
    check_question,
    read_answers,
)
from .files import open_adapter, read_pictures
from .guidance import sweep
from .limits import MAX_PICTURES
from .link import Shared, read_link
from .similarity import read_questions
from .studio import Studio
from .views.cards import comparison_cards, error_card, notices, sensitive_note
from .views.tabs import guidance_curves, guidance_plane, inference, refine_cards, refine_curve, similarity_maps

_RANKED = 8  # questions that an adapter may be for


def restore(studio: Studio, query: Mapping[str, str]) -> tuple[Shared, list[str]]:
    """What a page's address asks for, with suggested answers where it names none, and complaints about the rest."""
    default = Shared(studio.first_question, "", tuple(studio.methods), studio.gamma, 0)
    shared, complaints = read_link(query, default)
    if not shared.answers:
        try:
            answers = studio.suggest(shared.question)
        except ValueError as error:  # too long for the encoder
            complaints = [*complaints, f"the link's question is left out: {error}"]
            shared = replace(shared, question=default.question)
            answers = studio.suggest(default.question)
        shared = replace(shared, answers=", ".join(answers))
    return shared, complaints


def ask(
    studio: Studio,
    question: str,
    answers: str,
    drawn: bool,
    count: int,
    paths: Sequence[str],
    methods: Sequence[str],
    name: str,
    gamma: float,
    steps: int,
    samples: int,
    seed: int,
    score: Score,
) -> tuple[str, Score, str | None]:
    """(cards, the visit's score, file of the first method's adapter) for a question about scenes or own pictures."""
    try:
        question, candidates = check_question(question), read_answers(answers)
        images, truths = studio.gather(question, drawn, count, paths, seed)
        comparison = studio.compare(
            question,
            candidates,
            images,
            truths,
            methods,
            drawn=drawn,
            name=name,
            gamma=gamma,
            steps=steps,
            samples=samples,
            seed=seed,
        )
    except ValueError as error:
        return error_card(str(error)), score, None
    score = add_to_score(score, comparison, seed)
    made = next((adapter for adapter in comparison.adapters.values() if adapter.w is not None), None)
    return comparison_cards(comparison, score), score, None if made is None else _offered(studio, made)


def _offered(studio: Studio, adapter: Adapter) -> str | None:
    """An adapter's file to download; none where it cannot be written, which costs nobody the answer."""
    try:
        return str(studio.downloads.save(adapter))
    except OSError:
        return None


def guide(
    studio: Studio, question: str, answers: str, drawn: bool, count: int, paths: Sequence[str], seed: int
) -> Iterator[tuple[str, str | None]]:
    """(curves so far, the plane at the end) while the strength of guidance rises."""
    try:
        question, candidates = check_question(question), read_answers(answers)
        images, truths = studio.gather(question, drawn, count, paths, seed)
        x = studio.generator.embed_images(images)
        seen, note = [], sensitive_note(question)
        for guided in sweep(
            studio.generator, studio.plane, question, candidates, x, truths, name=studio.name, seed=seed
        ):
            seen.append(guided)
            yield note + guidance_curves(seen, studio.gamma), None
        yield note + guidance_curves(seen, studio.gamma), guidance_plane(studio.plane, seen)
    except ValueError as error:
        yield error_card(str(error)), ""


def label(labelled: Sequence[tuple[str, str]], paths: Sequence[str], answer: str | None) -> list[tuple[str, str]]:
    """The labelled pictures (path, answer) and more of them, all with one right answer; one labelled again is there
    once, with its new answer, so that it cannot be learned from and tested with.

    Raises:
        ValueError: no picture, no answer, one that is too long, or too many pictures.
    """
    answer = (answer or "").strip()
    if not paths or not answer:
        raise ValueError("choose pictures and say what the right answer is for all of them")
    if len(answer) > MAX_ANSWER:  # no candidate answer could be it, and it would stay in memory
        raise ValueError(f"the right answer has {len(answer)} characters; {MAX_ANSWER} are allowed")
    answers = dict(labelled) | dict.fromkeys(paths, answer)
    check_count(len(answers))
    return list(answers.items())


def _usable(labelled: Sequence[tuple[str, str]], candidates: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The labelled pictures (path, answer) whose file is there and whose answer is a candidate, in the candidate's
    words, and what is to be said of the others. They may be of an earlier question, or of an hour ago.

    Raises:
        ValueError: there are pictures, and none is usable.
    """
    check_count(len(labelled))
    words = {folded(candidate): candidate for candidate in candidates}
    fitting = [(path, words[folded(answer)]) for path, answer in labelled if folded(answer) in words]
    there = [(path, answer) for path, answer in fitting if Path(path).is_file()]
    notes = []
    if len(fitting) < len(labelled):
        strange = next(answer for _, answer in labelled if folded(answer) not in words)
        left_out = f"{len(labelled) - len(fitting)} of {len(labelled)} labelled pictures are left out"
        notes.append(f"{left_out}: the right answer {strange!r} is not among the candidate answers.")
    if len(there) < len(fitting):
        notes.append(f"{len(fitting) - len(there)} labelled pictures are no longer kept here; please add them again.")
    if notes and not there:
        raise ValueError(notes[0])
    return there, notes


def refine(
    studio: Studio,
    question: str,
    answers: str,
    drawn: bool,
    most: int,
    labelled: Sequence[tuple[str, str]],
    seed: int,
) -> Iterator[tuple[str, str | None, str | None]]:
    """(curve so far, cards and the refined adapter's file at the end) while labelled examples come in: drawn scenes,
    tested on others, or `labelled` files (path, answer), tested on a third of them, which the refined adapter does not
    learn from either."""
    generator, encode, notes = studio.generator, studio.generator.embed_images, []
    try:
        question, candidates = check_question(question), read_answers(answers)
        if drawn:
            images, truths = studio.gather(question, True, MAX_PICTURES, (), seed)
            examples = few_shot.label_pictures(encode(images), truths, candidates)
            images, truths = studio.gather(question, True, MAX_PICTURES, (), seed + 1)
            held_out = few_shot.label_pictures(encode(images), truths, candidates)
            tested = f"{len(held_out)} other scenes"
        else:
            labelled, notes = _usable(labelled, candidates)
            images, truths = read_pictures([path for path, _ in labelled]), [answer for _, answer in labelled]
            examples = few_shot.label_pictures(encode(images), truths, candidates)
            held_out, tested = None, "a third of your pictures, another third for each order"
        most = min(most, few_shot.usable(examples, held_out))
        if drawn:
            learned, shown = torch.arange(most), [i for i, truth in enumerate(truths) if truth in candidates]
        else:  # every truth is a candidate, so pictures and examples are the same rows
            rows, others = few_shot.hold_out(examples, seed)
            learned, shown = rows[:most], others.tolist()
        seen, note = [], sensitive_note(question) + notices(notes)
        for point in few_shot.k_shot_curve(generator, question, candidates, examples, held_out, most, seed=seed):
            seen.append(point)
            yield note + refine_curve(seen, most, tested), None, None
        used = examples[learned]
        adapt = functools.partial(few_shot.refined, generator, question, candidates, seed=seed)
        row, other = studio.few_shot
        refined = adapt(used, row)
        adapters = {
            "Generated, no examples": adapt(used[:0], row),
            f"Generated, {len(used)} examples": refined,
            f"MNet-MAML, {len(used)} examples": adapt(used, other),
        }
        images, truths = [images[i] for i in shown], [truths[i] for i in shown]
        cards = refine_cards(images, truths, candidates, adapters, encode(images))
        yield note + refine_curve(seen, most, tested), cards, _offered(studio, refined)
    except ValueError as error:
        yield error_card(str(error)), "", ""


def identify(studio: Studio, path: str | None) -> str:
    """The questions that the adapter in a file is most likely for."""
    try:
        adapter = open_adapter(path, studio.generator)
    except ValueError as error:
        return error_card(str(error))
    found = studio.generator.infer_question(adapter, _RANKED)
    return inference(adapter, found, len(studio.generator.known_questions))


def example_adapter(studio: Studio, question: str) -> str:
    """The file of an adapter for a known question: fine-tuned on drawn scenes where there are any, as in Figure
    3, else generated."""
    generator = studio.generator
    if not (studio.world.drawn and studio.few_shot):
        return str(studio.downloads.save(generator.generate(question, "hyperclip", generator=studio.readers[0])))
    answers = studio.suggest(question)
    images, truths = studio.gather(question, True, few_shot.KS[-1], (), seed=0)
    examples = few_shot.label_pictures(generator.embed_images(images), truths, answers)
    return str(studio.downloads.save(few_shot.refined(generator, question, answers, examples, "mnet_maml")))


def compare(studio: Studio, text: str, seed: int) -> str:
    """Maps of how alike the adapters and the embeddings of several questions are."""
    try:
        questions = read_questions(text)
        return similarity_maps(questions, *studio.similarity(questions, seed))
    except ValueError as error:
        return error_card(str(error))
