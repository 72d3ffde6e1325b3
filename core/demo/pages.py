"""What each tab answers to what a visitor sends: HTML, or a message in its place where something is amiss."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from ..generator import Adapter
from ..methods import SEARCHES
from ..networks.weight_generator import WEIGHT_GENERATORS
from ..texts import join_answers
from . import examples as own_examples
from . import refine as few_shot
from .ask import (
    GENERATORS_BY_LABEL,
    LABELS,
    Comparison,
    Score,
    add_to_score,
    check_question,
    read_answers,
    read_seed,
)
from .files import open_adapter, read_pictures
from .guidance import sweep
from .limits import MAX_PICTURES, MAX_SEED
from .link import Shared, read_link, write_link
from .similarity import read_questions
from .studio import Studio
from .views.asked import asked, counted
from .views.cards import comparison_cards, error_card, notices, sensitive_note
from .views.tabs import guidance_curves, guidance_plane, inference, refine_cards, refine_curve, similarity_maps

_RANKED = 8  # questions that an adapter may be for


def default_state(studio: Studio) -> Shared:
    """What the page of a release begins with; answers are suggested."""
    choice = studio.choice
    steps, samples = choice.get("steps", 50), choice.get("samples", 1)  # the paper's are 350
    return Shared(studio.first_question, "", tuple(studio.methods), studio.gamma, 0, studio.name, steps, samples)


def restore(studio: Studio, query: Mapping[str, str]) -> tuple[Shared, list[str]]:
    """What a page's address asks for, with suggested answers where it names none, and complaints about the rest."""
    default = default_state(studio)
    shared, complaints = read_link(query, default, list((studio.generators or GENERATORS_BY_LABEL).values()))
    if not shared.answers:
        try:
            answers = studio.suggest(shared.question)
        except ValueError as error:  # too long for the encoder
            complaints = [*complaints, f"the link's question is left out: {error}"]
            shared = replace(shared, question=default.question)
            answers = studio.suggest(default.question)
        shared = replace(shared, answers=join_answers(answers))
    return shared, complaints


def next_seed(seed: float | None) -> float | None:
    """The one after a seed, for other scenes; what is no seed stays, to be complained about."""
    try:
        return (read_seed(seed) + 1) % (MAX_SEED + 1)
    except ValueError:
        return seed


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
    seed: float | None,
    score: Score,
) -> tuple[str, Score, str | None, str | None]:
    """(cards, the visit's score, file of the first method's adapter, link) for a question about scenes or own pictures.
    The link asks for what was answered; there is none where nothing was."""
    try:
        seed = read_seed(seed)
        question, candidates = check_question(question), read_answers(answers)
        images, truths = _gather(studio, question, drawn, count, paths, seed)
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
        return error_card(str(error)), score, None, None
    score = add_to_score(score, comparison, seed)
    made = next((adapter for adapter in comparison.adapters.values() if adapter.w is not None), None)
    html = _asked_with(comparison, name, gamma, steps, samples, seed) + comparison_cards(comparison, score)
    shared = Shared(question, join_answers(candidates), tuple(methods), gamma, seed, name, steps, samples)
    link = write_link(shared, default_state(studio))
    return html, score, None if made is None else _offered(studio, made), link


def _gather(studio: Studio, question: str, drawn: bool, count: int, paths: Sequence[str], seed: int) -> tuple:
    """`Studio.gather`, with a ValueError that says where pictures are to be had if there are none."""
    if not drawn and not paths:
        raise ValueError("please add at least one picture" + ", or choose an example" * bool(studio.world.samples))
    return studio.gather(question, drawn, count, paths, seed)


def _asked_with(comparison: Comparison, name: str, gamma: float, steps: int, samples: int, seed: int) -> str:
    """What was asked: the question, the settings that the methods read, and a notice of scenes that do not count."""
    settings = [f"seed {seed}"]
    if set(comparison.adapters) & set(SEARCHES):
        settings.insert(0, f"decoder {WEIGHT_GENERATORS[name].label}")
    if "hyperldm" in comparison.adapters:
        settings[-1:] = [f"gamma {gamma:g}", counted(steps, "step"), counted(samples, "sample"), f"seed {seed}"]
    unfair = sum(truth is not None and truth not in comparison.answers for truth in comparison.truths)
    verb = "is" if unfair == 1 else "are"
    said = f"{counted(unfair, 'scene')} {verb} not counted: the right answer is not among the candidate answers."
    return asked(comparison.question, settings) + notices([said] if unfair else [])


