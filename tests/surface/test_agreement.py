"""Noise told from terrain: what one pair sees alone goes, what all see stays."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.surface.agreement import MARGIN_CELLS, without_noise

Singles = NDArray[np.float32]
SHAPE = 240, 260
SIGMA = np.full(SHAPE, 0.2, np.float32)


def noise(seed: int, sigma: float, cells: float = 1.5) -> Singles:
    """Correlated noise, as windows of matching leave it."""
    values = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=SHAPE), (0, 0), cells)
    return np.asarray(values * sigma / values.std(), np.float32)


def looked_at(terrain: Singles, sigma: float) -> tuple[Singles, list[Singles]]:
    """Mean of three looks with noise of their own, and by how much each lies above it."""
    looks = [terrain + noise(k, sigma) for k in range(3)]
    mean = np.mean(looks, axis=0).astype(np.float32)
    return mean, [np.asarray(z - mean, np.float32) for z in looks]


def plane() -> Singles:
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    return np.asarray(500 + 0.2 * x - 0.1 * y, np.float32)


def test_without_noise__a_plane_becomes_even() -> None:
    height, offsets = looked_at(plane(), 0.2)
    inner = np.s_[30:-30, 30:-30]
    before = (height - plane())[inner].std()
    after = (without_noise(height, SIGMA, offsets) - plane())[inner].std()
    assert before == pytest.approx(0.2 / 3**0.5, rel=0.15) and after < 0.35 * before


def test_without_noise__rough_terrain_stays_rough() -> None:
    rough = noise(11, 0.3, 2.0)
    height, offsets = looked_at(plane() + rough, 0.1)
    after = without_noise(height, SIGMA, offsets) - plane()
    inner = np.s_[30:-30, 30:-30]
    assert after[inner].std() == pytest.approx(0.3, rel=0.05)
    assert (after - rough)[inner].std() < 1.1 * (height - plane() - rough)[inner].std()


def test_without_noise__a_wall_stays_where_it_is() -> None:
    terrain = plane()
    terrain[:, 130:] += 9
    height, offsets = looked_at(terrain, 0.15)
    after = without_noise(height, SIGMA, offsets)
    assert np.abs(after - height).max() <= 0.3 + 1e-4
    step = after[:, 131] - after[:, 128]
    assert np.abs(step - 9.6).max() < 0.9 and np.mean(step) == pytest.approx(9.6, abs=0.1)


def test_without_noise__one_look_tells_nothing() -> None:
    height, offsets = looked_at(plane(), 0.2)
    nothing = np.full(SHAPE, np.nan, np.float32)
    for seen in ([], offsets[:1], [offsets[0], nothing, nothing]):
        np.testing.assert_array_equal(without_noise(height, SIGMA, seen), height)


def test_without_noise__voids_stay_and_do_not_pull() -> None:
    height, offsets = looked_at(plane(), 0.1)
    height[100:140, 100:150] = np.nan
    after = without_noise(height, SIGMA, offsets)
    np.testing.assert_array_equal(np.isnan(after), np.isnan(height))
    beside = np.s_[95:100, 100:150]
    assert np.abs((after - plane())[beside]).mean() < 0.1


def test_without_noise__margin_is_enough() -> None:
    height, offsets = looked_at(plane() + noise(11, 0.2, 6.0), 0.2)
    whole = without_noise(height, SIGMA, offsets)
    part = np.s_[: 90 + MARGIN_CELLS, : 100 + MARGIN_CELLS]
    cut = without_noise(height[part], SIGMA[part], [o[part] for o in offsets])
    np.testing.assert_allclose(cut[:90, :100], whole[:90, :100], atol=1e-4)
