"""Mistakes that somebody could make, each with the test that catches it.

    python -m tests.mutations            plants each in a copy of the tree and runs its test: about five minutes
    python -m tests.mutations 3 7        some, by number

Prints a line for each mutation. Exit status 1 if a test passes on its mutation, or fails without it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from core.console import Parser

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("core", "train", "eval", "tests", "app.py", "pyproject.toml")  # of the tree, beside the weights


@dataclass(frozen=True)
class Mutation:
    """Replace the text `before`, which occurs once in `file`, by `after`: `test` then fails."""

    what: str
    file: str
    before: str
    after: str
    test: str


MUTATIONS = (
    Mutation(
        "guidance by the question and without it swapped",
        "core/diffusion/guidance.py",
        "(1 - gamma) * without + gamma * with_e",
        "(1 - gamma) * with_e + gamma * without",
        "tests/test_properties.py::test_guidance_is_the_convention_of_eq_10",
    ),
    Mutation(
        "classifier guidance away from the class",
        "core/diffusion/guidance.py",
        "return eps.detach() - scale",
        "return eps.detach() + scale",
        "tests/test_properties.py::test_gradient_guidance_is_eq_11",
    ),
    Mutation(
        "HyperCLIP guidance away from the question",
        "core/networks/hyperclip.py",
        "(lam * distance - cosine)",
        "(lam * distance + cosine)",
        "tests/test_properties.py::test_guidance_by_hyperclip",
    ),
    Mutation(
        "HyperCLIP trained on questions given weights alone",
        "core/networks/hyperclip.py",
        "F.cross_entropy(logits.mT, target)",
        "F.cross_entropy(logits, target)",
        "tests/test_metrics_scipy.py::test_the_contrastive_loss",
    ),
    Mutation(
        "padded examples count in the loss",
        "core/networks/base.py",
        "(each * batch.example_mask).sum(1)",
        "each.sum(1)",
        "tests/test_properties.py::test_a_task_in_a_ragged_batch_is_the_task_alone",
    ),
    Mutation(
        "padded answers can be chosen",
        "core/networks/base.py",
        "return logits.masked_fill(~batch.answer_mask[:, None, :], -torch.inf)",
        "return logits",
        "tests/test_properties.py::test_a_task_in_a_ragged_batch_is_the_task_alone",
    ),
    Mutation(
        "support and query swapped where they are drawn",
        "core/data/tasks.py",
        "return batch.with_mask(in_support).trimmed(), batch.with_mask(~in_support).trimmed()",
        "return batch.with_mask(~in_support).trimmed(), batch.with_mask(in_support).trimmed()",
        "tests/test_tasks.py::test_support_and_query_are_disjoint_and_cover",
    ),
    Mutation(
        "adapted to the query examples that it is tested with",
        "core/adaptation/inner_loop.py",
        "adapt(start, support_loss, differentiable=True",
        "adapt(start, query_loss, differentiable=True",
        "tests/test_properties.py::test_a_task_adapts_in_a_ragged_batch_as_it_does_alone",
    ),
    Mutation(
        "gradient ascent in the inner loop",
        "core/adaptation/inner_loop.py",
        "current = current - lr * gradient",
        "current = current + lr * gradient",
        "tests/test_adapt.py::test_adaptation_lowers_the_loss_and_leaves_no_graph",
    ),
    Mutation(
        "first and second order swapped",
        "core/adaptation/inner_loop.py",
        "keep_graph = differentiable and not first_order",
        "keep_graph = differentiable and first_order",
        "tests/test_adapt.py::test_second_order_matches_finite_differences",
    ),
    Mutation(
        "another process for fewer steps: the last of them does not land on z_0",
        "core/diffusion/samplers.py",
        "float(alpha_bar[sequence[i + 1]]) if i + 1 < len(sequence) else 1.0",
        "float(alpha_bar[max(t - 1, 0)])",
        "tests/test_diffusion.py::test_a_gaussian_comes_back",
    ),
    Mutation(
        "the condition is kept where it should be dropped, and dropped where it should be kept",
        "core/networks/hyperldm.py",
        "device=rng.device).to(e.device) >= probability",
        "device=rng.device).to(e.device) < probability",
        "tests/test_models.py::test_dropped_conditions_are_zeros_at_the_asked_rate",
    ),
    Mutation(
        "no condition is whitened like a question, and becomes one",
        "core/networks/hyperldm.py",
        ".masked_fill(dropped, 0.0)",
        "",
        "tests/test_models.py::test_noise_on_the_denoisers_condition_is_the_callers_and_spares_dropped_ones",
    ),
    Mutation(
        "the average of weights follows the last step alone",
        "core/networks/ema.py",
        "value.lerp_(source[name], 1 - decay)",
        "value.lerp_(source[name], decay)",
        "tests/test_models.py::test_ema_in_closed_form",
    ),
    Mutation(
        "confidence calibrated to the wrong side",
        "core/adaptation/calibration.py",
        "if slope(middle) < 0 else",
        "if slope(middle) > 0 else",
        "tests/test_metrics_scipy.py::test_the_fitted_scale_has_the_least_cross_entropy",
    ),
    Mutation(
        "support and query swapped where a dataset is built",
        "core/data/built.py",
        'entry["train"] += [[image, answer] for image in images[:cut]]',
        'entry["train"] += [[image, answer] for image in images[cut:]]',
        "tests/test_importer_properties.py::test_the_rules_on_files_like_vqa_v2s",
    ),
)


def _copy(to: Path) -> None:
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, to / name)
    (to / "weights").symlink_to(ROOT / "weights", target_is_directory=True)


def _passes(tree: Path, *tests: str) -> bool:
    """Whether tests pass in a tree. A RuntimeError says what pytest printed if they cannot be run."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, encoding="utf-8")
    if done.returncode not in (0, 1):  # no such test, or an import that fails
        raise RuntimeError(f"{tests}: {done.stdout}{done.stderr}")
    return done.returncode == 0


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m tests.mutations", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("numbers", nargs="*", type=int, help=f"1 to {len(MUTATIONS)} (default: all)")
    args = parser.parse_args(argv)
    if wrong := [number for number in args.numbers if not 1 <= number <= len(MUTATIONS)]:
        parser.error(f"number {wrong[0]}; allowed: 1 to {len(MUTATIONS)}")
    chosen = args.numbers or range(1, len(MUTATIONS) + 1)
    survived = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        tree = Path(folder)
        _copy(tree)
        tests = sorted({MUTATIONS[number - 1].test for number in chosen})
        if not _passes(tree, *tests):
            print("the tests fail without any mutation")
            return 1
        for number in chosen:
            mutation = MUTATIONS[number - 1]
            path = tree / mutation.file
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(mutation.before, mutation.after), encoding="utf-8")
            caught = not _passes(tree, mutation.test)
            path.write_text(text, encoding="utf-8")
            survived += not caught
            print(f"{number:>3} {'caught' if caught else 'SURVIVED':>8}  {mutation.what} ({mutation.test})", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} mutations are caught")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
