"""Heights of even ground from all views at once: the rays that meet in a cell, matched on the surface itself.

Pairs of images are matched one by one in windows that move as one, and what a window moves by is also what it blurs.
Here every cell has a height of its own. The images are sampled where the cell is seen, so that slopes do no harm, and
the step of its height is the one that brings all views to their mean best (least squares, Gruen & Baltsavias 1988).
What keeps such steps from following noise is how rough the ground is: relief of a power spectrum c / k^4, with c
measured around each cell at scales where noise does not matter, makes the most likely surface the solution of
``A + k^4 / c`` for the information A of the images (a thin plate; Terzopoulos 1988). So bare rock keeps its steps and
a road is even, and on a narrow base, where each cell knows little, it takes what is known from farther around. Beside
edges, where the ground is not of one piece, nothing is touched. Both are done twice (Gauss & Newton): the images are
sampled again where the first steps lead, and roughness is measured on a surface with less noise.

What noise alone seems to tell of heights is taken off: it is in the slopes of the images, too, and makes cells look
known that have no texture (errors in variables, Fuller 1987). And a step is followed as far as the plate is better than
what it starts from: its variance is 1 / (8 sqrt(A / c)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.crs import to_lonlat
from terrain3d.image.spline import REACH_PX, coefficients, spline
from terrain3d.raster import Grid, Raster
from terrain3d.surface import plate
from terrain3d.surface.ortho import RankedView
from terrain3d.surface.plate import second_difference
from terrain3d.surface.visibility import visible

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

NODE_CELLS = 32  # between places where cameras are evaluated
LEVEL_M = 128.0  # between heights where they are
COARSEST = 1.5  # pixels a cell: of larger ones the images are not seen whole, and heights of many pixels are in them
# From here on heights are counted in cells, as wide as they are high.
EDGE = 2.5  # second difference over which the surface has an edge
CLEAR_CELLS = 2  # from edges and voids, that a cell is even
NORMAL_CELLS = 15  # window of mean and deviation of a view
LEAST_SEEN = 0.15  # of that window
OWN_CELLS = 15  # window of what a view differs from the others by
ALIKE = 0.1  # share of the mean variance that each view is given, too: few cells tell theirs
NOISE_CELLS = 7  # window of the noise of the views
ROUGH_CELLS, AROUND_CELLS = 7, 25  # window of the surface that roughness is measured on, twice; and of its mean
CALM_CELLS = ROUGH_CELLS - 1  # from edges and voids: as far as the two windows reach
STIFF_LEAST, STIFF_MOST = 5.0, 250.0  # 1 / c: of bare rock, of roads
STIFF_CROWNS, LEAST_CALM = 1.0, 0.2  # 1 / c where less than this share of the cells around is clear of edges
TURNS = 2  # samplings of the images
HELD = 0.1  # information that holds a cell where it is: most of what the matches know is in the images already
HELD_BY_EDGES = 1.0  # the same less than ``CALM_CELLS`` from edges and voids, where the plate ends and views are hidden
LARGEST_STEP = 1.2
TRUSTED = 1.0  # A / c whose steps are followed by half
SLOPE_NOISE = 2.8  # variance of a spline's derivative over that of its value, white noise, mean of all places; 1 / px2
MARGIN_CELLS = TURNS * (
    plate.MARGIN_CELLS
    + max(
        NOISE_CELLS // 2 + NORMAL_CELLS // 2 + OWN_CELLS // 2 + CLEAR_CELLS + 1,
        AROUND_CELLS // 2 + 2 * (ROUGH_CELLS // 2) + 1,
    )
)
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@dataclass(frozen=True)
class _Information:
    """What the views say of each cell, (h, w): the best step is ``step / weight``, its variance ``1 / weight``."""

    weight: Floats
    step: Floats


@dataclass(frozen=True)
class _Look:
    """A view as it meets the cells of a grid. image: coefficients of its pixels from line and sample ``first`` on.
    places: (levels, rows, columns, 2) line and sample of nodes around the cells, at heights ``LEVEL_M`` apart from
    number ``low`` on. offset: row and column of the first cell, counted from the first node."""

    view: RankedView
    image: Singles
    first: NDArray[np.int64]
    places: Floats
    low: int
    offset: tuple[int, int]


def refined(dsm: Raster, views: Sequence[RankedView]) -> Singles:
    """Heights (h, w; m, NaN voids) of ``dsm`` refined where the surface is even and at least two views see it.

    Cells farther than ``MARGIN_CELLS`` from the border do not depend on what lies beyond it, but for what hides them.
    """
    resolution = dsm.grid.resolution
    views = [v for v in views if resolution < COARSEST * v.pixel]
    start = np.asarray(dsm.values, np.float32)
    high = start.astype(np.float64) / resolution
    even, calm = even_cells(high), even_cells(high, CALM_CELLS)
    if len(views) < 2 or not even.any():
        return start
    reach = LARGEST_STEP * resolution
    heights = float(start[even].min()) - reach, float(start[even].max()) + reach
    looks = [look for v in views if (look := _look(v, dsm.grid, heights)) is not None]
    origin = round(-dsm.grid.north / resolution), round(dsm.grid.west / resolution)
    z, steps = start, np.zeros(start.shape)
    for _ in range(TURNS):
        found = _information(z, resolution, even, looks)
        steps = _followed(found, high, steps, even, calm, origin)
        z = np.asarray(start + (resolution * steps).astype(np.float32), np.float32)
    return z


def _followed(
    found: _Information, high: Floats, steps: Floats, even: Bools, calm: Bools, origin: tuple[int, int]
) -> Floats:
    """Steps from ``high`` (h, w; cells) as what was found at ``high + steps`` asks for. even, calm: of ``high``."""
    now = high + steps
    held = np.where(calm, HELD, HELD_BY_EDGES) * even
    stiff, bent = (np.where(even, a, 0.0) for a in (stiffness(now, calm), second_difference(now)))
    more = plate.solve(plate.Plate(found.weight + held, found.step - held * steps, stiff, bent, even), origin)
    around = box(found.weight, NORMAL_CELLS)
    trust = around * stiff / (around * stiff + TRUSTED)  # none beside edges, where nothing is stiff
    return np.asarray(trust * np.clip(steps + more, -LARGEST_STEP, LARGEST_STEP))


def even_cells(high: Floats, clear: int = CLEAR_CELLS) -> Bools:
    """Cells with neither edge nor void within ``clear`` cells. high: heights, cells."""
    broken = ~(np.abs(second_difference(high)) < EDGE)
    return cv2.dilate(broken.astype(np.uint8), np.ones((2 * clear + 1,) * 2, np.uint8)) == 0


def stiffness(high: Floats, calm: Bools) -> Floats:
    """1 / c of the spectrum c / k^4 of the relief around each cell, k in radians a cell. high: heights, cells. calm:
    cells with no edge or void within ``CALM_CELLS``."""
    low = box(box(np.where(np.isfinite(high), high, 0.0), ROUGH_CELLS), ROUGH_CELLS)
    variance = (ROUGH_CELLS**2 - 1) / 6  # of both windows together
    level = np.where(calm, 4 * np.pi * variance * second_difference(low) ** 2, 0.0)
    share = box(calm.astype(np.float64), AROUND_CELLS)
    found = np.clip(share / np.maximum(box(level, AROUND_CELLS), 1e-9), STIFF_LEAST, STIFF_MOST)
    return np.where(share < LEAST_CALM, STIFF_CROWNS, found)


def _information(z: Singles, resolution: float, even: Bools, looks: Sequence[_Look]) -> _Information:
    values = np.full((len(looks), *z.shape), np.nan, np.float32)
    slopes = np.full((len(looks), *z.shape), np.nan, np.float32)
    for look, value, slope in zip(looks, values, slopes, strict=True):
        sees = visible(z, resolution, look.view.lean) & even  # beside edges lies the light of something else
        _sample_cells(look.image, look.places, look.first, look.offset, look.low, z, sees, value, slope)
        _normalise(value, slope)
    weight, step, residual, count = (np.zeros(z.shape) for _ in range(4))
    slopes *= np.float32(resolution)
    _joint(values, slopes, shares(values), even, weight, step, residual, count)
    noise = np.maximum(box(residual, NOISE_CELLS) / np.maximum(box(count, NOISE_CELLS), 1e-6), 1e-4)
    doubt = noise * (1 + residual / np.maximum(count, 1) / (9 * noise))  # Cauchy's weights
    leans = np.array([(np.hypot(*k.view.lean) * resolution / k.view.pixel) ** 2 for k in looks], np.float32)
    seen = np.isfinite(values).astype(np.float32)
    lean = np.tensordot(leans, seen, 1) / np.maximum(seen.sum(axis=0), 1)  # of the views of each cell alone
    false = SLOPE_NOISE * lean * box(residual, NOISE_CELLS) / np.maximum(box(weight, NOISE_CELLS), 1e-9)
    true = 1 / (1 + false)  # share of the squared slopes that is no noise; some of ``false`` is misfit, so never none
    return _Information(weight * true**2 / doubt, step * true / doubt)


def _look(ranked: RankedView, grid: Grid, heights: tuple[float, float]) -> _Look | None:
    """What a view has at the cells of a grid between the lowest and the highest of them; None if they lie beside it."""
    view = ranked.view
    low = int(np.floor(heights[0] / LEVEL_M))
    levels = int(np.floor(heights[1] / LEVEL_M)) - low + 2
    row, column = round(-grid.north / grid.resolution), round(grid.west / grid.resolution)
    rows, columns = _nodes(row, grid.height), _nodes(column, grid.width)
    x, y = np.meshgrid((columns + 0.5) * grid.resolution, -(rows + 0.5) * grid.resolution)
    lon, lat = to_lonlat(grid.reference.horizontal, x, y)
    places = np.stack([np.stack(view.camera.project(lon, lat, (low + k) * LEVEL_M), -1) for k in range(levels)])
    used = places[np.isfinite(places).all(axis=-1)]
    if not len(used):
        return None
    first = np.clip(np.floor(used.min(axis=0)).astype(int) - 2 - REACH_PX, 0, view.shape)
    last = np.clip(np.ceil(used.max(axis=0)).astype(int) + 3 + REACH_PX, 0, view.shape)
    if (last - first < 4).any():
        return None
    image = view.read(int(first[0]), int(first[1]), int(last[0] - first[0]), int(last[1] - first[1])).mean(axis=0)
    return _Look(ranked, coefficients(image), first, places, low, (row - int(rows[0]), column - int(columns[0])))


def _nodes(first: int, count: int) -> NDArray[np.int64]:
    """Numbers of the cells around ``count`` ones from ``first`` on that are nodes."""
    return np.arange(first // NODE_CELLS, ceil((first + count) / NODE_CELLS) + 1) * NODE_CELLS


@njit(**_JIT)
def _sample_cells(
    image: Any, places: Any, first: Any, offset: Any, low: int, z: Any, wanted: Any, value: Any, slope: Any
) -> None:
    """Value of a view at the cells that are wanted, and its derivative by height (1 / m); see ``_Look``."""
    height, width = z.shape
    at = np.empty((2, 2))
    for i in range(height):
        fy = (i + offset[0]) / NODE_CELLS
        r = int(fy)
        v = fy - r
        for j in range(width):
            if not wanted[i, j]:
                continue
            fx = (j + offset[1]) / NODE_CELLS
            c = int(fx)
            u = fx - c
            level = z[i, j] / LEVEL_M - low
            k = int(level)
            for n in range(2):
                for axis in range(2):
                    p = places[k + n]
                    at[n, axis] = (1 - v) * ((1 - u) * p[r, c, axis] + u * p[r, c + 1, axis]) + v * (
                        (1 - u) * p[r + 1, c, axis] + u * p[r + 1, c + 1, axis]
                    )
            t = level - k
            line, sample = at[0, 0] + t * (at[1, 0] - at[0, 0]), at[0, 1] + t * (at[1, 1] - at[0, 1])
            value[i, j], by_line, by_sample = spline(image, line - first[0], sample - first[1])
            slope[i, j] = (by_line * (at[1, 0] - at[0, 0]) + by_sample * (at[1, 1] - at[0, 1])) / LEVEL_M


def _normalise(value: Singles, slope: Singles) -> None:
    """Bring values (NaN where not seen) to mean 0 and deviation 1 around each cell."""
    seen = np.isfinite(value)
    inside = box(seen.astype(np.float64), NORMAL_CELLS)
    known = np.where(seen, value, 0).astype(np.float64)
    weight = np.maximum(inside, 1e-6)
    mean = box(known, NORMAL_CELLS) / weight
    square = box(known * known, NORMAL_CELLS) / weight
    deviation = np.sqrt(np.maximum(square - mean * mean, 1e-9 * square + 1e-30))
    deviation[~seen | (inside <= LEAST_SEEN)] = np.nan
    np.divide(value - mean, deviation, out=value, casting="same_kind")
    np.divide(slope, deviation, out=slope, casting="same_kind")


def shares(values: Singles) -> Singles:
    """Weights of the views of each cell, 1 in the mean: one in haze, or of another season, counts less where it is so.

    values: (views, h, w), NaN where not seen. Of less than three views nothing tells which differs.
    """
    seen = np.isfinite(values)
    n = seen.sum(axis=0)
    judged = seen & (n > 2)
    out = np.ones(values.shape, np.float32)
    if not judged.any():
        return out
    own = _own_variances(values, judged, n)
    mean, total = np.zeros(n.shape), np.zeros(n.shape)
    for variance, here in zip(own, judged, strict=True):
        around = box(np.where(here, variance, 0.0), OWN_CELLS)
        variance[:] = np.maximum(around / np.maximum(box(here.astype(np.float64), OWN_CELLS), 1e-6), 0)
        mean += np.where(here, variance, 0)
    mean /= np.maximum(n, 1)
    for variance, here in zip(own, judged, strict=True):
        variance[:] = np.where(here, 1 / (variance + ALIKE * mean + 1e-6), 0)  # from here on precision
        total += variance
    scale = n / np.maximum(total, 1e-12)
    for share, precision, here in zip(out, own, judged, strict=True):
        np.copyto(share, precision * scale, where=here, casting="same_kind")
    return out


def _own_variances(values: Singles, judged: Bools, n: NDArray[np.int64]) -> Floats:
    """Of the n views of each cell, (views, h, w): what the differences of all pairs say (Grubbs 1948), cell by cell.

    View by view, for those of a block may be many.
    """
    own, total, squares = np.empty(values.shape), np.zeros(n.shape), np.zeros(n.shape)
    for k, here in enumerate(judged):
        own[k] = np.where(here, values[k], np.float32(0))
        total += own[k]
        squares += own[k] * own[k]
    of_pairs = (n * squares - total * total) / np.maximum(n - 1, 1)
    for v in own:
        v[:] = (n * v * v - 2 * v * total + squares - of_pairs) / np.maximum(n - 2, 1)
    return own


@njit(**_JIT)
def _joint(
    values: Any, slopes: Any, shares: Any, wanted: Any, weight: Any, step: Any, residual: Any, count: Any
) -> None:
    """Sums of the normal equation of a step that brings all views of a cell to their mean."""
    views, height, width = values.shape
    for i in range(height):
        for j in range(width):
            if not wanted[i, j]:
                continue
            n, total, mean, slope = 0, 0.0, 0.0, 0.0
            for k in range(views):
                if np.isfinite(values[k, i, j]) and np.isfinite(slopes[k, i, j]):
                    n += 1
                    total += shares[k, i, j]
                    mean += shares[k, i, j] * values[k, i, j]
                    slope += shares[k, i, j] * slopes[k, i, j]
            if n < 2:
                continue
            mean /= total
            slope /= total
            count[i, j] = n - 1
            for k in range(views):
                if np.isfinite(values[k, i, j]) and np.isfinite(slopes[k, i, j]):
                    r, d = values[k, i, j] - mean, slopes[k, i, j] - slope
                    weight[i, j] += shares[k, i, j] * d * d
                    step[i, j] -= shares[k, i, j] * d * r
                    residual[i, j] += shares[k, i, j] * r * r


def box(values: Floats, size: int) -> Floats:
    """Mean over a square of ``size`` cells, odd; beyond the border there is 0. The same to the bit in any window."""
    across, out = np.empty_like(values), np.empty_like(values)
    _sum_rows(values, size // 2, across)
    _sum_columns(across, size // 2, 1.0 / size**2, out)
    return out


@njit(**_JIT)
def _sum_rows(values: Any, half: int, out: Any) -> None:
    height, width = values.shape
    for i in range(height):
        out[i] = 0.0
        for k in range(-half, half + 1):
            total, more = out[i, max(-k, 0) :], values[i, max(k, 0) :]
            for j in range(width - abs(k)):
                total[j] += more[j]


@njit(**_JIT)
def _sum_columns(values: Any, half: int, factor: float, out: Any) -> None:
    height, width = values.shape
    for i in range(height):
        out[i] = 0.0
        for k in range(max(i - half, 0), min(i + half + 1, height)):
            for j in range(width):
                out[i, j] += values[k, j]
        for j in range(width):
            out[i, j] *= factor
