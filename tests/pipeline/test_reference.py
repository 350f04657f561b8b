"""A large void filled from a DEM that lies elsewhere, over another reference, and is coarser."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine

from terrain3d.config import Scene, load_scene
from terrain3d.crs import ELLIPSOID, Reference, from_lonlat, to_lonlat, vertical_from_name
from terrain3d.errors import FrameError, OverlapError
from terrain3d.io.geoid import to_vertical
from terrain3d.io.rasters import HEIGHT_NODATA, write_raster
from terrain3d.io.scratch import StoredRaster, new_raster
from terrain3d.pipeline import blocks
from terrain3d.pipeline.blocks import aligned
from terrain3d.pipeline.height_files import open_heights, over
from terrain3d.pipeline.load import load_reference
from terrain3d.pipeline.model import Extent
from terrain3d.pipeline.progress import Silent
from terrain3d.pipeline.reference import far_off, fill_from_reference
from terrain3d.raster import Grid, Raster
from terrain3d.simulate.scene import SceneFiles
from terrain3d.surface.mask import MaskCode

GRID = aligned(Grid(Reference("EPSG:32654"), 300_000.0, 4_000_000.0, 1.0, 600, 600))
VOID = np.s_[250:400, 200:380]


def hills(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x - 300_000, y - 4_000_000
    return 200 + 25 * np.sin(x / 60) * np.cos(y / 75) + 8 * np.sin(x / 23 + y / 31) + 0.05 * x


def dem(path: Path, east: float = 0.0, north: float = 0.0, up: float = 0.0) -> Path:
    """The hills in 5 m cells, noisy, displaced, heights over EGM96."""
    grid = Grid(Reference("EPSG:32654"), 299_900.0, 4_000_100.0, 5.0, 200, 200)
    x, y = np.meshgrid(*grid.centres())
    noise = cv2.GaussianBlur(np.random.default_rng(1).normal(0, 6, x.shape), (0, 0), 2.0)
    z = (hills(x - east, y - north) + up + noise).astype(np.float32)
    write_raster(path, to_vertical(Raster(z, grid), vertical_from_name("egm96")), nodata=HEIGHT_NODATA)
    return path


def filled(
    folder: Path, path: Path, reporter: Silent | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Heights, sigma, mask and truth."""
    x, y = np.meshgrid(*GRID.centres())
    truth = hills(x, y).astype(np.float32)
    z = truth + np.random.default_rng(2).normal(0, 0.15, truth.shape).astype(np.float32)
    z[VOID] = np.nan
    z[:, :20] = np.nan  # outside the scene

    def stored(name: str, values: np.ndarray) -> StoredRaster:
        raster = new_raster(folder / name, GRID, values.dtype)
        raster.write(0, 0, values)
        return raster

    known = np.isfinite(z)
    dsm, sigma = stored("dsm", z), stored("sigma", np.where(known, np.float32(0.2), np.float32(np.nan)))
    mask = stored("mask", np.where(known, MaskCode.MEASURED, MaskCode.NODATA).astype(np.uint8))
    first, last = (np.full(GRID.height, n) for n in (20, GRID.width - 1))
    file = over(open_heights(path, metres=False), ELLIPSOID)[0]
    fill_from_reference(dsm, sigma, mask, Extent.of(first, last, GRID), file, 2, Silent())
    return *(r.read(0, 0, *GRID.shape) for r in (dsm, sigma, mask)), truth


