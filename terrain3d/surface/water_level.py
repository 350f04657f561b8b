"""Levels of bodies of water from their shores: one for a lake or a sea, falling one way along a river.

The water stands no higher than the low part of its shores. A stretch of shore above the level of the others is a cliff,
a wall or trees on the bank, and loses its weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from heapq import heappop, heappush
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from terrain3d.raster import bilinear
from terrain3d.stats import nmad

Singles = NDArray[np.float32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}

STRETCH = 20.0  # m of shore that have one low point
_LOW = 0.1  # quantile of the heights of a stretch of shore that is its water level
_WINDOW = 100.0  # m along a river in which its level is a line
_ABOVE, _BELOW = 0.7, 1.2  # m: residuals beyond which a stretch has no weight
_TRUNCATED = 0.5  # m: residuals above count alike when fits are compared
_SLENDER = 6.0  # length over width of a river
_STOUT, _CLEAR_FALL = 4.0, 0.2  # the same of one of which the scene shows a part, and its fall at least, metres
_LEAST_LENGTH = 100.0  # m of a river
_LEAST_GAIN = 0.85  # of the loss of a level one
_REACHED, _FEW_STRETCHES = 1.0, 4  # m, number
_LEAST_SIGMA = 0.05  # m
_ITERATIONS = 6
_STEEPEST = 0.05  # m/m of a river
_LEAST_OFF = 1.0  # m from the line of a longer part that a stretch may lie
_PAIRED = 24  # stretches that lines are laid through


class WaterKind(StrEnum):
    LAKE = "lake"
    RIVER = "river"
    SEA = "sea"


@dataclass(frozen=True)
class BodyShape:
    """A body on coarse cells: ``mask`` (h, w), cells ``step`` cells of the whole grid wide, from a coarse row and
    column of it on; resolution: metres of the cells of the whole grid."""

    mask: Bools
    step: int
    first: tuple[int, int]
    resolution: float

    def cells(self) -> tuple[Floats, Floats]:
        """Row and column, in the whole grid, of the coarse cells of the body."""
        row, column = (np.asarray(a, np.float64) for a in np.nonzero(self.mask))
        return (row + self.first[0] + 0.5) * self.step - 0.5, (column + self.first[1] + 0.5) * self.step - 0.5

    def indices(self, row: NDArray[Any], column: NDArray[Any]) -> tuple[Floats, Floats]:
        """Continuous coarse row and column of cells of the whole grid, held inside."""
        r, c = ((np.asarray(a) + 0.5) / self.step - 0.5 - f for a, f in zip((row, column), self.first, strict=True))
        return np.clip(r, 0, self.mask.shape[0] - 1), np.clip(c, 0, self.mask.shape[1] - 1)


@dataclass(frozen=True)
class WaterLevel:
    """Level of a body: ``values`` (m) over ``base`` at the coarse cells of its shape, in it and around.

    low, high: metres. sigma: of the level, metres, from how the shores agree. agreement: share of the stretches of
    shore that reach down to it; 1 with too few to tell. under: share of those that lie under it. stretches: their
    number.
    """

    kind: WaterKind
    shape: BodyShape
    values: Singles
    base: float
    low: float
    high: float
    sigma: float
    agreement: float
    under: float
    stretches: int

    def at(self, row: NDArray[Any], column: NDArray[Any]) -> Singles:
        """Level at cells of the whole grid."""
        r, c = self.shape.indices(row, column)
        return (bilinear(self.values, c, r) + self.base).astype(np.float32)

    def made_level(self, height: float, kind: WaterKind) -> WaterLevel:
        """The same body at one height."""
        return replace(self, kind=kind, values=np.zeros_like(self.values), base=height, low=height, high=height)


def water_level(
    shape: BodyShape, row: NDArray[np.int64], column: NDArray[np.int64], height: Singles, kind: WaterKind | None = None
) -> WaterLevel | None:
    """Level of a body from the matched cells of its shores, (N,) each, in the whole grid; None with less than ten.

    kind: if it is known; else a slender body whose shores fall along it is a river.
    """
    if row.size < 10 or not shape.mask.any():
        return None
    along, nearest = _along(shape)
    at, low, weight = _stretches(shape, row, column, height, along.ravel()[nearest.ravel()].reshape(along.shape))
    base = float(np.median(low))
    level = _one_level(low - base, weight)
    length, area = float(along[shape.mask].max()), shape.mask.sum() * (shape.step * shape.resolution) ** 2
    fitted, found = np.full(at.size, level), WaterKind.LAKE
    values = np.full(shape.mask.shape, level, np.float32)
    ratio = length**2 / max(area, 1e-9) if length > _LEAST_LENGTH and at.size >= _FEW_STRETCHES else 0.0
    if kind is WaterKind.RIVER or (kind is None and ratio > _STOUT):
        nodes = np.linspace(0.0, length, max(int(length / STRETCH), 1) + 1)
        line = _falling(nodes, at, low - base, weight)
        river = np.interp(at, nodes, line)
        clear = ratio > _SLENDER or np.ptp(line) > _CLEAR_FALL
        if kind is WaterKind.RIVER or (clear and _falls(low - base - river, low - base - level, weight)):
            found, fitted = WaterKind.RIVER, river
            s = along.ravel()[nearest.ravel()].reshape(along.shape)
            values = np.interp(s, nodes, line).astype(np.float32)
    rest = low - base - fitted
    reached = np.abs(rest) < _REACHED
    agreement = float(reached.mean()) if at.size >= _FEW_STRETCHES else 1.0
    near = rest[reached] if reached.any() else rest
    windows = max(reached.sum() * (min(_WINDOW / max(length, 1.0), 1.0) if found is WaterKind.RIVER else 1.0), 1.0)
    sigma = max(float(nmad(near)) / np.sqrt(windows), _LEAST_SIGMA)
    inside = values[shape.mask]
    return WaterLevel(
        kind or found, shape, values, base, base + float(inside.min()), base + float(inside.max()), sigma, agreement,
        float((rest < -_REACHED).mean()), int(at.size),
    )  # fmt: skip


def _stretches(
    shape: BodyShape, row: NDArray[np.int64], column: NDArray[np.int64], height: Singles, along: Singles
) -> tuple[Floats, Floats, Floats]:
    """Of each stretch of shore: distance along the body, low height, number of its cells."""
    side = max(round(STRETCH / shape.resolution), 1)
    key = (row // side).astype(np.int64) << 32 | column // side
    order = np.lexsort((height, key))
    start = np.flatnonzero(np.diff(key[order], prepend=-1))
    count = np.diff(np.append(start, key.size))
    low = height[order][start + (count * _LOW).astype(np.int64)]
    r, c = (np.rint(i).astype(np.int64) for i in shape.indices(row[order], column[order]))
    at = np.add.reduceat(along[r, c].astype(float), start) / count
    return at, low.astype(float), count.astype(float)


def _one_level(low: Floats, weight: Floats) -> float:
    """Robust mean of the stretches, begun where most of them are."""
    level = float(low[int(np.argmin([_loss(low - v, weight) for v in low]))])
    for _ in range(_ITERATIONS):
        level = float(np.average(low, weights=_robust(low - level, weight) + 1e-9 * weight))
    return level


def _falling(nodes: Floats, at: Floats, low: Floats, weight: Floats) -> Floats:
    """Level at the nodes along a river, which falls one way or the other, whichever fits better."""
    fits = []
    for rising in (False, True):
        line = isotonic_regression(_begun(nodes, at, low, weight, 1.0 if rising else -1.0), increasing=rising).x
        for _ in range(_ITERATIONS):
            use = _robust(low - np.interp(at, nodes, line), weight)
            if not use.any():
                break
            fit, trust = _local_lines(nodes, at, low, use)
            line = isotonic_regression(fit, weights=trust, increasing=rising).x
        fits.append((_loss(low - np.interp(at, nodes, line), weight), line))
    return np.asarray(min(fits, key=lambda f: f[0])[1])


def _begun(nodes: Floats, at: Floats, low: Floats, weight: Floats, sign: float) -> Floats:
    """First level at the nodes: lines through ever shorter parts, which only use what is near the line before, so that
    a part without a true shore takes the fall of what is around it."""
    window, level, off = max(float(nodes[-1]), _WINDOW), np.zeros(nodes.size), np.inf
    while True:
        off_now = max(_LEAST_OFF, _STEEPEST / 4 * window)
        total, mass = np.zeros(nodes.size), np.zeros(nodes.size)
        for centre in np.arange(nodes[0], nodes[-1] + window / 2, window / 2):
            here = np.flatnonzero(
                (np.abs(at - centre) <= window / 2) & (np.abs(low - np.interp(at, nodes, level)) < off)
            )
            if here.size < _FEW_STRETCHES:
                continue
            value, slope = _best_line(at[here] - centre, low[here], weight[here], off_now, sign)
            near = _near(nodes - centre, window)
            total += near * (value + slope * (nodes - centre))
            mass += near
        level = np.where(mass > 0, total / np.maximum(mass, 1e-12), level)
        if window <= 2 * _WINDOW:
            return level
        window, off = window / 2, off_now


def _best_line(d: Floats, values: Floats, weight: Floats, off: float, sign: float) -> tuple[float, float]:
    """Value at zero and slope of the line through two points, or level through one, that leaves least far off."""
    pick = np.argsort(d)[np.unique(np.linspace(0, d.size - 1, min(d.size, _PAIRED)).astype(int))]
    i, j = np.triu_indices(pick.size, 1)
    run = d[pick[j]] - d[pick[i]]
    slope = (values[pick[j]] - values[pick[i]]) / np.where(run == 0, np.inf, run)
    allowed = (slope * sign >= 0) & (np.abs(slope) <= _STEEPEST)
    slopes = np.concatenate([slope[allowed], np.zeros(pick.size)])
    starts = np.concatenate([(values[pick[i]] - slope * d[pick[i]])[allowed], values[pick]])
    rest = values[None, :] - starts[:, None] - slopes[:, None] * d[None, :]
    cost = (np.minimum((rest / (off / 2)) ** 2, 1)) @ weight
    best = int(cost.argmin())
    return float(starts[best]), float(slopes[best])


def _local_lines(nodes: Floats, at: Floats, values: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Values of lines through what is near each node (Cleveland 1979), and how much that is. The window grows where
    there is little."""
    fit, trust = np.empty(nodes.size), np.empty(nodes.size)
    enough = min(6.0 * float(np.median(weight[weight > 0])), 0.5 * float(weight.sum()))
    for i, s in enumerate(nodes):
        reach = _WINDOW
        w = weight * _near(at - s, reach)
        while w.sum() < enough and reach < 64 * _WINDOW:
            reach *= 2
            w = weight * _near(at - s, reach)
        d, total = at - s, max(float(w.sum()), 1e-12)
        mean, centre = float(w @ values) / total, float(w @ d) / total
        spread = float(w @ (d - centre) ** 2) / total
        slope = float(w @ ((d - centre) * (values - mean))) / total / (spread + (0.1 * reach) ** 2)
        fit[i], trust[i] = mean - slope * centre, total
    return fit, trust


