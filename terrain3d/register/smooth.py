"""Height error of a placed model as a random field, from returns along tracks: a constant, a tilt, and a smooth rest.

A Gaussian process with a mean that is itself uncertain (Rasmussen & Williams 2006, ch. 2.7; in geostatistics universal
kriging with a prior). All is estimated together, because a bend of the model looks like a tilt where tracks are few,
and each must be as uncertain as the other leaves it. The rest is what cameras leave behind: mostly bends along the
lines of the images, which are common to the width of a strip, and a smaller part that is alike in all directions. Its
size and length come from the returns by the likelihood of whole tracks that are held out, averaged over the candidates
by their weight, since a few tracks do not single one out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.adjust.pointing import USUAL_TILT
from terrain3d.register.footprint import Footprints
from terrain3d.register.lines import Lines
from terrain3d.register.shift import Fit, Linearization

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CONSTANT_SIGMA = 100.0  # metres
TILT_TAIL = 3.0  # of its sigma: a larger tilt that is plainly seen is not held back (Geman & McClure)
TAIL_TURNS = 4
OWN_SIGMA = 0.1  # metres, of a return at least
STATED_COUNTS = 8  # returns that the stated sigma counts as much as, against the size of the residuals
TRACK_SIGMA = 0.03  # metres, common to the returns of a usual track
# 1-sigma of the rest in metres, and its chance
SIZES = ((0.02, 0.15), (0.05, 0.3), (0.1, 0.3), (0.2, 0.15), (0.4, 0.07), (0.8, 0.03))
SHARES = (0.8, 0.0)  # of the variance that runs with the lines
LENGTHS = (1 / 9, 1 / 5)  # of the extent; what is longer than that is a tilt
SHORTEST = 75.0  # metres
MAX_ROWS = 400
LEAST_CHANCE = 0.1  # of a candidate that is used


@dataclass(frozen=True)
class Observations:
    """Returns against a model, one row a return. east, north: metres from the origin. height: return minus model.

    sigma: of each alone, metres. slope: (N, 2) of the model, east and north, times the 1-sigma of the horizontal error
    that the returns of a track share; sideways: (N, 2) times a root of the covariance of the model's own shift. offset:
    1-sigma of the height that the returns of a track share, metres.
    """

    east: Floats
    north: Floats
    height: Floats
    sigma: Floats
    slope: Floats
    sideways: Floats
    track: NDArray[np.int32]
    offset: Floats


def observations(problem: Linearization, fit: Fit, places: Footprints) -> Observations:
    """Returns that carry weight in a fit, by track. An error of the model's shift, known or not, is one of all returns.

    What was taken off a track's displacement is put back to first order: it was only a better place to linearize at,
    and its estimate shares the uncertainty of the heights.
    """
    rows = np.flatnonzero(fit.used & np.isfinite(problem.difference))
    rows = rows[np.argsort(problem.track[rows], kind="stable")]
    slope = np.column_stack([problem.slope_x, problem.slope_y])[rows]
    root = np.linalg.cholesky(fit.covariance[:2, :2])
    shared, moved = places.shared[rows, None], places.moved[rows]
    # what is left of the displacement of a beam that was placed is in the slopes but for their bends
    placed = np.where(moved.any(axis=1), 0.0, shared[:, 0])
    own = np.sqrt(np.maximum(problem.sigma[rows] ** 2 - placed**2 * (slope**2).sum(axis=1), OWN_SIGMA**2))
    few = STATED_COUNTS / (STATED_COUNTS + len(rows))  # of the returns that say how large residuals are
    scale = np.sqrt((1 - few) * fit.scale**2 + few)
    return Observations(
        problem.east[rows], problem.north[rows], problem.difference[rows] + (slope * moved).sum(axis=1),
        scale * own / np.sqrt(fit.weight[rows]), slope * shared, slope @ root,
        problem.track[rows], np.full(len(rows), TRACK_SIGMA),
    )  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """Kernel of the smooth rest. share: of its variance that runs with the lines. chance: its weight, all sum to 1."""

    size: float
    share: float
    length: float
    lines: Lines
    chance: float

    def between(self, a: Floats, b: Floats) -> Floats:
        """Covariance of the rest at places (N, 2) and (M, 2), metres squared."""
        u, v = ((p[:, :1] - q[:, 0]) / self.length for p, q in zip((a, a[:, 1:]), (b, b[:, 1:]), strict=True))
        runs = self.lines.correlation(a, b, self.length)
        out = self.share * runs + (1 - self.share) * np.exp(-0.5 * (u * u + v * v))
        return np.asarray(self.size**2 * out)

    def variance(self, places: Floats) -> Floats:
        """Of the rest at places (N, 2), metres squared."""
        return np.asarray(self.size**2 * (self.share * self.lines.variance(places) + 1 - self.share))


@dataclass(frozen=True)
class Field:
    """What observations say of the height error. heights: (3,) constant and tilt (m, m/m), covariance: (3, 3) of them.

    total, variance: correction at the places asked for, metres, and its variance.
    """

    heights: Floats
    covariance: Floats
    total: Floats
    variance: Floats


def candidates(observed: Observations, folds: list[Bools], extent: float, lines: Lines) -> list[Candidate]:
    """Kernels with their chances, by how likely they make each fold given the others. folds: rows of each."""
    lengths = sorted({max(share * extent, SHORTEST) for share in LENGTHS})
    prior = height_prior(observed, lines)
    found, score = [], []
    for (size, before), share, length in product(SIZES, SHARES, lengths):
        one = Candidate(size, share, length, lines, 1.0)
        found.append(one)
        score.append(np.log(before) + _held_out_likelihood(observed, folds, one, prior))
    chance = np.exp(np.array(score) - max(score))
    chance[chance < LEAST_CHANCE * chance.max()] = 0.0
    chance /= chance.sum()
    return [Candidate(c.size, c.share, c.length, lines, float(p)) for c, p in zip(found, chance, strict=True) if p > 0]


def estimate(observed: Observations, models: list[Candidate], places: Floats) -> Field:
    """Constant, tilt, and the whole correction at places (M, 2), averaged over the candidates."""
    prior, design = height_prior(observed, models[0].lines), _design(places)
    own = np.einsum("mi,ij,mj->m", design, prior, design)
    heights, covariance = np.zeros(3), np.zeros((3, 3))
    total, square = np.zeros(len(places)), np.zeros(len(places))
    at = np.column_stack([observed.east, observed.north])
    lever = prior @ _design(at).T
    for model in models:
        cross = model.between(places, at) + design @ lever
        solved = np.column_stack([observed.height, lever.T, cross.T])
        _solve_lower(_covariance(observed, model, prior), solved)
        data, of_heights, of_places = solved[:, 0], solved[:, 1:4], solved[:, 4:]
        found, mean = of_heights.T @ data, np.einsum("nm,n->m", of_places, data)
        variance = own + model.variance(places) - np.einsum("nm,nm->m", of_places, of_places)
        heights += model.chance * found
        covariance += model.chance * (prior - of_heights.T @ of_heights + np.outer(found, found))
        total += model.chance * mean
        square += model.chance * (np.maximum(variance, 0.0) + mean**2)
    return Field(heights, covariance - np.outer(heights, heights), total, np.maximum(square - total**2, 1e-8))


def thinned(observed: Observations) -> Observations:
    """Means of neighbours along a track, so that no more than about 400 remain."""
    n = len(observed.height)
    group = -(-n // MAX_ROWS)
    if group <= 1:
        return observed
    first = np.searchsorted(observed.track, observed.track)  # rows are sorted by track, then along it
    label = np.unique(observed.track.astype(np.int64) * n + (np.arange(n) - first) // group, return_inverse=True)[1]
    weight = observed.sigma**-2.0
    total = np.bincount(label, weight)

    def mean(values: Floats) -> Floats:
        return np.asarray(np.bincount(label, weight * values) / total)

    slope, sideways = (np.column_stack([mean(a[:, 0]), mean(a[:, 1])]) for a in (observed.slope, observed.sideways))
    track, offset = np.zeros(len(total), np.int32), np.zeros(len(total))
    track[label], offset[label] = observed.track, observed.offset
    return Observations(
        mean(observed.east), mean(observed.north), mean(observed.height), np.asarray(total**-0.5, float), slope,
        sideways, track, offset
    )  # fmt: skip


def height_prior(observed: Observations, lines: Lines) -> Floats:
    """Covariance (3, 3) of constant and tilt before any return is read, widened where the returns plainly show a larger
    tilt."""
    (a, b), known = lines.along, lines.tilt
    root = np.array([(a, b), (-b, a)]).T * USUAL_TILT if known is None else np.linalg.cholesky(known)
    total = (
        observed.sigma**2 + observed.offset**2 + (observed.slope**2).sum(axis=1) + (observed.sideways**2).sum(axis=1)
    )
    places = np.column_stack([observed.east, observed.north]) @ root  # tilts in units of their sigma
    design = _design(places) / np.sqrt(total)[:, None]
    solution = np.linalg.lstsq(design, observed.height / np.sqrt(total), rcond=1e-6)[0]
    wider = 1.0
    for _ in range(TAIL_TURNS):
        weak = np.diag([CONSTANT_SIGMA**-2, 1 / wider, 1 / wider])
        seen = np.eye(2) - np.linalg.inv(design.T @ design + weak)[1:, 1:] / wider
        size = float(np.hypot(*(seen @ solution[1:])))  # the part that is not the prior's
        wider = (1 + (size / TILT_TAIL) ** 2) ** 2
    prior = np.zeros((3, 3))
    prior[0, 0] = CONSTANT_SIGMA**2
    prior[1:, 1:] = root @ root.T * wider
    return prior


def _design(places: Floats) -> Floats:
    return np.column_stack([np.ones(len(places)), places])


def without_offsets(observed: Observations, model: Candidate, prior: Floats, values: Floats) -> Floats:
    """Columns (N, M) multiplied by the inverse covariance of the heights as they were without offsets of tracks."""
    bare = replace(observed, offset=np.zeros(len(observed.offset)))
    return np.asarray(np.linalg.solve(_covariance(bare, model, prior), values))


def _covariance(observed: Observations, model: Candidate, prior: Floats) -> Floats:
    """Of the observed heights: the field's, the tracks', and each one's own."""
    at = np.column_stack([observed.east, observed.north])
    design = _design(at)
    same = observed.track[:, None] == observed.track
    shared = np.where(same, observed.offset**2 + observed.slope @ observed.slope.T, 0.0)
    shared += observed.sideways @ observed.sideways.T
    return np.asarray(
        model.between(at, at) + design @ prior @ design.T + shared + np.diag(observed.sigma**2)
    )  # fmt: skip


