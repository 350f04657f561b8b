"""Reference frames: horizontal CRS, vertical reference, geoid grids, choice of a UTM zone.

Inside the program every height is WGS 84 ellipsoidal. A geoid enters only where a file is read or written, and
only from a grid that is present: PROJ returns heights unchanged when a grid is missing, so it is never asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.crs import BoundCRS, CompoundCRS
from pyproj.exceptions import CRSError, ProjError

from terrain3d.errors import FrameError

Floats = NDArray[np.float64]
EGM96_HEIGHT_EPSG = 5773
LONLAT = "EPSG:4326"  # WGS 84, degrees
WGS84_AXIS_AND_FLATTENING = (6378137.0, 298.257223)  # metres, inverse
DATUMS_LIKE_WGS84 = ("China Geodetic Coordinate System 2000",)  # within centimetres; EPSG has no operation between them


@dataclass(frozen=True)
class Vertical:
    """A vertical reference: the WGS 84 ellipsoid, a geoid given by a grid of undulations, or none that is declared.

    name: 'ellipsoid', 'egm96', the stem of the grid file, 'undeclared', or the name that a file's CRS gives.
    grid_path: the grid (GTX or GeoTIFF, undulation in metres over WGS 84, lon/lat); None for the ellipsoid, and where
        no grid is known: such heights cannot be converted.
    """

    name: str
    grid_path: str | None = None

    @property
    def is_ellipsoid(self) -> bool:
        return self.name == "ellipsoid"

    @property
    def is_declared(self) -> bool:
        return self.name != "undeclared"


ELLIPSOID = Vertical("ellipsoid")
UNDECLARED = Vertical("undeclared")


def vertical_from_name(name: str, base: Path | None = None) -> Vertical:
    """Vertical reference from a configuration value: ``ellipsoid``, ``egm96`` or the path of a geoid grid.

    Raises FrameError where no grid stands behind the name: a height is never passed on unconverted.
    """
    if name == "ellipsoid":
        return ELLIPSOID
    if name == "egm96":
        return Vertical("egm96", str(resources.files("terrain3d") / "data" / "egm96_15.gtx"))
    path = Path(name) if base is None else base / name
    if not path.is_file():
        raise FrameError(
            f"vertical reference '{name}' has no geoid grid",
            where=path if path.suffix else None,
            fix="use 'ellipsoid', 'egm96' (shipped), or the path of a GTX or GeoTIFF geoid grid",
        )
    return Vertical(path.stem, str(path))


@dataclass(frozen=True)
class Reference:
    """Horizontal and vertical reference of coordinates: ``horizontal`` is anything pyproj reads (EPSG:32654, WKT)."""

    horizontal: str
    vertical: Vertical = ELLIPSOID

    @property
    def crs(self) -> CRS:
        """Horizontal CRS, two-dimensional."""
        return parse_crs(self.horizontal)

    def compound(self) -> CRS:
        """CRS for a file: three-dimensional for the ellipsoid, compound with a geoid, horizontal if undeclared."""
        horizontal = self.crs
        if not self.vertical.is_declared:
            return horizontal
        if self.vertical.is_ellipsoid:
            return horizontal.to_3d()
        if self.vertical.name == "egm96":
            height: CRS = CRS.from_epsg(EGM96_HEIGHT_EPSG)
        else:
            height = CRS.from_wkt(
                f'VERTCRS["{self.vertical.name}",VDATUM["geoid grid {self.vertical.name}"],CS[vertical,1],'
                'AXIS["gravity-related height (H)",up],LENGTHUNIT["metre",1]]'
            )
        return CompoundCRS(f"{horizontal.name} + {height.name}", [horizontal, height])


@lru_cache(maxsize=64)
def parse_crs(text: str) -> CRS:
    """Horizontal CRS from EPSG code or WKT. Raises FrameError if it cannot be read or is not horizontal."""
    try:
        crs = CRS.from_user_input(text)
    except CRSError as error:
        raise FrameError(f"unknown CRS '{text[:60]}'", fix="give an EPSG code such as EPSG:32654") from error
    if isinstance(crs, BoundCRS):
        crs = crs.source_crs or crs
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    crs = crs.to_2d()
    if not (crs.is_projected or crs.is_geographic):
        raise FrameError(
            f"CRS '{crs.name}' is neither projected nor geographic", fix="give an EPSG code such as EPSG:32654"
        )
    return crs


def is_compound(text: str) -> bool:
    """Whether what ``parse_crs`` reads names a vertical reference besides."""
    crs = CRS.from_user_input(text)
    return bool((crs.source_crs or crs).is_compound if isinstance(crs, BoundCRS) else crs.is_compound)


def like_wgs84(crs: CRS) -> bool:
    """Whether heights over the ellipsoid of a CRS are those over WGS 84: its own, or GRS 80, 0.1 mm from it."""
    ellipsoid = crs.ellipsoid
    return ellipsoid is not None and np.allclose(
        (ellipsoid.semi_major_metre, ellipsoid.inverse_flattening), WGS84_AXIS_AND_FLATTENING, rtol=0, atol=1e-5
    )


def datum_operation(crs: str, lon_deg: float, lat_deg: float) -> tuple[str, float]:
    """Name of the operation that brings WGS 84 to the datum of a CRS at a place, and how exact EPSG calls it, metres
    (-1 where it says nothing). Raises FrameError."""
    transformer = _transformer(LONLAT, crs)
    transformer.transform(lon_deg, lat_deg)
    used = transformer.get_last_used_operation()
    steps = [step for step in used.description.split(" + ") if " to " in step]
    return (steps[0].removeprefix("Inverse of ") if steps else used.description), float(used.accuracy)


def vertical_of_crs(crs: CRS) -> str | None:
    """Name of the vertical reference that a file's CRS declares: 'ellipsoid', 'egm96', another name, or None."""
    if crs.is_compound:
        height = crs.sub_crs_list[1]
        if height.to_epsg() == EGM96_HEIGHT_EPSG or "egm96" in height.name.lower():
            return "egm96"
        return "ellipsoid" if "ellipsoid" in height.name.lower() else height.name
    return "ellipsoid" if len(crs.axis_info) == 3 else None


