"""True orthophoto: every cell takes its value from the most vertical view that sees it.

Hidden cells (behind roofs and crowns) are taken from the next view; what no view sees is interpolated. Views are
brought to the radiometry of the first by a robust gain and offset. Work runs in blocks; image windows are read when
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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

_BLOCK = 512  # cells
_NODE = 64  # cells between places whose longitude and latitude are computed; linear in between (under 1 mm)
_MARGIN = 4  # px around a window
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


def ortho(dsm: Raster, views: Sequence[OrthoView]) -> Raster:
    """Orthophoto on the grid of ``dsm``, uint16 with 0 for no value.

    dsm: (h, w) float32 ellipsoidal metres; cells without height have no ortho value, so pass a surface whose voids are
    filled. Values are those of the most vertical view's image.
    """
    z, grid = np.asarray(dsm.values, np.float32), dsm.grid
    out = np.full(z.shape, np.nan, np.float32)
    known = np.isfinite(z)
    if not known.any() or not views:
        return Raster(np.zeros(z.shape, np.uint16), grid)
    middle = float(np.median(z[known]))
    leans = [_lean(view.camera, grid, middle) for view in views]
    order = np.argsort([np.hypot(*lean) for lean in leans], kind="stable")
    ranked = [views[i] for i in order]
    seen = [visible(z, grid.resolution, leans[i]) for i in order]
    balance = _balance(z, grid, ranked, seen)
    for row in range(0, grid.height, _BLOCK):
        for column in range(0, grid.width, _BLOCK):
            part = np.s_[row : row + _BLOCK, column : column + _BLOCK]
            if known[part].any():
                _block(
                    z[part],
                    grid.window(row, column, *z[part].shape),
                    ranked,
                    [s[part] for s in seen],
                    balance,
                    out[part],
                )
    hidden = known & ~np.isfinite(out)
    if hidden.any() and not hidden[known].all():
        near = cv2.dilate(np.isfinite(out).astype(np.uint8), np.ones((41, 41), np.uint8)).astype(bool)
        out = membrane(out, where=hidden & near)
    values = np.where(np.isfinite(out), np.clip(np.rint(out), 1, 65535), 0)
    return Raster(values.astype(np.uint16), grid)


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


def _block(
    z: Singles, grid: Grid, views: list[OrthoView], seen: list[Bools], balance: list[tuple[float, float]], out: Singles
) -> None:
    """Fill ``out`` (a view on the result) from the views in order."""
    lon, lat = _lonlat(grid)
    for view, sees, (gain, offset) in zip(views, seen, balance, strict=True):
        need = sees & ~np.isfinite(out)
        if not need.any():
            continue
        line, sample = view.camera.project(lon[need], lat[need], z[need])
        scale = np.sqrt((np.ptp(line) + 1) * (np.ptp(sample) + 1) / z.size)
        values = _resample(view, line, sample, float(scale) if need.all() else _scale(view, lon, lat, z))
        out[need] = gain * values + offset


def _scale(view: OrthoView, lon: Floats, lat: Floats, z: Singles) -> float:
    """Pixels per cell."""
    if min(z.shape) < 2:
        return 1.0
    height = float(np.nanmedian(z))
    line, sample = view.camera.project(lon[:2, :2], lat[:2, :2], height)
    area = (line[0, 1] - line[0, 0]) * (sample[1, 0] - sample[0, 0]) - (line[1, 0] - line[0, 0]) * (
        sample[0, 1] - sample[0, 0]
    )
    return float(np.sqrt(abs(area)))


def _resample(view: OrthoView, line: Floats, sample: Floats, scale: float = 1.0) -> Singles:
    """Bicubic image values at positions, (n,) float32; NaN outside. ``scale``: pixels a value stands for."""
    height, width = view.shape
    inside = (line > -0.5) & (sample > -0.5) & (line < height - 0.5) & (sample < width - 0.5)
    values = np.full(line.shape, np.nan, np.float32)
    if not inside.any():
        return values
    a, b = line[inside], sample[inside]
    row0, row1 = max(int(a.min()) - _MARGIN, 0), min(int(a.max()) + _MARGIN + 1, height)
    col0, col1 = max(int(b.min()) - _MARGIN, 0), min(int(b.max()) + _MARGIN + 1, width)
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


def _balance(z: Singles, grid: Grid, views: list[OrthoView], seen: list[Bools]) -> list[tuple[float, float]]:
    """Gain and offset that bring each view to the first, from cells that both see."""
    if len(views) == 1:
        return [(1.0, 0.0)]
    step = max(int(np.sqrt(z.size / _SAMPLES)), 1)
    rows, columns = (step * index for index in np.nonzero(np.isfinite(z[::step, ::step])))
    x, y = grid.centres()
    lon, lat = to_lonlat(grid.reference.horizontal, x[columns], y[rows])
    values = []
    for view, sees in zip(views, seen, strict=True):
        line, sample = view.camera.project(lon, lat, z[rows, columns])
        values.append(np.where(sees[rows, columns], _in_strips(view, line, sample), np.nan))
    out = [(1.0, 0.0)]
    for v in values[1:]:
        both = np.isfinite(v) & np.isfinite(values[0])
        if both.sum() < 100:
            out.append((1.0, 0.0))
            continue
        reference, own = values[0][both], v[both]
        gain = float(np.clip(nmad(reference) / max(nmad(own), 1e-6), 0.5, 2.0))
        out.append((gain, float(np.median(reference) - gain * np.median(own))))
    return out


def _in_strips(view: OrthoView, line: Floats, sample: Floats) -> Singles:
    """Values at scattered positions, the image read in strips of lines so that it is never whole in memory."""
    values = np.full(line.shape, np.nan, np.float32)
    strip = np.floor(line / _STRIP).astype(np.int64)
    for s in np.unique(strip):
        which = strip == s
        values[which] = _resample(view, line[which], sample[which])
    return values
