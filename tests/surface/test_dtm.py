from __future__ import annotations

import numpy as np

from terrain3d.crs import Reference, to_lonlat
from terrain3d.points import LidarReturns
from terrain3d.raster import Grid, Raster
from terrain3d.surface.dtm import make_dtm


def grid(n: int) -> Grid:
    return Grid(Reference("EPSG:32654"), 3e5, 4e6, 0.5, n, n)


def returns_at(g: Grid, x: np.ndarray, y: np.ndarray, height: np.ndarray) -> LidarReturns:
    lon, lat = to_lonlat(g.reference.horizontal, x, y)
    one = np.ones(len(x))
    return LidarReturns(
        lon, lat, height, 0.3 * one, 20 * one, 11 * one, np.nan * one, np.arange(len(x)) * 1.0,
        np.zeros(len(x), np.int32), ("gt1r",), ("ATL08",),
    )  # fmt: skip


def closed_canopy(n: int = 500) -> tuple[Raster, Raster, np.ndarray]:
    """Flat ground at 100 m; the middle is canopy whose gaps reach down to 103 m only."""
    rng = np.random.default_rng(5)
    z = 100 + rng.normal(0, 0.1, (n, n))
    crowns = 103 + 8 * rng.random((n // 10, n // 10)).repeat(10, 0).repeat(10, 1)
    z[100:-100, 100:-100] = crowns[100:-100, 100:-100]
    z[100:-100:20, 100:-100] = 103.0
    g = grid(n)
    return Raster(z.astype(np.float32), g), Raster(np.full((n, n), 0.2, np.float32), g), np.full((n, n), 100.0)


def test_make_dtm__no_step_under_a_building_and_sigma_grows() -> None:
    z = np.fromfunction(lambda i, j: 50 + 0.05 * j, (300, 300))
    z[100:160, 100:180] += 12
    sigma = Raster(np.full(z.shape, 0.2, np.float32), grid(300))
    dtm = make_dtm(Raster(z.astype(np.float32), grid(300)), sigma)
    truth = np.fromfunction(lambda i, j: 50 + 0.05 * j, (300, 300))
    assert np.abs(dtm.height.values - truth).max() < 0.3
    assert not dtm.ground[100:160, 100:180].any()
    assert dtm.sigma.values[130, 140] > 2 * dtm.sigma.values[20, 20]
    assert dtm.sigma.values[130, 140] > dtm.sigma.values[130, 105]


def test_make_dtm__returns_pull_the_terrain_under_trees_only() -> None:
    dsm, sigma, truth = closed_canopy()
    x = np.full(60, 3e5 + 125.0) + np.repeat([-40.0, 0.0, 40.0], 20)
    y = np.tile(np.linspace(4e6 - 195, 4e6 - 55, 20), 3)
    height = 100.0 + np.random.default_rng(6).normal(0, 0.3, 60)
    height[::10] += 25  # gross errors
    without = make_dtm(dsm, sigma)
    dtm = make_dtm(dsm, sigma, ground_returns=returns_at(dsm.grid, x, y, height))
    canopy = np.s_[150:350, 150:350]
    before, after = (np.abs(np.median((m.height.values - truth)[canopy])) for m in (without, dtm))
    assert before > 1.5
    assert after < 0.6
    assert np.abs(dtm.height.values - without.height.values)[:60].max() < 0.02
    assert np.median(dtm.sigma.values[canopy]) <= np.median(without.sigma.values[canopy])


def test_make_dtm__returns_elsewhere_change_nothing() -> None:
    dsm, sigma, _ = closed_canopy()
    far = returns_at(dsm.grid, np.array([3.5e5]), np.array([4.1e6]), np.array([100.0]))
    assert np.array_equal(make_dtm(dsm, sigma, ground_returns=far).height.values, make_dtm(dsm, sigma).height.values)


def test_make_dtm__empty() -> None:
    empty = Raster(np.full((30, 40), np.nan, np.float32), Grid(Reference("EPSG:32654"), 0, 0, 0.5, 30, 40))
    dtm = make_dtm(empty, empty)
    assert np.isnan(dtm.height.values).all()
    assert not dtm.ground.any()
