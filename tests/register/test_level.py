from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from terrain3d.raster import Raster
from terrain3d.register.registration import register_dsm
from terrain3d.register.scene import prepare
from tests.register.test_registration import SIZE, WEST, hills, lidar, plain, surface

LAKE = 187.0


def invented(dsm: Raster, where: np.ndarray, seed: int, sigma: float = 3.0) -> Raster:
    """The model with relief that matching makes up on water."""
    relief = gaussian_filter(np.random.default_rng(seed).standard_normal(dsm.values.shape), 8.0)
    return Raster((dsm.values + where * sigma * relief / relief.std()).astype(np.float32), dsm.grid)


def lake(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.full(np.broadcast_shapes(np.shape(x), np.shape(y)), LAKE)


def shore(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Hills, and a lake in the western half."""
    return np.where(x < WEST + SIZE / 2, LAKE, hills(x, y))


@pytest.mark.parametrize("seed", range(3))
def test_register__returns_on_water_alone_do_not_shift(seed: int) -> None:
    model = invented(surface(lake, (0, 0, 2.0)), np.array(1.0), seed)
    result = register_dsm(model, lidar(lake, seed))
    assert (result.dx, result.dy) == pytest.approx((0.0, 0.0), abs=0.01)
    assert np.sqrt(np.diag(result.covariance)[:2]).min() > 1.5  # what pointing says, and no more
    assert "0 usable returns do not determine" in result.horizontal_reason
    assert result.dz == pytest.approx(-2.0, abs=1.5)
    assert any("on a level that the model does not show" in w for w in result.warnings)


def test_register__land_beside_a_lake_places_the_model() -> None:
    model = surface(shore, (3.4, -2.1, 5.3))
    model = invented(model, model.grid.centres()[0][None, :] < WEST + SIZE / 2 + 3.4, 1)
    returns = lidar(shore, noise=0.02)
    level = prepare(model, returns, None).footprints.level
    west = returns.lon_deg < np.median(returns.lon_deg)
    assert level[west].mean() > 0.8 and level[~west].mean() < 0.05
    result = register_dsm(model, returns)
    assert (result.dx, result.dy) == pytest.approx((-3.4, 2.1), abs=0.3)


@pytest.mark.parametrize("terrain", [hills, plain])
def test_on_missed_water__land_is_none(terrain) -> None:  # type: ignore[no-untyped-def]
    for shift in ((0.0, 0.0, 0.0), (8.0, -6.0, 3.0)):
        assert not prepare(surface(terrain, shift), lidar(terrain), None).footprints.level.any()
