"""Area files and schemes of tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
import yaml

from terrain3d.errors import ConfigError, InputFileError
from terrain3d.io.vectors import write_layer
from terrain3d.pipeline.batch.area import Area, load_area
from terrain3d.pipeline.batch.sheets import sheets_of

UTM54 = "EPSG:32654"
COVERED = shapely.box(380_200, 3_949_100, 382_100, 3_950_400)


def area_file(folder: Path, **content: object) -> Path:
    for name in ("a.tif", "b.tif"):
        (folder / name).touch()
    path = folder / "area.yaml"
    path.write_text(yaml.safe_dump({"name": "x", "images": ["*.tif"], **content}), encoding="utf-8")
    return path


def area(folder: Path, **tiles: object) -> Area:
    return load_area(area_file(folder, tiles=tiles))


def test_sheets__squares_have_mgrs_codes_or_their_corners(tmp_path: Path) -> None:
    found = sheets_of(area(tmp_path, utm=1000), COVERED, UTM54)
    assert [s.code for s in found] == ["54SUE8050", "54SUE8150", "54SUE8250", "54SUE8049", "54SUE8149", "54SUE8249"]
    assert found[0].bounds == (380_000, 3_950_000, 381_000, 3_951_000)
    odd = sheets_of(area(tmp_path, utm=1500), COVERED, UTM54)
    assert [s.code for s in odd] == ["E379500N3949500", "E381000N3949500", "E379500N3948000", "E381000N3948000"]
    plane = sheets_of(area(tmp_path, utm=1000), shapely.box(10, 20, 1500, 90), "EPSG:6677")
    assert [s.code for s in plane] == ["E0N0", "E1000N0"]


def test_sheets__standard_meshes(tmp_path: Path) -> None:
    found = sheets_of(area(tmp_path, jis=3), COVERED, UTM54)
    assert all(len(s.code) == 8 and s.code.startswith("53") for s in found)
    assert shapely.union_all([s.outline for s in found]).buffer(0.5).contains(COVERED)


def index(path: Path, codes: list[object]) -> None:
    boxes = [shapely.box(379_000 + 2000 * i, 3_948_000, 381_000 + 2000 * i, 3_951_000) for i in range(len(codes))]
    write_layer(path, "sheets", boxes, {"NUMBER": np.array(codes)}, UTM54)


def test_sheets__of_an_index_of_ones_own(tmp_path: Path) -> None:
    index(tmp_path / "index.gpkg", ["A-1", "A-2", "A-3"])
    found = sheets_of(area(tmp_path, sheets="index.gpkg", code="NUMBER"), COVERED, UTM54)
    assert [s.code for s in found] == ["A-1", "A-2"]
    with pytest.raises(ConfigError, match=r"no column 'NAME'; it has NUMBER"):
        sheets_of(area(tmp_path, sheets="index.gpkg", code="NAME"), COVERED, UTM54)


@pytest.mark.parametrize("code", ["../../up", "a/b", "..", "", "a" * 100, "a\nb", ".hidden"])
def test_sheets__codes_that_lead_out_of_the_folder_are_refused(tmp_path: Path, code: str) -> None:
    index(tmp_path / "index.gpkg", ["good", code])
    with pytest.raises(ConfigError, match="cannot be the name of a file"):
        sheets_of(area(tmp_path, sheets="index.gpkg", code="NUMBER"), COVERED, UTM54)


def test_sheets__each_needs_a_code(tmp_path: Path) -> None:
    index(tmp_path / "index.gpkg", ["A", None])
    with pytest.raises(ConfigError, match="a sheet has no code in column 'NUMBER'"):
        sheets_of(area(tmp_path, sheets="index.gpkg", code="NUMBER"), COVERED, UTM54)


@pytest.mark.parametrize("codes", [["A", "A"], ["A", "a"]])  # the latter are one folder on some disks
def test_sheets__codes_must_be_unique(tmp_path: Path, codes: list[str]) -> None:
    index(tmp_path / "index.gpkg", codes)
    with pytest.raises(ConfigError, match="occurs twice: A"):
        sheets_of(area(tmp_path, sheets="index.gpkg", code="NUMBER"), COVERED, UTM54)


@pytest.mark.parametrize(
    ("tiles", "said"),
    [
        ({}, "exactly one"), ({"utm": 1000, "jis": 3}, "exactly one"), ({"utm": 10}, "tiles.utm"),
        ({"jis": 9}, "tiles.jis"),
        ({"sheets": "a.gpkg"}, "need code"), ({"size": 5}, "unknown key 'tiles.size'; known keys here: utm, jis"),
    ],
)  # fmt: skip
def test_area__schemes_that_make_no_sense(tmp_path: Path, tiles: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_area(area_file(tmp_path, tiles=tiles))


def test_area__one_cell_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one cell size"):
        load_area(area_file(tmp_path, output={"resolution": [0.5, 2]}))


def test_area__index_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no such index of sheets"):
        area(tmp_path, sheets="index.gpkg", code="NUMBER")


def test_area__unknown_keys_name_those_of_an_area(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'tile'.*tiles"):
        load_area(area_file(tmp_path, tile=3))
