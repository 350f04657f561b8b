"""Terrestrial frames: against PROJ's own pipelines and published plate velocities; nothing falls back to identity."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import CRS, Transformer

from terrain3d.errors import FrameError
from terrain3d.lidar.frames import (
    ELLIPSOIDAL,
    PLATES,
    TargetFrame,
    atlas_frame,
    convert_frame,
    crs_of_frame,
    frame_of_crs,
    gedi_frame,
    longitude_latitude,
    moves_with_plate,
    years,
)

Place = tuple[np.ndarray, np.ndarray, np.ndarray]
PLACE: Place = (np.array([5.0]), np.array([45.0]), np.array([100.0]))


def shift(target: TargetFrame, source: str = "ITRF2014", epoch: float = 2020.0, place: Place = PLACE) -> np.ndarray:
    """East, north, up of the conversion, metres."""
    lon, lat, h = convert_frame(*place, np.array([epoch]), source, target)
    east = (lon - place[0]) * 111_412 * np.cos(np.radians(place[1]))
    return np.array([east, (lat - place[1]) * 111_132, h - place[2]]).ravel()


def test_frames__of_products() -> None:
    assert [atlas_frame(r).name for r in (5, 6, 7)] == ["ITRF2014", "ITRF2014", "ITRF2020"]
    assert not atlas_frame(None).stated and gedi_frame().name == "ITRF2014" and not gedi_frame().stated
    assert atlas_frame(6).text == "ITRF2014 at the time of each return, tide-free"


def test_convert__itrf2014_to_itrf2020_is_millimetres() -> None:
    """Release 007 of ATL03 names up to 7 mm in height."""
    moved = shift(TargetFrame("ITRF2020"))
    assert 1e-4 < np.abs(moved).max() < 0.007


def test_convert__etrs89_takes_off_thirty_years_of_eurasia() -> None:
    moved = shift(TargetFrame("ETRS89"), epoch=2020.0)
    assert moved[0] == pytest.approx(-0.595, abs=0.03) and moved[1] == pytest.approx(-0.49, abs=0.03)
    later = shift(TargetFrame("ETRS89"), epoch=2030.0)
    assert np.hypot(*(later - moved)[:2]) == pytest.approx(0.25, abs=0.02)  # 25 mm a year


def test_convert__gda2020_is_itrf2014_at_2020() -> None:
    alice: Place = (np.array([133.9]), np.array([-23.7]), np.array([600.0]))
    assert np.abs(shift(TargetFrame("GDA2020"), epoch=2020.0, place=alice)).max() < 1e-3
    assert np.hypot(*shift(TargetFrame("GDA2020"), epoch=2025.0, place=alice)[:2]) == pytest.approx(0.35, abs=0.05)


@pytest.mark.parametrize("plate", PLATES)
def test_plates__agree_with_proj(plate: str) -> None:
    step = "+step +proj={} +xy_in=deg +xy_out=rad"
    pipeline = Transformer.from_pipeline(
        f"+proj=pipeline {step.format('unitconvert')} +step +proj=cart +ellps=GRS80 +step +init=ITRF2014:{plate} "
        "+t_epoch=2010 +step +inv +proj=cart +ellps=GRS80 +step +proj=unitconvert +xy_in=rad +xy_out=deg"
    )
    expected = pipeline.transform(5.0, 45.0, 100.0, 2020.0)[:3]
    got = convert_frame(*PLACE, np.array([2010.0]), "ITRF2014", TargetFrame("ITRF2014", 2020.0, plate))
    assert np.abs(np.ravel(got) - expected).max() < 1e-8 and np.abs(np.ravel(got)[:2] - expected[:2]).max() < 1e-10


def test_convert__same_frame_without_epoch_is_left_alone() -> None:
    assert np.array_equal(shift(TargetFrame("ITRF2014"), epoch=float("nan")), [0, 0, 0])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (TargetFrame("ITRF2014", 2020.0), "an epoch needs a plate"),
        (TargetFrame("ITRF2014", None, "EURA"), "an epoch needs a plate"),
        (TargetFrame("ITRF2014", 2020.0, "EURO"), "unknown plate 'EURO'; use one of ANTA"),
        (TargetFrame("ETRS89", 2020.0, "EURA"), "moves with its plate"),
        (TargetFrame("EPSG:4959"), "no operation is known from ITRF2014 to EPSG:4959"),  # NZGD2000, needs a grid
        (TargetFrame("moon"), "unknown frame 'moon'"),
        (TargetFrame("EPSG:32631"), "not a three-dimensional geographic CRS"),
    ],
)
def test_convert__never_falls_back(target: TargetFrame, message: str) -> None:
    with pytest.raises(FrameError, match=message) as error:
        shift(target)
    assert "\n" not in str(error.value)


def test_convert__no_date() -> None:
    with pytest.raises(FrameError, match="have no date"):
        shift(TargetFrame("ETRS89"), epoch=float("nan"))


@pytest.mark.parametrize("name", ELLIPSOIDAL)
def test_frames__all_are_reached_from_itrf2014(name: str) -> None:
    assert frame_of_crs(crs_of_frame(name)) == name
    if name != "ITRF2014":
        assert np.abs(shift(TargetFrame(name), epoch=2015.0)).max() > 1e-5


def test_longitude_latitude__of_projected_and_itrf_coordinates() -> None:
    lon, lat = longitude_latitude(CRS.from_epsg(32631), np.array([500000.0]), np.array([5e6]))
    assert lon[0] == pytest.approx(3.0, abs=1e-9)
    lon, lat = longitude_latitude(CRS.from_epsg(7912), np.array([5.0]), np.array([45.0]))
    assert (lon[0], lat[0]) == (5.0, 45.0)
    with pytest.raises(FrameError, match="no operation is known"):  # a local datum that nothing connects to WGS 84
        longitude_latitude(CRS.from_proj4("+proj=longlat +ellps=bessel +no_defs"), np.array([5.0]), np.array([45.0]))


@pytest.mark.parametrize(
    ("name", "moves"), [("ITRF2020", False), ("EPSG:7911", False), ("WGS 84", False), ("ETRS89", True), ("GDA94", True)]
)
def test_moves_with_plate(name: str, moves: bool) -> None:
    assert moves_with_plate(name) == moves


def test_years__of_product_time() -> None:
    assert years(np.array([0.0, 2 * 365.25 * 86400]))[1] == pytest.approx(2020.0)
