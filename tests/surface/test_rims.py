"""Overhangs of crowns and roofs: found where fewer pairs agree and their matches are worse, left where all is sure."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.surface.rims import overhangs
from terrain3d.surface.trend import smooth_trend

GRID = Grid(Reference("EPSG:32654"), 1000.0, 2100.0, 0.5, 200, 220)
ROWS, COLUMNS = np.mgrid[0:200, 0:220]
RADIUS = np.hypot(ROWS - 100, COLUMNS - 110)
RIM = (RADIUS > 16) & (RADIUS <= 20)  # 2 m that a crown of 8 m was carried over


def scene(slope: float = 0.0) -> NDArray[np.float32]:
    """A crown 9 m high that is 2 m too wide, on a slope."""
    ground = 300 + slope * 0.5 * COLUMNS
    return (ground + np.where(RADIUS <= 20, 9.0, 0.0)).astype(np.float32)


def pairs_and_sigma(doubtful: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    return np.where(doubtful, 1, 3).astype(np.uint8), np.where(doubtful, 0.4, 0.1).astype(np.float32)


@pytest.mark.parametrize("slope", [0.0, 0.7])
def test_overhangs__few_pairs_and_imprecise_beside_the_ground(slope: float) -> None:
    pairs, sigma = pairs_and_sigma(RIM)
    found = overhangs(Raster(scene(slope), GRID), sigma, pairs)
    assert found[RIM & (RADIUS > 17)].mean() > 0.95
    assert not found[RADIUS < 14].any() and not found[RADIUS > 21].any()


def test_overhangs__none_where_all_pairs_agree() -> None:
    pairs, sigma = pairs_and_sigma(np.zeros(GRID.shape, bool))
    assert not overhangs(Raster(scene(), GRID), sigma, pairs).any()
    # one pair alone cannot be fewer than usual, and is not worse than around it
    assert not overhangs(Raster(scene(), GRID), sigma, np.ones(GRID.shape, np.uint8)).any()


def test_overhangs__none_on_an_even_slope() -> None:
    doubtful = np.random.default_rng(0).random(GRID.shape) < 0.2
    pairs, sigma = pairs_and_sigma(doubtful)
    plane = (300 + 0.9 * 0.5 * COLUMNS).astype(np.float32)
    assert not overhangs(Raster(plane, GRID), sigma, pairs)[20:-20, 60:-60].any()


def test_overhangs__nothing_in_a_void() -> None:
    pairs, sigma = pairs_and_sigma(RIM)
    z = scene()
    z[RADIUS > 20] = np.nan  # no ground is known
    assert not overhangs(Raster(z, GRID), sigma, np.where(np.isfinite(z), pairs, 0).astype(np.uint8)).any()
    nothing = np.full(GRID.shape, np.nan, np.float32)
    assert not overhangs(Raster(nothing, GRID), sigma, np.zeros(GRID.shape, np.uint8)).any()


def test_smooth_trend__of_a_plane_with_a_house_has_the_slope_of_the_plane() -> None:
    grid = Grid(GRID.reference, 1000.0, 2100.0, 0.5, 480, 480)
    x, y = np.meshgrid(*grid.centres())
    plane = 2000 + 0.5 * (x - 1000) - 0.3 * (y - 2000)
    holes = np.random.default_rng(1).random(grid.shape) < 0.3
    with_house = plane.copy()
    with_house[230:260, 230:260] += 12
    trend = smooth_trend(Raster(np.where(holes, np.nan, with_house).astype(np.float32), grid))
    assert np.ptp((trend - plane)[200:280, 200:280]) < 0.8  # of 12 m
    assert (smooth_trend(Raster(np.full(grid.shape, np.nan, np.float32), grid)) == 0).all()
