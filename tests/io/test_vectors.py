from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely

from terrain3d.errors import FrameError, InputFileError, OutputError
from terrain3d.io.vectors import read_layer, write_layer

SQUARE = shapely.box(0, 0, 10, 20)


def test_write_layer__round_trip(tmp_path: Path) -> None:
    columns = {"kind": np.array(["new building", "é"]), "area_m2": np.array([200.0, np.nan]), "n": np.array([1, 2])}
    write_layer(tmp_path / "v.gpkg", "changes", [SQUARE, shapely.MultiPolygon([SQUARE])], columns, "EPSG:32654")
    layer = read_layer(tmp_path / "v.gpkg", "changes")
    assert layer.crs == "EPSG:32654" and [g.area for g in layer.geometries] == [200.0, 200.0]
    assert list(layer.columns["kind"]) == ["new building", "é"] and list(layer.columns["n"]) == [1, 2]
    np.testing.assert_array_equal(layer.columns["area_m2"], [200.0, np.nan])


def test_write_layer__empty_keeps_its_columns(tmp_path: Path) -> None:
    columns = {"kind": np.array([], str), "area_m2": np.array([], float), "n": np.array([], np.int64)}
    write_layer(tmp_path / "v.gpkg", "changes", [], columns, "EPSG:32654")
    layer = read_layer(tmp_path / "v.gpkg")
    assert len(layer.geometries) == 0 and layer.crs == "EPSG:32654"
    assert {k: v.dtype.kind for k, v in layer.columns.items()} == {"kind": "O", "area_m2": "f", "n": "i"}


def test_write_layer__replaces_the_file_whole(tmp_path: Path) -> None:
    write_layer(tmp_path / "v.gpkg", "old", [SQUARE, SQUARE], {"a": [1, 2]}, "EPSG:32654")
    write_layer(tmp_path / "v.gpkg", "new", [SQUARE], {"a": [1]}, "EPSG:32654")
    assert len(read_layer(tmp_path / "v.gpkg").geometries) == 1
    with pytest.raises(InputFileError, match="layer cannot be read"):
        read_layer(tmp_path / "v.gpkg", "old")
    assert [p.name for p in tmp_path.iterdir()] == ["v.gpkg"]


def test_write_layer__bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        write_layer(tmp_path / "v.gpkg", "a", [SQUARE], {"a": [1, 2]}, "EPSG:32654")
    with pytest.raises(FrameError, match="unknown CRS"):
        write_layer(tmp_path / "v.gpkg", "a", [SQUARE], {"a": [1]}, "EPSG:1")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_layer(tmp_path / "file" / "v.gpkg", "a", [SQUARE], {}, "EPSG:32654")


def test_read_layer__bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no such file"):
        read_layer(tmp_path / "v.gpkg")
    (tmp_path / "v.gpkg").write_text("x")
    with pytest.raises(InputFileError, match="layer cannot be read"):
        read_layer(tmp_path / "v.gpkg")
