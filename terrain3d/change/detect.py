"""Change between two epochs: co-registration, test, regions, kinds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import exp
from typing import Any

import numpy as np
from shapely import MultiPolygon, Polygon

from terrain3d.change.align import Alignment, align, moved
from terrain3d.change.epoch import ASSUMED_SIGMA, Epoch, common_vertical
from terrain3d.change.filters import Array
from terrain3d.change.kinds import Kind, Scene, classify
from terrain3d.change.regions import Measures, measure, outline, patches
from terrain3d.change.resample import averaged_to, common_grid, resample
from terrain3d.change.significance import SignificanceOptions, significance
from terrain3d.change.stable import StableStatistics
from terrain3d.errors import OverlapError
from terrain3d.raster import Grid, Raster
from terrain3d.surface.mask import MaskCode


@dataclass(frozen=True)
class ChangeOptions:
    """min_area: m2 of the smallest region. min_stand_area: m2 of the smallest change of trees or amid trees, larger
    because single crowns come and go with the matching. test: levels of significance and the least height change."""

    min_area: float = 25.0
    min_stand_area: float = 100.0
    test: SignificanceOptions = field(default_factory=SignificanceOptions)


@dataclass(frozen=True)
class Region:
    """One change. ``polygon`` in the CRS of the result's grid; gains have positive height change and volume.

    confidence: 0..1, that this is a change and of this kind: certainty of the height change, times the share of
    the area that was measured, times the margin by which the rules decided.
    """

    polygon: Polygon | MultiPolygon
    kind: Kind
    measures: Measures
    confidence: float

    def attributes(self) -> dict[str, str | float]:
        """Columns of the layer ``changes``."""
        return {
            "kind": str(self.kind),
            "area_m2": self.measures.area,
            "mean_dz_m": self.measures.mean_dz,
            "volume_m3": self.measures.volume,
            "volume_sigma_m3": self.measures.volume_sigma,
            "confidence": self.confidence,
        }


@dataclass(frozen=True)
class ChangeResult:
    """All on one grid: ``difference`` (after - before, m, NaN where not measured in both epochs), its ``sigma`` (m),
    ``significant`` (uint8, 1 where the cell belongs to a supported change)."""

    difference: Raster
    sigma: Raster
    significant: Raster
    regions: tuple[Region, ...]
    alignment: Alignment
    stable: StableStatistics
    notes: tuple[str, ...]

    def quality(self) -> dict[str, Any]:
        """Figures for ``quality.json``."""
        measured = np.isfinite(self.difference.values)
        cell = self.difference.grid.resolution**2
        kinds = [r.kind for r in self.regions]
        return {
            "alignment": {
                **asdict(self.alignment),
                "tilt_east_m_per_km": 1000 * self.alignment.tilt_east,
                "tilt_north_m_per_km": 1000 * self.alignment.tilt_north,
            },
            "stable": asdict(self.stable),
            "compared_share": float(measured.mean()),
            "compared_area_m2": float(np.count_nonzero(measured) * cell),
            "significant_area_m2": float(np.count_nonzero(self.significant.values) * cell),
            "regions": {str(k): kinds.count(k) for k in Kind if k in kinds},
            "notes": list(self.notes),
        }


def detect(before: Epoch, after: Epoch, options: ChangeOptions | None = None) -> ChangeResult:
    """What changed from ``before`` to ``after``.

    The epochs may differ in grid, CRS and (with geoid grids present) vertical reference. Raises OverlapError if they
    do not cover common ground, FrameError if their heights cannot be brought into one reference.
    """
    options = options or ChangeOptions()
    before, after, notes = common_vertical(before, after)
    grid = common_grid(before.dsm.grid, after.dsm.grid)
    if grid.resolution > before.dsm.grid.resolution * 1.01 and before.dsm.grid.reference.crs.is_projected:
        notes.append(f"compared at {grid.resolution:g} m, the resolution of {after.name}")
    for epoch in (before, after):
        if epoch.sigma is None:
            notes.append(f"{epoch.name} has no sigma: {ASSUMED_SIGMA:g} m assumed, then calibrated on the scene")

    first = _heights(before, grid)
    second = averaged_to(_measured(after), grid)
    nominal = _sigma(before, grid, None)
    alignment = align(first, second, np.hypot(nominal, _sigma(after, grid, None)))
    if not alignment.converged:
        notes.append("co-registration did not converge: its last step was larger than a fiftieth of a cell")
    first_heights, second_heights = first.values, moved(second, grid, alignment).values
    if not np.isfinite(first_heights - second_heights).any():
        raise OverlapError("the two surfaces have no measured cell in common", fix="give epochs of common ground")
    sigma = np.hypot(nominal, _sigma(after, grid, alignment)).astype(np.float32)

    tested = significance(first_heights, second_heights, sigma, grid.resolution, options.test)
    difference = second_heights - first_heights
    found = list(patches(tested.change, difference, grid.resolution, options.min_area, options.test.min_height))
    scene = Scene(
        first_heights, second_heights, _ground(before, grid, None), _ground(after, grid, alignment),
        tested.smooth_limit, grid.resolution,
    )  # fmt: skip
    regions = []
    for item in classify(found, scene):
        m = measure(item.patch, difference, tested.sigma, tested.stable, grid)
        certainty = abs(m.mean_dz) / max(m.mean_dz_sigma, 1e-3)
        # Crowns come and go with the matching, also where errors are long-tailed: single ones are no change.
        weak = m.area < options.min_stand_area or certainty < options.test.seed_z
        if weak and item.wooded and item.verdict.kind is not Kind.LANDSLIDE:
            continue
        confidence = round((1 - exp(-certainty / 2)) * m.measured_share * item.verdict.margin, 3)
        regions.append(Region(outline(item.patch, grid), item.verdict.kind, m, confidence))
    return ChangeResult(
        difference=Raster(difference, grid),
        sigma=Raster(np.where(np.isfinite(difference), tested.sigma, np.nan).astype(np.float32), grid),
        significant=Raster((tested.change != 0).astype(np.uint8), grid),
        regions=tuple(regions),
        alignment=alignment,
        stable=tested.stable,
        notes=tuple(notes),
    )


def _measured(epoch: Epoch) -> Raster:
    """Heights of cells that were measured; NaN for filled cells, water and nodata, which say nothing of change."""
    if epoch.mask is None:
        return epoch.dsm
    codes = epoch.mask if epoch.mask.grid == epoch.dsm.grid else resample(epoch.mask, epoch.dsm.grid)
    return Raster(np.where(codes.values == MaskCode.MEASURED, epoch.dsm.values, np.float32(np.nan)), epoch.dsm.grid)


def _heights(epoch: Epoch, grid: Grid) -> Raster:
    return resample(averaged_to(_measured(epoch), grid), grid)


def _sigma(epoch: Epoch, grid: Grid, alignment: Alignment | None) -> Array:
    """Sigma on the grid; where it has no value, the largest common one of the scene."""
    if epoch.sigma is None:
        return np.full(grid.shape, ASSUMED_SIGMA, np.float32)
    raster = averaged_to(epoch.sigma, grid)
    values = (resample(raster, grid) if alignment is None else moved(raster, grid, alignment, heights=False)).values
    known = values[np.isfinite(values) & (values > 0)]
    worst = float(np.percentile(known, 95)) if known.size else ASSUMED_SIGMA
    return np.where(np.isfinite(values) & (values > 0), values, np.float32(worst)).astype(np.float32)


def _ground(epoch: Epoch, grid: Grid, alignment: Alignment | None) -> Array | None:
    if epoch.dtm is None:
        return None
    raster = averaged_to(epoch.dtm, grid)
    return resample(raster, grid).values if alignment is None else moved(raster, grid, alignment).values