def _falls(river: Floats, level: Floats, weight: Floats) -> bool:
    """Whether the residuals of a falling level are clearly less than those of a level one, on true shores."""
    shore = np.minimum(np.abs(river), np.abs(level)) < _REACHED
    return _loss(river[shore], weight[shore]) < _LEAST_GAIN * _loss(level[shore], weight[shore])


def _near(distance: Floats, reach: float) -> Floats:
    """Tricube weights."""
    return np.asarray(np.maximum(1 - np.abs(distance / reach) ** 3, 0) ** 3)


def _robust(rest: Floats, weight: Floats) -> Floats:
    """Weights by the residuals, nothing from a limit on (Beaton and Tukey 1974)."""
    return np.asarray(weight * np.maximum(1 - (rest / np.where(rest > 0, _ABOVE, _BELOW)) ** 2, 0) ** 2)


def _loss(rest: Floats, weight: Floats) -> float:
    return float(weight @ np.minimum((rest / _TRUNCATED) ** 2, 1))


def _along(shape: BodyShape) -> tuple[Singles, NDArray[np.int64]]:
    """How far (m) the cells of a body lie between its two ends, and for all cells the flat index of the nearest one of
    the body. By the ways to both ends: one alone is shorter along the inner bank of a bend, and longer up a side arm,
    where water is level."""
    cell = np.float32(shape.step * shape.resolution)
    start = int(np.flatnonzero(shape.mask)[0])
    for _ in range(2):  # the farthest from anywhere is an end
        distance = _by_water(shape.mask, start, cell)
        start = int(np.where(np.isfinite(distance), distance, -1).argmax())
    known = np.isfinite(distance)
    distance = np.where(known, distance, np.float32(0))
    along = (distance - np.where(known, _by_water(shape.mask, start, cell), np.float32(0)) + distance.max()) / 2
    _, label = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    index = np.zeros(int(label.max()) + 1, np.int64)
    index[label[known]] = np.flatnonzero(known)
    return np.where(known, along, np.float32(0)).astype(np.float32), index[label]


@njit(**_JIT)
def _by_water(mask: Bools, start: int, cell: np.float32) -> Singles:
    """Shortest ways through a mask from one of its cells, to all neighbours; infinite where none leads."""
    h, w = mask.shape
    out = np.full((h, w), np.float32(np.inf))
    out[start // w, start % w] = 0
    heap = [(np.float32(0.0), np.int64(start))]
    while len(heap) > 0:
        d, at = heappop(heap)
        i, j = at // w, at % w
        if d > out[i, j]:
            continue
        for a in range(-1, 2):
            for b in range(-1, 2):
                y, x = i + a, j + b
                if (a == 0 and b == 0) or y < 0 or x < 0 or y >= h or x >= w or not mask[y, x]:
                    continue
                total = d + cell * np.float32(1.41421356 if a != 0 and b != 0 else 1.0)
                if total < out[y, x]:
                    out[y, x] = total
                    heappush(heap, (total, np.int64(y * w + x)))
    return out
