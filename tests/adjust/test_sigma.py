"""Covariance propagated to heights: nodes over a scene, against trials and against what makes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.adjust.along import follow_jitter
from terrain3d.adjust.bundle import BIAS_SIGMA_PX, Adjustment, adjust, intersect
from terrain3d.adjust.sigma import BEYOND, height_sigma, position_covariance, relative_sigma
from terrain3d.adjust.ties import Ties
from terrain3d.camera.adjusted import Camera
from terrain3d.crs import from_lonlat, to_lonlat
from terrain3d.raster import Grid
from terrain3d.simulate.sensor import Pointing, View, camera_over, fit_rpc
from terrain3d.simulate.world import CENTRE, REFERENCE

CRS = REFERENCE.horizontal
X, Y = CENTRE
BOUNDS = X - 390.0, Y - 390.0, X + 390.0, Y + 390.0
GRID = Grid.from_bounds(REFERENCE, *BOUNDS, 1.0)
NOISE_PX = 0.3


@pytest.fixture(scope="module")
def cameras() -> list[Camera]:
    """Three cameras without any error, looking ahead, down and back."""
    exact = [camera_over(GRID, 540.0, View(along), 0.5) for along in (12.0, -1.0, -14.0)]
    return [Camera(fit_rpc(c, Pointing((0,) * 3, (0,) * 3, 1.0), CRS, (500.0, 600.0))) for c in exact]


def ground(n: int, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    x, y = X + rng.uniform(-380, 380, n), Y + rng.uniform(-380, 380, n)
    return np.column_stack([x, y, 540 + 20 * np.sin(x / 90)])


def seen_by(cameras: list[Camera], points: NDArray[np.float64]) -> Ties:
    places = [c.project(*to_lonlat(CRS, *points[:, :2].T), points[:, 2]) for c in cameras]
    n = len(points)
    line, sample = (np.concatenate([p[k] for p in places]) for k in (0, 1))
    return Ties(np.repeat(np.arange(len(cameras)), n), np.tile(np.arange(n), len(cameras)), line, sample)


def noisy(ties: Ties, rng: np.random.Generator, noise_px: float) -> Ties:
    line, sample = rng.normal(0, noise_px, (2, len(ties.view)))
    return replace(ties, line=ties.line + line, sample=ties.sample + sample)


def test_relative_sigma__is_the_spread_of_heights_in_trials(cameras: list[Camera]) -> None:
    """Ties disturbed, network adjusted anew: the heights of a pair spread about the plane of the model as stated."""
    rng, points, nodes = np.random.default_rng(0), ground(65, 3), ground(40, 8)
    ties = seen_by(cameras, points)
    plane = np.column_stack([np.ones(65), points[:, :2] - CENTRE])
    at_nodes = np.column_stack([np.ones(40), nodes[:, :2] - CENTRE])
    pairs = {(0, 1): [], (0, 2): [], (1, 2): []}  # type: dict[tuple[int, int], list[NDArray[np.float64]]]
    for _ in range(50):
        found = adjust(cameras, noisy(ties, rng, NOISE_PX), 540.0, iterations=7)
        model = intersect(list(found.cameras), ties, 540.0)[:, 2] - points[:, 2]
        common = at_nodes @ np.linalg.lstsq(plane, model, rcond=None)[0]
        for pair, errors in pairs.items():
            two = [found.cameras[i] for i in pair]
            exact = seen_by([cameras[i] for i in pair], nodes)
            errors.append(intersect(two, exact, 540.0)[:, 2] - nodes[:, 2] - common)
    for pair, errors in pairs.items():
        stated = relative_sigma(found, pair, REFERENCE, BOUNDS, 540.0, nodes=16).sample(nodes[:, 0], nodes[:, 1])
        spread = np.sqrt(np.mean(np.square(errors), axis=0))
        assert np.sqrt(np.mean(spread**2)) == pytest.approx(np.sqrt(np.mean(stated**2)), rel=0.3, abs=0.005)
        assert pair == (0, 2) or np.corrcoef(spread, stated)[0, 1] > 0.5


def network(cameras: list[Camera], n: int, noise_px: float = NOISE_PX) -> Adjustment:
    return adjust(cameras, noisy(seen_by(cameras, ground(n, 3)), np.random.default_rng(1), noise_px), 540.0)


@pytest.mark.parametrize("which", [(0, 2), (0, 1)])
def test_position_covariance__is_the_spread_of_models_whose_images_point_wrong(
    cameras: list[Camera], which: tuple[int, int]
) -> None:
    rng, points, middle = np.random.default_rng(2), ground(30, 3), np.array([[X, Y, 540.0]])
    two = [cameras[i] for i in which]
    ties, seen = seen_by(two, points), seen_by(two, middle)
    errors = []
    for _ in range(40):
        line, sample = rng.normal(0, BIAS_SIGMA_PX, (2, 2))
        moved, there = (replace(t, line=t.line + line[t.view], sample=t.sample + sample[t.view]) for t in (ties, seen))
        found = adjust(two, noisy(moved, rng, 0.05), 540.0, iterations=5)
        lon, lat, height = intersect(list(found.cameras), there, 540.0).T
        errors.append(np.column_stack([*from_lonlat(CRS, lon, lat), height])[0] - middle[0])
    covariance = position_covariance(found, (0, 1), CRS, X, Y, 540.0)[0]
    stated = np.sqrt(np.diag(covariance))
    spread = np.sqrt(np.mean(np.square(errors), axis=0))
    np.testing.assert_allclose(spread, stated, rtol=0.35)
    base = np.tan(np.radians(26.0 if which == (0, 2) else 13.0))
    assert stated[2] == pytest.approx(BIAS_SIGMA_PX * 0.5 * np.sqrt(2) / base, rel=0.15)


def test_relative_sigma__covers_the_scene_and_equals_the_places(cameras: list[Camera]) -> None:
    found = network(cameras, 100)
    raster = relative_sigma(found, (0, 1), REFERENCE, BOUNDS, 540.0, nodes=24)
    assert max(raster.grid.shape) <= 24 + 2 * BEYOND + 2
    x, y = np.meshgrid(np.linspace(BOUNDS[0], BOUNDS[2], 9), np.linspace(BOUNDS[1], BOUNDS[3], 9))
    between = raster.sample(x, y)
    assert np.isfinite(between).all()
    there = height_sigma(found, (0, 1), CRS, x.ravel(), y.ravel(), 540.0).relative
    np.testing.assert_allclose(between.ravel(), there, rtol=0.03)


def test_relative_sigma__falls_with_ties_and_their_precision(cameras: list[Camera]) -> None:
    def typical(found: Adjustment) -> float:
        return float(np.median(relative_sigma(found, (0, 1), REFERENCE, BOUNDS, 540.0, nodes=8).values))

    few, many, precise = (typical(network(cameras, *a)) for a in ((30,), (65,), (65, 0.1)))
    assert many == pytest.approx(few * (30 / 65) ** 0.5, rel=0.25)
    assert precise == pytest.approx(many / 3, rel=0.25)


def test_relative_sigma__a_narrow_base_is_worse(cameras: list[Camera]) -> None:
    found = network(cameras, 100)
    narrow, wide = (
        float(np.median(relative_sigma(found, p, REFERENCE, BOUNDS, 540.0, nodes=8).values)) for p in ((0, 1), (0, 2))
    )
    assert narrow > 2 * wide  # all three views together are nearly what the outer two say


def test_relative_sigma__common_jitter_is_as_large_as_that_between_views(cameras: list[Camera]) -> None:
    """Ties see how views jitter against each other only; what they jitter together bends the heights as much."""
    ties = noisy(seen_by(cameras, ground(700, 3)), np.random.default_rng(1), 0.1)
    phase = np.random.default_rng(8).uniform(0, 6, (3, 2))[ties.view]
    bends = []
    for amplitude in (0.1, 0.3):
        swing = amplitude * np.sin(2 * np.pi * ties.line[:, None] / 700 + phase)
        shaken = replace(ties, line=ties.line + swing[:, 0], sample=ties.sample + swing[:, 1])
        found = follow_jitter(adjust(cameras, shaken, 540.0), shaken, [True] * 3)
        assert found.along
        bends.append(float(np.median(relative_sigma(found, (0, 1, 2), REFERENCE, BOUNDS, 540.0, nodes=8).values)))
    assert 1.5 < bends[1] / bends[0] < 4
