"""Co-registration of one surface to another: a robust three-dimensional shift, a tilt, a bend where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from terrain3d.change.bend import Bend, fit_bend
from terrain3d.change.filters import box_mean, coarsen, coarsen_raster, gradient, roughness
from terrain3d.change.resample import resample
from terrain3d.change.stable import smooth_limit, stable_cells
from terrain3d.errors import OverlapError
from terrain3d.raster import Grid, Raster, bilinear, odd_cells
from terrain3d.stats import nmad, tukey_weights

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
LEVELS = (8, 4, 2, 1)
MAX_CELLS = 250_000  # used at a level; more only cost time
STEPS = 8
LEAST_CELLS = 30
MAX_SLOPE = 1.0  # walls and cliffs say where an edge is, not how high the ground is
ROUGHNESS_WINDOW = 2.5  # metres
WIDE_WINDOW = 10.0  # metres
TILT_Z = 3.0  # a tilt below this many of its own sigma is not applied
TILT_LEAST = 0.02  # metres across the scene, below which a tilt is of no account
BEND_CELL = 2.0  # metres, about the size of cells that tell a bend
LEAST_LIKENESS, MOST_APART = 0.15, 2.0  # slopes alike by chance; differences in their sigma that errors do not make
BLOCK = 50.0  # metres; errors of blocks this far apart are taken as independent


@dataclass(frozen=True)
class Alignment:
    """How far AFTER lay from BEFORE on stable ground; all of it is removed before the two are compared.

    east, north, up: shift of AFTER relative to BEFORE, metres; ``up`` at (x0, y0).
    tilt_east, tilt_north: rise of AFTER relative to BEFORE towards east and north, metres per metre; 0 if not
        significant (``tilted`` False).
    converged: the last step was below a fiftieth of a cell.
    n_cells: cells used in the last solution. nmad: of the stable ground's differences, metres.
    bend: what is left of them in low order or along the track, where places that were left out confirm it.
    likeness: correlation of the slopes of both surfaces, 0 where they are put together by chance. apart: NMAD of all
        cells' differences over what errors and roughness make of them.
    """

    east: float
    north: float
    up: float
    tilt_east: float
    tilt_north: float
    x0: float
    y0: float
    tilted: bool
    converged: bool
    n_cells: int
    nmad: float
    bend: Bend | None = None
    likeness: float = 1.0
    apart: float = 0.0

    @property
    def unlike(self) -> bool:
        """The surfaces have nothing in common where they are put: neither slopes nor, within errors, heights."""
        return self.likeness < LEAST_LIKENESS and self.apart > MOST_APART

    def height_at(self, x: Floats, y: Floats) -> Floats:
        """Height to take from AFTER at positions of BEFORE."""
        plane = self.up + self.tilt_east * (x - self.x0) + self.tilt_north * (y - self.y0)
        return plane if self.bend is None else plane + self.bend.height_at(x - self.x0, y - self.y0)


@dataclass(frozen=True)
class View:
    """Both surfaces on one grid, the whole scene or a part: heights, NaN for what is not measured, and the sigma of
    their difference, metres."""

    before: Raster
    after: Raster
    sigma: Array | float


def align(before: Raster, after: Raster, sigma: Array | float = 0.2) -> Alignment:
    """Shift and tilt of ``after`` (any grid, near the resolution of ``before``) relative to ``before``.

    before: metres, projected, NaN for voids and for cells that are not measured. after: likewise.
    sigma: of the difference, metres, (height, width) of ``before`` or one figure.
    Raises OverlapError if too few cells are common.
    """
    return align_views(View(before, resample(after, before.grid), sigma))


def align_views(whole: View, parts: Sequence[View] = ()) -> Alignment:
    """Shift and tilt from the whole scene, and then from ``parts`` of it in finer cells where it is large.

    Gauss-Newton on height differences and slopes of both surfaces (the linear form of Nuth & Kaab 2011), from
    coarse cells to fine ones. Weights: the inverse of variance plus squared local roughness, so crowns and voids'
    edges count little, and Tukey's biweight, so that change counts not at all. Raises OverlapError if too few cells are
    common.
    """
    grid = whole.before.grid
    x0, y0 = grid.west + grid.width * grid.resolution / 2, grid.north - grid.height * grid.resolution / 2
    state = np.zeros(5)  # east, north, up, tilt east, tilt north
    common = np.isfinite(whole.before.values) & np.isfinite(whole.after.values)
    if np.count_nonzero(common) < LEAST_CELLS:
        raise OverlapError(
            f"the two surfaces have {np.count_nonzero(common)} measured cells in common",
            fix="give epochs that cover common ground",
        )
    state[2] = float(np.median(whole.after.values[common] - whole.before.values[common]))
    free = np.ones(5, bool)
    steps: list[tuple[tuple[View, ...], int]]
    steps = [((whole,), f) for f in LEVELS if f == 1 or min(grid.shape) // f >= 24]
    steps += [(tuple(parts), f) for f in LEVELS[1:] if parts]
    result = None
    for views, factor in steps:
        levels = _levels(views, factor)
        if factor > 1 and sum(level.x.size for level in levels) < LEAST_CELLS:
            continue
        result = _solve(levels, state, free, x0, y0)
        state = result.state
    assert result is not None
    size = np.hypot(grid.width, grid.height) * grid.resolution
    tilt, tilt_sigma = state[3:], _tilt_sigma(result.d, result.u, result.v)
    tilted = bool(np.any(np.abs(tilt) > TILT_Z * tilt_sigma) and np.abs(tilt).max() * size > TILT_LEAST)
    if not tilted:
        free[3:] = False
        state = np.r_[state[:3], 0.0, 0.0]
        result = _solve(_levels(*steps[-1]), state, free, x0, y0)
        state = result.state
    east, north, up, tilt_east, tilt_north = (float(v) for v in state)
    alignment = Alignment(
        east=east,
        north=north,
        up=up,
        tilt_east=tilt_east,
        tilt_north=tilt_north,
        x0=x0,
        y0=y0,
        tilted=tilted,
        converged=result.converged,
        n_cells=result.n_cells,
        nmad=nmad(result.d),
        likeness=result.likeness,
        apart=result.apart,
    )
    return replace(alignment, bend=_bend(whole, alignment))


def _bend(view: View, alignment: Alignment) -> Bend | None:
    """What a bend of the whole scene leaves on stable ground after shift and tilt."""
    factor = max(1, round(BEND_CELL / view.before.grid.resolution))
    before, after = coarsen_raster(view.before, factor), coarsen_raster(view.after, factor)
    if min(before.grid.shape) < LEAST_CELLS:
        return None
    d = moved(after, before.grid, alignment).values - before.values
    size = odd_cells(ROUGHNESS_WINDOW, before.grid.resolution)
    rough = np.hypot(roughness(before.values, size), roughness(after.values, size))
    return fit_bend(d, stable_cells(d, np.ones_like(d), rough, smooth_limit(rough)), before.grid.resolution)


def moved(after: Raster, grid: Grid, alignment: Alignment) -> Raster:
    """Heights of ``after`` on ``grid`` with shift and tilt removed."""
    values = resample(after, grid, alignment.east, alignment.north).values
    return Raster(level_off(values, grid, alignment), grid)


def level_off(heights: Array, grid: Grid, alignment: Alignment) -> Array:
    """Heights of ``after`` on ``grid``, already moved sideways, with the vertical shift and the tilt removed."""
    x, y = grid.centres()
    return (heights - alignment.height_at(x[None, :], y[:, None])).astype(np.float32)


@dataclass(frozen=True)
class _Level:
    """Cells of one resolution: ``first`` heights at (x, y) with slopes, ``second`` a raster to be sampled."""

    x: Floats
    y: Floats
    height: Floats
    slope_east: Floats
    slope_north: Floats
    variance: Floats
    second: Raster
    second_east: Array
    second_north: Array

    @classmethod
    def of(cls, view: View, factor: int, most: int) -> _Level:
        grid = view.before.grid
        a, b = coarsen(view.before.values, factor), coarsen(view.after.values, factor)
        r = grid.resolution * factor
        level = Grid(grid.reference, grid.west, grid.north, r, *a.shape)
        size = odd_cells(ROUGHNESS_WINDOW, r)
        rough2 = roughness(a, size) ** 2 + roughness(b, size) ** 2
        # A smooth patch amid crowns is no ground: it counts as its surroundings do.
        rough2 = np.maximum(rough2, box_mean(np.sqrt(rough2), odd_cells(WIDE_WINDOW, r)) ** 2)
        a, b = box_mean(a, 3, 0.99), box_mean(b, 3, 0.99)
        east, north = gradient(a, r)
        b_east, b_north = gradient(b, r)
        s = view.sigma if isinstance(view.sigma, float) else coarsen(view.sigma, factor, 0.1)
        variance = np.broadcast_to(np.square(s), a.shape) + rough2
        usable = np.isfinite(a + east + north + variance) & (np.hypot(east, north) < MAX_SLOPE)
        rows, columns = np.nonzero(usable)
        step = max(1, rows.size // most)
        rows, columns = rows[::step], columns[::step]
        x, y = level.centres()
        return cls(
            x=x[columns],
            y=y[rows],
            height=a[rows, columns].astype(float),
            slope_east=east[rows, columns].astype(float),
            slope_north=north[rows, columns].astype(float),
            variance=variance[rows, columns].astype(float),
            second=Raster(b, level),
            second_east=b_east,
            second_north=b_north,
        )

    def sampled(self, east: float, north: float) -> tuple[Floats, Floats, Floats]:
        """Height of the second surface (east, north) away from each cell, and its slopes there."""
        column, row = self.second.grid.column_row(self.x + east, self.y + north)
        return (
            bilinear(self.second.values, column, row),
            # Slopes are read where the height is: at a rounded place their noise would follow the noise of heights.
            bilinear(self.second_east, column, row),
            bilinear(self.second_north, column, row),
        )


def _levels(views: Sequence[View], factor: int) -> list[_Level]:
    return [_Level.of(view, factor, MAX_CELLS // len(views)) for view in views if min(view.before.grid.shape) >= factor]


@dataclass(frozen=True)
class _Solution:
    """State, and the residuals d of the cells that count, (u, v) from the middle of the scene. likeness, apart: as of
    ``Alignment``."""

    state: Floats
    converged: bool
    d: Floats
    u: Floats
    v: Floats
    n_cells: int
    likeness: float
    apart: float


def _solve(levels: list[_Level], state: Floats, free: NDArray[np.bool_], x0: float, y0: float) -> _Solution:
    """Gauss-Newton steps at one level of all views. Raises OverlapError if too few cells are common."""
    converged, used = False, 0
    names = ("x", "y", "height", "slope_east", "slope_north", "variance")
    x, y, height, slope_east, slope_north, known_variance = (
        np.concatenate([getattr(level, n) for level in levels]) for n in names
    )
    resolution = levels[0].second.grid.resolution if levels else 1.0
    if x.size < LEAST_CELLS:
        raise OverlapError(
            f"only {x.size} cells are measured in full neighbourhoods and less steep than {MAX_SLOPE:g}",
            fix="give surfaces with more measured ground in common",
        )
    u, v = x - x0, y - y0
    half = max(np.ptp(u), np.ptp(v), 1.0) / 2  # tilts are solved in metres at the edge, to keep the system balanced
    unit = np.array([1.0, 1.0, 1.0, half, half])
    for _ in range(STEPS):
        second, second_east, second_north = (
            np.concatenate(c) for c in zip(*(level.sampled(state[0], state[1]) for level in levels), strict=True)
        )
        d = second - height
        d -= state[2] + state[3] * u + state[4] * v
        east, north = 0.5 * (slope_east + second_east), 0.5 * (slope_north + second_north)
        # Where only one surface is steep, the rim of a change or a blurred wall, the slope says nothing of the shift.
        unlike = np.hypot(second_east - slope_east, second_north - slope_north)
        good = np.isfinite(d + east + north)
        used = int(np.count_nonzero(good))
        if used < LEAST_CELLS:
            raise OverlapError(
                f"the two surfaces have {used} measured cells in common", fix="give epochs that cover common ground"
            )
        d, variance = d[good], known_variance[good]
        # d = h_after(x + s) - up - h_before(x) falls to zero at the true state: its derivatives are the slope and -1.
        jacobian = np.stack([-east[good], -north[good], np.ones(used), u[good] / half, v[good] / half], axis=1)
        normalized = d / np.sqrt(variance)
        w = tukey_weights(normalized, max(nmad(normalized), 1e-3)) / (variance + (unlike[good] * resolution) ** 2)
        columns = jacobian[:, free]
        normal = (columns * w[:, None]).T @ columns
        normal[np.diag_indices_from(normal)] += 1e-9 * np.trace(normal) / len(normal)
        step = np.zeros(5)
        step[free] = np.linalg.solve(normal, (columns * w[:, None]).T @ d)
        step[:2] = np.clip(step[:2], -4 * resolution, 4 * resolution)
        state = state + step / unit
        if np.hypot(step[0], step[1]) < 0.02 * resolution and abs(step[2]) < 0.005:
            converged = True
            break
    strong = w > 0.25 * np.median(w[w > 0]) if np.any(w > 0) else w >= 0
    both = good & (np.hypot(second_east, second_north) < MAX_SLOPE)
    likeness = _likeness((slope_east[both], slope_north[both]), (second_east[both], second_north[both]))
    return _Solution(
        state, converged, d[strong], u[good][strong], v[good][strong], used, likeness, nmad(normalized)
    )  # fmt: skip


def _likeness(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> float:
    """Correlation of slopes, the mean ones taken out; 0 where there are none."""
    if not first[0].size:
        return 0.0
    a, b = (np.concatenate([s - s.mean() for s in slopes]) for slopes in (first, second))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def _tilt_sigma(d: Floats, u: Floats, v: Floats) -> Floats:
    """Sigma of tilts east and north from medians of blocks, whose errors hardly depend on each other any more."""
    key = np.rint(u / BLOCK).astype(np.int64) * 100_003 + np.rint(v / BLOCK).astype(np.int64)
    _, block = np.unique(key, return_inverse=True)
    n = int(block.max()) + 1
    count = np.bincount(block, minlength=n)
    keep = count >= 0.2 * np.median(count)
    if np.count_nonzero(keep) < 6:
        return np.array([np.inf, np.inf])
    medians = ndimage.median(d, block, np.arange(n))[keep]
    columns = [np.bincount(block, c, n)[keep] / count[keep] for c in (u, v)]
    design = np.stack([np.ones(len(medians)), *columns], axis=1)
    cofactor = np.linalg.pinv(design.T @ design)
    return np.sqrt(np.diag(cofactor)[1:]) * max(nmad(medians), 1e-4)
