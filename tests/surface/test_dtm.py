from __future__ import annotations

import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.surface.dtm import (
    cloud_terrain_sigma,
    ground_distance,
    hidden_share,
    stated_sigma,
    terrain_sigma,
    with_hidden,
)
from terrain3d.surface.under_canopy import HiddenGround

GRID = Grid(Reference("EPSG:32654"), 3e5, 4e6, 1.0, 160, 160)
COARSE = Grid(GRID.reference, GRID.west, GRID.north, 8.0, 20, 20)


def on(grid: Grid, value: float) -> Raster:
    return Raster(np.full(grid.shape, value, np.float32), grid)


def test_terrain_sigma__grows_away_from_the_ground() -> None:
    ground = np.ones(GRID.shape, bool)
    ground[50:110, 40:120] = False
    far = ground_distance(ground, 1.0)
    everywhere = np.ones(GRID.shape, bool)
    sigma = terrain_sigma(on(GRID, 50), on(GRID, 0.2), ground, np.zeros(GRID.shape, np.float32), everywhere, far).values
    assert np.allclose(sigma[:30], 0.2)
    assert sigma[80, 80] > sigma[80, 45] > 0.4
    np.testing.assert_allclose(sigma[80, 80] ** 2, 0.2**2 + 0.12**2 * far[80, 80] + 0.4**2, rtol=0.05)


def test_terrain_sigma__into_a_void_it_grows_with_the_slope_and_ends() -> None:
    z = on(GRID, 50)
    z.values[40:120, 40:120] = np.nan
    ground, everywhere = np.isfinite(z.values), np.ones(GRID.shape, bool)
    far, slope = ground_distance(ground, 1.0), np.zeros(GRID.shape, np.float32)
    flat, steep = (terrain_sigma(z, on(GRID, 0.2), ground, slope + s, everywhere, far).values for s in (0.0, 0.5))
    assert np.array_equal(np.isnan(flat), far > 10) and np.array_equal(np.isnan(steep), far > 10)
    nowhere = terrain_sigma(on(GRID, np.nan), on(GRID, np.nan), ~everywhere, slope + 1, everywhere, far).values
    assert np.isnan(nowhere).all()
    assert steep[80, 48] > 0.35 * 9 and flat[80, 48] < 1 and steep[80, 20] == pytest.approx(0.2)


def test_cloud_terrain_sigma__is_of_points_and_slope_and_grows_between_points() -> None:
    ground = np.zeros(GRID.shape, bool)
    ground[::2, ::2] = True
    ground[50:110, 40:120] = False
    far = np.full(GRID.shape, 90, np.float32)
    everywhere, level = np.ones(GRID.shape, bool), np.zeros(GRID.shape, np.float32)
    flat, steep = (
        cloud_terrain_sigma(on(GRID, 50), ground, level + slope, everywhere, far).values for slope in (0.0, 0.5)
    )
    np.testing.assert_allclose(flat[:40:2, :40:2], 0.05, rtol=1e-5)  # however few the cells with ground are
    np.testing.assert_allclose(steep[:40:2, :40:2], np.hypot(0.05, 0.3), rtol=1e-5)
    np.testing.assert_allclose(steep[80, 80] / steep[80, 47], (30 / 9) ** 0.8, rtol=0.01)
    assert flat[80, 80] < 0.4 and steep[80, 80] > 5


@pytest.mark.parametrize(("depth", "least", "most"), [(0.8, 0.6, 0.9), (-0.8, 0.6, 0.9), (9.0, 0.0, 0.0)])
def test_with_hidden__a_gap_bends_the_estimate_without_a_rim(depth: float, least: float, most: float) -> None:
    """Also where the surface in the gap is lower; what is far off is no ground."""
    ground = np.zeros(GRID.shape, bool)
    ground[78:82, 78:82] = True
    dsm = on(GRID, 112.0)
    dsm.values[ground] = 100.0 - depth
    hidden = HiddenGround(*(on(COARSE, v) for v in (100.0, 0.8, 1.0, 12.0, 0.0)))
    height, _ = with_hidden(on(GRID, 104.0), on(GRID, 3.0), ground, dsm, on(GRID, 0.2), hidden)
    bend = (100.0 - height.values) * np.sign(depth)
    assert least <= bend[80, 80] <= most + 1e-3
    assert np.abs(np.diff(bend, axis=0)).max() < 0.12 and np.abs(bend[80, :40]).max() < 1e-3


