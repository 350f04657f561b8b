"""The most likely surface of even ground: a thin plate that measurements pull at, solved from coarse to fine.

Cells that hardly anything is known of take their heights from far around, farther than an iteration of neighbours
comes. So the plate is solved on cells four times as wide first, and each finer level starts from the coarser one
(cascadic multigrid, Bornemann & Deuflhard 1996). On each level a step and the moment of the bend are two unknowns of a
cell, and both have an equation of the four neighbours (Ciarlet & Raviart 1974): that takes a fraction of the turns, and
so of the reach, of the plate's own equation of thirteen cells. Every level has a fixed number of turns: what a cell
becomes depends on nothing beyond ``MARGIN_CELLS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TURNS = (6, 2, 2)  # of the levels, from fine to coarse; each has cells twice as wide as the one before
WHOLE = 0.999  # share of a coarse cell's cells from which on it is free
MARGIN_CELLS = sum(2 * turns << level for level, turns in enumerate(TURNS)) + 2 * ((1 << len(TURNS) - 1) - 1)
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@dataclass(frozen=True)
class Plate:
    """All (h, w). weight, pull: a step x of a cell costs ``weight x^2 - 2 pull x``; stiff: its bend costs ``stiff
    (second difference of x, plus bent)^2``. free: cells that may move, stiff ones; the others have neither step nor
    stiffness."""

    weight: Floats
    pull: Floats
    stiff: Floats
    bent: Floats
    free: Bools


def solve(plate: Plate, origin: tuple[int, int] = (0, 0)) -> Floats:
    """Steps (h, w) of least cost. origin: row and column of the first cell, counted from a place that is the same for
    all windows of a raster."""
    levels, places = [plate], [origin]
    for _ in TURNS[1:]:
        row, column = places[-1]
        levels.append(_coarser(levels[-1], row % 2, column % 2))
        places.append((row // 2, column // 2))
    steps, moments = np.zeros(levels[-1].weight.shape), np.zeros(levels[-1].weight.shape)
    for level in range(len(levels) - 1, -1, -1):
        at, (row, column) = levels[level], places[level]
        if level + 1 < len(levels):
            steps = _finer(steps, at.free, row % 2, column % 2)
            moments = 4 * _finer(moments, at.free, row % 2, column % 2)  # as ``stiff`` and ``bent`` change
        soft = 1 / np.where(at.free, at.stiff, 1.0)
        for _ in range(TURNS[level]):
            for colour in (0, 1):
                _settle(steps, moments, at.weight, at.pull, soft, at.bent, at.free, (row + column + colour) % 2)
    return steps


@njit(**_JIT)
def second_difference(z: Any) -> Any:
    """Sum of the four neighbours less four times the cell; NaN at the border."""
    out = np.full(z.shape, np.nan)
    for i in range(1, z.shape[0] - 1):
        above, row, below = z[i - 1], z[i], z[i + 1]
        for j in range(1, z.shape[1] - 1):
            out[i, j] = above[j] + below[j] + row[j - 1] + row[j + 1] - 4 * row[j]
    return out


def _coarser(plate: Plate, top: int, left: int) -> Plate:
    """The plate on cells twice as wide. top, left: 1 where the first row or column is the second of its blocks."""
    free = _pooled(plate.free.astype(np.float64), top, left) > WHOLE
    stiff, bent = (_pooled(a, top, left) for a in (plate.stiff, plate.bent))
    # second differences grow with the square of the width
    return Plate(
        _pooled(plate.weight, top, left), _pooled(plate.pull, top, left),
        np.where(free, stiff / 16, 0.0), np.where(free, bent * 4, 0.0), free,
    )  # fmt: skip


def _pooled(values: Floats, top: int, left: int) -> Floats:
    """Means of blocks of 2 x 2 cells, 0 beyond the border."""
    h, w = values.shape
    whole = np.zeros(((h + top + 1) // 2 * 2, (w + left + 1) // 2 * 2))
    whole[top : top + h, left : left + w] = values
    return np.asarray((whole[::2, ::2] + whole[::2, 1::2] + whole[1::2, ::2] + whole[1::2, 1::2]) / 4)


@njit(**_JIT)
def _finer(coarse: Any, free: Any, top: int, left: int) -> Any:
    """Bilinear values of a coarser level at the cells that are free, 0 at the others."""
    out = np.zeros(free.shape)
    last_row, last_column = coarse.shape[0] - 1, coarse.shape[1] - 1
    for i in range(free.shape[0]):
        a = (i + top) // 2
        a2 = min(max(a + (1 if (i + top) % 2 else -1), 0), last_row)
        for j in range(free.shape[1]):
            if free[i, j]:
                b = (j + left) // 2
                b2 = min(max(b + (1 if (j + left) % 2 else -1), 0), last_column)
                out[i, j] = (9 * coarse[a, b] + 3 * (coarse[a2, b] + coarse[a, b2]) + coarse[a2, b2]) / 16
    return out


@njit(**_JIT)
def _settle(steps: Any, moments: Any, weight: Any, pull: Any, soft: Any, bent: Any, free: Any, colour: int) -> None:
    """Solve both equations of every second cell, as on a chessboard, its neighbours given: the step's second difference
    is ``-moment soft - bent``, the moment's ``weight step - pull``."""
    for i in range(1, steps.shape[0] - 1):
        for j in range(1 + (i + 1 + colour) % 2, steps.shape[1] - 1, 2):
            if free[i, j]:
                bend = steps[i - 1, j] + steps[i + 1, j] + steps[i, j - 1] + steps[i, j + 1] + bent[i, j]
                load = moments[i - 1, j] + moments[i + 1, j] + moments[i, j - 1] + moments[i, j + 1] + pull[i, j]
                part = 1 / (16 + weight[i, j] * soft[i, j])
                steps[i, j] = part * (4 * bend + soft[i, j] * load)
                moments[i, j] = part * (4 * load - weight[i, j] * bend)
