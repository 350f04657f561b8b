"""SlideRule's segments, photons and subsets of ICESat-2 and GEDI, in Parquet or GeoParquet, to ground returns.

Source: user guide of SlideRule (slideruleearth.io): tables of ``atl03x`` alone (photons), with ``fit`` (ATL06-SR) and
with ``phoreal``, of ``atl06x`` and ``atl08x``, those of the older endpoints ``atl03sp``, ``atl06p``, ``atl08p``, and
GEDI's ``gedi02a``. Heights are over the WGS 84 ellipsoid unless the request asked for another datum, which the CRS of
the file, or the request in it, then names. The request says which photons were used, and how long the segments are.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.lidar.atlas import FOOTPRINT_WIDTH, height_sigma
from terrain3d.lidar.granule import NO_HEIGHT, OUTSIDE, Beam, Bounds, Granule, granule_of
from terrain3d.lidar.read_columns import read_head
from terrain3d.lidar.rules import RuleSet, Sieve
from terrain3d.lidar.sliderule_gedi import GEDI_MARKS, read_gedi_table
from terrain3d.lidar.sliderule_photons import PHOTON_MARKS, read_photon_table
from terrain3d.lidar.sliderule_table import read_within, sift_table
from terrain3d.points import LidarReturns

Floats = NDArray[np.float64]
Reader = Callable[[Path, Bounds | None, RuleSet], Granule]

DEFAULT_LENGTH = 40.0  # of SlideRule's segments where the request says nothing
GROUND = ("atl08_ground", "ground", "1")
CLASSES = 5  # noise, ground, canopy, top of canopy, unclassified


@dataclass(frozen=True)
class Layout:
    """Columns of one kind of segments; '' where it has none of a kind.

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
    Layout("ATL08-SR", ("h_te_median", "gnd_ph_count"), "h_te_median", ("gnd_ph_count",), canopy="h_canopy",
           snow="snowcover"),
    Layout("ATL06", ("h_li", "atl06_quality_summary"), "h_li", ("n_fit_photons",), sigma="h_li_sigma",
           geolocation="sigma_geo_h", quality="atl06_quality_summary", length=40.0),
    Layout("ATL08", ("h_te_median", "n_te_photons"), "h_te_median", ("n_te_photons",), uncertainty="h_te_uncertainty",
           canopy="h_canopy", snow="segment_snowcover", length=100.0),
)  # fmt: skip


def reader_of(path: Path) -> Reader | None:
    """What reads a file of SlideRule's, None if it is another table. Raises InputFileError, MissingExtraError."""
    columns = set(read_head(path).columns)
    layout = next((k for k in LAYOUTS if columns >= set(k.marks)), None)
    if layout is not None:
        return lambda path, bounds, rules: read_segments(path, layout, bounds, rules)
    if columns >= set(PHOTON_MARKS):
        return read_photon_table
    return read_gedi_table if columns >= set(GEDI_MARKS) else None


def read_segments(path: Path, layout: Layout, bounds: Bounds | None, rules: RuleSet) -> Granule:
    """Ground returns of one file of segments; a track is one beam of one pass.

    Raises LidarError where positions are missing, FrameError where heights are over a geoid.
    """
    wanted = (layout.height, *layout.photons, layout.sigma, layout.geolocation, layout.uncertainty, layout.quality,
              layout.canopy, layout.snow)  # fmt: skip
    table = read_within(path, wanted, bounds)
    n, column = len(table), table.numbers
    height = column(layout.height)
    assert height is not None, "its marks name the height"
    photons = next((column(p) for p in layout.photons if p in table.columns), None)
    stated, uncertainty = column(layout.sigma), column(layout.uncertainty)
    sieve = Sieve(n)
    sieve.counts.append((OUTSIDE, table.n_read - n))
    sieve.keep(NO_HEIGHT, np.isfinite(height))
    if rules.require_ground_photons and layout.fitted:
        sieve.keep("not from ground photons", np.full(n, _is_ground(table.request)))
    sieve.flag("segment quality", rules.require_segment_quality, column(layout.quality), lambda v: v == 0)
    sieve.limit("few ground photons", photons, low=rules.min_ground_photons)
    sieve.limit("height sigma", stated, high=rules.max_height_sigma)
    sieve.limit("terrain uncertainty", uncertainty, high=rules.max_terrain_uncertainty, unknown=False)
    sift_table(sieve, table, rules, layout.snow)
    scatter = np.full(n, np.nan) if stated is None else stated
    if uncertainty is not None and photons is not None:
        scatter = uncertainty / np.sqrt(np.maximum(np.nan_to_num(photons, nan=1.0), 1.0))
    canopy = column(layout.canopy)
    length = layout.length or float(table.request.get("len") or DEFAULT_LENGTH)
    index, tracks = table.tracks()
    full = np.ones(n)
    returns = LidarReturns(
        table.lon_deg, table.lat_deg, height, height_sigma(scatter, column(layout.geolocation)),
        full * length, full * FOOTPRINT_WIDTH, full * np.nan if canopy is None else canopy,
        table.times(), index, tracks, (layout.product,) * len(tracks),
    )  # fmt: skip
    beam = Beam(returns.select(sieve.kept), table.n_read, tuple(sieve.counts), table.distance,
                unasked=tuple(sieve.unasked))  # fmt: skip
    return granule_of([beam], layout.product, table.frame())


def _is_ground(request: dict[str, Any]) -> bool:
    """Whether the segments are of ground photons, or of all photons without regard to ATL08's classes."""
    classes = request.get("atl08_class")
    if isinstance(classes, str) and classes.startswith("["):
        classes = ast.literal_eval(classes)
    chosen = [classes] if isinstance(classes, str) else list(classes or [])
    if len(chosen) == CLASSES and all(isinstance(c, bool) for c in chosen):
        chosen = [i for i, c in enumerate(chosen) if c]
    return all(str(c).lower() in GROUND for c in chosen)
