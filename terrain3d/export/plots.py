"""Plots as SVG text: histogram and profile. No script, no external font; coordinates to 0.1 px."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 520, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 26, 42
COLOURS = ("#b8483f", "#2b6ca3", "#4a8f5c", "#8a6bb1", "#c08a2b", "#5f6773")
BINS = 60  # of a histogram
POINTS = 3000  # drawn as dots at most, thinned evenly


@dataclass(frozen=True)
class Series:
    """Named values of a plot: ``y`` alone for a histogram, both for a profile. dots: no line."""

    name: str
    y: NDArray[Any]
    x: NDArray[Any] | None = None
    dots: bool = False


def histogram(series: Sequence[Series], *, x_label: str) -> str:
    """Share of each series' finite values per bin, as outlines over one another. Values beyond the ends fill them."""
    values = [np.asarray(s.y, float)[np.isfinite(s.y)] for s in series]
    low, high = _range(np.concatenate([np.empty(0), *values]), 0.5, 99.5)
    edges = np.linspace(low, high, BINS + 1)
    counts = [np.histogram(np.clip(v, low, high), edges)[0] / max(v.size, 1) for v in values]
    top = max((c.max() for c in counts if c.size), default=1.0) or 1.0
    frame = _Frame(low, high, 0.0, float(top))
    body = []
    for i, c in enumerate(counts):
        x = np.repeat(edges, 2)
        y = np.concatenate([[0.0], np.repeat(c, 2), [0.0]])
        body.append(_path(frame, x, y, COLOURS[i % len(COLOURS)], fill=True))
    if low < 0 < high:
        x0 = frame.x(0.0)
        body.append(f'<path d="M{x0:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#888" stroke-dasharray="3 3"/>')
    names = [f"{s.name} (n = {v.size})" for s, v in zip(series, values, strict=True)]
    return _svg(frame, body, names, x_label, "share")


def _dots(frame: _Frame, x: NDArray[np.float64], y: NDArray[np.float64], colour: str) -> str:
    pick = np.unique(np.linspace(0, x.size - 1, min(x.size, POINTS)).astype(int)) if x.size else np.empty(0, int)
    dots = "".join(f"M{frame.x(a):.1f} {frame.y(b):.1f}h0" for a, b in zip(x[pick], y[pick], strict=True))
    style = f'stroke="{colour}" stroke-width="3" stroke-linecap="round" stroke-opacity="0.6"'
    return f'<path d="{dots}" {style} fill="none"/>'


def profile(series: Sequence[Series], *, x_label: str, y_label: str) -> str:
    """A line for each series, in the order of its values, broken where a value is not finite; or dots."""
    frame = _frame_of([_pair(s) for s in series])
    body = []
    for i, s in enumerate(series):
        x, y = np.asarray(s.x if s.x is not None else np.arange(len(s.y)), float), np.asarray(s.y, float)
        colour = COLOURS[i % len(COLOURS)]
        body.append(_dots(frame, *_pair(s), colour) if s.dots else _path(frame, x, y, colour))
    return _svg(frame, body, [s.name for s in series], x_label, y_label)


@dataclass(frozen=True)
class _Frame:
    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: Any) -> Any:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: Any) -> Any:
        return HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)


def _pair(s: Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y = np.asarray(s.y, float)
    x = np.arange(y.size, dtype=float) if s.x is None else np.asarray(s.x, float)
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]


def _range(values: NDArray[Any], low_percent: float = 0.0, high_percent: float = 100.0) -> tuple[float, float]:
    if not values.size:
        return 0.0, 1.0
    low, high = (float(p) for p in np.percentile(values, (low_percent, high_percent)))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _frame_of(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> _Frame:
    x0, x1 = _range(np.concatenate([np.empty(0), *(x for x, _ in pairs)]))
    y0, y1 = _range(np.concatenate([np.empty(0), *(y for _, y in pairs)]))
    margin = 0.04 * (y1 - y0)
    return _Frame(x0, x1, y0 - margin, y1 + margin)


def _path(frame: _Frame, x: NDArray[Any], y: NDArray[Any], colour: str, fill: bool = False) -> str:
    parts, pen_down = [], False
    for a, b in zip(x, y, strict=True):
        if np.isfinite(a) and np.isfinite(b):
            parts.append(f"{'L' if pen_down else 'M'}{frame.x(a):.1f} {frame.y(b):.1f}")
            pen_down = True
        else:
            pen_down = False
    inside = f'fill="{colour}" fill-opacity="0.18"' if fill else 'fill="none"'
    return f'<path d="{"".join(parts)}" stroke="{colour}" stroke-width="1.5" {inside}/>'


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within low..high, about ``count`` of them."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** floor(log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _svg(frame: _Frame, body: Sequence[str], names: Sequence[str], x_label: str, y_label: str) -> str:
    base, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" font-family="sans-serif" font-size="11" fill="#333">'
    ]
    for t in ticks(frame.x0, frame.x1):
        x = frame.x(t)
        out.append(f'<path d="M{x:.1f} {base}v4" stroke="#333"/>')
        out.append(f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{t:g}</text>')
    for t in ticks(frame.y0, frame.y1, 5):
        y = frame.y(t)
        out.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#e3e3e8"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{t:g}</text>')
    out.append(f'<path d="M{LEFT} {TOP}V{base}H{right}" stroke="#333" fill="none"/>')
    out.extend(body)
    at = float(LEFT)
    for i, name in enumerate(names):
        out.append(f'<rect x="{at:.1f}" y="8" width="10" height="10" fill="{COLOURS[i % len(COLOURS)]}"/>')
        out.append(f'<text x="{at + 14:.1f}" y="17">{escape(name)}</text>')
        at += 26 + 6.4 * len(name)
    middle = (LEFT + right) / 2
    out.append(f'<text x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    y = (TOP + base) / 2
    turn = f'transform="rotate(-90 14 {y:.1f})"'
    out.append(f'<text x="14" y="{y:.1f}" text-anchor="middle" {turn}>{escape(y_label)}</text></svg>')
    return "".join(out)
