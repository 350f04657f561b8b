"""Named sets of quality rules for lidar returns, with thresholds that are written down in one place.

Every rule has a name; a reader counts the returns that each rule rejects, in the order in which it asks. A rule whose
field is not in the granule cannot be asked, and so rejects nothing; which ones that are is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.errors import ConfigError

Bools = NDArray[np.bool_]
BASE = "base"


@dataclass(frozen=True)
class RuleSet:
    """Thresholds of one rule set; ``None`` or ``False`` switches a rule off. Heights and differences in metres.

    name: 'standard', 'strict' or 'all', with the limits that a configuration changed.

    Any product:
    require_night: sun below the horizon (ATL08 ``night_flag`` 1, else ``solar_elevation`` under 0).
    reject_weak_beams: ICESat-2 beams with a quarter of the energy, GEDI's coverage beams with half of it.
    max_dem_difference: largest difference to the reference DEM that the product carries (``dem_h``, GEDI
        ``digital_elevation_model``); finds returns from clouds.
    max_height_sigma: 1-sigma of the height that the product states (ATL06 ``h_li_sigma``, ATL06-SR ``h_sigma``, the
        column of a table, the fit of ATL03 photons).

    ICESat-2:
    min_ground_photons: ATL08 ``n_te_photons`` of 100 m, ATL06 and ATL06-SR ``n_fit_photons`` of 40 m; ATL03 asks for
        a fifth of it in its 20 m.
    max_terrain_uncertainty: ATL08 ``h_te_uncertainty``. It describes the 100 m segment and contains its relief, so a
        low limit throws away steep ground.
    max_cloud_layers: ``cloud_flag_atm``, layers of cloud or aerosol over the segment.
    max_blowing_snow: ``msw_flag``, multiple scattering by blowing snow or fog, 0 none to 5 strong.
    reject_water: ATL08 ``segment_watermask`` 1.
    reject_snow: ATL08 ``segment_snowcover`` 2 (snow) or 3 (ice).
    require_segment_quality: ATL06 ``atl06_quality_summary`` 0, ATL06-SR ``pflags`` 0.
    require_ground_photons: ATL06-SR made of photons that ATL08 calls ground, or of unclassified ones.
    min_signal_confidence: ATL03 ``signal_conf_ph`` for land, 2 low, 3 medium, 4 high; not asked of photons that ATL08
        has classified. Off means 2: anything less is background.
    require_nominal_photons: ATL03 ``quality_ph`` 0, no afterpulse, echo or saturation. Echoes of the transmitter are
        left out by every set.
    max_photon_spread: robust spread about the ground line of the signal photons of an ATL03 segment that ATL08 has not
        classified; more is canopy or a roof edge.
    max_degraded: ATL03 ``podppd_flag``, degraded orbit or pointing.

    GEDI:
    require_quality_flag: ``quality_flag`` 1.
    require_surface_flag: ``surface_flag`` 1 (elevation within 300 m of a DEM or of the mean sea surface).
    require_no_degrade: ``degrade_flag`` 0 (pointing and orbit as planned).
    min_sensitivity: ``sensitivity``, canopy cover through which the ground is still seen.
    max_mode_separation: difference between the ground elevation and that which half of the six algorithms find at
        most; where they disagree the lowest mode is not clear.
    """

    name: str
    require_night: bool = False
    reject_weak_beams: bool = False
    max_dem_difference: float | None = None
    max_height_sigma: float | None = None
    min_ground_photons: int | None = None
    max_terrain_uncertainty: float | None = None
    max_cloud_layers: int | None = None
    max_blowing_snow: int | None = None
    reject_water: bool = False
    reject_snow: bool = False
    require_segment_quality: bool = False
    require_ground_photons: bool = False
    min_signal_confidence: int | None = None
    require_nominal_photons: bool = False
    max_photon_spread: float | None = None
    max_degraded: int | None = None
    require_quality_flag: bool = False
    require_surface_flag: bool = False
    require_no_degrade: bool = False
    min_sensitivity: float | None = None
    max_mode_separation: float | None = None


STANDARD = RuleSet(
    "standard",
    max_dem_difference=150.0,
    max_height_sigma=1.0,
    min_ground_photons=10,
    max_cloud_layers=1,
    max_blowing_snow=1,
    reject_water=True,
    require_segment_quality=True,
    require_ground_photons=True,
    min_signal_confidence=3,
    require_nominal_photons=True,
    max_photon_spread=1.0,
    max_degraded=0,
    require_quality_flag=True,
    require_surface_flag=True,
    require_no_degrade=True,
    min_sensitivity=0.9,
    max_mode_separation=2.0,
)
STRICT = replace(
    STANDARD,
    name="strict",
    require_night=True,
    reject_weak_beams=True,
    max_dem_difference=50.0,
    max_height_sigma=0.3,
    min_ground_photons=50,
    max_terrain_uncertainty=10.0,
    max_cloud_layers=0,
    max_blowing_snow=0,
    reject_snow=True,
    min_signal_confidence=4,
    max_photon_spread=0.5,
    min_sensitivity=0.95,
    max_mode_separation=1.0,
)
ALL = RuleSet("all")

RULE_SETS = (STANDARD, STRICT, ALL)
LIMITS = tuple(f.name for f in fields(RuleSet) if f.name != "name")


def rule_set(rules: str | Mapping[str, Any]) -> RuleSet:
    """Rule set by name, or the limits that differ from those of ``base`` (standard if it is not named).

    Raises ConfigError for an unknown name or limit, and for a value of the wrong kind.
    """
    if isinstance(rules, str):
        found = next((s for s in RULE_SETS if s.name == rules), None)
        if found is None:
            names = ", ".join(r.name for r in RULE_SETS)
            raise ConfigError(f"unknown lidar rule set '{rules}'", fix=f"use one of {names}")
        return found
    changes = {k: v for k, v in rules.items() if k != BASE}
    base = rule_set(str(rules.get(BASE, STANDARD.name)))
    for key, value in changes.items():
        _check_limit(key, value)
    text = ", ".join(f"{k} {v}" for k, v in changes.items())
    return replace(base, name=f"{base.name} with {text}" if text else base.name, **changes)


def _check_limit(key: str, value: Any) -> None:
    kinds = {f.name: str(f.type) for f in fields(RuleSet)}
    if key not in LIMITS:
        raise ConfigError(f"unknown key 'lidar_rules.{key}'", fix=f"known keys here: {BASE}, {', '.join(LIMITS)}")
    if kinds[key] == "bool":
        wanted, fits = "true or false", isinstance(value, bool)
    else:
        number = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
        wanted, fits = "a number, or null for no limit", value is None or number
    if not fits:
        raise ConfigError(f"lidar_rules.{key}: '{value}' is not {wanted}")


class Sieve:
    """Applies rules one after the other and counts what each of them is the first to reject.

    unasked: rules that are wanted and whose field is missing.
    """

    def __init__(self, n: int) -> None:
        self.kept: Bools = np.ones(n, bool)
        self.counts: list[tuple[str, int]] = []
        self.unasked: list[str] = []

    def keep(self, rule: str, passes: Bools) -> None:
        """Keep only returns that pass; the others are counted under the rule's name.

        Raises ValueError where there are more or fewer values than returns.
        """
        if passes.shape != self.kept.shape:
            raise ValueError(f"{self.kept.size} heights, but {passes.size} values for the rule '{rule}'")
        self.counts.append((rule, int((self.kept & ~passes).sum())))
        self.kept &= passes

    def limit(self, rule: str, values: NDArray[np.float64] | None, low: float | None = None, high: float | None = None,
              unknown: bool = True) -> None:  # fmt: skip
        """Keep returns with values from ``low`` to ``high``, and NaN if ``unknown``; without a limit all are kept."""
        if low is None and high is None:
            return
        if values is None:
            self.unasked.append(rule)
            return
        passes = np.full(values.shape, True)
        if low is not None:
            passes &= ~(values < low)
        if high is not None:
            passes &= ~(values > high)
        self.keep(rule, passes if unknown else passes & ~np.isnan(values))

    def flag(self, rule: str, wanted: bool, values: NDArray[Any] | None, good: Callable[[NDArray[Any]], Bools]) -> None:
        """Keep returns whose values of a flag are good, where the rule is wanted."""
        if wanted and values is None:
            self.unasked.append(rule)
        elif wanted and values is not None:
            self.keep(rule, good(values))


def add_counts(parts: list[tuple[tuple[str, int], ...]]) -> tuple[tuple[str, int], ...]:
    """Sum of rejected counts by rule, rules in order of first appearance."""
    total: dict[str, int] = {}
    for part in parts:
        for rule, n in part:
            total[rule] = total.get(rule, 0) + n
    return tuple(total.items())
