"""Beams that point elsewhere than they say."""

from __future__ import annotations

import numpy as np
import pytest

from terrain3d.crs import Reference, from_lonlat, to_lonlat
from terrain3d.points import LidarReturns, horizontal_sigma
from terrain3d.raster import Grid, Raster
from terrain3d.register.beams import place_beams
from terrain3d.register.footprint import place_footprints
from terrain3d.register.objects import object_map
from terrain3d.register.registration import register_dsm

CRS = "EPSG:32654"
WEST, NORTH, SIZE = 300_000.0, 3_900_000.0, 800.0
UP = 1.3  # of the model over the ground


def mountains(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u, v = (x - WEST) / 100, (NORTH - y) / 100
    return 40 * np.sin(0.9 * u + 0.4) * np.cos(0.8 * v) + 14 * np.sin(2.1 * v + u) + 8 * np.cos(2.7 * u - 1.9 * v)


def level(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 50.0 + 0.0 * (x + y)


def scene(terrain, seed: int, gross: float = 0.0) -> tuple[Raster, LidarReturns, np.ndarray]:  # type: ignore[no-untyped-def]
    """Model, shots of six beams at a slant, and the displacement of each beam."""
    rng = np.random.default_rng(seed)
    grid = Grid(Reference(CRS), WEST, NORTH, 2.0, int(SIZE / 2), int(SIZE / 2))
    east, north = grid.centres()
    model = Raster((terrain(east[None, :], north[:, None]) + UP).astype(np.float32), grid)
    per_beam = 13
    track = np.repeat(np.arange(6, dtype=np.int32), per_beam)
    y = NORTH - 40 - np.tile(np.arange(per_beam) * 58.0, 6)
    x = WEST + 60 + 85 * track + 0.3 * (NORTH - y)
    displaced = rng.normal(0, 8, (6, 2))
    height = terrain(x + displaced[track, 0], y + displaced[track, 1]) + rng.normal(0, 0.4, len(x))
    height += (rng.random(len(x)) < gross) * rng.uniform(-60, 60, len(x))
    ones = np.ones(len(x))
    returns = LidarReturns(
        *to_lonlat(CRS, x, y), height, 0.5 * ones, 25 * ones, 25 * ones, np.nan * ones,
        np.tile(np.arange(per_beam, dtype=float), 6), track, tuple(f"g/{k}" for k in range(6)), ("GEDI_L2A",) * 6,
    )  # fmt: skip
    return model, returns, displaced


@pytest.mark.parametrize("known", [True, False])
def test_place_beams__finds_each_beam(known: bool) -> None:
    model, returns, displaced = scene(mountains, 0, gross=0.1)
    before = place_footprints(returns, CRS)
    after, names = place_beams(model, object_map(model), returns, before, (0.0, 0.0), -UP if known else 0.0, known)
    assert len(names) >= 5
    first = np.arange(6) * 13
    found = np.column_stack([after.x - before.x, after.y - before.y])[first]
    moved = found.any(axis=1)
    error = np.abs(found - displaced)[moved]
    assert np.sqrt(np.mean(error**2)) < 2.0 < np.sqrt(np.mean(displaced**2))
    assert np.mean((error / after.place_sigma[first][moved, None]) ** 2) < 4
    x, _ = from_lonlat(CRS, returns.lon_deg, returns.lat_deg)
    assert before.x == pytest.approx(x)  # the input stays


def test_place_beams__even_ground_tells_nothing() -> None:
    model, returns, _ = scene(level, 1)
    before = place_footprints(returns, CRS)
    after, names = place_beams(model, object_map(model), returns, before, (0.0, 0.0), -UP, True)
    assert names == [] and np.array_equal(after.x, before.x) and not after.moved.any()


@pytest.mark.slow
def test_register__height_from_displaced_beams_alone() -> None:
    plain, normalized = [], []
    for seed in range(8):
        model, returns, _ = scene(mountains, seed)
        result = register_dsm(model, returns)
        assert any("geolocation of" in n for n in result.notes)
        middle = np.array([WEST + SIZE / 2]), np.array([NORTH - SIZE / 2])
        error = float(result.vertical_at(*middle)[0]) + UP
        plain.append(error)
        normalized.append(error / float(result.sigma_at(*middle)[0]))
    assert np.sqrt(np.mean(np.square(plain))) < 0.8  # slopes of 0.5 times 10 m / sqrt(6) are 2 m
    assert np.sqrt(np.mean(np.square(normalized))) < 1.6


def test_placed__returns_go_where_their_beams_are() -> None:
    model, returns, displaced = scene(mountains, 0)
    result = register_dsm(model, returns)
    placed = result.placed(returns, CRS)
    stated, found = (np.column_stack(from_lonlat(CRS, r.lon_deg, r.lat_deg)) for r in (returns, placed))
    truth = stated + displaced[returns.track]
    moved = np.hypot(*(found - stated).T) > 0.1
    assert moved.mean() > 0.7
    assert np.sqrt(np.mean((found - truth)[moved] ** 2)) < 2.5 < np.sqrt(np.mean((stated - truth)[moved] ** 2))
    assert np.all(horizontal_sigma(placed)[moved] < 4) and np.all(horizontal_sigma(returns) == 10)
    assert np.allclose(found[~moved], stated[~moved], atol=1e-6) and np.all(horizontal_sigma(placed)[~moved] == 10)
