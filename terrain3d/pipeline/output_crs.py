"""The reference of the results: CRS and vertical reference as configured, checked against the place of the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pyproj import CRS, Geod
from shapely.geometry import Point, box

from terrain3d.config import OutputConfig
from terrain3d.crs import (
    LONLAT,
    Reference,
    datum_operation,
    from_lonlat,
    is_compound,
    is_in_metres,
    like_wgs84,
    parse_crs,
    utm_crs,
    vertical_from_name,
)
from terrain3d.errors import FrameError
from terrain3d.image.view import View, footprint
from terrain3d.io.geoid import undulation
from terrain3d.lidar.frames import moves_with_plate, zone_crs

AUTO = "auto"
WGS84 = Geod(ellps="WGS84")
STEP_DEG = 1e-4
MOST_DISTORTION = 0.04  # of lengths in a named CRS
MOST_INEXACT = 1.0  # metres; what frames of today are apart, and EPSG says of all of them


def output_reference(output: OutputConfig, views: list[View], height: float, folder: Path) -> Reference:
    """Reference of the results; the UTM zone of the images' centre unless a CRS is named. Raises FrameError, also where
    the geoid grid does not cover the images, and InputFileError if it cannot be read."""
    vertical = vertical_from_name(output.vertical, folder)
    for view in views:
        undulation(vertical, *footprint(view, LONLAT, height).exterior.xy)
    if output.crs != AUTO:
        crs = parse_crs(output.crs)
        if not is_in_metres(crs):
            raise FrameError(f"output crs '{output.crs}' is not projected in metres", fix="use 'auto' or a UTM zone")
        _check_heights(output, crs)
        check_frame(output, crs)
        if views:
            _check_scale(output.crs, *_middle(views, height))
        return Reference(_authority(crs), vertical)
    lon, lat = _middle(views, height)
    moves = output.frame != AUTO and moves_with_plate(output.frame)
    return Reference(zone_crs(output.frame, lon, lat) if moves else utm_crs(lon, lat), vertical)


def datum_warnings(output: OutputConfig, crs: str, views: list[View], height: float) -> list[str]:
    """Lines if the CRS of the results is on a datum to which no exact way from WGS 84 is known there. In a frame that
    was asked for, coordinates are there already."""
    named = parse_crs(crs)
    if output.frame != AUTO and like_wgs84(named):
        return []
    lon, lat = _middle(views, height)
    lines = []
    name, accuracy = datum_operation(crs, lon, lat)
    if accuracy > MOST_INEXACT:
        lines.append(
            f"output crs '{output.crs}' is on another datum than the images: PROJ's way there ({name}) is right "
            f"within {accuracy:g} m, which no sigma contains (crs: auto needs no such way; output.frame names a frame "
            "of today for what lidar places)"
        )
    base = None if named.geodetic_crs is None else named.geodetic_crs.to_epsg()
    area = None if base is None or like_wgs84(named) else CRS.from_epsg(base).area_of_use
    if area is not None and not box(*area.bounds).covers(Point(lon, lat)):
        lines.append(
            f"the datum of output crs '{output.crs}' is not in use at longitude {lon:.2f}, latitude {lat:.2f}: other "
            "programs may take no way to it there and show the results 100 m aside"
        )
    return lines


def check_frame(output: OutputConfig, crs: CRS) -> None:
    """Raises FrameError where the files would call WGS 84 what is in a frame that moves with its plate."""
    if output.frame == AUTO or not moves_with_plate(output.frame):
        return
    datum = crs.geodetic_crs.datum if crs.geodetic_crs else None
    if datum is None or datum.name.startswith("World Geodetic System 1984"):
        raise FrameError(f"output crs '{output.crs}' is on WGS 84, output frame is {output.frame}",
                         fix="name a crs of that frame, or auto")  # fmt: skip


def _check_heights(output: OutputConfig, crs: CRS) -> None:
    """Raises FrameError where the CRS says of heights what they will not be."""
    if is_compound(output.crs):
        raise FrameError(f"output crs '{output.crs}' names a vertical reference too, heights are to be over "
                         f"'{output.vertical}'", fix="name the horizontal CRS alone, and the geoid of its heights as "
                         "output.vertical: egm96 or the path of a grid")  # fmt: skip
    if output.vertical == "ellipsoid" and not like_wgs84(crs):
        ellipsoid = crs.ellipsoid.name if crs.ellipsoid else "an unknown ellipsoid"
        raise FrameError(f"output crs '{output.crs}' is on {ellipsoid}, so heights over the ellipsoid of WGS 84 cannot "
                         "go with it", fix="state a geoid, output.vertical: egm96 or the path of a grid, or name a "
                         "CRS on WGS 84 or GRS 80")  # fmt: skip


def _check_scale(crs: str, lon_deg: float, lat_deg: float) -> None:
    """Raises FrameError where a metre of the CRS is none on the ground: in a zone far away, or in Web Mercator."""
    lon, lat = lon_deg + np.array([0.0, STEP_DEG, 0.0]), lat_deg + np.array([0.0, 0.0, STEP_DEG])
    x, y = from_lonlat(crs, lon, lat)
    _, _, ground = WGS84.inv(lon[:1].repeat(2), lat[:1].repeat(2), lon[1:], lat[1:])
    scale = np.hypot(x[1:] - x[0], y[1:] - y[0]) / ground
    if not (np.abs(scale - 1) < MOST_DISTORTION).all():
        text = f"1 m is {scale[0]:.2f} m in it" if np.isfinite(scale).all() else "it does not reach there"
        raise FrameError(f"output crs '{crs}' is not made for longitude {lon_deg:.2f}, latitude {lat_deg:.2f}: {text}",
                         fix="use 'auto' or a CRS of that region")  # fmt: skip


def _middle(views: list[View], height: float) -> tuple[float, float]:
    """Longitude and latitude of the middle of the images' centres."""
    lon, lat = np.mean([v.camera.locate(*v.centre(), height) for v in views], axis=0)
    return float(lon), float(lat)


def _authority(crs: CRS) -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt())
