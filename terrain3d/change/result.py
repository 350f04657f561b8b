"""What change detection is asked for, and what it hands over."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from math import exp
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from shapely import MultiPolygon, Polygon

from terrain3d.change.align import Alignment
from terrain3d.change.kinds import Kind
from terrain3d.change.regions import Measures
from terrain3d.change.significance import SignificanceOptions
from terrain3d.change.stable import StableStatistics
from terrain3d.io.scratch import StoredRaster
from terrain3d.raster import Raster

R = TypeVar("R", Raster, StoredRaster)


@dataclass(frozen=True)
class ChangeOptions:
    """min_area: m2 of the smallest region. min_stand_area: m2 of the smallest change of trees or amid trees, larger
    because single crowns come and go with the matching. level: share of the reported changes that may be none (false
    discovery rate). test: levels of significance and the least height change. vertical_before, vertical_after: what
    heights are over, whatever the files declare (``epoch.common_vertical``)."""

    min_area: float = 25.0
    min_stand_area: float = 100.0
    level: float = 0.05
    test: SignificanceOptions = field(default_factory=SignificanceOptions)
    vertical_before: str | None = None
    vertical_after: str | None = None


@dataclass(frozen=True)
class Region:
    """One change. ``polygon`` in the CRS of the result's grid; gains have positive height change and volume.

    part: 'source' or 'deposit' of a landslide. event: number of the landslide or construction site that it belongs to,
    0 for none. tone: brightness after over before, against that of the surroundings; NaN without images.
    confidence: 0..1, that this is a change and of this kind: certainty of the height change, times the share of
    the area that was measured, times the probability of the kind.
    """

    polygon: Polygon | MultiPolygon
    kind: Kind
    measures: Measures
    confidence: float
    part: str = ""
    event: int = 0
    cover_before: str = ""
    cover_after: str = ""
    tone: float = float("nan")

    def attributes(self) -> dict[str, str | float | int]:
        """Columns of the layer ``changes``."""
        m = self.measures
        return {
            "kind": str(self.kind),
            "area_m2": m.area,
            "mean_dz_m": m.mean_dz,
            "volume_m3": m.volume,
            "volume_sigma_m3": m.volume_sigma,
            "confidence": self.confidence,
            "extreme_dz_m": m.extreme_dz,
            "ground_volume_m3": m.ground_volume,
            "ground_volume_sigma_m3": m.ground_volume_sigma,
            "part": self.part,
            "event": self.event,
            "cover_before": self.cover_before,
            "cover_after": self.cover_after,
            "tone": self.tone,
        }


@dataclass(frozen=True)
class ChangeResult(Generic[R]):
    """All on one grid: ``difference`` (after - before, m, NaN where not measured in both epochs), its ``sigma`` (m),
    ``significant`` (uint8, 1 where the cell belongs to a supported change), ``detectable`` (m, the smallest change that
    would have been seen there).

    compared, changed: cells with a difference, and significant ones.
    """

    difference: R
    sigma: R
    significant: R
    detectable: R
    regions: tuple[Region, ...]
    alignment: Alignment
    stable: StableStatistics
    notes: tuple[str, ...]
    compared: int
    changed: int

    def quality(self) -> dict[str, Any]:
        """Figures for ``quality.json``."""
        grid = self.difference.grid
        cell = grid.resolution**2
        kinds = Counter(str(r.kind) for r in self.regions)
        return {
            "alignment": {
                **asdict(self.alignment),
                "tilt_east_m_per_km": 1000 * self.alignment.tilt_east,
                "tilt_north_m_per_km": 1000 * self.alignment.tilt_north,
            },
            "stable": asdict(self.stable),
            "compared_share": self.compared / (grid.height * grid.width),
            "compared_area_m2": self.compared * cell,
            "significant_area_m2": self.changed * cell,
            "regions": {str(k): kinds[str(k)] for k in Kind if str(k) in kinds},
            "notes": list(self.notes),
        }


def confidence(measures: Measures, margin: float) -> float:
    """0..1 from height change over its sigma, the share of the area that was measured, and the kind's probability."""
    return round((1 - exp(-measures.certainty / 2)) * measures.measured_share * margin, 3)


def discoveries(certainty: NDArray[np.float64], tests: float, level: float) -> NDArray[np.bool_]:
    """Which of the changes stand, with at most the share ``level`` of them false (Benjamini & Hochberg 1995).

    certainty: height change over its sigma, one a change. tests: independent places where a change might have been
    found; all but the ones given count as tested and not found.
    """
    p = 2 * ndtr(-np.abs(certainty))
    order = np.argsort(p)
    rank = np.arange(1, p.size + 1)
    passed = np.flatnonzero(p[order] <= level * rank / max(tests, p.size, 1))
    out = np.zeros(p.size, bool)
    if passed.size:
        out[order[: passed[-1] + 1]] = True
    return out
