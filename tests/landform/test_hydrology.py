from __future__ import annotations

import cv2
import numpy as np
import pytest

from terrain3d.landform.hydrology import condition


def drains(z: np.ndarray) -> bool:
    """Whether every cell inside has a lower neighbour, or a void beside it."""
    low = np.full(z.shape, np.inf)
    padded = np.pad(np.where(np.isnan(z), -np.inf, z.astype(float)), 1, constant_values=-np.inf)
    for i in range(3):
        for j in range(3):
            if (i, j) != (1, 1):
                low = np.minimum(low, padded[i : i + z.shape[0], j : j + z.shape[1]])
    return bool((low < z)[np.isfinite(z)].all())


def rough(seed: int, n: int = 200) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = sum(s * cv2.GaussianBlur(rng.normal(size=(n, n)), (0, 0), s) for s in (2.0, 8.0, 30.0))
    return (100 + z + 0.02 * np.mgrid[0:n, 0:n][0]).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1])
def test_condition__all_water_runs_off(seed: int) -> None:
    z = rough(seed)
    z[60:80, 90:130] = np.nan
    found = condition(z, 1.0)
    assert not drains(z) and drains(found.heights)
    assert np.array_equal(np.isnan(found.heights), np.isnan(z))
    assert found.breached > 0 and found.filled > 0


def test_condition__a_dam_is_cut_and_not_drowned() -> None:
    y, x = np.mgrid[0:80, 0:120]
    z = (50 - 0.02 * x + 0.05 * np.abs(y - 40)).astype(np.float32)
    dam = z.copy()
    dam[:, 58:64] += 3.0
    found = condition(dam, 1.0, max_length=30)
    assert drains(found.heights)
    cut = found.heights[:, 60] < dam[:, 60] - 2.5
    assert 1 <= cut.sum() <= 3 and cut[39:42].any()
    assert np.abs(found.heights - z)[:, :50].max() < 0.05  # no lake behind it


def test_condition__beyond_the_limits_it_is_filled() -> None:
    y, x = np.mgrid[0:80, 0:120]
    z = (50 - 0.02 * x + 0.05 * np.abs(y - 40)).astype(np.float32)
    z[:, 58:64] += 3.0
    found = condition(z, 1.0, max_length=30, max_depth=1.0)
    assert drains(found.heights) and (found.heights[:, 58:64] >= z[:, 58:64]).all()
    assert (found.heights[40, 20:57] > z[40, 20:57] + 0.3).all()


def test_condition__breaching_changes_less_than_filling() -> None:
    z = rough(3)
    breached, filled = condition(z, 1.0), condition(z, 1.0, max_depth=0.0)
    assert np.abs(breached.heights - z).sum() < 0.7 * np.abs(filled.heights - z).sum()


def test_condition__a_lake_stays_as_it_is() -> None:
    y, x = np.mgrid[0:100, 0:100]
    z = np.maximum(50 + 0.1 * (np.hypot(x - 50, y - 50) - 30), 50).astype(np.float32)
    z[50, 50:] = np.minimum(z[50, 50:], 50 - 0.01 * np.maximum(np.arange(50) - 29, 0)).astype(np.float32)
    found = condition(z, 1.0)
    assert drains(found.heights) and np.abs(found.heights - z).max() < 0.02
