"""Granules of one pass: photons with their classes, and returns that several granules hold of the same shots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from terrain3d.lidar.atlas import BEAMS
from terrain3d.lidar.granule import DAMAGE, METRES_PER_DEGREE, Granule, has
from terrain3d.lidar.identity import ATL03, ATL06, ATL08, GEDI_L2A, HDF5, open_granule, pass_of, product_of
from terrain3d.lidar.read_atl03 import CLASSES, SEGMENT_OF_PHOTON

Floats = NDArray[np.float64]
Pass = tuple[int | None, ...]
Rows = NDArray[np.int64]

REPEATED = "of shots that another granule has"
BEST_FIRST = (ATL03, ATL08, "ATL08-SR", "ATL06-SR", ATL06, GEDI_L2A)  # which product of the same shots is used
SAME_SHOT_S = 0.0014  # of one product: 10 m of track
SAME_PLACE_S = 0.007  # of two products: 50 m, half a segment
SAME_PLACE = 100.0  # metres
SLIDERULE_BEAMS = dict(zip(("gt10", "gt20", "gt30", "gt40", "gt50", "gt60"), BEAMS, strict=True))


@dataclass(frozen=True)
class Pair:
    """ATL08 granule of the same pass as an ATL03 granule.

    beams: whose photons it classifies and ATL03 has. rest: its beams that ATL03 has not.
    """

    atl08: Path
    beams: frozenset[str]
    rest: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Photons:
    """A granule for a pair.

    which: its pass. beams: that have photons, or classes. span: first and last segment. rest: beams of ATL08 with
    heights.
    """

    path: Path
    which: Pass
    beams: frozenset[str]
    span: tuple[int, int]
    rest: frozenset[str]


def pair_photons(paths: Sequence[Path]) -> dict[Path, Pair]:
    """ATL03 granules that have an ATL08 granule of the same pass, with photon classes, among the paths.

    Of several ATL08 granules (parts of a pass, cut out by a service) the one that has most of the segments is taken.
    """
    found: dict[str, list[_Photons]] = {ATL03: [], ATL08: []}
    for path in paths:
        if path.suffix.lower() not in HDF5:
            continue
        with open_granule(path) as file:
            product, which = product_of(file), pass_of(file, path)
            if product in found and which:
                found[product].append(_photons(file, path, product, which))
    pairs = {}
    for light in found[ATL03]:
        fitting = [f for f in found[ATL08] if _of_one_pass(light.which, f.which) and light.beams & f.beams]
        if fitting:
            land = max(fitting, key=lambda f: _common(f.span, light.span))
            pairs[light.path] = Pair(land.path, light.beams & land.beams, land.rest - light.beams)
    return pairs


def _of_one_pass(a: Pass, b: Pass) -> bool:
    """Whether track and cycle are the same, and the region where both know it."""
    return a[:2] == b[:2] and (a[2] == b[2] or None in (a[2], b[2]))


def _photons(file: h5py.File, path: Path, product: str, which: Pass) -> _Photons:
    part, identity = ("heights", "geolocation/segment_id") if product == ATL03 else (CLASSES, SEGMENT_OF_PHOTON)
    beams = frozenset(b for b in BEAMS if has(file, f"{b}/{part}"))
    ends = [e for b in beams if (e := _ends(file, f"{b}/{identity}"))]
    span = (min(e[0] for e in ends), max(e[1] for e in ends)) if ends else (0, 0)
    return _Photons(path, which, beams, span, frozenset(b for b in BEAMS if has(file, f"{b}/land_segments")))


def _ends(file: h5py.File, name: str) -> tuple[int, int] | None:
    try:
        data = file[name]
        return (int(data[0]), int(data[-1])) if data.size else None
    except DAMAGE:
        return None


def _common(a: tuple[int, int], b: tuple[int, int]) -> int:
    return min(a[1], b[1]) - max(a[0], b[0])


def without_repeats(granules: Sequence[Granule]) -> tuple[Granule, ...]:
    """The granules, returns of the same shots left in one of them only, and said so.

    Shots are the same where a beam has returns at one moment and place: the same granule given twice, parts cut out by
    a service that overlap, or several products of one pass. Granules without dates, and tables, are left alone.
    """
    out, seen = list(granules), dict[str, list[_Seen]]()
    dated = [i for i, g in enumerate(granules) if g.product in BEST_FIRST and g.frame.epoch is None]
    for i in sorted(dated, key=lambda i: BEST_FIRST.index(granules[i].product)):
        granule = granules[i]
        repeated, others = np.zeros(len(granule.returns), bool), list[str]()
        new = _by_beam(granule)
        for beam, rows, shots in new:
            for other in seen.get(beam, []):
                same = _same_shots(shots, other)
                repeated[rows[same]] = True
                others += [other.file] * bool(same.any())
        for beam, _, shots in new:
            seen.setdefault(beam, []).append(shots)
        if others:
            out[i] = _left_out(granule, repeated, new[0][2].file, ", ".join(dict.fromkeys(others)))
    return tuple(out)


@dataclass(frozen=True)
class _Seen:
    """Returns of one beam, ascending in time."""

    file: str
    product: str
    time_s: Floats
    lon_deg: Floats
    lat_deg: Floats


def _by_beam(granule: Granule) -> list[tuple[str, Rows, _Seen]]:
    """Name of each beam, rows of its returns in the order of time, and the returns."""
    returns, out = granule.returns, []
    for track in np.unique(returns.track):
        rows = np.flatnonzero(returns.track == track)
        rows = rows[np.argsort(returns.time_s[rows], kind="stable")]
        file, _, name = returns.track_names[track].partition("/")
        beam = name.rpartition("-")[2]  # after the pass, in tables of SlideRule
        shots = _Seen(file, granule.product, returns.time_s[rows], returns.lon_deg[rows], returns.lat_deg[rows])
        out.append((SLIDERULE_BEAMS.get(beam, beam), rows, shots))
    return out


def _same_shots(shots: _Seen, other: _Seen) -> NDArray[np.bool_]:
    limit = SAME_SHOT_S if shots.product == other.product else SAME_PLACE_S
    after = np.searchsorted(other.time_s, shots.time_s)
    found = np.zeros(len(shots.time_s), bool)
    for near in (np.minimum(after, len(other.time_s) - 1), np.maximum(after - 1, 0)):
        east = (shots.lon_deg - other.lon_deg[near] + 180.0) % 360.0 - 180.0
        away = np.hypot(east * np.cos(np.radians(shots.lat_deg)), shots.lat_deg - other.lat_deg[near])
        found |= (np.abs(shots.time_s - other.time_s[near]) <= limit) & (away * METRES_PER_DEGREE <= SAME_PLACE)
    return found


def _left_out(granule: Granule, repeated: NDArray[np.bool_], file: str, others: str) -> Granule:
    n = int(repeated.sum())
    warning = f"{n} returns of {file} are left out: {others} has returns of the same shots"
    return replace(
        granule, returns=granule.returns.select(~repeated), warnings=(*granule.warnings, warning),
        rejected=(*granule.rejected, (REPEATED, n)),
    )  # fmt: skip
