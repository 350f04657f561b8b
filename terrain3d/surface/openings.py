"""Morphology of height rasters that ground filters share: openings of growing windows, slopes, what terrain reaches.

Progressive openings with a slope rule after Pingel, Clarke & McBride (2013), SMRF. All is linear in the cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.surface.disks import disk
from terrain3d.surface.membrane import membrane

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

CELL = 1.0  # m, the cell of the work
_RADII = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 22, 27, 33, 40)  # m; twice the last: the widest building
_POOL_FROM = 12  # m: wider windows are opened at twice the cell
_RIDGES_FROM, _RIDGES_FULL = 14.0, 22.0  # m: wider windows also allow the slope of the landform
_SMOOTH_SLOPE = 0.4  # slope against the trend that terrain reaches without a step
_LOW_SLOPE = 5.0  # a cell that lies this steeply under all its neighbours is an error


def terrain_slope(surface: Singles, cell: float, scale: float = 4.0, tilt: tuple[float, float] = (0.0, 0.0)) -> Singles:
    """Rise over run of a surface smoothed over ``scale`` metres, (h, w) float32.

    tilt: rise per metre along columns and rows of a plane that was taken off the surface.
    """
    if min(surface.shape) < 2:
        return np.full(surface.shape, np.hypot(*tilt), np.float32)
    gy, gx = np.gradient(blur(surface, scale / cell), cell)
    return np.hypot(gx + tilt[0], gy + tilt[1]).astype(np.float32)


def blur(z: Singles, sigma: float) -> Singles:
    """Gaussian mean, sigma in cells."""
    return np.asarray(cv2.GaussianBlur(z, (0, 0), sigma), np.float32)


def opened_by_disk(z: Singles, radius: int) -> Singles:
    """Opening by a disk of ``radius`` cells; borders are mirrored so that they are treated as inner cells are."""
    pad = min(radius, min(z.shape) - 1)
    padded = cv2.copyMakeBorder(z, pad, pad, pad, pad, cv2.BORDER_REFLECT_101)
    out = cv2.morphologyEx(padded, cv2.MORPH_OPEN, disk(radius))
    return np.asarray(out[pad : pad + z.shape[0], pad : pad + z.shape[1]])


def bends(z: Singles, cell: float, metres: float) -> Iterator[Singles]:
    """Second differences, without sign, over so many metres to both sides: along rows, columns and diagonals; metres.
    They are large where planes meet: at the foot and the top of walls, and on crowns."""
    reach = min(max(round(metres / cell), 1), min(z.shape) - 1)
    aslant = max(round(reach / np.sqrt(2)), 1)
    padded = cv2.copyMakeBorder(z, reach, reach, reach, reach, cv2.BORDER_REFLECT_101)
    h, w = z.shape
    for down, right in ((0, reach), (reach, 0), (aslant, aslant), (aslant, -aslant)):
        first = padded[reach + down : reach + down + h, reach + right : reach + right + w]
        second = padded[reach - down : reach - down + h, reach - right : reach - right + w]
        yield np.abs(first + second - 2 * z)


def openings(
    z: Singles, cell: float, slope: float, step: float = 0.0, least_share: float = 0.0, in_all: float = np.inf
) -> Bools:
    """Cells that an opening of growing window lowers by more than terrain would be.

    slope: rise per metre of window that is still terrain, over ``step`` metres. least_share: of the landform's slope
    that small windows allow on top; wide ones allow all of it. in_all: slope by which all windows together may lower a
    cell; a house with blurred walls goes down in small steps.
    """
    cut = np.zeros(z.shape, bool)
    last, factor, done = z, 1, 0
    first = z
    steep = regional_slope(z, cell)
    for radius in _RADII:
        if radius >= _POOL_FROM and factor == 1:
            factor = 2
            last, first = pool_min(last, 2), pool_min(first, 2)
            steep = -pool_min(-steep, 2)
        cells = round(radius / (cell * factor))
        if cells == done or cells < 1 or cells >= max(last.shape):
            continue
        done = cells
        opened = opened_by_disk(last, cells)
        wide = min(max((radius - _RIDGES_FROM) / (_RIDGES_FULL - _RIDGES_FROM), 0.0), 1.0)
        allowed = slope + np.float32(least_share + (1 - least_share) * wide) * steep
        lowered = last - opened > step + allowed * (cells * cell * factor)
        lowered |= first - opened > (allowed - slope + np.float32(in_all)) * (cells * cell * factor)
        cut |= lowered if factor == 1 else np.kron(lowered, np.ones((2, 2), bool))[: z.shape[0], : z.shape[1]]
        last = opened
    return cut


def regional_slope(z: Singles, cell: float) -> Singles:
    """Slope of the landform around each cell, rise over run: that of the widest opening, smoothed and widened.

    Wide buildings stand on flat land; where the land is steep, what a wide window cuts is a ridge.
    """
    factor = max(round(4 * CELL / cell), 1)
    coarse = opened_by_disk(pool_min(z, factor), max(round(_RADII[-1] / (cell * factor)), 1))
    if min(coarse.shape) < 3:
        return np.zeros_like(z)
    slope = terrain_slope(coarse, cell * factor, 12.0)
    slope = blur(np.asarray(cv2.dilate(slope, disk(18 / (cell * factor)))), 2.0)
    return expand(slope, factor, (z.shape[0], z.shape[1]))


def low_outliers(z: Singles, cell: float) -> Bools:
    """Cells far below their surroundings: what a small closing lifts by more than any terrain needs."""
    return np.asarray(-z - opened_by_disk(-z, max(round(CELL / cell), 1)) > _LOW_SLOPE * max(cell, CELL))


def with_terrain_back(
    z: Singles, ok: Bools, joined: Bools, cut: Bools, cell: float, origin: tuple[int, int] = (0, 0)
) -> tuple[Singles, Bools]:
    """Ground surface and the cut cells that remain after what joins the ground without a step is given back.

    ok: cells with evidence; joined: cells over which terrain may be followed.
    """
    if (ok & ~cut).sum() < 3:
        cut = np.zeros_like(cut)
    surface = membrane(z, ok & ~cut, origin=origin)
    if min(z.shape) < 3:
        return surface, cut
    gy, gx = np.gradient(z - blur(surface, 15 / cell), cell)
    smooth = (joined & (np.hypot(gx, gy) < _SMOOTH_SLOPE)).astype(np.uint8)
    # narrow bridges of chance between a roof and the ground are opened away
    smooth = cv2.morphologyEx(smooth, cv2.MORPH_OPEN, disk(2 / cell))
    n, labels = cv2.connectedComponents(smooth, connectivity=4)
    size = np.bincount(labels.ravel(), minlength=n)
    ground = np.bincount(labels[~cut], minlength=n)
    accepted = ground >= 0.3 * np.maximum(size, 1)
    accepted[0] = False
    cut = cut & ~accepted[labels]
    return membrane(z, ok & ~cut, origin=origin), cut


def _blocks(a: NDArray[Any], factor: int, fill: Any) -> NDArray[Any]:
    h, w = a.shape
    rows, columns = -(-h // factor), -(-w // factor)
    padded = np.pad(a, ((0, rows * factor - h), (0, columns * factor - w)), constant_values=fill)
    return padded.reshape(rows, factor, columns, factor)


def pool_min(z: Singles, factor: int) -> Singles:
    """Least of each block of ``factor`` x ``factor`` cells; blocks at the far sides may be cut off."""
    return np.asarray(_blocks(z, factor, np.inf).min((1, 3)), np.float32)


def expand(a: Singles, factor: int, shape: tuple[int, int]) -> Singles:
    """Bilinear values at ``factor`` times the resolution, cut to ``shape``."""
    if factor == 1:
        return a
    big = cv2.resize(a, (a.shape[1] * factor, a.shape[0] * factor), interpolation=cv2.INTER_LINEAR)
    return np.asarray(big[: shape[0], : shape[1]])