def is_in_metres(crs: CRS) -> bool:
    """Whether a CRS is projected, in metres."""
    return bool(crs.is_projected) and abs(crs.axis_info[0].unit_conversion_factor - 1) <= 1e-9


def metres_per_unit(crs: CRS) -> tuple[float, float]:
    """Metres of one horizontal and one vertical unit of a CRS; heights without a declared unit are in the horizontal
    one, those of a geographic CRS in metres. The horizontal unit of a geographic CRS is left at 1."""
    flat = crs.sub_crs_list[0] if crs.is_compound else crs
    horizontal = 1.0 if flat.is_geographic else float(flat.axis_info[0].unit_conversion_factor)
    heights = crs.sub_crs_list[1].axis_info[:1] if crs.is_compound else crs.axis_info[2:]
    return horizontal, float(heights[0].unit_conversion_factor) if heights else horizontal


def utm_crs(lon_deg: float, lat_deg: float) -> str:
    """EPSG code of the WGS 84 UTM zone of a place, with Norway's and Svalbard's exceptions; UPS beyond 84N / 80S."""
    if not (-90 <= lat_deg <= 90 and np.isfinite(lon_deg)):
        raise FrameError(f"longitude {lon_deg} / latitude {lat_deg} are not on Earth")
    if lat_deg >= 84:
        return "EPSG:5041"
    if lat_deg < -80:
        return "EPSG:5042"
    lon = (lon_deg + 180) % 360 - 180
    zone = int((lon + 180) // 6) % 60 + 1
    if 56 <= lat_deg < 64 and 3 <= lon < 12:
        zone = 32
    if lat_deg >= 72 and 0 <= lon < 42:
        zone = 31 + 2 * int((lon + 3) // 12)
    return f"EPSG:{(32600 if lat_deg >= 0 else 32700) + zone}"


def unbroken(lon_deg: Floats) -> Floats:
    """Longitudes of a place, those beyond the 180th meridian from the east as 180 to 270 degrees: they do not jump."""
    beyond = lon_deg < -90.0
    return np.where(beyond, lon_deg + 360.0, lon_deg) if beyond.any() and (lon_deg > 90.0).any() else lon_deg


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Transformer:
    """Raises FrameError where PROJ knows no operation: its ballpark one changes nothing between unknown datums."""
    crs, other = parse_crs(source), parse_crs(target)
    equal = any(c.geodetic_crs is not None and c.geodetic_crs.name in DATUMS_LIKE_WGS84 for c in (crs, other))
    try:
        return Transformer.from_crs(crs, other, always_xy=True, allow_ballpark=equal)
    except ProjError as error:
        raise FrameError(f"no operation is known from '{crs.name}' to '{other.name}'",
                         fix="use a CRS that PROJ connects to WGS 84") from error  # fmt: skip


def transform_xy(source: str, target: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Horizontal coordinates from one CRS to another, x east / y north order, any equal shapes."""
    if source == target:
        return np.asarray(x, float), np.asarray(y, float)
    u, v = _transformer(source, target).transform(x, y)
    return np.asarray(u, float), np.asarray(v, float)


def to_lonlat(crs: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Coordinates of ``crs`` to WGS 84 longitude and latitude in degrees; ``unbroken`` longitudes, which may be
    interpolated and averaged."""
    lon, lat = transform_xy(crs, LONLAT, x, y)
    return unbroken(lon), lat


def from_lonlat(crs: str, lon_deg: Floats, lat_deg: Floats) -> tuple[Floats, Floats]:
    """WGS 84 longitude and latitude in degrees to coordinates of ``crs``."""
    return transform_xy(LONLAT, crs, lon_deg, lat_deg)
