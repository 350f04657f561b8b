from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import shape

from terrain3d.crs import ELLIPSOID, Reference
from terrain3d.errors import InputFileError
from terrain3d.export.stac import Asset, outline, stac_collection, stac_item
from terrain3d.io.rasters import HEIGHT_NODATA, write_raster
from terrain3d.raster import Grid, Raster

GRID = Grid(Reference("EPSG:32654", ELLIPSOID), 293400.0, 3915600.0, 0.5, 300, 320)
Faults = Callable[[dict[str, Any]], list[str]]
MAY = datetime(2024, 5, 1, 10, 30, tzinfo=UTC)


def make(folder: Path, **times: datetime) -> dict:
    write_raster(
        folder / "dsm.tif", Raster(np.ones(GRID.shape, np.float32), GRID), nodata=HEIGHT_NODATA, band_names=["height"]
    )
    (folder / "cloud.laz").write_bytes(b"points")
    assets = [
        Asset("dsm", folder / "dsm.tif", "Digital surface model", unit="m"),
        Asset("cloud", folder / "cloud.laz", "Point cloud"),
    ]
    return stac_item("town", GRID, assets, folder=folder, lineage="3 images, 1 granule", **times)


def test_stac_item__required_fields_and_extensions(tmp_path: Path, faults_of: Faults) -> None:
    item = make(tmp_path, start=MAY, end=MAY)
    assert faults_of(item) == []
    wrong = copy.deepcopy(item)
    wrong["properties"] |= {"proj:code": "32654", "proj:shape": [300, 320.5], "proj:epsg": 32654}
    wrong["assets"]["dsm"] |= {"file:checksum": "12", "raster:sampling": "cell"}
    wrong["assets"]["dsm"]["bands"][0]["data_type"] = "single"
    wrong["stac_extensions"].pop()
    assert len(faults_of(wrong)) == 7
    json.dumps(item, allow_nan=False)
    assert (item["type"], item["stac_version"], item["id"], item["links"]) == ("Feature", "1.1.0", "town", [])
    prefixes = {uri.split("/")[3] for uri in item["stac_extensions"]}
    keys = [*item["properties"], *(k for a in item["assets"].values() for k in a)]
    used = {k.split(":")[0] for k in keys if ":" in k}
    assert prefixes == {"projection", "raster", "file", "processing"} and used == {
        "proj",
        "raster",
        "file",
        "processing",
    }
    p = item["properties"]
    assert p["datetime"] == "2024-05-01T10:30:00Z" and p["proj:code"] == "EPSG:32654" and p["proj:shape"] == [300, 320]
    assert p["proj:transform"] == [0.5, 0.0, 293400.0, 0.0, -0.5, 3915600.0]
    assert p["proj:bbox"] == [293400.0, 3915450.0, 293560.0, 3915600.0]


def test_stac_item__footprint(tmp_path: Path) -> None:
    item = make(tmp_path, start=MAY)
    ring = item["geometry"]["coordinates"][0]
    polygon = shape(item["geometry"])
    assert ring[0] == ring[-1] and polygon.is_valid and polygon.exterior.is_ccw
    np.testing.assert_allclose(item["bbox"], polygon.bounds, atol=1e-12)
    area = polygon.area * 111_320**2 * np.cos(np.radians(ring[0][1]))
    np.testing.assert_allclose(area, 150 * 160, rtol=0.01)
    assert len(outline(GRID, 4)) == 17


def test_stac_item__footprint_across_the_180th_meridian(tmp_path: Path) -> None:
    """RFC 7946: cut there, and the box's west is greater than its east; a collection's box holds all of them."""
    grid = Grid(Reference("EPSG:32760", ELLIPSOID), 819000.0, 8118000.0, 1.0, 1000, 1000)
    item = stac_item("dateline", grid, [], folder=tmp_path)
    west, south, east, north = item["bbox"]
    assert 179.99 < west < 180 and -180 < east < -179.99 and south < north
    parts = shape(item["geometry"])
    assert len(parts.geoms) == 2 and parts.is_valid and parts.bounds[0] == -180 and parts.bounds[2] == 180
    area = parts.area * 111_320**2 * np.cos(np.radians(17))
    np.testing.assert_allclose(area, 1e6, rtol=0.01)
    paths = []
    for name, left in (("a", 815000.0), ("b", 819000.0), ("c", 821000.0)):
        part = Grid(Reference("EPSG:32760", ELLIPSOID), left, 8118000.0, 1.0, 1000, 1000)
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(stac_item(name, part, [], folder=tmp_path)))
    box = stac_collection("all", paths, [], folder=tmp_path)["extent"]["spatial"]["bbox"][0]
    assert 179.9 < box[0] < west and east < box[2] < -179.9


def test_stac_item__assets(tmp_path: Path) -> None:
    assets = make(tmp_path, start=MAY)["assets"]
    assert assets["dsm"]["type"] == "image/tiff; application=geotiff; profile=cloud-optimized"
    assert assets["dsm"]["bands"] == [{"name": "height", "data_type": "float32", "nodata": -9999.0, "unit": "m"}]
    assert assets["dsm"]["href"] == "./dsm.tif" and assets["dsm"]["raster:spatial_resolution"] == 0.5
    assert "proj:shape" not in assets["dsm"]
    cloud = assets["cloud"]
    assert cloud["type"] == "application/vnd.laszip" and cloud["file:size"] == 6
    assert cloud["file:checksum"] == "1220" + hashlib.sha256(b"points").hexdigest()


def test_stac_item__times(tmp_path: Path) -> None:
    later = datetime(2024, 5, 2, 1, 0, tzinfo=timezone(timedelta(hours=9)))
    p = make(tmp_path, start=MAY, end=later)["properties"]
    assert p["datetime"] is None
    assert (p["start_datetime"], p["end_datetime"]) == ("2024-05-01T10:30:00Z", "2024-05-01T16:00:00Z")
    assert make(tmp_path)["properties"]["datetime"].endswith("Z")


def test_stac_item__missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be read"):
        stac_item("a", GRID, [Asset("x", tmp_path / "x.laz", "x")], folder=tmp_path)
