"""True orthophoto: every cell takes its value from the most vertical view that sees it.

What that view does not see is taken from the next one; the seam between the two runs where they agree (``seams``).
Views are brought to the radiometry of the first, band by band, by a robust gain and offset over the scene, and by their
mean difference around a patch. What no view sees stays empty, but for specks of one to three cells, which have
the mean of their neighbours. Image windows are read when needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.camera.adjusted import Camera
from terrain3d.crs import from_lonlat, to_lonlat
from terrain3d.raster import Grid, Raster
from terrain3d.stats import nmad
from terrain3d.surface.coarse import pooled
from terrain3d.surface.disks import full_disk
from terrain3d.surface.seams import parted
from terrain3d.surface.visibility import visible

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

ORTHO_MARGIN = 120.0  # m: relief hides nothing farther away than this less the margin of the seams
SEAM_MARGIN = 32.0  # m: values this far away shape neither seam nor balance
_STRIP_WIDTH = 4.0  # m around what must be replaced, in which the seam may run
_BALANCE = 8.0  # m: deviation of the window of the mean difference
_BALANCE_STEP = 4  # cells
_BALANCE_PRIOR = 0.02  # share of cells in that window whose weight draws the difference to nothing
_OBSCURED = 0.5  # share of a view, over which others are not brought to its light
_ODD = 0.12  # correlation with its best partner below that of two others, from which on the light of a view is odd
_PARTNERS = 5  # of a view, by the ground they have in common, that its light is compared with
_LEAST_SAMPLES = 100  # in common
_SPECK = 6  # of 8 neighbours are drawn: what no view sees is a dent of the surface, or too small to be left black
_GROSS = 6.0  # NMAD of the difference of two views that count as complete disagreement
_BLOCK = 512  # cells
_NODE = 64  # cells between places whose longitude and latitude are computed; linear in between (under 1 mm)
_MARGIN = 4  # px around a window, and more where pixels are averaged
_LINES = 1024  # image lines read at once for the radiometry
_SAMPLES = 40_000


@dataclass(frozen=True)
class OrthoView:
    """What an orthophoto needs of an image.

    camera: from longitude, latitude, ellipsoidal height to (line, sample). read: window (row, column, height, width),
    which may reach beyond the image only by having been clipped to ``shape`` first, to (bands, height, width) float32
    with NaN for nodata. shape: lines and samples. dtype: of the image file. name: of the image, where views are told
    from each other. obscured: share of it by cloud or the like.
    """

    camera: Camera
    read: Callable[[int, int, int, int], Singles]
    shape: tuple[int, int]
    bands: int = 1
    dtype: str = "uint16"
    name: str = ""
    obscured: float = 0.0


@dataclass(frozen=True)
class RankedView:
    """A view in its place among the others. lean: displacement of relief, metres east and north per metre of height;
    pixel: metres a pixel; gain and offset (bands,) bring its values to those of the first view, spread (bands,) is how
    far they still differ (NMAD)."""

    view: OrthoView
    lean: tuple[float, float]
    pixel: float
    gain: Singles
    offset: Singles
    spread: Singles


@dataclass(frozen=True)
class Ortho:
    """values: (bands, h, w) float32, NaN for none. source: (h, w) place of the view in the ranking, from 1; 0 where no
    view sees the cell, specks with values of their neighbours too."""

    values: Singles
    source: NDArray[np.uint8]


@dataclass(frozen=True)
class _Ground:
    """Cells that are drawn, (h, w): height (m), longitude and latitude (degrees); resolution: metres."""

    height: Singles
    lon: Floats
    lat: Floats
    resolution: float


def rank_views(surface: Raster, views: Sequence[OrthoView]) -> list[RankedView]:
    """Views from the most vertical on, balanced: what has to be known of a whole scene before a part of it is drawn.

    surface: (h, w) float32 ellipsoidal metres, an overview of the scene. Of views with unequal bands those with the
    most are taken. Those come last that are obscured for the most part, or in another light than the others: under
    haze or the shadow of a cloud, in another season.
    """
    z, grid = np.asarray(surface.values, np.float32), surface.grid
    if not np.isfinite(z).any() or not views:
        return []
    middle, bands = float(np.nanmedian(z)), max(v.bands for v in views)
    one, zero = np.ones(bands, np.float32), np.zeros(bands, np.float32)
    ranked = [
        RankedView(v, _lean(v.camera, grid, middle), _pixel(v, grid, middle), one, zero, one)
        for v in views
        if v.bands == bands
    ]
    ranked.sort(key=lambda r: float(np.hypot(*r.lean)))
    values = _values(z, grid, ranked)
    late = odd_lights(values.mean(axis=1)) | np.array([r.view.obscured > _OBSCURED for r in ranked], bool)
    order = np.argsort(late, kind="stable")
    return _balanced([ranked[k] for k in order], values[order])


def ortho(dsm: Raster, views: Sequence[RankedView], inner: tuple[slice, slice] = (slice(None), slice(None))) -> Ortho:
    """Orthophoto of the inner rows and columns of ``dsm``; the rest only hides them, as far as ``ORTHO_MARGIN``.

    dsm: (h, w) float32 ellipsoidal metres; cells without height have no value. Values are in the radiometry of the most
    vertical view. Cells farther than ``SEAM_MARGIN`` from the border of the inner part do not depend on what lies
    beyond it.
    """
    z, grid = np.asarray(dsm.values, np.float32), dsm.grid
    part = z[inner]
    where = grid.window(inner[0].start or 0, inner[1].start or 0, *part.shape)
    bands = views[0].gain.size if views else 1
    found = Ortho(np.full((bands, *part.shape), np.nan, np.float32), np.zeros(part.shape, np.uint8))
    lon, lat = lonlat(where)
    for place, view in enumerate(views, 1):
        sees = visible(z, grid.resolution, view.lean)[inner]
        need = sees & (found.source == 0)
        if need.any():
            _add(found, place, view, _Ground(part, lon, lat, grid.resolution), sees, need)
    _close_specks(found, np.isfinite(part))
    return found


def first_seen(
    dsm: Raster, views: Sequence[RankedView], inner: tuple[slice, slice] = (slice(None), slice(None))
) -> Singles:
    """Grey values (h, w) of the inner rows and columns of ``dsm``, each from the most vertical view that sees the cell,
    mean of the balanced bands, NaN for none: what ``ortho`` shows, but seams are where views change."""
    z, grid = np.asarray(dsm.values, np.float32), dsm.grid
    part = z[inner]
    where = grid.window(inner[0].start or 0, inner[1].start or 0, *part.shape)
    ground = _Ground(part, *lonlat(where), grid.resolution)
    found = np.full(part.shape, np.nan, np.float32)
    for view in views:
        need = np.isnan(found) & visible(z, grid.resolution, view.lean)[inner]
        if need.any():
            found[need] = _drawn(view, ground, need)[:, need].mean(axis=0)
    return found


def _close_specks(found: Ortho, known: Bools) -> None:
    """Give cells that no view sees, but that have nearly all their neighbours, the mean of those."""
    drawn = np.isfinite(found.values).all(axis=0)
    neighbours = np.ones((3, 3), np.float32)
    count = cv2.filter2D(drawn.astype(np.float32), -1, neighbours, borderType=cv2.BORDER_CONSTANT)
    speck = known & ~drawn & (count >= _SPECK)
    for band in found.values if speck.any() else ():
        total = cv2.filter2D(np.where(drawn, band, np.float32(0)), -1, neighbours, borderType=cv2.BORDER_CONSTANT)
        band[speck] = total[speck] / count[speck]


def values_at(dsm: Raster, views: Sequence[RankedView], wanted: Bools) -> Singles:
    """What each view has where the wanted cells are at the heights of ``dsm``, whether it sees them or not: (views, n),
    mean of the balanced bands, NaN for none."""
    lon, lat = lonlat(dsm.grid)
    ground = _Ground(np.asarray(dsm.values, np.float32), lon, lat, dsm.grid.resolution)
    found = [_drawn(v, ground, wanted)[:, wanted].mean(axis=0) for v in views]
    return np.array(found, np.float32).reshape(len(views), int(wanted.sum()))


def _add(found: Ortho, place: int, view: RankedView, ground: _Ground, sees: Bools, need: Bools) -> None:
    """Put the cells that are needed of a view into the mosaic, and those around them up to the seam."""
    filled = found.source > 0
    kernel = full_disk(ceil(_STRIP_WIDTH / ground.resolution))
    between = (cv2.dilate(need.astype(np.uint8), kernel) > 0) & sees & filled
    fresh = _drawn(view, ground, need | between)
    got = np.isfinite(fresh).all(axis=0)
    need, between = need & got, between & got
    if between.any():
        difference = np.where(between, found.values - fresh, np.float32(np.nan))
        spread = view.spread[:, None, None]
        for band, d in enumerate(difference):
            bias = _around(np.where(np.abs(d) < 3 * spread[band], d, np.float32(np.nan)), ground.resolution)
            fresh[band] += bias
            d -= bias
        apart = cv2.blur(np.nan_to_num(np.abs(difference) / spread).mean(axis=0), (3, 3)) / np.float32(_GROSS)
        take = parted(filled & ~between, need, between, apart)
        weight = np.where(between, cv2.blur(take.astype(np.float32), (3, 3)), take.astype(np.float32))
    else:
        take, weight = need, need.astype(np.float32)
    mixed = weight > 0
    old = np.where(filled[mixed], found.values[:, mixed], np.float32(0))
    found.values[:, mixed] = old + weight[mixed] * (fresh[:, mixed] - old)
    found.source[take] = place


def _around(difference: Singles, resolution: float) -> Singles:
    """Mean of the difference (h, w, NaN for none) around each cell, drawn to nothing where there is little of it."""
    coarse = pooled(difference, _BALANCE_STEP)
    known = np.isfinite(coarse).astype(np.float32)
    sigma = _BALANCE / (_BALANCE_STEP * resolution)
    weight = cv2.GaussianBlur(known, (0, 0), sigma)
    total = cv2.GaussianBlur(np.nan_to_num(coarse), (0, 0), sigma)
    mean = (total / (weight + np.float32(_BALANCE_PRIOR))).astype(np.float32)
    size = mean.shape[1] * _BALANCE_STEP, mean.shape[0] * _BALANCE_STEP
    return np.asarray(cv2.resize(mean, size)[: difference.shape[0], : difference.shape[1]], np.float32)


def _drawn(view: RankedView, ground: _Ground, wanted: Bools) -> Singles:
    """Balanced values of a view on the wanted cells, (bands, h, w), NaN elsewhere."""
    out = np.full((view.gain.size, *wanted.shape), np.nan, np.float32)
    for row in range(0, wanted.shape[0], _BLOCK):
        for column in range(0, wanted.shape[1], _BLOCK):
            here = np.s_[row : row + _BLOCK, column : column + _BLOCK]
            need = wanted[here]
            if not need.any():
                continue
            place = (a[here][need] for a in (ground.lon, ground.lat, ground.height))
            values = _resample(view.view, *view.view.camera.project(*place), ground.resolution / view.pixel)
            out[:, here[0], here[1]][:, need] = view.gain[:, None] * values + view.offset[:, None]
    return out


def _lean(camera: Camera, grid: Grid, height: float) -> tuple[float, float]:
    """Displacement of relief at the middle of the grid, metres east and north per metre of height."""
    west, south, east, north = grid.bounds
    x, y = np.array([(west + east) / 2]), np.array([(south + north) / 2])
    lon, lat = to_lonlat(grid.reference.horizontal, x, y)
    line, sample = camera.project(lon, lat, height)
    x1, y1 = from_lonlat(grid.reference.horizontal, *camera.locate(line, sample, height + 10.0))
    lean = float((x - x1)[0]) / 10.0, float((y - y1)[0]) / 10.0
    return lean if np.isfinite(lean).all() else (0.0, 0.0)


def lonlat(grid: Grid) -> tuple[Floats, Floats]:
    """Longitude and latitude of all cell centres, (h, w), interpolated between nodes."""
    x, y = grid.centres()
    rows, columns = _nodes(grid.height), _nodes(grid.width)
    lon, lat = to_lonlat(grid.reference.horizontal, *np.meshgrid(x[columns], y[rows]))
    down, across = _hats(grid.height, rows), _hats(grid.width, columns)
    return down @ lon @ across.T, down @ lat @ across.T


def _nodes(n: int) -> NDArray[np.int64]:
    return np.unique(np.append(np.arange(0, n, _NODE), n - 1))


def _hats(n: int, nodes: NDArray[np.int64]) -> Floats:
    """(n, nodes) weights of linear interpolation."""
    return np.stack([np.interp(np.arange(n), nodes, unit) for unit in np.eye(len(nodes))], axis=1)


def _pixel(view: OrthoView, grid: Grid, height: float) -> float:
    """Metres a pixel at the middle of the grid."""
    west, south, east, north = grid.bounds
    x, y = (west + east) / 2 + np.array([0.0, 1.0, 0.0]), (south + north) / 2 + np.array([0.0, 0.0, 1.0])
    line, sample = view.camera.project(*to_lonlat(grid.reference.horizontal, x, y), height)
    area = (line[1] - line[0]) * (sample[2] - sample[0]) - (line[2] - line[0]) * (sample[1] - sample[0])
    return float(1 / np.sqrt(max(abs(area), 1e-12)))


def _resample(view: OrthoView, line: Floats, sample: Floats, scale: float = 1.0) -> Singles:
    """Bicubic image values at positions, (bands, n) float32; NaN outside. ``scale``: pixels a value stands for."""
    height, width = view.shape
    inside = (line > -0.5) & (sample > -0.5) & (line < height - 0.5) & (sample < width - 0.5)
    values = np.full((view.bands, line.size), np.nan, np.float32)
    if not inside.any():
        return values
    a, b = line[inside], sample[inside]
    margin = _MARGIN + ceil(1.8 * scale)
    row0, row1 = max(int(a.min()) - margin, 0), min(int(a.max()) + margin + 1, height)
    col0, col1 = max(int(b.min()) - margin, 0), min(int(b.max()) + margin + 1, width)
    image = view.read(row0, col0, row1 - row0, col1 - col0)
    n = a.size
    side = min(n, 16384)  # remap takes at most 32767 in either direction
    maps = [np.pad(m, (0, -n % side)).astype(np.float32).reshape(-1, side) for m in (b - col0, a - row0)]
    for band, pixels in enumerate(image):
        if scale > 1.5:  # several pixels a cell: average them, or fine texture turns into moire
            pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), 0.45 * scale), np.float32)
        got = cv2.remap(pixels, maps[0], maps[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        values[band, inside] = got.ravel()[:n]
    return values


def _values(z: Singles, grid: Grid, views: list[RankedView]) -> Singles:
    """Values (views, bands, n) of sampled cells, NaN where a view does not see one."""
    rows, columns = _sampled(z)
    found = []
    for v in views:
        sees = visible(z, grid.resolution, v.lean)[rows, columns]
        found.append(np.where(sees, _in_strips(v.view, *_places(Raster(z, grid), v)), np.float32(np.nan)))
    return np.array(found, np.float32)


def odd_lights(values: Singles) -> Bools:
    """Which views differ from two others far more than these from each other. values: (views, n) of common cells, NaN
    for none."""
    seen = np.isfinite(values)
    common = seen.astype(np.float32) @ seen.T.astype(np.float32)
    odd = np.zeros(len(values), np.bool_)
    for i, shared in enumerate(common):
        nearest = [k for k in np.argsort(-shared, kind="stable").tolist() if k != i]
        for j, k in combinations(nearest[:_PARTNERS], 2):
            both = seen[i] & seen[j] & seen[k]
            if both.sum() < _LEAST_SAMPLES:
                continue
            with np.errstate(invalid="ignore", divide="ignore"):  # images of one value are like none
                own, one, other = np.asarray(np.corrcoef(values[[i, j, k]][:, both]))[np.triu_indices(3, 1)]
            odd[i] |= bool(other - np.fmax(own, one) > _ODD)
    return odd


def _balanced(views: list[RankedView], values: Singles) -> list[RankedView]:
    """Views with gain and offset that bring each to the first, band by band, from cells that both see."""
    out = views[:1]
    for view, of_view in zip(views[1:], values[1:], strict=True):
        both = np.isfinite(of_view).all(axis=0) & np.isfinite(values[0]).all(axis=0)
        if both.sum() < _LEAST_SAMPLES:
            out.append(view)
            continue
        pairs = [_line_between(own[both], reference[both]) for own, reference in zip(of_view, values[0], strict=True)]
        gain, offset, spread = np.array(pairs, np.float32).T
        out.append(replace(view, gain=gain, offset=offset, spread=spread))
    return out


def _sampled(z: Singles) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of some _SAMPLES cells with heights, evenly spread."""
    step = max(int(np.sqrt(z.size / _SAMPLES)), 1)
    rows, columns = np.nonzero(np.isfinite(z[::step, ::step]))
    return rows * step, columns * step


