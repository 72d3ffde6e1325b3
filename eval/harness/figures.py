"""What the scripts of figures share: the flag of the plot, checked before anything is computed, and matplotlib."""

from __future__ import annotations

import argparse
from pathlib import Path

from eval.harness import releases


def parser(doc: str, plot: Path | None = None) -> argparse.ArgumentParser:
    """The flags of all evaluation scripts, and --plot with its default."""
    result = releases.parser(doc)
    result.add_argument(
        "--plot", type=_png, default=plot, help="write the plot here, a .png file (default: %(default)s)"
    )
    return result


def _png(text: str) -> Path:
    if Path(text).suffix != ".png":
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: a name that ends in .png")
    return Path(text)


def pyplot():
    """Matplotlib without a screen, imported by who plots."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save(figure, path: Path) -> None:
    """Write a figure, the same bytes for the same figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot().close(figure)
    print(f"wrote {path}")


def save_with_legend(figure, axis, path: Path) -> None:
    """`save` a figure whose last panel, `axis`, has the legend at its right."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    save(figure, path)
