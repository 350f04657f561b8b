"""The most likely surface of even ground: a thin plate that measurements pull at, solved from coarse to fine.

Cells that hardly anything is known of take their heights from far around, farther than an iteration of neighbours
comes. So the plate is solved on cells four times as wide first, and each finer level starts from the coarser one
(cascadic multigrid, Bornemann & Deuflhard 1996). Every level has a fixed number of turns: what a cell becomes depends
on nothing beyond ``MARGIN_CELLS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TURNS = (12, 4, 6)  # of the levels, from fine to coarse; each has cells twice as wide as the one before
SPECTRUM = (0.03, 0.03, 0.02)  # least eigenvalue of the scaled system that their turns reduce; the largest is 1
WHOLE = 0.999  # share of a coarse cell's cells from which on it is free
MARGIN_CELLS = sum(2 * turns << level for level, turns in enumerate(TURNS)) + (3 << (len(TURNS) - 1))
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@dataclass(frozen=True)
class Plate:
    """All (h, w). weight, pull: a step x of a cell costs ``weight x^2 - 2 pull x``; stiff: its bend costs ``stiff
    (second difference of x, plus bent)^2``. free: cells that may move; the others have no step and no stiffness."""

    weight: Floats
    pull: Floats
    stiff: Floats
    bent: Floats
    free: Bools


def solve(plate: Plate, origin: tuple[int, int] = (0, 0)) -> Floats:
    """Steps (h, w) of least cost. origin: row and column of the first cell, counted from a place that is the same for
    all windows of a raster."""
    levels, odd = [plate], list[tuple[int, int]]()
    row, column = origin
    for _ in TURNS[1:]:
        odd.append((row % 2, column % 2))
        levels.append(_coarser(levels[-1], *odd[-1]))
        row, column = row // 2, column // 2
    steps = np.zeros(levels[-1].weight.shape)
    for level in range(len(levels) - 1, -1, -1):
        if level + 1 < len(levels):
            steps = _finer(steps, levels[level].free, *odd[level])
        steps = _relax(steps, levels[level], TURNS[level], SPECTRUM[level])
    return steps


def second_difference(z: Floats) -> Floats:
    """Sum of the four neighbours less four times the cell; NaN at the border."""
    out = np.full(z.shape, np.nan)
    out[1:-1, 1:-1] = z[:-2, 1:-1] + z[2:, 1:-1] + z[1:-1, :-2] + z[1:-1, 2:] - 4 * z[1:-1, 1:-1]
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


def _relax(start: Floats, plate: Plate, turns: int, least: float) -> Floats:
    """Chebyshev's iteration on the system scaled by its diagonal. least: eigenvalue of it from which on turns count."""
    x, move = start, np.zeros(start.shape)
    bend, slack = np.zeros(start.shape), np.empty(start.shape)
    middle, half = (1 + least) / 2, (1 - least) / 2
    rho = 0.0
    for turn in range(turns):
        _bend(x, plate.stiff, plate.bent, bend)
        _slacken(x, plate.weight, plate.pull, plate.stiff, bend, plate.free, slack)
        if turn == 0:
            rho = half / middle
            move = slack / middle
        else:
            following = 1 / (2 * middle / half - rho)
            move = following * rho * move + 2 * following / half * slack
            rho = following
        x = x + move
    return x


@njit(**_JIT)
def _bend(x: Any, stiff: Any, bent: Any, out: Any) -> None:
    for i in range(1, x.shape[0] - 1):
        for j in range(1, x.shape[1] - 1):
            second = x[i - 1, j] + x[i + 1, j] + x[i, j - 1] + x[i, j + 1] - 4 * x[i, j] + bent[i, j]
            out[i, j] = stiff[i, j] * second


@njit(**_JIT)
def _slacken(x: Any, weight: Any, pull: Any, stiff: Any, bend: Any, free: Any, out: Any) -> None:
    out[:] = 0.0
    for i in range(1, x.shape[0] - 1):
        for j in range(1, x.shape[1] - 1):
            if not free[i, j]:
                continue
            around = stiff[i - 1, j] + stiff[i + 1, j] + stiff[i, j - 1] + stiff[i, j + 1]
            back = bend[i - 1, j] + bend[i + 1, j] + bend[i, j - 1] + bend[i, j + 1] - 4 * bend[i, j]
            total = weight[i, j] + 32 * stiff[i, j] + 8 * around  # at least the sum of the row
            if total > 0:
                out[i, j] = (pull[i, j] - weight[i, j] * x[i, j] - back) / total
