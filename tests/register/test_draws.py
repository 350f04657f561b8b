"""Registration over many draws of simulated lidar: its errors are as large as it says, and gross ones do not show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from terrain3d.crs import to_lonlat
from terrain3d.lidar.read import read_lidar
from terrain3d.points import LidarReturns
from terrain3d.raster import Grid, Raster
from terrain3d.register.registration import Registration, register_dsm
from terrain3d.simulate.granules import write_atl08, write_gedi_l2a
from terrain3d.simulate.layers import BUILDING
from terrain3d.simulate.world import World, mountain, town

pytestmark = pytest.mark.slow
SIZE, DRAWS = 600.0, 8
SHIFT, UP, TILT_N = (0.8, -0.6), 1.3, 0.8e-3  # of the model against the truth


@pytest.fixture(scope="module")
def world() -> World:
    return mountain(5, SIZE)


def displaced(world: World) -> Raster:
    """The true surface, displaced and tilted, with the noise of matching."""
    truth = world.truth(1.0)[0]
    grid = replace(truth.grid, west=truth.grid.west + SHIFT[0], north=truth.grid.north + SHIFT[1])
    north = grid.centres()[1][:, None] - grid.centres()[1].mean()
    noise = np.random.default_rng(0).normal(0, 0.15, truth.values.shape)
    return Raster((truth.values + UP + TILT_N * north + noise).astype(np.float32), grid)


def draw_lidar(world: World, folder: Path, count: int) -> list[LidarReturns]:
    out = []
    for k in range(count):
        paths = [folder / f"ATL08_{k}.h5", folder / f"GEDI02_A_{k}.h5"]
        write_atl08(paths[0], world, 300 + k)
        write_gedi_l2a(paths[1], world, 500 + k)
        out.append(read_lidar(paths).returns)
    return out


@pytest.fixture(scope="module")
def model(world: World) -> Raster:
    return displaced(world)


@pytest.fixture(scope="module")
def draws(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[LidarReturns]:
    return draw_lidar(world, tmp_path_factory.mktemp("lidar"), DRAWS)


def rms(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def middle_error(result: Registration, grid: Grid) -> float:
    """Of the height at the middle of the model."""
    west, south, east, north = grid.bounds
    at = result.vertical_at(np.array([(west + east) / 2]), np.array([(south + north) / 2]))
    return float(at[0]) + UP


def test_register__errors_over_draws_are_as_stated(model: Raster, draws: list[LidarReturns]) -> None:
    results = [register_dsm(model, r) for r in draws]
    sideways, stated, tilts, tilts_stated = [], [], [], []
    for r in results:
        sigma = np.sqrt(np.diag(r.covariance))
        sideways += [r.dx + SHIFT[0], r.dy + SHIFT[1]]
        stated += list(sigma[:2])
        tilts.append(r.tilt_n + TILT_N)
        tilts_stated.append(sigma[4])
    assert rms(sideways) < 0.9 and rms([middle_error(r, model.grid) for r in results]) < 0.15  # of 30 returns each
    assert 1 / 1.5 < rms(list(np.array(sideways) / stated)) < 1.5
    assert rms(tilts) < 0.9 * TILT_N and rms(list(np.array(tilts) / tilts_stated)) < 1.8
    assert sum(r.tilt_n != 0 for r in results) > DRAWS / 2


@pytest.mark.parametrize("wrong", ["gross", "raised"])
def test_register__a_tenth_gross_or_a_third_raised(model: Raster, draws: list[LidarReturns], wrong: str) -> None:
    make: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
        "gross": lambda rng, n: (rng.random(n) < 0.1) * rng.choice([-1, 1], n) * rng.uniform(15, 250, n),
        "raised": lambda rng, n: (rng.random(n) < 0.3) * rng.uniform(3, 12, n),
    }
    errors = []
    for k, returns in enumerate(draws[:5]):
        height = returns.height + make[wrong](np.random.default_rng(k), len(returns))
        errors.append(middle_error(register_dsm(model, replace(returns, height=height)), model.grid))
    assert rms(errors) < 0.15


def test_register__a_third_of_the_returns_on_the_roofs_of_a_town(tmp_path: Path) -> None:
    """Returns of real roofs, taken for ground."""
    world = town(4, SIZE)
    model, errors = displaced(world), []
    inside = cv2.erode((world.classes == BUILDING).astype(np.uint8), np.ones((13, 13), np.uint8))
    rows, columns = np.nonzero(inside)
    for k, returns in enumerate(draw_lidar(world, tmp_path, 3)):
        rng = np.random.default_rng(k)
        at = rng.integers(0, len(rows), len(returns))
        x, y = (c[i] for c, i in zip(world.grid.centres(), (columns[at], rows[at]), strict=True))
        on_roof = rng.random(len(returns)) < 0.3
        lon, lat = to_lonlat(world.grid.reference.horizontal, x, y)
        roof = world.surface[rows[at], columns[at]] + rng.normal(0, 0.2, len(returns))
        wrong = replace(
            returns,
            lon_deg=np.where(on_roof, lon, returns.lon_deg), lat_deg=np.where(on_roof, lat, returns.lat_deg),
            height=np.where(on_roof, roof, returns.height), canopy=np.where(on_roof, np.nan, returns.canopy),
        )  # fmt: skip
        result = register_dsm(model, wrong)
        assert dict(result.report.rejected)["on a building or trees"] > 0.6 * on_roof.sum()
        errors.append(middle_error(result, model.grid))
    assert rms(errors) < 0.1
