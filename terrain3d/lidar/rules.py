"""Named sets of quality rules for lidar returns, with thresholds that are written down in one place.

Every rule has a name; a reader counts the returns that each rule rejects, in the order in which it asks. A rule whose
field is not in the granule is not asked, and so rejects nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrain3d.errors import ConfigError

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class RuleSet:
    """Thresholds of one rule set; ``None`` switches a rule off. Heights and height differences in metres.

    name: 'standard', 'strict' or 'all'.
    min_ground_photons: ATL08 ``n_te_photons`` of the 100 m segment.
    max_terrain_uncertainty: ATL08 ``h_te_uncertainty``. It describes the 100 m segment and contains its relief, so a
        low limit throws away steep ground.
    max_cloud_layers: ATL08 ``cloud_flag_atm``, layers of cloud or aerosol over the segment.
    max_blowing_snow: ATL08 ``msw_flag``, multiple scattering by blowing snow or fog, 0 none to 5 strong.
    reject_water: ATL08 ``segment_watermask`` not 0.
    reject_snow: ATL08 ``segment_snowcover`` 2 (snow) or 3 (ice).
    reject_weak_beams: ATL08 beams with a quarter of the energy.
    require_quality_flag: GEDI ``quality_flag`` 1.
    require_surface_flag: GEDI ``surface_flag`` 1 (elevation within 300 m of a DEM or of the mean sea surface).
    require_no_degrade: GEDI ``degrade_flag`` 0 (pointing and orbit as planned).
    min_sensitivity: GEDI ``sensitivity``, canopy cover through which the ground is still seen.
    max_dem_difference: largest difference to the reference DEM that the product carries (ATL08 ``dem_h``, GEDI
        ``digital_elevation_model``); finds returns from clouds.
    """

    name: str
    min_ground_photons: int | None = None
    max_terrain_uncertainty: float | None = None
    max_cloud_layers: int | None = None
    max_blowing_snow: int | None = None
    reject_water: bool = False
    reject_snow: bool = False
    reject_weak_beams: bool = False
    require_quality_flag: bool = False
    require_surface_flag: bool = False
    require_no_degrade: bool = False
    min_sensitivity: float | None = None
    max_dem_difference: float | None = None


STANDARD = RuleSet(
    "standard",
    min_ground_photons=10,
    max_cloud_layers=1,
    max_blowing_snow=1,
    reject_water=True,
    require_quality_flag=True,
    require_surface_flag=True,
    require_no_degrade=True,
    min_sensitivity=0.9,
    max_dem_difference=150.0,
)
STRICT = RuleSet(
    "strict",
    min_ground_photons=50,
    max_terrain_uncertainty=10.0,
    max_cloud_layers=0,
    max_blowing_snow=0,
    reject_water=True,
    reject_snow=True,
    reject_weak_beams=True,
    require_quality_flag=True,
    require_surface_flag=True,
    require_no_degrade=True,
    min_sensitivity=0.95,
    max_dem_difference=50.0,
)
ALL = RuleSet("all")

RULE_SETS = (STANDARD, STRICT, ALL)


def rule_set(name: str) -> RuleSet:
    """Rule set by name. Raises ConfigError for an unknown name."""
    for rules in RULE_SETS:
        if rules.name == name:
            return rules
    raise ConfigError(f"unknown lidar rule set '{name}'", fix=f"use one of {', '.join(r.name for r in RULE_SETS)}")


class Sieve:
    """Applies rules one after the other and counts what each of them is the first to reject."""

    def __init__(self, n: int) -> None:
        self.kept: Bools = np.ones(n, bool)
        self.counts: list[tuple[str, int]] = []

    def keep(self, rule: str, passes: Bools) -> None:
        """Keep only returns that pass; the others are counted under the rule's name."""
        self.counts.append((rule, int((self.kept & ~passes).sum())))
        self.kept &= passes


def add_counts(parts: list[tuple[tuple[str, int], ...]]) -> tuple[tuple[str, int], ...]:
    """Sum of rejected counts by rule, rules in order of first appearance."""
    total: dict[str, int] = {}
    for part in parts:
        for rule, n in part:
            total[rule] = total.get(rule, 0) + n
    return tuple(total.items())
