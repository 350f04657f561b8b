from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from terrain3d.assess import assess
from terrain3d.crs import ELLIPSOID, UNDECLARED, Reference, Vertical, vertical_from_name
from terrain3d.errors import FrameError, InputFileError, OverlapError
from terrain3d.io.geoid import to_vertical
from terrain3d.io.rasters import HEIGHT_NODATA, read_raster, write_raster
from terrain3d.raster import Grid, Raster

GRID = Grid(Reference("EPSG:32654", ELLIPSOID), 293400.0, 3915600.0, 0.5, 300, 320)


def hills() -> Raster:
    rng = np.random.default_rng(5)
    return Raster((100 + 800 * gaussian_filter(rng.normal(size=GRID.shape), 15)).astype(np.float32), GRID)


def save(path: Path, raster: Raster, vertical: Vertical = ELLIPSOID, heights: bool = True) -> Path:
    grid = replace(raster.grid, reference=Reference("EPSG:32654", vertical))
    write_raster(path, Raster(raster.values, grid), nodata=HEIGHT_NODATA, heights=heights)
    return path


def test_assess__known_noise_bias_and_sigma_coverage(tmp_path: Path) -> None:
    truth, rng = hills(), np.random.default_rng(6)
    sigma = rng.uniform(0.1, 0.6, GRID.shape).astype(np.float32)
    values = truth.values + 0.3 + sigma * rng.normal(size=GRID.shape).astype(np.float32)
    values[100:150, 60:260] = np.nan
    reference = save(tmp_path / "truth.tif", truth)
    run = tmp_path / "run"
    save(run / "dsm.tif", Raster(values, GRID))
    save(run / "dsm_sigma.tif", Raster(sigma, GRID), heights=False)
    result = assess(run, reference)
    figures = result.classes[0]
    assert figures.cells == 240 * 260
    np.testing.assert_allclose(figures.valid, 1 - 50 * 200 / (240 * 260), atol=1e-9)
    np.testing.assert_allclose(figures.bias, 0.3, atol=0.01)
    error = (values - truth.values)[30:-30, 30:-30]
    np.testing.assert_allclose(figures.rmse, np.sqrt(np.nanmean(error**2)), rtol=1e-5)
    np.testing.assert_allclose(figures.le90, np.nanpercentile(np.abs(error), 90), rtol=1e-5)
    assert figures.coverage is not None and figures.coverage[0] < 0.6  # the bias is not in the sigma
    save(run / "dsm.tif", Raster(values - np.float32(0.3), GRID))
    coverage = assess(run, reference).classes[0].coverage
    np.testing.assert_allclose(coverage, [0.6827, 0.9000, 0.9500], atol=0.006)
    turned = assess(reference, run).classes[0]  # a run as the reference
    assert turned.rmse == pytest.approx(assess(run, reference).classes[0].rmse, rel=1e-3)
    head, rows = result.table()
    assert len(head) == len(rows[0]) == 13 and rows[0][0] == "all"
    assert result.to_dict()["classes"][0]["name"] == "all" and result.notes == ()


def test_assess__offset_east_north_up(tmp_path: Path) -> None:
    truth = hills()
    moved = Raster(truth.values + np.float32(0.25), replace(GRID, west=GRID.west + 0.4, north=GRID.north - 0.3))
    result = assess(save(tmp_path / "e.tif", moved), save(tmp_path / "t.tif", truth))
    assert result.offset is not None
    np.testing.assert_allclose(
        [result.offset.east, result.offset.north, result.offset.up], [0.4, -0.3, 0.25], atol=0.03
    )


def test_assess__classes_leave_water_out(tmp_path: Path) -> None:
    truth = hills()
    codes = np.full(GRID.shape, 2, np.uint8)
    codes[:, 100:160], codes[:, 160:200] = 9, 6
    values = truth.values + np.where(codes == 6, 2, np.where(codes == 9, 50, 0)).astype(np.float32)
    classes = tmp_path / "class.tif"
    write_raster(classes, Raster(codes, GRID), nodata=0, heights=False)
    result = assess(save(tmp_path / "e.tif", Raster(values, GRID)), save(tmp_path / "t.tif", truth), classes)
    by_name = {c.name: c for c in result.classes}
    assert set(by_name) == {"all", "ground", "building"}
    assert by_name["ground"].rmse < 1e-5 and abs(by_name["building"].bias - 2) < 1e-5
    assert by_name["building"].complete_1m == 0 and by_name["building"].complete_1m_unbiased == 1
    assert by_name["all"].cells == 240 * 200


