"""Sigma of cells: the matches' own on smooth ground, more at edges, more where matches disagree."""

from __future__ import annotations

import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.surface.sigma import MATCH, cell_sigma, missing_pairs, standing_sigma

GRID = Grid(Reference("EPSG:32654"), 1000.0, 2000.0, 0.5, 60, 80)
ALL = np.ones(GRID.shape, bool)


def raster(values: np.ndarray) -> Raster:
    return Raster(np.asarray(values, np.float32), GRID)


def test_cell_sigma__plane_keeps_that_of_the_matches() -> None:
    x, y = np.meshgrid(*GRID.centres())
    tilted = cell_sigma(raster(0.4 * (x - 1000) + 0.3 * (y - 2000)), raster(np.full(GRID.shape, 0.1)), ALL)
    inside = tilted.values[10:-10, 10:-10]
    assert inside.min() >= 0.1 * MATCH and inside.max() < 0.055  # with the little that a gross error is likely


def test_cell_sigma__grows_at_a_wall_only() -> None:
    z = np.zeros(GRID.shape)
    z[:, 40:] = 10.0
    s = cell_sigma(raster(z), raster(np.full(GRID.shape, 0.1)), ALL).values
    assert s[30, 39] > 3.5 and s[30, 40] > 3.5
    assert 0.1 * MATCH <= s[30, 10] < 0.13 * MATCH


def test_cell_sigma__disagreeing_matches_in_relief_are_doubted() -> None:
    z = np.zeros(GRID.shape)
    z[:, 30:50] = 10.0
    sure, unsure = (cell_sigma(raster(z), raster(np.full(GRID.shape, s)), ALL).values[30, 33:47] for s in (0.1, 0.8))
    assert sure.max() < 2.0  # an object of which the matches are sure
    assert np.median(unsure) > max(
        2.0, 3 * np.median(sure)
    )  # a good part of the height that it may stand over the ground
    flat = cell_sigma(raster(np.zeros(GRID.shape)), raster(np.full(GRID.shape, 0.8)), ALL).values
    assert flat.max() < 0.8  # where nothing stands there is nothing to be wrong by


def test_cell_sigma__no_height_no_sigma() -> None:
    z = np.zeros(GRID.shape)
    z[3, 4] = np.nan
    s = cell_sigma(raster(z), raster(np.full(GRID.shape, 0.1)), ALL).values
    assert np.isnan(s[3, 4]) and np.isfinite(s[3, 5]) and s[3, 5] > 0


def test_cell_sigma__a_rim_that_may_hang_over_the_ground() -> None:
    z = np.zeros(GRID.shape)
    z[:, 30:50] = 10.0
    matches = raster(np.full(GRID.shape, 0.3))
    odds = np.full(GRID.shape, -30.0, np.float32)
    sure = cell_sigma(raster(z), matches, ALL, odds).values[30]
    odds[:, 30:33] = -0.5
    seen = ALL.copy()
    seen[:, 29] = False  # nothing was matched beside it
    s = cell_sigma(raster(z), matches, seen, odds).values[30]
    assert s[32] > 2.5 and s[32] > 1.5 * sure[32]
    np.testing.assert_array_equal(s[38:], sure[38:])  # and not on the far side, where nothing is in doubt
    assert s[40] < 1.0  # in the middle of the roof


def test_cell_sigma__what_was_filled_is_as_uncertain_as_the_relief_around() -> None:
    rng = np.random.default_rng(1)
    rough = raster(rng.normal(0, 2, GRID.shape))
    flat = raster(np.zeros(GRID.shape))
    for surface, low, high in ((rough, 2.0, 4.5), (flat, 0.1, 0.11)):
        s = cell_sigma(surface, raster(np.full(GRID.shape, 0.1)), ~ALL).values
        assert low <= np.median(s) < high


def test_standing_sigma__high_over_the_terrain_with_nothing_low_around() -> None:
    height = np.zeros(GRID.shape, np.float32)
    height[:, :50] = 12.0  # a wood or a hall, wider than the reach, and open ground beside it
    wood, hall = (standing_sigma(height, np.full(GRID.shape, s, np.float32), 0.5)[30] for s in (0.8, 0.08))
    assert wood[20] > 6.0  # gaps between its crowns may have been taken for them
    assert hall[20] < 0.8  # matched too well for that
    assert wood[20] > 1.5 * wood[48]  # near its edge the ground would have been seen
    np.testing.assert_allclose(wood[53:], 0.8, rtol=1e-6)
    height[:, 60] = np.nan
    np.testing.assert_allclose(standing_sigma(height, np.ones(GRID.shape, np.float32), 0.5)[:, 60], 1.0)


def test_standing_sigma__foot_of_a_wall_may_be_its_top() -> None:
    """Half of the step beside the wall, less with every cell away from it; nothing on the roof or far off."""
    height = np.zeros(GRID.shape, np.float32)
    height[:, 60:] = 10.0
    spread = standing_sigma(height, np.full(GRID.shape, 0.1, np.float32), 0.5)[30]
    share = np.sqrt(spread[56:60] ** 2 - 0.1**2) / 10.0
    np.testing.assert_allclose(share[::-1], [0.458, 0.299, 0.084, 0.0], atol=0.001)
    np.testing.assert_allclose(spread[:55], 0.1, rtol=1e-5)
    low = np.where(height > 0, np.float32(2), height)  # a hedge is no wall
    np.testing.assert_allclose(standing_sigma(low, np.full(GRID.shape, 0.1, np.float32), 0.5)[30, :55], 0.1, rtol=1e-5)


def test_missing_pairs__doubt_where_pairs_around_see_more() -> None:
    pairs = np.full((60, 60), 4, np.uint8)
    pairs[:, 30:] = 1  # beyond 8 m of the edge there is but one pair to be had
    pairs[10, 10] = 2
    sigma = missing_pairs(np.full(pairs.shape, 0.1, np.float32), pairs, 0.5)
    assert sigma[10, 10] == pytest.approx(0.1 * np.sqrt(2))
    np.testing.assert_allclose(sigma[40, [5, 29, 30, 45, 46, 59]], [0.1, 0.1, 0.2, 0.2, 0.1, 0.1], rtol=1e-6)
