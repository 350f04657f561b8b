"""Membrane interpolation on a raster: Laplace's equation over the unknown cells, from coarse to fine.

Cascadic multigrid (Bornemann & Deuflhard 1996): the pyramid's top is solved first, each finer level starts from the
coarser solution and needs only a few Gauss-Seidel sweeps, so the work is linear in the number of cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}

OUTSIDE, FIXED, UNKNOWN = 0, 1, 2
_SWEEPS = 10
_TOP = 4  # a level this small is solved outright by many sweeps


@njit(**_JIT)
def _coarser(z: Singles, state: NDArray[np.uint8], top: int, left: int) -> tuple[Singles, NDArray[np.uint8]]:
    """Half the resolution: mean of the fixed cells of each 2 x 2 block, else unknown if any cell is.

    top, left: 1 where the first row or column is the second of its blocks.
    """
    h, w = z.shape
    out = np.zeros(((h + top + 1) // 2, (w + left + 1) // 2), np.float32)
    kind = np.zeros(out.shape, np.uint8)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            total, n, unknown = 0.0, 0, False
            for a in range(max(2 * i - top, 0), min(2 * i - top + 2, h)):
                for b in range(max(2 * j - left, 0), min(2 * j - left + 2, w)):
                    if state[a, b] == 1:
                        total += z[a, b]
                        n += 1
                    elif state[a, b] == 2:
                        unknown = True
            if n:
                out[i, j] = total / n
                kind[i, j] = 1
            elif unknown:
                kind[i, j] = 2
    return out, kind


@njit(**_JIT)
def _start(z: Singles, state: NDArray[np.uint8], coarse: Singles, kind: NDArray[np.uint8], top: int, left: int) -> None:
    """Bilinear start of the unknown cells from the coarser level, leaving out cells outside the domain."""
    h, w = z.shape
    ch, cw = coarse.shape
    for i in range(h):
        a = (i + top) // 2
        a2 = min(max(a + (1 if (i + top) % 2 else -1), 0), ch - 1)
        for j in range(w):
            if state[i, j] != 2:
                continue
            b = (j + left) // 2
            b2 = min(max(b + (1 if (j + left) % 2 else -1), 0), cw - 1)
            total, weight = 9.0 * coarse[a, b], 9.0
            if kind[a2, b]:
                total += 3.0 * coarse[a2, b]
                weight += 3.0
            if kind[a, b2]:
                total += 3.0 * coarse[a, b2]
                weight += 3.0
            if kind[a2, b2]:
                total += coarse[a2, b2]
                weight += 1.0
            z[i, j] = total / weight


@njit(**_JIT)
def _relax(z: Singles, state: NDArray[np.uint8], sweeps: int) -> None:
    """Over-relaxed Gauss-Seidel sweeps over the unknown cells, forth and back; no flux out of the domain."""
    h, w = z.shape
    n = 0
    for i in range(h):
        for j in range(w):
            n += state[i, j] == 2
    rows, columns = np.empty(n, np.int32), np.empty(n, np.int32)
    n = 0
    for i in range(h):
        for j in range(w):
            if state[i, j] == 2:
                rows[n], columns[n] = i, j
                n += 1
    for sweep in range(sweeps):
        for m in range(n):
            k = m if sweep % 2 == 0 else n - 1 - m
            i, j = rows[k], columns[k]
            total, c = np.float32(0.0), 0
            if i > 0 and state[i - 1, j]:
                total += z[i - 1, j]
                c += 1
            if i + 1 < h and state[i + 1, j]:
                total += z[i + 1, j]
                c += 1
            if j > 0 and state[i, j - 1]:
                total += z[i, j - 1]
                c += 1
            if j + 1 < w and state[i, j + 1]:
                total += z[i, j + 1]
                c += 1
            if c:
                z[i, j] += np.float32(1.6) * (total / c - z[i, j])


def solve(values: Singles, state: NDArray[np.uint8], origin: tuple[int, int] = (0, 0)) -> Singles:
    """Values with the UNKNOWN cells solved from the FIXED ones; OUTSIDE cells take no part and are returned as given.

    values, state: (h, w). origin: row and column of the first cell in a larger raster; with it the levels of the
    pyramid fall on the same cells whatever part of the raster is solved. Unknown cells that no fixed cell can reach
    become NaN.
    """
    offset = float(np.mean(values[state == FIXED], dtype=np.float64)) if (state == FIXED).any() else np.nan
    z = np.where(state == FIXED, values - np.float32(offset), np.float32(0)).astype(np.float32)
    pyramid = [(z, state)]
    odd: list[tuple[int, int]] = []
    row, column = origin
    while max(pyramid[-1][0].shape) > _TOP and (pyramid[-1][1] == UNKNOWN).any():
        odd.append((row % 2, column % 2))
        pyramid.append(_coarser(*pyramid[-1], *odd[-1]))
        row, column = row // 2, column // 2
    for level in range(len(pyramid) - 1, -1, -1):
        z, kind = pyramid[level]
        if level + 1 < len(pyramid):
            _start(z, kind, *pyramid[level + 1], *odd[level])
        _relax(z, kind, 40 if max(z.shape) <= 4 * _TOP else _SWEEPS)
    return np.where(state == UNKNOWN, pyramid[0][0] + np.float32(offset), values).astype(np.float32)


def membrane(
    values: Singles, known: Bools | None = None, where: Bools | None = None, origin: tuple[int, int] = (0, 0)
) -> Singles:
    """Surface through the known cells (finite ones by default), interpolated over ``where`` (all others by default).

    values: (h, w) float32. Cells neither known nor in ``where`` are NaN. All NaN if nothing is known. origin: as for
    ``solve``.
    """
    known = np.isfinite(values) if known is None else known & np.isfinite(values)
    if not known.any():
        return np.full(values.shape, np.nan, np.float32)
    state = np.where(known, FIXED, UNKNOWN).astype(np.uint8)
    if where is not None:
        state[~known & ~where] = OUTSIDE
    out = solve(values, state, origin)
    out[state == OUTSIDE] = np.nan
    return out
