"""Charts as inline SVG and HTML that follow the page's theme: colours come from the style sheet's classes c0 to c5."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from .templates import render

WIDTH, HEIGHT = 420, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 14, 12, 46
_SHOWN = (0.05, 0.95)  # quantiles of a cloud that are in sight: a few points far away would hide all that is near


@dataclass(frozen=True)
class Line:
    """One line of a chart; `low` and `high` make a band. `css` is its colour's class, dashed with " dashed"."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    css: str
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class _Frame:
    """Data coordinates to the picture's."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        return (
            _LEFT + (x - x0) / ((x1 - x0) or 1.0) * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - (y - y0) / ((y1 - y0) or 1.0) * (HEIGHT - _TOP - _BOTTOM),
        )

    def points(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*self.at(x, y)) for x, y in zip(xs, ys, strict=True))


def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float],
    y_range: tuple[float, float] = (0.0, 100.0),
    title: str = "",
    unit: str = "%",
    mark: float | None = None,
    mark_label: str = "",
) -> Markup:
    """Lines over a common x axis that spans `x_ticks`; `mark` is a vertical line, called `mark_label`."""
    frame = _Frame((x_ticks[0], x_ticks[-1]), y_range)
    told = "; ".join(
        f"{line.label} from {line.ys[0]:.0f}{unit} to {line.ys[-1]:.0f}{unit}" for line in lines if line.xs
    )
    return render(
        "line_chart.html",
        title=title,
        told=f"{y_label} over {x_label}. {told}.",
        legend=[*((line.label, line.css) for line in lines), *([(mark_label, "mark-key")] if mark_label else [])],
        axes=_axes(frame, x_ticks, _round_ticks(*y_range), x_label, y_label),
        unit=unit,
        mark=None if mark is None else (frame.at(mark, y_range[1]), frame.at(mark, y_range[0])),
        lines=[_drawn(frame, line) for line in lines],
    )


def _drawn(frame: _Frame, line: Line) -> dict[str, Any]:
    """A line in the picture's coordinates; one of a single point is a dot."""
    several = len(line.xs) > 1
    banded = several and line.low is not None and line.high is not None
    return {
        "label": line.label,
        "css": line.css,
        "band": f"{frame.points(line.xs, line.high)} {frame.points(line.xs[::-1], line.low[::-1])}" if banded else "",
        "points": frame.points(line.xs, line.ys) if several else "",
        "dots": [(*frame.at(x, y), x, y) for x, y in zip(line.xs, line.ys, strict=True)],
    }


def path_chart(points: Tensor, paths: Sequence[tuple[str, str, Tensor]], ends: Tensor, title: str = "") -> Markup:
    """Ways (label, css, (steps, 2)) through a cloud of points (T, 2), drawn step by step, and the trail of `ends`
    (G, 2). All ways are in sight, and most of the cloud."""
    limits = points.quantile(points.new_tensor(_SHOWN), 0)  # (2, 2)
    everything = torch.cat([limits, *(path for _, _, path in paths), ends])
    low, high = everything.amin(0), everything.amax(0)
    pad = 0.04 * (high - low).max()
    (x0, y0), (x1, y1) = (low - pad).tolist(), (high + pad).tolist()
    frame = _Frame((x0, x1), (y0, y1))
    seen = points[((points >= low - pad) & (points <= high + pad)).all(-1)]
    beyond = f", {len(points) - len(seen)} more are outside" if len(seen) < len(points) else ""
    return render(
        "path_chart.html",
        title=title,
        told="Ways of one latent from noise through the plane of the training latents, by strength of guidance.",
        legend=[
            *((label, css) for label, css, _ in paths),
            (f"training tasks{beyond}", "cloud-key"),
            ("mean of samples", "trail-key"),
        ],
        axes=_axes(frame, (), (), "first principal component", "second"),
        unit="",
        cloud="".join("M{:.0f} {:.0f}h0".format(*frame.at(x, y)) for x, y in seen.tolist()),
        trail=frame.points(*zip(*ends.tolist(), strict=True)),
        paths=[
            {
                "label": label,
                "css": css,
                "points": frame.points(*path.mT.tolist()),
                "start": frame.at(*path[0].tolist()),
                "end": frame.at(*path[-1].tolist()),
            }
            for label, css, path in paths
        ],
    )


def heatmap(title: str, names: Sequence[str], matrix: Tensor) -> Markup:
    """A matrix of cosines (Q, Q) as a table; rows are named in full, columns by number."""
    return render(
        "heatmap.html", title=title, rows=list(zip(names, matrix.tolist(), strict=True)), short=len(names) > 8
    )


def bars(items: Sequence[tuple[str, str, float]], css: str = "c0") -> Markup:
    """A ranked list of (text, note, share in 0..1); a bar is as long as its share of the whole width."""
    return render("bars.html", items=items, css=css)


def _axes(
    frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str
) -> dict[str, Any]:
    """Ticks as (value, x, y) in the picture's coordinates, and labels as (text, x, y)."""
    (left, _), (bottom, _) = frame.x_range, frame.y_range
    return {
        "x_ticks": [(value, *frame.at(value, bottom)) for value in x_ticks],
        "y_ticks": [(value, *frame.at(left, value)) for value in y_ticks],
        "x_label": (x_label, (WIDTH + _LEFT - _RIGHT) / 2, HEIGHT - 6),
        "y_label": (y_label, 11, (HEIGHT - _BOTTOM + _TOP) / 2),
        "right": WIDTH - _RIGHT,
        "size": (WIDTH, HEIGHT),
    }


def _round_ticks(low: float, high: float) -> list[float]:
    """About five round numbers from low to high."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(s * size for s in (1, 2, 5, 10) if s * size >= rough)
    first = math.ceil(low / step)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]
