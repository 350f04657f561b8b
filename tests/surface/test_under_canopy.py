"""Ground under trees: the estimate against scenes whose ground, trees and returns are drawn by chance."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from terrain3d.crs import Reference, to_lonlat
from terrain3d.points import LidarReturns
from terrain3d.raster import Grid, Raster, bilinear
from terrain3d.surface.canopy_cells import CanopyCells, canopy_cells, canopy_step
from terrain3d.surface.under_canopy import GroundReturns, ground_returns, hidden_ground

GRID = Grid(Reference("EPSG:32654"), 3e5, 4e6, 8.0, 80, 80)
FOREST = np.s_[20:62, 16:64]


def scene(stand: float = 18.0, seed: int = 1, gaps: float = 0.0) -> tuple[CanopyCells, np.ndarray]:
    """Hills with a forest of 336 x 384 m in the middle whose tops differ by chance; and the true ground. gaps: share of
    cells with one; the floors of the others are on crowns."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:80, 0:80] * 8.0
    truth = 300 + 0.25 * x + 14 * np.sin(x / 75) * np.cos(y / 90)
    forest = np.zeros(GRID.shape, bool)
    forest[FOREST] = True
    age = 2.0 * np.sin(x / 120 + 1)
    top = np.where(forest, truth + stand + age + rng.normal(0, 3.5, GRID.shape), truth + 0.2)
    ground = np.where(forest, np.nan, truth + rng.normal(0, 0.1, GRID.shape))
    few = forest & (rng.random(GRID.shape) < 0.04)
    ground[few] = top[few] - 4.0  # crowns taken for ground
    trend, one = cv2.GaussianBlur(top, (0, 0), 2.0), np.ones(GRID.shape)
    depth = np.where(forest, rng.uniform(0.15, 0.6, GRID.shape) * stand, 0.1)
    flat = np.where(forest, 0.2, 5.0)
    gap = forest & (rng.random(GRID.shape) < gaps)
    depth[gap], flat[gap] = top[gap] - truth[gap] - rng.normal(0, 0.4, int(gap.sum())), 0.6
    floors = (top - depth, 0 * one, 0 * one, depth, flat)
    layers = (ground, 0.2 * one, np.where(forest, np.where(few, 0.1, 0.0), 1.0), top, trend, one, *floors)
    return CanopyCells(GRID, *(a.astype(np.float32) for a in layers)), truth


def returns_over(truth: np.ndarray, n: int = 50, seed: int = 2) -> GroundReturns:
    rng = np.random.default_rng(seed)
    row, column = rng.uniform(21, 61, n), rng.uniform(17, 63, n)
    height = bilinear(truth, column, row) + rng.normal(0, 0.3, n)
    height[::8] += rng.uniform(4, 12, len(height[::8]))  # the canopy was taken for the ground
    x, y = GRID.west + (column + 0.5) * 8, GRID.north - (row + 0.5) * 8
    one = np.ones(n)
    return GroundReturns(x, y, height, 0.3 * one, one, 18 * one, 15 * one)


@pytest.mark.parametrize("stand", [8.0, 24.0])
def test_hidden_ground__returns_give_the_height_of_the_stand(stand: float) -> None:
    cells, truth = scene(stand)
    found = hidden_ground(cells, returns_over(truth))
    assert found is not None
    error = (found.height.values - truth)[FOREST]
    assert np.sqrt((error**2).mean()) < 1.5
    assert abs(error.mean()) < 0.4
    inside = np.abs(error) < found.sigma.values[FOREST]
    assert inside.mean() > 0.68
    assert abs(np.median(found.stand.values[FOREST]) - stand) < 2.0
    assert (found.weight.values[25:57, 21:59] == 1).mean() > 0.95
    assert not found.weight.values[:10].any()


def test_hidden_ground__gaps_give_the_ground_without_returns() -> None:
    closed, open_ = (scene(22.0, gaps=share) for share in (0.0, 0.15))
    errors = []
    for cells, truth in (closed, open_):
        found = hidden_ground(cells, None)
        assert found is not None
        errors.append((found.height.values - truth)[FOREST])
        if cells is open_[0]:
            assert (np.abs(errors[-1]) < found.sigma.values[FOREST]).mean() > 0.65
            assert abs(np.median(found.stand.values[FOREST]) - 22.0) < 2.0
    assert np.sqrt((errors[1] ** 2).mean()) < 1.3
    assert np.sqrt((errors[1] ** 2).mean()) < 0.6 * np.sqrt((errors[0] ** 2).mean())


