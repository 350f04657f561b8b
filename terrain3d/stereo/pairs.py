"""Which images are matched with which, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from terrain3d.errors import OverlapError
from terrain3d.image.sun import sun_direction
from terrain3d.image.view import View, footprint, lean

MIN_BASE_TO_HEIGHT = 0.04
MAX_BASE_TO_HEIGHT = 1.2
BEST_BASE_TO_HEIGHT = 0.35  # small enough to look alike, large enough to measure
MIN_OVERLAP = 0.05
PARTNERS = 2  # of a view, beyond which a pair of it is kept only for what nothing else gives
LEAST_CLEAR = 0.5  # share of a view that others see, for a pair in place of one with cloud; and what is missed of one
NEW_GROUND = 0.05  # share of a pair's area that no better pair covers, from which on it is kept
# Vegetation, cars and snow change with time, shadows with the sun: at these the score is halved.
TIME_GAP_DAYS = 60.0
SUN_DIFFERENCE_DEG = 20.0


@dataclass(frozen=True)
class Pair:
    """A pair of views by index.

    convergence_deg: angle between the rays. overlap: common ground as a share of the smaller footprint; area: that
    ground, in the CRS of the run. chosen, reason: the decision. time_gap_days, sun_difference_deg (between the
    directions to the sun): None where an acquisition time is not known."""

    left: int
    right: int
    base_to_height: float
    convergence_deg: float
    overlap: float
    area: Polygon
    chosen: bool
    reason: str
    time_gap_days: float | None = None
    sun_difference_deg: float | None = None

    @property
    def has_usable_base(self) -> bool:
        """Whether heights can be measured with it, and it can be matched."""
        return MIN_BASE_TO_HEIGHT <= self.base_to_height <= MAX_BASE_TO_HEIGHT

    @property
    def score(self) -> float:
        """How well the pair can be matched and measured, 0 to 1. What is not known does not count."""
        apart = (self.time_gap_days or 0.0) / TIME_GAP_DAYS
        sun = (self.sun_difference_deg or 0.0) / SUN_DIFFERENCE_DEG
        base = np.exp(-abs(np.log(self.base_to_height / BEST_BASE_TO_HEIGHT)))
        return float(self.overlap * base / ((1 + apart) * (1 + sun)))


def choose_pairs(views: list[View], crs: str, height: float) -> list[Pair]:
    """All pairs with the decision on each; chosen ones first, the best first.

    Up to three views, every pair with usable geometry is matched. With more, the best pair of all comes first, and a
    pair is kept as long as one of its views has fewer than PARTNERS partners; so there are about as many pairs as
    views. A pair beyond these is kept where it covers ground that no better one does, or ties groups of images
    together. Raises OverlapError with every pair's reason when none is usable.
    """
    prints = [footprint(v, crs, height) for v in views]
    leans = [lean(v, crs, height) for v in views]
    suns = [_sun(v, height) for v in views]
    candidates = [_judge(i, j, views, prints, leans, suns) for i, j in combinations(range(len(views)), 2)]
    usable = sorted((p for p in candidates if p.chosen), key=lambda p: p.score, reverse=True)
    if not usable:
        reasons = "; ".join(f"{views[p.left].name} + {views[p.right].name}: {p.reason}" for p in candidates)
        raise OverlapError(
            f"no pair of images can be matched ({reasons})", fix="check that the images show the same place"
        )
    kept, dropped = _limit(usable, len(views))
    return kept + dropped + [p for p in candidates if not p.chosen]


def with_clear_partners(pairs: list[Pair], clear: Sequence[float]) -> list[Pair]:
    """Pairs as decided, and after the chosen ones those that views want whose partners are hidden by cloud.

    clear: share of each view that shows the ground; of a pair at most the lesser one counts.
    """
    partners = np.zeros(len(clear))

    def share(pair: Pair) -> float:
        return min(clear[pair.left], clear[pair.right])

    chosen = [p for p in pairs if p.chosen]
    for p in chosen:
        partners[[p.left, p.right]] += share(p)
    rest, more = [p for p in pairs if not p.chosen], []
    for p in sorted(rest, key=lambda p: p.score * share(p), reverse=True):
        usable = p.has_usable_base and p.overlap >= MIN_OVERLAP and share(p) >= LEAST_CLEAR
        if usable and min(partners[p.left], partners[p.right]) <= PARTNERS - LEAST_CLEAR:
            partners[[p.left, p.right]] += share(p)
            more.append(replace(p, chosen=True, reason=f"better partners are hidden by cloud or the like ({p.reason})"))
    added = {(p.left, p.right) for p in more}
    return chosen + more + [p for p in rest if (p.left, p.right) not in added]


def _sun(view: View, height: float) -> NDArray[np.float64] | None:
    if view.acquired is None:
        return None
    lon, lat = view.camera.locate(*view.centre(), height)
    return sun_direction(view.acquired, float(lon), float(lat))


def _judge(
    i: int,
    j: int,
    views: list[View],
    prints: list[Polygon],
    leans: list[NDArray[np.float64]],
    suns: list[NDArray[np.float64] | None],
) -> Pair:
    area = prints[i].intersection(prints[j])
    overlap = area.area / max(min(prints[i].area, prints[j].area), 1e-9)
    base = float(np.hypot(*(leans[i] - leans[j])))
    rays = [np.array([*t, -1.0]) / np.sqrt(1 + t @ t) for t in leans]
    angle = float(np.degrees(np.arccos(np.clip(rays[i] @ rays[j], -1, 1))))
    a, b = views[i].acquired, views[j].acquired
    gap = None if a is None or b is None else abs((a - b).total_seconds()) / 86_400
    one, two = suns[i], suns[j]
    sun = None if one is None or two is None else float(np.degrees(np.arccos(np.clip(one @ two, -1, 1))))
    if overlap < MIN_OVERLAP:
        chosen, reason = False, f"overlap {overlap:.0%} is below {MIN_OVERLAP:.0%}"
    elif base < MIN_BASE_TO_HEIGHT:
        chosen, reason = False, f"base to height {base:.3f} is too small to measure heights"
    elif base > MAX_BASE_TO_HEIGHT:
        chosen, reason = False, f"base to height {base:.2f} is too large to match"
    else:
        chosen, reason = True, f"convergence {angle:.1f} deg, base to height {base:.2f}, overlap {overlap:.0%}"
        reason += "" if gap is None or sun is None else f", {_span(gap)} apart, sun {sun:.1f} deg apart"
    return Pair(i, j, base, angle, overlap, area, chosen, reason, gap, sun)


def _span(days: float) -> str:
    seconds = days * 86_400
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _limit(usable: list[Pair], n_views: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to keep, best first, and pairs to drop, with reasons."""
    if n_views <= 3:
        return usable, []
    partners = np.zeros(n_views, int)
    group = np.arange(n_views)
    covered: BaseGeometry = Polygon()
    kept: list[Pair] = []
    dropped: list[Pair] = []
    for pair in usable:
        if min(partners[pair.left], partners[pair.right]) < PARTNERS:
            kept.append(pair)
        elif (new := pair.area.difference(covered).area / pair.area.area) > NEW_GROUND:
            kept.append(replace(pair, reason=f"{pair.reason}; covers ground that no better pair does ({new:.0%})"))
        elif group[pair.left] != group[pair.right]:
            kept.append(replace(pair, reason=f"{pair.reason}; ties groups of images together"))
        else:
            reason = f"both images have better partners ({pair.reason})"
            dropped.append(replace(pair, chosen=False, reason=reason))
            continue
        partners[[pair.left, pair.right]] += 1
        group[group == group[pair.right]] = group[pair.left]
        covered = covered.union(pair.area)
    return kept, dropped
