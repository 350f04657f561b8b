from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import CRS
from rasterio.crs import CRS as RasterioCRS

from terrain3d.crs import ELLIPSOID, UNDECLARED, Reference, Vertical, vertical_from_name
from terrain3d.errors import FrameError, InputFileError, OutputError
from terrain3d.io.rasters import HEIGHT_NODATA, read_classes, read_grid, read_raster, write_raster, write_strips
from terrain3d.io.warp import resample
from terrain3d.raster import Grid, Raster

EGM96 = vertical_from_name("egm96")


def make(vertical: Vertical = ELLIPSOID, horizontal: str = "EPSG:32654", size: int = 40) -> Raster:
    grid = Grid(Reference(horizontal, vertical), 500000.0, 4000000.0, 0.5, size, size + 4)
    values = np.random.default_rng(1).normal(100, 20, grid.shape).astype(np.float32)
    values[3:6, 4:9] = np.nan
    return Raster(values, grid)


@pytest.mark.parametrize("vertical", [ELLIPSOID, EGM96, UNDECLARED, Vertical("my_geoid")])
def test_write_raster__round_trip_with_vertical_reference(tmp_path: Path, vertical: Vertical) -> None:
    raster = make(vertical)
    write_raster(tmp_path / "a.tif", raster, nodata=HEIGHT_NODATA, band_names=["height"], tags={"SOURCE": "test"})
    back = read_raster(tmp_path / "a.tif")
    assert back.grid == raster.grid
    np.testing.assert_array_equal(back.values, raster.values)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]  # the CRS is in the file itself, not in an .aux.xml
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.nodata == HEIGHT_NODATA and file.read(1)[3, 4] == HEIGHT_NODATA
        assert file.tags()["AREA_OR_POINT"] == "Area" and file.tags()["SOURCE"] == "test"
        assert file.descriptions == ("height",)


