"""Grids that fit together, and rasters that are sampled at cell centres."""

from __future__ import annotations

import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster, bilinear

REFERENCE = Reference("EPSG:32632")


@pytest.mark.parametrize("resolution", [0.3, 0.5, 0.7, 1.0, 30.0])
def test_from_bounds__corners_are_multiples_and_cover(resolution: float) -> None:
    bounds = (680_000.13, 5_229_876.5, 680_123.4, 5_230_000.01)
    grid = Grid.from_bounds(REFERENCE, *bounds, resolution)
    west, south, east, north = grid.bounds
    for edge in grid.bounds:
        assert abs(edge / resolution - round(edge / resolution)) < 1e-6
    tolerance = 1e-5 * resolution
    assert west <= bounds[0] + tolerance and south <= bounds[1] + tolerance
    assert east >= bounds[2] - tolerance and north >= bounds[3] - tolerance
    assert bounds[0] - west < resolution and north - bounds[3] < resolution


def test_from_bounds__multiples_stay_and_are_their_own() -> None:
    grid = Grid.from_bounds(REFERENCE, 100.0, 200.0, 110.0, 220.0, 0.5)
    assert grid.bounds == (100.0, 200.0, 110.0, 220.0) and grid.shape == (40, 20)
    again = Grid.from_bounds(REFERENCE, *Grid.from_bounds(REFERENCE, 0.1, 0.2, 9.9, 8.8, 0.3).bounds, 0.3)
    assert again == Grid.from_bounds(REFERENCE, 0.1, 0.2, 9.9, 8.8, 0.3)
    assert Grid.from_bounds(REFERENCE, 5.0, 5.0, 5.0, 5.0, 1.0).shape == (1, 1)


def test_from_bounds__neighbours_share_their_lines() -> None:
    a = Grid.from_bounds(REFERENCE, 0.0, 0.0, 103.1, 50.0, 0.5)
    b = Grid.from_bounds(REFERENCE, 103.1, 0.0, 200.0, 50.0, 0.5)
    assert ((a.west - b.west) / 0.5) % 1 == 0
    assert a.bounds[2] == 103.5 and b.west == 103.0  # each covers the cell on the border


def test_centres_and_column_row__half_a_cell_from_the_corner() -> None:
    grid = Grid(REFERENCE, 1000.0, 2000.0, 0.5, 6, 8)
    x, y = grid.centres()
    assert (x[0], y[0]) == (1000.25, 1999.75) and (len(x), len(y)) == (8, 6)
    column, row = grid.column_row(x[3], y[2])
    assert (float(column), float(row)) == (3.0, 2.0)
    assert grid.column_row(1000.0, 2000.0) == (-0.5, -0.5)
    a, _, c, _, e, f = grid.transform
    assert (c + a * 3.5, f + e * 2.5) == (x[3], y[2])


def test_window__keeps_places() -> None:
    grid = Grid(REFERENCE, 1000.0, 2000.0, 0.5, 60, 80)
    part = grid.window(11, 7, 5, 6)
    assert part.shape == (5, 6)
    np.testing.assert_array_equal(part.centres()[0], grid.centres()[0][7:13])
    np.testing.assert_array_equal(part.centres()[1], grid.centres()[1][11:16])


def test_sample__plane_is_exact_at_any_place() -> None:
    grid = Grid(REFERENCE, 1000.0, 2000.0, 0.5, 60, 80)
    x, y = grid.centres()
    raster = Raster(2 * x[None, :] - 3 * y[:, None], grid)
    px, py = np.array([1000.25, 1010.0, 1021.37]), np.array([1999.75, 1980.0, 1975.5])
    np.testing.assert_allclose(raster.sample(px, py), 2 * px - 3 * py, rtol=1e-12)


def test_sample__nan_outside_and_beside_cells_without_value() -> None:
    grid = Grid(REFERENCE, 0.0, 10.0, 1.0, 10, 10)
    values = np.ones(grid.shape, np.float32)
    values[5, 5] = np.nan
    raster = Raster(values, grid)
    x = np.array([0.4, 0.5, 9.5, 9.6, 5.5, 5.0, 4.4])
    y = np.array([5.0, 5.5, 0.5, 5.0, 4.5, 4.5, 4.5])
    np.testing.assert_array_equal(np.isnan(raster.sample(x, y)), [True, False, False, True, True, True, False])


def test_bilinear__single_row_and_column() -> None:
    assert bilinear(np.array([[3.0]]), 0.0, 0.0) == 3.0
    np.testing.assert_allclose(bilinear(np.array([[1.0, 3.0]]), [0.0, 0.25, 1.0], [0.0, 0.0, 0.0]), [1, 1.5, 3])
    assert np.isnan(bilinear(np.ones((2, 2)), 1.01, 0.0))


def test_raster__refuses_values_of_another_shape() -> None:
    grid = Grid(REFERENCE, 0.0, 10.0, 1.0, 4, 5)
    assert Raster(np.zeros((3, 4, 5)), grid).values.shape == (3, 4, 5)
    with pytest.raises(ValueError, match="do not fit"):
        Raster(np.zeros((5, 4)), grid)
