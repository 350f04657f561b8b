from __future__ import annotations

import numpy as np
import pytest
import shapely

from terrain3d.crs import from_lonlat
from terrain3d.errors import ConfigError, FrameError
from terrain3d.tiles import (
    Tile,
    mesh_bounds,
    mesh_code,
    on_earth,
    reproject,
    sheets_over,
    square_code,
    tile_of_code,
    tiles_over,
)


@pytest.mark.parametrize(
    ("lon", "lat", "level", "code"),
    [
        (139.7671, 35.6812, 3, "53394611"),  # Tokyo station
        (139.7671, 35.6812, 1, "5339"),
        (135.1955, 34.6913, 2, "523501"),  # Kobe
        (141.3508, 43.0687, 3, "64414288"),  # Sapporo station
        (139.7454, 35.6586, 4, "533935992"),  # Tokyo tower
        (100.0, 0.0, 6, "00000000111"),
    ],
)
def test_mesh_code__known_places(lon, lat, level, code):
    assert mesh_code(lon, lat, level) == code


def test_mesh_bounds__holds_the_place_of_its_code():
    rng = np.random.default_rng(3)
    for level in range(1, 7):
        for lon, lat in zip(rng.uniform(123, 149, 40), rng.uniform(24, 46, 40), strict=True):
            west, south, east, north = mesh_bounds(mesh_code(lon, lat, level))
            assert west <= lon < east and south <= lat < north
            assert mesh_code((west + east) / 2, (south + north) / 2, level) == mesh_code(lon, lat, level)


def test_mesh_bounds__sizes_of_the_standard():
    west, south, east, north = mesh_bounds("53394611")
    assert (east - west, north - south) == pytest.approx((45 / 3600, 30 / 3600))
    assert (west, south) == pytest.approx((139 + 0.75 + 0.0125, 35 + 1 / 3 + 4 / 12 + 1 / 120))
    west, south, east, north = mesh_bounds("53394611444")
    assert (east - west, north - south) == pytest.approx((45 / 8 / 3600, 30 / 8 / 3600))


@pytest.mark.parametrize("code", ["5339a6", "533986", "533946115", "533", ""])
def test_mesh_bounds__no_code(code):
    with pytest.raises(ConfigError, match="no code"):
        mesh_bounds(code)


@pytest.mark.parametrize(
    ("utm", "lon", "lat", "code"),
    [
        ("EPSG:32618", -77.0353, 38.8895, "18SUJ2306"),  # Washington Monument
        ("EPSG:32604", -157.916082, 21.409796, "4QFJ1267"),  # Honolulu, of MGRS's description in Wikipedia
        ("EPSG:32756", 151.2153, -33.8568, "56HLH3452"),  # Sydney opera house
        ("EPSG:32631", 2.2945, 48.8583, "31UDQ4811"),  # Eiffel tower
    ],
)
def test_square_code__known_places(utm, lon, lat, code):
    x, y = from_lonlat(utm, np.array(lon), np.array(lat))
    assert square_code(float(x), float(y), utm) == code
    assert tile_of_code(code).outline.contains(shapely.Point(float(x), float(y)))


def test_square_code__not_a_utm():
    with pytest.raises(FrameError, match="not a UTM"):
        square_code(0, 0, "EPSG:2154")


def test_tiles_over__squares_and_meshes_of_an_area():
    area = shapely.box(399_200, 3_949_500, 401_000, 3_950_800)
    tiles = tiles_over(area, "EPSG:32654", "utm-1km")
    # x 399..401, y 3949..3951: the square that only touches at 401 000 is not among them
    assert [t.outline.bounds[:2] for t in tiles] == [
        (399_000, 3_950_000), (400_000, 3_950_000), (399_000, 3_949_000), (400_000, 3_949_000),
    ]  # fmt: skip
    assert len({t.code for t in tiles}) == 4 and all(t.crs == "EPSG:32654" for t in tiles)
    meshes = tiles_over(area, "EPSG:32654", "jis-3")
    whole = shapely.union_all([m.outline_in("EPSG:32654") for m in meshes])
    assert whole.buffer(1).covers(area) and 2 <= len(meshes) <= 6
    assert [tile_of_code(m.code) for m in meshes] == meshes


def test_tiles_over__utm_of_another_datum_keeps_its_grid():
    (tile,) = tiles_over(shapely.box(400_100, 3_949_100, 400_200, 3_949_200), "EPSG:6691", "utm-1km")
    assert tile.crs == "EPSG:6691" and tile.outline.bounds == (400_000, 3_949_000, 401_000, 3_950_000)


def test_tiles_over__unknown_scheme_and_far_too_many():
    area = shapely.box(0, 0, 1, 1)
    with pytest.raises(ConfigError, match="unknown scheme"):
        tiles_over(area, "EPSG:32654", "utm-3km")
    with pytest.raises(ConfigError, match="tiles cover"):
        tiles_over(shapely.box(130, 30, 145, 45), "EPSG:4326", "jis-6")


def test_sheets_over__only_those_that_overlap():
    sheets = [Tile(n, shapely.box(x, 0, x + 10, 10), "EPSG:32654") for n, x in (("A", 0), ("B", 10), ("C", 20))]
    assert [s.code for s in sheets_over(shapely.box(2, 2, 10, 8), "EPSG:32654", sheets)] == ["A"]


def test_on_earth__cuts_at_the_180th_meridian() -> None:
    square = shapely.box(819000, 8117000, 820000, 8118000)  # of UTM zone 60 S
    cut = on_earth(reproject(square, "EPSG:32760", "EPSG:4326"))
    assert cut.geom_type == "MultiPolygon" and cut.bounds[0] == -180.0 and cut.bounds[2] == 180.0
    assert cut.area * 111_320**2 * np.cos(np.radians(17)) == pytest.approx(1e6, rel=0.01)
    assert on_earth(shapely.box(10, 40, 11, 41)) == shapely.box(10, 40, 11, 41)