def _places(surface: Raster, view: RankedView) -> tuple[Floats, Floats]:
    """Line and sample of the sampled cells in a view."""
    rows, columns = _sampled(surface.values)
    x, y = surface.grid.centres()
    lon, lat = to_lonlat(surface.grid.reference.horizontal, x[columns], y[rows])
    return view.view.camera.project(lon, lat, surface.values[rows, columns])


def _line_between(own: Singles, reference: Singles) -> tuple[float, float, float]:
    """Gain and offset from the values of a view to those of another, and the NMAD of what is left."""
    gain = float(np.clip(nmad(reference) / max(nmad(own), 1e-6), 0.5, 2.0))
    offset = float(np.median(reference) - gain * np.median(own))
    return gain, offset, max(float(nmad(reference - gain * own)), 1e-6)


def value_quantiles(surface: Raster, views: Sequence[RankedView], shares: Sequence[float]) -> Floats:
    """Quantiles of the first view over a surface, all bands together; 1 if it has no values."""
    found = _in_strips(views[0].view, *_places(surface, views[0])) if views else np.empty(0, np.float32)
    known = found[np.isfinite(found)]
    return np.quantile(known, shares) if known.size else np.ones(len(shares))


def middle_value(surface: Raster, views: Sequence[RankedView]) -> float:
    """Median of the first view over a surface, all bands together, at least 1e-6; 1 if it has no values."""
    return max(float(value_quantiles(surface, views, (0.5,))[0]), 1e-6)


def _in_strips(view: OrthoView, line: Floats, sample: Floats) -> Singles:
    """Values at scattered positions, the image read in strips of lines so that it is never whole in memory."""
    values = np.full((view.bands, line.size), np.nan, np.float32)
    strip = np.floor(line / _LINES).astype(np.int64)
    for s in np.unique(strip):
        which = strip == s
        values[:, which] = _resample(view, line[which], sample[which])
    return values
