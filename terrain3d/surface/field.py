"""Gaussian fields on cells by least squares: sparse rows of what is known, mean and sigma of the field.

A row r with value b says ``r x = b`` with a sigma of one. The sigma of the solution comes from solutions of the same
system for values of pure chance (Bekas, Kokiopoulou & Saad 2007; Papandreou & Yuille 2010: perturb and solve).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
_SEED = 7
_RIDGE = 1e-9


@dataclass(frozen=True)
class Solution:
    """Mean of all unknowns, and the 1-sigma of the first ones."""

    mean: Floats
    sigma: Floats


def solve_field(rows: Sequence[tuple[sp.csr_matrix, Floats]], first: int, samples: int) -> Solution:
    """Unknowns that fit all rows best; sigma of the ``first`` ones from that many samples."""
    matrix = sp.vstack([m for m, _ in rows]).tocsr()
    values = np.concatenate([b for _, b in rows])
    normal = (matrix.T @ matrix + _RIDGE * sp.identity(matrix.shape[1])).tocsc()
    factor = splu(normal, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    chance = np.random.default_rng(_SEED).standard_normal((matrix.shape[0], samples))
    drawn = factor.solve(np.asarray(matrix.T @ chance))[:first]
    return Solution(factor.solve(matrix.T @ values), np.sqrt(np.mean(drawn**2, axis=1)))


def selection(unknowns: Indices, n: int) -> sp.csr_matrix:
    """Rows that pick one of n unknowns each."""
    rows = np.arange(unknowns.size)
    return sp.csr_matrix((np.ones(unknowns.size), (rows, unknowns)), (unknowns.size, n))


def interpolation(column: NDArray[Any], row: NDArray[Any], number: Indices, n: int | None = None) -> sp.csr_matrix:
    """Rows of bilinear values at continuous places between unknowns; number: (h, w) of the unknown of each cell."""
    h, w = number.shape
    c, r = np.clip(column, 0, w - 1), np.clip(row, 0, h - 1)
    c0, r0 = np.minimum(c.astype(np.int64), max(w - 2, 0)), np.minimum(r.astype(np.int64), max(h - 2, 0))
    c1, r1 = np.minimum(c0 + 1, w - 1), np.minimum(r0 + 1, h - 1)
    u, v = c - c0, r - r0
    weights = np.concatenate([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v])
    at = np.concatenate([number[r0, c0], number[r0, c1], number[r1, c0], number[r1, c1]])
    rows = np.tile(np.arange(c.size), 4)
    return sp.csr_matrix((weights, (rows, at)), (c.size, n or number.size))


def differences(number: Indices) -> sp.csr_matrix:
    """Rows of differences between neighbours; number: (h, w) of the unknown of each cell, -1 for none."""
    pairs = [(number[:, :-1], number[:, 1:]), (number[:-1], number[1:])]
    a, b = (np.concatenate([p[i].ravel() for p in pairs]) for i in (0, 1))
    both = (a >= 0) & (b >= 0)
    return _rows([a[both], b[both]], [1.0, -1.0], int(number.max()) + 1)


def second_differences(number: Indices) -> tuple[sp.csr_matrix, Indices]:
    """Rows of second differences along both axes and, with weight sqrt 2, across, and the flat index of their cell.

    The sum of their squares is the discrete thin-plate energy. number: as for ``differences``.
    """
    h, w = number.shape
    cell = np.arange(h * w).reshape(h, w)
    n = int(number.max()) + 1
    parts, places = [], []
    for axes, at in (
        ((number[:, :-2], number[:, 1:-1], number[:, 2:]), cell[:, 1:-1]),
        ((number[:-2], number[1:-1], number[2:]), cell[1:-1]),
    ):
        a, b, c = (m.ravel() for m in axes)
        whole = (a >= 0) & (b >= 0) & (c >= 0)
        parts.append(_rows([a[whole], b[whole], c[whole]], [1.0, -2.0, 1.0], n))
        places.append(at.ravel()[whole])
    corners = [m.ravel() for m in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:])]
    whole = np.min(corners, axis=0) >= 0
    root = float(np.sqrt(2.0))
    parts.append(_rows([m[whole] for m in corners], [root, -root, -root, root], n))
    places.append(cell[:-1, :-1].ravel()[whole])
    return sp.vstack(parts).tocsr(), np.concatenate(places)


def _rows(unknowns: list[Indices], weights: list[float], n: int) -> sp.csr_matrix:
    size = unknowns[0].size
    values = np.concatenate([np.full(size, w) for w in weights])
    return sp.csr_matrix((values, (np.tile(np.arange(size), len(weights)), np.concatenate(unknowns))), (size, n))
