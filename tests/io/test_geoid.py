from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from terrain3d.crs import ELLIPSOID, UNDECLARED, Reference, Vertical, to_lonlat, vertical_from_name
from terrain3d.errors import FrameError
from terrain3d.io.geoid import convert_heights, to_vertical, undulation, undulation_on
from terrain3d.raster import Grid, Raster

EGM96 = vertical_from_name("egm96")
# Test points of NGA's EGM96 interpolation program (OUTINTPT.DAT): latitude, longitude, undulation
NGA = np.array(
    [
        [38.6281550, 269.7791550, -31.628],
        [-14.6212170, 305.0211140, -2.969],
        [46.8743190, 102.4487290, -43.575],
        [-23.6174460, 133.8747120, 15.871],
        [38.6254730, 359.9995000, 50.066],
        [-0.4667440, 0.0023000, 17.329],
    ]
)


@pytest.mark.parametrize("turn", [-360.0, 0.0, 360.0])
def test_undulation__egm96_published_points(turn: float) -> None:
    n = undulation(EGM96, NGA[:, 1] + turn, NGA[:, 0])
    np.testing.assert_allclose(n, NGA[:, 2], atol=0.012)


def test_undulation__is_continuous_around_the_earth_and_at_the_poles() -> None:
    for seam in (180.0, 0.0, -0.125, 179.875):
        west, east = undulation(EGM96, [seam - 1e-6, seam + 1e-6], [10.0, 10.0])
        assert abs(west - east) < 1e-4
    np.testing.assert_allclose(undulation(EGM96, [0.0, 123.0], [90.0, 90.0]), 13.606, atol=1e-2)
    np.testing.assert_allclose(undulation(EGM96, 0.0, -90.0), -29.534, atol=1e-2)


def test_undulation__off_the_earth_or_without_grid() -> None:
    with pytest.raises(FrameError, match="no value at longitude 5"):
        undulation(EGM96, 5.0, 91.0)
    with pytest.raises(FrameError):
        undulation(EGM96, float("nan"), 10.0)
    with pytest.raises(FrameError, match="no geoid grid"):
        undulation(Vertical("NAVD88 height"), 5.0, 45.0)
    with pytest.raises(FrameError, match="no declared vertical"):
        undulation(UNDECLARED, 5.0, 45.0)


def test_undulation__regional_grid_outside_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "local.tif"
    profile = {"driver": "GTiff", "height": 5, "width": 5, "count": 1, "dtype": "float32", "crs": "EPSG:4326"}
    with rasterio.open(path, "w", transform=Affine(0.1, 0, 9.95, 0, -0.1, 50.05), **profile) as file:
        file.write(np.arange(25, dtype=np.float32).reshape(1, 5, 5))
    local = vertical_from_name(str(path))
    np.testing.assert_allclose(undulation(local, [10.0, 10.1, 10.25], [50.0, 49.9, 49.8]), [0.0, 6.0, 12.5], atol=1e-4)
    with pytest.raises(FrameError, match="covers the area"):
        undulation(local, 10.5, 49.8)


def test_convert_heights__sign() -> None:
    lon, lat, n = 359.9995, 38.625473, 50.066  # the geoid lies 50 m over the ellipsoid
    np.testing.assert_allclose(convert_heights(lon, lat, 100.0, ELLIPSOID, EGM96), 100 - n, atol=0.012)
    np.testing.assert_allclose(convert_heights(lon, lat, 100.0, EGM96, ELLIPSOID), 100 + n, atol=0.012)
    out = convert_heights([lon, 0.0], [lat, 95.0], [1.0, np.nan], ELLIPSOID, EGM96)
    assert np.isfinite(out[0]) and np.isnan(out[1])


def test_to_vertical__round_trip_and_point_by_point() -> None:
    grid = Grid(Reference("EPSG:32654", ELLIPSOID), 293402, 3915683, 5.0, 300, 333)
    values = np.full(grid.shape, 120.0, np.float32)
    values[5, 6] = np.nan
    raster = Raster(values, grid)
    orthometric = to_vertical(raster, EGM96)
    x, y = grid.centres()
    lon, lat = to_lonlat("EPSG:32654", *np.meshgrid(x, y))
    np.testing.assert_allclose(orthometric.values, convert_heights(lon, lat, values, ELLIPSOID, EGM96), atol=1e-3)
    assert orthometric.grid.reference.vertical == EGM96 and 78 < np.nanmean(orthometric.values) < 80  # N is 41 m
    np.testing.assert_allclose(to_vertical(orthometric, ELLIPSOID).values, values, atol=2e-5)
    assert to_vertical(raster, ELLIPSOID) is raster


def test_to_vertical__undeclared_is_refused() -> None:
    raster = Raster(np.ones((2, 2), np.float32), Grid(Reference("EPSG:32654", UNDECLARED), 5e5, 4e6, 1, 2, 2))
    with pytest.raises(FrameError, match="no declared vertical"):
        to_vertical(raster, EGM96)
    assert not UNDECLARED.is_ellipsoid and Reference("EPSG:32654", UNDECLARED).compound().to_epsg() == 32654


def test_undulation_on__nodes_are_dense_enough() -> None:
    grid = Grid(Reference("EPSG:32645", EGM96), 450000, 3100000, 10.0, 700, 650)  # Himalaya: a steep geoid
    x, y = grid.centres()
    exact = undulation(EGM96, *to_lonlat("EPSG:32645", *np.meshgrid(x, y)))
    assert np.ptp(exact) > 0.3 and np.abs(undulation_on(grid, EGM96) - exact).max() < 1e-3


def write_grid(path: Path, west: float, driver: str, **tags: float) -> None:
    """Undulations of 20 m and more, 0.1 degrees apart, on 5 x 5 nodes from ``west`` and 50 degrees north."""
    values = 20 + np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    profile = {"driver": driver, "height": 5, "width": 5, "count": 1, "dtype": "float32", "crs": "EPSG:4326"}
    if tags:
        values, profile["dtype"] = (values / tags["scale"]).astype(np.int16), "int16"
    with rasterio.open(path, "w", transform=Affine(0.1, 0, west - 0.05, 0, -0.1, 50.05), **profile) as file:
        file.write(values)
        if tags:
            file.scales, file.offsets = (tags["scale"],), (tags["offset"],)


@pytest.mark.parametrize(("name", "driver"), [("local.gtx", "GTX"), ("local.tif", "GTiff")])
@pytest.mark.parametrize("west", [10.0, -170.2, 179.8, 349.8])
def test_undulation__grid_of_ones_own_at_any_turn(tmp_path: Path, name: str, driver: str, west: float) -> None:
    write_grid(tmp_path / name, west, driver)
    local = vertical_from_name(name, tmp_path)
    assert local.name == "local"
    for turn in (-360.0, 0.0, 360.0):
        n = undulation(local, west + np.array([0.0, 0.1, 0.4]) + turn, [50.0, 49.9, 49.6])
        np.testing.assert_allclose(n, [20.0, 26.0, 44.0], atol=1e-3)
    with pytest.raises(FrameError, match="use a grid that covers the area"):
        undulation(local, west + 180, 49.9)


def test_undulation__scaled_integers(tmp_path: Path) -> None:
    write_grid(tmp_path / "scaled.tif", 10.0, "GTiff", scale=0.01, offset=5.0)
    assert undulation(vertical_from_name("scaled.tif", tmp_path), 10.0, 50.0) == pytest.approx(25.0, abs=1e-4)
