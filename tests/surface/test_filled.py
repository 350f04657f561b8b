"""What was filled lies on the terrain where it hides ground, and nowhere between ground and crown."""

from __future__ import annotations

import numpy as np

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.surface.filled import (
    CROWN,
    NEAR_CROWN,
    OVERHANG,
    STAYED,
    TERRAIN,
    WRONG,
    Overhangs,
    enveloped,
    on_terrain,
)

SIZE = 60
GRID = Grid(Reference("EPSG:32654"), 3e5, 4e6, 0.5, SIZE, SIZE)
SLOPE = (100 + 0.2 * np.arange(SIZE)[None, :] * np.ones((SIZE, 1))).astype(np.float32)


def settled(dsm: np.ndarray, filled: np.ndarray, heights: np.ndarray, odds: float = 0.0) -> tuple[np.ndarray, ...]:
    """Surface and sigma over a slope whose terrain is known to 0.5 m; the filling has a sigma of 2 m."""
    sigma = np.where(filled, np.float32(2), np.float32(0.1))
    over = Overhangs(heights.astype(np.float32), np.full(dsm.shape, odds, np.float32))
    terrain_sigma = Raster(np.full(dsm.shape, 0.5, np.float32), GRID)
    z, s = on_terrain(Raster(dsm, GRID), Raster(sigma, GRID), Raster(SLOPE, GRID), terrain_sigma, filled, over)
    return z.values, s.values


def test_on_terrain__overhang_is_ground_and_sigma_counts_the_crown() -> None:
    dsm, filled = SLOPE.copy(), np.zeros(SLOPE.shape, bool)
    filled[20:26, 20:26] = True
    crown = np.where(filled, SLOPE + 8, SLOPE)
    dsm[filled] += 3  # carried from a lower crown: neither ground nor top
    for odds in (0.0, 2.0):
        z, sigma = settled(dsm, filled, crown, odds)
        np.testing.assert_array_equal(z[filled], SLOPE[filled])
        np.testing.assert_allclose(
            sigma[filled],
            np.sqrt((0.5 * TERRAIN) ** 2 + (8.0 * CROWN) ** 2 / (1 + np.exp(-WRONG[0] - WRONG[1] * odds))),
            rtol=1e-5,
        )
        np.testing.assert_array_equal(z[~filled], dsm[~filled])
        assert (sigma[~filled] == np.float32(0.1)).all()


def test_on_terrain__what_was_matched_near_the_terrain_stays_and_sigma_counts_that_it_is_ground() -> None:
    filled = np.zeros(SLOPE.shape, bool)
    filled[20:26, 20:26] = True
    z, sigma = settled(SLOPE - 3 * filled, filled, SLOPE + np.where(filled, np.float32(1.5), np.float32(0)))
    np.testing.assert_array_equal(z[filled], SLOPE[filled] + np.float32(1.5))
    np.testing.assert_allclose(sigma[filled], np.hypot(0.5 * TERRAIN, 1.5 * STAYED), rtol=1e-5)


def test_on_terrain__gap_between_crowns_is_ground_with_the_sigma_of_a_void() -> None:
    rng = np.random.default_rng(1)
    dsm = (SLOPE + rng.uniform(5, 15, SLOPE.shape)).astype(np.float32)
    filled = np.zeros(SLOPE.shape, bool)
    filled[25:31, 25:31] = True
    dsm[filled] = SLOPE[filled] + 6  # the lowest crowns around
    dsm[24:32, 24] = SLOPE[24:32, 24] + 15  # the highest one beside it
    z, sigma = settled(dsm, filled, np.where(filled, np.nan, dsm))
    np.testing.assert_array_equal(z[filled], SLOPE[filled])
    beside = sigma[26:30, 25]
    np.testing.assert_allclose(beside, np.hypot(2, NEAR_CROWN * 15), rtol=1e-5)
    assert (sigma[filled] > 2).all()


def test_on_terrain__void_in_a_roof_stays_on_the_roof() -> None:
    dsm, filled = SLOPE.copy(), np.zeros(SLOPE.shape, bool)
    dsm[10:40, 10:40] = 112.0
    filled[14:30, 12:30] = True
    z, sigma = settled(dsm, filled, np.where(filled, np.nan, dsm))
    assert (z[filled] == 112).all() and (sigma[filled] == 2).all()


def test_on_terrain__no_terrain_changes_nothing() -> None:
    dsm, filled = SLOPE + 1, np.ones(SLOPE.shape, bool)
    nothing = Raster(np.full(dsm.shape, np.nan, np.float32), GRID)
    sigma = Raster(np.ones_like(dsm), GRID)
    over = Overhangs(dsm, np.zeros_like(dsm))
    z, s = on_terrain(Raster(dsm, GRID), sigma, nothing, nothing, filled, over)
    np.testing.assert_array_equal(z.values, dsm)
    np.testing.assert_array_equal(s.values, sigma.values)


def test_enveloped__rims_stand_as_matched_and_sigma_counts_the_ground() -> None:
    """The higher of surface and overhang, never on water, with the sigma of a step as likely as the odds of ground."""
    raised, water = np.zeros(SLOPE.shape, bool), np.zeros(SLOPE.shape, bool)
    raised[20:26, 20:40], water[20:26, 30:40] = True, True
    heights = np.where(raised, SLOPE + 8, np.float32(np.nan)).astype(np.float32)
    heights[0, :10] = SLOPE[0, :10] - 1  # lower than the surface: nothing
    terrain, sigma = Raster(SLOPE, GRID), Raster(np.full(SLOPE.shape, 0.3, np.float32), GRID)
    for odds in (-2.0, 3.0):
        over = Overhangs(heights, np.full(SLOPE.shape, odds, np.float32))
        found = enveloped(Raster(SLOPE, GRID), sigma, terrain, over, ~water)
        np.testing.assert_array_equal(found.raised, raised & ~water)
        np.testing.assert_array_equal(found.height.values, np.where(raised & ~water, SLOPE + 8, SLOPE))
        expected = np.sqrt(OVERHANG**2 + (CROWN * 8) ** 2 / (1 + np.exp(WRONG[0] + WRONG[1] * odds)))
        np.testing.assert_allclose(found.sigma.values[raised & ~water], expected, rtol=1e-4)
        assert (found.sigma.values[~raised | water] == np.float32(0.3)).all()
