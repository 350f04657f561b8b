"""From disparities to ground points, through the lattice of exact camera geometry of the tile."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.stereo.epipolar import NODE_PX, EpipolarTile, Lattice

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


def triangulate(tile: EpipolarTile, lattice: Lattice, disparity: Floats, columns: Any, rows: Any) -> Floats:
    """Ground points (N, 3) easting, northing, height of left pixels (columns, rows) of the tile.

    disparity: (N,) px, total disparity against the plane of the tile.
    """
    out = np.empty((len(disparity), 3))
    east0, north0 = tile.frame.to_ground(np.asarray(tile.column, float), np.asarray(tile.row, float))
    geometry = np.concatenate([lattice.height_of, lattice.shift_of.reshape(*lattice.shift_of.shape[:2], 4)], axis=-1)
    _triangulate(
        np.asarray(disparity, np.float64), np.asarray(columns, np.float64), np.asarray(rows, np.float64), geometry,
        np.array([*tile.frame.along, *tile.frame.down]) * tile.frame.pixel,
        float(east0), float(north0), tile.height0, out,
    )  # fmt: skip
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _triangulate(
    disparity: Any,
    columns: Any,
    rows: Any,
    geometry: Any,
    axes: Any,
    east0: float,
    north0: float,
    height0: float,
    out: Any,
) -> None:
    g = np.empty(6)
    for k in range(disparity.size):
        fx, fy = columns[k] / NODE_PX, rows[k] / NODE_PX
        i, j = min(int(fx), geometry.shape[1] - 2), min(int(fy), geometry.shape[0] - 2)
        u, v = fx - i, fy - j
        for n in range(6):
            g[n] = (1 - v) * ((1 - u) * geometry[j, i, n] + u * geometry[j, i + 1, n]) + v * (
                (1 - u) * geometry[j + 1, i, n] + u * geometry[j + 1, i + 1, n]
            )
        d = disparity[k]
        h = d * (g[0] + g[1] * d)
        out[k, 0] = east0 + columns[k] * axes[0] + rows[k] * axes[2] + h * (g[2] + g[3] * h)
        out[k, 1] = north0 + columns[k] * axes[1] + rows[k] * axes[3] + h * (g[4] + g[5] * h)
        out[k, 2] = height0 + h
