"""SlideRule's photons (``atl03x`` without a fit, ``atl03sp``) to ground returns of 20 m, as those of ATL03 are made.

Source: user guide of SlideRule (slideruleearth.io). ``x_atc`` is the distance along the track, in files of ``atl03sp``
that from the middle of a segment at ``segment_dist``. ``atl08_class`` is there if the request asked for it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrain3d.lidar.atlas import FOOTPRINT_WIDTH, height_sigma
from terrain3d.lidar.granule import OUTSIDE, Beam, Bounds, Granule, granule_of
from terrain3d.lidar.photons import GROUND, fit_segments, is_signal, is_sound
from terrain3d.lidar.rules import RuleSet, Sieve
from terrain3d.lidar.sliderule_table import Columns, Within, read_within, sift_table
from terrain3d.points import LidarReturns

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

PHOTON_MARKS = ("height", "x_atc", "atl03_cnf")
CLASS = "atl08_class"
WANTED = (*PHOTON_MARKS, "quality_ph", CLASS, "segment_dist")
LENGTH = 20.0  # metres, of a segment
PRODUCT = "ATL03"


def read_photon_table(path: Path, bounds: Bounds | None, rules: RuleSet) -> Granule:
    """Ground returns of one file of photons, one a segment of 20 m along the track; counts are of such segments.

    Raises LidarError where positions are missing, FrameError where heights are over a geoid.
    """
    table = read_within(path, WANTED, bounds, _segments_of)
    track, names = table.tracks()
    along = _along(table)
    known = np.isfinite(along)
    order = np.lexsort((along, track))
    order = order[known[order]]
    part = np.floor(along[order] / LENGTH)
    new = np.r_[True, (np.diff(part) != 0) | (np.diff(track[order]) != 0)] if len(order) else np.zeros(0, bool)
    offset = np.flatnonzero(new)
    count = np.diff(np.r_[offset, len(order)])
    n = len(offset)

    def column(name: str) -> Floats | None:
        values = table.numbers(name)
        return None if values is None else values[order]

    height, confidence = column("height"), column("atl03_cnf")
    assert height is not None and confidence is not None, "they are marks"
    quality, classes = column("quality_ph"), column(CLASS)
    sound = is_sound(height, quality, rules)
    label = None if classes is None else np.nan_to_num(classes).astype(np.int8)
    candidate = sound & (is_signal(confidence, rules) if label is None else label == GROUND)
    fitted = fit_segments(along[order] - LENGTH * part, height, candidate, label, offset, count)
    lon, lat, time = (values[order] for values in (table.lon_deg, table.lat_deg, table.times()))
    sieve = Sieve(n)
    sieve.counts.append((OUTSIDE, table.n_read - len(table)))
    fitted.sift(sieve, rules)
    starts = order[offset]
    sift_table(sieve, table.at(starts), rules, "snowcover")
    full = np.ones(n)
    returns = LidarReturns(
        fitted.mean_longitude(lon), fitted.mean(lat), fitted.fit.height, height_sigma(fitted.fit.sigma, None),
        full * LENGTH, full * FOOTPRINT_WIDTH, fitted.canopy, fitted.mean(time), track[starts], names,
        (PRODUCT,) * len(names),
    )  # fmt: skip
    n_read = n + table.n_read - len(table)
    beam = Beam(returns.select(sieve.kept), n_read, tuple(sieve.counts), table.distance, unasked=tuple(sieve.unasked))
    return granule_of([beam], PRODUCT, table.frame())


def _along(table: Within) -> Floats:
    """Metres along the track of each photon."""
    along, middle = table.numbers("x_atc"), table.numbers("segment_dist")
    assert along is not None, "it is a mark"
    return along if middle is None else along + middle


def _segments_of(rows: Columns) -> int:
    """Segments that photons outside the area make up; beams of one place are counted as one."""
    along = np.asarray(rows["x_atc"], float)
    return len(np.unique(np.floor(along / LENGTH)))
