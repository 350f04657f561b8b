from __future__ import annotations

import numpy as np

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.surface.coarse import block_means, resampled

GRID = Grid(Reference("EPSG:32654"), 3e5, 4e6, 0.5, 30, 43)


def test_block_means__of_what_is_there() -> None:
    values = np.random.default_rng(0).normal(200, 5, GRID.shape).astype(np.float32)
    values[4:8, 4:8] = np.nan
    values[0, 0:3] = np.nan
    small = block_means(Raster(values, GRID), 4)
    assert small.grid.shape == (8, 11) and small.grid.resolution == 2.0 and small.grid.north == GRID.north
    assert np.isnan(small.values[1, 1])
    np.testing.assert_allclose(small.values[0, 0], np.nanmean(values[:4, :4]), rtol=1e-6)
    np.testing.assert_allclose(small.values[7, 10], values[28:, 40:].mean(), rtol=1e-6)  # cut off at both sides
    assert block_means(Raster(values, GRID), 1).values is values


def test_resampled__is_bilinear_and_continued() -> None:
    coarse = Grid(GRID.reference, GRID.west, GRID.north, 2.0, 8, 11)
    x, y = coarse.centres()
    slope = Raster((2 * (x - 3e5) + 3 * (y[:, None] - 4e6)).astype(np.float32), coarse)
    part = GRID.window(7, 9, 12, 20)
    fx, fy = part.centres()
    np.testing.assert_allclose(resampled(slope, part), 2 * (fx - 3e5) + 3 * (fy[:, None] - 4e6), atol=1e-3)
    np.testing.assert_array_equal(resampled(slope, GRID)[:2, :2], slope.values[0, 0])
