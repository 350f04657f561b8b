"""Sections, volumes and derivatives of height files, from the command line to the files."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely

from terrain3d import cli
from terrain3d.crs import Reference, transform_xy, vertical_from_name
from terrain3d.io.rasters import HEIGHT_NODATA, read_grid, read_raster, write_raster
from terrain3d.io.vectors import read_layer, write_layer
from terrain3d.landform.hydrology import condition
from terrain3d.pipeline import derive
from terrain3d.raster import Grid, Raster

CRS = "EPSG:32654"
GRID = Grid(Reference(CRS), 3e5, 4e6, 0.5, 160, 200)


def call(*arguments: str | Path) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(a) for a in arguments])
    return stop.value.code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tilted plane with a sigma, the same raised by 1.5 m, and a polygon of 20 x 10 m in degrees."""
    x, y = np.meshgrid(*GRID.centres())
    z = (100 + 0.1 * (x - 3e5) + 0.2 * (y - 4e6)).astype(np.float32)
    write_raster(tmp_path / "old.tif", Raster(z, GRID), nodata=HEIGHT_NODATA)
    write_raster(tmp_path / "old_sigma.tif", Raster(np.full_like(z, 0.2), GRID), nodata=HEIGHT_NODATA, heights=False)
    write_raster(tmp_path / "new.tif", Raster(z + np.float32(1.5), GRID), nodata=HEIGHT_NODATA)
    corners = np.array([(3e5 + 30, 4e6 - 40), (3e5 + 50, 4e6 - 40), (3e5 + 50, 4e6 - 30), (3e5 + 30, 4e6 - 30)])
    lonlat = np.column_stack(transform_xy(CRS, "EPSG:4326", *corners.T))
    write_layer(tmp_path / "p.gpkg", "p", [shapely.Polygon(lonlat)], {"name": ["pad"]}, "EPSG:4326")
    return tmp_path


def test_volume__between_surfaces(folder: Path) -> None:
    out = folder / "v.gpkg"
    files = folder / "old.tif", folder / "new.tif"
    assert call("volume", *files, "--polygons", folder / "p.gpkg", "--out", out, "--sigma", "0.1") == 0
    found = read_layer(out).columns
    assert found["name"][0] == "pad" and found["area_m2"][0] == pytest.approx(200, abs=1)
    assert found["fill_m3"][0] == pytest.approx(300, rel=5e-3) and found["cut_m3"][0] == 0
    assert 200 * 0.2236 * 0.3 < found["net_sigma_m3"][0] < 200 * 0.2236


def test_volume__to_a_plane(folder: Path) -> None:
    out = folder / "v.gpkg"
    assert call("volume", folder / "old.tif", "--plane", "97", "--polygons", folder / "p.gpkg", "--out", out) == 0
    found = read_layer(out).columns
    assert found["net_m3"][0] == pytest.approx(0, abs=1) and found["cut_m3"][0] == pytest.approx(
        found["fill_m3"][0], rel=0.01
    )
    assert found["cut_m3"][0] > 20


def test_volume__what_lies_beyond_the_raster_is_without_data(folder: Path) -> None:
    out = folder / "v.gpkg"
    pad = shapely.box(3e5 - 30, 4e6 - 40, 3e5 + 20, 4e6 - 20)  # 50 x 20 m, of which 20 x 20 m on the raster
    write_layer(folder / "beyond.gpkg", "p", [pad], {"name": ["pad"]}, CRS)
    assert call("volume", folder / "old.tif", "--plane", "97", "--polygons", folder / "beyond.gpkg", "--out", out) == 0
    found = read_layer(out).columns
    assert found["area_m2"][0] == pytest.approx(400) and found["no_data_m2"][0] == pytest.approx(600)


def test_profile__follows_the_line(folder: Path) -> None:
    out = folder / "s"
    line = "300010,3999970 300060,3999970 300060,3999950"
    assert call("profile", folder / "old.tif", folder / "new.tif", "--line", line, "--out", out, "--spacing", "20") == 0
    with (out / "profile.csv").open() as file:
        rows = list(csv.DictReader(file))
    long = [r for r in rows if r["section"] == "long"]
    for r in rows:
        truth = 100 + 0.1 * (float(r["x"]) - 3e5) + 0.2 * (float(r["y"]) - 4e6)
        assert float(r["old"]) == pytest.approx(truth, abs=2e-3) and float(r["new"]) == pytest.approx(
            truth + 1.5, abs=2e-3
        )
        assert float(r["old sigma"]) == pytest.approx(0.2, abs=1e-3)
    assert float(long[-1]["station_m"]) == 70 and {r["section"] for r in rows} == {"long", "1", "2", "3", "4"}
    lines = read_layer(out / "profile.gpkg")
    assert len(lines.geometries) == 10 and shapely.has_z(lines.geometries).all()
    assert (out / "profile.svg").is_file() and (out / "cross_04.svg").is_file()


