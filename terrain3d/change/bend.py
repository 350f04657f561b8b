"""How one surface is bent against another beyond a tilt: errors of low order and waves along the track of the sensor.

A model is taken only where it tells the differences of places that were left out far better than a plane does.
Change is no part of it: the differences are medians of blocks of stable ground, and blocks that fit badly count little.
What moved evenly over a large part of a scene, such as ground that sinks, cannot be told from a bend.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from terrain3d.change.filters import Array
from terrain3d.stats import nmad, tukey_weights

Floats = NDArray[np.float64]
BLOCK = 30.0  # metres at least
MOST_BLOCKS = 1200  # of a large scene; more only cost time
LEAST_BLOCKS = 60
LEAST_IN_BLOCK = 0.25  # of its cells are stable
FOLDS = 5
FOLD_BLOCKS = 2  # blocks a side are left out together
GAIN = 0.8  # of the error of places left out, against the best simpler model
LEAST_GAIN = 0.01  # metres, against a plane
DEGREES = (2, 3, 4)
ANGLES_DEG = tuple(range(0, 180, 15))
WAVE_SPANS = (5, 9, 14)
LEAST_SPAN = 60.0  # metres
REACH = float(np.sqrt(2))  # of positions along a track, in halves of the scene
RIDGE = 1e-3
STEPS = 6


@dataclass(frozen=True)
class Bend:
    """Height (m) of a surface over another, at positions from the middle of the scene in units of ``half`` metres.

    coefficients: of the Legendre polynomials P_i(east) P_j(north), i along the first axis. wave: coefficients of a
    uniform cubic B-spline along the direction ``along_deg``, counted from east to north; none without waves.
    """

    half: float
    coefficients: tuple[tuple[float, ...], ...]
    along_deg: float = 0.0
    wave: tuple[float, ...] = ()

    @property
    def largest(self) -> float:
        """Largest size in the scene, metres."""
        t = np.linspace(-self.half, self.half, 41)
        return float(np.abs(self.height_at(t[None, :], t[:, None])).max())

    def height_at(self, east: Floats, north: Floats) -> Floats:
        """Metres, at metres from the middle; the arrays are broadcast. Constant beyond the scene."""
        u, v = np.clip(east / self.half, -1, 1), np.clip(north / self.half, -1, 1)
        c = np.array(self.coefficients)
        height = np.zeros(np.broadcast_shapes(u.shape, v.shape))
        for j in range(c.shape[1]):
            height += legendre.legval(u, c[:, j]) * legendre.legval(v, np.eye(c.shape[1])[j])
        if self.wave:
            knots = _knots(len(self.wave) - 3)
            height += BSpline(knots, np.array(self.wave), 3)(_along(u, v, self.along_deg))
        return height


def fit_bend(difference: Array, stable: NDArray[np.bool_], resolution: float) -> Bend | None:
    """The bend that differences (m) of stable cells show after shift and tilt were taken out; None where there is none.

    difference: (h, w) of the whole scene, whose middle is that of the array.
    """
    height, width = difference.shape
    half = max(height, width) * resolution / 2
    side = max(BLOCK, resolution * float(np.sqrt(difference.size / MOST_BLOCKS)))
    cells = max(2, round(side / resolution))
    row, column, d = _blocks(difference, stable, cells)
    if d.size < LEAST_BLOCKS:
        return None
    size = cells * resolution
    u = ((column + 0.5) * size - width * resolution / 2) / half
    v = (height * resolution / 2 - (row + 0.5) * size) / half
    fold = (row // FOLD_BLOCKS * 3 + column // FOLD_BLOCKS * 7) % FOLDS
    plane = _error(_polynomials(u, v, 1), d, fold)
    best, least = None, plane
    for model in _models(half):
        error = _error(_design(u, v, model), d, fold)
        if error < GAIN * least:
            best, least = model, error
    if best is None or plane - least < LEAST_GAIN:
        return None
    solution = _solve(_design(u, v, best), d)
    n = best.degree + 1
    terms = n * (n + 1) // 2
    c = np.zeros((n, n))
    for k, (i, j) in enumerate(_terms(best.degree)):
        c[i, j] = solution[k]
    return Bend(
        half, tuple(tuple(float(x) for x in r) for r in c), best.along_deg, tuple(float(x) for x in solution[terms:])
    )


@dataclass(frozen=True)
class _Model:
    degree: int
    along_deg: float = 0.0
    spans: int = 0


def _models(half: float) -> Iterator[_Model]:
    """Models to try, the simpler first."""
    yield from (_Model(n) for n in DEGREES)
    for spans in WAVE_SPANS:
        if 2 * REACH * half / spans >= LEAST_SPAN:
            yield from (_Model(2, float(angle), spans) for angle in ANGLES_DEG)


def _blocks(
    difference: Array, stable: NDArray[np.bool_], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Row, column and median of blocks with enough stable cells."""
    rows, columns, medians = [], [], []
    for row in range(difference.shape[0] // size):
        for column in range(difference.shape[1] // size):
            where = slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size)
            values = difference[where][stable[where]]
            if values.size >= LEAST_IN_BLOCK * size * size:
                rows.append(row)
                columns.append(column)
                medians.append(float(np.median(values)))
    return np.array(rows, np.int64), np.array(columns, np.int64), np.array(medians)


def _terms(degree: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]


def _polynomials(u: Floats, v: Floats, degree: int) -> Floats:
    p, q = legendre.legvander(u, degree), legendre.legvander(v, degree)
    return np.stack([p[:, i] * q[:, j] for i, j in _terms(degree)], axis=1)


def _design(u: Floats, v: Floats, model: _Model) -> Floats:
    columns = _polynomials(u, v, model.degree)
    if not model.spans:
        return columns
    along = _along(u, v, model.along_deg)
    return np.hstack([columns, BSpline.design_matrix(along, _knots(model.spans), 3).toarray()])


def _along(u: Floats, v: Floats, angle_deg: float) -> Floats:
    a = np.radians(angle_deg)
    return np.asarray(np.clip(u * np.cos(a) + v * np.sin(a), -REACH, REACH - 1e-9))


def _knots(spans: int) -> Floats:
    return np.r_[[-REACH] * 3, np.linspace(-REACH, REACH, spans + 1), [REACH] * 3]


def _error(design: Floats, d: Floats, fold: NDArray[np.int64]) -> float:
    """Median size of the errors of blocks left out, metres."""
    left = np.empty(d.size)
    for k in range(FOLDS):
        out = fold == k
        left[out] = d[out] - design[out] @ _solve(design[~out], d[~out])
    return float(np.median(np.abs(left)))


def _solve(design: Floats, d: Floats) -> Floats:
    """Robust least squares (Tukey's biweight), with a slight pull to zero where nothing tells."""
    w = np.ones(d.size)
    solution: Floats = np.zeros(design.shape[1])
    for _ in range(STEPS):
        normal = (design * w[:, None]).T @ design
        normal[np.diag_indices_from(normal)] += RIDGE * d.size / design.shape[1]
        solution = np.asarray(np.linalg.solve(normal, (design * w[:, None]).T @ d), float)
        left = d - design @ solution
        w = tukey_weights(left, max(nmad(left), 1e-3))
    return solution
