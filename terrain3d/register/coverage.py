"""How much of a surface its lidar returns control."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Raster

Floats = NDArray[np.float64]

# row by row from the north, as the sectors lie on a map
SECTORS = (
    ("north-west", "north", "north-east"),
    ("west", "centre", "east"),
    ("south-west", "south", "south-east"),
)
MIN_SHARE = 0.05  # of a sector's cells that must have values for it to count
REACH = 0.5  # of a sector's size: a return this near still controls it


def extent_share(dsm: Raster, x: Floats, y: Floats) -> tuple[float, float]:
    """Share of the grid's extent that points span, east and north."""
    if not len(x):
        return 0.0, 0.0
    west, south, east, north = dsm.grid.bounds
    return float(np.ptp(x)) / (east - west), float(np.ptp(y)) / (north - south)


def uncontrolled_parts(dsm: Raster, x: Floats, y: Floats) -> tuple[str, ...]:
    """Names of the ninths of a surface that have values but no point within or near them, from north to south."""
    west, south, east, north = dsm.grid.bounds
    wide, high = (east - west) / 3, (north - south) / 3
    valid = np.isfinite(dsm.values)
    parts = []
    for i, rows in enumerate(np.array_split(valid, 3, axis=0)):
        for j, cells in enumerate(np.array_split(rows, 3, axis=1)):
            left, top = west + j * wide, north - i * high
            near = (
                (x > left - REACH * wide)
                & (x < left + (1 + REACH) * wide)
                & (y < top + REACH * high)
                & (y > top - (1 + REACH) * high)
            )
            if cells.size and cells.mean() > MIN_SHARE and not near.any():
                parts.append(SECTORS[i][j])
    return tuple(parts)
