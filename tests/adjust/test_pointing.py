"""What ties tell of the pointing of images, and of the place and the tilt of their model, against trials."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.adjust.bundle import BIAS_SIGMA_PX, Adjustment, adjust, intersect
from terrain3d.adjust.pointing import COMMON, Pointing, pointing_of
from terrain3d.adjust.ties import Ties
from terrain3d.camera.adjusted import Camera
from terrain3d.crs import from_lonlat
from tests.adjust.test_sigma import CRS, X, Y, cameras, ground, noisy, seen_by  # noqa: F401

Floats = NDArray[np.float64]
MIDDLE = np.array([[X, Y, 540.0]])


def trials(
    views: list[Camera], n: int, bias_px: float, drift_px: float = 0.0, seed: int = 3
) -> Iterator[tuple[Pointing, Floats, Floats]]:
    """Pointing, the move that the model's middle needs, and the tilt that it needs (m/m), of images that point wrong by
    a bias and a drift along their lines."""
    rng, points = np.random.default_rng(seed), np.vstack([MIDDLE, ground(60, 3)])
    seen = seen_by(views, points)
    for _ in range(n):
        found, moved = disturbed(views, seen, rng, bias_px, drift_px)
        lon, lat, height = intersect(list(found.cameras), moved, 540.0).T
        error = np.column_stack([*from_lonlat(CRS, lon, lat), height]) - points
        plane = np.column_stack([np.ones(len(points)), points[:, :2] - (X, Y)])
        tilt = np.linalg.lstsq(plane, error[:, 2], rcond=None)[0][1:]
        yield pointing_of(found, CRS, X, Y, 540.0), -error[0], -tilt


def disturbed(
    views: list[Camera], seen: Ties, rng: np.random.Generator, bias_px: float, drift_px: float
) -> tuple[Adjustment, Ties]:
    bias, drift = rng.normal(0, bias_px, (2, len(views))), rng.normal(0, drift_px, (2, len(views)))
    along = (seen.line - 780.0) / 780.0
    line, sample = (bias[k][seen.view] + drift[k][seen.view] * along for k in (0, 1))
    moved = replace(seen, line=seen.line + line, sample=seen.sample + sample)
    return adjust(views, noisy(moved, rng, 0.05), 540.0, iterations=5), moved


@pytest.mark.parametrize("bias_px", [3.0, 25.0])
def test_pointing__its_size_is_seen_in_the_ties(cameras: list[Camera], bias_px: float) -> None:  # noqa: F811
    """The place is known to what ties and height show of the size, far more and far less than usual alike."""
    share, size, warned = [], [], []
    for pointing, move, _ in trials(cameras, 12, bias_px):
        mean, covariance = pointing.sideways(move[2])
        away = move[:2] - mean
        share.append(away @ np.linalg.solve(covariance, away) / 2)
        size.append(pointing.seen_up(move[2]).size)
        warned.append(pointing.warning(move[2]) is not None)
    assert 0.05 < np.median(share) < 2.2  # 0.69 of a normal distribution
    if bias_px > BIAS_SIGMA_PX:
        assert np.mean(size) == pytest.approx(bias_px / BIAS_SIGMA_PX, rel=0.35) and np.mean(warned) > 0.6
    else:
        assert np.mean(size) < 0.8 and not any(warned)


def test_pointing__rays_that_lean_tell_the_place_by_the_height(cameras: list[Camera]) -> None:  # noqa: F811
    """With one image from above and one from the side, what raises the model also moves it."""
    left, unmoved, stated = [], [], []
    for pointing, move, _ in trials(cameras[:2], 14, 8.0):
        mean, covariance = pointing.sideways(move[2])
        left.append(move[:2] - mean)
        unmoved.append(move[:2])
        stated.append(np.trace(covariance))
    assert np.mean(np.square(left)) < 0.85 * np.mean(np.square(unmoved))
    assert np.sqrt(np.mean(np.square(left)) * 2) == pytest.approx(np.sqrt(np.mean(stated)), rel=0.4)


def test_pointing__tilt_is_that_of_drifts_as_large_as_seen(cameras: list[Camera]) -> None:  # noqa: F811
    for drift_px in (0.15, 0.6):
        share = []
        for pointing, _, tilt in trials(cameras, 10, 3.0, drift_px):
            assert pointing.tilt is not None
            share.append(tilt @ np.linalg.solve(pointing.tilt, tilt) / 2)
        assert 0.25 < np.mean(share) < 1.8


def test_pointing__size_is_usual_until_something_is_seen() -> None:
    alone = Pointing(np.diag([3.0, 3.0, 15.0]) ** 2)
    assert alone.size == 1.0 and alone.warning() is None
    mean, covariance = alone.sideways(15.0)
    np.testing.assert_allclose(mean, 0.0)
    np.testing.assert_allclose(covariance, np.eye(2) * (9.0 + COMMON**2))
    np.testing.assert_allclose(alone.sigma[:2], np.sqrt(np.diag(covariance)))
    assert alone.sideways(150.0)[1][0, 0] > 9.0 * 25
    assert "RPC" in str(alone.warning(150.0))
