"""Reference frames: UTM zones with their exceptions, vertical names, CRS of files, and nothing silent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyproj import CRS
from pyproj.crs import CompoundCRS

from terrain3d.crs import (
    ELLIPSOID,
    UNDECLARED,
    Reference,
    Vertical,
    datum_operation,
    from_lonlat,
    is_compound,
    like_wgs84,
    parse_crs,
    to_lonlat,
    transform_xy,
    utm_crs,
    vertical_from_name,
    vertical_of_crs,
)
from terrain3d.errors import FrameError


@pytest.mark.parametrize(
    ("lon", "lat", "code"),
    [
        (11.4, 47.2, 32632),
        (-0.001, 51.5, 32630),
        (0.0, 51.5, 32631),
        (138.7, 35.4, 32654),
        (55.5, -21.1, 32740),
        (-180.0, 10.0, 32601),
        (179.999, 10.0, 32660),
        (180.0, 10.0, 32601),
        (190.0, 10.0, 32602),
        (5.3, 60.4, 32632),  # Bergen: zone 32 is widened over south-west Norway
        (2.9, 60.4, 32631),
        (5.3, 55.9, 32631),
        (5.3, 64.0, 32631),
        (15.6, 78.2, 32633),  # Svalbard: zones 31, 33, 35, 37 only
        (8.9, 78.2, 32631),
        (9.0, 78.2, 32633),
        (21.0, 78.2, 32635),
        (33.0, 78.2, 32637),
        (42.0, 78.2, 32638),
        (0.0, 84.0, 5041),
        (0.0, -80.5, 5042),
        (20.0, -80.0, 32734),
        (10.0, 0.0, 32632),
    ],
)
def test_utm_crs__zones(lon: float, lat: float, code: int) -> None:
    assert utm_crs(lon, lat) == f"EPSG:{code}"


def test_utm_crs__agrees_with_the_area_of_use() -> None:
    rng = np.random.default_rng(1)
    for lon, lat in zip(rng.uniform(-180, 180, 40), rng.uniform(-79, 83, 40), strict=True):
        area = CRS.from_user_input(utm_crs(lon, lat)).area_of_use
        assert area is not None
        inside = area.west <= lon <= area.east or (56 <= lat < 64 or lat >= 72)
        assert inside and area.south - 1e-9 <= lat <= area.north + 1e-9, (lon, lat)


@pytest.mark.parametrize(("lon", "lat"), [(0.0, 91.0), (0.0, -90.1), (float("nan"), 0.0), (0.0, float("nan"))])
def test_utm_crs__refuses_what_is_not_on_earth(lon: float, lat: float) -> None:
    with pytest.raises(FrameError, match="not on Earth"):
        utm_crs(lon, lat)


def test_vertical__names() -> None:
    assert vertical_from_name("ellipsoid") is ELLIPSOID and ELLIPSOID.is_ellipsoid
    egm96 = vertical_from_name("egm96")
    assert egm96.name == "egm96" and egm96.grid_path is not None and Path(egm96.grid_path).is_file()
    assert not UNDECLARED.is_declared and egm96.is_declared


def test_vertical__of_a_grid_file(tmp_path: Path) -> None:
    (tmp_path / "quasi.gtx").write_bytes(b"x")
    found = vertical_from_name("quasi.gtx", tmp_path)
    assert (found.name, found.grid_path) == ("quasi", str(tmp_path / "quasi.gtx"))


@pytest.mark.parametrize("name", ["egm2008", "EGM96", "geoid.tif", ""])
def test_vertical__without_a_grid_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=r"has no geoid grid.*egm96"):
        vertical_from_name(name, tmp_path)


def test_compound__declares_what_it_is() -> None:
    ellipsoid = Reference("EPSG:32632").compound()
    assert len(ellipsoid.axis_info) == 3 and vertical_of_crs(ellipsoid) == "ellipsoid"
    egm96 = Reference("EPSG:32632", vertical_from_name("egm96")).compound()
    assert egm96.is_compound and egm96.sub_crs_list[1].to_epsg() == 5773 and vertical_of_crs(egm96) == "egm96"
    own = Reference("EPSG:32632", Vertical("quasi", "quasi.gtx")).compound()
    assert own.is_compound and vertical_of_crs(own) == "quasi"
    bare = Reference("EPSG:32632", UNDECLARED).compound()
    assert len(bare.axis_info) == 2 and vertical_of_crs(bare) is None


def test_compound__survives_wkt() -> None:
    for vertical in (ELLIPSOID, vertical_from_name("egm96"), Vertical("quasi", "quasi.gtx")):
        crs = Reference("EPSG:32632", vertical).compound()
        assert vertical_of_crs(CRS.from_wkt(crs.to_wkt())) == vertical_of_crs(crs)


def test_vertical_of_crs__of_files_of_others() -> None:
    assert vertical_of_crs(CRS.from_epsg(4979)) == "ellipsoid"
    assert vertical_of_crs(CRS.from_epsg(32632)) is None
    assert vertical_of_crs(CompoundCRS("x", [CRS.from_epsg(32632), CRS.from_epsg(3855)])) == "EGM2008 height"


def test_parse_crs__horizontal_part_only() -> None:
    assert parse_crs("EPSG:32632").to_epsg() == 32632
    assert parse_crs("EPSG:4979").to_2d().to_epsg() == 4326
    compound = CompoundCRS("x", [CRS.from_epsg(32632), CRS.from_epsg(5773)]).to_wkt()
    assert parse_crs(compound).to_epsg() == 32632


@pytest.mark.parametrize("text", ["EPSG:999999", "somewhere", "", "EPSG:5773", "EPSG:4978"])
def test_parse_crs__refuses_what_is_not_horizontal(text: str) -> None:
    with pytest.raises(FrameError, match="EPSG:32654"):
        parse_crs(text)


def test_transform__there_and_back_to_a_tenth_of_a_millimetre() -> None:
    x, y = np.array([680_000.0, 679_123.4]), np.array([5_230_000.0, 5_229_000.1])
    lon, lat = to_lonlat("EPSG:32632", x, y)
    assert 11 < lon[0] < 12 and 47 < lat[0] < 48  # longitude first
    np.testing.assert_allclose(from_lonlat("EPSG:32632", lon, lat), (x, y), atol=1e-4)
    np.testing.assert_array_equal(transform_xy("EPSG:32632", "EPSG:32632", x, y), (x, y))


def test_transform__never_falls_back_to_identity() -> None:
    unknown = CRS.from_proj4("+proj=longlat +ellps=bessel +no_defs").to_wkt()
    with pytest.raises(FrameError, match="no operation is known from 'WGS 84' to"):
        from_lonlat(unknown, np.array([5.0]), np.array([45.0]))


def test_transform__china_2000_is_wgs84_within_centimetres() -> None:
    lon, lat = to_lonlat("EPSG:4547", *from_lonlat("EPSG:4547", np.array([114.0]), np.array([30.0])))
    np.testing.assert_allclose([lon[0], lat[0]], [114.0, 30.0], atol=1e-9)


def test_datum_operation__name_and_accuracy_after_epsg() -> None:
    assert datum_operation("EPSG:31467", 10.2, 47.9) == ("DHDN to WGS 84 (2)", 3.0)
    assert datum_operation("EPSG:26917", -81.0, 40.0) == ("NAD83 to WGS 84 (1)", 4.0)
    assert datum_operation("EPSG:25832", 9.0, 48.0)[1] == 1.0
    assert datum_operation("EPSG:32632", 9.0, 48.0)[1] == 0.0


def test_like_wgs84__bessel_is_not() -> None:
    alike = {code: like_wgs84(parse_crs(f"EPSG:{code}")) for code in (32632, 25832, 6677, 4526, 31467, 27700)}
    assert alike == {32632: True, 25832: True, 6677: True, 4526: True, 31467: False, 27700: False}
    assert is_compound("EPSG:32632+5773") and not is_compound("EPSG:32632")