def _offered(studio: Studio, adapter: Adapter) -> str | None:
    """An adapter's file to download; none where it cannot be written, which costs nobody the answer."""
    try:
        return str(studio.downloads.save(adapter))
    except OSError:
        return None


def guide(
    studio: Studio, question: str, answers: str, drawn: bool, count: int, paths: Sequence[str], seed: float | None
) -> Iterator[tuple[str, str | None]]:
    """(curves so far, the plane at the end) while the strength of guidance rises."""
    try:
        seed = read_seed(seed)
        question, candidates = check_question(question), read_answers(answers)
        images, truths = _gather(studio, question, drawn, count, paths, seed)
        x = studio.generator.embed_images(images)
        about = counted(len(images), "drawn scene" if drawn else "picture")
        note = asked(question, [about, f"seed {seed}"], () if drawn else images) + sensitive_note(question)
        seen = []
        for guided in sweep(
            studio.generator, studio.plane, question, candidates, x, truths, name=studio.name, seed=seed
        ):
            seen.append(guided)
            yield note + guidance_curves(seen, studio.gamma), None
        yield note + guidance_curves(seen, studio.gamma), guidance_plane(studio.plane, seen)
    except ValueError as error:
        yield error_card(str(error)), ""


def refine(
    studio: Studio,
    question: str,
    answers: str,
    drawn: bool,
    most: int,
    labelled: Sequence[tuple[str, str]],
    seed: float | None,
    pending: int = 0,
) -> Iterator[tuple[str, str | None, str | None]]:
    """(curve so far, cards and the refined adapter's file at the end) while labelled examples come in: drawn scenes,
    tested on others, or `labelled` files (path, answer), tested on a third of them, which the refined adapter does not
    learn from either. So many own pictures are `pending`: chosen, and not labelled yet."""
    generator, encode, notes = studio.generator, studio.generator.embed_images, []
    waiting = f"{counted(pending, 'chosen picture')} {'is' if pending == 1 else 'are'} not among the examples yet"
    try:
        seed = read_seed(seed)
        question, candidates = check_question(question), read_answers(answers)
        if drawn:
            images, truths = studio.gather(question, True, MAX_PICTURES, (), seed)
            examples = few_shot.label_pictures(encode(images), truths, candidates)
            images, truths = studio.gather(question, True, MAX_PICTURES, (), seed + 1)
            held_out = few_shot.label_pictures(encode(images), truths, candidates)
            tested = f"{len(held_out)} other scenes"
        else:
            if pending and not labelled:
                raise ValueError(f"{waiting}: say what the right answer is and press “Add as examples” first")
            labelled, notes = own_examples.usable(labelled, candidates)
            notes += [f"{waiting}: press “Add as examples” to use them, too."] if pending else []
            images, truths = read_pictures([path for path, _ in labelled]), [answer for _, answer in labelled]
            examples = few_shot.label_pictures(encode(images), truths, candidates)
            held_out, tested = None, "a third of your pictures, another third for each order"
        most = min(most, few_shot.usable(examples, held_out))
        if drawn:
            learned, shown = torch.arange(most), [i for i, truth in enumerate(truths) if truth in candidates]
        else:  # every truth is a candidate, so pictures and examples are the same rows
            rows, others = few_shot.hold_out(examples, seed)
            learned, shown = rows[:most], others.tolist()
        seen, note = [], asked(question, [f"seed {seed}"]) + sensitive_note(question) + notices(notes)
        for point in few_shot.k_shot_curve(generator, question, candidates, examples, held_out, most, seed=seed):
            seen.append(point)
            yield note + refine_curve(seen, most, tested), None, None
        used = examples[learned]
        adapt = functools.partial(few_shot.refined, generator, question, candidates, seed=seed)
        row, other = studio.few_shot
        refined = adapt(used, row)
        if len(used):
            start = {"Generated, no examples": adapt(used[:0], row)}
        else:  # nothing is refined: plain CLIP stands in its place
            start = {LABELS["clip"]: generator.generate(question, "clip", answers=candidates)}
        adapters = {
            **start,
            f"Generated, {counted(len(used), 'example')}": refined,
            f"MNet-MAML, {counted(len(used), 'example')}": adapt(used, other),
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


def compare(studio: Studio, text: str, seed: float | None) -> str:
    """Maps of how alike the adapters and the embeddings of several questions are."""
    try:
        questions = read_questions(text)
        return similarity_maps(questions, *studio.similarity(questions, read_seed(seed)))
    except ValueError as error:
        return error_card(str(error))
