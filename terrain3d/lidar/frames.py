"""Terrestrial frames of lidar products, and their returns in another frame: realizations of the ITRF and plate motion.

Sources: NSIDC's version summary of ATL03 release 007 (from ITRF2014 to ITRF2020, up to 7 mm in height); PROJ's EPSG
operations between realizations; plate motion of Altamimi et al. 2017 (doi 10.1093/gji/ggx136, ITRF2014).
Heights of ICESat-2 and GEDI have the solid Earth tide of the IERS conventions taken off: they are tide-free, as EGM96.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_crs_info
from pyproj.enums import PJType
from pyproj.exceptions import CRSError, ProjError

from terrain3d.errors import FrameError
from terrain3d.points import LidarReturns

Floats = NDArray[np.float64]

TIDE_FREE = "tide-free"
UNSTATED = "WGS 84"  # without a realization
ELLIPSOIDAL = {  # EPSG codes of the three-dimensional geographic CRS
    "ITRF2005": 7910, "ITRF2008": 7911, "ITRF2014": 7912, "ITRF2020": 9989, "ETRS89": 4937, "GDA2020": 7843,
    "GDA94": 4939, "NAD83(2011)": 6319,
}  # fmt: skip
PLATES = {  # rotation of the plate in ITRF2014, milliarcseconds a year about x, y, z
    "ANTA": (-0.248, -0.324, 0.675), "ARAB": (1.154, -0.136, 1.444), "AUST": (1.510, 1.182, 1.215),
    "EURA": (-0.085, -0.531, 0.770), "INDI": (1.154, -0.005, 1.454), "NAZC": (-0.333, -1.544, 1.623),
    "NOAM": (0.024, -0.694, -0.063), "NUBI": (0.099, -0.614, 0.733), "PCFC": (-0.409, 1.047, -2.169),
    "SOAM": (-0.270, -0.301, -0.140), "SOMA": (-0.121, -0.794, 0.884),
}  # fmt: skip
MILLIARCSECOND = np.pi / 180 / 3_600_000
SDP_EPOCH = 2018.0  # delta_time of ICESat-2 and GEDI counts from 2018-01-01
YEAR_S = 365.25 * 86_400


@dataclass(frozen=True)
class Frame:
    """Frame that coordinates refer to.

    name: 'ITRF2014', ..., a name of ``ELLIPSOIDAL``, or 'EPSG:n' of a three-dimensional geographic CRS.
    epoch: decimal year that the coordinates are valid for; None for the time of each return, NaN if that is unknown.
    tides: permanent tide of the heights.
    stated: whether the product says so; a product that names only WGS 84 is taken for what its mission uses.
    """

    name: str
    epoch: float | None = None
    tides: str = TIDE_FREE
    stated: bool = True

    @property
    def text(self) -> str:
        """For reports, such as 'ITRF2014 at the time of each return, tide-free'."""
        when = "at the time of each return" if self.epoch is None else f"at {self.epoch:g}"
        when = "without dates" if when == "at nan" else when
        return f"{self.name} {when}, {self.tides}" + ("" if self.stated else " (not stated by the file)")


@dataclass(frozen=True)
class TargetFrame:
    """Frame that the returns of a scene are brought to.

    epoch: decimal year for a realization of the ITRF; needs the plate, whose motion from the time of a return to the
    epoch is applied. A frame that moves with its plate (ETRS89, GDA2020, ...) needs neither.
    """

    name: str
    epoch: float | None = None
    plate: str | None = None

    @property
    def text(self) -> str:
        """For reports, such as 'ITRF2014 at 2020 by the motion of plate EURA'."""
        return self.name if self.epoch is None else f"{self.name} at {self.epoch:g} by the motion of plate {self.plate}"


def atlas_frame(release: int | None) -> Frame:
    """Frame of ICESat-2 products: ITRF2020 from release 007 on, ITRF2014 before. Their descriptions lag behind."""
    return Frame("ITRF2020" if release is not None and release >= 7 else "ITRF2014", stated=release is not None)


def gedi_frame(dated: bool = True) -> Frame:
    """Frame of GEDI: its files name the WGS 84 ellipsoid only; SlideRule takes it for ITRF2014 as well."""
    return Frame("ITRF2014", None if dated else float("nan"), stated=False)


def frame_of_crs(crs: CRS | None) -> str | None:
    """Name of the frame that a CRS is built on, if it is one of ``ELLIPSOIDAL``."""
    name = _datum(crs)
    return next((n for n in ELLIPSOIDAL if name and _datum(crs_of_frame(n)) == name), None)


def _datum(crs: CRS | None) -> str | None:
    geodetic = None if crs is None else crs.geodetic_crs
    return None if geodetic is None or geodetic.datum is None else str(geodetic.datum.name)


def longitude_latitude(crs: CRS, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Degrees of the coordinates (east, north) of a horizontal CRS.

    Realizations of the ITRF, and WGS 84, are left as they are: their frame is stated beside them. Everything else goes
    through an operation that PROJ knows. Raises FrameError where there is none.
    """
    own = crs.geodetic_crs if (frame_of_crs(crs) or "").startswith("ITRF") else None
    try:
        target = CRS.from_epsg(4326) if own is None else own.to_2d()
        operation = Transformer.from_crs(crs.to_2d(), target, always_xy=True, allow_ballpark=False)
        u, v = operation.transform(x, y, errcheck=True)
    except ProjError as error:
        raise FrameError(f"no operation is known from '{crs.name}' to longitude and latitude",
                         fix="give the table in WGS 84 or in a CRS that PROJ connects to it") from error  # fmt: skip
    return np.asarray(u, float), np.asarray(v, float)


