"""What the tiles of an area were made from, for their lineage."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from terrain3d.export.lineage import Lineage, Source
from terrain3d.pipeline.batch.inputs import Inputs
from terrain3d.pipeline.batch.plan import TilePlan
from terrain3d.pipeline.result import RunResult


def lineage_of(t: TilePlan, inputs: Inputs, result: RunResult) -> Lineage:
    """What one tile was made from."""
    images = tuple(Source("image", v.image.path.name, v.acquired) for v in inputs.views if v.name in t.images)
    lidar = tuple(Source("lidar", name) for name in t.granules)
    config = inputs.scene.config
    options: dict[str, Any] = config.output.model_dump(exclude_none=True) | {"lidar_rules": config.lidar_rules}
    options["water"] = config.water.model_dump(exclude_none=True)
    if inputs.scene.reference_dem is not None:
        options["reference_dem"] = inputs.scene.reference_dem.path
    received = _received(inputs, t.images)
    pairs = [p for p in result.pairs if p.chosen and p.area.intersects(t.sheet.outline)]
    names = tuple((result.views[p.left].name, result.views[p.right].name) for p in pairs)
    shown = shapely.union_all([p.area for p in pairs]).intersection(t.sheet.outline)
    figures = _accuracy(result, {name for pair in names for name in pair}, shown)
    return Lineage(config.name, images + lidar, options, figures, names, received, result.registered)


def _accuracy(result: RunResult, images: set[str], shown: BaseGeometry) -> dict[str, float | None]:
    """Residuals of some images, sigma of the heights at a place that they show, and figures that hold for the whole
    area; the held-out ones are model minus lidar."""
    rms = [r for r, v in zip(result.network.adjustment.rms_after_px, result.views, strict=True) if v.name in images]
    out: dict[str, float | None] = {"adjustment_rms_px": max(rms, default=None)}
    r = result.registration
    if r is None:
        return out
    after = r.after
    for name in ("bias", "nmad", "rmse", "le90"):
        out[f"held_out_{name}_m"] = None if after is None else getattr(after, name)
    out["held_out_returns"] = None if after is None else after.n
    if r.smooth is not None:
        east, north = np.sqrt(np.diag(r.covariance)[:2])
        out["sigma_sideways_m"] = float(np.hypot(east, north) / np.sqrt(2))  # of either coordinate
        place = shown.representative_point()
        out["sigma_up_m"] = None if place.is_empty else float(r.sigma_at(np.array(place.x), np.array(place.y)))
    return out


def newest(inputs: Inputs) -> datetime:
    """Time of the newest image; where none is known, when its file was written."""
    times = [_utc(v.acquired) for v in inputs.views if v.acquired is not None]
    return max(times) if times else _received(inputs, tuple(v.name for v in inputs.views))


def _utc(time: datetime) -> datetime:
    """The time with its zone; without one it is UTC."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _received(inputs: Inputs, names: tuple[str, ...]) -> datetime:
    """When the newest file of some images was written."""
    written = max(v.image.path.stat().st_mtime for v in inputs.views if v.name in names)
    return datetime.fromtimestamp(int(written), UTC)
