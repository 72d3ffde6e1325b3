"""Supervision of the tiny CLIP's image tower with the exact truth of symbolic scenes.

Every question that can be asked of a scene is a linear classifier on its embedding: "what colour is the badge behind
the dog?" has a weight matrix of its own, trained on the pictures with one dog. An embedding that serves all of these
classifiers at once is one from which an adapter can read the answer to any question. The heads are thrown away.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.data.emoji.labels import CATEGORY_OF_OBJECT
from core.data.emoji.world import BESIDE, CATEGORY_NAMES, COLOURS, OBJECTS, PLACES, SHAPES, SIZES

N, K, P, S, Z, X = (len(x) for x in (OBJECTS, CATEGORY_NAMES, PLACES, SHAPES, SIZES, COLOURS))
PER_CATEGORY = N // K
assert N == K * PER_CATEGORY, "every category has equally many objects, so that `name % PER_CATEGORY` indexes within it"
# (place, direction, place there), and direction 4 joins the two things of a scene of two
_PAIRS = [(PLACES.index(a), i, PLACES.index(b)) for i, d in enumerate(BESIDE) for a, b in BESIDE[d].items()]
_OTHER = 4


class SceneHeads(nn.Module):
    """Linear readouts of an embedding (B, D) and, as an auxiliary signal, of the trunk's cells (B, 4, W)."""

    def __init__(self, dim: int, cell_width: int) -> None:
        super().__init__()
        self.cells = nn.Linear(cell_width, N + 1 + X + 1 + S + 1 + Z + 1)
        self.whole = nn.Linear(dim, X + (X + 1) + P)
        self.place = nn.Linear(dim, P * (N + 1 + K + 1 + X + 1 + S + 1 + Z + 1))
        self.object = nn.Linear(dim, N * (P + X + 1 + S + 1 + Z))
        self.category = nn.Linear(dim, K * (P + X + 1 + S + 1 + Z + PER_CATEGORY))
        self.colour = nn.Linear(dim, X * (K + P + S + Z + N))
        self.shape = nn.Linear(dim, S * (K + P + X + Z + N))
        self.size = nn.Linear(dim, Z * (K + P + X + 1 + S + 1))
        self.counts = nn.Linear(dim, 3 * (K + X + S))
        self.beside = nn.Parameter(torch.randn((len(BESIDE) + 1) * N, K + X + 1 + S + 1 + Z, dim) / math.sqrt(dim))
        self.register_buffer("category_of", torch.as_tensor(CATEGORY_OF_OBJECT), persistent=False)

    def forward(self, embedding: Tensor, cells: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Losses and accuracies by readout.

        Args:
            embedding: (B, D) unit vectors. cells: (B, 4, W). labels: (B, 5, 4) of `core.data.emoji.labels`.

        Returns:
            name -> (cross-entropy in units of log(classes), accuracy), both scalars.
        """
        out: dict[str, tuple[Tensor, Tensor]] = {}

        def add(name: str, logits: Tensor, target: Tensor) -> None:
            if len(target):
                loss = F.cross_entropy(logits.float(), target) / math.log(logits.shape[-1])
                out[name] = (loss, (logits.argmax(-1) == target).float().mean().detach())

        e = embedding * math.sqrt(embedding.shape[-1])
        B = len(e)
        name, colour, shape, size = labels[:, :4].unbind(-1)  # (B, 4) each, -1 where absent
        present = name >= 0
        category = torch.where(present, self.category_of[name.clamp(min=0)], -1)
        colour0, shape0 = colour % (X + 1), shape % (S + 1)  # "no badge" becomes the last class
        background, frame, count = labels[:, 4, 0], labels[:, 4, 1] % (X + 1), labels[:, 4, 2] - 1

        for part, logits in zip(
            ("name", "colour", "shape", "size"), self.cells(cells).split((N + 1, X + 1, S + 1, Z + 1), -1), strict=True
        ):
            target = {"name": name % (N + 1), "colour": colour0, "shape": shape0, "size": size % (Z + 1)}[part]
            add(f"cell {part}", logits.flatten(0, 1), target.flatten())

        a, b, c = self.whole(e).split((X, X + 1, P), -1)
        add("background", a, background)
        add("frame", b, frame)
        add("count", c, count)

        parts = self.place(e).view(B * P, -1).split((N + 1, K + 1, X + 1, S + 1, Z + 1), -1)
        for part, logits, target in zip(
            ("name", "kind", "colour", "shape", "size"),
            parts,
            (name % (N + 1), category % (K + 1), colour0, shape0, size % (Z + 1)),
            strict=True,
        ):
            add(f"place: {part}", logits, target.flatten())

        # Each thing present asks about itself by name, by category, colour, shape, size if that names it alone.
        rows, places = present.nonzero(as_tuple=True)  # (M,)
        own = {
            "place": places,
            "colour": colour0[rows, places],
            "shape": shape0[rows, places],
            "size": size[rows, places],
            "kind": category[rows, places],
            "within": name[rows, places] % PER_CATEGORY,
        }

        def ask(who: str, head: nn.Linear, values: Tensor, keep: Tensor, split: dict[str, int], classes: int) -> None:
            logits = head(e).view(B, classes, -1)[rows[keep], values[keep]]  # (m, sum of split)
            for part, chunk in zip(split, logits.split(list(split.values()), -1), strict=True):
                target = own[part][keep]
                valid = target < chunk.shape[-1]  # a missing badge is no answer where "none" is no class
                add(f"{who}: {part}", chunk[valid], target[valid])

        everything = torch.ones_like(rows, dtype=torch.bool)
        ask(
            "object",
            self.object,
            name[rows, places],
            everything,
            {"place": P, "colour": X + 1, "shape": S + 1, "size": Z},
            N,
        )

        def alone(values: Tensor) -> Tensor:
            same = (values[:, :, None] == values[:, None, :]).sum(-1) == 1  # (B, 4)
            return same[rows, places]

        badged = colour[rows, places] >= 0
        ask(
            "category",
            self.category,
            category[rows, places],
            alone(category),
            {"place": P, "colour": X + 1, "shape": S + 1, "size": Z, "within": PER_CATEGORY},
            K,
        )
        ask(
            "size",
            self.size,
            size[rows, places],
            alone(size),
            {"kind": K, "place": P, "colour": X + 1, "shape": S + 1},
            Z,
        )
        for who, head, values, split in (
            ("colour", self.colour, colour, {"kind": K, "place": P, "shape": S, "size": Z}),
            ("shape", self.shape, shape, {"kind": K, "place": P, "colour": X, "size": Z}),
        ):
            classes = X if who == "colour" else S
            logits = head(e).view(B, classes, -1)
            keep = badged & alone(values)
            chosen = logits[rows[keep], values[rows, places][keep]]
            for part, chunk in zip(split, chosen[:, :-N].split(list(split.values()), -1), strict=True):
                add(f"{who}: {part}", chunk, own[part][keep])
            # "which animal is on the red badge?": told apart from other animals only by its badge
            keep = badged & alone(torch.where(values >= 0, values * K + category, -1))
            chosen = logits[rows[keep], values[rows, places][keep]][:, -N:].view(-1, K, PER_CATEGORY)
            chosen = chosen[torch.arange(len(chosen)), own["kind"][keep]]
            add(f"{who}: within", chosen, own["within"][keep])

        tallies = [
            F.one_hot(values + 1, n + 1).sum(1)[:, 1:].clamp(max=2)
            for values, n in ((category, K), (colour, X), (shape, S))
        ]
        for who, logits, tally in zip(
            ("kinds", "colours", "shapes"), self.counts(e).split((3 * K, 3 * X, 3 * S), -1), tallies, strict=True
        ):
            add(f"how many {who}", logits.reshape(-1, 3), tally.flatten())

        pairs = [(present[:, a] & present[:, b], a, d, b) for a, d, b in _PAIRS]
        pairs += [
            (present[:, a] & present[:, b] & (count == 1), a, _OTHER, b) for a in range(P) for b in range(P) if a != b
        ]
        index = [(mask.nonzero()[:, 0], a, d, b) for mask, a, d, b in pairs]
        rows2 = torch.cat([r for r, *_ in index])
        asked = torch.cat([d * N + name[r, a] for r, a, d, _ in index])
        logits = torch.einsum("md,mkd->mk", e[rows2], self.beside[asked])
        for part, chunk, table in zip(
            ("kind", "colour", "shape", "size"),
            logits.split((K, X + 1, S + 1, Z), -1),
            (category, colour0, shape0, size),
            strict=True,
        ):
            add(f"beside: {part}", chunk, torch.cat([table[r, b] for r, _, _, b in index]))
        return out
