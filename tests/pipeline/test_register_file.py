"""A surface from elsewhere, displaced, put back by lidar; what cannot be registered is refused in one line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from terrain3d.crs import ELLIPSOID, UNDECLARED, Reference, vertical_from_name
from terrain3d.errors import ConfigError, FrameError, LidarError
from terrain3d.io.geoid import to_vertical
from terrain3d.io.rasters import HEIGHT_NODATA, read_raster, write_raster
from terrain3d.pipeline.progress import Silent
from terrain3d.pipeline.register_file import run_register
from terrain3d.raster import Raster
from terrain3d.simulate import world as worlds
from terrain3d.simulate.granules import write_atl08
from terrain3d.simulate.scene import write_truth

pytestmark = pytest.mark.slow  # a world is made
EAST, NORTH, UP = 3.0, -2.0, 4.2


@dataclass(frozen=True)
class Ridge:
    lidar: list[Path]
    dsm: Raster


@pytest.fixture(scope="module")
def ridge(tmp_path_factory: pytest.TempPathFactory) -> Ridge:
    folder = tmp_path_factory.mktemp("ridge")
    world = worlds.mountain(5, 400)
    lidar = [folder / "ATL08_1.h5", folder / "ATL08_2.h5"]
    write_atl08(lidar[0], world, 5, heading_deg=352.0, time_s=2.00e8)
    write_atl08(lidar[1], world, 6, heading_deg=188.0, time_s=2.04e8)
    (folder / "truth").mkdir()
    write_truth(folder / "truth", world, 1.0)
    return Ridge(lidar, read_raster(folder / "truth" / "dsm.tif"))


def displaced(ridge: Ridge, path: Path, vertical: str = "ellipsoid") -> Path:
    """The true surface, moved, as a file over a vertical reference; with a sigma of 0.3 m."""
    grid = ridge.dsm.grid
    moved = replace(
        grid, west=grid.west + EAST, north=grid.north + NORTH, reference=Reference(grid.reference.horizontal, ELLIPSOID)
    )
    raster = Raster(ridge.dsm.values + np.float32(UP), moved)
    write_raster(path, to_vertical(raster, vertical_from_name(vertical)), nodata=HEIGHT_NODATA)
    spread = Raster(
        np.full(grid.shape, 0.3, np.float32), replace(moved, reference=Reference(moved.reference.horizontal))
    )
    write_raster(path.with_name(f"{path.stem}_sigma.tif"), spread, nodata=HEIGHT_NODATA, heights=False)
    return path


def test_register__puts_a_displaced_surface_back(ridge: Ridge, tmp_path: Path) -> None:
    given = displaced(ridge, tmp_path / "old.tif", "egm96")
    made = run_register(given, ridge.lidar, tmp_path / "out", Silent())
    found = np.array([made.registration.dx + EAST, made.registration.dy + NORTH])
    assert (np.abs(found) < 3 * np.sqrt(np.diag(made.registration.covariance)[:2])).all() and np.abs(found).max() < 1.2
    back = read_raster(tmp_path / "out" / "dsm.tif")
    assert back.grid == read_raster(given).grid and back.grid.reference.vertical.name == "egm96"
    x, y = (a.ravel() for a in np.meshgrid(*ridge.dsm.grid.window(40, 40, 300, 300).centres()))
    off = to_vertical(back, ELLIPSOID).sample(x, y) - ridge.dsm.sample(x, y)
    assert abs(np.nanmedian(off)) < 2 * np.sqrt(made.registration.covariance[2, 2]) < 0.4
    sigma = read_raster(tmp_path / "out" / "dsm_sigma.tif").values
    assert 0.3 < np.nanmedian(sigma) < 0.6
    # a place is known to some decimetres only, which is nothing on level ground
    south, east = np.gradient(back.values.astype(float), back.grid.resolution)
    slope, sideways = np.hypot(south, east), float(np.sqrt(np.diag(made.registration.covariance)[:2].min()))
    steep, level = (float(np.nanmedian(sigma[rows])) for rows in ((slope > 0.5) & (slope < 1.0), slope < 0.1))
    assert 0.3 < level < np.hypot(0.3, 0.2) and steep > np.hypot(level, 0.3 * sideways) > level + 0.01
    assert {p.name for p in (tmp_path / "out").iterdir()} == set(made.files)


def test_register__refuses_what_it_cannot_place(ridge: Ridge, tmp_path: Path) -> None:
    given = displaced(ridge, tmp_path / "dsm.tif")
    with pytest.raises(ConfigError, match="would overwrite"):
        run_register(given, ridge.lidar, tmp_path, Silent())
    raster = read_raster(given)
    bare = Raster(
        raster.values, replace(raster.grid, reference=Reference(raster.grid.reference.horizontal, UNDECLARED))
    )
    write_raster(tmp_path / "bare.tif", bare, nodata=HEIGHT_NODATA)
    with pytest.raises(FrameError, match="declares no vertical reference"):
        run_register(tmp_path / "bare.tif", ridge.lidar, tmp_path / "out", Silent())
    far = Raster(raster.values, replace(raster.grid, north=raster.grid.north + 50_000))
    write_raster(tmp_path / "far.tif", far, nodata=HEIGHT_NODATA)
    with pytest.raises(LidarError, match="km away"):
        run_register(tmp_path / "far.tif", ridge.lidar, tmp_path / "out", Silent())
    assert not (tmp_path / "out").exists()
