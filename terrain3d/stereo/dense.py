"""Dense matching of one tile of a pair, from images to points on the ground."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.image.view import View, lean
from terrain3d.stereo.epipolar import NODE_PX, EpipolarTile, Lattice
from terrain3d.stereo.match import match_images
from terrain3d.stereo.resample import resample
from terrain3d.stereo.sgm import SgmBuffers, padded_disparities
from terrain3d.stereo.trend import CoarseSurface
from terrain3d.stereo.triangulate import triangulate

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

RANGE_MARGIN_M = 8.0  # towers and pits that the coarse pass missed


@dataclass(frozen=True)
class DensePoints:
    """Points of a tile: xyz (N, 3) in the frame's CRS, sigma (N,) of the height, confidence (N,) 0 to 1,
    intensity (N,) of the left image, and their rectified (column, row) in the tile (N, 2)."""

    xyz: Floats
    sigma: Singles
    confidence: Singles
    intensity: Singles
    pixel: NDArray[np.int32]


def match_tile(
    left: View, right: View, tile: EpipolarTile, surface: CoarseSurface, buffers: SgmBuffers,
    *, reduction: int = 1, margin_m: float = RANGE_MARGIN_M, polish: bool = True,
) -> DensePoints:  # fmt: skip
    """Points seen by the left view in a tile. ``surface`` flattens the relief and bounds the search.

    reduction: image pixels per rectified pixel. polish: refine to sub-pixel by least squares.
    """
    frame = tile.frame
    low, high, trend_px, relief = _search(left, tile, surface, margin_m)
    lattice = tile.lattice(left, right, relief)
    first = int(np.floor(low * frame.px_per_metre()))
    needed = int(np.ceil(high * frame.px_per_metre())) - first + 1
    disparities = padded_disparities(needed)
    first -= (disparities - needed) // 3  # what the kernel's vectors leave over goes mostly to towers
    flat = trend_px + np.float32(first)
    image_left = resample(left, lattice.left_image, tile.height, tile.width, reduction=reduction)
    down = _row_shift(tile, lattice, trend_px)
    image_right = resample(
        right, lattice.right_image, tile.height, tile.width, shift=flat, down=down, reduction=reduction
    )
    found = match_images(image_left, image_right, disparities, buffers, polish=polish)
    rows, columns = np.nonzero(np.isfinite(found.disparity))
    d = found.disparity[rows, columns]
    total = d + _at_columns(flat, rows, columns - d)
    xyz = triangulate(tile, lattice, total, columns, rows)
    return DensePoints(
        xyz,
        (found.sigma_px[rows, columns] / frame.px_per_metre()).astype(np.float32),
        found.confidence[rows, columns],
        image_left[rows, columns],
        np.column_stack([columns, rows]).astype(np.int32),
    )


def _search(
    left: View, tile: EpipolarTile, surface: CoarseSurface, margin_m: float
) -> tuple[float, float, Singles, float]:
    """Lowest and highest height against the trend (m), the trend as disparity (h, w) px, and the largest relief (m).

    A left pixel sees the surface where its ray meets it, not above its place on the plane: two turns of the fixed
    point are enough for a surface this smooth.
    """
    frame = tile.frame
    step = NODE_PX // 4
    x = np.arange(0, tile.width + step, step, dtype=float)
    y = np.arange(0, tile.height + step, step, dtype=float)
    xx, yy = np.meshgrid(x + tile.column, y + tile.row)
    east, north = frame.to_ground(xx, yy)
    middle = [int(s) // 2 for s in xx.shape]
    line, sample = left.project(frame.crs, east[middle[0], middle[1]], north[middle[0], middle[1]], tile.height0)
    move = -lean(left, frame.crs, tile.height0, line, sample)
    height = surface.trend_at(east, north)
    for _ in range(3):
        rise = height - tile.height0
        height = surface.trend_at(east + rise * move[0], north + rise * move[1])
    rise = height - tile.height0
    low, high = surface.relief_around(east + rise * move[0], north + rise * move[1])
    trend = _at_pixels(rise * frame.px_per_metre(), step, tile)
    extreme = float(np.abs(rise).max() + max(high, -low) + margin_m)
    return low - margin_m, high + margin_m, trend, extreme


def _row_shift(tile: EpipolarTile, lattice: Lattice, trend_px: Singles) -> Singles:
    """Rows (h, w) by which the right view shows the trend further down than the left one: where views scan in different
    directions, the direction of disparity turns from one end of the frame to the other."""
    return _at_pixels(lattice.parallax_of / tile.frame.px_per_metre(), NODE_PX, tile) * trend_px


def _at_pixels(nodes: Floats, step: int, tile: EpipolarTile) -> Singles:
    """Linear interpolation, at every pixel (h, w) of a tile, of values at nodes ``step`` apart."""
    return np.ascontiguousarray(cv2.warpAffine(
        nodes.astype(np.float32), np.array([[1 / step, 0, 0], [0, 1 / step, 0]]), (tile.width, tile.height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    ), np.float32)  # fmt: skip


def _at_columns(values: Singles, rows: NDArray[np.int64], columns: NDArray[np.float32]) -> Floats:
    """Linear interpolation of (h, w) values along their rows."""
    c = np.clip(columns.astype(np.float64), 0, values.shape[1] - 1.001)
    i = c.astype(np.int64)
    u = c - i
    return values[rows, i] * (1 - u) + values[rows, i + 1] * u
