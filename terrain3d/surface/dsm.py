"""Points to a digital surface model: the surface as the views see it, robustly, with a sigma for every cell.

A cell takes the points within one cell of its centre, weighted by distance and precision. Their weighted median says
which surface the cell belongs to; the mean of the points that agree with it is the height. So an edge stays an edge:
a cell is roof or ground, never between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.points import PointCloud
from terrain3d.raster import Grid, Raster

REACH_CELLS = 1.0  # farthest point that a cell takes
SPREAD_CELLS = 0.4  # 1-sigma of the distance weight
AGREE_M = 0.75  # points this near to the median are the same surface, whatever their sigma
FEW_POINTS = 64  # sorted quickest by insertion
SLOPE_PRIOR = 0.08  # cells^2: spread of the points that makes their slope half believed
PAIR_FLOOR = 0.5  # share of a pair's error that more points of the same pair do not reduce
LOOKS = 3  # groups that the pairs are dealt out to, to be compared with each other
_LAYERS = 5  # before the looks: height, sigma, pairs, confidence, below


@dataclass(frozen=True)
class SurfaceModel:
    """height and sigma: float32, NaN where no point fell. pairs: uint8, pairs that saw the cell's surface. confidence:
    float32, mean of the matcher's, of the points of that surface. below: float32, share of all points, by weight, that
    lie under it and do not agree with it; both 0 where no point fell. looks: float32, by how much the points of each
    group of pairs lie above ``height``, NaN where it has none."""

    height: Raster
    sigma: Raster
    pairs: Raster
    confidence: Raster
    below: Raster
    looks: tuple[Raster, ...]


def rasterize(cloud: PointCloud, grid: Grid) -> SurfaceModel:
    """Surface model of a cloud on a grid of the same reference."""
    column, x = _cell(cloud.xyz[:, 0], grid.west, grid.resolution)
    row, y = _cell(-cloud.xyz[:, 1], -grid.north, grid.resolution)
    # points just outside serve the border cells
    near = np.flatnonzero((column >= -1) & (row >= -1) & (column <= grid.width) & (row <= grid.height))
    width, height = grid.width + 2, grid.height + 2
    cell = (row[near] + 1) * width + column[near] + 1
    start = np.append(0, np.cumsum(np.bincount(cell, minlength=width * height)))
    order = near[_by_cell(cell, start)]
    out = np.full((_LAYERS + LOOKS, *grid.shape), np.nan, np.float32)
    _rasterize(
        x[order], y[order], cloud.xyz[order, 2], cloud.sigma[order], cloud.confidence[order], cloud.pair[order],
        start, width, out,
    )  # fmt: skip
    pairs = np.nan_to_num(out[2]).astype(np.uint8)
    confidence, below = (Raster(np.nan_to_num(values), grid) for values in out[3:_LAYERS])
    looks = tuple(Raster(values, grid) for values in out[_LAYERS:])
    return SurfaceModel(
        Raster(out[0], grid), Raster(out[1], grid), Raster(pairs, grid), confidence, below, looks
    )  # fmt: skip


def _cell(x: NDArray[np.float64], origin: float, resolution: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Number of the cell that holds each coordinate, counted from ``origin``, and the offset from its centre in cells.

    Offsets come from the coordinate itself, not from its distance to the origin, so that a point has the same one, to
    the bit, in a grid and in any window of it.
    """
    first = round(origin / resolution)
    rest = origin / resolution - first
    place = x / resolution - (rest if abs(rest) > 1e-6 else 0.0)
    whole = np.floor(place)
    return whole.astype(np.int64) - first, place - whole - 0.5


@njit(cache=True, nogil=True)
def _by_cell(cell: Any, start: Any) -> Any:
    """Points in the order of their cells, those of one as they come. start: number of the first point of each cell."""
    place, order = start.copy(), np.empty(cell.size, np.int64)
    for k in range(cell.size):
        order[place[cell[k]]] = k
        place[cell[k]] += 1
    return order


@njit(cache=True, nogil=True, error_model="numpy")
def _rasterize(
    px: Any, py: Any, z: Any, sigma: Any, confidence: Any, pair: Any, start: Any, stride: int, out: Any
) -> None:
    height, width = out.shape[1:]
    most = _most_points(start, stride, height, width)
    index, weight, dx, dy = np.empty(most, np.int64), np.empty(most), np.empty(most), np.empty(most)
    above, light, few = np.empty(LOOKS), np.empty(LOOKS), (np.empty(FEW_POINTS), np.empty(FEW_POINTS))
    for y in range(height):
        for x in range(width):
            n = 0
            for neighbour in range(9):
                v, u = neighbour // 3, neighbour % 3
                place = (y + v) * stride + x + u
                for k in range(start[place], start[place + 1]):
                    a, b = px[k] + u - 1, py[k] + v - 1
                    far = a * a + b * b
                    if far <= REACH_CELLS**2:
                        index[n], dx[n], dy[n] = k, a, b
                        near = np.exp(-0.5 * far / SPREAD_CELLS**2)
                        weight[n] = near * (0.1 + confidence[k]) / (sigma[k] ** 2 + 0.01)
                        n += 1
            if n > 0:
                _fuse(
                    index[:n], weight[:n], dx[:n], dy[:n], z, sigma, confidence, pair, above, light, few, out[:, y, x]
                )