def moves_with_plate(name: str) -> bool:
    """Whether a frame is fixed to a plate, so that it leaves the ITRF, and WGS 84, by centimetres a year.

    Raises FrameError for an unknown frame.
    """
    return name != UNSTATED and not crs_of_frame(name).name.startswith(("ITRF", "WGS 84"))


def zone_crs(frame: str, lon_deg: float, lat_deg: float) -> str:
    """EPSG code of the zone of a place, UTM or MGA, in a frame that moves with its plate. Raises FrameError."""
    place = AreaOfInterest(lon_deg, lat_deg, lon_deg, lat_deg)
    found = query_crs_info("EPSG", PJType.PROJECTED_CRS, area_of_interest=place, contains=True)
    zone = re.compile(re.escape(frame) + r" / (UTM|MGA) zone \d+[NS]?")
    code = next((c.code for c in found if zone.fullmatch(c.name)), None)
    if code is None:
        raise FrameError(f"no UTM zone is known in {frame}", fix="name a projected crs of that frame under output")
    return f"EPSG:{code}"


def years(time_s: Floats) -> Floats:
    """Decimal years of seconds since 2018-01-01."""
    return SDP_EPOCH + np.asarray(time_s, float) / YEAR_S


def to_frame(returns: LidarReturns, frame: Frame, target: TargetFrame) -> LidarReturns:
    """The returns in another frame. Raises FrameError where no operation between the frames is known, never a guess."""
    if frame.name == UNSTATED:
        raise FrameError(f"returns of {', '.join(dict.fromkeys(returns.product))} state no terrestrial frame, so they "
                         f"cannot be brought to {target.name}", fix="give the frame of the table")  # fmt: skip
    epoch = np.full(len(returns), frame.epoch) if frame.epoch is not None else years(returns.time_s)
    x, y, h = convert_frame(returns.lon_deg, returns.lat_deg, returns.height, epoch, frame.name, target)
    return replace(returns, lon_deg=x, lat_deg=y, height=h)


