"""Figures of a registration to lidar for ``quality.json``: plain values, units in the names."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from terrain3d.adjust.level import HeightTies
from terrain3d.lidar.read import LidarSet
from terrain3d.register.registration import Registration
from terrain3d.stats import ErrorSummary


def error_figures(found: ErrorSummary | None) -> dict[str, Any] | None:
    """Errors of a group; None where too few were there to tell."""
    return None if found is None else asdict(found)


def lidar_figures(lidar: LidarSet, r: Registration, ties: HeightTies | None = None) -> dict[str, Any]:
    """What was read, used and rejected by rule, what was corrected, and the errors on held-out tracks.

    ties: what lidar heights in the image adjustment would do; None where there was none.
    """
    return {
        "read": lidar.n_read,
        "rejected_by_rule": dict(lidar.rejected),
        "rules": lidar.rules,
        "rules_not_asked": {product: list(rules) for product, rules in lidar.unasked.items()},
        "frame": lidar.frame,
        "not_used_by_rule": dict(r.report.rejected),
        "used": int(r.used.sum()),
        "shift_m": [r.dx, r.dy, r.dz],
        "shift_sigma_m": [float(s) for s in np.sqrt(np.diag(r.covariance)[:3])],
        "tilt_m_per_km": [1000 * r.tilt_e, 1000 * r.tilt_n],
        "tilt_sigma_m_per_km": [1000 * float(s) for s in np.sqrt(np.diag(r.covariance)[3:])],
        "smooth_correction_m": _largest(r),
        "vertical_sigma_m": None if r.smooth is None else float(np.median(r.smooth.sigma.values)),
        "applied": r.applied,
        "horizontal": r.horizontal_reason,
        "held_out_before": error_figures(r.before),
        "held_out_after": error_figures(r.after),
        "held_out_by": [
            {"by": g.by, "group": g.name, "n": g.n, "before": error_figures(g.before), "after": error_figures(g.after)}
            for g in r.report.groups
        ],
        "held_out_coverage": None
        if r.report.coverage is None
        else dict(zip(("68", "90", "95"), r.report.coverage, strict=True)),
        "residual_scale": None if np.isnan(r.report.scale) else r.report.scale,
        "held_out_gross": r.report.n_gross,
        "in_adjustment_instead": _in_adjustment(ties),
        "folds": len(r.report.folds),
        "note": r.report.note,
        "notes": list(r.notes),
    }


def _in_adjustment(ties: HeightTies | None) -> dict[str, Any] | None:
    """What lidar heights as observations of the adjustment would do; None for what is not known."""
    if ties is None:
        return None
    return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in asdict(ties).items()}


def _largest(r: Registration) -> float:
    """Largest absolute value of the smooth part of the height correction; 0 where there is none."""
    if r.smooth is None or r.smooth.height is None:
        return 0.0
    return float(np.abs(r.smooth.height.values).max())
