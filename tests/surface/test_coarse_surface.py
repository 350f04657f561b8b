"""Surface of coarse cells: which surface they belong to, and how sure that is."""

from __future__ import annotations

import numpy as np
import pytest

from terrain3d.landform.volumes import ErrorModel
from terrain3d.surface.coarse_surface import coarse_surface
from terrain3d.surface.mask import MaskCode

SIGMA = 0.2


def of(
    height: np.ndarray, sigma: np.ndarray | float = SIGMA, mask: np.ndarray | int = 1, fold: int = 4, alike: float = 1
):
    z = height.astype(np.float32)
    spread = np.broadcast_to(np.float32(sigma), z.shape).copy()
    codes = np.broadcast_to(np.uint8(mask), z.shape).copy()
    return coarse_surface(z, spread, codes, fold, 0.5, alike)


def test_coarse_surface__a_roof_edge_stays_an_edge() -> None:
    rng = np.random.default_rng(1)
    truth = np.full((80, 80), 10.0)
    truth[13:51, 23:61] = 19.0
    z, sigma, _ = of(truth + rng.normal(0, SIGMA, truth.shape))
    roof = truth.reshape(20, 4, 20, 4).mean(axis=(1, 3)) > 14.5
    assert np.abs(z - np.where(roof, 19, 10)).max() < 0.5
    share = (truth > 14.5).reshape(20, 4, 20, 4).mean(axis=(1, 3))
    assert np.median(sigma[(share == 0) | (share == 1)]) == pytest.approx(SIGMA, abs=0.02)
    assert sigma[(share > 0.2) & (share < 0.8)].min() > 1.0  # a cell's width of edge may be either


def test_coarse_surface__is_the_height_at_the_centre_on_a_steep_slope() -> None:
    y, x = np.mgrid[:60, :60] * 0.5
    z, sigma, _ = of(100 + 1.2 * x - 0.7 * y, fold=20)
    centre = 4.75 + 10 * np.arange(3)
    assert z == pytest.approx(100 + 1.2 * centre[None, :] - 0.7 * centre[:, None], abs=1e-3)
    assert sigma == pytest.approx(SIGMA, abs=1e-3)


def test_coarse_surface__uncertain_cells_have_little_say() -> None:
    height = np.full((4, 4), 5.0)
    height[:3] = 20.0
    z, *_ = of(height, np.where(height > 10, 4.0, 0.2))
    assert z[0, 0] == pytest.approx(5.0, abs=0.01)


def test_coarse_surface__codes_and_voids() -> None:
    height, codes = np.full((4, 12), 5.0), np.full((4, 12), int(MaskCode.MEASURED))
    height[:, :4], codes[:, :4] = np.nan, MaskCode.NODATA
    codes[:3, 4:8] = MaskCode.FILLED
    height[:, 8:11], codes[:, 8:11] = np.nan, MaskCode.NODATA
    z, sigma, mask = of(height, mask=codes)
    assert mask.tolist() == [[MaskCode.NODATA, MaskCode.FILLED, MaskCode.MEASURED]]
    assert np.isnan(z[0, 0]) and np.isnan(sigma[0, 0]) and z[0, 2] == pytest.approx(5)


def test_coarse_surface__sigma_falls_as_errors_of_a_block_are_alike() -> None:
    """Against draws of fields with the correlation that is assumed."""
    model, fold, cells = ErrorModel(long_share=0.3, long_range=20), 6, 24
    at = np.stack(np.mgrid[:cells, :cells], -1).reshape(-1, 2) * 0.5
    d = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
    c = 0.7 * np.exp(-d / model.short_range) + 0.3 * np.exp(-d / model.long_range)
    draws = np.linalg.cholesky(c + 1e-9 * np.eye(len(c))) @ np.random.default_rng(2).normal(0, SIGMA, (len(c), 300))
    found = [of(draws[:, k].reshape(cells, cells), fold=fold, alike=model.alike(fold, 0.5)) for k in range(300)]
    errors, stated = np.array([z for z, *_ in found]), np.array([s for _, s, _ in found])
    assert stated.mean() == pytest.approx(errors.std(), rel=0.05)
