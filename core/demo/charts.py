"""Charts as inline SVG and HTML that follow the page's theme: colours come from the style sheet's classes c0 to c5."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from torch import Tensor

WIDTH, HEIGHT = 420, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 14, 12, 46


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
) -> str:
    """Lines over a common x axis that spans `x_ticks`; `mark` is a vertical line."""
    frame = _Frame((x_ticks[0], x_ticks[-1]), y_range)
    parts = [_axes(frame, x_ticks, _round_ticks(*y_range), x_label, y_label, unit)]
    if mark is not None:
        (x, top), (_, bottom) = frame.at(mark, y_range[1]), frame.at(mark, y_range[0])
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>')
    for line in lines:
        if line.low is not None and line.high is not None and len(line.xs) > 1:
            there, back = frame.points(line.xs, line.high), frame.points(line.xs[::-1], line.low[::-1])
            parts.append(f'<polygon class="band {line.css}" points="{there} {back}"/>')
        if len(line.xs) > 1:
            parts.append(f'<polyline class="line {line.css}" points="{frame.points(line.xs, line.ys)}"/>')
        for x, y in zip(line.xs, line.ys, strict=True):
            cx, cy = frame.at(x, y)
            parts.append(
                f'<circle class="dot {line.css}" cx="{cx:.1f}" cy="{cy:.1f}" r="3">'
                f"<title>{escape(line.label)}: {y:.1f}{unit} at {x:g}</title></circle>"
            )
    told = "; ".join(
        f"{line.label} from {line.ys[0]:.0f}{unit} to {line.ys[-1]:.0f}{unit}" for line in lines if line.xs
    )
    legend = [(line.label, line.css) for line in lines]
    return _figure("".join(parts), f"{y_label} over {x_label}. {told}.", legend, title)


def path_chart(points: Tensor, paths: Sequence[tuple[str, str, Tensor]], ends: Tensor, title: str = "") -> str:
    """Ways (label, css, (steps, 2)) through a cloud of points (T, 2), drawn step by step, and the trail of `ends`
    (G, 2)."""
    everything = [*points.tolist(), *(p for _, _, path in paths for p in path.tolist()), *ends.tolist()]
    xs, ys = zip(*everything, strict=True)
    pad = 0.04 * max(max(xs) - min(xs), max(ys) - min(ys))
    frame = _Frame((min(xs) - pad, max(xs) + pad), (min(ys) - pad, max(ys) + pad))
    parts = [_axes(frame, (), (), "first principal component", "second", "")]
    cloud = "".join("M{:.0f} {:.0f}h0".format(*frame.at(x, y)) for x, y in points.tolist())
    parts.append(f'<path class="cloud" d="{cloud}"/>')
    parts.append(f'<polyline class="trail" points="{frame.points(*zip(*ends.tolist(), strict=True))}"/>')
    for i, (label, css, path) in enumerate(paths):
        x, y = zip(*path.tolist(), strict=True)
        parts.append(
            f'<polyline class="line way {css}" pathLength="1" style="animation-delay:{0.25 * i:.2f}s" '
            f'points="{frame.points(x, y)}"/>'
        )
        (cx, cy), (bx, by) = frame.at(x[-1], y[-1]), frame.at(x[0], y[0])
        parts.append(f'<circle class="noise" cx="{bx:.1f}" cy="{by:.1f}" r="4"><title>noise</title></circle>')
        parts.append(
            f'<circle class="dot {css}" cx="{cx:.1f}" cy="{cy:.1f}" r="5"><title>{escape(label)}</title></circle>'
        )
    legend = [
        *((label, css) for label, css, _ in paths),
        ("training tasks", "cloud-key"),
        ("mean of samples", "trail-key"),
    ]
    told = "Ways of one latent from noise through the plane of the training latents, by strength of guidance."
    return _figure("".join(parts), told, legend, title)


def heatmap(title: str, names: Sequence[str], matrix: Tensor) -> str:
    """A matrix of cosines (Q, Q) as a table; rows are named in full, columns by number."""
    head = "".join(f'<th scope="col">{i + 1}</th>' for i in range(len(names)))
    rows = []
    for i, name in enumerate(names):
        cells = "".join(
            f'<td class="{"neg" if value < 0 else "pos"}" style="--v:{min(1.0, abs(value)):.2f}">{value:.2f}</td>'
            for value in matrix[i].tolist()
        )
        rows.append(f'<tr><th scope="row"><b>{i + 1}</b> {escape(name)}</th>{cells}</tr>')
    return (
        f'<div class="qa-scroll"><table class="qa-heat"><caption>{escape(title)}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def bars(items: Sequence[tuple[str, str, float]], css: str = "c0") -> str:
    """A ranked list of (text, note, share in 0..1) with bars relative to the first."""
    top = max((share for _, _, share in items), default=1.0) or 1.0
    return (
        '<ol class="qa-ranked">'
        + "".join(
            f'<li><div class="bar {css}" style="--p:{100 * share / top:.1f}%"></div>'
            f'<span class="text">{escape(text)}</span><span class="note">{escape(note)}</span>'
            f'<span class="pct">{100 * share:.1f}%</span></li>'
            for text, note, share in items
        )
        + "</ol>"
    )


def _axes(
    frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str, unit: str
) -> str:
    parts = []
    for value in y_ticks:
        x, y = frame.at(frame.x_range[0], value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{value:g}{unit}</text>')
    for value in x_ticks:
        x, y = frame.at(value, frame.y_range[0])
        parts.append(f'<text class="tick" x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{value:g}</text>')
    parts.append(
        f'<text class="axis" x="{(WIDTH + _LEFT - _RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    middle = (HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(
        f'<text class="axis" x="11" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 11 {middle:.0f})">'
        f"{escape(y_label)}</text>"
    )
    return "".join(parts)


def _round_ticks(low: float, high: float) -> list[float]:
    """About five round numbers from low to high."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(s * size for s in (1, 2, 5, 10) if s * size >= rough)
    first = math.ceil(low / step)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _figure(body: str, told: str, legend: Sequence[tuple[str, str]], title: str) -> str:
    keys = "".join(f'<span class="key {css}"><i></i>{escape(label)}</span>' for label, css in legend)
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return (
        f'<figure class="qa-chart">{head}'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told)}">{body}</svg>'
        f"<figcaption>{keys}</figcaption></figure>"
    )
