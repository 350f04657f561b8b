"""Robust shift, and optionally tilt, that brings a surface model onto ground returns.

The model moves by (dx, dy, dz): a model point (x, y, z) belongs at (x + dx, y + dy, z + dz + tilt). The moved surface
at a return (X, Y) is S(X - dx, Y - dy) + dz + tilt_e (X - X0) + tilt_n (Y - Y0), and the residual is the height of the
return minus that. Linearized about a shift, with the surface's slopes (p, q) there:

    r(delta) = r - ( -p delta_dx - q delta_dy + delta_dz + (X - X0) delta_tilt_e + (Y - Y0) delta_tilt_n )

Least squares on slopes as in Nuth & Kaeaeb (2011), with footprints for points and a redescending estimator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.points import LidarReturns
from terrain3d.raster import Raster
from terrain3d.register.footprint import Footprints, FootprintSample, sample_footprints
from terrain3d.register.ground import MIN_VALID, GroundTest, expected_sigma, find_ground
from terrain3d.register.objects import coarsen, smooth
from terrain3d.stats import NMAD_FACTOR, most_common, tukey_weights

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

DX, DY, DZ, TILT_E, TILT_N = range(5)
VERTICAL = (DZ,)
SHIFT = (DX, DY, DZ)
VERTICAL_TILT = (DZ, TILT_E, TILT_N)
SHIFT_TILT = (DX, DY, DZ, TILT_E, TILT_N)

SEARCH_RADIUS = 20.0
SEARCH_STEP = 2.0
SEARCH_SIGMA = 6.0  # smoothing of the surface while searching, about a footprint
SEARCH_RETURNS = 1500
SEARCH_GAIN = 2.0  # returns that must come into agreement before a far start is preferred to none
ITERATIONS = 12
FREEZE_AFTER = 3  # iterations, then the choice of returns is kept so that the estimate can settle
CONVERGED = 1e-3
STEP_LIMIT = 3.0
TUKEY_C = 4.685
SCALE_LIMITS = (0.25, 3.0)
MIN_CLUSTERS = 4
GROSS_REACH = 15.0  # scales within which gross errors are told from honest ones
HONEST_BEFORE = (9.0, 1.0)  # honest and gross residuals that count before any is seen
START_COUNTS = 8.0  # residuals that the median deviation counts as much as
MIXTURE_TURNS = 15


@dataclass(frozen=True)
class Linearization:
    """Returns against the surface at one shift: all that a refit in the neighbourhood needs. Rows are returns.

    at: (dx, dy) of the linearization. difference: return minus the surface moved by ``at``, metres, dz not applied.
    sigma: expected 1-sigma of the difference, metres. east, north: metres from the origin of the tilt.
    """

    at: tuple[float, float]
    difference: Floats
    slope_x: Floats
    slope_y: Floats
    sigma: Floats
    east: Floats
    north: Floats
    track: NDArray[np.int32]
    ground: GroundTest

    def design(self) -> Floats:
        """(N, 5) derivative of the moved surface by dx, dy, dz, tilt_e, tilt_n."""
        return np.column_stack([-self.slope_x, -self.slope_y, np.ones_like(self.east), self.east, self.north])

    def residuals(self, parameters: Floats) -> Floats:
        """Return minus moved surface for parameters near ``at``, metres."""
        step = np.asarray(parameters, float).copy()
        step[:2] -= self.at
        return self.difference - self.design() @ step

    def select(self, which: Bools | NDArray[np.int64]) -> Linearization:
        arrays = ("difference", "slope_x", "slope_y", "sigma", "east", "north", "track")
        return replace(
            self, **{n: getattr(self, n)[which] for n in arrays}, ground=GroundTest(self.ground.usable[which], ())
        )


@dataclass(frozen=True)
class Fit:
    """Estimated parameters (dx, dy, dz in metres, tilt_e, tilt_n in m/m) and what they rest on.

    covariance: (5, 5), zero where a parameter was not estimated.
    weight: (N,) Tukey weight of every return, 0 for rejected ones. scale: residual sigma over the expected one.
    """

    parameters: Floats
    covariance: Floats
    free: tuple[int, ...]
    weight: Floats
    scale: float
    converged: bool

    @property
    def used(self) -> Bools:
        return np.asarray(self.weight > 0)


def linearize(
    dsm: Raster,
    objects: Raster,
    returns: LidarReturns,
    footprints: Footprints,
    shift: tuple[float, float],
    origin: tuple[float, float],
    dsm_sigma: Raster | None = None,
) -> tuple[Linearization, FootprintSample]:
    """Compare all returns with the surface moved by ``shift`` (east, north, metres)."""
    sample = sample_footprints(dsm, objects, footprints, shift, MIN_VALID)
    surface_sigma = None if dsm_sigma is None else dsm_sigma.sample(footprints.x - shift[0], footprints.y - shift[1])
    result = Linearization(
        shift,
        returns.height - sample.height,
        np.where(footprints.level, 0.0, np.nan_to_num(sample.slope_x)),
        np.where(footprints.level, 0.0, np.nan_to_num(sample.slope_y)),
        expected_sigma(returns, footprints.place_sigma, sample, surface_sigma),
        footprints.x - origin[0],
        footprints.y - origin[1],
        returns.track,
        find_ground(returns, sample),
    )
    return result, sample


def smoothed_ground(dsm: Raster, objects: Raster) -> Raster:
    """The surface at about the size of a footprint, objects left out; NaN where they prevail."""
    coarse = coarsen(dsm, max(1, round(objects.grid.resolution / dsm.grid.resolution)))
    cells = SEARCH_SIGMA / coarse.grid.resolution
    known = (np.isfinite(coarse.values) & (objects.values == 0)).astype(np.float32)
    share = smooth(known, cells)
    level = float(np.nanmedian(coarse.values))
    total = smooth(np.where(known > 0, coarse.values - level, 0).astype(np.float32), cells)
    with np.errstate(invalid="ignore", divide="ignore"):
        return replace(coarse, values=np.where(share > 0.7, total / share + level, np.nan))


def search_start(
    dsm: Raster, objects: Raster, returns: LidarReturns, footprints: Footprints, usable: Bools
) -> tuple[float, float]:
    """Horizontal shift (east, north) within 20 m at which most returns agree on one height difference.

    The surface is smoothed to the size of a footprint, objects left out. (0, 0) unless another shift brings clearly
    more returns into agreement: on flat ground every shift agrees.
    """
    rows = np.flatnonzero(usable)
    if len(rows) < 8:
        return 0.0, 0.0
    rows = rows[:: -(-len(rows) // SEARCH_RETURNS)]
    surface = smoothed_ground(dsm, objects)
    east, north = footprints.x[rows], footprints.y[rows]
    height, sigma = returns.height[rows], np.hypot(returns.sigma[rows], 0.7)

    def agreement(shift: tuple[float, float]) -> float:
        z = surface.sample(east - shift[0], north - shift[1])
        difference = height - z
        difference = difference - most_common(difference)
        u = np.nan_to_num(difference, nan=np.inf) / (TUKEY_C * sigma)
        return float((np.maximum(1 - np.minimum(u**2, 1.0), 0.0) ** 3).sum())

    def best_of(centre: tuple[float, float], radius: float, step: float) -> tuple[float, float]:
        offsets = np.arange(-round(radius / step), round(radius / step) + 1) * step
        tries = [(float(centre[0] + a), float(centre[1] + b)) for b in offsets for a in offsets]
        return max(tries, key=lambda s: (agreement(s), -np.hypot(*s)))

    best = best_of(best_of((0.0, 0.0), SEARCH_RADIUS, SEARCH_STEP), SEARCH_STEP, SEARCH_STEP / 2)
    gain = agreement(best) - agreement((0.0, 0.0))
    return best if gain > SEARCH_GAIN else (0.0, 0.0)


def fit_linear(problem: Linearization, free: tuple[int, ...], start: Floats | None = None, iterations: int = 20) -> Fit:
    """Robust estimate of the free parameters near a linearization, from its usable returns."""
    usable = problem.ground.usable & np.isfinite(problem.difference)
    parameters = np.zeros(5) if start is None else np.asarray(start, float).copy()
    if start is None:
        parameters[:2] = problem.at
        parameters[DZ] = most_common(problem.difference[usable])
    columns = np.array(free)
    design = problem.design()[:, columns]
    weight = np.zeros(len(usable))
    scale, converged = 1.0, False
    if usable.sum() < len(free) + 1:
        return Fit(parameters, np.zeros((5, 5)), free, weight, float("nan"), False)
    for _ in range(iterations):
        residual = np.where(usable, problem.residuals(parameters), 0.0)
        scale = residual_scale(residual[usable] / problem.sigma[usable])
        weight[usable] = tukey_weights(residual[usable], scale * problem.sigma[usable], TUKEY_C)
        step = _solve(design, residual, weight, problem.sigma, usable, columns)
        parameters[columns] += step
        if np.abs(design @ step)[usable].max(initial=0.0) < CONVERGED:
            converged = True
            break
    residual = np.where(usable, problem.residuals(parameters), 0.0)
    covariance = _covariance(design, residual, weight, problem.sigma, usable, problem.track, columns)
    return Fit(parameters, covariance, free, weight, scale, converged)


def residual_scale(normalized: Floats) -> float:
    """Robust sigma of residuals over their expected sigma, limited so that neither gross errors nor luck set it.

    Where many are gross their median deviation is too large, and then the smaller ones of them count as honest. So it
    is only the start: honest residuals, and gross ones anywhere around them, are told apart as a mixture (Dempster,
    Laird & Rubin 1977) that the start counts in like some more residuals. Never more than the start.
    """
    start = float(np.clip(NMAD_FACTOR * np.median(np.abs(normalized)), *SCALE_LIMITS))
    return max(_honest_scale(np.asarray(normalized, float), start), SCALE_LIMITS[0])


@njit(cache=True, nogil=True)
def _honest_scale(normalized: Floats, start: float) -> float:
    scale, honest, reach = start, HONEST_BEFORE[0] / sum(HONEST_BEFORE), GROSS_REACH * start
    for _ in range(MIXTURE_TURNS):
        near, count, total = 0, 0.0, 0.0
        gross = (1.0 - honest) / (2.0 * reach)
        for value in normalized:
            if abs(value) < reach:
                good = honest * np.exp(-0.5 * (value / scale) ** 2) / (np.sqrt(2.0 * np.pi) * scale)
                chance = good / (good + gross)
                near += 1
                count += chance
                total += chance * value * value
        before = scale
        honest = (count + HONEST_BEFORE[0]) / (near + HONEST_BEFORE[0] + HONEST_BEFORE[1])
        scale = min(np.sqrt((total + START_COUNTS * start**2) / (count + START_COUNTS)), start)
        if abs(scale - before) < 1e-3 * scale:
            break
    return scale


def _information(design: Floats, weight: Floats, sigma: Floats, usable: Bools) -> Floats:
    w = np.where(usable, weight / np.where(usable, sigma, 1.0) ** 2, 0.0)
    return np.asarray((design * w[:, None]).T @ design)


def _solve(
    design: Floats, residual: Floats, weight: Floats, sigma: Floats, usable: Bools, columns: NDArray[np.int64]
) -> Floats:
    """Weighted least squares step. The weak prior keeps flat ground from running away."""
    information = _information(design, weight, sigma, usable)
    w = np.where(usable, weight / np.where(usable, sigma, 1.0) ** 2, 0.0)
    step = np.linalg.solve(information + _prior(columns), design.T @ (w * residual))
    horizontal = np.hypot(*step[columns <= DY]) if (columns <= DY).sum() == 2 else 0.0
    return np.asarray(step * min(1.0, STEP_LIMIT / max(float(horizontal), 1e-12)))


def _prior(columns: NDArray[np.int64]) -> Floats:
    """Information of 30 m for the shift and 10 cm/m for the tilt: without effect where the returns say anything."""
    return np.diag(np.where(columns <= DY, 30.0**-2, np.where(columns == DZ, 1e-8, 0.1**-2)))


def _covariance(
    design: Floats,
    residual: Floats,
    weight: Floats,
    sigma: Floats,
    usable: Bools,
    track: NDArray[np.int32],
    columns: NDArray[np.int64],
) -> Floats:
    """Covariance from the spread of the residuals, and no smaller than that of sums over whole tracks.

    Returns of one track share errors (geolocation, atmosphere), so the sandwich over tracks is the honest one; with few
    tracks it is itself uncertain, therefore the larger of the two variances is taken for each parameter.
    """
    n, p = float(weight.sum()), len(columns)
    w = np.where(usable, weight / np.where(usable, sigma, 1.0) ** 2, 0.0)
    information = _information(design, weight, sigma, usable)
    inverse = np.linalg.inv(information + _prior(columns))
    variance = float((w * residual**2).sum()) / max(n - p, 1.0)
    model = inverse * max(variance, SCALE_LIMITS[0] ** 2)
    tracks = np.unique(track[usable & (weight > 0)])
    if len(tracks) >= MIN_CLUSTERS:
        scores = np.array([(design * (w * residual)[:, None])[track == t].sum(axis=0) for t in tracks])
        sandwich = inverse @ (scores.T @ scores) @ inverse * len(tracks) / (len(tracks) - 1)
        grow = np.sqrt(np.maximum(1.0, np.diag(sandwich) / np.diag(model)))
        model = model * np.outer(grow, grow)
    full = np.zeros((5, 5))
    full[np.ix_(columns, columns)] = model
    return full


def fit_shift(
    dsm: Raster,
    objects: Raster,
    returns: LidarReturns,
    footprints: Footprints,
    free: tuple[int, ...],
    start: tuple[float, float],
    origin: tuple[float, float],
    dsm_sigma: Raster | None = None,
) -> tuple[Fit, Linearization]:
    """Gauss-Newton with the surface sampled anew at every shift; returns the fit and its last linearization."""
    at, choice = start, None
    fit, problem = None, None
    for iteration in range(ITERATIONS if DX in free else 1):
        problem, _ = linearize(dsm, objects, returns, footprints, at, origin, dsm_sigma)
        if iteration >= FREEZE_AFTER and choice is not None:
            frozen = choice & np.isfinite(problem.difference) & np.isfinite(problem.sigma)
            problem = replace(problem, ground=GroundTest(frozen, problem.ground.rejected))
        else:
            choice = problem.ground.usable
        fit = fit_linear(problem, free)
        moved = float(np.hypot(fit.parameters[DX] - at[0], fit.parameters[DY] - at[1]))
        if moved < CONVERGED * 5:
            break
        step = min(1.0, STEP_LIMIT / max(moved, 1e-9))
        at = (at[0] + step * (fit.parameters[DX] - at[0]), at[1] + step * (fit.parameters[DY] - at[1]))
    assert fit is not None and problem is not None
    return fit, problem