def test_assess__vertical_references(tmp_path: Path) -> None:
    truth = hills()
    reference = save(tmp_path / "t.tif", truth)
    egm96 = vertical_from_name("egm96")
    other = save(tmp_path / "e.tif", to_vertical(truth, egm96), egm96)
    result = assess(other, reference)
    assert result.classes[0].rmse < 1e-3 and "converted from egm96 to ellipsoid" in result.notes[0]
    np.testing.assert_allclose(assess(reference, other).classes[0].mae, 0, atol=1e-3)
    bare = save(tmp_path / "b.tif", truth, UNDECLARED)
    assert "estimate declares no vertical reference" in assess(bare, reference).notes[0]
    assert "reference declares no vertical reference" in assess(reference, bare).notes[0]
    assert "neither" in assess(bare, bare).notes[0]
    with pytest.raises(FrameError, match="no geoid grid"):
        assess(save(tmp_path / "g.tif", truth, Vertical("NAVD88 height")), reference)


def test_assess__bad_input(tmp_path: Path) -> None:
    reference = save(tmp_path / "t.tif", hills())
    with pytest.raises(InputFileError, match=r"no dsm\.tif"):
        assess(tmp_path, reference)
    away = Raster(hills().values, replace(GRID, west=GRID.west + 5000))
    with pytest.raises(OverlapError, match="no cell in common"):
        assess(save(tmp_path / "a.tif", away), reference)


def test_assess__agrees_with_the_independent_score_tool(tmp_path: Path, shared_data: Path) -> None:
    score = runpy.run_path(str(shared_data.parent / "tools" / "score.py"))
    folder = shared_data / "scenes" / "town" / "truth1"
    rng, truth = np.random.default_rng(1), read_raster(folder / "dsm.tif")
    values = np.roll(truth.values, (1, 2), (0, 1)) + rng.normal(0.3, 0.4, truth.grid.shape).astype(np.float32)
    values[300:380, 200:400] = np.nan
    grid = replace(truth.grid, west=truth.grid.west + 0.2, north=truth.grid.north - 0.1)
    path = save(tmp_path / "e.tif", Raster(values, grid))
    result = assess(path, folder / "dsm.tif", folder / "class.tif")
    assert [c.name for c in result.classes] == ["all", "ground", "building", "tree"]
    for figures, mask in zip(result.classes[::2], (None, (6,)), strict=True):
        expected = score["surface"](path, folder / "dsm.tif", mask, cls=folder / "class.tif")
        for key, value in expected.items():
            assert abs(getattr(figures, key) - value) < 1e-3, (figures.name, key)
    expected = score["shift"](path, folder / "dsm.tif", folder / "class.tif")
    assert result.offset is not None
    assert all(abs(getattr(result.offset, key) - value) < 1e-3 for key, value in expected.items())


def test_assess__sigma_by_class_slope_and_views(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    x = np.arange(GRID.width) * GRID.resolution
    ramp = np.where(x < 80, 0.0, np.tan(np.radians(20)) * (x - 80))  # half level, half of 20 degrees
    truth = Raster(np.tile(ramp, (GRID.height, 1)).astype(np.float32), GRID)
    wrong = np.where(np.arange(GRID.width) < 160, 1.0, 2.0).astype(np.float32)
    values = truth.values + 0.2 * wrong * rng.normal(size=GRID.shape).astype(np.float32)
    run = tmp_path / "run"
    save(run / "dsm.tif", Raster(values, GRID))
    save(run / "dsm_sigma.tif", Raster(np.full(GRID.shape, 0.2, np.float32), GRID), heights=False)
    reference = save(tmp_path / "truth.tif", truth)
    views = np.where(np.arange(GRID.height)[:, None] < 150, 3, 2) + np.zeros(GRID.shape, np.int64)
    result = assess(run, reference, seen=lambda _: views)
    shares = {s.name: s for s in result.sigma}
    assert set(shares) == {"all, 0 to 5 deg", "all, 5 to 15 deg", "all, 15 to 30 deg", "all, seen by 2 views",
                           "all, seen by 3 views"}  # fmt: skip
    np.testing.assert_allclose(shares["all, 0 to 5 deg"].coverage, (0.683, 0.9, 0.95), atol=0.02)
    np.testing.assert_allclose(shares["all, 15 to 30 deg"].coverage, (0.383, 0.589, 0.673), atol=0.02)
    assert shares["all, seen by 2 views"].cells == shares["all, seen by 3 views"].cells
    head, rows = result.sigma_table()
    assert len(rows) == 5 and all(len(r) == len(head) for r in rows)
    assert assess(run / "dsm.tif", reference).sigma == ()
