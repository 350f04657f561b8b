"""Figures of a run for ``quality.json``: plain values, units in the names."""

from __future__ import annotations

import resource
import sys
from typing import Any

import numpy as np

from terrain3d import __version__
from terrain3d.crs import ELLIPSOID, Vertical
from terrain3d.image.view import view_angles
from terrain3d.io.geoid import convert_heights, to_vertical
from terrain3d.pipeline.canopy_check import CanopyCheck
from terrain3d.pipeline.lidar_quality import error_figures, lidar_figures
from terrain3d.pipeline.obscured import obscured_share
from terrain3d.pipeline.placement import LIDAR, placement
from terrain3d.pipeline.result import RunResult
from terrain3d.pipeline.running import Counts
from terrain3d.pipeline.surfaces import Surfaces
from terrain3d.raster import Raster
from terrain3d.stereo.pairs import Pair
from terrain3d.surface.mask import MaskCode

STRIP_ROWS = 512


def quality(result: RunResult) -> dict[str, Any]:
    """Everything that a user would ask of a result, from the images to the cells."""
    return {
        "name": result.scene.config.name,
        "software": f"terrain3d {__version__}",
        "reference": {"horizontal": result.reference.horizontal, "vertical": result.reference.vertical.name},
        "images": _images(result),
        "pairs": [_pair(result, p) for p in result.pairs],
        "ties": {"points": result.network.ties.n_tracks, "heights_m": _tie_heights(result)},
        "lidar": None
        if result.lidar is None or result.registration is None
        else lidar_figures(result.lidar, result.registration, result.network.height_ties),
        "placement": _placement(result),
        "cells": result.cells,
        "coarser_cells": [count_cells(s, result.reference.vertical) for s in result.coarser],
        "canopy": _canopy(result.surfaces.canopy),
        "ortho": _ortho(result),
        "water": [
            {
                "kind": str(b.level.kind),
                "area_m2": b.outline.area,
                "level_ellipsoidal_m": [b.level.low, b.level.high],
                "sigma_m": b.sigma,
                "shores_at_level": b.level.agreement,
            }
            for b in result.surfaces.waters
        ],
        "points": result.points,
        "warnings": list(result.warnings),
        "seconds": {name: {"wall": wall, "cpu": cpu} for name, (wall, cpu) in result.seconds.items()},
        "peak_memory_mb": peak_memory_mb(),
    }


def _tie_heights(result: RunResult) -> list[float]:
    """Lowest and highest tie point before lidar, over the vertical reference of the files at the middle of them."""
    lon, lat = np.median(result.network.adjustment.points[:, :2], axis=0)
    heights = convert_heights(lon, lat, np.array(result.network.heights), ELLIPSOID, result.reference.vertical)
    return [float(h) for h in heights]


def _placement(result: RunResult) -> dict[str, Any]:
    """What is alike in all cells; whether the sigma of the cells counts the part of the height."""
    p = placement(result)
    return {
        "east_sigma_m": p.east, "north_sigma_m": p.north, "height_sigma_m": p.height, "rests_on": p.rests_on,
        "in_sigma_of_cells": p.rests_on == LIDAR, "pointing_sigma_px": p.pointing_px,
    }  # fmt: skip


def _canopy(check: CanopyCheck | None) -> dict[str, Any] | None:
    """Errors under trees on held-out lidar, estimate minus lidar."""
    if check is None:
        return None
    return {
        "held_out_ground": error_figures(check.ground),
        "held_out_ground_coverage": dict(zip(("68", "90", "95"), check.coverage, strict=True)),
        "held_out_canopy_height": error_figures(check.canopy),
        "held_out_gross": check.gross,
        "folds": check.folds,
    }


def _ortho(result: RunResult) -> dict[str, Any]:
    """Share of the surface's cells that the ortho takes from each image, and that no image sees."""
    seen = result.surfaces.seen
    shares = [n / max(sum(seen), 1) for n in seen]
    return {
        "bands": len(result.surfaces.ortho),
        "share_from_image": dict(zip((v.name for v in result.views), shares[:-1], strict=True)),
        "hidden_share": shares[-1],
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def _images(result: RunResult) -> list[dict[str, Any]]:
    adjusted = result.network.adjustment
    crs, height = result.reference.horizontal, sum(result.network.heights) / 2
    out = []
    for i, view in enumerate(result.views):
        incidence, azimuth = view_angles(view, crs, height)
        out.append(
            {
                "name": view.name,
                "acquired": None if view.acquired is None else view.acquired.isoformat(),
                "incidence_deg": incidence,
                "azimuth_deg": azimuth,
                "obscured_share": obscured_share(view),
                "ties": result.network.ties_of(i),
                "ties_reach": result.network.reach[i],
                "rms_before_px": adjusted.rms_before_px[i],
                "rms_after_px": adjusted.rms_after_px[i],
                "correction_line_px": list(adjusted.cameras[i].correction.line),
                "correction_sample_px": list(adjusted.cameras[i].correction.sample),
                "along_track_line_px": list(adjusted.cameras[i].correction.line_along),
                "along_track_sample_px": list(adjusted.cameras[i].correction.sample_along),
            }
        )
    return out


def _pair(result: RunResult, pair: Pair) -> dict[str, Any]:
    ties, share = result.network.pair_ties(pair.left, pair.right, pair.area, result.reference.horizontal)
    return {
        "images": [result.views[pair.left].name, result.views[pair.right].name],
        "base_to_height": pair.base_to_height,
        "convergence_deg": pair.convergence_deg,
        "overlap": pair.overlap,
        "time_gap_days": pair.time_gap_days,
        "sun_difference_deg": pair.sun_difference_deg,
        "ties": ties,
        "ties_grid_share": share,
        "matched": pair.chosen,
        "reason": pair.reason,
    }


def count_cells(s: Surfaces, vertical: Vertical) -> dict[str, Any]:
    """Figures of the cells, exact but for the median, which is given to a tenth of a millimetre; heights over
    ``vertical``, as in the files."""
    shares, by_pairs = np.zeros(256, np.int64), np.zeros(256, np.int64)
    sigmas, low, high = Counts(100.0, 1_000_000), np.inf, -np.inf
    strips = (r.strips(STRIP_ROWS) for r in (s.mask, s.pairs, s.dsm_sigma, s.dsm))
    for (top, mask), (_, pairs), (_, sigma), (_, z) in zip(*strips, strict=True):
        measured = mask == MaskCode.MEASURED
        shares += np.bincount(mask.ravel(), minlength=256)
        by_pairs += np.bincount(pairs[measured], minlength=256)
        sigmas.add(sigma[measured])
        heights = to_vertical(Raster(z, s.dsm.grid.window(top, 0, *z.shape)), vertical).values
        known = heights[np.isfinite(heights)]
        low, high = min(low, float(known.min(initial=np.inf))), max(high, float(known.max(initial=-np.inf)))
    return {
        "resolution_m": s.dsm.grid.resolution,
        "width": s.dsm.grid.width,
        "height": s.dsm.grid.height,
        **{f"{c.name.lower()}_share": float(shares[c] / shares.sum()) for c in MaskCode},
        "measured_share_by_pairs": {str(n): float(k / by_pairs.sum()) for n, k in enumerate(by_pairs) if k},
        "median_sigma_m": sigmas.quantile(0.5),
        "height_min_m": low,
        "height_max_m": high,
    }
