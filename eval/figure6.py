"""Figure 6: a map of the question embeddings, training questions as dots, test questions as crosses.

Projects the embeddings to two dimensions, by UMAP where umap-learn is installed (it is no requirement), else by PCA,
and colours them by family. Counts how many test questions have a training question of their own family for their
nearest (cosine of centred embeddings).

Needs a release directory (default: the shipped weights), of which it reads the backbone alone; encodes images on the
first use, then caches them. Prints the counts; writes the picture to --plot, counts and points with --json. Seconds;
with UMAP half a minute.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's root, so that it runs from any folder

from typing import Any

import torch
from torch import Tensor

from core.data.tasks import TaskSet
from eval.harness import figures, tables
from eval.harness.releases import open_release
from eval.harness.results import write_results


def project(e: Tensor) -> tuple[str, Tensor]:
    """The method's name, and embeddings e (Q, D) as points (Q, 2)."""
    centred = e - e.mean(0)
    try:
        from umap import UMAP
    except ImportError:
        left, size, _ = torch.linalg.svd(centred, full_matrices=False)
        return "PCA", left[:, :2] * size[:2]
    umap = UMAP(metric="cosine", random_state=0, n_jobs=1, tqdm_kwds={"desc": "UMAP", "disable": False, "leave": False})
    return "UMAP", torch.from_numpy(umap.fit_transform(centred.numpy()))


def nearest(train: Tensor, test: Tensor) -> Tensor:
    """The training question (T,) most similar to each test question: embeddings (R, D) and (T, D)."""
    mean = train.mean(0)
    normalize = torch.nn.functional.normalize
    return (normalize(test - mean, dim=-1) @ normalize(train - mean, dim=-1).mT).argmax(1)


def neighbours(train: TaskSet, test: TaskSet) -> list[dict[str, Any]]:
    """How often the nearest training question is of the test question's family, and a training question at random."""
    families = sorted({task.family for task in (*train.tasks, *test.tasks)})
    of_train, of_test = (torch.tensor([families.index(task.family) for task in s.tasks]) for s in (train, test))
    same = of_train == of_test[:, None]  # (T, R)
    near = nearest(train.question_features.float(), test.question_features.float())
    rows = {
        "nearest_question": same.gather(1, near.cpu()[:, None]).mT,
        "chance": same.double().mean(1)[None],
    }
    return [
        {"row": row, "gamma": None, "descriptors": 1.0, **summary}
        for row, scores in rows.items()
        for summary in tables.summaries(scores, test, [])
    ]


def question_map(train: TaskSet, test: TaskSet) -> dict[str, Any]:
    """The map: which method made it, and for every family whether it is new, and its points by split."""
    method, points = project(torch.cat([train.question_features, test.question_features]).float().cpu())
    families: dict[str, dict[str, Any]] = {}
    for task, point in zip((*train.tasks, *test.tasks), points.tolist(), strict=True):
        family = families.setdefault(task.family, {"new": task.new_family, "train": [], "test": []})
        family[task.split].append([round(x, 3) for x in point])
    return {"method": method, "families": dict(sorted(families.items()))}


def plot(found: dict[str, Any], path: Path) -> None:
    """The map that `question_map` made, with a legend of all families."""
    plt = figures.pyplot()
    families = found["families"]
    colours = plt.get_cmap("gist_rainbow")
    figure, axis = plt.subplots(figsize=(12, 7.5))
    for number, (name, family) in enumerate(families.items()):
        colour = colours(number / len(families))
        for split, marker in (("train", "o"), ("test", "x")):
            x, y = zip(*family[split], strict=True) if family[split] else ((), ())
            axis.scatter(x, y, s=18, marker=marker, linewidths=0.8, color=colour)
        axis.scatter([], [], color=colour, label=name + (" (new)" if family["new"] else ""))
    counts = [sum(len(family[split]) for family in families.values()) for split in ("train", "test")]
    axis.set_title(
        f"{found['method']} of {counts[0]} training questions (dots) and {counts[1]} test questions (crosses)"
    )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.legend(fontsize=6.5, frameon=False, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figures.save(figure, path)


def main(argv: list[str] | None = None) -> None:
    arguments = figures.parser(__doc__, plot=Path("eval/results/figure6.png"))
    args = arguments.parse_args(argv)
    run, _ = open_release(arguments, args)
    test = run.task_set("test")
    test = test.select(range(args.limit_tasks or len(test)))
    records = neighbours(run.train, test)
    print(tables.grid(records, lambda r: r["row"]).to_string())
    print(
        f"\nShare in % of {run.preset.name}'s test questions of whose family is their nearest training question, or "
        "one drawn at random.\nNew: families without training questions, never by definition."
    )
    found = question_map(run.train, test)
    if args.json:
        write_results(args.json, run.preset.name, records, "eval/figure6.py", map=found)
    plot(found, args.plot)


if __name__ == "__main__":
    main()
