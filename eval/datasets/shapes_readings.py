"""One small word, without any of our models: how must a question be read so that its pictures can be answered?

Kernel ridge regression on pairs of question and picture, with the kernel k(q, q') <x, x'> of the tiny CLIP's embeddings
x, fitted to all pictures of three quarters of the training and validation questions of `shapes.py` and judged on the
others, four folds. Test questions are not looked at. The rows differ in k alone:

- *e of the sentence encoder*, whitened; *words*, each present or not;
- *words, the denial told*: every "no" is taken out, and told as a sign, +1 or -1, that multiplies the kernel;
- *e, a sign learned*: nobody tells. k(q, q') = s(q) s(q') <e, e'>, where s is an affine function of e that has the most
  evidence on the questions at hand: a Gaussian process from e to probes of each question's pictures;
- *in pairs*: the same, quadratic.

Beside them, probes of every question's own support pictures, judged on its other pictures. Whitening in a kernel is
that of all these questions, held out or not. Prior, starts and steps of the learned sign were settled on these folds.

Needs a release for its backbone and question encoder (weights/emoji). Prints the table; writes it with --json. Three
minutes on one CPU thread.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's root, so that it runs from any folder

import argparse
import re
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from core.console import Parser
from core.generator import AdapterGenerator
from eval.datasets.shapes import PICTURES
from eval.harness.results import write_results
from eval.harness.shapes import Question, draw_scene, questions, scenes

FOLDS, SUPPORT = 4, round(0.7 * PICTURES)
RIDGES = (1.0, 10.0, 100.0)
PROBE = 3.0  # ridge of the probes that a sign is learned from
STARTS, STEPS = 12, 300
READ, TOLD, LEARNED = "e of the sentence encoder", "words, the denial told", "e, a sign learned"
WHITENING = 0.1  # relative to the largest variance, as in the preset
DENIED = {"nothing": "anything", "no": "a", "not": ""}  # by what a denying word is replaced


def kernels(asked: list[Question], e: Tensor) -> dict[str, Tensor]:
    """By reading: k (Q, Q), of 1 on its diagonal on average."""
    told = [" ".join(DENIED.get(word, word) for word in _words(q)).replace("something", "anything") for q in asked]
    plain, stripped = _bags([_words(q) for q in asked]), _bags([text.split() for text in told])
    sign = torch.tensor([-1.0 if q.negated else 1.0 for q in asked])
    found = {READ: _linear(_whitened(e)), "words": _linear(plain)}
    found[TOLD] = _linear(stripped)
    found |= {f"{name}, in pairs": (k + 1) ** 2 / 4 for name, k in found.items()}
    return {name: k * torch.outer(sign, sign) if TOLD in name else k for name, k in found.items()}


def _words(question: Question) -> list[str]:
    return re.findall(r"\w+", question.text.lower())


def _bags(texts: list[list[str]]) -> Tensor:
    """Which words (Q, V) each text has."""
    vocabulary = sorted({word for text in texts for word in text})
    return torch.tensor([[float(word in text) for word in vocabulary] for text in texts])


def _whitened(e: Tensor) -> Tensor:
    u, s, _ = torch.linalg.svd(e - e.mean(0), full_matrices=False)
    return u * (s / (s.square() + WHITENING * s[0] ** 2).sqrt())


def _linear(features: Tensor) -> Tensor:
    k = features @ features.mT
    return k / k.diagonal().mean()


def folds(count: int) -> list[tuple[Tensor, Tensor]]:
    """Which questions each fold is fitted to, and which it is judged on."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return [(order[torch.arange(count) % FOLDS != fold], order[fold::FOLDS]) for fold in range(FOLDS)]


