from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely

from terrain3d.crs import ELLIPSOID, UNDECLARED, Reference
from terrain3d.errors import ConfigError, InputFileError
from terrain3d.info import describe, view_of
from terrain3d.io.atomic import write_json, write_text
from terrain3d.io.clouds import write_cloud
from terrain3d.io.rasters import HEIGHT_NODATA, write_raster
from terrain3d.io.vectors import NamedLayer, read_layer, write_layer, write_layers
from terrain3d.points import PointCloud
from terrain3d.raster import Grid, Raster


def tilted_rpc() -> rasterio.rpc.RPC:
    """A linear camera: 0.5 m pixels at 45 N, leaning so that height moves the image point towards smaller lines."""
    unit = np.eye(20)
    lat_scale, lon_scale = 250 / 111_132.0, 250 / 78_847.0  # 500 px of 0.5 m
    return rasterio.rpc.RPC(
        height_off=100.0, height_scale=100.0, lat_off=45.0, lat_scale=lat_scale, long_off=7.0, long_scale=lon_scale,
        line_off=499.5, line_scale=500.0, samp_off=499.5, samp_scale=500.0,
        line_num_coeff=list(-unit[2] - 0.1 * unit[3]), line_den_coeff=list(unit[0]),
        samp_num_coeff=list(unit[1]), samp_den_coeff=list(unit[0]),
    )  # fmt: skip


def test_view_of__angles_and_sampling_of_a_known_camera(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    profile = {"driver": "GTiff", "height": 1000, "width": 1000, "count": 1, "dtype": "uint16"}
    with rasterio.open(path, "w", rpcs=tilted_rpc(), **profile) as file:
        file.write(np.ones((1, 1000, 1000), np.uint16))
    view, heights = view_of(path)
    assert heights == (0.0, 200.0)
    np.testing.assert_allclose([view.lon_deg, view.lat_deg], [7.0, 45.0], atol=1e-9)
    np.testing.assert_allclose(view.gsd, [0.5, 0.5], rtol=2e-3)
    # 100 m up is 0.1 of 250 m towards the top of the image (north): the ray leans away, the sensor stands south
    np.testing.assert_allclose(view.incidence_deg, np.degrees(np.arctan(0.25)), atol=0.05)
    np.testing.assert_allclose(view.azimuth_deg, 180.0, atol=0.1)
    info = describe(path)
    assert info.kind == "image with RPC" and dict(info.facts)["view"] == "incidence 14.0 deg, sensor at azimuth 180 deg"


def test_describe__image_without_rpc_and_without_data(tmp_path: Path) -> None:
    profile = {"driver": "GTiff", "height": 10, "width": 12, "count": 1, "dtype": "uint16"}
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as file:
        file.write(np.zeros((1, 10, 12), np.uint16))
    facts = dict(describe(tmp_path / "a.tif").facts)
    assert facts["size"].startswith("10 x 12 px") and facts["pixels"] == "all nodata" and "no RPC" in facts["RPC"]


def test_describe__raster_cloud_layer_and_folder(tmp_path: Path) -> None:
    grid = Grid(Reference("EPSG:32654", ELLIPSOID), 500000, 4000000, 0.5, 20, 30)
    values = np.full(grid.shape, 7, np.float32)
    values[:10] = np.nan
    write_raster(tmp_path / "dsm.tif", Raster(values, grid), nodata=HEIGHT_NODATA)
    write_json(tmp_path / "quality.json", {"lidar_nmad_m": 0.25, "nested": {}})
    facts = dict(describe(tmp_path / "dsm.tif").facts)
    assert facts["CRS"] == "EPSG:32654 (WGS 84 / UTM zone 54N)" and facts["vertical reference"] == "WGS 84 ellipsoid"
    assert facts["values"] == "7 to 7, 50.0 % valid" and facts["resolution"] == "0.5 m"
    run = describe(tmp_path)
    assert run.kind == "run folder" and dict(run.facts)["lidar_nmad_m"] == "0.25"

    one = np.ones(3, np.float32)
    cloud = PointCloud(
        Reference("EPSG:32654", UNDECLARED), np.ones((3, 3)), one, one, one.astype("u1"), one.astype("u2")
    )
    write_cloud(tmp_path / "c.laz", cloud)
    facts = dict(describe(tmp_path / "c.laz").facts)
    assert facts["points"].startswith("3, LAS 1.4") and facts["vertical reference"] == "not declared"

    write_layer(tmp_path / "v.gpkg", "changes", [shapely.box(0, 0, 1, 1)], {"kind": ["x"]}, "EPSG:32654")
    assert dict(describe(tmp_path / "v.gpkg").facts)["features"] == "1"
    write_text(tmp_path / "scene.yaml", "name: town\nimages: [a.tif, b.tif]\n")
    assert describe(tmp_path / "scene.yaml").facts == (("name", "town"), ("images", "2: a.tif, b.tif"))


def test_describe__all_layers_of_a_file(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "two.gpkg"
    layers = [
        NamedLayer("tops", [shapely.Point(0, 0)] * 3, {"height_m": np.ones(3)}, "Point"),
        NamedLayer("stands", [shapely.box(0, 0, 1, 1)], {"cover": np.ones(1)}),
    ]
    write_layers(path, layers, "EPSG:32654")
    found = describe(path)
    assert found.kind == "2 vector layers" and [v for k, v in found.facts if k == "features"] == ["3", "1"]
    assert read_layer(path).columns.keys() == {"height_m"} and not recwarn.list  # the first, without a word of GDAL's


@pytest.mark.parametrize("name", ["RPC_a.XML", "left_image.geom"])
def test_describe__rpc_files(name: str, shared_data: Path) -> None:
    folder = shared_data / "real/ventoux"
    found = describe(next(folder.glob("RPC_*.XML")) if name.endswith("XML") else folder / name)
    assert found.kind == "RPC file" and dict(found.facts)["heights"] == "190 to 1960 m"


def test_describe__bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no such file"):
        describe(tmp_path / "no.tif")
    with pytest.raises(InputFileError, match=r"without dsm\.tif"):
        describe(tmp_path)
    write_text(tmp_path / "x.dat", "nothing")
    with pytest.raises(InputFileError, match=r"x\.dat: is not a readable raster"):
        describe(tmp_path / "x.dat")
    write_text(tmp_path / "x.yaml", "a: [1")
    with pytest.raises(ConfigError, match="not readable YAML"):
        describe(tmp_path / "x.yaml")
    write_text(tmp_path / "x.h5", "nothing")
    with pytest.raises(InputFileError):
        describe(tmp_path / "x.h5")
