"""Height correction of a model that is in place: how much of it held-out tracks prove, and its sigma everywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Grid, Raster, bilinear
from terrain3d.register.footprint import Footprints
from terrain3d.register.lines import Lines
from terrain3d.register.offsets import TrackOffset, with_offsets
from terrain3d.register.shift import (
    DX,
    DZ,
    SHIFT,
    SHIFT_TILT,
    TUKEY_C,
    VERTICAL,
    VERTICAL_TILT,
    Fit,
    Linearization,
    fit_linear,
    residual_scale,
)
from terrain3d.register.smooth import Candidate, Field, candidates, estimate, observations, thinned
from terrain3d.register.validate import MIN_TRAINING, bounded_loss, make_folds, restart
from terrain3d.stats import tukey_weights

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CONSTANT, TILT, SMOOTH = range(3)  # what is corrected
MIN_SMOOTH_GAIN = 0.04  # of the held-out loss, for bends to be preferred to less
CHANCE = (
    1.0  # standard errors by which tracks that were held out may fit worse for a tilt that is drawn to none already
)
LEAST_SCALE = 0.25
LOOSE = 0.3  # metres, 1-sigma of a surface that is flexible enough to tell gross errors from bends
MAX_LEVERAGE = 0.5
MIN_ROWS = 20  # for more than a constant
NODES_PER_LENGTH = 2.5
MAX_NODES = 100  # a side


@dataclass(frozen=True)
class SmoothCorrection:
    """Smooth part of a vertical correction on nodes, bilinear between them and constant outside.

    height: metres, to be added to the constant and the tilt; None where held-out tracks did not prove it.
    sigma: 1-sigma of the whole vertical correction, metres; what was estimated but not taken off is in it.
    """

    height: Raster | None
    sigma: Raster

    def height_at(self, x: Floats, y: Floats) -> Floats:
        """Metres to be added at places."""
        if self.height is None:
            return np.zeros(np.broadcast_shapes(np.shape(x), np.shape(y)))
        return _at_nodes(self.height, x, y)

    def sigma_at(self, x: Floats, y: Floats) -> Floats:
        """1-sigma of the vertical correction at places, metres."""
        return _at_nodes(self.sigma, x, y)

    def beyond(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """How far east and north of the nodes places lie, metres; 0 among them."""
        west, south, east, north = self.sigma.grid.bounds
        return np.asarray(x - np.clip(x, west, east)), np.asarray(y - np.clip(y, south, north))


def _at_nodes(nodes: Raster, x: Floats, y: Floats) -> Floats:
    column, row = nodes.grid.column_row(x, y)
    height, width = nodes.values.shape
    return bilinear(nodes.values, np.clip(column, 0, width - 1), np.clip(row, 0, height - 1))


@dataclass(frozen=True)
class Heights:
    """A fit with its heights settled. held: (N,) return minus model by a correction that did not see the return's
    track, NaN where there is none. folds: the fits behind them. off: tracks that lie off the others. notes: what was
    done, in words."""

    fit: Fit
    smooth: SmoothCorrection
    held: Floats
    folds: list[Fit]
    off: list[TrackOffset]
    notes: list[str]


def settle_heights(
    problem: Linearization, fit: Fit, footprints: Footprints, grid: Grid, origin: tuple[float, float],
    lines: Lines, spanned: bool,
) -> Heights:  # fmt: skip
    """Constant, tilt, or smooth correction of a model whose horizontal shift is settled in ``fit``.

    footprints: of the returns, for their horizontal errors. grid: of the model.
    lines: of the images, about the origin of the CRS. spanned: whether returns span the model.
    """
    lines = lines.about(origin)
    usable = problem.ground.usable & np.isfinite(problem.difference)
    track_folds = make_folds(problem.track, usable)
    extent = max(grid.shape) * grid.resolution
    tilted = fit_linear(problem, VERTICAL_TILT, fit.parameters)
    weighed = replace(tilted if tilted.used.sum() > MIN_ROWS else fit, covariance=fit.covariance)
    # what bends with the surface may look like gross errors beside a plane
    rows = np.column_stack([problem.east, problem.north])
    loose = Candidate(LOOSE, 0.0, extent / 5, lines, 1.0)
    bent = estimate(thinned(observations(problem, weighed, footprints)), [loose], rows)
    weighed = _weighed_anew(problem, weighed, bent, usable)
    observed, off = with_offsets(thinned(observations(problem, weighed, footprints)), extent, lines)
    models = candidates(observed, [np.isin(observed.track, t) for t in track_folds], extent, lines)
    nodes = node_grid(grid, min(m.length for m in models) / NODES_PER_LENGTH)
    x, y = (a.ravel() for a in np.meshgrid(*nodes.centres()))
    places = np.column_stack([x - origin[0], y - origin[1]])
    found = estimate(observed, models, places)

    # a plain mean is best but where tracks as a whole are off, or displaced on slopes
    plain = not off and np.median(footprints.shared[fit.used]) == 0
    held, folds = _hold_out(problem, fit, weighed, footprints, models, track_folds, extent, plain)
    level = _level(held, problem.sigma * max(fit.scale, LEAST_SCALE), problem.track) if spanned and folds else CONSTANT
    constant = np.array([fit.parameters[DZ] if plain else found.heights[0], 0.0, 0.0])
    applied = constant if level == CONSTANT else found.heights
    plane = applied[0] + places @ applied[1:]
    height = None if level < SMOOTH else Raster((found.total - plane).reshape(nodes.shape), nodes)
    error = found.variance + (0.0 if level == SMOOTH else (found.total - plane) ** 2)
    covariance = fit.covariance.copy()
    covariance[DZ:, DZ:] = found.covariance + np.outer(found.heights - applied, found.heights - applied)
    parameters = np.append(fit.parameters[:DZ], applied)
    free = {(True, False): SHIFT, (True, True): SHIFT_TILT, (False, False): VERTICAL, (False, True): VERTICAL_TILT}
    settled = replace(
        fit if level == CONSTANT else weighed,
        parameters=parameters, covariance=covariance, free=free[DX in fit.free, level > CONSTANT],
    )  # fmt: skip
    return Heights(
        settled, SmoothCorrection(height, Raster(np.sqrt(error).reshape(nodes.shape), nodes)), held[level],
        [f[level] for f in folds], off, _notes(level, applied, height),
    )  # fmt: skip


def _weighed_anew(problem: Linearization, fit: Fit, bent: Field, usable: Bools) -> Fit:
    """The fit with weights and scale from residuals about a field; what it followed of each return is allowed for."""
    residual = problem.difference - bent.total
    leverage = float(np.mean((bent.variance / (fit.scale * problem.sigma) ** 2)[usable & fit.used]))
    scale = residual_scale(residual[usable] / problem.sigma[usable]) / np.sqrt(1 - min(leverage, MAX_LEVERAGE))
    weight = np.zeros(len(usable))
    weight[usable] = tukey_weights(residual[usable], scale * problem.sigma[usable], TUKEY_C)
    return replace(fit, weight=weight, scale=scale)


def node_grid(grid: Grid, spacing: float) -> Grid:
    """Nodes over a grid, about so many metres apart, the outer ones on its border."""
    west, south, east, north = grid.bounds
    spacing = max(spacing, max(east - west, north - south) / MAX_NODES)
    return Grid(
        grid.reference, west - spacing / 2, north + spacing / 2, spacing,
        int(np.ceil((north - south) / spacing)) + 1, int(np.ceil((east - west) / spacing)) + 1,
    )  # fmt: skip


def _hold_out(
    problem: Linearization, fit: Fit, weighed: Fit, footprints: Footprints, models: list[Candidate],
    track_folds: list[NDArray[np.int32]], extent: float, plain: bool,
) -> tuple[Floats, list[tuple[Fit, Fit, Fit]]]:  # fmt: skip
    """Residuals (3, N) of every usable return by constant, tilt and smooth correction of the other folds' tracks, and
    the fits; all NaN and none where too little remains to fit. plain: whether the constant is a plain mean."""
    usable = problem.ground.usable & np.isfinite(problem.difference)
    held = np.full((3, len(usable)), np.nan)
    free = SHIFT if DX in fit.free else VERTICAL
    folds = []
    for tracks in track_folds:
        out = np.isin(problem.track, tracks)
        if (usable & ~out).sum() < max(MIN_TRAINING, len(free) + 1):
            return np.full_like(held, np.nan), []
        constant = fit_linear(problem.select(~out), free, restart(problem, usable & ~out, fit.parameters))
        moved = replace(problem, difference=problem.residuals(np.append(constant.parameters[:DZ], np.zeros(3))))
        rows = usable & out
        places = np.column_stack([problem.east, problem.north])[rows]
        weight = np.where(out, 0.0, weighed.weight)
        observed = thinned(observations(moved, replace(weighed, weight=weight), footprints))
        observed, _ = with_offsets(observed, extent, models[0].lines)
        found = estimate(observed, models, places)
        held[CONSTANT, rows] = moved.difference[rows] - (constant.parameters[DZ] if plain else found.heights[0])
        held[TILT, rows] = moved.difference[rows] - found.heights[0] - places @ found.heights[1:]
        held[SMOOTH, rows] = moved.difference[rows] - found.total
        planar = replace(constant, parameters=np.append(constant.parameters[:DZ], found.heights))
        folds.append((constant, planar, planar))
    return held, folds


def _level(held: Floats, sigma: Floats, track: NDArray[np.int32]) -> int:
    """What to correct: bends if tracks that were held out fit better for it, else a tilt unless they fit worse by more
    than the standard error of that, from how the tracks differ.

    The tilt is the mean of what is expected and of what is seen, so it is small where little is seen; to ask that few
    tracks improve would refuse a good part of the true ones by chance.
    """
    both = np.isfinite(held).all(axis=0)
    if both.sum() < MIN_ROWS:
        return CONSTANT
    loss = np.array([bounded_loss(h[both], sigma[both]) for h in held])
    mean = loss.mean(axis=1)
    if mean[SMOOTH] < (1 - MIN_SMOOTH_GAIN) * min(mean[CONSTANT], mean[TILT]):
        return SMOOTH
    worse = np.bincount(np.unique(track[both], return_inverse=True)[1], loss[TILT] - loss[CONSTANT])
    error = np.sqrt(len(worse) * np.var(worse, ddof=1)) if len(worse) > 1 else 0.0
    return TILT if worse.sum() < CHANCE * error else CONSTANT


def _notes(level: int, applied: Floats, height: Raster | None) -> list[str]:
    notes = []
    if level > CONSTANT:
        notes.append(f"tilt of {1000 * float(np.hypot(*applied[1:])):.2f} m per km taken off")
    if height is not None:
        notes.append(f"smooth height error of up to {float(np.abs(height.values).max()):.2f} m taken off")
    return notes
