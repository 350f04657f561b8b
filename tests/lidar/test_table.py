"""Tables of ground heights: CSV, Parquet, GeoPackage, LAS; and SlideRule's Parquet files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pytest
import shapely
from pyproj import CRS

from terrain3d.config import LidarFormat, TableColumns
from terrain3d.crs import vertical_from_name
from terrain3d.errors import ConfigError, FrameError, InputFileError, LidarError, MissingExtraError
from terrain3d.io.geoid import undulation
from terrain3d.io.vectors import write_layer
from terrain3d.lidar.frames import TargetFrame
from terrain3d.lidar.granule import Granule
from terrain3d.lidar.read import read_granule, read_lidar
from terrain3d.lidar.read_columns import CHUNK, read_parts
from terrain3d.lidar.rules import ALL, STRICT
from terrain3d.points import horizontal_sigma, join_returns

UTM = "EPSG:32631"
TRACKS = {"x": "E", "y": "N", "height": "h", "sigma": "s", "track": "line", "time": "t"}
ROWS = """E,N,h,s,line,t,class
500000,5000000,100.0,0.05,a,2024-05-01T00:00:00Z,2
500010,5000000,101.0,0.05,a,2024-05-01T00:00:01Z,2
500000,5000100,102.0,0.40,b,2024-06-01T00:00:00Z,2
500000,5000200,,0.05,b,2024-06-01T00:00:01Z,2
500000,5000300,104.0,0.05,b,2024-06-01T00:00:02Z,6
"""


def form(**changes: Any) -> LidarFormat:
    columns = TableColumns(**changes.pop("columns", TRACKS))
    given = {"crs": UTM, "vertical": "ellipsoid", "footprint": 25.0, "product": "FUTURE", **changes}
    return LidarFormat(columns=columns, **given)


def counts(granule: Granule) -> dict[str, int]:
    return {rule: n for rule, n in granule.rejected if n}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "points.csv"
    path.write_text(ROWS, encoding="utf-8")
    return path


def test_csv__columns_by_name(table: Path) -> None:
    granule = read_granule(table, form=form(only={"class": 2}))
    returns = granule.returns
    assert granule.n_read == 5 and counts(granule) == {"not among the rows to keep": 1, "no ground height": 1}
    assert np.array_equal(returns.height, [100, 101, 102]) and np.allclose(returns.sigma, [0.05, 0.05, 0.4])
    assert returns.lon_deg[0] == pytest.approx(3.0) and returns.lat_deg[0] == pytest.approx(45.15, abs=0.01)
    assert np.all(returns.length == 25) and np.all(returns.width == 25) and set(returns.product) == {"FUTURE"}
    assert returns.track_names == ("points.csv/a", "points.csv/b") and returns.track.tolist() == [0, 0, 1]
    assert returns.time_s[1] - returns.time_s[0] == 1.0
    assert returns.time_s[0] == (np.datetime64("2024-05-01") - np.datetime64("2018-01-01")) / np.timedelta64(1, "s")


def test_csv__horizontal_sigma_by_column_or_for_all(table: Path) -> None:
    of_column = read_granule(table, form=form(columns={**TRACKS, "horizontal_sigma": "s"})).returns
    assert np.allclose(horizontal_sigma(of_column), [0.05, 0.05, 0.4, 0.05])
    assert np.all(horizontal_sigma(read_granule(table, form=form(horizontal_sigma=0.02)).returns) == 0.02)
    unstated = read_granule(table, form=form()).returns
    assert np.all(horizontal_sigma(unstated) == 2.0)
    both = join_returns([unstated, of_column.select(np.array([2]))])
    assert np.allclose(horizontal_sigma(both), [2, 2, 2, 2, 0.4])


def test_csv__rules_and_window(table: Path) -> None:
    assert counts(read_granule(table, rules=STRICT, form=form())) == {"no ground height": 1, "height sigma": 1}
    middle = read_granule(table, form=form()).returns.lat_deg[2] + 1e-5
    north = read_granule(table, (2.9, middle, 3.1, 45.3), form=form())
    assert counts(north) == {"outside the area": 3, "no ground height": 1} and len(north.returns) == 1
    with pytest.raises(LidarError, match=r"nearest of 5 returns is .* km away"):
        read_lidar([table], (10.0, 45.0, 11.0, 46.0), forms={table: form()})


@pytest.mark.parametrize(
    "text",
    ["E;N;h;s\n500000;5000000;100;0.1\n", "# E N h s\n500000 5000000 100 0.1\n",
     "\ufeffE\tN\th\ts\n5e5\t5e6\t1e2\t0.1\n", '"E","N","h","s"\n"500000","5000000","100","0.1"\n'],
)  # fmt: skip
def test_csv__delimiters(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    columns = {"x": "E", "y": "N", "height": "h", "sigma": "s"}
    granule = read_granule(tmp_path / "a.csv", form=form(columns=columns))
    assert granule.returns.height.tolist() == [100.0] and granule.returns.track_names == ("a.csv",)


def test_csv__heights_over_a_geoid(table: Path) -> None:
    returns = read_granule(table, form=form(vertical="egm96")).returns
    n = undulation(vertical_from_name("egm96"), returns.lon_deg, returns.lat_deg)
    assert 40 < n[0] < 60 and returns.height[0] == pytest.approx(100 + n[0])
    with pytest.raises(FrameError, match=r"vertical reference 'EGM2008' has no geoid grid"):
        read_granule(table, form=form(vertical="EGM2008"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"columns": {**TRACKS, "height": "z"}}, ConfigError, "no column 'z'; it has E, N, h, s"),
        ({"columns": {"x": "E", "y": "N", "sigma": "s"}}, ConfigError, "columns.height is missing"),
        ({"columns": {"x": "E", "y": "N", "height": "h"}}, ConfigError, "table without sigma"),
        ({"footprint": None}, ConfigError, "table without footprint"),
        ({"crs": None}, FrameError, "table has no CRS"),
        ({"crs": "EPSG:999999"}, FrameError, "unknown CRS"),
        ({"vertical": None}, FrameError, "no vertical reference"),
        ({"crs": f"{UTM}+5773"}, FrameError, "its CRS says heights over egm96, vertical says ellipsoid"),
        ({"crs": "EPSG:4979", "vertical": "egm96"}, FrameError, "says heights over ellipsoid, vertical says egm96"),
        ({"columns": {**TRACKS, "sigma": "line"}}, InputFileError, "column 'line' has a value that is no number"),
        ({"only": {"kind": 2}}, ConfigError, "no column 'kind'"),
    ],
)
def test_csv__what_is_missing_is_said(table: Path, changes: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        read_granule(table, form=form(**changes))
    assert "\n" not in str(caught.value)


def test_csv__broken(tmp_path: Path) -> None:
    for text, message in (("", "no.*column names|not a table"), ("E,N,h,s,line,t\n1,2\n", "row 1 has too few")):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(InputFileError, match=message):
            read_granule(tmp_path / "a.csv", form=form())
    (tmp_path / "a.csv").write_text("E,N,h,s,line,t\n")
    empty = read_granule(tmp_path / "a.csv", form=form())
    assert empty.n_read == 0 and not len(empty.returns)


def test_csv__is_read_in_parts(tmp_path: Path) -> None:
    n = CHUNK // 4 + 10
    (tmp_path / "a.csv").write_text("x,y\n" + "1,2\n" * n)
    assert [len(p["x"]) for p in read_parts(tmp_path / "a.csv", ["x", "y"])] == [n - 10, 10]


@pytest.mark.filterwarnings("ignore:Layer 'points' has been declared")
def test_geopackage__its_points_and_crs(tmp_path: Path) -> None:
    path = tmp_path / "gnss.gpkg"
    points = [shapely.Point(500000 + i, 5000000, 50 + i) for i in range(4)]
    write_layer(path, "points", points, {"s": np.full(4, 0.02), "day": np.array(["u", "u", "v", "v"])}, UTM)
    columns = {"sigma": "s", "track": "day"}
    returns = read_granule(path, form=form(columns=columns, crs=None, footprint=0.1)).returns
    assert np.allclose(returns.height, 50 + np.arange(4)) and returns.track.tolist() == [0, 0, 1, 1]
    with pytest.raises(FrameError, match="no vertical reference"):
        read_granule(path, form=form(columns=columns, crs=None, vertical=None))


def test_las__rows_of_a_class(tmp_path: Path) -> None:
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.scales = np.full(3, 0.001)
    header.offsets = np.array([500000, 5000000, 0])
    las = laspy.LasData(header)
    las.x, las.y, las.z = 500000 + np.arange(6.0), np.full(6, 5000000.0), 10 + np.arange(6.0)
    las.classification = np.array([2, 2, 5, 6, 2, 9], np.uint8)
    las.write(tmp_path / "ground.laz")
    granule = read_granule(tmp_path / "ground.laz", form=form(columns={}, sigma=0.05, only={"classification": [2, 9]}))
    assert np.allclose(granule.returns.height, [10, 11, 14, 15]) and counts(granule) == {
        "not among the rows to keep": 2
    }
    named = {"x": "X", "y": "Y", "height": "Z"}  # the file's counts of a millimetre are never meant
    returns = read_granule(tmp_path / "ground.laz", form=form(columns=named, sigma=0.05)).returns
    assert np.allclose(returns.height, 10 + np.arange(6)) and np.allclose(returns.lat_deg, granule.returns.lat_deg[0])


def write_parquet(path: Path, columns: dict[str, Any], metadata: dict[str, str] | None = None) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


def test_parquet__a_plain_table(tmp_path: Path) -> None:
    columns = {"E": [500000.0, 500001.0], "N": [5e6, 5e6], "h": [1.0, 2.0], "s": [0.1, None], "line": ["a", "b"],
               "t": np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]")}  # fmt: skip
    granule = read_granule(write_parquet(tmp_path / "a.parquet", columns), form=form())
    assert counts(granule) == {"no sigma or footprint": 1} and granule.returns.height.tolist() == [1.0]
    with pytest.raises(ConfigError, match=r"columns\.x is missing; the table has E, N"):
        read_granule(tmp_path / "a.parquet")


def test_parquet__damaged_and_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputFileError, match="table cannot be read"):
        read_granule(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'terrain3d\[parquet\]'"):
        read_granule(tmp_path / "a.parquet")


def sliderule(path: Path, request: str, **changes: Any) -> Path:
    columns = {
        "longitude": [5.0, 5.0, 5.0, 5.1], "latitude": [45.0, 45.0002, 45.0004, 45.0],
        "h_mean": [100.0, 101.0, 102.0, 103.0], "h_sigma": np.array([0.05, 0.05, 3.0, 0.05], np.float32),
        "n_fit_photons": [60, 70, 80, 5], "rms_misfit": [0.1] * 4, "pflags": [0] * 4,
        "rgt": [7, 7, 7, 8], "cycle": [1] * 4,
        "gt": [10, 10, 10, 20], "spot": [1, 1, 1, 2],
        "time": np.array(["2020-01-01T00:00:00", "2020-01-01T00:00:01"] * 2, "datetime64[ns]"),
    }  # fmt: skip
    return write_parquet(path, columns | changes, {"sliderule": request} if request else None)


def test_sliderule__segments_and_rules(tmp_path: Path) -> None:
    granule = read_granule(sliderule(tmp_path / "a.parquet", '{"len": 20, "atl08_class": ["atl08_ground"]}'))
    assert granule.product == "ATL06-SR" and counts(granule) == {"few ground photons": 1, "height sigma": 1}
    returns = granule.returns
    assert returns.height.tolist() == [100, 101] and np.all(returns.length == 20)
    assert returns.sigma == pytest.approx(np.hypot(0.05, 0.2))
    assert returns.track_names[0] == "a.parquet/rgt7-cycle1-gt10"
    whole = read_granule(tmp_path / "a.parquet", (4.99, 44.0, 5.01, 46.0), rules=ALL)
    assert len(whole.returns) == 3 and counts(whole) == {"outside the area": 1}
    assert np.all(read_granule(sliderule(tmp_path / "b.parquet", "")).returns.length == 40)


def test_sliderule__canopy_is_no_ground(tmp_path: Path) -> None:
    path = sliderule(tmp_path / "a.parquet", '{"atl08_class": "atl08_canopy"}')
    assert counts(read_granule(path)) == {"not from ground photons": 4}
    assert len(read_granule(path, rules=ALL).returns) == 4


@pytest.mark.parametrize(
    ("classes", "ground"),
    [('["atl08_ground"]', True), ("[1]", True), ("[]", True), ("[false, true, false, false, false]", True),
     ('["atl08_ground", "atl08_canopy"]', False), ("[false, true, true, false, false]", False), ('"[2, 3]"', False)],
)  # fmt: skip
def test_sliderule__classes_of_the_request(tmp_path: Path, classes: str, ground: bool) -> None:
    path = sliderule(tmp_path / "a.parquet", f'{{"parms": {{"atl08_class": {classes}, "len": 30}}}}')
    assert ("not from ground photons" not in counts(read_granule(path))) == ground
    assert np.all(read_granule(path, rules=ALL).returns.length == 30)


def test_sliderule__subsets_of_atl06_and_atl08_and_phoreal(tmp_path: Path) -> None:
    place = {"longitude": [5.0, 5.0], "latitude": [45.0, 45.001], "rgt": [1, 1], "cycle": [2, 2],
             "gt": ["gt1l", "gt1r"], "spot": [1, 2], "time_ns": np.array([1577836800, 1577836801]) * 10**9}  # fmt: skip
    land = {"h_te_median": [10.0, 3.4028235e38], "n_te_photons": [40, 40], "h_te_uncertainty": [2.0, 2.0],
            "h_canopy": [12.0, 12.0], "segment_snowcover": [1, 2]}  # fmt: skip
    granule = read_granule(write_parquet(tmp_path / "a.parquet", place | land))
    assert granule.product == "ATL08" and counts(granule) == {"no ground height": 1}
    assert granule.returns.length[0] == 100 and granule.returns.canopy[0] == 12
    assert granule.returns.time_s[0] == 2 * 365 * 86400  # 2020-01-01
    assert granule.returns.track_names == ("a.parquet/rgt1-cycle2-gtgt1l", "a.parquet/rgt1-cycle2-gtgt1r")
    ice = {"h_li": [10.0, 11.0], "h_li_sigma": [0.1, 0.1], "sigma_geo_h": [0.4, 0.4], "n_fit_photons": [40, 40],
           "atl06_quality_summary": [0, 1]}  # fmt: skip
    granule = read_granule(write_parquet(tmp_path / "b.parquet", place | ice))
    assert granule.product == "ATL06" and counts(granule) == {"segment quality": 1}
    assert granule.returns.sigma == pytest.approx(np.hypot(0.1, 0.4))
    phoreal = {"h_te_median": [10.0, 11.0], "ground_photon_count": [40, 3], "h_canopy": [5.0, 5.0],
               "snowcover": [1, 2], "pflags": [0, 0], "solar_elevation": [5.0, 5.0]}  # fmt: skip
    granule = read_granule(write_parquet(tmp_path / "c.parquet", place | phoreal))
    assert granule.product == "ATL08-SR" and counts(granule) == {"few ground photons": 1}


def test_sliderule__heights_over_a_geoid_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    crs = CRS.from_user_input("EPSG:4326+3855").to_json_dict()
    geo = {"primary_column": "geometry", "version": "1.0.0", "columns": {"geometry": {"encoding": "WKB", "crs": crs}}}
    point = shapely.to_wkb(shapely.points([5.0], [45.0])).tolist()
    columns = {"h_mean": [1.0], "rms_misfit": [0.1], "geometry": point}
    with pytest.raises(FrameError, match="heights over EGM2008 height"):
        read_granule(write_parquet(tmp_path / "a.parquet", columns, {"geo": json.dumps(geo)}))


def test_real__sliderule_files_hold_canopy(shared_data: Path) -> None:
    pytest.importorskip("pyarrow")
    for name, rows in (("atl06sr_canopy", 10527), ("atl06sr_top_of_canopy", 1068)):
        path = shared_data / "real/atl06sr" / f"{name}.parquet"
        assert counts(read_granule(path)) == {"not from ground photons": rows}
        granule = read_granule(path, rules=ALL)
        assert granule.n_read == len(granule.returns) == rows and granule.frame.name == "ITRF2014"
        assert np.all((granule.returns.lat_deg > 71) & (granule.returns.lat_deg < 72))
        assert 2018 < 2018 + granule.returns.time_s.min() / 3.15576e7 < 2019  # seconds since 2018-01-01


def test_frame__of_a_table(table: Path) -> None:
    assert read_granule(table, form=form()).frame.name == "WGS 84"
    with pytest.raises(FrameError, match="state no terrestrial frame"):
        read_lidar([table], forms={table: form()}, target=TargetFrame("ETRS89"))
    with pytest.raises(FrameError, match=r"returns are in NAD83\(2011\).*; give output: \{frame: NAD83\(2011\)\}"):
        read_lidar([table], forms={table: form(frame="NAD83(2011)")})
    dated = read_lidar([table], forms={table: form(frame="ITRF2014")}, target=TargetFrame("ETRS89"))
    assert dated.frame.startswith("ETRS89, from ITRF2014 at the time of each return")
    undated = form(frame="ITRF2014", columns={k: v for k, v in TRACKS.items() if k != "time"})
    with pytest.raises(FrameError, match="have no date"):
        read_lidar([table], forms={table: undated}, target=TargetFrame("ETRS89"))
