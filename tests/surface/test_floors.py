"""Floors of canopy cells: ground in gaps, or flanks of crowns."""

from __future__ import annotations

import numpy as np

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.surface.canopy_cells import CanopyCells, canopy_cells
from terrain3d.surface.floors import find_floors, honest, left_out

FINE = Grid(Reference("EPSG:32654"), 3e5, 4e6, 0.5, 480, 480)
HEIGHT = 18.0


def forest(share: float) -> tuple[CanopyCells, np.ndarray]:
    """Cells of a forest of cones and, at a share of them, gaps of 3 m; and where those are."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:480, 0:480] * 0.5
    around = np.hypot((x % 6) - 3, (y % 6) - 3)
    z = 100 + HEIGHT - 1.8 * around + rng.normal(0, 0.2, x.shape)
    gap = rng.random((30, 30)) < share
    for row, column in zip(*np.nonzero(gap), strict=True):
        z[16 * row + 5 : 16 * row + 11, 16 * column + 5 : 16 * column + 11] = 100 + rng.normal(0, 0.2, (6, 6))
    surface, none = Raster(z.astype(np.float32), FINE), np.zeros(z.shape, bool)
    return canopy_cells(surface, surface, surface.values, none, ~none), gap


def test_find_floors__gaps_are_told_from_flanks_and_tell_the_stand() -> None:
    cells, gap = forest(0.3)
    floors = find_floors(cells, np.ones(gap.shape, bool))
    stand = floors.clear_stand()
    assert stand is not None and abs(stand - HEIGHT) < 2.0
    one = np.ones(len(floors.height))
    believed = floors.believed(floors.height - 100, 5 * one, stand * one).reshape(gap.shape)
    assert (believed[gap] > 0.5).mean() > 0.9 and (believed[~gap] > 0.5).mean() < 0.02
    np.testing.assert_allclose(floors.height.reshape(gap.shape)[gap], 100, atol=0.5)
    np.testing.assert_allclose(floors.column.reshape(gap.shape)[gap], np.nonzero(gap)[1], atol=0.1)


def test_find_floors__closed_canopy_tells_no_stand() -> None:
    cells, gap = forest(0.0)
    assert find_floors(cells, np.ones(gap.shape, bool)).clear_stand() is None
    assert not find_floors(cells, np.zeros(gap.shape, bool)).height.size


def test_left_out__equals_an_estimate_without_the_observation() -> None:
    values, errors = np.array([0.3, -0.4, 5.0]), np.array([0.5, 0.7, 1.0])
    weights = errors**-2
    sigma = np.full(3, weights.sum() ** -0.5)
    off, spread = left_out(values - (weights * values).sum() / weights.sum(), sigma, errors, np.ones(3))
    for k in range(3):
        other = np.delete(np.arange(3), k)
        mean = (weights * values)[other].sum() / weights[other].sum()
        np.testing.assert_allclose(off[k], values[k] - mean)
        np.testing.assert_allclose(spread[k], np.hypot(errors[k], weights[other].sum() ** -0.5))


def test_honest__a_return_far_off_is_gross() -> None:
    trusted = honest(np.array([0.0, 2.0, 8.0]), np.full(3, 1.5))
    assert trusted[0] > 0.98 and trusted[1] > 0.9 and trusted[2] < 0.01
