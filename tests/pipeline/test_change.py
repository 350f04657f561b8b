from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest
import shapely

from terrain3d.change.kinds import Kind
from terrain3d.change.regions import Measures
from terrain3d.change.result import ChangeOptions, Region, discoveries
from terrain3d.errors import ConfigError, FrameError, InputFileError
from terrain3d.io.rasters import read_raster, write_raster
from terrain3d.io.vectors import read_layer, write_layer
from terrain3d.pipeline.change import COLUMNS, change_columns, run_change
from terrain3d.pipeline.change_tiles import TileScheme
from terrain3d.pipeline.progress import Silent
from terrain3d.tiles import square_code


@pytest.fixture(scope="module")
def changed(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("changed")
    old, new = model(folder / "old", 1), model(folder / "new", 2, house=6.0)
    run_change(old, new, folder / "out", ChangeOptions(), Silent())
    return folder


def test_run_change__rasters_and_layers(changed):
    out = changed / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "change.geojson", "change.gpkg", "change.tif", "detectable.tif", "quality.json", "report.html",
    ]  # fmt: skip
    d, s, mark = (read_raster(out / "change.tif", band).values for band in (1, 2, 3))
    assert np.median(d[112:128, 110:130]) == pytest.approx(6.0, abs=0.1) and (mark[112:128, 110:130] == 1).all()
    assert np.nanmedian(s) < 0.3 and np.nanmin(read_raster(out / "detectable.tif").values) >= 1.499
    layer = read_layer(out / "change.gpkg", "changes")
    assert layer.columns["kind"].tolist() == ["new_building"]
    assert abs(layer.columns["volume_m3"][0] - 6 * 320) < 1.96 * layer.columns["volume_sigma_m3"][0] + 100
    assert layer.columns["ground_volume_m3"][0] == pytest.approx(0, abs=60)
    squares = read_layer(out / "change.gpkg", "detectability")
    assert 1.4 < np.median(squares.columns["smallest_change_m"]) < 2.5
    stable = read_layer(out / "change.gpkg", "stable")
    assert np.abs(stable.columns["median_dz_m"]).max() < 0.02
    tiles = read_layer(out / "change.gpkg", "tiles")
    assert tiles.columns["code"].tolist() == [square_code(500_060.0, 3_899_940.0, "EPSG:32654")]


def test_run_change__does_not_write_over_an_epoch(changed):
    old, new = changed / "old", changed / "new"
    for before, after, out in ((old, new, old), (old, new, new), (old, new / "dsm.tif", new)):
        with pytest.raises(ConfigError, match="would overwrite what was given"):
            run_change(before, after, out, ChangeOptions(), Silent())
    assert not (new / "report.html").exists() and not (old / "change.tif").exists()


def test_change_columns__are_all_that_regions_say_with_or_without_regions():
    region = Region(shapely.box(0, 0, 1, 1), Kind.FELLING, Measures(*(0.0 for _ in fields(Measures))), 0.5)
    assert [*region.attributes(), "date_before", "date_after"] == list(COLUMNS)
    for regions in ([], [region]):
        columns = change_columns(regions, "2023", "2024")
        assert list(columns) == list(COLUMNS) and {len(v) for v in columns.values()} == {len(regions)}
        assert columns["event"].dtype == int and columns["kind"].dtype.kind == "U" and columns["tone"].dtype == float


def test_run_change__geojson_and_report(changed):
    folder = changed
    found = json.loads((folder / "out" / "change.geojson").read_text())
    (feature,) = found["features"]
    lon, lat = feature["geometry"]["coordinates"][0][0]
    assert 140.9 < lon < 141.1 and 35.1 < lat < 35.4
    assert feature["properties"]["kind"] == "new_building"
    page = (folder / "out" / "report.html").read_text()
    assert "1. new_building" in page and "Tiles to update" in page and page.count("data:image/png") >= 8


@pytest.mark.slow
def test_run_change__sheets_of_ones_own(changed, tmp_path, model):
    folder = changed
    x, y = 500_060.0, 3_899_940.0
    boxes = [shapely.box(x - 50, y - 50, x, y + 50), shapely.box(x, y - 50, x + 50, y + 50)]
    write_layer(tmp_path / "sheets.gpkg", "sheets", boxes, {"Name": np.array(["W", "E"])}, "EPSG:32654")
    out = tmp_path / "out"
    scheme = TileScheme(str(tmp_path / "sheets.gpkg"))
    run_change(folder / "old", folder / "new", out, ChangeOptions(), Silent(), tiles=scheme)
    tiles = read_layer(out / "change.gpkg", "tiles")
    assert sorted(tiles.columns["code"]) == ["E", "W"] and tiles.columns["changed_area_m2"].sum() > 250
    with pytest.raises(InputFileError, match="no column sheet_no"):
        run_change(folder / "old", folder / "new", out, ChangeOptions(), Silent(),
                   tiles=TileScheme(str(tmp_path / "sheets.gpkg"), "sheet_no"))  # fmt: skip


def test_run_change__errors_leave_nothing(changed, tmp_path):
    folder = changed
    with pytest.raises(ConfigError, match="unknown scheme"):
        run_change(folder / "old", folder / "new", tmp_path / "a", ChangeOptions(), Silent(), tiles=TileScheme("utm"))
    bare = read_raster(folder / "new" / "dsm.tif")
    write_raster(tmp_path / "bare.tif", bare, nodata=-9999, heights=False)
    with pytest.raises(FrameError, match="declares no vertical reference"):
        run_change(folder / "old", tmp_path / "bare.tif", tmp_path / "a", ChangeOptions(), Silent())
    assert not (tmp_path / "a").exists()
    told = ChangeOptions(vertical_after="same")
    result = run_change(folder / "old", tmp_path / "bare.tif", tmp_path / "a", told, Silent())
    assert len(result.regions) == 1 and any("as told" in note for note in result.notes)


def test_discoveries__benjamini_hochberg():
    z = np.array([6.0, 4.2, 3.0, 1.0])
    assert discoveries(z, 10_000, 0.05).tolist() == [True, False, False, False]
    assert discoveries(z, 100, 0.05).tolist() == [True, True, False, False]
    assert discoveries(z, 4, 0.05).tolist() == [True, True, True, False]
    assert discoveries(np.zeros(0), 100, 0.05).tolist() == []