@pytest.mark.parametrize("size", [1536, 200])
def test_fill__a_displaced_dem_over_a_geoid(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CELLS", size)
    z, sigma, mask, truth = filled(tmp_path, dem(tmp_path / "dem.tif", 7.0, -4.0, 12.0))
    assert (mask[VOID] == MaskCode.REFERENCE).all() and (mask[:, :20] == MaskCode.NODATA).all()
    assert (mask == MaskCode.REFERENCE).sum() == z[VOID].size and np.isnan(z[:, :20]).all()
    error = (z - truth)[VOID]
    assert abs(np.median(error)) < 0.4 and np.std(error) < 1.2
    assert 0.5 < sigma[VOID].mean() / np.std(error) < 2 and sigma[VOID].min() > 0.2
    step = np.abs(z[VOID][0] - z[VOID[0].start - 1, VOID[1]]) - np.abs(np.diff(truth, axis=0)).max()
    assert np.median(step) < 0.5  # no wall at the rim


def test_fill__a_global_model_in_degrees(tmp_path: Path) -> None:
    """Beyond 50 degrees of latitude the cells of such models are wider (in degrees) than high."""
    lon, lat = to_lonlat("EPSG:32654", np.array([299_900.0]), np.array([4_000_100.0]))
    wide, high = 1.5 * 6 / 111_320, 6 / 111_320
    x, y = np.meshgrid(lon[0] + wide * (np.arange(140) + 0.5), lat[0] - high * (np.arange(160) + 0.5))
    z = hills(*from_lonlat("EPSG:32654", x, y)).astype(np.float32)
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": 160, "width": 140, "crs": "EPSG:4979"}
    with rasterio.open(tmp_path / "d.tif", "w", transform=Affine(wide, 0, lon[0], 0, -high, lat[0]), **profile) as file:
        file.write(z + np.float32(5), 1)
    result, _, mask, truth = filled(tmp_path, tmp_path / "d.tif")
    assert (mask[VOID] == MaskCode.REFERENCE).all()
    assert abs(np.median((result - truth)[VOID])) < 0.1 and np.std((result - truth)[VOID]) < 0.7


def test_fill__a_dem_elsewhere_is_an_error(tmp_path: Path) -> None:
    grid = Grid(Reference("EPSG:32654"), 500_000.0, 4_000_100.0, 5.0, 20, 20)
    write_raster(tmp_path / "far.tif", Raster(np.ones((20, 20), np.float32), grid), nodata=HEIGHT_NODATA)
    with pytest.raises(OverlapError, match=r"far\.tif: reference DEM has no heights over the scene"):
        filled(tmp_path, tmp_path / "far.tif")


def test_load_reference__its_heights_must_be_known(hamlet: SceneFiles, tmp_path: Path) -> None:
    bare = Raster(np.ones((20, 20), np.float32), Grid(Reference("EPSG:32654"), 3e5, 4e6, 5.0, 20, 20))
    write_raster(tmp_path / "bare.tif", bare, nodata=HEIGHT_NODATA, heights=False)
    content = yaml.safe_load(hamlet.config.read_text()) | {"lidar": []}

    def scene(entry: object) -> Scene:
        path = hamlet.folder / "reference.yaml"
        path.write_text(yaml.safe_dump({**content, "reference_dem": entry}))
        return load_scene(path)

    with pytest.raises(FrameError, match="declares no vertical reference; state it"):
        load_reference(scene(str(tmp_path / "bare.tif")))
    stated = scene({"path": str(tmp_path / "bare.tif"), "vertical": "egm96"})
    file = load_reference(stated)
    assert (
        file is not None and file.vertical is ELLIPSOID and stated.completed()["reference_dem"]["vertical"] == "egm96"
    )
    assert file.read(0, 0, 20, 20).values.mean() > 20  # the undulation is added
    path = dem(tmp_path / "declared.tif")
    assert load_reference(scene(str(path))) is not None
    with pytest.raises(FrameError, match=r"declares heights over egm96, reference_dem\.vertical is ellipsoid"):
        load_reference(scene({"path": str(path), "vertical": "ellipsoid"}))
    assert load_reference(scene(None)) is None


def test_far_off__a_dem_far_above_or_below_is_warned_of(tmp_path: Path) -> None:
    grid = Grid(GRID.reference, GRID.west, GRID.north, 10.0, 60, 60)
    x, y = np.meshgrid(*grid.centres())
    seen = Raster(hills(x, y).astype(np.float32), grid)
    for up, says in ((12.0, None), (-60.0, "lies 60 m above the reference"), (60.0, "lies 60 m below the reference")):
        line = far_off(seen, over(open_heights(dem(tmp_path / "dem.tif", up=up), metres=False), ELLIPSOID)[0])
        assert line is None if says is None else line is not None and says in line