@pytest.mark.slow
def test_hidden_ground__flanks_of_crowns_are_not_ground() -> None:
    cells, truth = scene(20.0)
    found = hidden_ground(cells, returns_over(truth, 20))
    assert found is not None
    assert np.sqrt(((found.height.values - truth)[FOREST] ** 2).mean()) < 2.0
    assert found.gap.values[25:57, 21:59].mean() < 0.01


@pytest.mark.slow
def test_hidden_ground__sigma_grows_away_from_returns_and_without_them() -> None:
    cells, truth = scene()
    returns = returns_over(truth, 60)
    half = GroundReturns(*(getattr(returns, f)[returns.x < 3e5 + 8 * 30] for f in GroundReturns.__dataclass_fields__))
    some, none = hidden_ground(cells, half), hidden_ground(cells, None)
    assert some is not None and none is not None
    near, far = some.sigma.values[30:52, 20:28].mean(), some.sigma.values[30:52, 48:56].mean()
    assert near < 0.9 * far
    assert none.sigma.values[FOREST].mean() > some.sigma.values[FOREST].mean()


def test_hidden_ground__nothing_hidden() -> None:
    truth, one = scene()[1], np.ones(GRID.shape)
    layers = truth, 0.2 * one, one, truth, truth, one, truth, 0 * one, 0 * one, 0 * one, one
    bare = CanopyCells(GRID, *(a.astype(np.float32) for a in layers))
    assert hidden_ground(bare, None) is None


def test_canopy_cells__top_on_a_slope_and_shares() -> None:
    fine = Grid(GRID.reference, 3e5, 4e6, 0.5, 320, 320)
    assert canopy_step(0.5) == 16 and canopy_step(1.0) == 8 and canopy_step(4.0) == 2
    x = np.arange(320) * 0.5
    z = np.tile(100 + 0.8 * x, (320, 1)).astype(np.float32)
    z[:, 160:] += 12
    ground = np.zeros(z.shape, bool)
    ground[:, :160] = True
    terrain = np.tile(100 + 0.8 * x, (320, 1)).astype(np.float32)
    sigma = Raster(np.full(z.shape, 0.3, np.float32), fine)
    cells = canopy_cells(Raster(z, fine), sigma, terrain, ground, np.ones(z.shape, bool))
    middle = 100 + 0.8 * (np.arange(20) * 8 + 3.75)
    np.testing.assert_allclose(cells.top[10, 13:17], middle[13:17] + 12, atol=1.0)
    np.testing.assert_allclose(cells.ground[10, 2:9], middle[2:9], atol=0.01)
    np.testing.assert_allclose(cells.depth[10, 13:17], 0, atol=6.0)
    place = (np.arange(2, 9) + 0.5 + cells.floor_right[10, 2:9]) * 8 - 0.25
    np.testing.assert_allclose(cells.floor[10, 2:9], 100 + 0.8 * place, atol=0.02)
    assert np.isnan(cells.ground[10, 12]) and cells.share[10, 12] == 0 and cells.share[10, 4] == 1


def test_ground_returns__places_and_sigma() -> None:
    lon, lat = to_lonlat("EPSG:32654", np.array([3e5 + 10.0]), np.array([4e6 - 20.0]))
    one = np.ones(1)
    returns = LidarReturns(
        lon, lat, 50 * one, 0.4 * one, 20 * one, 11 * one, 9 * one, one, np.zeros(1, np.int32), ("b",), ("ATL08",)
    )
    found = ground_returns(returns, "EPSG:32654")
    np.testing.assert_allclose([found.x[0], found.y[0]], [3e5 + 10, 4e6 - 20], atol=1e-3)
    assert found.place_sigma[0] == 1.0 and found.canopy[0] == 9


def test_ground_returns__a_wide_footprint_on_a_slope_knows_the_ground_less() -> None:
    one = np.ones(2)
    returns = GroundReturns(one, one, one, 0.3 * one, 0 * one, one, np.array([12.0, 25.0]))
    np.testing.assert_allclose(returns.sigma_on(np.zeros(2)), 0.3)
    narrow, wide = returns.sigma_on(0.8 * one)
    assert narrow < 1.1 and 1.9 < wide < 2.2