def _held_out_likelihood(observed: Observations, folds: list[Bools], model: Candidate, prior: Floats) -> float:
    """Logarithm of the likelihood of each fold given the others, all together."""
    covariance = _covariance(observed, model, prior)
    whole = _likelihood(covariance, observed.height)
    return sum(whole - _likelihood(covariance[np.ix_(~fold, ~fold)], observed.height[~fold]) for fold in folds)


def _likelihood(covariance: Floats, values: Floats) -> float:
    """Logarithm of the normal likelihood of values, up to a constant for each."""
    factor, solved = covariance.copy(), values[:, None].copy()
    _solve_lower(factor, solved)
    return -0.5 * float((solved**2).sum()) - float(np.log(np.diag(factor)).sum())


@njit(cache=True, nogil=True, fastmath=True)
def _solve_lower(a: Any, b: Any) -> None:
    """Cholesky factor of ``a`` (N, N) into its lower part, and ``b`` (N, M) solved by it, both in place.

    These matrices are small, and there are many: a library would wake its threads for each.
    """
    n = a.shape[0]
    for i in range(n):
        for j in range(i + 1):
            total = a[i, j]
            for k in range(j):
                total -= a[i, k] * a[j, k]
            a[i, j] = total / a[j, j] if j < i else np.sqrt(total)
    for i in range(n):
        for k in range(i):
            factor = a[i, k]
            for m in range(b.shape[1]):
                b[i, m] -= factor * b[k, m]
        for m in range(b.shape[1]):
            b[i, m] /= a[i, i]