def test_with_hidden__coarse_cells_do_not_show() -> None:
    """The slope of a smooth hill changes as gently as that of the hill itself."""
    x, y = (a - c for a, c in zip(COARSE.centres(), (GRID.west + 80, GRID.north - 80), strict=True))
    hill = (500 - 0.01 * (x[None] ** 2 + y[:, None] ** 2)).astype(np.float32)
    dome = HiddenGround(Raster(hill, COARSE), *(on(COARSE, v) for v in (0.8, 1.0, 12.0, 0.0)))
    height, _ = with_hidden(
        on(GRID, 500.0), on(GRID, 3.0), np.zeros(GRID.shape, bool), on(GRID, 520.0), on(GRID, 0.2), dome
    )
    bend = np.diff(height.values[80, 30:130].astype(float), 2)
    np.testing.assert_allclose(bend, -0.02, atol=0.005)


def test_with_hidden__only_where_ground_is_not_seen() -> None:
    ground = np.ones(GRID.shape, bool)
    ground[48:112, 48:112] = False
    ground[70:74, 70:74] = True  # a crown that was taken for ground
    dsm = on(GRID, 100.0)
    dsm.values[48:112, 48:112] = 112.0
    terrain, sigma = on(GRID, 104.0), on(GRID, 3.0)
    weight = np.zeros(COARSE.shape, np.float32)
    weight[6:14, 6:14] = 1
    hidden = HiddenGround(on(COARSE, 100.5), on(COARSE, 0.8), Raster(weight, COARSE), on(COARSE, 12.0), on(COARSE, 0.0))
    height, spread = with_hidden(terrain, sigma, ground, dsm, on(GRID, 0.2), hidden)
    assert np.allclose(height.values[64:96, 64:96], 100.5, atol=0.03)
    assert np.allclose(spread.values[64:96, 64:96], 0.8, atol=1e-3)
    assert np.array_equal(height.values[:30], dsm.values[:30])  # the terrain stood over the surface
    assert (spread.values <= 3.3).all() and (spread.values >= 0.79).all()


def test_hidden_share__nothing_open_and_in_between() -> None:
    ground = np.zeros(GRID.shape, bool)
    ground[:, :60] = True
    share = hidden_share(ground, 1.0)
    assert (share[:, :40] == 0).all() and (share[:, 80:] == 1).all()
    assert (np.diff(share[80, 30:90]) >= -1e-6).all()


def test_stated_sigma__less_where_level_ground_was_guessed_and_more_far_from_ground() -> None:
    sigma, slope = np.float32([0.03, 1.0, 1.0, 1.0]), np.float32([0.0, 0.0, 0.15, 2.0])
    trees, hall = np.zeros(4, bool), np.ones(4, bool)
    stated = stated_sigma(sigma, slope, np.float32([0, 1, 3, 2]), trees) / sigma
    assert stated[0] > 0.98 and stated[3] > 0.99  # what was seen, and steep land
    np.testing.assert_allclose(stated[1:3], [0.61, 0.80], atol=0.01)
    away = stated_sigma(sigma, slope, np.float32([7.5, 12, 50, 1000]), trees) / sigma
    np.testing.assert_allclose(away / stated, [1.04, 1.08, 1.08, 1.08], rtol=1e-5)
    near, wide = (stated_sigma(sigma, slope, np.full(4, d, np.float32), hall) / sigma for d in (12, 87))
    np.testing.assert_allclose(near, 1.08 * stated, rtol=1e-5)  # as in the gaps of a town
    np.testing.assert_allclose(wide[1:3], 2 * 1.08, rtol=0.02)  # the middle of a hall: even land is no certainty there


@pytest.mark.parametrize(("sigma", "least", "most"), [(1.0, 0.0, 0.8), (30.0, 1.7, 2.6)])
def test_with_hidden__brow_and_foot_of_a_cliff_are_not_smoothed(sigma: float, least: float, most: float) -> None:
    """A bend of 20 m between cells of a sure estimate stands, that of an unsure one is smoothed by an eighth of it."""
    cells = np.interp(np.arange(COARSE.width), [7, 12], [180.0, 80.0]).astype(np.float32)
    cliff = Raster(np.broadcast_to(cells, COARSE.shape).copy(), COARSE)
    hidden = HiddenGround(cliff, *(on(COARSE, v) for v in (sigma, 1.0, 12.0, 0.0)))
    ground, nothing = np.zeros(GRID.shape, bool), on(GRID, np.nan)
    height, _ = with_hidden(on(GRID, 90.0), on(GRID, 3.0), ground, nothing, on(GRID, 0.2), hidden)
    middles = (height.values[80, 3::8] + height.values[80, 4::8]) / 2
    assert least <= np.abs(middles - cells)[2:-2].max() <= most
