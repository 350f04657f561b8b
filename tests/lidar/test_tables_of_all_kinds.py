"""Tables as spreadsheets, surveys and other programs write them: marks, case, dates, units, kinds of points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pyogrio
import pytest
import shapely
from laspy.header import GpsTimeType
from pyproj import CRS

from terrain3d.config import LidarFormat, TableColumns, load_scene
from terrain3d.errors import ConfigError, InputFileError
from terrain3d.io.vectors import write_layer
from terrain3d.lidar.frames import TargetFrame
from terrain3d.lidar.granule import Granule
from terrain3d.lidar.read import read_granule, read_lidar
from tests.lidar.test_table import write_parquet

LONLAT = {"x": "lon", "y": "lat", "height": "h"}
S_2018_TO_2024 = 189_302_400  # seconds


def form(**changes: Any) -> LidarFormat:
    columns = TableColumns(**changes.pop("columns", LONLAT))
    return LidarFormat(columns=columns, **{"crs": "EPSG:4326", "vertical": "ellipsoid", "footprint": 25, "sigma": 0.1,
                                           **changes})  # fmt: skip


def read(path: Path, text: str | bytes, **changes: Any) -> Granule:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_granule(path, form=form(**changes))


@pytest.mark.parametrize(
    "text",
    [
        "lon;lat;h\n11,5;47,25;612,5\n",
        "sep=;\nlon;lat;h\n11,5;47,25;6,125E2\n",
        "\ufefflon\tlat\th\n11,5\t47,25\t612,5\n",
    ],
)
def test_csv__decimal_comma(tmp_path: Path, text: str) -> None:
    returns = read(tmp_path / "a.csv", text, decimal=",").returns
    assert (returns.lon_deg[0], returns.lat_deg[0], returns.height[0]) == (11.5, 47.25, 612.5)
    with pytest.raises(InputFileError, match=r"no number: '.*,.*'; decimals have a comma: give decimal: ','"):
        read_granule(tmp_path / "a.csv", form=form())


def test_csv__a_mark_for_thousands_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"column 'h' has a value that is no number: '1\.612,5'"):
        read(tmp_path / "a.csv", "lon;lat;h\n11,5;47,25;1.612,5\n", decimal=",")


def test_csv__utf16_of_a_spreadsheet(tmp_path: Path) -> None:
    assert read(tmp_path / "a.txt", "lon\tlat\th\n11.5\t47.25\t612.5\n".encode("utf-16")).returns.height[0] == 612.5


def test_csv__names_in_a_windows_code_page(tmp_path: Path) -> None:
    text = "Länge;Breite;Höhe\n11.5;47.25;612.5\n".encode("cp1252")
    columns = {"x": "länge", "y": "BREITE", "height": "höhe"}
    assert read(tmp_path / "a.csv", text, columns=columns).returns.height[0] == 612.5


def test_csv__case_of_the_names(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", " LON ,Lat,H\n11.5,47.25,612.5\n").returns.height[0] == 612.5
    two = read(tmp_path / "a.csv", "lon,lat,H,h\n11.5,47.25,1,2\n")
    assert two.returns.height[0] == 2  # as it is written, where there is such a column
    with pytest.raises(ConfigError, match="several columns 'h'; it has lon, lat, H, H"):
        read(tmp_path / "a.csv", "lon,lat,H,H\n11.5,47.25,1,2\n")


def test_csv__rows_to_keep_by_number_and_truth(tmp_path: Path) -> None:
    text = "lon,lat,h,class,good\n11,47,1,2.0,TRUE\n11,47,2,2,false\n11,47,3,5,true\n"
    assert read(tmp_path / "a.csv", text, only={"class": 2}).returns.height.tolist() == [1, 2]
    assert read(tmp_path / "a.csv", text, only={"class": [2, 5], "good": True}).returns.height.tolist() == [1, 3]


def test_csv__seconds_from_a_date_are_dates(tmp_path: Path) -> None:
    text = "lon,lat,h,t\n11.5,47.25,612.5,86400.5\n"
    columns = {**LONLAT, "time": "t"}
    dated = {"columns": columns, "frame": "ITRF2014", "time_origin": "2024-01-01"}
    granule = read(tmp_path / "a.csv", text, **dated)
    assert granule.returns.time_s[0] == S_2018_TO_2024 + 86400.5
    path = tmp_path / "a.csv"
    moved = read_lidar([path], forms={path: form(**dated)}, target=TargetFrame("ETRS89"))
    assert moved.frame.startswith("ETRS89, from ITRF2014 at the time of each return")
    assert read(path, text, columns=columns).returns.time_s[0] == 86400.5


def test_scene__keys_of_a_table(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif", "p.csv"):
        (tmp_path / name).touch()
    entry = "{path: p.csv, columns: {x: lon, y: lat, height: h}, decimal: ',', time_origin: 2018-01-01}"
    (tmp_path / "scene.yaml").write_text(f"name: s\nimages: [a.tif, b.tif]\nlidar: [{entry}]\n")
    scene = load_scene(tmp_path / "scene.yaml")
    (found,) = scene.lidar_formats.values()
    assert found.decimal == "," and str(found.time_origin) == "2018-01-01 00:00:00"
    assert json.dumps(scene.completed())  # as it is written beside the results


def las(path: Path, gps: GpsTimeType, crs: CRS | None = None) -> Path:
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.scales, header.global_encoding.gps_time_type = np.full(3, 0.001), gps
    header.offsets = np.array([690000, 5230000, 0])
    if crs is not None:
        header.add_crs(crs)
    points = laspy.LasData(header)
    points.x, points.y, points.z = [690000.0, 690001.0], [5230000.0, 5230000.0], [600.0, 601.0]
    points.gps_time = [398_556_818.0, 398_556_819.0]  # 2024-05-01 00:00:00 UTC
    points.write(path)
    return path


def test_las__its_gps_time_is_a_date(tmp_path: Path) -> None:
    stated: dict[str, Any] = {"columns": {"time": "GPS_Time"}, "crs": "EPSG:32632", "frame": "ITRF2020"}
    path = las(tmp_path / "a.las", GpsTimeType.STANDARD)
    granule = read_granule(path, form=form(**stated))
    day = (np.datetime64("2024-05-01") - np.datetime64("2018-01-01")) / np.timedelta64(1, "s")
    assert granule.returns.time_s.tolist() == [day, day + 1] and granule.frame.epoch is None
    weekly = read_granule(las(tmp_path / "b.las", GpsTimeType.WEEK_TIME), form=form(**stated))
    assert np.isnan(weekly.frame.epoch or 0.0)  # seconds of an unknown week are no date


def test_las__heights_in_feet(tmp_path: Path) -> None:
    feet = CRS.from_user_input("EPSG:2913")  # NAD83(HARN) / Oregon North (ft)
    granule = read_granule(las(tmp_path / "a.las", GpsTimeType.STANDARD, feet), form=form(columns={}, crs=None))
    assert granule.returns.height == pytest.approx([600 * 0.3048, 601 * 0.3048])
    metres = CRS.from_user_input("EPSG:32632").to_3d()
    granule = read_granule(las(tmp_path / "b.las", GpsTimeType.STANDARD, metres), form=form(columns={}, crs=None))
    assert granule.returns.height == pytest.approx([600, 601])


@pytest.mark.filterwarnings("ignore:Layer 'p' has been declared")
def test_geopackage__collections_of_one_point(tmp_path: Path) -> None:
    shapes = [shapely.MultiPoint([(11.5, 47.25, 600.0)]), shapely.MultiPoint([(11.6, 47.25, 601.0)])]
    write_layer(tmp_path / "a.gpkg", "p", shapes, {"s": np.full(2, 0.02)}, "EPSG:4326")
    returns = read_granule(tmp_path / "a.gpkg", form=form(columns={"sigma": "S"}, crs=None)).returns
    assert returns.height.tolist() == [600, 601] and returns.lon_deg.tolist() == [11.5, 11.6]
    shapes[1] = shapely.MultiPoint([(11.6, 47.25, 601.0), (11.7, 47.25, 601.0)])
    write_layer(tmp_path / "b.gpkg", "p", shapes, {"s": np.full(2, 0.02)}, "EPSG:4326")
    with pytest.raises(InputFileError, match="geometries that are not points"):
        read_granule(tmp_path / "b.gpkg", form=form(columns={}, crs=None))


def test_geoparquet__points_as_structures(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    points = pa.array([{"x": 11.5, "y": 47.25, "z": 600.0}, {"x": 11.6, "y": 47.25, "z": 601.0}])
    geo = {"primary_column": "geometry", "columns": {"geometry": {"encoding": "point", "geometry_types": ["Point Z"]}}}
    path = write_parquet(tmp_path / "a.parquet", {"geometry": points, "d": [0.1, 0.2]}, {"geo": json.dumps(geo)})
    returns = read_granule(path, form=form(columns={"sigma": "d"}, crs=None)).returns
    assert returns.height.tolist() == [600, 601] and returns.lon_deg.tolist() == [11.5, 11.6]
    assert returns.sigma.tolist() == [0.1, 0.2]


def test_geopackage__one_layer_of_several(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    for i, name in enumerate(("first", "second")):
        point = shapely.points([11.5 + i], [47.25], [600.0 + i])
        pyogrio.raw.write(path, shapely.to_wkb(point), [], [], layer=name, geometry_type="Point Z", crs="EPSG:4326",
                          append=i > 0)  # fmt: skip
    with pytest.raises(ConfigError, match="table has several layers; give layer: one of first, second"):
        read_granule(path, form=form(columns={}, crs=None))
    with pytest.raises(ConfigError, match="table has no layer 'third'"):
        read_granule(path, form=form(columns={}, crs=None, layer="third"))
    assert read_granule(path, form=form(columns={}, crs=None, layer="second")).returns.height.tolist() == [601]


@pytest.mark.parametrize("track", [[715, 715, None, 1377], ["715", "715", None, "1377"]])
def test_parquet__rows_without_a_track(tmp_path: Path, track: list[Any]) -> None:
    table = {"lon": [100.0] * 4, "lat": [30.0, 30.1, 30.2, 30.3], "h": [1.0, 2.0, 3.0, 4.0], "orbit": track}
    write_parquet(tmp_path / "a.parquet", table)
    returns = read_granule(tmp_path / "a.parquet", form=form(columns=LONLAT | {"track": "orbit"})).returns
    names = [returns.track_names[k].partition("/")[2] for k in returns.track]
    assert names == ["715", "715", "no track", "1377"]
