"""The surface as a lidar footprint sees it: height, slope and spread over a box along the track or a round spot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.crs import from_lonlat
from terrain3d.points import LidarReturns, horizontal_sigma
from terrain3d.raster import Raster

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SAMPLES_ACROSS = 11  # sample points over the narrower side of a footprint
ROUND_RATIO = 1.2  # length / width below this: a round spot with a Gaussian beam
GAUSSIAN_REACH = 2.0  # a beam's diameter is given at 1/e^2, so it reaches two sigma
PLANE_FITS = 4
CLEAR_OFFSET = 1.5  # metres over the footprint's plane that make a sample an obstacle
MOSTLY = 0.5  # of a footprint on objects, from which they are all that there is to see
CONTINUED = 0.5  # 1-sigma of what gaps change, as a share of it: a hillside goes on in them, a bank ends in water

POINTING = 5.0  # metres; larger errors come from a beam's pointing
SHARED_BY_TRACK = 0.5  # of its variance; what slope alone does not tell of a displacement differs from place to place


@dataclass(frozen=True)
class Footprints:
    """Where the returns lie in the frame of the surface, one row a return.

    x, y: centre, metres in the surface's CRS. along_x, along_y: unit vector along the track in that CRS.
    length, width: metres.
    says: (N, 3) chance that the height of the return is the mean of the ground in its footprint, the height of the
    ground's plane at the centre, or the median; a row sums to 1.
    place_sigma: 1-sigma of the horizontal error, metres. shared: 1-sigma of the part that the returns of a track have
    in common, as it was before anything of it was estimated, and moved: (N, 2) metres by which it was taken off.
    level: on water that the model has not got, see ``level``; what the model shows there says nothing of a shift.
    """

    x: Floats
    y: Floats
    along_x: Floats
    along_y: Floats
    length: Floats
    width: Floats
    place_sigma: Floats
    shared: Floats
    moved: Floats
    says: Floats
    level: NDArray[np.bool_]


@dataclass(frozen=True)
class FootprintSample:
    """What the surface shows within each footprint, one row a return; NaN where too little of it has values.

    heights: (N, 3) of the ground, metres: weighted mean, height of a robust plane at the centre, weighted median; what
        stands above the plane is lowered to it. On even ground these are one; on a bend or a terrace products differ in
        which of them they give. Cells of objects do not count unless most are, for a blurred wall is no slope of the
        ground. height: their mean by the chances that ``Footprints.says`` has. unclear: 1-sigma of it, with what voids
        in the footprint leave open.
    slope_x, slope_y: derivative of the height toward east and north, of a robust plane.
    spread: robust 1-sigma of the surface around that plane, metres.
    raised: share of the samples that stand 1.5 m and more above the plane.
    valid: share of the samples that have a value.
    objects: share of the samples on cells marked as objects.
    """

    heights: Floats
    height: Floats
    slope_x: Floats
    slope_y: Floats
    spread: Floats
    raised: Floats
    valid: Floats
    objects: Floats
    unclear: Floats

    @property
    def slope(self) -> Floats:
        """Tangent of the slope."""
        return np.asarray(np.hypot(self.slope_x, self.slope_y))


def place_footprints(returns: LidarReturns, crs: str) -> Footprints:
    """Centres and orientation of footprints in a projected CRS.

    The direction of a track is that of the chord between its returns before and after in time; a lone return gets
    north, which for the near-polar tracks of ICESat-2 is right within some degrees.
    """
    x, y = from_lonlat(crs, returns.lon_deg, returns.lat_deg)
    along_x, along_y = np.zeros(len(x)), np.ones(len(x))
    for track in np.unique(returns.track):
        rows = np.flatnonzero(returns.track == track)
        rows = rows[np.argsort(returns.time_s[rows], kind="stable")]
        if len(rows) < 2:
            continue
        reach = min(5, len(rows) - 1)
        first = np.clip(np.arange(len(rows)) - reach, 0, None)
        last = np.clip(np.arange(len(rows)) + reach, None, len(rows) - 1)
        u, v = x[rows[last]] - x[rows[first]], y[rows[last]] - y[rows[first]]
        norm = np.hypot(u, v)
        moving = norm > 1.0
        along_x[rows[moving]] = u[moving] / norm[moving]
        along_y[rows[moving]] = v[moving] / norm[moving]
    sigma = horizontal_sigma(returns)
    return Footprints(
        x, y, along_x, along_y, np.asarray(returns.length, float), np.asarray(returns.width, float), sigma,
        np.where(sigma > POINTING, np.sqrt(SHARED_BY_TRACK) * sigma, 0.0), np.zeros((len(x), 2)),
        np.full((len(x), 3), 1 / 3), np.zeros(len(x), bool),
    )  # fmt: skip


def sample_footprints(
    dsm: Raster,
    objects: Raster,
    footprints: Footprints,
    shift: tuple[float, float] = (0.0, 0.0),
    min_valid: float = 0.5,
) -> FootprintSample:
    """Surface statistics over each footprint, the surface moved by ``shift`` (east, north, metres) beforehand.

    Moving the surface by (dx, dy) brings its value at (x - dx, y - dy) to (x, y).
    """
    columns, rows = dsm.grid.column_row(footprints.x - shift[0], footprints.y - shift[1])
    ratio = dsm.grid.resolution / objects.grid.resolution
    heights, out = np.full((3, len(columns)), np.nan), np.full((8, len(columns)), np.nan)
    _sample(
        dsm.values, objects.values, dsm.grid.resolution, ratio, columns, rows, footprints.along_x, footprints.along_y,
        footprints.length, footprints.width, min_valid, heights, out,
    )  # fmt: skip
    height = np.einsum("nk,kn->n", footprints.says, heights)
    slope_x, slope_y, spread, raised, valid, on_objects, mean_by_voids, median_by_voids = out
    by_voids = np.array([mean_by_voids, np.zeros(len(height)), median_by_voids])
    variance = (heights - height) ** 2 + (CONTINUED * by_voids) ** 2
    unclear = np.sqrt(np.einsum("nk,kn->n", footprints.says, variance))
    return FootprintSample(heights.T, height, slope_x, slope_y, spread, raised, valid, on_objects, unclear)


@njit(cache=True, nogil=True)
def _weighted_median(values: Floats, weights: Floats, n: int) -> float:
    order = np.argsort(values[:n])
    half = weights[:n].sum() / 2
    total = 0.0
    for k in range(n):
        i = order[k]
        if total + weights[i] >= half:
            # between the two middle values where the half falls on their border
            if k + 1 < n and abs(total + weights[i] - half) < 1e-9 * half:
                return 0.5 * (values[i] + values[order[k + 1]])
            return values[i]
        total += weights[i]
    return values[order[n - 1]]


@njit(cache=True, nogil=True)
def _plane(u: Floats, v: Floats, z: Floats, w: Floats, n: int) -> tuple[float, float, float]:
    """Weighted least squares z = a + b u + c v; flat where the samples do not span a plane."""
    sw = su = sv = sz = 0.0
    for i in range(n):
        sw += w[i]
        su += w[i] * u[i]
        sv += w[i] * v[i]
        sz += w[i] * z[i]
    if sw <= 0.0:
        return np.nan, 0.0, 0.0
    mu, mv, mz = su / sw, sv / sw, sz / sw
    uu = vv = uv = uz = vz = 0.0
    for i in range(n):
        a, b, c = u[i] - mu, v[i] - mv, z[i] - mz
        uu += w[i] * a * a
        vv += w[i] * b * b
        uv += w[i] * a * b
        uz += w[i] * a * c
        vz += w[i] * b * c
    det = uu * vv - uv * uv
    if det <= 1e-6 * (uu + vv) ** 2:
        return mz, 0.0, 0.0
    p, q = (vv * uz - uv * vz) / det, (uu * vz - uv * uz) / det
    return mz - p * mu - q * mv, p, q


@njit(cache=True, nogil=True)
def footprint_samples(length: float, width: float, along_x: float, along_y: float) -> tuple[Floats, Floats, Floats]:
    """Sample points of one footprint: metres east and north of its centre, and weights, those of the beam in a round
    spot and 1 in a box. length, width: metres. along_x, along_y: unit vector along the track."""
    n_along = max(round(length / (width / SAMPLES_ACROSS)), 1)
    most = n_along * SAMPLES_ACROSS
    east, north, weight = np.empty(most), np.empty(most), np.empty(most)
    is_round = length < ROUND_RATIO * width
    n = 0
    for i in range(n_along):
        a = (i + 0.5) / n_along - 0.5
        for j in range(SAMPLES_ACROSS):
            b = (j + 0.5) / SAMPLES_ACROSS - 0.5
            beam = 1.0
            if is_round:
                q = 4.0 * (a * a + b * b)
                if q > 1.0:
                    continue
                beam = np.exp(-0.5 * q * GAUSSIAN_REACH**2)
            east[n] = a * length * along_x + b * width * along_y
            north[n] = a * length * along_y - b * width * along_x
            weight[n] = beam
            n += 1
    return east[:n], north[:n], weight[:n]


@njit(cache=True, nogil=True)
def _under(dsm, objects, resolution, ratio, column, row, east, north):  # type: ignore[no-untyped-def]
    """Heights of the surface at metres (N,) east and north of a column and row, bilinear, NaN where there is none; and
    which of these samples are on objects."""
    height, wide = dsm.shape
    object_rows, object_columns = objects.shape
    z, stands = np.full(len(east), np.nan), np.zeros(len(east), np.bool_)
    for i in range(len(east)):
        c, r = column + east[i] / resolution, row - north[i] / resolution
        if c < 0 or r < 0 or c > wide - 1 or r > height - 1:
            continue
        c0, r0 = min(int(c), max(wide - 2, 0)), min(int(r), max(height - 2, 0))
        c1, r1 = min(c0 + 1, wide - 1), min(r0 + 1, height - 1)
        fc, fr = c - c0, r - r0
        value = (dsm[r0, c0] * (1 - fc) + dsm[r0, c1] * fc) * (1 - fr) + (
            dsm[r1, c0] * (1 - fc) + dsm[r1, c1] * fc
        ) * fr
        if np.isfinite(value):
            z[i] = value
            orow, ocol = int((r + 0.5) * ratio), int((c + 0.5) * ratio)
            stands[i] = objects[min(orow, object_rows - 1), min(ocol, object_columns - 1)] != 0
    return z, stands


@njit(cache=True, nogil=True)
def _ground_first(z: Floats, stands: Bools) -> tuple[NDArray[np.int64], int]:
    """Order of samples, those of the ground before those without a value or on objects; number of those."""
    order, n, end = np.empty(len(z), np.int64), 0, len(z)
    for i in range(len(z)):
        if np.isfinite(z[i]):
            order[n] = i
            n += 1
        else:
            end -= 1
            order[end] = i
    for i in range(n - 1, -1, -1):
        if stands[order[i]]:
            n -= 1
            order[i], order[n] = order[n], order[i]
    return order, n


@njit(cache=True, nogil=True)
def _robust_plane(u: Floats, v: Floats, z: Floats, w: Floats) -> tuple[float, float, float, float, Floats]:
    """Plane z = a + b u + c v that single samples off it do not bend: a, b, c, scale of the residuals, and these."""
    n, weights = len(z), w.copy()
    residual, scale = np.empty(n), 0.0
    a, b, c = _plane(u, v, z, weights, n)
    for iteration in range(PLANE_FITS):
        for i in range(n):
            residual[i] = z[i] - a - b * u[i] - c * v[i]
        residual -= np.median(residual)
        scale = 1.4826 * np.median(np.abs(residual))
        if iteration == PLANE_FITS - 1:
            break
        bound = max(2.0 * scale, 0.05)
        for i in range(n):
            excess = abs(residual[i]) / bound
            weights[i] = w[i] if excess < 1.0 else w[i] / (excess * excess)
        a, b, c = _plane(u, v, z, weights, n)
    return a, b, c, scale, residual


@njit(cache=True, nogil=True)
def _sample(dsm, objects, resolution, ratio, columns, rows, along_x, along_y, length, width, min_valid, heights, out):  # type: ignore[no-untyped-def]
    height, wide = dsm.shape
    for k in range(len(columns)):
        if not (-2.0 - wide < columns[k] < 2.0 * wide and -2.0 - height < rows[k] < 2.0 * height):
            out[4, k] = 0.0
            continue
        east, north, weight = footprint_samples(length[k], width[k], along_x[k], along_y[k])
        found, stands = _under(dsm, objects, resolution, ratio, columns[k], rows[k], east, north)
        asked = got = on_object = 0.0
        for i in range(len(weight)):
            asked += weight[i]
            if np.isfinite(found[i]):
                got += weight[i]
                on_object += weight[i] * stands[i]
        out[4, k] = got / asked
        if got < min_valid * asked:
            continue
        if on_object >= MOSTLY * got:
            stands[:] = False  # they are all that there is to see
        order, n = _ground_first(found, stands)
        if n < 3:
            continue
        u, v, w, z = east[order], north[order], weight[order], found[order]
        a0, p, q, scale, residual = _robust_plane(u[:n], v[:n], z[:n], w[:n])
        raised = 0.0
        for i in range(n):
            if residual[i] > CLEAR_OFFSET:
                raised += w[i]
                z[i] -= residual[i]  # to the ground beneath, or on a slope it would lift the median
        mean, median = (w[:n] * z[:n]).sum() / w[:n].sum(), _weighted_median(z, w, n)
        heights[0, k], heights[1, k], heights[2, k] = mean, a0, median
        if n < len(z):  # on a slope, what is missing on one side would move mean and median
            for i in range(n, len(z)):
                z[i] = a0 + p * u[i] + q * v[i]
            heights[0, k], heights[2, k] = (w * z).sum() / w.sum(), _weighted_median(z, w, len(z))
        out[0, k], out[1, k], out[2, k] = p, q, scale
        out[3, k], out[5, k] = raised / got, on_object / got
        out[6, k], out[7, k] = heights[0, k] - mean, heights[2, k] - median
