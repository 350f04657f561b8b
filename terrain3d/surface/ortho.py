"""True orthophoto: every cell takes its value from the most vertical view that sees it.

Hidden cells (behind roofs and crowns) are taken from the next view; what no view sees is interpolated. Views are
brought to the radiometry of the first by a robust gain and offset. Work runs in blocks; image windows are read when
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.camera.adjusted import Camera
from terrain3d.crs import from_lonlat, to_lonlat
from terrain3d.raster import Grid, Raster
from terrain3d.stats import nmad
from terrain3d.surface.membrane import membrane
from terrain3d.surface.visibility import visible

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

ORTHO_MARGIN = 96.0  # m: relief hides nothing farther away
HIDDEN_MARGIN = 20.0  # m: values this far away do not shape what is interpolated
_BLOCK = 512  # cells
_NODE = 64  # cells between places whose longitude and latitude are computed; linear in between (under 1 mm)
_MARGIN = 4  # px around a window, and more where pixels are averaged
_STRIP = 1024  # image lines read at once for the radiometry
_SAMPLES = 40_000


@dataclass(frozen=True)
class OrthoView:
    """What an orthophoto needs of an image.

    camera: from longitude, latitude, ellipsoidal height to (line, sample). read: window (row, column, height, width),
    which may reach beyond the image only by having been clipped to ``shape`` first, to float32 with NaN for nodata.
    shape: lines and samples.
    """

    camera: Camera
    read: Callable[[int, int, int, int], Singles]
    shape: tuple[int, int]


@dataclass(frozen=True)
class RankedView:
    """A view in its place among the others. lean: displacement of relief, metres east and north per metre of height;
    pixel: metres a pixel; gain and offset bring its values to those of the first view."""

    view: OrthoView
    lean: tuple[float, float]
    pixel: float
    gain: float = 1.0
    offset: float = 0.0


def rank_views(surface: Raster, views: Sequence[OrthoView]) -> list[RankedView]:
    """Views from the most vertical on, balanced: what has to be known of a whole scene before a part of it is drawn.

    surface: (h, w) float32 ellipsoidal metres, an overview of the scene.
    """
    z, grid = np.asarray(surface.values, np.float32), surface.grid
    if not np.isfinite(z).any() or not views:
        return []
    middle = float(np.nanmedian(z))
    ranked = [RankedView(v, _lean(v.camera, grid, middle), _pixel(v, grid, middle)) for v in views]
    ranked.sort(key=lambda r: float(np.hypot(*r.lean)))
    return _balanced(z, grid, ranked)


def ortho(dsm: Raster, views: Sequence[RankedView], inner: tuple[slice, slice] = (slice(None), slice(None))) -> Raster:
    """Orthophoto on the grid of ``dsm``, uint16 with 0 for no value.

    dsm: (h, w) float32 ellipsoidal metres; cells without height have no ortho value, so pass a surface whose voids are
    filled. Values are those of the most vertical view's image. inner: rows and columns that are drawn; the rest only
    hides them, as far as ``ORTHO_MARGIN``. Interpolated cells are the same from ``HIDDEN_MARGIN`` on.
    """
    z, grid = np.asarray(dsm.values, np.float32), dsm.grid
    drawn = np.zeros(z.shape, np.uint16)
    known = np.isfinite(z)[inner]
    if not known.any() or not views:
        return Raster(drawn, grid)
    seen = [visible(z, grid.resolution, v.lean)[inner] for v in views]
    part, first = z[inner], (inner[0].start or 0, inner[1].start or 0)
    out = np.full(part.shape, np.nan, np.float32)
    for row in range(0, part.shape[0], _BLOCK):
        for column in range(0, part.shape[1], _BLOCK):
            here = np.s_[row : row + _BLOCK, column : column + _BLOCK]
            if known[here].any():
                where = grid.window(first[0] + row, first[1] + column, *part[here].shape)
                _block(part[here], where, views, [s[here] for s in seen], out[here])
    hidden = known & ~np.isfinite(out)
    if hidden.any() and not hidden[known].all():
        near = cv2.dilate(np.isfinite(out).astype(np.uint8), np.ones((41, 41), np.uint8)).astype(bool)
        out = membrane(out, where=hidden & near)
    drawn[inner] = np.where(np.isfinite(out), np.clip(np.rint(out), 1, 65535), 0)
    return Raster(drawn, grid)


def _lean(camera: Camera, grid: Grid, height: float) -> tuple[float, float]:
    """Displacement of relief at the middle of the grid, metres east and north per metre of height."""
    west, south, east, north = grid.bounds
    x, y = np.array([(west + east) / 2]), np.array([(south + north) / 2])
    lon, lat = to_lonlat(grid.reference.horizontal, x, y)
    line, sample = camera.project(lon, lat, height)
    x1, y1 = from_lonlat(grid.reference.horizontal, *camera.locate(line, sample, height + 10.0))
    lean = float((x - x1)[0]) / 10.0, float((y - y1)[0]) / 10.0
    return lean if np.isfinite(lean).all() else (0.0, 0.0)


def _lonlat(grid: Grid) -> tuple[Floats, Floats]:
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


def _block(z: Singles, grid: Grid, views: Sequence[RankedView], seen: list[Bools], out: Singles) -> None:
    """Fill ``out`` (a view on the result) from the views in order."""
    lon, lat = _lonlat(grid)
    for v, sees in zip(views, seen, strict=True):
        need = sees & ~np.isfinite(out)
        if not need.any():
            continue
        line, sample = v.view.camera.project(lon[need], lat[need], z[need])
        out[need] = v.gain * _resample(v.view, line, sample, grid.resolution / v.pixel) + v.offset


def _pixel(view: OrthoView, grid: Grid, height: float) -> float:
    """Metres a pixel at the middle of the grid."""
    west, south, east, north = grid.bounds
    x, y = (west + east) / 2 + np.array([0.0, 1.0, 0.0]), (south + north) / 2 + np.array([0.0, 0.0, 1.0])
    line, sample = view.camera.project(*to_lonlat(grid.reference.horizontal, x, y), height)
    area = (line[1] - line[0]) * (sample[2] - sample[0]) - (line[2] - line[0]) * (sample[1] - sample[0])
    return float(1 / np.sqrt(max(abs(area), 1e-12)))


def _resample(view: OrthoView, line: Floats, sample: Floats, scale: float = 1.0) -> Singles:
    """Bicubic image values at positions, (n,) float32; NaN outside. ``scale``: pixels a value stands for."""
    height, width = view.shape
    inside = (line > -0.5) & (sample > -0.5) & (line < height - 0.5) & (sample < width - 0.5)
    values = np.full(line.shape, np.nan, np.float32)
    if not inside.any():
        return values
    a, b = line[inside], sample[inside]
    margin = _MARGIN + ceil(1.8 * scale)
    row0, row1 = max(int(a.min()) - margin, 0), min(int(a.max()) + margin + 1, height)
    col0, col1 = max(int(b.min()) - margin, 0), min(int(b.max()) + margin + 1, width)
    image = view.read(row0, col0, row1 - row0, col1 - col0)
    if scale > 1.5:  # several pixels a cell: average them, or fine texture turns into moire
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.45 * scale), np.float32)
    n = a.size
    side = min(n, 16384)  # remap takes at most 32767 in either direction
    pad = -n % side
    maps = [np.pad(m, (0, pad)).astype(np.float32).reshape(-1, side) for m in (b - col0, a - row0)]
    got = cv2.remap(image, maps[0], maps[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    values[inside] = got.ravel()[:n]
    return values


def _balanced(z: Singles, grid: Grid, views: list[RankedView]) -> list[RankedView]:
    """Views with gain and offset that bring each to the first, from cells that both see."""
    if len(views) == 1:
        return views
    step = max(int(np.sqrt(z.size / _SAMPLES)), 1)
    rows, columns = (step * index for index in np.nonzero(np.isfinite(z[::step, ::step])))
    x, y = grid.centres()
    lon, lat = to_lonlat(grid.reference.horizontal, x[columns], y[rows])
    values = []
    for v in views:
        sees = visible(z, grid.resolution, v.lean)
        line, sample = v.view.camera.project(lon, lat, z[rows, columns])
        values.append(np.where(sees[rows, columns], _in_strips(v.view, line, sample), np.nan))
    out = views[:1]
    for view, of_view in zip(views[1:], values[1:], strict=True):
        both = np.isfinite(of_view) & np.isfinite(values[0])
        if both.sum() < 100:
            out.append(view)
            continue
        reference, own = values[0][both], of_view[both]
        gain = float(np.clip(nmad(reference) / max(nmad(own), 1e-6), 0.5, 2.0))
        out.append(replace(view, gain=gain, offset=float(np.median(reference) - gain * np.median(own))))
    return out


def _in_strips(view: OrthoView, line: Floats, sample: Floats) -> Singles:
    """Values at scattered positions, the image read in strips of lines so that it is never whole in memory."""
    values = np.full(line.shape, np.nan, np.float32)
    strip = np.floor(line / _STRIP).astype(np.int64)
    for s in np.unique(strip):
        which = strip == s
        values[which] = _resample(view, line[which], sample[which])
    return values
