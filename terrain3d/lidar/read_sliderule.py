"""SlideRule's customised segments and subsets of ICESat-2, in Parquet or GeoParquet, to ground returns.

Source: user guide of SlideRule (slideruleearth.io), tables of ``atl03x`` with ``fit`` (ATL06-SR) and with ``phoreal``,
of ``atl06x`` and ``atl08x``. Heights are over the WGS 84 ellipsoid unless the request asked for another datum, which
the CRS of the file then names. The request that made the file says which photons were used, and how long the segments
are.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.crs import vertical_of_crs
from terrain3d.errors import FrameError, LidarError
from terrain3d.lidar.atlas import FOOTPRINT_WIDTH, height_sigma, sift_conditions
from terrain3d.lidar.frames import Frame, frame_of_crs
from terrain3d.lidar.granule import NO_HEIGHT, OUTSIDE, Beam, Bounds, Granule, granule_of, inside_bounds
from terrain3d.lidar.read_columns import TableHead, X, Y, parquet_metadata, read_head, read_parts
from terrain3d.lidar.read_table import join_parts, numbers, seconds, track_index
from terrain3d.lidar.rules import RuleSet, Sieve
from terrain3d.points import LidarReturns

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]

FILL_LIMIT = 1e30
DEFAULT_LENGTH = 40.0  # of SlideRule's segments where the request says nothing
TIMES = ("time", "time_ns")
TRACK_KEYS = ("rgt", "cycle", "gt")
REQUEST_KEYS = ("sliderule", "sliderule_parameters")
GROUND = ("atl08_ground", "ground", "1")
CLASSES = 5  # noise, ground, canopy, top of canopy, unclassified


@dataclass(frozen=True)
class Layout:
    """Columns of one kind of file; '' where it has none of a kind.

    marks: columns by which it is known. length: of a segment, metres; None for that of the request. fitted: whether the
    photons of the height depend on the request.
    """

    product: str
    marks: tuple[str, ...]
    height: str
    photons: tuple[str, ...]
    sigma: str = ""
    geolocation: str = ""
    uncertainty: str = ""
    quality: str = "pflags"
    canopy: str = ""
    snow: str = ""
    length: float | None = None
    fitted: bool = False


LAYOUTS = (
    Layout("ATL06-SR", ("h_mean", "rms_misfit"), "h_mean", ("n_fit_photons", "photon_count"), sigma="h_sigma",
           fitted=True),
    Layout("ATL08-SR", ("h_te_median", "ground_photon_count"), "h_te_median", ("ground_photon_count",),
           canopy="h_canopy", snow="snowcover"),
    Layout("ATL06", ("h_li", "atl06_quality_summary"), "h_li", ("n_fit_photons",), sigma="h_li_sigma",
           geolocation="sigma_geo_h", quality="atl06_quality_summary", length=40.0),
    Layout("ATL08", ("h_te_median", "n_te_photons"), "h_te_median", ("n_te_photons",), uncertainty="h_te_uncertainty",
           canopy="h_canopy", snow="segment_snowcover", length=100.0),
)  # fmt: skip


def layout_of(path: Path) -> Layout | None:
    """Which of SlideRule's files a Parquet file is, None if it is another. Raises InputFileError, MissingExtraError."""
    columns = set(read_head(path).columns)
    return next((k for k in LAYOUTS if columns >= set(k.marks)), None)


