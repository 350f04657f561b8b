"""Which voids of a stored surface are filled, and what is taken for flying or floating, however it is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.errors import OverlapError
from terrain3d.io.scratch import StoredRaster, new_raster
from terrain3d.pipeline import blocks
from terrain3d.pipeline.filling import Frame, fill_model, surface_slopes
from terrain3d.pipeline.model import StoredModel, clean_heights
from terrain3d.pipeline.progress import Silent
from terrain3d.raster import Grid, Raster
from terrain3d.surface.mask import MaskCode

GRID = Grid(Reference("EPSG:32654"), 3e5, 4e6, 0.5, 208, 256)
FRAME = Frame(
    None,
    Raster(np.full((3, 3), 0.02, np.float32), Grid(GRID.reference, GRID.west - 200, GRID.north + 200, 400.0, 3, 3)),
)


def model_of(folder: Path, z: np.ndarray) -> StoredModel:
    def stored(name: str, values: np.ndarray) -> StoredRaster:
        raster = new_raster(folder / name, GRID, values.dtype)
        raster.write(0, 0, values)
        return raster

    known = np.isfinite(z)
    return StoredModel(
        stored("height.raw", z.astype(np.float32)),
        stored("sigma.raw", np.where(known, 0.2, np.nan).astype(np.float32)),
        stored("pairs.raw", known.astype(np.uint8)),
        stored("confidence.raw", known.astype(np.float16)),
        stored("below.raw", np.zeros(GRID.shape, np.float16)),
    )


@pytest.mark.parametrize("size", [1536, 48])
def test_fill_model__large_and_outer_voids_stay(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CELLS", size)
    z = np.zeros(GRID.shape)
    z[50:150, 60:160] = np.nan  # 2500 m2, of which no block sees all
    z[:, 200:] = np.nan  # outside the footprint
    z[10:14, 10:14] = np.nan
    model = model_of(tmp_path, z)
    clean, extent = clean_heights(model, tmp_path, 2, Silent())
    assert extent.window() == (0, 0, 208, 200)
    dsm, sigma, mask = (
        r.read(0, 0, *GRID.shape) for r in fill_model(model, clean, extent, FRAME, tmp_path, 2, Silent())
    )
    assert np.isnan(dsm[50:150, 60:160]).all() and np.isnan(dsm[:, 200:]).all()
    assert (mask == MaskCode.FILLED).sum() == 16 and (mask[10:14, 10:14] == MaskCode.FILLED).all()
    np.testing.assert_array_equal(mask > 0, np.isfinite(dsm))
    np.testing.assert_array_equal(mask > 0, np.isfinite(sigma))
    assert sigma[12, 12] > sigma[30, 30]


@pytest.mark.parametrize("size", [1536, 48])
def test_clean_heights__all_islands_leave_the_largest(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CELLS", size)
    z = np.full(GRID.shape, np.nan)
    z[40:54, 40:54] = 5.0  # 49 m2, over the corner of blocks
    z[150:160, 200:210] = 5.0  # 25 m2
    clean, extent = clean_heights(model_of(tmp_path, z), tmp_path, 1, Silent())
    assert np.isfinite(clean.read(0, 0, *GRID.shape)).sum() == 14 * 14
    assert extent.window() == (40, 40, 14, 14)


def test_clean_heights__nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OverlapError):
        clean_heights(model_of(tmp_path, np.full(GRID.shape, np.nan)), tmp_path, 1, Silent())


def test_surface_slopes__relief_counts_and_walls_and_noise_do_not() -> None:
    x = np.arange(60) * 0.5
    bend = np.where(x < 15, 0.2 * x, 3 + 0.3 * (x - 15))
    foot = np.where(x < 15, 0.1 * x, 11.5 + 0.1 * (x - 15))
    ridge = -0.3 * np.abs(x - 15)
    east = {}
    for name, line in (("bend", bend), ("foot", foot), ("ridge", ridge)):
        slopes = surface_slopes(np.tile(line, (9, 1)).astype(np.float32), 0.5)
        assert np.abs(slopes[1]).max() == 0
        east[name] = slopes[0, 4]
    assert east["bend"][[10, 30, 50]] == pytest.approx([0.2, 0.2, 0.3], abs=1e-5)
    # a wall of 10 m is on one side of the cells at its foot and brow
    assert east["foot"][[10, 29, 30, 50]] == pytest.approx([0.1, 0.1, 0.1, 0.1], abs=1e-5)
    assert east["ridge"][[10, 30, 50]] == pytest.approx([0.3, 0.0, -0.3], abs=1e-5)
