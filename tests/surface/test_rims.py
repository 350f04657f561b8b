"""Overhangs of crowns and roofs: likely where matching is in doubt, not where all is sure."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.surface.rims import Matches, find_rims, ground_odds
from terrain3d.surface.trend import smooth_trend

GRID = Grid(Reference("EPSG:32654"), 1000.0, 2100.0, 0.5, 200, 220)
ROWS, COLUMNS = np.mgrid[0:200, 0:220]
RADIUS = np.hypot(ROWS - 100, COLUMNS - 110)
RIM = (RADIUS > 16) & (RADIUS <= 20)  # 2 m that a crown of 8 m was carried over
NOWHERE = np.zeros(GRID.shape, bool)


def scene(slope: float = 0.0) -> NDArray[np.float32]:
    """A crown 9 m high that is 2 m too wide, on a slope."""
    ground = 300 + slope * 0.5 * COLUMNS
    return (ground + np.where(RADIUS <= 20, 9.0, 0.0)).astype(np.float32)


def matches(doubtful: NDArray[np.bool_]) -> Matches:
    return Matches(
        np.where(doubtful, 0.6, 0.1).astype(np.float32),
        np.where(doubtful, 1, 3).astype(np.uint8),
        np.where(doubtful, 0.3, 0.9).astype(np.float32),
        np.where(doubtful, 0.4, 0.0).astype(np.float32),
    )


def likely(z: NDArray[np.float32], of: Matches) -> NDArray[np.bool_]:
    dsm = Raster(z, GRID)
    found = find_rims(dsm)
    odds = ground_odds(dsm, found, of)
    assert (odds[~found.which] == 0).all() and np.isfinite(odds).all()
    return np.asarray(odds > 0)


@pytest.mark.parametrize("slope", [0.0, 0.7])
def test_ground_odds__doubtful_beside_the_ground(slope: float) -> None:
    found = likely(scene(slope), matches(RIM))
    assert found[RIM & (RADIUS > 17)].mean() > 0.95
    assert not found[RADIUS < 14].any() and not found[RADIUS > 21].any()


def test_ground_odds__none_likely_where_all_is_sure() -> None:
    assert not likely(scene(), matches(NOWHERE)).any()


@pytest.mark.parametrize("sign", ["sigma", "pairs", "confidence", "below"])
def test_ground_odds__every_sign_counts(sign: str) -> None:
    dsm = Raster(scene(), GRID)
    found, sure, doubted = find_rims(dsm), matches(NOWHERE), matches(RIM)
    one = Matches(**(vars(sure) | {sign: getattr(doubted, sign)}))
    rise = ground_odds(dsm, found, one) - ground_odds(dsm, found, sure)
    assert np.median(rise[RIM & (RADIUS > 17)]) > 0.4


def test_find_rims__none_on_an_even_slope() -> None:
    plane = (300 + 0.9 * 0.5 * COLUMNS).astype(np.float32)
    assert not find_rims(Raster(plane, GRID)).which[20:-20, 60:-60].any()


def test_ground_odds__nothing_in_a_void() -> None:
    z = scene()
    z[RADIUS > 20] = np.nan  # no ground is known
    assert not likely(z, matches(RIM)).any()
    assert not likely(np.full(GRID.shape, np.nan, np.float32), matches(NOWHERE)).any()


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