def read_sliderule(path: Path, layout: Layout, bounds: Bounds | None, rules: RuleSet) -> Granule:
    """Ground returns of one file; a track is one beam of one pass.

    Raises LidarError where positions are missing, FrameError where heights are over a geoid.
    """
    head = read_head(path)
    vertical = None if head.crs is None else vertical_of_crs(head.crs)
    if vertical not in (None, "ellipsoid"):
        raise FrameError(f"SlideRule file with heights over {vertical}", where=path,
                         fix="request ellipsoidal heights, or give it as a table with vertical")  # fmt: skip
    x, y = _positions(head, path)
    request = _request(path)
    wanted = [x, y, layout.height, *layout.photons, layout.sigma, layout.geolocation, layout.uncertainty,
              layout.quality, layout.canopy, layout.snow, "spot", "solar_elevation", *TRACK_KEYS, *TIMES]  # fmt: skip
    names = [n for n in dict.fromkeys(wanted) if n in head.columns or n in (x, y)]
    parts, n_read, distance = [], 0, float("nan")
    for part in read_parts(path, names):
        lon, lat = numbers(part[x], x, path), numbers(part[y], y, path)
        inside, away = inside_bounds(lon, lat, bounds)
        n_read, distance = n_read + len(lon), float(np.fmin(distance, away))
        parts.append({n: v[inside] for n, v in part.items()})
    table = join_parts(parts, names)
    n = len(table[x])

    def column(name: str) -> Floats | None:
        if name not in table:
            return None
        values = numbers(table[name], name, path)
        return np.where(np.abs(values) < FILL_LIMIT, values, np.nan)

    def condition(name: str) -> Floats | None:
        return column(layout.snow if name == "segment_snowcover" else name)

    height = column(layout.height)
    assert height is not None, "its marks name the height"
    photons = next((column(p) for p in layout.photons if p in table), None)
    stated, uncertainty = column(layout.sigma), column(layout.uncertainty)
    sieve = Sieve(n)
    sieve.counts.append((OUTSIDE, n_read - n))
    sieve.keep(NO_HEIGHT, np.isfinite(height))
    if rules.require_ground_photons and layout.fitted:
        sieve.keep("not from ground photons", np.full(n, _is_ground(request)))
    quality = column(layout.quality) if rules.require_segment_quality else None
    if quality is not None:
        sieve.keep("segment quality", quality == 0)
    sieve.limit("few ground photons", photons, low=rules.min_ground_photons)
    sieve.limit("height sigma", stated, high=rules.max_height_sigma)
    sieve.limit("terrain uncertainty", uncertainty, high=rules.max_terrain_uncertainty, unknown=False)
    spot = column("spot")
    if rules.reject_weak_beams and spot is not None:
        sieve.keep("weak beam", spot % 2 == 1)  # spots 1, 3 and 5 are strong
    sift_conditions(sieve, condition, False, rules)
    scatter = np.full(n, np.nan) if stated is None else stated
    if uncertainty is not None and photons is not None:
        scatter = uncertainty / np.sqrt(np.maximum(np.nan_to_num(photons, nan=1.0), 1.0))
    canopy = column(layout.canopy)
    length = layout.length or float(request.get("len") or DEFAULT_LENGTH)
    index, tracks = _tracks(table, n, path)
    full = np.ones(n)
    sigma = height_sigma(scatter, column(layout.geolocation))
    returns = LidarReturns(
        numbers(table[x], x, path), numbers(table[y], y, path), height, sigma,
        full * length, full * FOOTPRINT_WIDTH, full * np.nan if canopy is None else canopy,
        _times(table, n, path), index, tracks, (layout.product,) * len(tracks),
    )  # fmt: skip
    beam = Beam(returns.select(sieve.kept), n_read, tuple(sieve.counts), distance)
    name = frame_of_crs(head.crs)
    epoch = None if any(t in table for t in TIMES) else float("nan")
    return granule_of([beam], layout.product, Frame(name or "ITRF2014", epoch, stated=name is not None))


def _positions(head: TableHead, path: Path) -> tuple[str, str]:
    for x, y in (("longitude", "latitude"), ("lon", "lat")):
        if {x, y} <= set(head.columns):
            return x, y
    if head.has_points and head.crs is not None and head.crs.is_geographic:
        return X, Y
    raise LidarError("no usable returns: SlideRule file without longitude and latitude", where=path,
                     fix="request it as GeoParquet")  # fmt: skip


def _request(path: Path) -> dict[str, Any]:
    """Length and classes of the request that made the file: JSON in the metadata or a column; {} if it is silent."""
    for key in REQUEST_KEYS:
        text = parquet_metadata(path, key)
        try:
            value = json.loads(text) if text else {}
        except ValueError:
            continue
        for inner in (value, *(value.values() if isinstance(value, dict) else ())):
            if isinstance(inner, dict) and ("atl08_class" in inner or "len" in inner):
                return inner
    return {}


def _is_ground(request: dict[str, Any]) -> bool:
    """Whether the segments are of ground photons, or of all photons without regard to ATL08's classes."""
    classes = request.get("atl08_class")
    if isinstance(classes, str) and classes.startswith("["):
        classes = ast.literal_eval(classes)
    chosen = [classes] if isinstance(classes, str) else list(classes or [])
    if len(chosen) == CLASSES and all(isinstance(c, bool) for c in chosen):
        chosen = [i for i, c in enumerate(chosen) if c]
    return all(str(c).lower() in GROUND for c in chosen)


def _times(table: Columns, n: int, path: Path) -> Floats:
    """Seconds since 2018-01-01, or the order of the rows; integers are nanoseconds of Unix time."""
    values = next((table[t] for t in TIMES if t in table), None)
    if values is None:
        return np.arange(n, dtype=float)
    return seconds(values.astype("datetime64[ns]") if values.dtype.kind in "iu" else values, path)


def _tracks(table: Columns, n: int, path: Path) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    keys = [k for k in TRACK_KEYS if k in table]
    codes = np.zeros(n, np.int64)
    for key in keys:
        part, values = track_index(table[key])
        codes = codes * max(len(values), 1) + part
    _, first, index = np.unique(codes, return_index=True, return_inverse=True)
    names = ("-".join(f"{k}{table[k][i]}" for k in keys) for i in first)
    return index.reshape(-1).astype(np.int32), tuple(f"{path.name}/{name}".rstrip("/") for name in names)