def convert_frame(
    lon_deg: Floats, lat_deg: Floats, height: Floats, epoch: Floats, source: str, target: TargetFrame
) -> tuple[Floats, Floats, Floats]:
    """Longitude, latitude (degrees) and ellipsoidal height from a frame at decimal years ``epoch`` to another.

    Raises FrameError: unknown frame or plate, no operation, no date where one is needed.
    """
    if target.plate is not None and target.plate not in PLATES:
        raise FrameError(f"unknown plate '{target.plate}'", fix=f"use one of {', '.join(PLATES)}")
    if (target.epoch is None) != (target.plate is None):
        raise FrameError(
            f"output frame {target.name}: an epoch needs a plate, and a plate an epoch",
            fix="give both, such as epoch: 2020.0, plate: EURA, or neither",
        )
    moves = target.epoch is not None
    if not moves and source == target.name:
        return lon_deg, lat_deg, height
    if len(height) and not np.isfinite(epoch).all():
        raise FrameError(f"returns in {source} have no date, so they cannot be brought to {target.name}",
                         fix="give the epoch of the table, a decimal year")  # fmt: skip
    if source != target.name:
        lon_deg, lat_deg, height = _operate(_transformer(source, target.name), lon_deg, lat_deg, height, epoch)
    if moves:
        if moves_with_plate(target.name):
            raise FrameError(f"{target.name} moves with its plate", fix="leave out epoch and plate")
        lon_deg, lat_deg, height = _move(lon_deg, lat_deg, height, target, epoch)
    return lon_deg, lat_deg, height


def crs_of_frame(name: str) -> CRS:
    """Three-dimensional geographic CRS of a frame. Raises FrameError for an unknown one."""
    code = ELLIPSOIDAL.get(name)
    try:
        crs = CRS.from_epsg(code) if code else CRS.from_user_input(name)
    except CRSError as error:
        raise FrameError(f"unknown frame '{name}'", fix=f"use one of {', '.join(ELLIPSOIDAL)}, or EPSG:n") from error
    if not crs.is_geographic or len(crs.axis_info) != 3:
        raise FrameError(f"'{name}' is not a three-dimensional geographic CRS",
                         fix=f"use one of {', '.join(ELLIPSOIDAL)}, or EPSG:n of such a CRS")  # fmt: skip
    return crs


@lru_cache(maxsize=16)
def _transformer(source: str, target: str) -> Transformer:
    try:
        return Transformer.from_crs(crs_of_frame(source), crs_of_frame(target), always_xy=True, allow_ballpark=False)
    except ProjError as error:
        raise FrameError(f"no operation is known from {source} to {target}",
                         fix="use a frame that PROJ connects to the ITRF, such as ETRS89") from error  # fmt: skip


def _operate(
    operation: Transformer, lon: Floats, lat: Floats, height: Floats, epoch: Floats
) -> tuple[Floats, Floats, Floats]:
    try:
        out = operation.transform(lon, lat, height, epoch, errcheck=True)
    except ProjError as error:
        raise FrameError(f"frames cannot be converted here ({error})", fix="use another output frame") from error
    x, y, h = (np.asarray(a, float) for a in out[:3])
    if not (np.isfinite(x) & np.isfinite(y) & np.isfinite(h)).all():
        raise FrameError("no operation between the frames is valid at these places", fix="use another output frame")
    return x, y, h


def _move(
    lon: Floats, lat: Floats, height: Floats, target: TargetFrame, epoch: Floats
) -> tuple[Floats, Floats, Floats]:
    """Positions carried by their plate from their own epochs to the target's: displacement = omega x position."""
    assert target.plate is not None and target.epoch is not None
    to_cartesian = Transformer.from_pipeline("+proj=pipeline +step +proj=cart +ellps=GRS80")
    position = np.stack(to_cartesian.transform(lon, lat, height))
    omega = np.array(PLATES[target.plate]) * MILLIARCSECOND
    moved = position + np.cross(omega, position.T).T * (target.epoch - epoch)
    x, y, h = to_cartesian.transform(moved[0], moved[1], moved[2], direction="INVERSE")
    return np.asarray(x, float), np.asarray(y, float), np.asarray(h, float)
