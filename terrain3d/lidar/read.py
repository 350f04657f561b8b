"""Lidar granules to ground returns: which product a file is, by its content, and several files as one set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from terrain3d.errors import InputFileError, LidarError
from terrain3d.lidar.granule import Bounds, Granule, attribute_text
from terrain3d.lidar.read_atl08 import BEAMS, read_atl08
from terrain3d.lidar.read_gedi import beam_groups, read_gedi
from terrain3d.lidar.rules import STANDARD, RuleSet, add_counts
from terrain3d.points import LidarReturns, join_returns

ATL08, GEDI_L2A, ATL03 = "ATL08", "GEDI_L2A", "ATL03"
LOW_CONFIDENCE = 2  # signal_conf_ph: 2 low, 3 medium, 4 high


@dataclass(frozen=True)
class LidarSet:
    """Usable returns of several granules.

    returns: all returns that passed the rules, tracks numbered through.
    granules: what each file gave, in the order of the paths.
    rejected: number of returns by rule over all granules.
    rules: name of the rule set.
    """

    returns: LidarReturns
    granules: tuple[Granule, ...]
    rejected: tuple[tuple[str, int], ...]
    rules: str

    @property
    def n_read(self) -> int:
        return sum(g.n_read for g in self.granules)


def product_of(file: h5py.File) -> str | None:
    """Product of an open granule: its short_name, else the layout of its groups; None if neither is known."""
    name = attribute_text(file.attrs, "short_name").upper().replace("GEDI02_A", GEDI_L2A)
    for product in (ATL08, GEDI_L2A, ATL03):
        if name.startswith(product):
            return product
    if any(f"{b}/land_segments" in file for b in BEAMS):
        return ATL08
    if any(f"{b}/heights" in file for b in BEAMS):
        return ATL03
    return GEDI_L2A if beam_groups(file) else None


def read_granule(path: Path, bounds_lonlat: Bounds | None = None, rules: RuleSet = STANDARD) -> Granule:
    """Ground returns of one HDF5 granule (ATL08 or GEDI L2A, found by content, not by name).

    bounds_lonlat: west, south, east, north in degrees; only returns inside are read. None reads all.
    Raises InputFileError (missing, truncated, not HDF5) and LidarError (a product without ground heights).
    """
    if not path.is_file():
        raise InputFileError("lidar granule not found", where=path, fix="check the path")
    try:
        with h5py.File(path, "r") as file:
            product = product_of(file)
            if product == ATL08:
                beams = read_atl08(file, path, bounds_lonlat, rules)
            elif product == GEDI_L2A:
                beams = read_gedi(file, path, bounds_lonlat, rules)
            elif product == ATL03:
                raise _photons_only(file, path)
            else:
                raise LidarError(
                    "no usable returns: HDF5 file with the layout of neither ATL08 nor GEDI L2A",
                    where=path,
                    fix="give an ATL08 or GEDI L2A granule",
                )
    except LidarError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise InputFileError(
            f"lidar granule cannot be read as HDF5 ({error})", where=path, fix="download the file again"
        ) from error
    distances = [b.distance for b in beams if np.isfinite(b.distance)]
    return Granule(
        join_returns([b.returns for b in beams]),
        str(product),
        sum(b.n_read for b in beams),
        add_counts([b.rejected for b in beams]),
        min(distances, default=float("nan")),
    )


def _photons_only(file: h5py.File, path: Path) -> LidarError:
    """The error for a photon granule, with how many of its photons might be ground at all."""
    total = land = 0
    for beam in BEAMS:
        confidence = file.get(f"{beam}/heights/signal_conf_ph")
        if confidence is not None and confidence.ndim == 2:
            total += confidence.shape[0]
            land += int((confidence[:, 0] >= LOW_CONFIDENCE).sum())
    which = f"{land} with" if land else "none with"
    return LidarError(
        f"no usable returns: ATL03 granule has {total} photons, {which} a signal confidence for land, "
        "and photons are not classified into ground and canopy",
        where=path,
        fix="give the ATL08 granule of the same pass, which has ground returns",
    )


def read_lidar(paths: Sequence[Path], bounds_lonlat: Bounds | None = None, rules: RuleSet = STANDARD) -> LidarSet:
    """Ground returns of several granules within the bounds.

    Raises LidarError if nothing remains: what was read, why it was rejected, and how far away the returns are.
    """
    if not paths:
        raise LidarError("no lidar granule given")
    granules = tuple(read_granule(p, bounds_lonlat, rules) for p in paths)
    rejected = add_counts([g.rejected for g in granules])
    if not any(len(g.returns) for g in granules):
        raise _nothing_left(paths, granules, rejected, rules)
    returns = join_returns([g.returns for g in granules])
    return LidarSet(returns, granules, rejected, rules.name)


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
    return LidarError(
        f"no usable returns: of {n_read} returns the '{rules.name}' rules left none ({reasons})",
        where=where,
        fix="give other granules or a looser rule set",
    )