@torch.inference_mode(False)
def learned_sign(e: Tensor, x: Tensor, y: Tensor, near: Tensor) -> Tensor:
    """s (Q,) of all questions, an affine function of e whose parameters have the most evidence on the questions `near`.

    The probes of these, at unit length, are taken as draws of a Gaussian process with the kernel
    a s(q) s(q') (b + <e, e'>) + d <e, e'> + g, with noise n; the prior of s is standard normal. (a, b, d, g and n are
    found with it.) Of `STARTS` beginnings at random the best counts. Which of the two signs is +1 is arbitrary.
    """
    gram = (x @ x.mT + PROBE * torch.eye(x.shape[1]))[near]
    probes = torch.nn.functional.normalize((x[near].mT @ torch.linalg.solve(gram, y[near, :, None]))[..., 0], dim=-1)
    outer = (probes @ probes.mT).double()
    mean = e[near].double().mean(0)
    _, spread, axes = torch.linalg.svd(e[near].double() - mean, full_matrices=False)
    read = (e.double() - mean) @ axes.mT / (spread.square() + WHITENING * spread[0] ** 2).sqrt()  # (Q, R)
    read /= read[near].norm(dim=1).mean()
    known, eye = read[near], torch.eye(len(near), dtype=torch.float64)
    linear, best = known @ known.mT, None
    for start in range(STARTS):
        rng = torch.Generator().manual_seed(start)
        v = torch.randn(read.shape[1], generator=rng, dtype=torch.float64).requires_grad_()
        offset = torch.zeros((), dtype=torch.float64, requires_grad=True)
        log = torch.tensor([-1.0, -2.0, -1.0, -3.0, -1.0], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([v, offset, log], lr=0.05)
        for _ in range(STEPS):
            a, b, d, g, n = log.exp()
            s = known @ v + offset
            s = s / s.square().mean().sqrt()
            root = torch.linalg.cholesky(a * (b + linear) * torch.outer(s, s) + d * linear + g + n * eye)
            loss = 0.5 * (torch.cholesky_inverse(root) * outer).sum() + root.diagonal().log().sum()
            loss = loss + 0.5 * v.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if best is None or loss < best[0]:
            best = loss.detach(), (read @ v + offset).detach()
    assert best is not None
    return best[1].sign().float()


def held_out(k: Tensor | list[Tensor], x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """The accuracy (Q,) of every question when its fold is held out: x (Q, N, D), y (Q, N) of +1 and -1. `k` (Q, Q), or
    one of each fold."""
    count, pictures, _ = x.shape
    alike = torch.einsum("qnd,pmd->qnpm", x, x)
    accuracy = torch.zeros(count)
    of_fold = [k] * FOLDS if isinstance(k, Tensor) else k
    for k, (near, away) in zip(of_fold, folds(count), strict=True):
        rows = len(near) * pictures
        gram = (k[near][:, near][:, None, :, None] * alike[near][:, :, near]).reshape(rows, rows)
        gram.diagonal().add_(ridge)
        dual = torch.linalg.solve(gram, y[near].reshape(-1))
        cross = (k[away][:, near][:, None, :, None] * alike[away][:, :, near]).reshape(len(away), pictures, rows)
        accuracy[away] = ((cross @ dual).sign() == y[away]).float().mean(1)
    return accuracy


def own(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """The accuracy (Q,) on the other pictures of a question, of ridge regression on its support pictures."""
    support, query = x[:, :SUPPORT], x[:, SUPPORT:]
    gram = support @ support.mT + ridge * torch.eye(SUPPORT)
    dual = torch.linalg.solve(gram, y[:, :SUPPORT, None])
    return ((query @ (support.mT @ dual))[..., 0].sign() == y[:, SUPPORT:]).float().mean(1)


def evaluate(asked: list[Question], x: Tensor, e: Tensor, y: Tensor) -> tuple[list[dict[str, Any]], list[float]]:
    """A record a reading and ridge: mean accuracy, and how many questions are upside down (below 40%). And, by fold, of
    how many held-out questions the learned sign is that of the denial."""
    x = x - x.mean((0, 1))
    x = torch.cat((x / x.std(), x.new_full((*x.shape[:2], 1), 5.0)), -1) / x.shape[-1] ** 0.5  # a constant, for bias
    every: dict[str, Any] = kernels(asked, e)  # k of all questions, or one of each fold
    parts = folds(len(asked))
    learned = [learned_sign(e, x, y, near) for near, _ in tqdm(parts, desc="signs")]
    every[LEARNED] = [every[READ] * torch.outer(s, s) for s in learned]
    told = torch.tensor([-1.0 if q.negated else 1.0 for q in asked])
    share = lambda s, rows: float((s[rows] == told[rows]).float().mean())
    # Which of the two signs means a denial is said by the questions that it was fitted to.
    agreed = [share(s if share(s, near) >= 0.5 else -s, away) for s, (near, away) in zip(learned, parts, strict=True)]
    found = []
    for ridge in RIDGES:
        accuracies = {"its own support pictures": own(x, y, ridge)}
        for name in tqdm(every, desc=f"ridge {ridge:g}"):
            accuracies[name] = held_out(every[name], x, y, ridge)
        for name, accuracy in accuracies.items():
            upside_down = int((accuracy < 0.4).sum())
            found.append({"reading": name, "ridge": ridge, "mean": float(accuracy.mean()), "upside_down": upside_down})
    return found, agreed


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="weights/emoji", metavar="DIR", help="a release (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the shapes' questions and pictures (default: 0)")
    parser.add_argument("--json", type=Path, help="where to write results")
    args = parser.parse_args(argv)
    try:
        release = AdapterGenerator.from_pretrained(args.weights)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    asked = [question for question in questions(args.seed) if question.split != "test"]
    shown = [scenes(question, PICTURES, args.seed) for question in asked]
    images = [release.embed_images([draw_scene(scene) for scene in part]) for part in tqdm(shown, desc="pictures")]
    y = torch.tensor(
        [[1.0 if q.answer(scene) == "yes" else -1.0 for scene in part] for q, part in zip(asked, shown, strict=True)]
    )
    records, agreement = evaluate(asked, torch.stack(images), release.embed_questions([q.text for q in asked]), y)
    for record in records:
        print(
            f"{record['reading']:<42} ridge {record['ridge']:<5g} {record['mean']:.1%}, "
            f"{record['upside_down']} of {len(asked)} upside down"
        )
    shares = ", ".join(f"{share:.0%}" for share in agreement)
    print(f"the learned sign is that of the denial for {shares} of held-out questions, by fold")
    if args.json:
        more = {"questions": len(asked), "agreement": agreement}
        write_results(args.json, "emoji", records, "eval/datasets/shapes_readings.py", **more)


if __name__ == "__main__":
    main()
