"""The demo's endpoints for programs, typed and documented: what gradio_client and MCP clients see.

Annotations are evaluated here (no `from __future__ import annotations`): Gradio reads return types from signatures.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from ..generator import check_answers
from .ask import check_question
from .door.arguments import read_arguments
from .files import open_adapter, read_pictures
from .link import MAX_SEED
from .similarity import check_questions
from .studio import Studio
from .world import draw


def endpoints(studios: Sequence[Studio]) -> dict[str, Callable[..., Any]]:
    """Functions by name; each raises `gr.Error` with a clear message for a bad argument.

    Of several worlds each function takes one by its key, at first the first that can do what it does. Of one alone
    there is nothing to choose.
    """
    keys = [studio.key for studio in studios]
    drawn = [studio for studio in studios if studio.world.drawn]
    reading = [studio for studio in studios if studio.readers]
    comparable = [studio for studio in studios if studio.comparable]
    usual = studios[0].gamma if len(studios) == 1 else None  # what validation tasks chose differs between worlds

    def suggest_answers(question: str, world: str = keys[0]) -> list[str]:
        """Candidate answers for a question, from the known questions of nearest wording.

        Args:
            question: a question about pictures, in plain words
            world: whose models answer
        """
        return _choose(studios, world).generator.suggest_answers(check_question(question))

    def generate(
        question: str,
        method: str = "hyperldm",
        gamma: float | None = usual,
        seed: int = 0,
        world: str = keys[0],
    ) -> gr.FileData:
        """Generate the weights of an adapter for a question, with no training data; returns a safetensors file.

        Args:
            question: a question about pictures, in plain words
            method: hyperldm, hyperclip, cond_multitask or another method of the project that makes weights
            gamma: strength of classifier-free guidance of hyperldm; 0 ignores the question, 1 is the conditional model
                (default: what validation tasks chose)
            seed: of the noise
            world: whose models answer
        """
        studio = _choose(studios, world)
        adapter = studio.generator.generate(
            check_question(question),
            method,
            generator=studio.name,
            gamma=_gamma(studio, gamma) if method == "hyperldm" else None,
            seed=_check_seed(seed),
        )
        path = studio.downloads.save(adapter)
        return gr.FileData(path=str(path), orig_name=path.name)

    def classify(
        question: str,
        answers: list[str],
        pictures: list[gr.FileData],
        method: str = "hyperldm",
        gamma: float | None = usual,
        seed: int = 0,
        world: str = keys[0],
    ) -> list[dict[str, Any]]:
        """Answer a question about pictures with an adapter generated for it; one record per picture, with its answer,
        the answer's probability and the probability of each candidate; "none_of_these" says that no answer is probable
        enough to be claimed, "unfamiliar" that the picture is unlike those that the models know.

        Args:
            question: a question about pictures, in plain words
            answers: 2 to 256 candidate answers
            pictures: 1 to 64 image files of up to 25 megapixels
            method: hyperldm, hyperclip, cond_multitask, clip or another method of the project
            gamma: strength of classifier-free guidance of hyperldm; 0 ignores the question, 1 is the conditional model
                (default: what validation tasks chose)
            seed: of the noise
            world: whose models answer
        """
        studio = _choose(studios, world)
        question, answers = check_question(question), check_answers(answers)
        images = read_pictures(pictures)
        comparison = studio.compare(
            question,
            answers,
            images,
            [None] * len(images),
            [method],
            drawn=False,
            gamma=_gamma(studio, gamma) if method == "hyperldm" else None,
            seed=_check_seed(seed),
        )
        probabilities = comparison.probabilities[method].tolist()
        return [
            {
                "answer": comparison.answers[max(range(len(row)), key=row.__getitem__)],
                "probability": max(row),
                "probabilities": dict(zip(comparison.answers, row, strict=True)),
                "none_of_these": unclaimed,
                "unfamiliar": strange,
            }
            for row, unclaimed, strange in zip(
                probabilities, comparison.unclaimed(method), comparison.strange_images, strict=True
            )
        ]

    def try_on_scenes(
        question: str,
        answers: list[str],
        count: int = 8,
        seed: int = 0,
        gamma: float | None = usual,
        world: str = drawn[0].key if drawn else "",
    ) -> dict[str, Any]:
        """Draw scenes for a question and answer it by every method: the scenes' true answers (null where unknown), and
        each method's answers and accuracy among scenes whose true answer is a candidate.

        Args:
            question: a question about drawn scenes
            answers: 2 to 256 candidate answers
            count: number of scenes, 1 to 64
            seed: of the scenes and of the noise
            gamma: strength of classifier-free guidance of hyperldm (default: what validation tasks chose)
            world: whose models answer
        """
        studio = _choose(drawn, world)
        images, truths = draw(studio.world, check_question(question), count, _check_seed(seed))
        comparison = studio.compare(
            question, answers, images, truths, list(studio.methods), drawn=True, gamma=_gamma(studio, gamma), seed=seed
        )
        result: dict[str, Any] = {"truths": truths, "answers": {}, "accuracy": {}}
        for method, table in comparison.probabilities.items():
            result["answers"][method] = [comparison.answers[k] for k in table.argmax(-1).tolist()]
            right = [one for one in comparison.right(method) if one is not None]
            result["accuracy"][method] = sum(right) / len(right) if right else None
        return result

    def infer_question(
        adapter: gr.FileData, count: int = 5, world: str = reading[0].key if reading else ""
    ) -> list[dict[str, Any]]:
        """Say what an adapter is for: the known questions that its weights most likely answer, with probabilities.

        Args:
            adapter: a safetensors file that this project saved
            count: number of questions
            world: whose adapter it is
        """
        studio = _choose(reading, world)
        if count < 1:
            raise ValueError(f"count {count}; allowed: 1 or more")
        return studio.generator.infer_question(open_adapter(adapter, studio.generator), count)

    def compare_questions(
        questions: list[str], seed: int = 0, world: str = comparable[0].key if comparable else ""
    ) -> dict[str, list[list[float]]]:
        """Cosine similarities between the adapters generated for questions, and between their embeddings.

        Args:
            questions: 2 to 12 questions
            seed: of the noise
            world: whose models answer
        """
        studio = _choose(comparable, world)
        adapters, embeddings = studio.similarity(check_questions(questions), _check_seed(seed))
        return {"adapters": adapters.tolist(), "embeddings": embeddings.tolist()}

    functions = [suggest_answers, generate, classify]
    functions += [try_on_scenes] if drawn else []
    functions += [infer_question] if reading else []
    functions += [compare_questions] if comparable else []
    return {function.__name__: _polite(function, worlds=len(studios) > 1) for function in functions}


def _polite(function: Callable[..., Any], worlds: bool) -> Callable[..., Any]:
    """The function of arguments as JSON has them, telling clients what is wrong with one instead of hiding it; without
    its last argument, the world, where there is no choice of `worlds`."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(**read_arguments(signature, signature.bind(*args, **kwargs).arguments))
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None
        except OSError as error:  # of the server's own files, whose names are nobody's business
            raise gr.Error(f"the server could not do it: {error.strerror}") from error

    if not worlds:
        kept = [parameter for name, parameter in signature.parameters.items() if name != "world"]
        wrapped.__signature__ = signature.replace(parameters=kept)
    return wrapped


def _choose(studios: Sequence[Studio], world: str) -> Studio:
    """The studio of a world, among those that can do what is asked."""
    for studio in studios:
        if studio.key == world:
            return studio
    raise ValueError(f"world {world!r}; allowed here: {', '.join(studio.key for studio in studios)}")


def _gamma(studio: Studio, gamma: float | None) -> float:
    return studio.gamma if gamma is None else gamma


def _check_seed(seed: int) -> int:
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {seed!r}; allowed: whole numbers from 0 to {MAX_SEED}")
    return seed
