"""Height of a model of closed forest from the tops of its crowns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from terrain3d.crs import from_lonlat
from terrain3d.points import LidarReturns
from terrain3d.raster import Raster
from terrain3d.register.crowns import COMMON_SIGMA, CONTRADICTS
from terrain3d.register.registration import register_dsm
from tests.register.test_registration import hills, lidar, surface

STAND, OFF = 22.0, 8.0


@pytest.fixture(scope="module")
def forest() -> Raster:
    """Closed crowns of some 5 m over hills, 8 m too high as a whole."""
    model = surface(hills, (0, 0, OFF))
    x, y = np.meshgrid(*model.grid.centres())
    crowns = STAND - 3.0 * (1 - np.abs(np.sin(x / 3.1) * np.sin(y / 2.7)) ** 0.3)
    noise = np.random.default_rng(1).normal(0, 0.4, crowns.shape)
    return replace(model, values=(model.values + crowns + noise).astype(np.float32))


def under_trees(returns: LidarReturns, share: float) -> LidarReturns:
    """Returns that see the canopy, or a share of them; the others lie on its crowns and say nothing of it."""
    rng = np.random.default_rng(3)
    seen = rng.random(len(returns)) < share
    canopy = np.where(seen, STAND * rng.normal(0.97, 0.05, len(returns)), np.nan)
    return replace(returns, height=returns.height + np.where(seen, 0.0, STAND), canopy=canopy)


def test_register__closed_forest_is_placed_by_its_crowns(forest: Raster) -> None:
    result = register_dsm(forest, under_trees(lidar(hills), 1.0))
    assert result.applied and abs(result.dz + OFF) < COMMON_SIGMA
    x, y = (np.array([c]) for c in result.origin)
    assert COMMON_SIGMA <= result.sigma_at(x, y)[0] < 1.3 * COMMON_SIGMA
    assert "tops of crowns" in result.warnings[0] and result.after is None and not result.used.any()
    assert not result.horizontal_constrained and result.dx == result.dy == 0.0


def test_register__few_returns_that_contradict_the_crowns_are_not_believed() -> None:
    """A clearing where the product is wrong by more than the crowns can be."""
    returns = under_trees(lidar(hills), 1.0)
    model = surface(hills, (0, 0, OFF))
    x, y = np.meshgrid(*model.grid.centres())
    clear = np.hypot(x - x.mean(), y - y.mean()) < 75
    values = model.values + np.where(clear, 0.0, STAND - 1 + np.sin(x / 2.0) * np.sin(y / 2.3))
    model = replace(model, values=values.astype(np.float32))
    right = register_dsm(model, _open_in(returns, model, clear, 0.0))
    wrong = register_dsm(model, _open_in(returns, model, clear, 12.0))
    assert right.used.sum() >= 4 and right.dz == pytest.approx(-OFF, abs=0.3)
    assert abs(wrong.dz + OFF) < COMMON_SIGMA and "these are believed" in wrong.warnings[0]
    assert CONTRADICTS * COMMON_SIGMA < 12.0


def _open_in(returns: LidarReturns, model: Raster, clear: np.ndarray, off: float) -> LidarReturns:
    """Without canopy in a clearing, and off there."""
    places = from_lonlat(model.grid.reference.horizontal, returns.lon_deg, returns.lat_deg)
    column, row = (np.clip(np.rint(c).astype(int), 0, n - 1) for c, n in zip(
        model.grid.column_row(*places), clear.shape[::-1], strict=True
    ))  # fmt: skip
    inside = clear[row, column]
    height = returns.height + np.where(inside, off, 0.0)
    return replace(returns, height=height, canopy=np.where(inside, 0.0, returns.canopy))


def test_register__crowns_that_cannot_be_are_not_believed() -> None:
    returns = lidar(hills)
    result = register_dsm(surface(hills), replace(returns, canopy=np.full(len(returns), 60.0)))
    assert not result.applied and "not corrected" in result.warnings[0]