@pytest.mark.parametrize("kind", ["one", "three dimensions", "parts", "parts reversed", "degrees", "crossing itself"])
def test_profile__lines_of_all_kinds(folder: Path, kind: str) -> None:
    """Parts in any direction become one line that begins with the first; heights of the line are not looked at."""
    a, b, c = (300010.0, 3999970.0), (300060.0, 3999970.0), (300060.0, 3999950.0)
    crs, line = CRS, [a, b, c]
    if kind == "parts":
        shapes = [shapely.LineString([a, b]), shapely.LineString([c, b])]
    elif kind == "parts reversed":
        line, shapes = [c, b, a], [shapely.MultiLineString([[c, b], [a, b]])]
    elif kind == "crossing itself":
        line = [a, b, c, (300040.0, 3999950.0), (300040.0, 3999990.0)]
        shapes = [shapely.LineString(line)]
    elif kind == "degrees":
        crs = "EPSG:4326"
        shapes = [shapely.LineString(np.column_stack(transform_xy(CRS, crs, *np.array(line).T)))]
    else:
        shapes = [shapely.LineString([(*p, 7.0 + k) if kind == "three dimensions" else p for k, p in enumerate(line)])]
    write_layer(folder / "line.gpkg", "l", shapes, {}, crs)
    assert call("profile", folder / "old.tif", "--line", folder / "line.gpkg", "--out", folder / "s") == 0
    with (folder / "s" / "profile.csv").open() as file:
        rows = [{k: float(v) for k, v in r.items() if k != "section"} for r in csv.DictReader(file)]
    expected = shapely.LineString(line)
    assert rows[-1]["station_m"] == pytest.approx(expected.length, abs=2e-3)
    for r in rows:
        at = expected.interpolate(r["station_m"])
        assert r["x"] == pytest.approx(at.x, abs=2e-3) and r["y"] == pytest.approx(at.y, abs=2e-3)
        assert r["old"] == pytest.approx(100 + 0.1 * (at.x - 3e5) + 0.2 * (at.y - 4e6), abs=3e-3)
    stations = {r["station_m"] for r in rows}
    assert stations >= {round(s, 3) for s in np.cumsum(np.hypot(*np.diff(line, axis=0).T))[:-1].round(3)} or crs != CRS


def test_profile__a_line_that_leaves_the_raster_is_in_pieces(folder: Path) -> None:
    line = "300010,3999970 300010,4000050 300060,4000050 300060,3999970"  # out over the northern rim and in again
    assert call("profile", folder / "old.tif", "--line", line, "--out", folder / "s") == 0
    pieces = read_layer(folder / "s" / "profile.gpkg")
    assert len(pieces.geometries) == 2 and all(g.length == pytest.approx(30, abs=1) for g in pieces.geometries)
    assert pieces.columns["station_m"].tolist() == pytest.approx([0, 180], abs=1)
    with (folder / "s" / "profile.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {r["old"] for r in rows if float(r["y"]) > 4e6} == {""}


def test_derive__all_products(folder: Path) -> None:
    out = folder / "d"
    assert call("derive", folder / "old.tif", "--out", out, "--interval", "0.5") == 0
    slope = read_raster(out / "slope.tif").values
    assert np.allclose(slope, np.degrees(np.arctan(np.hypot(0.1, 0.2))), atol=0.02)
    assert np.allclose(read_raster(out / "aspect.tif").values, 180 + np.degrees(np.arctan(0.5)), atol=0.2)
    assert read_raster(out / "hillshade.tif").values.min() > 0
    assert np.allclose(np.diff(np.unique(read_layer(out / "contours.gpkg").columns["height_m"])), 0.5)
    assert read_grid(out / "dtm_hydro.tif").reference == read_grid(folder / "old.tif").reference


def test_derive__drainage_by_a_mapped_file_is_that_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derive, "STRIP_CELLS", 64 * GRID.width)
    rng = np.random.default_rng(2)
    z = (90 + 3 * cv2.GaussianBlur(rng.normal(size=GRID.shape), (0, 0), 6.0)).astype(np.float32).round(2)
    z[40:60, 70:90] = np.nan
    write_raster(folder / "rough.tif", Raster(z, GRID), nodata=HEIGHT_NODATA)
    assert call("derive", folder / "rough.tif", "--out", folder / "d", "--only", "hydro") == 0
    expected, found = condition(z, GRID.resolution), read_raster(folder / "d" / "dtm_hydro.tif").values
    np.testing.assert_array_equal(found, expected.heights)
    assert expected.breached > 100 and expected.filled > 100
    assert [p.name for p in (folder / "d").iterdir()] == ["dtm_hydro.tif"]  # nothing is left of the file


