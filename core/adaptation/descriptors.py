"""Descriptors for tasks that lack one, inferred from their data: the task embedding that their question would have.

With half of the questions missing (the paper's 50% Q.), a denoiser hears half of the pairs of question and latent, and
the rest teaches it only what latents look like. But a task without a question still has images, answers and adapted
weights, and the tasks that have a question show how these go together. So a question is guessed first: the name of what
the images share, in sentences that other tasks ask. A Gaussian process corrects the guess. Beyond the paper: a setting
of every row that reads questions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.tasks import TaskBatch, TaskSet
from ..networks.whitening import Whitening

FORMAT = 3  # raise it when descriptors come out otherwise
MIN_DESCRIBED = 5
_SHARPNESS = 40.0  # of the choice among words, by cosine
_CARRIERS = 16  # sentences in which a word is embedded
_FIT_STEPS, _FIT_RATE = 150, 0.1  # of Adam on the process's share of the guess, and the logarithms of its other numbers
_MIN_NOISE = 1e-3

Carrier = tuple[str, ...]  # the parts of a sentence around its gaps; `word.join(carrier)` fills them
Features = Sequence[Sequence[Tensor]]
Squares = list[list[Tensor]]  # squared distances by feature, in groups
Encode = Callable[[Sequence[str]], Tensor]


def describe(train: TaskSet, batch: TaskBatch, described: Tensor, z: Tensor, encode: Encode) -> Tensor:
    """Task embeddings (T, E): the batch's own where a task is described (T,) bool, inferred ones elsewhere.

    Args:
        train: T tasks, and `batch` all of them.
        z: (T, Z), their latents.
        encode: gives the task embeddings (B, E) of a list of questions.

    Raises:
        ValueError: too few described tasks.
    """
    row: dict[str, int] = {}
    for task, rows in zip(train.tasks, train.answer_rows, strict=True):
        row.update(zip(task.answers, rows, strict=True))
    words = list(row)
    images = mean_images(batch)
    named = name_images(images, train.answer_features[list(row.values())].to(images))
    known = described.nonzero().squeeze(1).tolist()
    sentences = carriers([train.tasks[i].question for i in known], [words[k] for k in named[known].argmax(1).tolist()])
    spoken = encode([word.join(sentence) for sentence in sentences for word in words]).to(images)
    guess = named @ spoken.view(len(sentences), len(words), -1).mean(0)
    return infer_descriptors(batch.question, described, task_features(batch, images, guess, z), guess)


def mean_images(batch: TaskBatch) -> Tensor:
    """(T, D), the mean of each task's images: what they share."""
    mask = batch.example_mask.float()
    return (batch.images * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def name_images(images: Tensor, words: Tensor) -> Tensor:
    """Probabilities (T, V) that a word names what the images of a task share, by zero-shot CLIP.

    Args:
        images: (T, D), means of tasks. words: (V, D), embeddings. What all images or all words have in common is
            left out.
    """
    cosine = F.normalize(images - images.mean(0), dim=-1) @ F.normalize(words - words.mean(0), dim=-1).mT
    return (_SHARPNESS * cosine).softmax(-1)


def carriers(questions: Sequence[str], names: Sequence[str]) -> list[Carrier]:
    """Sentences with gaps: questions less the word that names their own images, where they say it.

    At most 16 of them, always the same ones. Where no question names its images, one that is nothing but a gap.
    """
    found = set()
    for question, name in zip(questions, names, strict=True):
        parts = re.split(rf"(?<!\w){re.escape(name)}(?!\w)", question, flags=re.IGNORECASE)
        if len(parts) > 1:
            found.add(tuple(parts))
    return random.Random(0).sample(sorted(found), min(_CARRIERS, len(found))) or [("", "")]


def task_features(batch: TaskBatch, images: Tensor, guess: Tensor, z: Tensor) -> Features:
    """What a task is like apart from its question, in groups of (T, F) features.

    Its mean image (T, D), and the guessed question (T, E), tell what the question is about; the mean answer tells what
    is asked; latent z (T, Z) and answer together tell it more exactly. All are standardised by coordinate, at unit mean
    square over tasks.
    """
    scaled = lambda x: (x - x.mean(0)) / x.std(0).clamp(min=1e-6) / x.shape[1] ** 0.5
    answers = scaled(batch.answers.sum(1) / batch.answer_mask.sum(1, keepdim=True))
    return (scaled(images),), (scaled(guess),), (answers,), (scaled(z), answers)


def infer_descriptors(e: Tensor, described: Tensor, features: Features, guess: Tensor) -> Tensor:
    """Task embeddings (T, E): e's own rows where a task is described, inferred ones elsewhere.

    A Gaussian process from `task_features` to whitened embeddings (`_Process`), fitted to the described tasks. A pure
    function: rows of `e` that are not described are not looked at.

    Args:
        e: (T, E). described: (T,) bool. guess: (T, E), embeddings that resemble those sought.

    Raises:
        ValueError: too few described tasks.
    """
    known, missing = described.nonzero().squeeze(1), (~described).nonzero().squeeze(1)
    if len(known) < MIN_DESCRIBED:
        raise ValueError(f"infer_descriptors: {len(known)} described tasks; at least {MIN_DESCRIBED} are needed")
    whitening = Whitening(e.shape[1]).to(e.device)
    whitening.fit(e[known])
    target = whitening(e[known]).double()
    guess = whitening(guess).double()
    guess = guess - guess[known].mean(0)
    process = _Process(target, guess[known], _squared_distances(features, known, known))
    process.fit()
    inferred = process.predict(guess[missing], _squared_distances(features, missing, known))
    return e.index_copy(0, missing, whitening.inverse(inferred.to(e.dtype)))


def _squared_distances(features: Features, rows: Tensor, known: Tensor) -> Squares:
    """Between tasks `rows` (n,) and `known` (m,), (n, m) for every feature of every group."""
    between = lambda x: torch.cdist(x[rows].double(), x[known].double()).square()
    return [[between(x) for x in group] for group in features]


class _Process:
    """A Gaussian process to several coordinates at once.

    Its mean is a share of the guess, its covariance that of a sum of functions, one of each group of features, whose
    kernel is Gaussian with a width for every feature in it. Share, widths, variances and noise, the same for all
    coordinates, are those of most marginal likelihood (Rasmussen & Williams 2006, Eq. 2.25 and 5.8).

    Shapes: target and guess (m, E), of the known tasks; `within`, their squared distances.
    """

    def __init__(self, target: Tensor, guess: Tensor, within: Squares) -> None:
        self.target, self.guess, self.within, self.mean = target, guess, within, target.mean(0)
        free = lambda value: torch.tensor(value, dtype=torch.float64, device=target.device, requires_grad=True)
        self.share, self.noise = free(0.3), free(-1.0)  # all but the share are logarithms
        self.variances = [free(-1.0) for _ in within]
        self.widths = [[free(0.0) for _ in group] for group in within]

    def _kernel(self, squares: Squares) -> Tensor:
        """Covariance (n, m) without noise, from squared distances."""
        total = torch.zeros_like(squares[0][0])
        for variance, group, widths in zip(self.variances, squares, self.widths, strict=True):
            exponent = variance
            for square, width in zip(group, widths, strict=True):
                exponent = exponent - square / (2 * width.exp().square())
            total = total + exponent.exp()
        return total

    def _factor(self) -> Tensor:
        """Cholesky factor (m, m) of the known tasks' covariance."""
        noise = (self.noise.exp() + _MIN_NOISE) * torch.eye(len(self.target)).to(self.target)
        return torch.linalg.cholesky(self._kernel(self.within) + noise)

    def _rest(self) -> Tensor:
        """What the mean leaves of the target, (m, E)."""
        return self.target - self.mean - self.share * self.guess

    def fit(self) -> None:
        """Find the free numbers by Adam on the negative log marginal likelihood, per coordinate."""
        free = [self.share, self.noise, *self.variances, *(width for group in self.widths for width in group)]
        optimizer = torch.optim.Adam(free, lr=_FIT_RATE)
        with torch.enable_grad():
            for _ in range(_FIT_STEPS):
                L, rest = self._factor(), self._rest()
                misfit = (rest * torch.cholesky_solve(rest, L)).sum() / (2 * self.target.shape[1])
                optimizer.zero_grad()
                (misfit + L.diagonal().log().sum()).backward()
                optimizer.step()

    @torch.no_grad()
    def predict(self, guess: Tensor, across: Squares) -> Tensor:
        """The posterior mean (n, E) of tasks with this guess (n, E) and these squared distances to the known ones."""
        weights = torch.cholesky_solve(self._rest(), self._factor())
        return self.mean + self.share * guess + self._kernel(across) @ weights
