"""Water of a scene, found and levelled over several blocks as in one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.io.scratch import StoredRaster, new_raster
from terrain3d.pipeline import blocks
from terrain3d.pipeline.picture import Picture
from terrain3d.pipeline.progress import Silent
from terrain3d.pipeline.running import Counts
from terrain3d.pipeline.waters import level_water
from terrain3d.raster import Grid, Raster
from terrain3d.surface.mask import MaskCode
from terrain3d.surface.water import shores, water_level

N = 400
GRID = Grid(Reference("EPSG:32654"), 3e5, 4e6, 0.5, N, N)
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def scene() -> Arrays:
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


def levelled(folder: Path, z: np.ndarray, image: np.ndarray) -> Arrays:
    """Water, surface and sigma."""

    def stored(name: str, values: np.ndarray) -> StoredRaster:
        raster = new_raster(folder / name, GRID, values.dtype)
        raster.write(0, 0, values)
        return raster

    counts = Counts(65536, 65536)
    counts.add(image[image > 0])
    clean, dsm = stored("clean", z), stored("dsm", z)
    sigma = stored("sigma", np.where(np.isfinite(z), np.float32(0.3), np.float32(np.nan)))
    mask = stored("mask", np.where(np.isfinite(z), MaskCode.MEASURED, MaskCode.NODATA).astype(np.uint8))
    picture = Picture(stored("image", image), counts, (), ())
    level_water(clean, dsm, sigma, mask, picture, folder, 2, Silent())
    codes, heights, spread = (r.read(0, 0, N, N) for r in (mask, dsm, sigma))
    return codes == MaskCode.WATER, heights, spread


@pytest.mark.parametrize("size", [1536, 96])
def test_level_water__lake_is_found_and_level(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CELLS", size)
    z, image, lake = scene()
    water, heights, sigma = levelled(tmp_path, z, image)
    assert (water & lake).sum() > 0.95 * lake.sum()
    assert (water & ~lake).sum() < 0.02 * lake.sum()
    assert np.ptp(heights[water]) < 1e-3
    assert abs(heights[200, 180] - 20) < 0.15
    assert np.array_equal(heights[~water], z[~water], equal_nan=True)
    assert np.allclose(sigma[water], 0.3, atol=1e-3)


def test_level_water__does_not_depend_on_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    z, image, _ = scene()
    whole = levelled(tmp_path, z, image)
    monkeypatch.setattr(blocks, "BLOCK_CELLS", 100)
    for a, b in zip(whole, levelled(tmp_path, z, image), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_level_water__matched_dark_place_and_small_shadow_are_not_water(tmp_path: Path) -> None:
    z, image, lake = scene()
    matched = np.where(lake, 20 + np.random.default_rng(0).normal(0, 0.1, z.shape), z).astype(np.float32)
    assert not levelled(tmp_path, matched, image)[0].any()
    bright = np.where(lake, 700, image).astype(np.uint16)
    assert not levelled(tmp_path, z, bright)[0].any()
    small = np.zeros_like(lake)
    small[150:200, 150:180] = True  # 375 m2
    z = np.where(lake & ~small, 20, z).astype(np.float32)
    image = np.where(lake & ~small, 600, image).astype(np.uint16)
    assert not levelled(tmp_path, z, image)[0].any()


def test_level_water__cells_that_were_not_matched_get_the_sigma_of_the_water_around(tmp_path: Path) -> None:
    z, image, _ = scene()
    y, x = np.mgrid[0:N, 0:N] * 0.5
    inner = np.hypot(x - 100, y - 90) < 30
    z[inner] = np.nan
    water, heights, sigma = levelled(tmp_path, z, image)
    assert water[inner].all() and np.isfinite(heights[inner]).all()
    np.testing.assert_allclose(sigma[inner], 0.3, atol=1e-3)


def test_level_water__pit_in_shadow_is_not_water(tmp_path: Path) -> None:
    z, image, _ = scene()
    y, x = np.mgrid[0:N, 0:N] * 0.5
    walls = (np.hypot(x - 100, y - 90) >= 40) & (x + y < 230)  # higher ground around two thirds of it
    z[walls] += 12
    assert not levelled(tmp_path, z, image)[0].any()


def test_water_level__river_falls_with_its_banks() -> None:
    y, x = np.mgrid[0:N, 0:N] * 0.5
    river = np.abs(y - 100) < 10
    z = (50 - 0.005 * x + 0.2 * np.maximum(np.abs(y - 100) - 10, 0)).astype(np.float32)
    noisy = np.where(river, 80, z).astype(np.float32)
    beside = shores(Raster(noisy, GRID), river.astype(np.int32), 0, 0, (slice(0, N), slice(0, N)))
    level = water_level(beside.row, beside.column, beside.height, 0.5)
    assert level is not None
    error = level.at(*np.nonzero(river)) - z[river]
    assert np.abs(error).max() < 0.6
    assert np.abs(error)[::7].mean() < 0.3
    assert 0.5 < level.fall < 1.5
