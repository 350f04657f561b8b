"""Lidar files to ground returns: which product a file is, by its content, and several files as one set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from terrain3d.config import LidarFormat
from terrain3d.errors import FrameError, InputFileError, LidarError
from terrain3d.lidar.frames import TargetFrame, atlas_frame, gedi_frame, moves_with_plate, to_frame
from terrain3d.lidar.granule import Bounds, Granule, granule_of, has
from terrain3d.lidar.identity import ATL03, ATL06, ATL08, GEDI_L2A, HDF5, open_granule, product_of, release_of
from terrain3d.lidar.passes import Pair, pair_photons, without_repeats
from terrain3d.lidar.photons import NO_GROUND
from terrain3d.lidar.probe import check_texts
from terrain3d.lidar.read_atl03 import read_atl03
from terrain3d.lidar.read_atl06 import read_atl06
from terrain3d.lidar.read_atl08 import read_atl08
from terrain3d.lidar.read_columns import PARQUET
from terrain3d.lidar.read_gedi import beam_groups, read_gedi
from terrain3d.lidar.read_sliderule import reader_of
from terrain3d.lidar.read_table import read_table
from terrain3d.lidar.rules import STANDARD, RuleSet, add_counts
from terrain3d.points import LidarReturns, join_returns

AUTO = LidarFormat()


@dataclass(frozen=True)
class LidarSet:
    """Usable returns of several files.

    returns: all returns that passed the rules, tracks numbered through.
    granules: what each file gave, in the order of the paths; an ATL08 granule that only gave the classes of an ATL03
        granule is not among them.
    rejected: number of returns by rule over all granules.
    rules: name of the rule set.
    frame: terrestrial frames that ``returns`` refer to, in words: those of the products, or the one asked for.
    warnings: what was left out of the files, and why.
    """

    returns: LidarReturns
    granules: tuple[Granule, ...]
    rejected: tuple[tuple[str, int], ...]
    rules: str
    frame: str
    warnings: tuple[str, ...] = ()

    @property
    def unasked(self) -> dict[str, tuple[str, ...]]:
        """Rules that could not be asked of a product, as a file of it lacks their fields."""
        found: dict[str, tuple[str, ...]] = {}
        for g in self.granules:
            if g.unasked and len(g.returns):
                found[g.product] = tuple(dict.fromkeys((*found.get(g.product, ()), *g.unasked)))
        return found

    @property
    def n_read(self) -> int:
        return sum(g.n_read for g in self.granules)


def read_granule(
    path: Path,
    bounds_lonlat: Bounds | None = None,
    rules: RuleSet = STANDARD,
    form: LidarFormat = AUTO,
    joined: Pair | None = None,
    served: Pair | None = None,
) -> Granule:
    """Ground returns of one file: ATL03, ATL06, ATL08, GEDI L2A (found by content, not by name), SlideRule, a table.

    bounds_lonlat: west, south, east, north in degrees; only returns inside are read. None reads all.
    form: algorithm of GEDI, columns and references of a table.
    joined: of an ATL03 granule, the ATL08 granule whose photon classes it uses.
    served: of an ATL08 granule, the pair that it has given its classes to; only its other beams are read.
    Raises InputFileError (missing, truncated, of no known kind), LidarError (a product without ground heights),
    ConfigError and FrameError (a table that says too little), MissingExtraError (Parquet without pyarrow).
    """
    check_texts([path] if path.suffix.lower() in HDF5 else [])
    return _read_file(path, bounds_lonlat, rules, form, joined, served)


def _read_file(
    path: Path,
    bounds_lonlat: Bounds | None,
    rules: RuleSet,
    form: LidarFormat,
    joined: Pair | None,
    served: Pair | None,
) -> Granule:
    suffix = path.suffix.lower()
    if suffix in HDF5 or (form.columns is None and suffix not in PARQUET):
        return _read_hdf5(path, bounds_lonlat, rules, form, joined, served)
    if not path.is_file():
        raise InputFileError("lidar file not found", where=path, fix="check the path")
    read = reader_of(path) if form.columns is None else None
    if read is not None:
        return read(path, bounds_lonlat, rules)
    return read_table(path, bounds_lonlat, rules, form)


def _read_hdf5(
    path: Path, bounds: Bounds | None, rules: RuleSet, form: LidarFormat, joined: Pair | None, served: Pair | None
) -> Granule:
    with ExitStack() as stack:
        file = stack.enter_context(open_granule(path))
        product = product_of(file)
        if product == GEDI_L2A:
            placed = [b for b in beam_groups(file) if has(file, f"{b}/lat_lowestmode")]
            dated = all(has(file, f"{b}/delta_time") for b in placed)
            return granule_of(read_gedi(file, path, bounds, rules, form.algorithm), GEDI_L2A, gedi_frame(dated))
        if form.algorithm is not None:
            raise LidarError("an algorithm can be chosen for GEDI L2A only", where=path, fix="leave 'algorithm' out")
        if product == ATL08:
            beams = read_atl08(file, path, bounds, rules, served.beams if served else frozenset())
        elif product == ATL06:
            beams = read_atl06(file, path, bounds, rules)
        elif product == ATL03:
            classes = None if joined is None else stack.enter_context(open_granule(joined.atl08))
            beams = read_atl03(file, path, bounds, rules, classes)
        else:
            raise LidarError(
                "no usable returns: HDF5 file with the layout of none of ATL03, ATL06, ATL08 and GEDI L2A",
                where=path,
                fix="give a granule of one of these products",
            )
        return granule_of(beams, str(product), atlas_frame(release_of(file, path)))


def read_lidar(
    paths: Sequence[Path],
    bounds_lonlat: Bounds | None = None,
    rules: RuleSet = STANDARD,
    forms: Mapping[Path, LidarFormat] | None = None,
    target: TargetFrame | None = None,
) -> LidarSet:
    """Ground returns of several files within the bounds, in the target frame if one is asked for.

    A beam of ATL08 whose photons an ATL03 granule of the same pass has gives their classes and no returns of its own:
    they are the same light. So are returns of a beam at one moment in several granules: they are used once.
    Raises LidarError if nothing remains: what was read, why it was rejected, and how far away the returns are;
    FrameError if returns are in a frame that moves with its plate, and no target is named.
    """
    if not paths:
        raise LidarError("no lidar granule given")
    forms = forms or {}
    check_texts([p for p in paths if p.suffix.lower() in HDF5])
    pairs = pair_photons(paths)
    taken = {pair.atl08: pair for pair in pairs.values()}
    used = [p for p in paths if p not in taken or taken[p].rest]
    granules = without_repeats(
        [_read_file(p, bounds_lonlat, rules, forms.get(p, AUTO), pairs.get(p), taken.get(p)) for p in used]
    )
    rejected = add_counts([g.rejected for g in granules])
    if not any(len(g.returns) for g in granules):
        raise _nothing_left(used, granules, rejected, rules)
    if target is None:
        _check_frames(granules, used)
    frames = "; ".join(dict.fromkeys(g.frame.text for g in granules))
    if target is not None:
        granules = tuple(replace(g, returns=to_frame(g.returns, g.frame, target)) for g in granules)
        frames = f"{target.text}, from {frames}"
    warnings = tuple(w for g in granules for w in g.warnings)
    return LidarSet(join_returns([g.returns for g in granules]), granules, rejected, rules.name, frames, warnings)


def _check_frames(granules: tuple[Granule, ...], paths: Sequence[Path]) -> None:
    """Returns in the ITRF and in a national frame are up to 2 m apart: never taken together, never called WGS 84."""
    for granule, path in zip(granules, paths, strict=True):
        if moves_with_plate(granule.frame.name):
            raise FrameError(f"returns are in {granule.frame.name}, the frame of the output is not stated", where=path,
                             fix=f"give output: {{frame: {granule.frame.name}}}, or another frame")  # fmt: skip


def _nothing_left(
    paths: Sequence[Path], granules: tuple[Granule, ...], rejected: tuple[tuple[str, int], ...], rules: RuleSet
) -> LidarError:
    n_read = sum(g.n_read for g in granules)
    where = paths[0] if len(paths) == 1 else f"{len(paths)} lidar granules"
    away = min((g.distance for g in granules if np.isfinite(g.distance)), default=float("nan"))
    if away > 0:
        return LidarError(
            f"no usable returns: the nearest of {n_read} returns is {away / 1000:.1f} km away from the area",
            where=where,
            fix="give granules that cross the images",
        )
    reasons = ", ".join(f"{n} {rule}" for rule, n in rejected if n) or "the files hold no returns"
    photons = any(g.product == ATL03 and dict(g.rejected).get(NO_GROUND) for g in granules)
    return LidarError(
        f"no usable returns: of {n_read} returns the '{rules.name}' rules left none ({reasons})",
        where=where,
        fix="give other granules or a looser rule set"
        + (", or with ATL03 the ATL08 granule of the same pass" if photons else ""),
    )
