"""ICESat-2 ATL03 photons to ground returns of 20 m, with the photon classes of ATL08 where that granule is given too.

Source: ATL03 ATBD and data dictionary (Neumann et al., NSIDC); ATL08 ``signal_photons``. Photon heights ``h_ph`` are
WGS 84 ellipsoidal. The 20 m segments of ``geolocation`` index the photons: ``ph_index_beg`` (from 1; 0 without photons)
and ``segment_ph_cnt``. ATL08 names a photon by ``ph_segment_id`` and ``classed_pc_indx``, its number (from 1) in the
segment. A granule has up to 10 million photons a beam, so they are read in blocks of whole segments inside the area.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from terrain3d.errors import InputFileError
from terrain3d.lidar.atlas import BEAMS, FOOTPRINT_WIDTH, Field, height_sigma, is_weak, sift_conditions
from terrain3d.lidar.granule import (
    OUTSIDE,
    Beam,
    Bounds,
    check_size,
    inside_bounds,
    no_returns,
    read_beams,
    read_column,
    row_range,
    whole_column,
)
from terrain3d.lidar.photons import GROUND, SHARE_OF_100M, fit_segments, is_signal, is_sound
from terrain3d.lidar.rules import RuleSet, Sieve, add_counts
from terrain3d.points import LidarReturns, join_returns

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Bools = NDArray[np.bool_]

BLOCK = 1_000_000  # photons read at once
LAND = 0  # column of signal_conf_ph
CLASSES, SEGMENT_OF_PHOTON = "signal_photons/classed_pc_flag", "signal_photons/ph_segment_id"
PHOTONS = ("heights/h_ph", "heights/lat_ph", "heights/lon_ph", "heights/signal_conf_ph", "heights/dist_ph_along")
SEGMENTS = tuple(
    f"geolocation/{n}"
    for n in ("segment_id", "ph_index_beg", "segment_ph_cnt", "reference_photon_lat", "reference_photon_lon",
              "delta_time", "segment_length")
)  # fmt: skip


@dataclass(frozen=True)
class _Classes:
    """Photons of one beam that ATL08 classified: segment, number in the segment from 1, class; segments ascending."""

    segment: Counts
    number: Counts
    label: NDArray[np.int8]


def read_atl03(
    file: h5py.File, path: Path, bounds: Bounds | None, rules: RuleSet, atl08: h5py.File | None = None
) -> list[Beam]:
    """Ground returns of every beam, one a 20 m segment; counts are of segments that have photons.

    atl08: open granule of the same track; its ground photons are then the only candidates, its canopy photons give the
    canopy height, and its flags the conditions. Without it every confident signal photon is a candidate, and segments
    with more than one surface are rejected.
    Raises LidarError where no beam has photons with positions, InputFileError where none can be read.
    """

    def read(name: str, beam: h5py.Group) -> Beam:
        land = None if atl08 is None else atl08.get(name)
        return _read_beam(beam, f"{path.name}/{name}", is_weak(file, name), bounds, rules, land)

    return read_beams("ATL03", file, path, BEAMS, (*PHOTONS, *SEGMENTS), read, part="heights")


def _read_beam(
    group: h5py.Group, track: str, weak: bool, bounds: Bounds | None, rules: RuleSet, land: h5py.Group | None
) -> Beam:
    place = group["geolocation"]
    lat, lon = (whole_column(place, f"reference_photon_{a}") for a in ("lat", "lon"))
    begin, count = (_integers(place, n, slice(None)) for n in ("ph_index_beg", "segment_ph_cnt"))
    filled = (begin > 0) & (count > 0)
    n_photons = _check_photons(group)
    if (begin + count)[filled].max(initial=0) - 1 > n_photons or (np.diff(begin[filled]) <= 0).any():
        raise InputFileError("index of photons does not fit the photons", where=track, fix="download the file again")
    inside, distance = inside_bounds(lon, lat, bounds)
    wanted = inside & filled
    rows = row_range(wanted)
    classes = None if land is None or CLASSES not in land else _read_classes(land, place["segment_id"], rows)
    parts, sieves = [], []
    for block in _blocks(wanted, count, rows):
        returns, sieve = _read_block(group, track, weak, rules, block, wanted[block], classes, land)
        parts.append(returns)
        sieves.append(sieve)
    n_read = int(filled.sum())
    outside = (OUTSIDE, n_read - int(wanted.sum()))
    if not parts:
        return Beam(no_returns(track, "ATL03"), n_read, (outside,), distance)
    totals = add_counts([tuple(sieve.counts) for sieve in sieves])
    joined = join_returns(parts)
    track_index = np.zeros(len(joined), np.int32)
    one = LidarReturns(**{**vars(joined), "track": track_index, "track_names": (track,), "product": ("ATL03",)})
    return Beam(one, n_read, (outside, *totals), distance, unasked=tuple(sieves[0].unasked))


def _integers(group: h5py.Group, name: str, rows: slice) -> Counts:
    """Rows of a data set of whole numbers, without a fill value."""
    check_size(group[name])
    return np.asarray(group[name][rows], np.int64)


def _check_photons(group: h5py.Group) -> int:
    """Number of photons of a beam. Raises ValueError where their fields are of different lengths or shapes."""
    shapes = {name: check_size(group[name]) for name in PHOTONS}
    n = shapes[PHOTONS[0]][0]
    for name, shape in shapes.items():
        if shape[0] != n or len(shape) != (2 if name.endswith("signal_conf_ph") else 1):
            raise ValueError(f"{group[name].name} has the shape {shape}, of {n} photons")
    return n


def _blocks(wanted: Bools, count: Counts, rows: slice) -> Iterator[slice]:
    """Runs of segments with at most some ``BLOCK`` photons each."""
    total = np.cumsum(np.where(wanted, count, 0)[rows])
    start = rows.start
    while start < rows.stop:
        before = total[start - rows.start - 1] if start > rows.start else 0
        stop = rows.start + int(np.searchsorted(total, before + BLOCK, side="right"))
        stop = min(max(stop, start + 1), rows.stop)
        if wanted[start:stop].any():
            yield slice(start, stop)
        start = stop


def _read_block(
    group: h5py.Group, track: str, weak: bool, rules: RuleSet, block: slice, wanted: Bools, classes: _Classes | None,
    land: h5py.Group | None,
) -> tuple[LidarReturns, Sieve]:  # fmt: skip
    """Returns of the wanted segments of a run, and what the rules rejected of them."""
    place = group["geolocation"]
    begin, count = (_integers(place, n, block)[wanted] for n in ("ph_index_beg", "segment_ph_cnt"))
    photons = slice(int(begin.min()) - 1, int((begin + count).max()) - 1)
    offset = begin - 1 - photons.start
    heights = group["heights"]
    height = np.asarray(heights["h_ph"][photons], np.float64)
    quality = heights["quality_ph"][photons] if "quality_ph" in heights else None
    sound = is_sound(height, quality, rules) & _covered(offset, count, len(height))
    identity = _integers(place, "segment_id", block)[wanted]
    n_segments = len(begin)
    label = None
    if classes is not None:
        label = np.zeros(len(height), np.int8)
        _place_classes(label, classes, identity, offset, count)
        candidate = sound & (label == GROUND)
    else:
        candidate = sound & is_signal(heights["signal_conf_ph"][photons][:, LAND], rules)
    lon, lat, along = (np.asarray(heights[n][photons], float) for n in ("lon_ph", "lat_ph", "dist_ph_along"))
    fitted = fit_segments(along, height, candidate, label, offset, count)
    fit = fitted.fit

    def geolocation(name: str) -> Floats | None:
        values = read_column(group, name if "/" in name else f"geolocation/{name}", block)
        return None if values is None else values[wanted]

    time, length = geolocation("delta_time"), geolocation("segment_length")
    assert time is not None and length is not None, "read_atl03 has looked for them"
    sieve = Sieve(n_segments)
    fitted.sift(sieve, rules)
    sigma = height_sigma(fit.sigma, geolocation("sigma_h"))
    sieve.limit("degraded pointing", geolocation("podppd_flag"), high=rules.max_degraded)
    sift_conditions(sieve, _conditions(geolocation, land, identity), weak, rules)
    dem = geolocation("geophys_corr/dem_h")
    far = None if dem is None else np.abs(fit.height - dem)
    sieve.limit("far from reference DEM", far, high=rules.max_dem_difference)
    returns = LidarReturns(
        fitted.mean_longitude(lon), fitted.mean(lat), fit.height, sigma, length, np.full(n_segments, FOOTPRINT_WIDTH),
        fitted.canopy, time, np.zeros(n_segments, np.int32), (track,), ("ATL03",),
    )  # fmt: skip
    return returns.select(sieve.kept), sieve


def _covered(offset: Counts, count: Counts, n: int) -> Bools:
    """Which of n photons belong to the segments, which do not overlap."""
    steps = np.zeros(n + 1, np.int8)
    np.add.at(steps, offset, 1)
    np.add.at(steps, offset + count, -1)
    return np.cumsum(steps[:-1], dtype=np.int8) > 0


def _read_classes(land: h5py.Group, segment_id: h5py.Dataset, rows: slice) -> _Classes:
    """Classified photons of the segments in ``rows``."""
    none = np.zeros(0, np.int64)
    if rows.stop == rows.start:
        return _Classes(none, none, np.zeros(0, np.int8))
    low, high = int(segment_id[rows.start]), int(segment_id[rows.stop - 1])
    segment = _integers(land, SEGMENT_OF_PHOTON, slice(None))
    within = row_range((segment >= low) & (segment <= high))
    number = _integers(land, "signal_photons/classed_pc_indx", within)
    label = _integers(land, CLASSES, within).astype(np.int8)
    order = np.argsort(segment[within], kind="stable")
    return _Classes(segment[within][order], number[order], label[order])


def _place_classes(label: NDArray[np.int8], classes: _Classes, identity: Counts, offset: Counts, count: Counts) -> None:
    """Write the classes of photons to their places among the photons of a block."""
    low, high = np.searchsorted(classes.segment, (identity[0], identity[-1] + 1))
    of = np.searchsorted(identity, classes.segment[low:high])
    of = np.minimum(of, len(identity) - 1)
    number = classes.number[low:high]
    fits = (identity[of] == classes.segment[low:high]) & (number >= 1) & (number <= count[of])
    label[(offset[of] + number - 1)[fits]] = classes.label[low:high][fits]


def _conditions(geolocation: Field, land: h5py.Group | None, identity: Counts) -> Field:
    """Fields of conditions at the segments: those of ATL08's 100 m segments where there are any, else ATL03's own."""
    segments = None if land is None else land.get("land_segments")
    if segments is None or "segment_id_beg" not in segments or not len(segments["segment_id_beg"]):
        return geolocation
    begin = _integers(segments, "segment_id_beg", slice(None))
    row = np.clip(np.searchsorted(begin, identity, side="right") - 1, 0, None)
    known = (identity >= begin[row]) & (identity < begin[row] + SHARE_OF_100M)

    def field(name: str) -> Floats | None:
        values = read_column(segments, name, slice(None))
        return geolocation(name) if values is None else np.where(known, values[row], np.nan)

    return field
