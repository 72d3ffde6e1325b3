"""The Results tab: the committed tables and charts."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from ..views import results

_SHOWN = (
    ("table1", "Table 1: test accuracy, method by method", results.table1),
    ("links", "Link by link: where accuracy is lost", results.links),
    ("figure5", "Figure 5: strength of guidance", results.figure5_panels),
)


def results_tab(directory: Path, preset: str, prefix: str = "", release: Path | None = None) -> None:
    """Lay the tab out, of the results in a directory that are of this preset: others say nothing of its releases.

    Args:
        prefix: begins the names of the tab's elements.
        release: one's own, whose results lie in its folder `results`; not one of those whose lie in the directory.
    """
    for name, title, show in _SHOWN:
        gr.Markdown(f"### {title}")
        document = results.find(directory if release is None else release / "results", name, preset)
        if document is None:
            taken = (directory / f"{name}.json").is_file()  # by another preset
            gr.HTML(results.missing(name, preset, release, f"{preset}_{name}" if taken else name))
            continue
        gr.HTML(show(document), elem_id=f"{prefix}results-{name}")
        gr.HTML(results.source(document))
