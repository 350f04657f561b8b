from __future__ import annotations

import numpy as np

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.surface.water import flatten_water, water_mask

N = 400


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Surface, image and lake: flat shores at 20 m rising away, invented heights on the water."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:N, 0:N] * 0.5
    distance = np.hypot(x - 100, y - 90) - 40
    lake = distance < 0
    z = 20 + 0.1 * np.maximum(distance, 0) + rng.normal(0, 0.1, (N, N))
    z[lake] = np.where(rng.random(lake.sum()) < 0.6, np.nan, 20 + rng.normal(0, 4, lake.sum()))
    image = rng.normal(600, 120, (N, N))
    image[lake] = rng.normal(180, 9, lake.sum())
    return z.astype(np.float32), np.clip(image, 1, None).astype(np.uint16), lake


def rasters(*values: np.ndarray) -> tuple[Raster, ...]:
    grid = Grid(Reference("EPSG:32654"), 0, 0, 0.5, N, N)
    return tuple(Raster(v, grid) for v in values)


def test_water_mask__lake_is_found() -> None:
    z, image, lake = scene()
    got = water_mask(*rasters(z, image))
    assert (got & lake).sum() > 0.95 * lake.sum()
    assert (got & ~lake).sum() < 0.02 * lake.sum()


def test_water_mask__matched_dark_place_and_small_shadow_are_not_water() -> None:
    z, image, lake = scene()
    matched = np.where(lake, 20 + np.random.default_rng(0).normal(0, 0.1, z.shape), z).astype(np.float32)
    assert not water_mask(*rasters(matched, image)).any()
    bright = np.where(lake, 700, image).astype(np.uint16)
    assert not water_mask(*rasters(z, bright)).any()
    small = np.zeros_like(lake)
    small[150:200, 150:180] = True  # 375 m2
    z2, image2 = (
        np.where(lake & ~small, 20, z).astype(np.float32),
        np.where(lake & ~small, 600, image).astype(np.uint16),
    )
    assert not water_mask(*rasters(z2, image2)).any()


def test_flatten_water__lake_gets_the_level_of_its_shore() -> None:
    z, _, lake = scene()
    level = flatten_water(rasters(z)[0], lake).values
    assert np.ptp(level[lake]) < 1e-3
    assert abs(level[200, 180] - 20) < 0.15
    assert np.array_equal(level[~lake], z[~lake], equal_nan=True)


def test_flatten_water__river_falls_with_its_banks() -> None:
    y, x = np.mgrid[0:N, 0:N] * 0.5
    river = np.abs(y - 100) < 10
    z = (50 - 0.005 * x + 0.2 * np.maximum(np.abs(y - 100) - 10, 0)).astype(np.float32)
    noisy = np.where(river, 80, z).astype(np.float32)
    level = flatten_water(rasters(noisy)[0], river).values
    assert np.abs(level - z)[river].max() < 0.6
    assert np.abs(level - z)[river][::7].mean() < 0.3