@njit(nogil=True)
def _most_points(start: Any, stride: int, height: int, width: int) -> int:
    """Largest number of points that a cell and its eight neighbours have."""
    most = 1
    for y in range(height):
        for x in range(width):
            n = 0
            for v in range(3):
                place = (y + v) * stride + x
                n += start[place + 3] - start[place]
            most = max(most, n)
    return most


@njit(nogil=True)
def _weighted_median(z: Any, index: Any, weight: Any, few: Any) -> float:
    """Of the heights of some points. few: room for ``FEW_POINTS`` heights and weights."""
    n = index.size
    if n > FEW_POINTS:
        order, half, run = np.argsort(z[index]), 0.5 * weight.sum(), 0.0
        for k in order:
            run += weight[k]
            if run >= half:
                return z[index[k]]
        return z[index[order[-1]]]
    value, mass = few
    total = 0.0
    for i in range(n):
        v, k = z[index[i]], i
        while k > 0 and value[k - 1] > v:
            value[k], mass[k] = value[k - 1], mass[k - 1]
            k -= 1
        value[k], mass[k] = v, weight[i]
        total += weight[i]
    run = 0.0
    for i in range(n):
        run += mass[i]
        if run >= 0.5 * total:
            return value[i]
    return value[n - 1]


@njit(nogil=True, error_model="numpy")
def _fuse(
    index: Any, weight: Any, dx: Any, dy: Any, z: Any, sigma: Any, confidence: Any, pair: Any, above: Any, light: Any,
    few: Any, out: Any,
) -> None:  # fmt: skip
    """All layers of one cell from its points; dx, dy: offsets from its centre, cells;
    above, light: room for sums by look.

    The height is that of a plane through the points at the centre of the cell. The slope is held towards zero by a
    prior, because few points close together say little of it.
    """
    centre = _weighted_median(z, index, weight, few)
    total, mean, square, formal, sure, under = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    mx, my, xx, xy, yy, xz, yz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    seen = np.uint64(0)
    for i in range(index.size):
        k = index[i]
        d = z[k] - centre
        if abs(d) > max(AGREE_M, 3 * sigma[k]):
            under += weight[i] if d < 0 else 0.0
            continue
        w, x, y = weight[i], dx[i], dy[i]
        total += w
        mean += w * d
        square += w * d * d
        formal += w * sigma[k] ** 2
        sure += w * confidence[k]
        mx, my = mx + w * x, my + w * y
        xx, xy, yy = xx + w * x * x, xy + w * x * y, yy + w * y * y
        xz, yz = xz + w * x * d, yz + w * y * d
        seen |= np.uint64(1) << np.uint64(min(pair[k], 63))
    mean, mx, my = mean / total, mx / total, my / total
    xx, xy, yy = xx / total - mx * mx + SLOPE_PRIOR, xy / total - mx * my, yy / total - my * my + SLOPE_PRIOR
    xz, yz = xz / total - mx * mean, yz / total - my * mean
    determinant = xx * yy - xy * xy
    slope_x, slope_y = (xz * yy - yz * xy) / determinant, (yz * xx - xz * xy) / determinant
    count = 0
    while seen:
        seen &= seen - np.uint64(1)
        count += 1
    spread = max(square / total - mean * mean - slope_x * xz - slope_y * yz, 0.0)
    out[0] = centre + mean - slope_x * mx - slope_y * my
    out[1] = np.sqrt(max(formal / total, spread) * max(PAIR_FLOOR, 1.0 / count))
    out[2] = count
    out[3] = sure / total
    out[4] = under / weight.sum()
    above[:], light[:] = 0.0, 0.0
    for i in range(index.size):
        d = z[index[i]] - centre
        if abs(d) <= max(AGREE_M, 3 * sigma[index[i]]):
            look = pair[index[i]] % LOOKS
            above[look] += weight[i] * (d - mean - slope_x * (dx[i] - mx) - slope_y * (dy[i] - my))
            light[look] += weight[i]
    for look in range(LOOKS):
        if light[look] > 0:
            out[_LAYERS + look] = above[look] / light[look]