def test_bad_input__is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    z = read_raster(folder / "old.tif").values
    lonlat = Grid(Reference("EPSG:4326"), 139.0, 36.0, 1e-5, *z.shape)
    write_raster(folder / "lonlat.tif", Raster(z, lonlat), nodata=HEIGHT_NODATA)
    orthometric = Grid(Reference(CRS, vertical_from_name("egm96")), 3e5, 4e6, 0.5, *z.shape)
    write_raster(folder / "h.tif", Raster(z, orthometric), nodata=HEIGHT_NODATA)
    write_raster(folder / "empty.tif", Raster(np.full_like(z, np.nan), GRID), nodata=HEIGHT_NODATA)
    write_layer(folder / "line.gpkg", "l", [shapely.LineString([(0, 0), (9, 9)])], {}, CRS)
    old, out, pad = folder / "old.tif", folder / "out", folder / "p.gpkg"
    for arguments, expected in (
        (("derive", folder / "lonlat.tif", "--out", out), "not projected in metres"),
        (("derive", folder / "none.tif", "--out", out), "no such file"),
        (("derive", folder / "empty.tif", "--out", out), "no cell with a height"),
        (("derive", old, "--out", out, "--only", "relief"), "no product 'relief'"),
        (("derive", old, "--out", out, "--interval", "0.001"), "more than 20000 contours"),
        (("profile", old, "--line", "1,2", "--out", out), "no such file"),
        (("profile", old, "--line", "0,0 5,5", "--out", out), "no raster has a height on the line"),
        (("profile", old, "--line", pad, "--out", out), "holds no line"),
        (("volume", old, "--polygons", pad, "--out", folder / "v.gpkg"), "--plane is needed"),
        (
            ("volume", old, "--plane", "9", "--polygons", folder / "line.gpkg", "--out", folder / "v.gpkg"),
            "not only polygons",
        ),
        (("volume", old, "--plane", "9", "--polygons", pad, "--out", folder / "v.csv"), "not a GeoPackage"),
        (("volume", old, "--plane", "nan", "--polygons", pad, "--out", folder / "v.gpkg"), "--plane: nan is no number"),
    ):
        assert call(*arguments) == 2, arguments
        text = capsys.readouterr().err.strip().splitlines()
        assert expected in text[-1] and "Traceback" not in "".join(text), text
    assert not (folder / "v.gpkg").exists()


def test_heights_over_a_geoid__are_converted(folder: Path) -> None:
    """The second raster holds the same ground over the geoid: no volume between them."""
    from terrain3d.io.geoid import to_vertical

    same = to_vertical(read_raster(folder / "old.tif"), vertical_from_name("egm96"))
    assert abs(float(same.values[0, 0] - read_raster(folder / "old.tif").values[0, 0])) > 10
    write_raster(folder / "geoid.tif", same, nodata=HEIGHT_NODATA)
    out = folder / "v.gpkg"
    assert call("volume", folder / "old.tif", folder / "geoid.tif", "--polygons", folder / "p.gpkg", "--out", out) == 0
    assert read_layer(out).columns["net_m3"][0] == pytest.approx(0, abs=0.5)


def test_derive__a_raster_without_heights_is_refused_and_one_cell_is_level(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, values in (("void", np.full((30, 40), np.nan)), ("one", np.ones((1, 1)))):
        grid = Grid(Reference(CRS), 3e5, 4e6, 1.0, *values.shape)
        write_raster(tmp_path / f"{name}.tif", Raster(values.astype(np.float32), grid), nodata=HEIGHT_NODATA)
        code = call("derive", tmp_path / f"{name}.tif", "--out", tmp_path / name, "--smooth", "2", "--quiet")
        assert code == (2 if name == "void" else 0)
    assert "no cell with a height" in capsys.readouterr().err
    assert not (tmp_path / "void").exists()
    assert len(read_layer(tmp_path / "one" / "contours.gpkg").geometries) == 0
    assert read_raster(tmp_path / "one" / "slope.tif").values == 0
