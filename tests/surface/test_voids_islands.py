"""Small islands in the void go, the body and its near parts stay."""

from __future__ import annotations

import numpy as np

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.surface.voids import largest_group, remove_islands


def raster(values: np.ndarray) -> Raster:
    return Raster(values.astype(np.float32), Grid(Reference("EPSG:32654"), 0.0, 100.0, 0.5, *values.shape))


def test_remove_islands__small_and_far_goes() -> None:
    z = np.full((100, 100), np.nan)
    z[:, :50] = 5.0
    z[40:50, 80:90] = 7.0  # 25 m2, far away
    z[20:30, 51:56] = 6.0  # one empty column from the body
    found = np.isfinite(remove_islands(raster(z)).values)
    assert not found[40:50, 80:90].any()
    assert found[20:30, 51:56].all() and found[:, :50].all()


def test_remove_islands__large_island_stays() -> None:
    z = np.full((100, 100), np.nan)
    z[:, :40] = 5.0
    z[30:60, 60:90] = 7.0  # 225 m2
    assert np.isfinite(remove_islands(raster(z)).values)[30:60, 60:90].all()


def test_largest_group__of_cells_that_belong_together() -> None:
    z = np.full((100, 100), np.nan)
    z[10:15, 10:15] = 5.0
    z[50:60, 50:60] = 5.0
    assert largest_group(raster(z)) == 25.0
    assert largest_group(raster(np.full((10, 10), np.nan))) == 0.0
