"""Rasters on coarser cells, and back."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Floats, Grid, Raster

Singles = NDArray[np.float32]


def block_means(raster: Raster, step: int) -> Raster:
    """Means of the finite values of blocks of ``step`` x ``step`` cells from the north-west; NaN if there are none."""
    g = raster.grid
    values = pooled(np.asarray(raster.values, np.float32), step)
    return Raster(values, replace(g, resolution=g.resolution * step, height=values.shape[0], width=values.shape[1]))


def pooled(values: Singles, step: int) -> Singles:
    """The same of an array (h, w); blocks at the far sides may be cut off."""
    if step == 1:
        return values
    h, w = values.shape
    size = -(-w // step), -(-h // step)
    whole = np.full((size[1] * step, size[0] * step), np.nan, np.float32) if (h % step or w % step) else values
    if whole is not values:
        whole[:h, :w] = values
    known = np.isfinite(whole)
    share = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    total = cv2.resize(np.where(known, whole, np.float32(0)), size, interpolation=cv2.INTER_AREA)
    return np.where(share > 0, total / np.maximum(share, np.float32(1e-9)), np.float32(np.nan))


def resampled(raster: Raster, grid: Grid) -> Singles:
    """Bilinear values of a coarse raster on all cells of a finer grid of the same reference, (h, w) float32.

    Beyond the outermost centres the values there are continued.
    """
    (r0, r1, u), (c0, c1, v) = (
        _neighbours(at, n)
        for at, n in zip(reversed(raster.grid.column_row(*grid.centres())), raster.grid.shape, strict=True)
    )
    left = min(int(c0.min()), int(c1.min()))
    part = raster.values[:, left : int(c1.max()) + 1].astype(np.float32, copy=False)
    down = part[r0] * (1 - u)[:, None] + part[r1] * u[:, None]
    return np.asarray(down[:, c0 - left] * (1 - v) + down[:, c1 - left] * v)


def _neighbours(at: Floats, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Singles]:
    """Index before and after each place, held inside 0 to n - 1, and the weight of the one after."""
    inside = np.clip(at, 0, n - 1)
    first = np.minimum(inside.astype(np.int64), max(n - 2, 0))
    return first, np.minimum(first + 1, n - 1), (inside - first).astype(np.float32)
