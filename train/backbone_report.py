"""How good the tiny CLIP is: linear probes per question, beside zero-shot, for every family of Emoji-VQA."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from core.backbone import Backbone
from core.data.emoji_questions import FAMILIES
from core.data.emoji_scene import draw_array
from core.data.emoji_world import World, WorldConfig

TRAIN, TEST, FEW = 500, 200, 58
_PENALTIES = (1e-3, 1e-2, 1e-1)


def fit_probe(x: Tensor, y: Tensor, classes: int, penalty: float, steps: int = 200) -> tuple[Tensor, Tensor]:
    """One multinomial logistic regression per question: x (Q, N, D), y (Q, N) to W (Q, D, C), b (Q, 1, C)."""
    weight = torch.zeros(x.shape[0], x.shape[2], classes, requires_grad=True)
    bias = torch.zeros(x.shape[0], 1, classes, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=0.05)
    for _ in range(steps):
        logits = x @ weight + bias
        # The sum over questions keeps them independent of each other.
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / x.shape[1]
        loss = loss + penalty * weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weight.detach(), bias.detach()


def probe_accuracy(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, classes: int) -> Tensor:
    """Test accuracy (Q,) of a probe whose L2 penalty is chosen on a fifth of the training scenes."""
    mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True) + 1e-4
    x, x_test = (x - mean) / std, (x_test - mean) / std
    held = x.shape[1] // 5

    def accuracy(penalty: float, xa: Tensor, ya: Tensor, xb: Tensor, yb: Tensor) -> Tensor:
        weight, bias = fit_probe(xa, ya, classes, penalty)
        return ((xb @ weight + bias).argmax(-1) == yb).float().mean(1)

    best = max(_PENALTIES, key=lambda p: accuracy(p, x[:, held:], y[:, held:], x[:, :held], y[:, :held]).mean())
    return accuracy(best, x, y, x_test, y_test)


def report(backbone: Backbone, questions: int = 8, seed: int = 0, json_path: Path | None = None) -> pd.DataFrame:
    """Print and return, per family: probes on 500 and on 58 scenes, zero-shot with bare and with prompted answers,
    and the share of the commonest answer; all accuracies on 200 unseen scenes of every question."""
    world = World(WorldConfig())
    rows = []
    for family in tqdm(FAMILIES.values(), desc="families", mininterval=5):
        rng = random.Random(f"report/{seed}/{family.name}")
        by_argument = {question.argument: question for question in rng.sample(family.questions, len(family.questions))}
        pool = list(by_argument.values())
        pool += [question for question in family.questions if question not in pool]  # few arguments: more phrasings
        features, answers, chosen = [], [], pool[:questions]
        for question in chosen:
            scenes, given = zip(
                *(
                    family.draw(world, random.Random(f"report/{seed}/{question.text}/{i}"), question.argument)
                    for i in range(TRAIN + TEST)
                ),
                strict=True,
            )
            features.append(backbone.encode_images(np.stack([draw_array(scene) for scene in scenes])))
            answers.append(given)
        names = sorted({answer for given in answers for answer in given})
        x = torch.stack(features)  # (Q, N, D)
        y = torch.tensor([[names.index(answer) for answer in given] for given in answers])  # (Q, N)
        possible = F.one_hot(y, len(names)).any(1)  # (Q, C): answers that the question has
        row = {"family": family.name, "answers": float(possible.sum(1).float().mean())}
        row["majority"] = float(F.one_hot(y[:, TRAIN:], len(names)).float().mean(1).amax(1).mean())
        for name, texts in (
            ("zero-shot", [names] * len(chosen)),
            ("prompted", [[q.prompt.format(a) for a in names] for q in chosen]),
        ):
            text = torch.stack([backbone.encode_texts(t) for t in texts])  # (Q, C, D)
            scores = (x[:, TRAIN:] @ text.mT).masked_fill(~possible[:, None], -torch.inf)
            row[name] = float((scores.argmax(-1) == y[:, TRAIN:]).float().mean())
        for name, n in ((f"probe {FEW}", FEW), (f"probe {TRAIN}", TRAIN)):
            row[name] = float(probe_accuracy(x[:, :n], y[:, :n], x[:, TRAIN:], y[:, TRAIN:], len(names)).mean())
        rows.append(row)
    table = pd.DataFrame(rows).set_index("family").sort_values(f"probe {TRAIN}")
    table.loc["mean over families"] = table.mean()
    print(table.to_string(float_format=lambda value: f"{value:.2f}"))
    worst, mean = table[f"probe {TRAIN}"].iloc[0], table[f"probe {TRAIN}"].iloc[-1]
    print(f"\nprobe on {TRAIN} scenes: mean {mean:.3f} (bar 0.80), worst {worst:.3f} (bar 0.60)")
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(table.round(4).reset_index().to_dict("records"), indent=1) + "\n")
    return table