def test_write_strips__is_the_file_of_the_whole(tmp_path: Path) -> None:
    raster = make(size=1300)
    options = {"nodata": HEIGHT_NODATA, "band_names": ("height",), "tags": {"SOURCE": "test"}}
    write_raster(tmp_path / "whole.tif", raster, **options)
    strips = ((top, raster.values[top : top + 300]) for top in range(0, 1300, 300))
    write_strips(tmp_path / "parts.tif", raster.grid, strips, np.float32, **options)
    assert (tmp_path / "parts.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"parts.tif", "whole.tif"}


def test_write_strips__an_error_among_them_leaves_nothing(tmp_path: Path) -> None:
    def strips() -> Iterator[tuple[int, np.ndarray]]:
        yield 0, np.zeros((20, 44), np.float32)
        raise OutputError("full", where=tmp_path)

    with pytest.raises(OutputError, match="full"):
        write_strips(tmp_path / "a.tif", make().grid, strips(), np.float32, nodata=None)
    assert not list(tmp_path.iterdir())


def test_write_raster__vertical_reference_as_other_readers_see_it(tmp_path: Path) -> None:
    expected = {ELLIPSOID: (3, None), EGM96: (3, 5773), UNDECLARED: (2, None)}
    for vertical, (axes, height_code) in expected.items():
        write_raster(tmp_path / "a.tif", make(vertical), nodata=HEIGHT_NODATA)
        with rasterio.open(tmp_path / "a.tif") as file:
            crs = CRS.from_wkt(file.crs.to_wkt(version="WKT2_2019"))
        assert len(crs.axis_info) == axes
        assert (crs.sub_crs_list[1].to_epsg() if crs.is_compound else None) == height_code
    write_raster(tmp_path / "a.tif", make(ELLIPSOID), nodata=HEIGHT_NODATA)
    with rasterio.open(tmp_path / "a.tif") as file:
        crs = CRS.from_wkt(file.crs.to_wkt(version="WKT2_2019"))
    assert crs.geodetic_crs.to_epsg() == 4979 and crs.axis_info[2].name.lower() == "ellipsoidal height"


def test_write_raster__bigtiff_keeps_the_ellipsoid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from terrain3d.io import geokeys

    path = tmp_path / "big.tif"
    crs = CRS.from_user_input("EPSG:32654+5773")
    profile = {"driver": "GTiff", "height": 4, "width": 4, "count": 1, "dtype": "uint8", "BIGTIFF": "YES"}
    for extra in ({}, {"ENDIANNESS": "BIG"}):
        with rasterio.open(
            path, "w", crs=RasterioCRS.from_wkt(crs.to_wkt()), transform=Affine(1, 0, 0, 0, -1, 0), **profile, **extra
        ) as file:
            file.write(np.ones((1, 4, 4), np.uint8))
        geokeys.replace_vertical_key(path, 5773, 4979)
        assert read_grid(path).reference.vertical == ELLIPSOID


@pytest.mark.parametrize("horizontal", ["EPSG:25832", "EPSG:4326", "EPSG:2154"])
def test_write_raster__ellipsoid_over_other_frames(tmp_path: Path, horizontal: str) -> None:
    raster = make(ELLIPSOID, horizontal)
    if horizontal == "EPSG:4326":
        raster = Raster(raster.values, replace(raster.grid, west=10.0, north=50.0, resolution=1e-4))
    write_raster(tmp_path / "a.tif", raster, nodata=HEIGHT_NODATA)
    assert read_grid(tmp_path / "a.tif").reference == Reference(horizontal, ELLIPSOID)


def test_write_raster__no_heights_has_no_vertical_part(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", make(ELLIPSOID), nodata=HEIGHT_NODATA, heights=False)
    assert read_grid(tmp_path / "a.tif").reference.vertical == UNDECLARED


def test_write_raster__is_cloud_optimized_with_matching_overviews(tmp_path: Path) -> None:
    heights = make(size=1100)
    write_raster(tmp_path / "h.tif", heights, nodata=HEIGHT_NODATA)
    codes = Raster(np.random.default_rng(2).choice([2, 6, 9], heights.grid.shape).astype(np.uint8), heights.grid)
    write_raster(tmp_path / "c.tif", codes, nodata=0, heights=False)
    for name in ("h.tif", "c.tif"):
        with rasterio.open(tmp_path / name) as file:
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert file.block_shapes[0] == (368, 368) and file.overviews(1) == [2, 4]
    with rasterio.open(tmp_path / "h.tif", overview_level=0) as file:
        np.testing.assert_allclose(file.read(1)[0, 0], heights.values[:2, :2].mean(), rtol=1e-5)
    with rasterio.open(tmp_path / "c.tif", overview_level=1) as file:
        assert set(np.unique(file.read(1))) == {2, 6, 9}


def test_read_raster__corner_is_of_the_pixel_not_its_centre(tmp_path: Path) -> None:
    raster = make()
    write_raster(tmp_path / "a.tif", raster, nodata=HEIGHT_NODATA)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert (file.bounds.left, file.bounds.top) == (500000.0, 4000000.0)
        assert file.xy(0, 0) == (500000.25, 3999999.75)
    assert read_raster(tmp_path / "a.tif").sample(500000.25, 3999999.75) == raster.values[0, 0]


def test_read_raster__window(tmp_path: Path) -> None:
    raster = make()
    write_raster(tmp_path / "a.tif", raster, nodata=HEIGHT_NODATA)
    part = read_raster(tmp_path / "a.tif", window=(2, 4, 10, 12))
    np.testing.assert_array_equal(part.values, raster.values[2:12, 4:16])
    assert part.grid == raster.grid.window(2, 4, 10, 12)
    with pytest.raises(ValueError, match="window"):
        read_raster(tmp_path / "a.tif", window=(35, 0, 10, 10))


def test_read_raster__integers_scale_and_offset(tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=1, width=3, count=1, dtype="int16", nodata=-32768,
        crs="EPSG:32631", transform=Affine(1, 0, 0, 0, -1, 0),
    ) as file:  # fmt: skip
        file.write(np.array([[[10, -32768, 30]]], np.int16))
        file.scales, file.offsets = (0.5,), (100.0,)
    np.testing.assert_array_equal(read_raster(tmp_path / "a.tif").values, np.float32([[105, np.nan, 115]]))
    assert read_classes(tmp_path / "a.tif").values.dtype == np.int16


def write_plain(path: Path, transform: Affine, crs: str | None = "EPSG:32631") -> None:
    profile = {"driver": "GTiff", "height": 4, "width": 4, "count": 1, "dtype": "float32"}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as file:
        file.write(np.ones((1, 4, 4), np.float32))


def test_read_raster__frames_that_do_not_do(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_plain(path, Affine(1, 0, 0, 0, -1, 0), None)
    with pytest.raises(FrameError, match="no CRS"):
        read_raster(path)
    for transform in (
        Affine.rotation(10) @ Affine(1, 0, 0, 0, -1, 0),
        Affine(1, 0, 0, 0, -2, 0),
        Affine(1, 0, 0, 0, 1, 0),
    ):
        write_plain(path, transform)
        with pytest.raises(FrameError, match="north-up"):
            read_raster(path)


def test_read_raster__bad_files(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with pytest.raises(InputFileError, match="no such file"):
        read_raster(path)
    path.write_text("not a raster")
    with pytest.raises(InputFileError, match=r"a\.tif: is truncated or damaged"):
        read_raster(path)
    write_raster(path, make(size=600), nodata=HEIGHT_NODATA)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputFileError) as caught:
        read_raster(path)
    assert len(str(caught.value).splitlines()) == 1
    write_raster(path, make(), nodata=HEIGHT_NODATA)
    with pytest.raises(InputFileError, match="not a band 2"):
        read_raster(path, 2)
    with pytest.raises(InputFileError, match="not classes"):
        read_classes(path)


def test_write_raster__unwritable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_raster(tmp_path / "file" / "a.tif", make(), nodata=HEIGHT_NODATA)


def test_resample__shifts_by_position_and_never_in_height() -> None:
    x, y = np.meshgrid(np.arange(60.0), np.arange(50.0))
    grid = Grid(Reference("EPSG:32654", EGM96), 500000, 4000000, 0.5, 50, 60)
    plane = Raster((0.1 * x + 0.2 * y).astype(np.float32), grid)
    target = Grid(Reference("EPSG:32654", ELLIPSOID), 500005.25, 3999995.0, 1.0, 10, 12)
    out = resample(plane, target)
    xs, ys = target.centres()
    expected = plane.sample(*np.meshgrid(xs, ys))
    np.testing.assert_allclose(out.values, expected, atol=2e-2)
    assert out.grid.reference.vertical == EGM96


def test_score_tool__sees_no_vertical_shift(tmp_path: Path, shared_data: Path) -> None:
    """GDAL's own warp between the three-dimensional, the compound and the flat CRS leaves heights alone."""
    from rasterio.warp import reproject

    truth = shared_data / "scenes" / "town" / "truth1" / "dsm.tif"
    raster = read_raster(truth, window=(0, 0, 200, 200))
    for vertical in (ELLIPSOID, EGM96):
        path = tmp_path / "a.tif"
        grid = replace(raster.grid, reference=Reference(raster.grid.reference.horizontal, vertical))
        write_raster(path, Raster(raster.values, grid), nodata=HEIGHT_NODATA)
        with rasterio.open(path) as a, rasterio.open(truth) as b:
            for source, target in ((a, b), (b, a)):
                out = np.full((200, 200), np.nan, np.float32)
                reproject(
                    raster.values, out, src_transform=source.transform, src_crs=source.crs,
                    dst_transform=target.transform, dst_crs=target.crs, dst_nodata=np.nan,
                )  # fmt: skip
                np.testing.assert_allclose(out, raster.values, atol=1e-3)


def test_raster_file__windows_are_read_without_the_crs(tmp_path, monkeypatch):
    """Threads read blocks at once, and once a thread that asked for the CRS of a file got none."""
    from terrain3d.io.raster_file import raster_file

    raster = make()
    write_raster(tmp_path / "z.tif", raster, nodata=HEIGHT_NODATA)
    file = raster_file(tmp_path / "z.tif")

    def asked(*_: object) -> None:
        raise AssertionError("a window asked for the CRS")

    monkeypatch.setattr("terrain3d.io.rasters._grid", asked)
    np.testing.assert_array_equal(file.read(2, 3, 10, 12), raster.values[2:12, 3:15])


def test_read_raster__refuses_an_absurd_number_of_bands(tmp_path: Path) -> None:
    grid = Grid(Reference("EPSG:32632"), 6e5, 5e6, 0.5, 2, 2)
    write_raster(tmp_path / "many.tif", Raster(np.zeros((1025, 2, 2), np.uint8), grid), nodata=None, heights=False)
    with pytest.raises(InputFileError, match="has 1025 bands"):
        read_raster(tmp_path / "many.tif")


def test_read_raster__wide_cells_of_a_model_in_degrees_are_seen_as_square(tmp_path: Path) -> None:
    wide, high = 3 / 3600, 2 / 3600
    z = np.add.outer(2.0 * np.arange(50), 3.0 * np.arange(40)).astype(np.float32)
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": 50, "width": 40, "crs": "EPSG:4326"}
    with rasterio.open(tmp_path / "a.tif", "w", transform=Affine(wide, 0, 10, 0, -high, 55), **profile) as file:
        file.write(z, 1)
    found = read_raster(tmp_path / "a.tif")
    assert found.grid.shape == (50, 60) and found.grid.bounds == pytest.approx((10, 55 - 50 * high, 10 + 40 * wide, 55))
    assert found.grid.cell_metres == pytest.approx(61.84, abs=0.01)
    x, y = found.grid.centres()
    truth = np.add.outer((55 - y) * 3600 - 1, (x - 10) * 3600 - 1.5)
    np.testing.assert_allclose(found.values[:, 1:-1], truth[:, 1:-1], atol=1e-3)
    part = read_raster(tmp_path / "a.tif", window=(20, 10, 5, 6))
    np.testing.assert_array_equal(part.values, found.values[20:25, 10:16])


@pytest.mark.parametrize("dtype, hole", [
    ("int16", -32768), ("int16", -9999), ("float32", -9999), ("float32", -3.4028234663852886e38), ("float64", -1e30),
])  # fmt: skip
def test_read_raster__what_stands_for_no_value_undeclared_is_no_height(tmp_path: Path, dtype: str, hole: float) -> None:
    values = np.full((20, 30), 120, dtype)
    values[3, 4] = hole
    path = _plain_tif(tmp_path / "dem.tif", values)
    read = read_raster(path).values
    assert np.isnan(read[3, 4]) and np.isfinite(read).sum() == read.size - 1
    assert np.nanmax(read) == np.nanmin(read) == 120


def test_read_raster__least_integer_is_no_height_after_scaling(tmp_path: Path) -> None:
    values = np.full((20, 30), 1200, np.int16)
    values[3, 4] = -32768
    path = _plain_tif(tmp_path / "decimetres.tif", values)
    with rasterio.open(path, "r+") as file:
        file.scales = (0.1,)
    read = read_raster(path).values
    assert np.isnan(read[3, 4]) and np.nanmin(read) == pytest.approx(120.0)


def test_read_raster__feet_of_the_vertical_crs_or_of_the_band_become_metres(tmp_path: Path) -> None:
    values = np.full((20, 30), 1000.0, np.float32)
    navd88_feet = _plain_tif(tmp_path / "navd88.tif", values, "EPSG:32654+8228")
    read = read_raster(navd88_feet)
    np.testing.assert_allclose(read.values, 304.8, rtol=1e-6)
    assert read.grid.reference.vertical.name == "NAVD88 height"
    band = _plain_tif(tmp_path / "band.tif", values)
    with rasterio.open(band, "r+") as file:
        file.units = ("US survey foot",)
    np.testing.assert_allclose(read_raster(band).values, 1000 * 1200 / 3937, rtol=1e-6)


def _plain_tif(path: Path, values: np.ndarray, crs: str = "EPSG:32654") -> Path:
    profile = {
        "driver": "GTiff",
        "count": 1,
        "dtype": values.dtype,
        "crs": crs,
        "transform": Affine(1, 0, 3e5, 0, -1, 4e6),
    }
    with rasterio.open(path, "w", height=values.shape[0], width=values.shape[1], **profile) as file:
        file.write(values, 1)
    return path


def test_read_raster__a_picture_is_no_height(tmp_path: Path) -> None:
    path = tmp_path / "ortho.tif"
    profile = {
        "driver": "GTiff",
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32654",
        "transform": Affine(1, 0, 3e5, 0, -1, 4e6),
    }
    with rasterio.open(path, "w", height=20, width=30, **profile) as file:
        file.write(np.full((3, 20, 30), 90, np.uint8))
    with pytest.raises(InputFileError, match="a picture of 3 bands of 8 bits, not heights"):
        read_raster(path)
